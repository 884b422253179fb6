// Backend over the engine and a log. A transaction is evaluated and put into the engine the moment it arrives, at the
// next revision; it becomes visible, is acknowledged and reaches watchers when the log has it. Transactions that
// arrive while the log is busy share its next append (group commit without linger: a lone one goes at once).
//
//   commit() -> engine at head+1 -> pending ... append(group) ... durable = last of group -> watchers, promises
//                                              \ failed: engine.rollback(durable), all pending reject
//
// head: newest revision given out. durable: newest revision that readers see. compacted <= durable <= head.
// Upstream counterpart: etcd server/storage/mvcc and lease.
import { assert } from "#base/assert.ts";
import { type Clock, pause } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { nextTurn } from "#platform/turns.ts";
import {
  revision as asRevision,
  type Backend,
  type Key,
  type KeyRange,
  type Lease,
  type Op,
  type RangeOptions,
  type RangeResult,
  type Revision,
  type Txn,
  type TxnResult,
  type Watch,
  type WatchOptions,
  type WatchSink,
} from "./backend.ts";
import { batchOf, type Pending, takeGroup } from "./engine/commit-group.ts";
import type { Engine } from "./engine/engine.ts";
import { LeaseTable } from "./engine/leases.ts";
import { isEngineFault, loggedFlag } from "./engine/module.ts";
import type { RangeScan } from "./engine/range-scan.ts";
import { checkRange, checkTxn } from "./engine/requests.ts";
import { SlicedReads, sliceColdBytes } from "./engine/sliced-reads.ts";
import {
  type Applied,
  applyOps,
  checkRevision,
  coldOf,
  flatOps,
  hasRanges,
  holds,
  maxChanges,
  nothingApplied,
  readRange,
  type TransactionDeps,
  toRecord,
} from "./engine/transaction.ts";
import { WatchHub } from "./engine/watch-hub.ts";
import {
  closedError,
  compactedRevision,
  datastoreError,
  faultError,
  futureRevision,
  isFaultError,
  recoveringError,
} from "./errors.ts";
import { type DatastoreLog, emptyBatch, isEmpty, type LogBatch, type LogRecord, type LogState } from "./log/log.ts";
import { reportStore } from "./store-metrics.ts";

/** Writes that may wait: beyond it the disk is not keeping up and more memory would not help. */
const maxPendingBytes = 64 * 1024 * 1024;
/** What a record takes in memory beside its key and value. */
const recordOverheadBytes = 256;
/** Keys per slice of a compaction: well below a millisecond. */
const compactSliceKeys = 500;
/** Rows that one append takes from the log: two milliseconds, however many revisions a single key has. */
const compactSliceRows = 500;
/** Records of one batch of an export, and where their values are large, their bytes. */
const exportPageKeys = 200;
const exportPageBytes = 512 * 1024;
const recoverMinMs = 100;
const recoverMaxMs = 10_000;

export interface StoreDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics?: Metrics | undefined;
}

export interface StoreAccounts {
  readonly keys: number;
  readonly records: number;
  /** In memory: the index, and the values that are there. */
  readonly heldBytes: number;
  /** The part of it that is superseded. */
  readonly historyBytes: number;
  /** Superseded values, in memory or in the log. */
  readonly historyValueBytes: number;
  /** What was read from the log because it was not in memory. */
  readonly coldReadBytes: number;
  /** Records written to the log since the start. */
  readonly durableWrites: number;
}

/** A Backend with what the process itself may ask of it. */
export interface Datastore extends Backend {
  scan: NonNullable<Backend["scan"]>;
  accounts(): StoreAccounts;
  /**
   * Hands everything that is live at one revision to `write`, in batches, while writing goes on. The last batch has the
   * leases and `snapshot_keys`, the number of records.
   */
  export(write: (batch: LogBatch) => Promise<void>): Promise<{ revision: number; keys: number }>;
  /** Throws when an invariant of the index is broken, or the log has something else. For tests and `mote snapshot verify`. */
  verify(): void;
}

type State = "open" | "recovering" | "closing" | "closed";

/** Loads the log into an engine and answers a store that owns both. */
export async function openStore(newEngine: () => Engine, log: DatastoreLog, deps: StoreDeps): Promise<Datastore> {
  const startedAt = deps.clock.monotonicMs();
  const { engine, state } = await loadFrom(log, newEngine);
  const head = Math.max(state.newest, state.reserved, state.compacted, 1);
  deps.log.info("datastore loaded", {
    keys: engine.keyCount,
    revision: head,
    ms: Math.round(deps.clock.monotonicMs() - startedAt),
  });
  return new Store({ engine, newEngine, log, deps, state: { ...state, head } });
}

async function loadFrom(log: DatastoreLog, newEngine: () => Engine): Promise<{ engine: Engine; state: LogState }> {
  let engine = newEngine();
  if (log.read) engine.readColdFrom(log.read);
  const state = await log.load(() => {
    if (engine.recordCount > 0) engine = newEngine();
    if (log.read) engine.readColdFrom(log.read);
    return (record) => {
      if (!engine.hasRoom(recordOverheadBytes, record.value.length)) {
        throw datastoreError("DATASTORE_FULL", "the datastore's index does not fit into memory");
      }
      engine.load(record);
    };
  });
  return { engine, state };
}

interface StoreParts {
  readonly engine: Engine;
  readonly newEngine: () => Engine;
  readonly log: DatastoreLog;
  readonly deps: StoreDeps;
  readonly state: LogState & { readonly head: number };
}

class Store implements Datastore {
  #engine: Engine;
  readonly #newEngine: () => Engine;
  /** The engine has failed: nothing is read until there is another. */
  #faulted = false;
  /** That is because of the log's file. */
  #damaged = false;
  readonly #log: DatastoreLog;
  readonly #deps: StoreDeps;
  readonly #watches: WatchHub;
  readonly #leases: LeaseTable;
  #state: State = "open";
  #head: number;
  #durable: number;
  #compacted: number;
  /** The compacted revision that the log knows. */
  #loggedCompacted: number;
  #reserved: number;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #draining: Promise<void> | undefined;
  /** Rows the log is to drop with one of its next appends. */
  #dropped: { revision: number; sub: number }[] = [];
  #compacting: Promise<void> = Promise.resolve();
  #exporting: Promise<void> = Promise.resolve();
  readonly #sliced: SlicedReads;
  #durableWrites = 0;
  #recovering: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;
  readonly #ended = new AbortController();

  constructor({ engine, newEngine, log, deps, state }: StoreParts) {
    this.#engine = engine;
    this.#newEngine = newEngine;
    this.#log = log;
    this.#deps = deps;
    this.#head = state.head;
    this.#durable = state.head;
    this.#compacted = state.compacted;
    this.#loggedCompacted = state.compacted;
    this.#reserved = state.reserved;
    this.#sliced = new SlicedReads({
      engine: () => this.#engine,
      check: () => this.#mustBeReadable(),
      noticed: (error) => this.#noticed(error),
    });
    this.#watches = new WatchHub({
      engine: () => this.#engine,
      log: deps.log,
      noticed: (error) => this.#noticed(error),
      state: { durable: () => this.#durable, compacted: () => this.#compacted },
    });
    this.#leases = new LeaseTable(deps.clock, (id) => this.#expire(id));
    for (const lease of state.leases) this.#leases.add(lease.id, lease.ttlSeconds, true);
    this.#collectLeaseKeys();
    if (deps.metrics)
      reportStore(
        deps.metrics,
        () => this.#engine,
        () => this.#durable,
      );
  }

  commit(txn: Txn): Promise<TxnResult> {
    try {
      if (hasRanges(txn)) {
        this.#mustBeWritable();
        checkTxn(txn);
        const rows = coldOf(this.#engine, txn, this.#watches.size > 0);
        let bytes = 0;
        for (const row of rows) bytes += row.bytes;
        if (bytes > sliceColdBytes) {
          return this.#sliced.ahead(
            rows,
            () => this.#mustBeWritable(),
            () => this.#commit(txn),
          );
        }
      }
      return this.#commit(txn);
    } catch (error) {
      return Promise.reject(this.#noticed(error));
    }
  }

  range(options: RangeOptions): Promise<RangeResult> {
    try {
      this.#mustBeReadable();
      checkRange(options);
      if (options.end === undefined || options.keysOnly || options.countOnly) {
        return Promise.resolve(readRange(this.#transaction(), options, this.#durable, this.#durable));
      }
      checkRevision(this.#transaction(), options, this.#durable);
      return this.#sliced.range(options, options.end, this.#durable);
    } catch (error) {
      return Promise.reject(this.#noticed(error));
    }
  }

  scan(options: KeyRange & Pick<RangeOptions, "revision" | "limit">, hurry: () => Promise<void>): RangeScan {
    try {
      this.#mustBeReadable();
      checkRange(options);
      checkRevision(this.#transaction(), options, this.#durable);
      const { key, end = `${options.key}\0`, limit = 0 } = options;
      const at = options.revision ? options.revision : this.#durable;
      return this.#sliced.scan({ key, end, at, limit }, hurry);
    } catch (error) {
      throw this.#noticed(error);
    }
  }

  watch(options: WatchOptions, sink: WatchSink): Watch {
    this.#mustBeReadable();
    checkRange(options);
    try {
      return this.#watches.add(options, sink);
    } catch (error) {
      throw this.#noticed(error);
    }
  }

  compact(revision: Revision): Promise<void> {
    try {
      this.#mustBeReadable();
      if (revision > this.#durable) throw futureRevision(revision, this.#durable);
      if (revision <= this.#compacted) throw compactedRevision(revision, this.#compacted);
    } catch (error) {
      return Promise.reject(error);
    }
    // From now on nobody reads below it, whatever is still there.
    this.#compacted = revision;
    // A compaction that is asked for meanwhile follows; only one works on the engine.
    this.#compacting = this.#compacting
      .catch(() => {
        // Its caller was told.
      })
      .then(() => this.#compactSlices(revision))
      .catch((error: unknown) => {
        throw this.#noticed(error);
      });
    return this.#compacting;
  }

  revision(): Revision {
    return asRevision(this.#durable);
  }

  compactedRevision(): Revision {
    return asRevision(this.#compacted);
  }

  grantLease(ttlSeconds: number, id = 0, durable = false): Promise<Lease> {
    try {
      this.#mustBeWritable();
      if (!(ttlSeconds > 0 && ttlSeconds <= 9_000_000_000)) {
        throw datastoreError("DATASTORE_BAD_REQUEST", "a lease lives between 1 and 9000000000 seconds", { ttlSeconds });
      }
      if (id !== 0 && this.#leases.has(id))
        throw datastoreError("DATASTORE_BAD_REQUEST", "lease already exists", { id });
      const granted = id !== 0 ? id : this.#leases.freeId(this.#head);
      this.#leases.add(granted, Math.ceil(ttlSeconds), durable);
      const lease = this.#leases.describe(granted);
      if (!durable) return Promise.resolve(lease);
      return this.#enqueue({ ...nothingApplied(), leases: [lease] }, []).then(
        () => lease,
        (error: unknown) => {
          this.#leases.remove(granted);
          throw error;
        },
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  keepAlive(id: number): Promise<Lease> {
    try {
      this.#mustBeWritable();
      return Promise.resolve(this.#leases.renew(id));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  revokeLease(id: number): Promise<void> {
    try {
      this.#mustBeWritable();
      this.#leases.describe(id);
      return this.#revoke(id);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  leases(): Promise<readonly Lease[]> {
    try {
      this.#mustBeReadable();
      return Promise.resolve(this.#leases.list());
    } catch (error) {
      return Promise.reject(error);
    }
  }

  lease(id: number, withKeys = false): Promise<Lease & { readonly keys: readonly Key[] }> {
    try {
      this.#mustBeReadable();
      return Promise.resolve({ ...this.#leases.describe(id), keys: withKeys ? this.#leases.keysOf(id) : [] });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  accounts(): StoreAccounts {
    const { keyCount, recordCount, heldBytes, historyBytes, historyValueBytes, coldBytesRead } = this.#engine;
    return {
      ...{ keys: keyCount, records: recordCount, heldBytes, historyBytes, historyValueBytes },
      ...{ coldReadBytes: coldBytesRead, durableWrites: this.#durableWrites },
    };
  }

  export(write: (batch: LogBatch) => Promise<void>): Promise<{ revision: number; keys: number }> {
    // After a compaction that is under way; the next one waits.
    const exported = Promise.all([this.#compacting.catch(() => {}), this.#exporting]).then(() => this.#export(write));
    this.#exporting = exported.then(
      () => {},
      () => {
        // Its caller was told.
      },
    );
    return exported;
  }

  async #export(write: (batch: LogBatch) => Promise<void>): Promise<{ revision: number; keys: number }> {
    this.#mustBeReadable();
    const at = this.#durable;
    const engine = this.#engine;
    const leases = this.#leases.list().filter((lease) => this.#leases.isLogged(lease.id));
    const known = new Set(leases.map(({ id }) => id));
    let keys = 0;
    for (let from: Key | undefined = "\0"; from !== undefined; ) {
      const page = engine.page(from, at, exportPageKeys, exportPageBytes);
      const records = page.records.map(({ kv, sub }) =>
        toRecord(known.has(kv.lease) ? kv : { ...kv, lease: 0 }, sub, loggedFlag),
      );
      if (records.length > 0) await write({ ...emptyBatch, records });
      keys += records.length;
      from = page.next;
      await nextTurn();
      this.#mustBeReadable();
      if (engine !== this.#engine) throw faultError();
    }
    await write({ ...emptyBatch, leases, reserve: at, compacted: at, notes: { snapshot_keys: keys } });
    return { revision: at, keys };
  }

  verify(): void {
    this.#engine.verify();
    const { read } = this.#log;
    if (!read || this.#state !== "open" || this.#faulted) return;
    try {
      this.#engine.verifyAgainst(read);
    } catch (error) {
      // Of a log that has to be opened again nothing can be said.
      if (!hasCode(error, "DATASTORE_FLUSH_FAILED")) throw error;
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const wasOpen = this.#state === "open";
    this.#state = "closing";
    this.#ended.abort(closedError());
    this.#leases.clear();
    await this.#exporting;
    await this.#compacting.catch(() => {});
    // One drain may hand over to the next.
    while (this.#draining) await this.#draining;
    await this.#recovering;
    if (wasOpen) await this.#saveMemory();
    this.#state = "closed";
    this.#watches.endAll(closedError());
    await this.#log.close();
  }

  /** At an orderly end what lives in memory only is written too, and the unused rest of the reserved revisions given back. */
  async #saveMemory(): Promise<void> {
    const records = this.#engine
      .select(this.#durable, true, (logged) => !logged)
      .map(({ kv, sub }): LogRecord => {
        // Leases of such keys are in memory only as well: a key must not wait for one that nobody knows.
        return toRecord(this.#leases.isLogged(kv.lease) ? kv : { ...kv, lease: 0 }, sub, loggedFlag);
      });
    if (records.length === 0 && this.#reserved <= this.#durable) return;
    try {
      await this.#log.append({ ...emptyBatch, records, reserve: this.#durable });
    } catch (error) {
      this.#deps.log.warn("heartbeats and events could not be saved at the end", { error: messageOf(error) });
    }
  }

  #mustBeReadable(): void {
    if (this.#state === "closing" || this.#state === "closed") throw closedError();
    if (this.#faulted) throw faultError();
  }

  #mustBeWritable(): void {
    this.#mustBeReadable();
    if (this.#state === "recovering") throw recoveringError();
  }

  #commit(txn: Txn): Promise<TxnResult> {
    this.#mustBeWritable();
    checkTxn(txn);
    const succeeded = txn.compares.every((compare) => holds(this.#engine, compare));
    const ops = succeeded ? txn.success : (txn.failure ?? []);
    this.#checkRoom(flatOps(ops));
    const applied = this.#apply(ops);
    const result: TxnResult = { succeeded, revision: asRevision(this.#head), results: applied.results };
    // What was read may hold writes that are not durable yet: the answer waits for them.
    if (applied.events.length === 0 && this.#pending.length === 0 && !this.#draining) return Promise.resolve(result);
    return this.#enqueue(applied, [], result);
  }

  /** Applies ops at head + 1. */
  #apply(ops: readonly Op[]): Applied {
    const applied = applyOps(this.#transaction(), ops, this.#head);
    if (applied.events.length > 0) this.#head++;
    return applied;
  }

  #transaction(): TransactionDeps {
    return { engine: this.#engine, leases: this.#leases, compacted: this.#compacted };
  }

  #checkRoom(ops: readonly Op[]): void {
    let bytes = 0;
    let indexBytes = 0;
    for (const op of ops) {
      if (op.type !== "put") continue;
      bytes += op.value.length;
      indexBytes += op.key.length + recordOverheadBytes;
    }
    if (indexBytes === 0) return;
    if (this.#log.full && ops.some((op) => op.type === "put" && (op.class ?? "durable") === "durable")) {
      throw datastoreError("DATASTORE_FULL", "no space left for the datastore; deletions are still taken");
    }
    if (!this.#engine.hasRoom(indexBytes, bytes))
      throw datastoreError("DATASTORE_FULL", "the datastore's memory is full");
    if (this.#pendingBytes + bytes + indexBytes > maxPendingBytes) {
      throw datastoreError("DATASTORE_FULL", "too many writes wait for the disk");
    }
  }

  #enqueue(applied: Applied, revokedLeases: readonly number[]): Promise<void>;
  #enqueue<T>(applied: Applied, revokedLeases: readonly number[], result: T): Promise<T>;
  /** Resolves with `result` when it is durable. */
  #enqueue(applied: Applied, revokedLeases: readonly number[], result?: unknown): Promise<unknown> {
    if (this.#state === "recovering") return Promise.reject(recoveringError());
    assert(this.#state !== "closed", "nothing is written to a closed log");
    return new Promise((resolve, reject) => {
      this.#pending.push({
        revision: this.#head,
        events: applied.events,
        records: applied.records,
        superseded: applied.superseded,
        leases: applied.leases,
        revokedLeases,
        bytes: applied.bytes,
        ...{ result, resolve, reject },
      });
      this.#pendingBytes += applied.bytes;
      this.#startDraining();
    });
  }

  #startDraining(): void {
    if (this.#draining || this.#state === "recovering") return;
    // A microtask later: what is committed in the same breath shares the flush.
    this.#draining = Promise.resolve()
      .then(() => this.#drain())
      .finally(() => {
        this.#draining = undefined;
        // Something that came between the last look and now.
        if (this.#pending.length > 0) this.#startDraining();
      });
  }

  async #drain(): Promise<void> {
    while (this.#pending.length > 0 && !this.#faulted) {
      const group = takeGroup(this.#pending);
      const batch = batchOf(group, {
        dropped: this.#dropped.splice(0),
        reserved: this.#reserved,
        compacted: this.#compacted,
        loggedCompacted: this.#loggedCompacted,
      });
      if (!isEmpty(batch)) {
        try {
          await this.#log.append(batch);
        } catch (error) {
          this.#failed(group, error as Error);
          return;
        }
        this.#settled(batch);
      }
      try {
        this.#publish(group);
      } catch (error) {
        const failure = this.#noticed(error) as Error;
        for (const p of group) p.reject(failure);
      }
    }
  }

  #settled(batch: LogBatch): void {
    this.#durableWrites += batch.records.length;
    if (batch.reserve !== undefined) this.#reserved = batch.reserve;
    if (batch.compacted !== undefined) this.#loggedCompacted = batch.compacted;
  }

  #publish(group: readonly Pending[]): void {
    this.#durable = Math.max(this.#durable, group[group.length - 1]!.revision);
    for (const p of group) this.#pendingBytes -= p.bytes;
    this.#engine.settled(this.#durable);
    for (const p of group) this.#engine.superseded(p.superseded);
    this.#watches.publish(group);
    for (const p of group) p.resolve(p.result);
  }

  /** Takes back everything that is not durable, and mends the log where it needs it. */
  #failed(group: readonly Pending[], error: Error): void {
    const all = [...group, ...this.#pending];
    this.#pending = [];
    this.#pendingBytes = 0;
    try {
      if (!this.#faulted) this.#engine.rollback(this.#durable);
      this.#collectLeaseKeys();
    } catch (thrown) {
      this.#noticed(thrown);
    }
    // The numbers are not used again: a reader of the disk may have seen them.
    const known = hasCode(error, "DATASTORE_FULL");
    this.#deps.log.error("datastore write failed", { error: error.message, waiting: all.length });
    if (!known && this.#state === "open") {
      this.#state = "recovering";
      this.#recovering = this.#recover();
    }
    for (const p of all) {
      for (const lease of p.leases) this.#leases.unmarkLogged(lease.id);
      p.reject(error);
    }
  }

  /**
   * What to tell the caller. A fault of the engine ends its use: everything is read into a new one from the log. So does a
   * record that is found damaged when it is read: reading everything is what finds, names and mends all damage.
   */
  #noticed(error: unknown): unknown {
    const damaged = hasCode(error, "DATASTORE_CORRUPT") && !isFaultError(error);
    if (!isEngineFault(error) && !damaged) return error;
    if (!this.#faulted) {
      this.#deps.log.error("the datastore's index is rebuilt", { error: messageOf(error) });
      this.#faulted = true;
      this.#damaged ||= damaged;
      const waiting = this.#pending.splice(0);
      this.#pendingBytes = 0;
      for (const p of waiting) p.reject(faultError());
      // Some of them may lack the last events; who resumes from its last revision gets them.
      this.#watches.endAll(faultError());
      if (this.#state === "open") {
        this.#state = "recovering";
        this.#recovering = this.#recover();
      }
    }
    return faultError();
  }

  /** Keys of the memory-only classes are lost with the engine that had them, as in a crash. */
  async #rebuild(): Promise<void> {
    const { engine, state } = await loadFrom(this.#log, this.#newEngine);
    // Damage found on the way has ended history here.
    this.#compacted = Math.max(this.#compacted, state.compacted);
    this.#head = Math.max(this.#head, state.reserved);
    this.#durable = Math.max(this.#durable, state.reserved, state.compacted);
    this.#engine = engine;
    this.#faulted = false;
    this.#damaged = false;
    this.#collectLeaseKeys();
  }

  async #recover(): Promise<void> {
    let pauseMs = recoverMinMs;
    while (this.#state === "recovering") {
      try {
        // An append that is under way would find its log closed.
        while (this.#draining) await this.#draining;
        // A damaged file is not written to: loading it sets it aside.
        if (!this.#damaged) await this.#log.recover(this.#durable);
        if (this.#faulted) await this.#rebuild();
        if (this.#state === "recovering") this.#state = "open";
        this.#deps.log.info("datastore recovered", { revision: this.#durable });
        return;
      } catch (error) {
        this.#deps.log.error("datastore cannot recover yet", { error: messageOf(error) });
        await pause(this.#deps.clock, pauseMs, this.#ended.signal);
        pauseMs = Math.min(pauseMs * 2, recoverMaxMs);
      }
    }
  }

  async #compactSlices(revision: number): Promise<void> {
    await this.#exporting;
    // Those that begin from now on read at the compacted revision or above it.
    await this.#sliced.finish(revision);
    if (this.#state !== "open") throw closedError();
    this.#engine.compactOpen(revision);
    let more = true;
    while (more) {
      const dropped: { revision: number; sub: number }[] = [];
      more = this.#engine.compactNext(compactSliceKeys, dropped);
      // Newest first, as they come; a tombstone must not be gone from the log before what it ends.
      dropped.reverse();
      for (let i = 0; i < dropped.length; i += compactSliceRows) {
        if (this.#state !== "open") throw closedError();
        this.#dropped.push(...dropped.slice(i, i + compactSliceRows));
        // A transaction without changes: its group takes the rows along and waits for the log.
        await this.#enqueue(nothingApplied(), []);
      }
      if (dropped.length === 0 && more) await nextTurn();
      if (this.#state !== "open") throw closedError();
    }
  }

  #expire(id: number): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#revoke(id).catch((error: unknown) => {
      this.#deps.log.warn("keys of an expired lease could not be deleted yet", { lease: id, error: messageOf(error) });
    });
  }

  async #revoke(id: number): Promise<void> {
    const logged = this.#leases.isLogged(id);
    const ttlSeconds = this.#leases.describe(id).ttlSeconds;
    try {
      this.#mustBeWritable();
      const ops = this.#leases.keysOf(id).map((key): Op => ({ type: "delete", key }));
      if (ops.length > maxChanges) throw datastoreError("DATASTORE_TOO_LARGE", "lease has too many keys");
      this.#leases.remove(id);
      const applied = this.#apply(ops);
      await this.#enqueue(applied, logged ? [id] : []);
    } catch (error) {
      // Still owed: it comes back with one second to live, and its keys with it.
      if (this.#state === "open" || this.#state === "recovering") this.#leases.retry(id, ttlSeconds, logged);
      throw this.#noticed(error);
    }
  }

  /** Attaches every key to its lease, from what the engine has. */
  #collectLeaseKeys(): void {
    if (this.#faulted) return;
    this.#leases.clearKeys();
    for (const { kv } of this.#engine.select(Infinity, false, (_logged, lease) => lease !== 0))
      this.#leases.attach(kv.lease, kv.key);
  }
}
