// Format 1 of the file: tables, row ids, checksums, and the check that a file is one of ours.
// docs/datastore.md describes it for people.
import { crc32 } from "node:zlib";
import { assert } from "#base/assert.ts";
import { maxKeyBytes } from "../../backend.ts";
import { loggedFlag } from "../../engine/module.ts";
import { datastoreError } from "../../errors.ts";
import type { LogRecord } from "../log.ts";
import type { Database } from "./database.ts";

export const formatVersion = 1;
/** "mote" in ASCII, so that `file` and a curious administrator can tell what this is. */
export const applicationId = 0x6d6f7465;
/**
 * Of new files. Small, because a lone write costs the pages that it touches, whole: half the bytes that pages of 4096 cost
 * (docs/adr/2026-11-21-log-in-sqlite-wal.md). Files of the first stores have 4096 and keep it.
 */
export const newPageBytes = 1024;
export const pageSizes: readonly number[] = [newPageBytes, 4096];
export const frameHeaderBytes = 24;

/** Rows of one revision: their number fills the low 16 bits of the row id. */
const maxSub = 0xffff;

const schema: readonly string[] = [
  "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
  "CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_seconds INTEGER NOT NULL)",
  // id = revision * 65536 + sub. flags: 1 deleted. crc: CRC-32 over id, the numbers, key and value.
  `CREATE TABLE log (id INTEGER PRIMARY KEY, key BLOB NOT NULL, create_revision INTEGER NOT NULL,
     version INTEGER NOT NULL, lease INTEGER NOT NULL, flags INTEGER NOT NULL, crc INTEGER NOT NULL, value BLOB NOT NULL)`,
  // For people: sqlite3 state.db "SELECT * FROM record".
  `CREATE VIEW record AS SELECT id >> 16 AS revision, id & 65535 AS sub, CAST(key AS TEXT) AS key, create_revision,
     version, lease, flags & 1 AS deleted, CAST(value AS TEXT) AS value FROM log`,
];

export function rowId(revision: number, sub: number): bigint {
  assert(sub <= maxSub, "too many changes in one transaction");
  const id = revision * (maxSub + 1) + sub;
  // One bigint instead of four, for all revisions of the next centuries.
  if (id <= Number.MAX_SAFE_INTEGER) return BigInt(id);
  return (BigInt(revision) << 16n) | BigInt(sub);
}

/** What `checksum` works in: room for the numbers and the longest key. */
export function checksumScratch(): Buffer {
  return Buffer.alloc(32 + maxKeyBytes);
}

export function checksum(id: bigint, record: LogRecord, scratch: Buffer): number {
  scratch.writeBigInt64LE(id, 0);
  scratch.writeDoubleLE(record.create, 8);
  scratch.writeDoubleLE(record.lease, 16);
  scratch.writeUInt32LE(record.version >>> 0, 24);
  scratch.writeUInt32LE((record.flags & ~loggedFlag) >>> 0, 28);
  const end = 32 + scratch.write(record.key, 32, "latin1");
  return crc32(record.value, crc32(scratch.subarray(0, end)));
}

/** Creates the tables in a new file, with real flushes; checks those of an old one. True when it was new. */
export function prepareFormat(db: Database, path: string): boolean {
  const [id] = db.run("PRAGMA application_id");
  const [tables] = db.run("SELECT count(*) FROM sqlite_schema");
  if (tables === "0") {
    db.run("PRAGMA synchronous=FULL");
    db.run("BEGIN");
    for (const statement of schema) db.run(statement);
    db.run(`INSERT INTO meta VALUES ('format', ${formatVersion})`);
    db.run(`PRAGMA application_id=${applicationId}`);
    db.run("COMMIT");
    // With the tables in the database file itself, nothing depends on the WAL's directory entry any more.
    db.run("PRAGMA wal_checkpoint(TRUNCATE)");
    return true;
  }
  if (id !== String(applicationId)) {
    throw datastoreError("DATASTORE_FORMAT", `${path} is a SQLite database, but not one of mote`, { id });
  }
  const format = readMeta(db).get("format");
  if (format !== formatVersion) {
    throw datastoreError(
      "DATASTORE_FORMAT",
      `${path} has format ${format ?? "unknown"}; this version of mote reads format ${formatVersion}`,
      { format },
    );
  }
  return false;
}

export function readMeta(db: Database): Map<string, number> {
  const meta = new Map<string, number>();
  const rows = db.prepare("SELECT name, value FROM meta");
  while (rows.step()) meta.set(rows.text(0), rows.integer(1));
  rows.finalize();
  return meta;
}
