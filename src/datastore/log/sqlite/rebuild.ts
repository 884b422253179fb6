// A damaged log becomes a sound one: what `salvage` finds is written to a new file, which takes the old one's place;
// the old one is kept beside it. History ends there: every watcher lists again, for what was lost has no event.
//
//   state.db-rebuilt written and flushed -> state.db to state.db-damaged -> its WAL after it -> rebuilt to state.db
//
// After a crash between these steps `finishExchange` goes on where they stopped.
import { AssertionError, assert } from "#base/assert.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { BlockFiles } from "#platform/block-file.ts";
import { datastoreError } from "../../errors.ts";
import { type DamageReport, type DatastoreLog, emptyBatch, type LogRecord } from "../log.ts";
import { applicationId } from "./format.ts";
import { likelyPageSizes, openPages, type PageSource } from "./page-source.ts";
import { type Salvaged, salvage } from "./salvage.ts";

/** SQLite's codes for trouble that another file of the same disk would have too. */
const notTheFile: ReadonlySet<number> = new Set([7 /* NOMEM */, 10 /* IOERR */, 13 /* FULL */, 14 /* CANTOPEN */]);
/** What was lost may have had newer revisions than what was found. */
const lostRevisions = 1_000_000;
/** Where nothing tells how far they had come: ten years at two hundred writes a second. */
const allRevisions = 2 ** 36;
const batchBytes = 1024 * 1024;

export function damage(what: string): Error {
  return datastoreError("DATASTORE_CORRUPT", what);
}

/** No database is shorter, of whatever kind it is. */
const shortestBytes = 512;

/**
 * Why the file is not even one page, if so: it was cut, or is gone while its WAL is there. Then something stands in its
 * place, so that an exchange that a crash interrupts begins with a file, as always.
 */
export function cutShort(path: string, pageBytes: number, files: BlockFiles): string | undefined {
  if (!files.exists(path)) {
    const file = files.open(path, { create: true });
    try {
      file.write(Buffer.from("the database that was here is gone\n"), 0);
      file.sync();
    } finally {
      file.close();
    }
    files.syncFolderOf(path);
    return "the database is gone, its write-ahead log is not";
  }
  return sizeOf(path, files) < pageBytes ? "the database ends within its first page" : undefined;
}

function sizeOf(path: string, files: BlockFiles): number {
  const file = files.open(path, { create: false });
  try {
    return file.size();
  } finally {
    file.close();
  }
}

/** Whether reading failed because of what the file holds. */
export function isMendable(error: unknown): boolean {
  // A setting that SQLite refuses, because the header says that the file is of another kind.
  if (error instanceof AssertionError) return true;
  if (!(error instanceof AppError)) return false;
  if (error.code === "SQLITE_ERROR") return !notTheFile.has(Number(error.details["sqlite"]) & 0xff);
  return error.code === "DATASTORE_CORRUPT" || error.code === "DATASTORE_FORMAT";
}

export interface RebuildOptions {
  readonly path: string;
  readonly files: BlockFiles;
  /** Why the file could not be used as it is. */
  readonly cause: unknown;
  /** A new log at another path. */
  readonly create: (path: string) => DatastoreLog;
  readonly log: Logger;
}

/** Rejects with `cause` when there is nothing of ours in the file. */
export async function rebuild({ path, files, cause, create, log: logger }: RebuildOptions): Promise<DamageReport> {
  const [source, found] = openSalvaged(path, files);
  try {
    // A foreign file is not touched.
    const isForeign = found.rows.length === 0 && !isOurs(source) && sizeOf(path, files) >= shortestBytes;
    if (isForeign || isNewer(found)) throw cause;
    const target = `${path}-rebuilt`;
    for (const leftover of [target, `${target}-wal`]) if (files.exists(leftover)) files.remove(leftover);
    const log = create(target);
    await log.load(() => () => {});
    const newest = new Map(found.damaged.map(({ key }) => [key, 0]));
    let head = 0;
    let batch: LogRecord[] = [];
    let bytes = 0;
    for (const row of found.rows) {
      const record = row.read();
      head = Math.max(head, record.revision);
      if (newest.has(record.key)) newest.set(record.key, record.revision);
      batch.push(record);
      bytes += record.value.length + record.key.length;
      if (bytes < batchBytes) continue;
      await log.append({ ...emptyBatch, records: batch });
      [batch, bytes] = [[], 0];
    }
    const known = Math.max(head, trusted(found, "reserved", head), trusted(found, "compacted", head));
    const reserve = known + (known === 0 ? allRevisions : lostRevisions);
    await log.append({ ...emptyBatch, records: batch, leases: found.leases, reserve, compacted: reserve });
    await log.close();
    exchange(path, files);
    const worse = found.damaged.filter(({ key, revision }) => newest.get(key)! < revision);
    const report: DamageReport = {
      lostKeys: unique(worse.filter(({ key }) => newest.get(key) === 0)),
      revertedKeys: unique(worse.filter(({ key }) => newest.get(key) !== 0)),
      damagedRecords: found.damagedRows,
      unreadablePages: found.unreadablePages,
      setAside: `${path}-damaged`,
    };
    logger.error("the datastore was rebuilt from what is sound", {
      ...{ records: found.rows.length, damagedRecords: report.damagedRecords, unreadablePages: report.unreadablePages },
      ...{ lost: report.lostKeys.slice(0, 20).join(" "), reverted: report.revertedKeys.slice(0, 20).join(" ") },
      ...{ setAside: report.setAside, cause: messageOf(cause) },
    });
    return report;
  } finally {
    source.close();
  }
}

/** Read with the size of pages that the files say; with the other one only when that finds nothing. */
function openSalvaged(path: string, files: BlockFiles): [source: PageSource, found: Salvaged] {
  let last: [PageSource, Salvaged] | undefined;
  for (const pageBytes of likelyPageSizes(path, files)) {
    last?.[0].close();
    const source = openPages(path, pageBytes, files);
    last = [source, salvage(source)];
    if (last[1].rows.length > 0) break;
  }
  assert(last, "there are sizes of pages");
  return last;
}

/** Completes what a crash has interrupted; needs nothing else to have looked at the files. */
export function finishExchange(path: string, files: BlockFiles): void {
  if (files.exists(path) || !files.exists(`${path}-rebuilt`) || !files.exists(`${path}-damaged`)) return;
  exchange(path, files);
}

function exchange(path: string, files: BlockFiles): void {
  if (files.exists(path)) files.rename(path, `${path}-damaged`);
  if (files.exists(`${path}-wal`)) files.rename(`${path}-wal`, `${path}-damaged-wal`);
  files.rename(`${path}-rebuilt`, path);
  files.syncFolderOf(path);
}

/** Told by the header, for a store that has lost every row: it still opens, empty, with the ruin beside it. */
function isOurs(source: PageSource): boolean {
  const header = source.page(1);
  return header !== undefined && header.length >= 72 && header.readUInt32BE(68) === applicationId;
}

/** A format that is newer than ours by what it says, and not by a flipped bit, is not damage. */
function isNewer(found: Salvaged): boolean {
  const format = found.meta.get("format") ?? 1;
  return format > 1 && format < 64;
}

function trusted(found: Salvaged, name: string, head: number): number {
  const value = found.meta.get(name) ?? 0;
  return value < head + 2 ** 40 ? value : 0;
}

function unique(records: readonly { readonly key: string }[]): string[] {
  return [...new Set(records.map(({ key }) => key))];
}
