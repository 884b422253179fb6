// The log of a recorded block device: every write, flush and discard in the order in which the device completed them.
// Format of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst), which QEMU's `blklogwrites`
// writes too: a superblock in sector 0, then per entry a header that fills one sector and the data behind it.
// Pure: bytes come from a reader, so that a log of gigabytes is parsed by its headers alone.
// Note on QEMU: it notes an entry when the operation is complete, and the entry count in the superblock at each flush.

/** Units of the log: `sector`, `sectorCount` and the header size count in these bytes. */
export const sectorBytes = 512;

export const logFlags = { flush: 1, fua: 2, discard: 4, mark: 8, metadata: 16 } as const;

export interface LogEntry {
  /** Everything completed before this entry is durable. */
  readonly flush: boolean;
  /** This write itself is durable once complete. */
  readonly fua: boolean;
  readonly discard: boolean;
  /** Text that the recorder put in between; no write. */
  readonly mark: string | undefined;
  readonly sector: number;
  /** 0 for a bare flush or a mark. */
  readonly sectorCount: number;
  /** Where the data begins in the log file; meaningless for discards. */
  readonly dataOffset: number;
}

export interface DeviceLog {
  readonly entries: readonly LogEntry[];
  readonly sizeBytes: number;
}

export type ReadAt = (offset: number, length: number) => Uint8Array;

const magic = 0x6a736677736872n;
const version = 1n;

/** How many entries the superblock vouches for: those up to the last flush. 0 when nothing is written yet. */
export function countLogEntries(read: ReadAt): number {
  const head = viewOf(read(0, 32));
  if (head.byteLength < 32 || head.getBigUint64(0, true) === 0n) return 0;
  if (head.getBigUint64(0, true) !== magic) throw new Error("not a log of dm-log-writes: wrong magic number");
  if (head.getBigUint64(8, true) !== version)
    throw new Error(`log format ${head.getBigUint64(8, true)} is not known, only 1`);
  const size = head.getUint32(24, true);
  if (size !== sectorBytes) throw new Error(`log counts in sectors of ${size} bytes, only ${sectorBytes} is supported`);
  return Number(head.getBigUint64(16, true));
}

/** Reads the headers. Throws when the file ends before the entries that its superblock promises, or one is malformed. */
export function parseLog(read: ReadAt): DeviceLog {
  const count = countLogEntries(read);
  const entries: LogEntry[] = [];
  let offset = sectorBytes;
  for (let i = 0; i < count; i++) {
    const head = viewOf(read(offset, 32));
    if (head.byteLength < 32) throw new Error(`log ends at entry ${i} of ${count}`);
    const flags = Number(head.getBigUint64(16, true));
    const sectorCount = Number(head.getBigUint64(8, true));
    const textBytes = Number(head.getBigUint64(24, true));
    const is = (flag: number) => (flags & flag) !== 0;
    if (flags > 31 || sectorCount > 2 ** 40) throw new Error(`log entry ${i} is malformed: flags ${flags}`);
    const isMark = is(logFlags.mark);
    // A mark's text follows its header inside the same sector.
    const text = isMark ? read(offset + 32, Math.min(textBytes, sectorBytes - 32)) : undefined;
    entries.push({
      flush: is(logFlags.flush),
      fua: is(logFlags.fua),
      discard: is(logFlags.discard),
      mark: text && new TextDecoder().decode(text),
      sector: Number(head.getBigUint64(0, true)),
      sectorCount: isMark ? 0 : sectorCount,
      dataOffset: offset + sectorBytes,
    });
    offset += sectorBytes + (is(logFlags.discard) || isMark ? 0 : sectorCount * sectorBytes);
  }
  return { entries, sizeBytes: offset };
}

export interface LogRecordInput {
  readonly flush?: boolean;
  readonly fua?: boolean;
  readonly discard?: boolean;
  readonly mark?: string;
  readonly sector?: number;
  /** Whole sectors. For a discard only its length counts. */
  readonly data?: Uint8Array;
}

/** The reverse of parseLog, for tests and for recorders of our own. */
export function encodeLog(records: readonly LogRecordInput[]): Uint8Array<ArrayBuffer> {
  const sectors: Uint8Array[] = [];
  const head = new Uint8Array(sectorBytes);
  const view = viewOf(head);
  view.setBigUint64(0, magic, true);
  view.setBigUint64(8, version, true);
  view.setBigUint64(16, BigInt(records.length), true);
  view.setUint32(24, sectorBytes, true);
  sectors.push(head);
  for (const record of records) {
    const data = record.data ?? new Uint8Array();
    if (data.length % sectorBytes !== 0) throw new Error(`data of ${data.length} bytes is not whole sectors`);
    const text = new TextEncoder().encode(record.mark ?? "");
    const flags =
      (record.flush ? logFlags.flush : 0) |
      (record.fua ? logFlags.fua : 0) |
      (record.discard ? logFlags.discard : 0) |
      (record.mark === undefined ? 0 : logFlags.mark);
    const entry = new Uint8Array(sectorBytes);
    const fields = viewOf(entry);
    fields.setBigUint64(0, BigInt(record.sector ?? 0), true);
    fields.setBigUint64(8, BigInt(data.length / sectorBytes), true);
    fields.setBigUint64(16, BigInt(flags), true);
    fields.setBigUint64(24, BigInt(text.length), true);
    entry.set(text.subarray(0, sectorBytes - 32), 32);
    sectors.push(entry);
    if (!record.discard) sectors.push(data);
  }
  return new Uint8Array(Buffer.concat(sectors));
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
