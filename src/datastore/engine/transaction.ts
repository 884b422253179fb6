// A transaction against the engine: compares, then the ops in order, all writes at one revision. Synchronous, and all
// or nothing: what cannot be applied is rolled back. Knows nothing of durability; the store decides when it is seen.
import {
  revision as asRevision,
  type Compare,
  type KeyValue,
  type Op,
  type OpResult,
  type RangeOptions,
  type RangeResult,
  type WatchEvent,
} from "../backend.ts";
import { compactedRevision, datastoreError, futureRevision, leaseNotFound } from "../errors.ts";
import type { LogLease, LogRecord } from "../log/log.ts";
import { type Engine, loggedFlag, tombstoneFlag } from "./engine.ts";
import type { LeaseTable } from "./leases.ts";

/** The log numbers the changes of one revision with 16 bits. */
export const maxChanges = 65_535;

/** What a transaction did: for its caller, for watchers, and for the log. */
export interface Applied {
  readonly results: OpResult[];
  readonly events: WatchEvent[];
  readonly records: LogRecord[];
  /** Leases that the log has to learn of with these records. */
  readonly leases: LogLease[];
  bytes: number;
}

export interface TransactionDeps {
  readonly engine: Engine;
  readonly leases: LeaseTable;
  readonly compacted: number;
}

export function nothingApplied(): Applied {
  return { results: [], events: [], records: [], leases: [], bytes: 0 };
}

export function holds(engine: Engine, compare: Compare): boolean {
  const kv = engine.get(compare.key, Infinity);
  const actual = kv ? compareTargets[compare.target](kv) : 0;
  return compareOps[compare.op](actual, compare.value);
}

/** Applies ops at the revision after `head`. Without events nothing was written and the revision is not used. */
export function applyOps(deps: TransactionDeps, ops: readonly Op[], head: number): Applied {
  const { engine, leases } = deps;
  const at = head + 1;
  const applied = nothingApplied();
  for (const op of ops) {
    if (op.type === "put" && op.lease && !leases.has(op.lease)) throw leaseNotFound(op.lease);
  }
  try {
    for (const op of ops) applied.results.push(applyOp(deps, op, at, applied));
  } catch (error) {
    if (applied.events.length > 0) engine.rollback(head);
    for (const lease of applied.leases) leases.unmarkLogged(lease.id);
    throw error;
  }
  for (const event of applied.events) {
    if (event.prevKv && event.prevKv.lease !== 0) leases.detach(event.prevKv.lease, event.kv.key);
    if (event.type === "put" && event.kv.lease !== 0) leases.attach(event.kv.lease, event.kv.key);
  }
  return applied;
}

/** Reads at `newest`, or at the revision asked for, where `current` is the newest that may be asked for. */
export function readRange(deps: TransactionDeps, options: RangeOptions, newest: number, current: number): RangeResult {
  const { engine, compacted } = deps;
  const asked = options.revision ?? 0;
  if (asked > current) throw futureRevision(asked, current);
  if (asked !== 0 && asked < compacted) throw compactedRevision(asked, compacted);
  const at = asked === 0 ? newest : asked;
  const revision = asRevision(current);
  const limit = options.limit ?? 0;
  const end = options.end ?? `${options.key}\0`;
  if (options.countOnly) return { kvs: [], count: engine.count(options.key, end, at), more: false, revision };
  if (options.end === undefined && !options.keysOnly) {
    const kv = engine.get(options.key, at);
    return { kvs: kv ? [kv] : [], count: kv ? 1 : 0, more: false, revision };
  }
  const kvs = engine.range(options.key, end, at, limit, options.keysOnly ?? false);
  const count = kvs.length + (limit > 0 && kvs.length === limit ? engine.rangeRest() : 0);
  return { kvs, count, more: count > kvs.length, revision };
}

function applyOp(deps: TransactionDeps, op: Op, at: number, applied: Applied): OpResult {
  if (op.type === "put") return put(deps, op, at, applied);
  if (op.type === "delete") return remove(deps.engine, op, at, applied);
  const current = applied.events.length > 0 ? at : at - 1;
  return { type: "range", result: readRange(deps, op.range, Infinity, current) };
}

function put(
  { engine, leases }: TransactionDeps,
  op: Extract<Op, { type: "put" }>,
  at: number,
  applied: Applied,
): OpResult {
  const lease = op.lease ?? 0;
  const logged = (op.class ?? "durable") === "durable";
  const previous = engine.get(op.key, Infinity);
  const sub = applied.events.length;
  engine.put(op.key, op.value, at, sub, lease, logged);
  const kv: KeyValue = {
    key: op.key,
    value: op.value,
    createRevision: previous ? previous.createRevision : asRevision(at),
    modRevision: asRevision(at),
    version: (previous?.version ?? 0) + 1,
    lease,
  };
  applied.events.push({ type: "put", kv, prevKv: previous });
  applied.bytes += op.key.length + op.value.length;
  if (logged) {
    if (lease !== 0 && leases.markLogged(lease)) applied.leases.push(leases.describe(lease));
    applied.records.push(toRecord(kv, sub, loggedFlag));
  }
  return { type: "put", prevKv: previous };
}

function remove(engine: Engine, op: Extract<Op, { type: "delete" }>, at: number, applied: Applied): OpResult {
  const found =
    op.end === undefined
      ? [engine.get(op.key, Infinity)].filter((kv) => kv !== undefined)
      : engine.range(op.key, op.end, Infinity, 0, false);
  if (applied.events.length + found.length > maxChanges) {
    throw datastoreError("DATASTORE_TOO_LARGE", `a transaction changes at most ${maxChanges} keys`);
  }
  for (const previous of found) removeKey(engine, previous, at, applied);
  return { type: "delete", deleted: found.length, prevKvs: op.prevKv ? found : [] };
}

function removeKey(engine: Engine, previous: KeyValue, at: number, applied: Applied): void {
  const sub = applied.events.length;
  const logged = engine.remove(previous.key, at, sub);
  const kv: KeyValue = {
    key: previous.key,
    value: new Uint8Array(0),
    createRevision: asRevision(0),
    modRevision: asRevision(at),
    version: 0,
    lease: 0,
  };
  applied.events.push({ type: "delete", kv, prevKv: previous });
  applied.bytes += previous.key.length;
  if (logged) applied.records.push(toRecord(kv, sub, loggedFlag | tombstoneFlag));
}

export function toRecord(kv: KeyValue, sub: number, flags: number): LogRecord {
  return {
    key: kv.key,
    value: kv.value,
    revision: kv.modRevision,
    sub,
    create: kv.createRevision,
    version: kv.version,
    lease: kv.lease,
    flags,
  };
}

const compareTargets: Readonly<Record<Compare["target"], (kv: KeyValue) => number>> = {
  mod: (kv) => kv.modRevision,
  create: (kv) => kv.createRevision,
  version: (kv) => kv.version,
  lease: (kv) => kv.lease,
};

const compareOps: Readonly<Record<Compare["op"], (a: number, b: number) => boolean>> = {
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "<": (a, b) => a < b,
  ">": (a, b) => a > b,
};
