// The other design of the log, as far as its cost can be measured: two preallocated segments with checksummed frames, one
// flush for each group, and the SQLite log below it, into which a segment that is full is folded while the other is written.
// It cannot be opened again: recovery is what would be written next, had the figures asked for it
// (docs/adr/2026-11-21-log-in-sqlite-wal.md).
import { crc32 } from "node:zlib";
import { type DatastoreLog, emptyBatch, type LogBatch, type LogRecord } from "#datastore/log/log.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";

const segmentBytes = 8 * 1024 * 1024;
const frameHeaderBytes = 24;
const recordHeaderBytes = 44;
/** Records of one transaction of a fold: more would hold the thread for too long. */
const foldRecords = 256;

export interface AppendLog extends DatastoreLog {
  readonly counted: { bytes: number; flushes: number };
}

export async function openAppendLog(path: string, files: BlockFiles, store: DatastoreLog): Promise<AppendLog> {
  const segments: BlockFile[] = [];
  for (const name of ["a", "b"]) {
    const file = files.open(`${path}-append-${name}`, { create: true });
    // In small pieces: what is written at once may become one large page of the cache, which is then dirty as a whole.
    for (let at = 0; at < segmentBytes; at += 4096) file.write(new Uint8Array(4096), at);
    await file.flush();
    segments.push(file);
  }
  const counted = { bytes: 0, flushes: 0 };
  let active = 0;
  let used = 0;
  let sequence = 0;
  let waiting: LogBatch[] = [];
  let folding: Promise<void> = Promise.resolve();

  const fold = async (batches: readonly LogBatch[]) => {
    // What was written and dropped within the same segment is never folded.
    const dropped = new Set(batches.flatMap((batch) => batch.dropped.map(rowName)));
    const all = batches.flatMap((batch) => batch.records);
    const records = all.filter((record) => !dropped.has(rowName(record)));
    const written = new Set(all.map(rowName));
    const drops = batches.flatMap((batch) => batch.dropped).filter((row) => !written.has(rowName(row)));
    for (let i = 0; i < Math.max(records.length, drops.length); i += foldRecords) {
      const part = { records: records.slice(i, i + foldRecords), dropped: drops.slice(i, i + foldRecords) };
      await store.append({ ...emptyBatch, ...part });
    }
  };
  return {
    counted,
    full: false,
    load: (start) => store.load(start),
    async append(batch) {
      const frame = encode(batch, sequence++);
      if (used + frame.length > segmentBytes) {
        await folding;
        const batches = waiting;
        waiting = [];
        folding = fold(batches);
        active = 1 - active;
        used = 0;
      }
      const file = segments[active]!;
      file.write(frame, used);
      used += frame.length;
      waiting.push(batch);
      counted.bytes += frame.length;
      counted.flushes++;
      await file.flush();
    },
    recover: (revision) => store.recover(revision),
    async close() {
      await folding;
      await fold(waiting);
      for (const file of segments) file.close();
      await store.close();
    },
  };
}

const rowName = ({ revision, sub }: { revision: number; sub: number }): string => `${revision}/${sub}`;

function encode(batch: LogBatch, sequence: number): Buffer {
  const bytes = batch.records.reduce(
    (sum, record) => sum + recordHeaderBytes + record.key.length + record.value.length,
    0,
  );
  const frame = Buffer.alloc(frameHeaderBytes + bytes + batch.dropped.length * 16);
  let at = frameHeaderBytes;
  for (const record of batch.records) at = encodeRecord(frame, at, record);
  for (const { revision, sub } of batch.dropped) {
    frame.writeDoubleLE(revision, at);
    frame.writeDoubleLE(sub, at + 8);
    at += 16;
  }
  frame.writeUInt32LE(frame.length, 0);
  frame.writeDoubleLE(sequence, 8);
  frame.writeUInt32LE(crc32(frame.subarray(frameHeaderBytes)), 4);
  return frame;
}

function encodeRecord(frame: Buffer, start: number, record: LogRecord): number {
  frame.writeDoubleLE(record.revision, start);
  frame.writeDoubleLE(record.create, start + 8);
  frame.writeDoubleLE(record.lease, start + 16);
  frame.writeUInt32LE(record.sub, start + 24);
  frame.writeUInt32LE(record.version, start + 28);
  frame.writeUInt32LE(record.flags, start + 32);
  frame.writeUInt32LE(record.key.length, start + 36);
  frame.writeUInt32LE(record.value.length, start + 40);
  const at = start + recordHeaderBytes;
  frame.write(record.key, at, "latin1");
  frame.set(record.value, at + record.key.length);
  return at + record.key.length + record.value.length;
}
