// The durable log in one SQLite file. One append-only table ordered by (revision, sub), no secondary index; WAL mode
// with synchronous=NORMAL, in which SQLite itself flushes only around checkpoints, and our own flush of the WAL file,
// which does not block, before a batch is acknowledged (docs/adr/2026-11-21-log-in-sqlite-wal.md).
//
//   append: BEGIN, rows, COMMIT (into the WAL, page cache only) -> fdatasync(WAL) on the thread pool -> acknowledged
//
// Checkpoints are manual and small: a while after the last append, or when the WAL has grown to its bound.
import { crc32 } from "node:zlib";
import { assert } from "#base/assert.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Counter, Metrics } from "#base/metrics.ts";
import type { BlockFiles } from "#platform/block-file.ts";
import { maxKeyBytes } from "../../backend.ts";
import { loggedFlag } from "../../engine/engine.ts";
import { datastoreError } from "../../errors.ts";
import type { DatastoreLog, LogBatch, LogLease, LogRecord, LogState } from "../log.ts";
import { Database, type Statement, sqliteFull } from "./database.ts";
import { instantiateSqlite, type SqliteModule } from "./sqlite-module.ts";
import { installVfs, type Vfs } from "./vfs.ts";

export const formatVersion = 1;
/** "mote" in ASCII, so that `file` and a curious administrator can tell what this is. */
const applicationId = 0x6d6f7465;

/** Rows of one revision: their number fills the low 16 bits of the row id. */
export const maxSub = 0xffff;
const subFactor = 65536;

const frameBytes = 4096 + 24;
/** A checkpoint this small takes a few milliseconds; it runs when nothing was written for `idleMs`. */
const defaultCheckpointFrames = 256;
const idleMs = 500;
/** The WAL's bound (8 MiB): from here on a checkpoint does not wait for an idle moment. */
const defaultMaxFrames = 2048;
/** The log is never read at run time, so SQLite needs few pages in memory. */
const cacheKib = 2048;
const memoryBytes = 64 * 1024 * 1024;

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

export interface SqliteLogOptions {
  readonly path: string;
  readonly files: BlockFiles;
  /** sqlite3.wasm, compiled; reused when the log has to be opened again. */
  readonly module: WebAssembly.Module;
  /** WAL frames from which an idle moment is used for a checkpoint, and from which none is waited for. */
  readonly checkpointFrames?: number;
  readonly maxFrames?: number;
  /** Test only, the positive control of the crash tests: acknowledge before the flush. */
  readonly unsafeAcknowledgeEarly?: boolean;
}

export interface SqliteLogDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics?: Metrics | undefined;
}

interface Connection {
  readonly db: Database;
  readonly vfs: Vfs;
  readonly begin: Statement;
  readonly commit: Statement;
  readonly rollback: Statement;
  readonly insert: Statement;
  readonly drop: Statement;
  readonly setMeta: Statement;
  readonly putLease: Statement;
  readonly dropLease: Statement;
}

/** Opens or creates the file. The caller holds the process lock. */
export function openSqliteLog(options: SqliteLogOptions, deps: SqliteLogDeps): DatastoreLog {
  return new SqliteLog(options, deps);
}

class SqliteLog implements DatastoreLog {
  readonly #options: SqliteLogOptions;
  readonly #deps: SqliteLogDeps;
  #sqlite: SqliteModule;
  #open: Connection | undefined;
  /** Bytes written to the WAL when it was last folded into the database. */
  #foldedAt = 0;
  #cancelCheckpoint: (() => void) | undefined;
  #busy = false;
  readonly #scratch = Buffer.alloc(32 + maxKeyBytes);
  #counted = { written: 0, flushes: 0 };
  readonly #writtenBytes: Counter | undefined;
  readonly #flushes: Counter | undefined;

  constructor(options: SqliteLogOptions, deps: SqliteLogDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#sqlite = this.#instantiate();
    this.#open = this.#connect();
    this.#writtenBytes = deps.metrics?.counter(
      "mote_datastore_written_bytes_total",
      "Bytes written to the datastore's files.",
    );
    this.#flushes = deps.metrics?.counter(
      "mote_datastore_flushes_total",
      "Flushes of the datastore's files to the medium.",
    );
    this.#count(this.#open.vfs);
  }

  load(visit: (record: LogRecord) => void): Promise<LogState> {
    const { db } = this.#connection();
    const meta = this.#readMeta(db);
    const leases: LogLease[] = [];
    const leaseRows = db.prepare("SELECT id, ttl_seconds FROM lease");
    while (leaseRows.step()) leases.push({ id: leaseRows.integer(0), ttlSeconds: leaseRows.integer(1) });
    leaseRows.finalize();
    let newest = 0;
    let damaged = 0;
    const rows = db.prepare("SELECT id, key, create_revision, version, lease, flags, crc, value FROM log ORDER BY id");
    while (rows.step()) {
      const id = rows.bigint(0);
      const record: LogRecord = {
        revision: Number(id >> 16n),
        sub: Number(id & 0xffffn),
        key: rows.bytesView(1).toString("latin1"),
        create: rows.integer(2),
        version: rows.integer(3),
        lease: rows.integer(4),
        flags: rows.integer(5) | loggedFlag,
        value: rows.bytesView(7),
      };
      newest = Math.max(newest, record.revision);
      if (checksum(id, record, this.#scratch) !== rows.integer(6)) {
        damaged++;
        this.#deps.log.error("record of the datastore is damaged and left out", {
          key: record.key.slice(0, 200),
          revision: record.revision,
        });
        continue;
      }
      visit(record);
    }
    rows.finalize();
    if (damaged > 0) this.#deps.log.error("datastore has damaged records", { damaged });
    return Promise.resolve({
      compacted: meta.get("compacted") ?? 0,
      reserved: meta.get("reserved") ?? 0,
      leases,
      newest,
    });
  }

  async append(batch: LogBatch): Promise<void> {
    const c = this.#connection();
    assert(!this.#busy, "one append at a time");
    this.#busy = true;
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    try {
      this.#write(c, batch);
      if (!this.#options.unsafeAcknowledgeEarly) await this.#flushWal(c);
    } finally {
      this.#busy = false;
      this.#count(c.vfs);
    }
    this.#scheduleCheckpoint();
  }

  async recover(revision: number): Promise<void> {
    // Its callers wait for a promise, and what fails here fails at once.
    await Promise.resolve();
    this.#disconnect();
    // A new module: what failed may have left the old one in any state.
    this.#sqlite = this.#instantiate();
    const c = this.#connect();
    try {
      // What the failed flush left in the WAL may exist in the page cache only, and later frames would stand on it:
      // fold everything into the database with real flushes and start the WAL anew.
      c.db.run("PRAGMA synchronous=FULL");
      c.db.run(`DELETE FROM log WHERE id >= ${BigInt(revision + 1) * BigInt(subFactor)}`);
      const [busy] = c.db.run("PRAGMA wal_checkpoint(TRUNCATE)");
      if (busy !== "0") throw new AppError("SQLITE_ERROR", "checkpoint was refused");
      c.db.run("PRAGMA synchronous=NORMAL");
    } catch (error) {
      closeConnection(c);
      throw error;
    }
    this.#open = c;
    this.#foldedAt = c.vfs.writtenTo(this.#walPath);
    this.#count(c.vfs);
  }

  close(): Promise<void> {
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    const c = this.#open;
    if (!c) return Promise.resolve();
    try {
      this.#checkpoint(c, "TRUNCATE");
    } catch (error) {
      // Nothing is lost: the WAL is read at the next start.
      this.#deps.log.warn("checkpoint at close failed", { error: messageOf(error) });
    }
    this.#disconnect();
    return Promise.resolve();
  }

  #instantiate(): SqliteModule {
    return instantiateSqlite({
      module: this.#options.module,
      maximumBytes: memoryBytes,
      now: () => this.#deps.clock.now(),
    });
  }

  #connection(): Connection {
    if (!this.#open) throw datastoreError("DATASTORE_FLUSH_FAILED", "the log is closed after a failure");
    return this.#open;
  }

  #connect(): Connection {
    const vfs = installVfs(this.#sqlite, this.#options.files, "mote");
    this.#counted = { written: 0, flushes: 0 };
    const db = new Database(this.#sqlite, vfs, this.#options.path);
    try {
      expectPragma(db, "locking_mode=EXCLUSIVE", "exclusive");
      db.run("PRAGMA page_size=4096");
      expectPragma(db, "journal_mode=WAL", "wal");
      db.run("PRAGMA temp_store=MEMORY");
      db.run(`PRAGMA cache_size=-${cacheKib}`);
      db.run("PRAGMA wal_autocheckpoint=0");
      this.#prepareFormat(db);
      db.run("PRAGMA synchronous=NORMAL");
      expectPragma(db, "synchronous", "1");
      return {
        db,
        vfs,
        begin: db.prepare("BEGIN IMMEDIATE"),
        commit: db.prepare("COMMIT"),
        rollback: db.prepare("ROLLBACK"),
        insert: db.prepare("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        drop: db.prepare("DELETE FROM log WHERE id = ?1"),
        setMeta: db.prepare("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2"),
        putLease: db.prepare("INSERT OR REPLACE INTO lease VALUES (?1, ?2)"),
        dropLease: db.prepare("DELETE FROM lease WHERE id = ?1"),
      };
    } catch (error) {
      db.close();
      vfs.closeAll();
      throw error;
    }
  }

  /** Creates the tables, or checks that they are of a version we know. */
  #prepareFormat(db: Database): void {
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
      this.#options.files.syncFolderOf(this.#options.path);
      return;
    }
    if (id !== String(applicationId)) {
      throw datastoreError("DATASTORE_FORMAT", `${this.#options.path} is a SQLite database, but not one of mote`, {
        id,
      });
    }
    const format = this.#readMeta(db).get("format");
    if (format !== formatVersion) {
      throw datastoreError(
        "DATASTORE_FORMAT",
        `${this.#options.path} has format ${format ?? "unknown"}; this version of mote reads format ${formatVersion}`,
        { format },
      );
    }
  }

  #readMeta(db: Database): Map<string, number> {
    const meta = new Map<string, number>();
    const rows = db.prepare("SELECT name, value FROM meta");
    while (rows.step()) meta.set(rows.text(0), rows.integer(1));
    rows.finalize();
    return meta;
  }

  #write(c: Connection, batch: LogBatch): void {
    try {
      c.begin.step();
      for (const record of batch.records) this.#insert(c, record);
      for (const { revision, sub } of batch.dropped) {
        c.drop.bindBigint(1, rowId(revision, sub));
        c.drop.step();
      }
      for (const lease of batch.leases) {
        c.putLease.bindInteger(1, lease.id);
        c.putLease.bindInteger(2, lease.ttlSeconds);
        c.putLease.step();
      }
      for (const id of batch.revokedLeases) {
        c.dropLease.bindInteger(1, id);
        c.dropLease.step();
      }
      if (batch.reserve !== undefined) this.#meta(c, "reserved", batch.reserve);
      if (batch.compacted !== undefined) this.#meta(c, "compacted", batch.compacted);
      c.commit.step();
    } catch (error) {
      throw this.#afterFailedWrite(c, error);
    }
  }

  #insert(c: Connection, record: LogRecord): void {
    const id = rowId(record.revision, record.sub);
    const flags = record.flags & ~loggedFlag;
    c.db.scratchFor(record.key.length + record.value.length);
    c.insert.bindBigint(1, id);
    c.insert.bindLatin1(2, record.key);
    c.insert.bindInteger(3, record.create);
    c.insert.bindInteger(4, record.version);
    c.insert.bindInteger(5, record.lease);
    c.insert.bindInteger(6, flags);
    c.insert.bindInteger(7, checksum(id, record, this.#scratch));
    c.insert.bindBytes(8, record.value);
    c.insert.step();
  }

  #meta(c: Connection, name: string, value: number): void {
    c.db.scratchFor(name.length);
    // Text, not blob: people read this table.
    c.setMeta.bindText(1, name);
    c.setMeta.bindInteger(2, value);
    c.setMeta.step();
  }

  /** A full disk leaves the file as it was and the log usable; anything else does not. */
  #afterFailedWrite(c: Connection, error: unknown): Error {
    const code = error instanceof AppError ? (error.details["sqlite"] as number | undefined) : undefined;
    try {
      c.rollback.step();
    } catch {
      // SQLite has rolled back by itself, which it may on FULL and IOERR; "no transaction is active".
    }
    if (code !== undefined && (code & 0xff) === sqliteFull) {
      return datastoreError("DATASTORE_FULL", "no space left for the datastore", {}, error);
    }
    this.#disconnect();
    return datastoreError("DATASTORE_FLUSH_FAILED", `writing the log failed: ${messageOf(error)}`, {}, error);
  }

  async #flushWal(c: Connection): Promise<void> {
    const wal = c.vfs.fileOf(this.#walPath);
    assert(wal, "the WAL is open after a commit");
    try {
      await wal.flush();
      c.vfs.counters.flushes++;
    } catch (error) {
      this.#disconnect();
      throw datastoreError("DATASTORE_FLUSH_FAILED", `flushing the log failed: ${messageOf(error)}`, {}, error);
    }
  }

  get #walPath(): string {
    return `${this.#options.path}-wal`;
  }

  #disconnect(): void {
    const c = this.#open;
    this.#open = undefined;
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    if (c) closeConnection(c);
  }

  #checkpoint(c: Connection, mode: "PASSIVE" | "TRUNCATE"): void {
    c.db.run(`PRAGMA wal_checkpoint(${mode})`);
    this.#foldedAt = c.vfs.writtenTo(this.#walPath);
    this.#count(c.vfs);
  }

  /** Hands what the VFS has counted since the last time to the metrics. */
  #count(vfs: Vfs): void {
    const { written, flushes } = vfs.counters;
    this.#writtenBytes?.add(written - this.#counted.written);
    this.#flushes?.add(flushes - this.#counted.flushes);
    this.#counted = { written, flushes };
  }

  #scheduleCheckpoint(): void {
    const c = this.#open;
    if (!c) return;
    const frames = (c.vfs.writtenTo(this.#walPath) - this.#foldedAt) / frameBytes;
    const { checkpointFrames = defaultCheckpointFrames, maxFrames = defaultMaxFrames } = this.#options;
    if (frames >= maxFrames) this.#tryCheckpoint();
    else if (frames >= checkpointFrames) {
      this.#cancelCheckpoint = this.#deps.clock.after(idleMs, () => {
        this.#cancelCheckpoint = undefined;
        if (!this.#busy && this.#open) this.#tryCheckpoint();
      });
    }
  }

  #tryCheckpoint(): void {
    const c = this.#open;
    if (!c) return;
    try {
      this.#checkpoint(c, "PASSIVE");
    } catch (error) {
      // The WAL still has everything; the next checkpoint tries again, the next append says whether writing works.
      this.#deps.log.warn("checkpoint failed", { error: messageOf(error) });
    }
  }
}

function closeConnection(c: Connection): void {
  c.db.close();
  // After a failure SQLite may keep a file open that it could not close in order.
  c.vfs.closeAll();
}

function expectPragma(db: Database, pragma: string, expected: string): void {
  const [answer] = db.run(`PRAGMA ${pragma}`);
  assert(answer === expected, `PRAGMA ${pragma} answered ${answer}`);
}

function rowId(revision: number, sub: number): bigint {
  assert(sub <= maxSub, "too many changes in one transaction");
  return (BigInt(revision) << 16n) | BigInt(sub);
}

/** `scratch` is overwritten; it has room for the numbers and the longest key. */
function checksum(id: bigint, record: LogRecord, scratch: Buffer): number {
  scratch.writeBigInt64LE(id, 0);
  scratch.writeDoubleLE(record.create, 8);
  scratch.writeDoubleLE(record.lease, 16);
  scratch.writeUInt32LE(record.version, 24);
  scratch.writeUInt32LE(record.flags & ~loggedFlag, 28);
  const end = 32 + scratch.write(record.key, 32, "latin1");
  return crc32(record.value, crc32(scratch.subarray(0, end)));
}
