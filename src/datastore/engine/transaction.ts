// A transaction against the engine: compares, then the ops in order, all writes at one revision. Synchronous, and all
// or nothing: what cannot be applied is rolled back. Knows nothing of durability; the store decides when it is seen.
import { Buffer } from "node:buffer";
import {
  revision as asRevision,
  type Compare,
  type KeyValue,
  type Op,
  type OpResult,
  type RangeOptions,
  type RangeResult,
  type Revision,
  type Txn,
  type WatchEvent,
} from "../backend.ts";
import { compactedRevision, datastoreError, futureRevision, leaseNotFound } from "../errors.ts";
import type { LogLease, LogRecord } from "../log/log.ts";
import type { ColdRow, Engine, Superseded } from "./engine.ts";
import type { StoredKeyValue } from "./items.ts";
import type { LeaseTable } from "./leases.ts";
import { loggedFlag, tombstoneFlag } from "./module.ts";

/** The log numbers the changes of one revision with 16 bits. */
export const maxChanges = 65_535;

/** What a transaction did: for its caller, for watchers, and for the log. */
export interface Applied {
  readonly results: OpResult[];
  readonly events: WatchEvent[];
  readonly records: LogRecord[];
  /** Leases that the log has to learn of with these records. */
  readonly leases: LogLease[];
  readonly superseded: Superseded[];
  bytes: number;
}

export interface TransactionDeps {
  readonly engine: Engine;
  readonly leases: LeaseTable;
  readonly compacted: number;
}

export function nothingApplied(): Applied {
  return { results: [], events: [], records: [], leases: [], superseded: [], bytes: 0 };
}

export function holds(engine: Engine, compare: Compare): boolean {
  const found =
    compare.end === undefined
      ? [engine.current(compare.key)].filter((kv) => kv !== undefined)
      : engine.range(compare.key, compare.end, Infinity, 0, compare.target !== "value");
  if (compare.target === "value") {
    const wanted = compare.value;
    return found.length > 0 && found.every((kv) => compareOps[compare.op](Buffer.compare(kv.value, wanted), 0));
  }
  const { op, target, value } = compare;
  if (found.length === 0) return compareOps[op](0, value);
  return found.every((kv) => compareOps[op](compareTargets[target](kv), value));
}

/** Which way each nested transaction goes: judged before anything is applied, as in etcd. */
type Paths = Map<Op, boolean>;

/** Where nothing is nested, as almost always. */
const noPaths: Paths = new Map();

function choosePaths(engine: Engine, ops: readonly Op[], paths: Paths): Paths {
  for (const op of ops) {
    if (op.type !== "txn") continue;
    const succeeded = op.txn.compares.every((compare) => holds(engine, compare));
    paths.set(op, succeeded);
    choosePaths(engine, branchOf(op, succeeded), paths);
  }
  return paths;
}

const branchOf = (op: Extract<Op, { type: "txn" }>, succeeded: boolean): readonly Op[] =>
  succeeded ? op.txn.success : (op.txn.failure ?? []);

/** What could not be applied, found before anything is: first among all puts, then among all ranges. */
function checkApplicable(deps: TransactionDeps, ops: readonly Op[], head: number, paths: Paths): void {
  const chosen = chosenOps(ops, paths);
  for (const op of chosen) {
    if (op.type !== "put") continue;
    if ((op.keepValue || op.keepLease) && !deps.engine.get(op.key, Infinity)) {
      throw datastoreError("DATASTORE_KEY_NOT_FOUND", "a key whose value or lease is to be kept is not there", {
        key: op.key,
      });
    }
    if (op.lease && !deps.leases.has(op.lease)) throw leaseNotFound(op.lease);
  }
  for (const op of chosen) if (op.type === "range") checkRevision(deps, op.range, head);
}

function chosenOps(ops: readonly Op[], paths: Paths): readonly Op[] {
  if (paths.size === 0) return ops;
  return ops.flatMap((op) => (op.type === "txn" ? chosenOps(branchOf(op, paths.get(op) === true), paths) : [op]));
}

/** Every op of a transaction with those nested in it, whatever way they go. */
export function flatOps(ops: readonly Op[]): readonly Op[] {
  if (!ops.some((op) => op.type === "txn")) return ops;
  return ops.flatMap((op) => (op.type === "txn" ? flatOps([...op.txn.success, ...(op.txn.failure ?? [])]) : [op]));
}

/** What of values the ops and compares would have to read from the log, whatever way they go; `watched`: of what is deleted too. */
export function coldOf(engine: Engine, txn: Txn, watched: boolean): ColdRow[] {
  const found: ColdRow[] = [];
  const visit = ({ compares, success, failure = [] }: Txn) => {
    for (const { key, end, target } of compares) {
      if (end !== undefined && target === "value") engine.coldOf(key, end, { at: Infinity, limit: 0 }, found);
    }
    for (const op of [...success, ...failure]) {
      if (op.type === "txn") visit(op.txn);
      else if (op.type === "delete" && op.end !== undefined && (watched || op.prevKv))
        engine.coldOf(op.key, op.end, { at: Infinity, limit: 0 }, found);
      else if (op.type === "range") {
        const { key, end, revision, limit = 0, countOnly, keysOnly } = op.range;
        if (end === undefined || countOnly || keysOnly) continue;
        engine.coldOf(key, end, { at: revision ? revision : Infinity, limit }, found);
      }
    }
  };
  visit(txn);
  return found;
}

/** True when a transaction has ranges, which alone can take many values. */
export function hasRanges({ compares, success, failure }: Txn): boolean {
  for (const { end } of compares) if (end !== undefined) return true;
  return opsHaveRanges(success) || (failure !== undefined && opsHaveRanges(failure));
}

function opsHaveRanges(ops: readonly Op[]): boolean {
  for (const op of ops) {
    if (op.type === "put") continue;
    if (op.type === "txn" ? hasRanges(op.txn) : (op.type === "range" ? op.range : op).end !== undefined) return true;
  }
  return false;
}

/** Applies ops at the revision after `head`. Without events nothing was written and the revision is not used. */
export function applyOps(deps: TransactionDeps, ops: readonly Op[], head: number): Applied {
  const { engine, leases } = deps;
  const at = head + 1;
  const applied = nothingApplied();
  const paths = ops.some((op) => op.type === "txn") ? choosePaths(engine, ops, new Map()) : noPaths;
  checkApplicable(deps, ops, head, paths);
  try {
    for (const op of ops) applied.results.push(applyOp(deps, op, at, applied, paths));
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
  const { engine } = deps;
  const asked = options.revision ?? 0;
  checkRevision(deps, options, current);
  const at = asked === 0 ? newest : asked;
  const revision = asRevision(current);
  const limit = options.limit ?? 0;
  const end = options.end ?? `${options.key}\0`;
  if (options.countOnly) return { kvs: [], count: engine.count(options.key, end, at), more: false, revision };
  if (options.end === undefined && !options.keysOnly) {
    const kv = engine.getAndKeep(options.key, at);
    return { kvs: kv ? [kv] : [], count: kv ? 1 : 0, more: false, revision };
  }
  const kvs = engine.range(options.key, end, at, limit, options.keysOnly ?? false);
  const count = kvs.length + (limit > 0 && kvs.length === limit ? engine.rangeRest() : 0);
  return { kvs, count, more: count > kvs.length, revision };
}

export function checkRevision(
  { compacted }: TransactionDeps,
  { revision: asked = 0 as Revision }: RangeOptions,
  current: number,
): void {
  if (asked > current) throw futureRevision(asked, current);
  if (asked !== 0 && asked < compacted) throw compactedRevision(asked, compacted);
}

function applyOp(deps: TransactionDeps, op: Op, at: number, applied: Applied, paths: Paths): OpResult {
  if (op.type === "txn") {
    const succeeded = paths.get(op) === true;
    const results = branchOf(op, succeeded).map((inner) => applyOp(deps, inner, at, applied, paths));
    return { type: "txn", succeeded, results };
  }
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
  const logged = (op.class ?? "durable") === "durable";
  // Its value is read only where somebody wants it: most puts are by those who know what was there.
  const previous = engine.current(op.key);
  const lease = op.keepLease ? previous!.lease : (op.lease ?? 0);
  // Once it is read it stays with `previous`.
  const oldValue = op.keepValue || op.prevKv ? previous?.value : undefined;
  const newValue = op.keepValue ? oldValue! : op.value;
  const sub = applied.events.length;
  engine.put(op.key, newValue, at, sub, lease, logged);
  const kv: KeyValue = {
    key: op.key,
    value: newValue,
    createRevision: previous ? previous.createRevision : asRevision(at),
    modRevision: asRevision(at),
    version: (previous?.version ?? 0) + 1,
    lease,
  };
  applied.events.push({ type: "put", kv, prevKv: previous });
  if (previous) applied.superseded.push(previous);
  applied.bytes += op.key.length + newValue.length;
  if (logged) {
    if (lease !== 0 && leases.markLogged(lease)) applied.leases.push(leases.describe(lease));
    applied.records.push(toRecord(kv, sub, loggedFlag));
  }
  return { type: "put", prevKv: previous };
}

function remove(engine: Engine, op: Extract<Op, { type: "delete" }>, at: number, applied: Applied): OpResult {
  const found =
    op.end === undefined ? [engine.current(op.key)].filter((kv) => kv !== undefined) : engine.currents(op.key, op.end);
  if (applied.events.length + found.length > maxChanges) {
    throw datastoreError("DATASTORE_TOO_LARGE", `a transaction changes at most ${maxChanges} keys`);
  }
  if (!engine.hasRoomToDelete(found.length)) {
    throw datastoreError("DATASTORE_FULL", "the datastore's memory is full; delete fewer at a time, and compact");
  }
  // Values are read where they are asked for, or were read already.
  if (op.prevKv || engine.isAhead) for (const { value } of found) void value;
  for (const previous of found) removeKey(engine, previous, at, applied);
  return { type: "delete", deleted: found.length, prevKvs: op.prevKv ? found : [] };
}

function removeKey(engine: Engine, previous: StoredKeyValue, at: number, applied: Applied): void {
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
  applied.superseded.push(previous);
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

const compareTargets: Readonly<Record<Exclude<Compare["target"], "value">, (kv: KeyValue) => number>> = {
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
