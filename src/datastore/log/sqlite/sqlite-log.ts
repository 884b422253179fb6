// The durable log in one SQLite file. One append-only table ordered by (revision, sub), no secondary index; WAL mode in
// which every flush is ours and none blocks the loop (docs/adr/2026-11-21-log-in-sqlite-wal.md).
//
//   append: BEGIN, rows, COMMIT (into the WAL, page cache only) -> fdatasync(WAL) on the thread pool -> acknowledged
//   fold:   copy the WAL's pages into the database -> flush the database -> strike out the WAL's header -> flush the WAL
//
// A fold is SQLite's checkpoint with its syncs left to us. The next append waits for it: SQLite would start the WAL anew,
// over frames that may be all there is of a page. The header goes first, because an old header over half-overwritten
// frames reads as an older, shorter log. What fails leaves the files as they are, for `recover`.
import { assert } from "#base/assert.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Counter, Metrics } from "#base/metrics.ts";
import type { BlockFiles } from "#platform/block-file.ts";
import { maxKeyBytes } from "../../backend.ts";
import { cardLifeYears } from "../../card-life.ts";
import { loggedFlag } from "../../engine/module.ts";
import { datastoreError } from "../../errors.ts";
import type { DamageReport, DatastoreLog, LogBatch, LogLease, LogRecord, LogState } from "../log.ts";
import { Database, type Statement, sqliteFull } from "./database.ts";
import { checksum, checksumScratch, frameHeaderBytes, newPageBytes, prepareFormat, readMeta, rowId } from "./format.ts";
import { likelyPageSizes, scanWal, struckOut } from "./page-source.ts";
import { cutShort, damage, finishExchange, isMendable, rebuild } from "./rebuild.ts";
import { Reserve, reservePath } from "./reserve.ts";
import { instantiateSqlite, type SqliteModule } from "./sqlite-module.ts";
import { installVfs, type Vfs } from "./vfs.ts";

/**
 * The WAL's bound, but for one group: from here on a fold does not wait for an idle moment. Copying half of it takes two
 * milliseconds, which is done when nothing was written for `idleMs`.
 */
const maxWalBytes = 2 * 1024 * 1024;
const idleMs = 500;
/** When the disk is full, folding the WAL may need its whole size once more, and then there must be room left to delete. */
const reserveShareOfWal = 2;
/** The log is never read at run time, so SQLite needs few pages in memory. */
const cacheKib = 2048;
const memoryBytes = 64 * 1024 * 1024;
/** While the disk is full: how often it is looked at. */
const spaceCheckMs = 1000;
/** Of the reserve, one batch may take so much: the rest is for the deletions that will come. */
const reserveShare = 4;
const columns = "id, key, create_revision, version, lease, flags, crc, value";
/** More revisions than one append can have. */
const tornRevisions = 2048;
/** Compacted or reserved revisions that are so far ahead of every record are none; those of a thousand nodes' heartbeats are a million. */
const maxAhead = 2 ** 40;

export interface SqliteLogOptions {
  readonly path: string;
  readonly files: BlockFiles;
  /** sqlite3.wasm, compiled; reused when the log has to be opened again. */
  readonly module: WebAssembly.Module;
  /** Test only: frames of the WAL from which a fold is not waited for, instead of `maxWalBytes`. */
  readonly maxFrames?: number;
  /** Size of the file that is given up when the disk is full; default 0: none. */
  readonly reserveBytes?: number;
  /** Test only, the positive control of the crash tests: acknowledge before the flush. */
  readonly unsafeAcknowledgeEarly?: boolean;
}

export interface SqliteLogDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics?: Metrics | undefined;
  /** Told once of what damage to the files has cost. */
  readonly damaged?: ((report: DamageReport) => void) | undefined;
}

interface Connection {
  /** Of this file; `newPageBytes` or what older ones have. */
  readonly pageBytes: number;
  readonly db: Database;
  readonly vfs: Vfs;
  readonly begin: Statement;
  readonly commit: Statement;
  readonly rollback: Statement;
  readonly insert: Statement;
  readonly drop: Statement;
  readonly find: Statement;
  readonly setMeta: Statement;
  readonly putLease: Statement;
  readonly dropLease: Statement;
}

/** `load` opens or creates the file. The caller holds the process lock. */
export function openSqliteLog(
  options: SqliteLogOptions,
  deps: SqliteLogDeps,
): DatastoreLog & {
  /** A number that an append has noted. */
  note(name: string): number | undefined;
} {
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
  #folding: Promise<void> | undefined;
  readonly #reserve: Reserve;
  #full = false;
  #cancelSpaceCheck: (() => void) | undefined;
  #filling: Promise<void> | undefined;
  #closed = false;
  readonly #scratch = checksumScratch();
  #counted = { written: 0, flushes: 0 };
  /** Since the start, over all connections. */
  readonly #total = { writtenBytes: 0, flushes: 0 };
  readonly #writtenBytes: Counter | undefined;
  readonly #flushes: Counter | undefined;

  constructor(options: SqliteLogOptions, deps: SqliteLogDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#sqlite = this.#instantiate();
    this.#writtenBytes = deps.metrics?.counter(
      "mote_datastore_written_bytes_total",
      "Bytes written to the datastore's files.",
    );
    this.#flushes = deps.metrics?.counter(
      "mote_datastore_flushes_total",
      "Flushes of the datastore's files to the medium.",
    );
    const startedMs = deps.clock.monotonicMs();
    deps.metrics?.gaugeOf(
      "mote_datastore_card_life_years",
      "How long a 16 GiB card would last if the datastore went on writing as since its start.",
      () => cardLifeYears({ ...this.#total, ms: deps.clock.monotonicMs() - startedMs }),
    );
    const { path, files, reserveBytes = 0 } = options;
    this.#reserve = new Reserve({ path: reservePath(path), bytes: reserveBytes, files });
  }

  get full(): boolean {
    return this.#full;
  }

  async load(start: () => (record: LogRecord) => void): Promise<LogState> {
    const { path, files, reserveBytes = 0 } = this.#options;
    await this.#folding;
    finishExchange(path, files);
    if (!files.exists(path) && !files.exists(this.#walPath)) this.#create();
    const [pageBytes = newPageBytes] = likelyPageSizes(path, files);
    const wal = scanWal(this.#walPath, pageBytes, files);
    let state: LogState;
    try {
      const cut = cutShort(path, pageBytes, files);
      if (cut !== undefined) throw damage(cut);
      if (wal.damaged) throw damage("the write-ahead log is damaged in its middle");
      state = this.#read(start());
    } catch (error) {
      if (!isMendable(error)) throw error;
      this.#disconnect("frozen");
      this.#sqlite = this.#instantiate();
      this.#deps.log.error("the datastore's file is damaged; what is sound is kept", { error: messageOf(error) });
      const { clock, log } = this.#deps;
      const create = (at: string) =>
        new SqliteLog({ path: at, files, module: this.#options.module }, { clock, log: log.child({ rebuilt: true }) });
      const report = await rebuild({ path, files, cause: error, create, log });
      state = this.#read(start());
      this.#deps.damaged?.(report);
    }
    this.#startWalAnew(this.#connection());
    this.#count(this.#connection().vfs);
    if (reserveBytes > 0 && !this.#reserve.held) this.#lookForSpace();
    if (!wal.torn) return state;
    // Its number may have been seen on this disk by nobody but us; still it is not given out again.
    this.#deps.log.info("the last write before the end was not whole and is left out");
    return { ...state, reserved: Math.max(state.reserved, state.newest + tornRevisions) };
  }

  /** Under another name until it is whole: so a file that ends within its first page is never one that was just begun. */
  #create(): void {
    const { path, files } = this.#options;
    const target = `${path}-new`;
    for (const leftover of ["", "-wal", "-journal"].map((suffix) => target + suffix)) {
      if (files.exists(leftover)) files.remove(leftover);
    }
    closeConnection(this.#connect(target), "blocking");
    files.rename(target, path);
    files.syncFolderOf(path);
    // A module has one file system, which counts what is written to this file from here on.
    this.#sqlite = this.#instantiate();
  }

  /**
   * Folds what a crash has left in the WAL and cuts it, so that its torn end is never behind frames of ours: with the same
   * salts it would look like something that was flushed after them.
   */
  #startWalAnew(c: Connection): void {
    if ((c.vfs.fileOf(this.#walPath)?.size() ?? 0) === 0) return;
    try {
      this.#foldBlocking(c);
    } catch (error) {
      this.#deps.log.warn("checkpoint at start failed", { error: messageOf(error) });
    }
    this.#foldedAt = c.vfs.writtenTo(this.#walPath);
  }

  #foldBlocking(c: Connection): void {
    c.vfs.mode = "blocking";
    const [busy] = c.db.run("PRAGMA wal_checkpoint(TRUNCATE)");
    if (busy !== "0") throw new AppError("SQLITE_ERROR", "checkpoint was refused");
    // SQLite leaves the cut itself in the page cache.
    c.vfs.fileOf(this.#walPath)?.sync();
    c.vfs.counters.flushes++;
    c.vfs.mode = "deferred";
  }

  #read(visit: (record: LogRecord) => void): LogState {
    this.#open ??= this.#connect();
    const { db } = this.#open;
    // A page that lost its count of rows would look like a shorter table.
    const [checked] = db.run("PRAGMA quick_check(1)");
    if (checked !== "ok") throw damage(checked ?? "no answer from quick_check");
    const meta = readMeta(db);
    const leases: LogLease[] = [];
    const leaseRows = db.prepare("SELECT id, ttl_seconds FROM lease");
    while (leaseRows.step()) leases.push({ id: leaseRows.integer(0), ttlSeconds: leaseRows.integer(1) });
    leaseRows.finalize();
    let newest = 0;
    const rows = db.prepare(`SELECT ${columns} FROM log ORDER BY id`);
    while (rows.step()) {
      const record = this.#recordOf(rows);
      newest = Math.max(newest, record.revision);
      visit(record);
    }
    rows.finalize();
    const [compacted = 0, reserved = 0] = [meta.get("compacted"), meta.get("reserved")];
    // Neither has a checksum; both stay near the newest revision.
    if (Math.max(compacted, reserved) > newest + maxAhead)
      throw damage("the revisions of the meta table are not possible");
    return { compacted, reserved, leases, newest };
  }

  /** Of the row that `rows` stands on; its value is a view that holds until the next step. */
  #recordOf(rows: Statement): LogRecord {
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
    if (record.key.length > maxKeyBytes || checksum(id, record, this.#scratch) !== rows.integer(6)) {
      throw damage(`the record of revision ${record.revision} fails its checksum`);
    }
    return record;
  }

  /** Never while a statement is being stepped; a fold that waits for its flush is no hindrance. */
  readonly read = (revision: number, sub: number): Uint8Array => {
    const { find } = this.#connection();
    try {
      find.bindBigint(1, rowId(revision, sub));
      if (!find.step()) throw damage(`the record of revision ${revision} is gone`);
      try {
        return Uint8Array.from(this.#recordOf(find).value);
      } finally {
        find.reset();
      }
    } catch (error) {
      if (hasCode(error, "DATASTORE_CORRUPT")) throw error;
      const why = `reading the log failed: ${messageOf(error)}`;
      throw datastoreError(isMendable(error) ? "DATASTORE_CORRUPT" : "DATASTORE_FLUSH_FAILED", why, {}, error);
    }
  };

  note(name: string): number | undefined {
    return readMeta(this.#connection().db).get(name);
  }

  async append(batch: LogBatch): Promise<void> {
    assert(!this.#busy, "one append at a time");
    this.#busy = true;
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    try {
      await this.#folding;
      const c = this.#connection();
      try {
        await this.#writeWithReserve(c, batch);
        if (!this.#options.unsafeAcknowledgeEarly) await this.#flushWal(c);
      } finally {
        this.#count(c.vfs);
      }
    } finally {
      this.#busy = false;
    }
    this.#scheduleFold();
  }

  async recover(revision: number): Promise<void> {
    await this.#folding;
    this.#disconnect("frozen");
    // A new module: what failed may have left the old one in any state.
    this.#sqlite = this.#instantiate();
    const c = this.#connect();
    try {
      // What the failed flush left in the WAL may exist in the page cache only, and later frames would stand on it:
      // fold everything into the database with real flushes and start the WAL anew.
      c.vfs.mode = "blocking";
      c.db.run("PRAGMA synchronous=FULL");
      c.db.run(`DELETE FROM log WHERE id >= ${rowId(revision + 1, 0)}`);
      this.#foldBlocking(c);
      c.db.run("PRAGMA synchronous=NORMAL");
    } catch (error) {
      closeConnection(c, "frozen");
      throw error;
    }
    this.#open = c;
    this.#foldedAt = c.vfs.writtenTo(this.#walPath);
    this.#count(c.vfs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    this.#cancelSpaceCheck?.();
    await this.#folding;
    await this.#filling;
    this.#reserve.close();
    const c = this.#open;
    if (!c) return;
    try {
      c.vfs.mode = "blocking";
      c.db.run("PRAGMA wal_checkpoint(TRUNCATE)");
      this.#count(c.vfs);
    } catch (error) {
      // Nothing is lost: the WAL is read at the next start.
      this.#deps.log.warn("checkpoint at close failed", { error: messageOf(error) });
    }
    this.#disconnect("blocking");
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

  #connect(path = this.#options.path): Connection {
    const { files } = this.#options;
    const vfs = installVfs(this.#sqlite, files, "mote");
    this.#counted = { written: 0, flushes: 0 };
    const db = new Database(this.#sqlite, vfs, path);
    try {
      expectPragma(db, "locking_mode=EXCLUSIVE", "exclusive");
      db.run(`PRAGMA page_size=${newPageBytes}`);
      expectPragma(db, "journal_mode=WAL", "wal");
      db.run("PRAGMA temp_store=MEMORY");
      db.run(`PRAGMA cache_size=-${cacheKib}`);
      db.run("PRAGMA wal_autocheckpoint=0");
      prepareFormat(db, path);
      db.run("PRAGMA synchronous=NORMAL");
      expectPragma(db, "synchronous", "1");
      // From here on SQLite flushes nothing: the WAL's entry in its folder is made durable before anything is in it.
      files.syncFolderOf(path);
      vfs.mode = "deferred";
      const [pageBytes = ""] = db.run("PRAGMA page_size");
      return {
        pageBytes: Number(pageBytes),
        db,
        vfs,
        begin: db.prepare("BEGIN IMMEDIATE"),
        commit: db.prepare("COMMIT"),
        rollback: db.prepare("ROLLBACK"),
        insert: db.prepare("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        drop: db.prepare("DELETE FROM log WHERE id = ?1"),
        find: db.prepare(`SELECT ${columns} FROM log WHERE id = ?1`),
        setMeta: db.prepare("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2"),
        putLease: db.prepare("INSERT OR REPLACE INTO lease VALUES (?1, ?2)"),
        dropLease: db.prepare("DELETE FROM lease WHERE id = ?1"),
      };
    } catch (error) {
      vfs.mode = "frozen";
      db.close();
      vfs.closeAll();
      throw error;
    }
  }

  /** When the disk is full, what is small enough goes into the room of the reserve, and what adds is refused from then on. */
  async #writeWithReserve(c: Connection, batch: LogBatch): Promise<void> {
    const { reserveBytes = 0 } = this.#options;
    try {
      this.#write(c, batch);
    } catch (error) {
      if (!hasCode(error, "DATASTORE_FULL") || reserveBytes === 0) throw error;
      if (!this.#full) this.#deps.log.error("the disk is full: only deletions are taken until there is room again");
      this.#full = true;
      this.#lookForSpaceLater();
      if (addedBytes(batch) > reserveBytes / reserveShare) throw error;
      this.#reserve.release();
      // A WAL that starts anew needs no blocks, and pages that are free need no longer file.
      await this.#fold(c);
      this.#write(this.#connection(), batch);
    }
    if (this.#full) this.#leaveFullWhenPagesAreFree(c);
  }

  /** Looks now and then whether the reserve can be set aside again. */
  #lookForSpace(): void {
    if (this.#filling || this.#closed) return;
    this.#filling = this.#reserve
      .fill()
      .catch((error: unknown) => {
        this.#deps.log.warn("the datastore's reserve cannot be written", { error: messageOf(error) });
        return true;
      })
      .then((done) => {
        this.#filling = undefined;
        if (this.#closed) return;
        if (done) {
          this.#leaveFull("there is room on the disk again");
          return;
        }
        // While an append is under way, that one looks itself.
        if (!this.#busy) {
          const full = !this.#hasFreePages();
          if (full && !this.#full) this.#deps.log.warn("there is no room for the datastore's reserve");
          if (!full) this.#leaveFull("there is room in the file again");
          this.#full = full;
        }
        this.#lookForSpaceLater();
      });
  }

  #lookForSpaceLater(): void {
    this.#cancelSpaceCheck ??= this.#deps.clock.after(spaceCheckMs, () => {
      this.#cancelSpaceCheck = undefined;
      this.#lookForSpace();
    });
  }

  #hasFreePages(): boolean {
    const c = this.#open;
    if (!c) return false;
    const [free = "0"] = c.db.run("PRAGMA freelist_count");
    return Number(free) * c.pageBytes >= (this.#options.reserveBytes ?? 0);
  }

  /** What deletions and compaction have freed within the file is as good as a reserve. */
  #leaveFullWhenPagesAreFree(c: Connection): void {
    const [free = "0"] = c.db.run("PRAGMA freelist_count");
    if (Number(free) * c.pageBytes >= (this.#options.reserveBytes ?? 0))
      this.#leaveFull("there is room in the file again");
  }

  #leaveFull(why: string): void {
    if (this.#full) this.#deps.log.info(`writing goes on: ${why}`);
    this.#full = false;
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
      for (const [name, value] of Object.entries(batch.notes ?? {})) this.#meta(c, name, value);
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
    this.#disconnect("frozen");
    return datastoreError("DATASTORE_FLUSH_FAILED", `writing the log failed: ${messageOf(error)}`, {}, error);
  }

  async #flushWal(c: Connection): Promise<void> {
    try {
      await this.#flush(c, this.#walPath);
    } catch (error) {
      this.#disconnect("frozen");
      throw datastoreError("DATASTORE_FLUSH_FAILED", `flushing the log failed: ${messageOf(error)}`, {}, error);
    }
  }

  get #walPath(): string {
    return `${this.#options.path}-wal`;
  }

  #disconnect(mode: "blocking" | "frozen"): void {
    const c = this.#open;
    this.#open = undefined;
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    if (c) closeConnection(c, mode);
  }

  /** Hands what the VFS has counted since the last time to the metrics. */
  #count(vfs: Vfs): void {
    const { written, flushes } = vfs.counters;
    this.#writtenBytes?.add(written - this.#counted.written);
    this.#flushes?.add(flushes - this.#counted.flushes);
    this.#total.writtenBytes += written - this.#counted.written;
    this.#total.flushes += flushes - this.#counted.flushes;
    this.#counted = { written, flushes };
  }

  #scheduleFold(): void {
    const c = this.#open;
    if (!c || this.#closed) return;
    const bytes = c.vfs.writtenTo(this.#walPath) - this.#foldedAt;
    const { maxFrames, reserveBytes = 0 } = this.#options;
    let most = reserveBytes > 0 ? Math.min(maxWalBytes, reserveBytes / reserveShareOfWal) : maxWalBytes;
    if (maxFrames !== undefined) most = maxFrames * (c.pageBytes + frameHeaderBytes);
    if (bytes >= most) this.#startFold(c);
    else if (bytes >= most / 2) {
      this.#cancelCheckpoint = this.#deps.clock.after(idleMs, () => {
        this.#cancelCheckpoint = undefined;
        if (!this.#busy && this.#open === c) this.#startFold(c);
      });
    }
  }

  #startFold(c: Connection): void {
    this.#folding = this.#fold(c).finally(() => {
      this.#folding = undefined;
    });
  }

  /** Needs a WAL of which every frame is flushed. Never rejects: a failed one is tried again, or ends the connection. */
  async #fold(c: Connection): Promise<void> {
    let row: string[];
    try {
      row = c.db.run("PRAGMA wal_checkpoint(PASSIVE)");
    } catch (error) {
      // The WAL still has everything; the next fold tries again, the next append says whether writing works.
      this.#deps.log.warn("checkpoint failed", { error: messageOf(error) });
      return;
    }
    const [busy, frames, folded] = row;
    if (busy !== "0" || frames !== folded) return;
    try {
      await this.#flush(c, this.#options.path);
      c.vfs.writeTo(this.#walPath, struckOut, 0);
      await this.#flush(c, this.#walPath);
      this.#foldedAt = c.vfs.writtenTo(this.#walPath);
    } catch (error) {
      // SQLite believes that the pages are in the database; it must not be asked again.
      this.#deps.log.error("flushing a checkpoint failed", { error: messageOf(error) });
      if (this.#open === c) this.#disconnect("frozen");
    }
    this.#count(c.vfs);
  }

  async #flush(c: Connection, path: string): Promise<void> {
    const file = c.vfs.fileOf(path);
    assert(file, "the log's files are open");
    await file.flush();
    c.vfs.counters.flushes++;
  }
}

/** Deletions count for nothing: they are what the reserve is for. */
function addedBytes(batch: LogBatch): number {
  return batch.records.reduce((sum, record) => sum + record.value.length, 0);
}

function closeConnection(c: Connection, mode: "blocking" | "frozen"): void {
  // SQLite folds the WAL when it closes: after a failure it must not.
  c.vfs.mode = mode;
  c.db.close();
  // After a failure SQLite may keep a file open that it could not close in order.
  c.vfs.closeAll();
}

function expectPragma(db: Database, pragma: string, expected: string): void {
  const [answer] = db.run(`PRAGMA ${pragma}`);
  assert(answer === expected, `PRAGMA ${pragma} answered ${answer}`);
}
