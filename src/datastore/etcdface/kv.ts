// The KV service: Range, Put, DeleteRange, Txn, Compact. A request is checked as etcd checks it and in its order, then
// becomes a transaction of the Backend; sorting and the filters by revision are done here, on what the Backend read.
// Upstream counterpart: etcd server/etcdserver/api/v3rpc/key.go and apply.go.
import { Buffer } from "node:buffer";
import type {
  CompactionRequest,
  DeleteRangeRequest,
  Compare as EtcdCompare,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "#wire/gen/etcd.ts";
import type { DataSource } from "#wire/http2/stream.ts";
import {
  revision as asRevision,
  type Backend,
  type Compare,
  type Key,
  type KeyRange,
  type KeyValue,
  type Op,
  type OpResult,
  type RangeOptions,
  type RangeResult,
} from "../backend.ts";
import { etcdError } from "./errors.ts";
import {
  deletePart,
  frameOf,
  headerFrame,
  headerPart,
  type Identity,
  type Part,
  putPart,
  type RangeAnswer,
  rangePart,
  responseOp,
  txnPart,
} from "./messages.ts";
import { type AheadBudget, rangeFrame } from "./range-source.ts";

export interface KvDeps {
  readonly backend: Backend;
  readonly identity: Identity;
  /** etcd's --max-txn-ops and --max-request-bytes. */
  readonly maxTxnOps: number;
  readonly maxRequestBytes: number;
  readonly ahead: AheadBudget;
  /** Throws where an alarm forbids what adds to the store, or everything. */
  checkAlarms(adds: boolean): void;
}

/** int64 and uint64 beyond what a number holds are only ever compared: rounding them changes no answer. */
export const toNumber = (value: number | bigint): number => Number(value);

const latin1 = (bytes: Uint8Array): string =>
  (bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)).toString("latin1");

/** An empty end is none; "\0" says "from here on" to the Backend too. */
export const rangeOf = (request: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }): KeyRange => ({
  key: latin1(request.key),
  end: request.rangeEnd.length === 0 ? undefined : latin1(request.rangeEnd),
});

/** A frame, or what writes it while it is sent. */
export async function range(deps: KvDeps, request: RangeRequest): Promise<Uint8Array | DataSource> {
  checkRange(request);
  const { backend, identity } = deps;
  // Below zero is now, but only outside of a transaction.
  const revision = asRevision(Math.max(0, toNumber(request.revision)));
  if (backend.scan && isInOrder(request)) {
    const limit = Math.max(0, toNumber(request.limit));
    const options = { ...rangeOf(request), revision, limit, keysOnly: request.keysOnly };
    return rangeFrame(backend.scan.bind(backend), options, () => headerPart(backend.revision(), identity), deps.ahead);
  }
  const result = await backend.range({ ...rangeOptions(request), revision });
  return frameOf(rangePart(headerPart(result.revision, identity), rangeAnswer(request, result)));
}

/** The frame of the answer: most often a header alone. Throws, or rejects. Not `async`: puts come by the thousand. */
export function put(deps: KvDeps, request: PutRequest, bytes: number): Promise<Uint8Array> {
  checkPut(request);
  checkSize(deps, bytes);
  deps.checkAlarms(true);
  const { backend, identity } = deps;
  const lease = toNumber(request.lease);
  const commit = () => backend.commit({ compares: [], success: [putOp(request)] });
  // A put by itself is refused for its lease first, one in a transaction for its key.
  const done = request.ignoreValue && lease !== 0 ? backend.lease(lease).then(commit) : commit();
  return done.then(({ revision, results }) => {
    if (!request.prevKv) return headerFrame(revision, identity);
    const [result] = results as [Extract<OpResult, { type: "put" }>];
    return frameOf(putPart(headerPart(revision, identity), result.prevKv));
  });
}

export async function deleteRange(deps: KvDeps, request: DeleteRangeRequest, bytes: number): Promise<Part> {
  checkKey(request.key);
  checkSize(deps, bytes);
  deps.checkAlarms(false);
  const { revision, results } = await deps.backend.commit({ compares: [], success: [deleteOp(request)] });
  const [{ deleted, prevKvs }] = results as [Extract<OpResult, { type: "delete" }>];
  return deletePart(headerPart(revision, deps.identity), deleted, prevKvs);
}

export async function txn(deps: KvDeps, request: TxnRequest, bytes: number): Promise<Part> {
  checkTxn(request, deps.maxTxnOps);
  checkChanges(request.success);
  checkChanges(request.failure);
  checkSize(deps, bytes);
  deps.checkAlarms(hasPut(request));
  const { revision, succeeded, results } = await deps.backend.commit(txnOf(request));
  // A transaction that changed nothing has the revision that was there; within one that did, what came before the
  // first change shows the revision before it.
  const changed = changes(results);
  const at: Progress = { before: changed ? revision - 1 : revision, changed: false };
  return answerTxn(request, succeeded, results, headerPart(revision, deps.identity), at);
}

export async function compact(deps: KvDeps, request: CompactionRequest): Promise<Part> {
  deps.checkAlarms(false);
  const { backend } = deps;
  const done = backend.compact(asRevision(toNumber(request.revision)));
  if (request.physical) await done;
  else {
    // The revision is gone from now on; what is left to do is the store's own work. A refusal comes at once.
    let failure: unknown;
    done.catch((error: unknown) => {
      failure = error;
    });
    await Promise.race([done, Promise.resolve().then(() => Promise.resolve())]);
    if (failure !== undefined) throw failure;
  }
  return putPart(headerPart(backend.revision(), deps.identity), undefined);
}

// Checks

function checkKey(key: Uint8Array): void {
  if (key.length === 0) throw etcdError("emptyKey");
}

function checkRange(request: RangeRequest): void {
  checkKey(request.key);
}

function checkPut(request: PutRequest): void {
  checkKey(request.key);
  if (request.ignoreValue && request.value.length > 0) throw etcdError("valueProvided");
  if (request.ignoreLease && toNumber(request.lease) !== 0) throw etcdError("leaseProvided");
}

/** etcd measures the request with its envelope, of about twenty bytes. */
const envelopeBytes = 20;

function checkSize(deps: KvDeps, bytes: number): void {
  if (bytes + envelopeBytes > deps.maxRequestBytes) throw etcdError("requestTooLarge");
}

function checkTxn(request: TxnRequest, maxOps: number): void {
  const count = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (count > maxOps) throw etcdError("tooManyOps");
  for (const compare of request.compare) checkKey(compare.key);
  for (const op of [...request.success, ...request.failure]) checkOp(op, maxOps - count);
}

function checkOp(op: RequestOp, maxOps: number): void {
  if (op.requestRange) checkRange(op.requestRange);
  else if (op.requestPut) checkPut(op.requestPut);
  else if (op.requestDeleteRange) checkKey(op.requestDeleteRange.key);
  else if (op.requestTxn) checkTxn(op.requestTxn, maxOps);
  else throw etcdError("keyNotFound");
}

interface Changes {
  readonly puts: Set<Key>;
  readonly deletes: KeyRange[];
}

/** No key may be put twice, or put and deleted, along any one path. */
function checkChanges(ops: readonly RequestOp[]): Changes {
  const deletes = ops.flatMap((op) => (op.requestDeleteRange ? [rangeOf(op.requestDeleteRange)] : []));
  const puts = new Set<Key>();
  const add = (key: Key, allowed: ReadonlySet<Key> | undefined) => {
    if (puts.has(key) && !allowed?.has(key)) throw etcdError("duplicateKey");
    if (
      deletes.some(({ key: start, end }) =>
        end === undefined ? key === start : key >= start && (end === "\0" || key < end),
      )
    )
      throw etcdError("duplicateKey");
    puts.add(key);
  };
  for (const { requestTxn } of ops) {
    if (!requestTxn) continue;
    const then = checkChanges(requestTxn.success);
    const otherwise = checkChanges(requestTxn.failure);
    for (const key of then.puts) add(key, undefined);
    for (const key of otherwise.puts) add(key, then.puts);
    deletes.push(...then.deletes, ...otherwise.deletes);
  }
  for (const { requestPut } of ops) if (requestPut) add(latin1(requestPut.key), undefined);
  return { puts, deletes };
}

const hasPut = (request: TxnRequest): boolean =>
  [...request.success, ...request.failure].some((op) => op.requestPut || (op.requestTxn && hasPut(op.requestTxn)));

// Requests

const putOp = (request: PutRequest): Op => ({
  type: "put",
  key: latin1(request.key),
  value: request.value,
  lease: toNumber(request.lease),
  keepValue: request.ignoreValue,
  keepLease: request.ignoreLease,
  prevKv: request.prevKv,
});

const deleteOp = (request: DeleteRangeRequest): Op => ({ type: "delete", ...rangeOf(request), prevKv: request.prevKv });

/** Many keys, as they come from the index: nothing is sorted, filtered or only counted. */
const isInOrder = (request: RangeRequest): boolean =>
  request.rangeEnd.length > 0 &&
  !request.countOnly &&
  request.sortOrder === 0 &&
  request.sortTarget === 0 &&
  filters.every(([name]) => toNumber(request[name]) === 0);

/** What is sorted or filtered is read whole; the limit counts afterwards. */
function rangeOptions(request: RangeRequest): RangeOptions {
  const limit = toNumber(request.limit);
  const after = request.sortOrder !== 0 || filters.some(([name]) => toNumber(request[name]) !== 0);
  return {
    ...rangeOf(request),
    revision: asRevision(toNumber(request.revision)),
    // What is sorted without having been asked to be is cut first, one behind the limit: etcd's way.
    limit: after || limit <= 0 ? 0 : request.sortTarget === 0 ? limit : limit + 1,
    countOnly: request.countOnly,
    keysOnly: request.keysOnly && !(request.sortTarget === valueTarget),
  };
}

function txnOf(request: TxnRequest): { compares: Compare[]; success: Op[]; failure: Op[] } {
  return {
    compares: request.compare.map(compareOf),
    success: request.success.map(opOf),
    failure: request.failure.map(opOf),
  };
}

function opOf(op: RequestOp): Op {
  if (op.requestRange) return { type: "range", range: rangeOptions(op.requestRange) };
  if (op.requestPut) return putOp(op.requestPut);
  if (op.requestDeleteRange) return deleteOp(op.requestDeleteRange);
  return { type: "txn", txn: txnOf(op.requestTxn!) };
}

const compareOps = ["=", ">", "<", "!="] as const;
const compareTargets = ["version", "create", "mod", "value", "lease"] as const;

function compareOf(compare: EtcdCompare): Compare {
  const common = { ...rangeOf(compare), op: compareOps[compare.result] ?? "=" };
  const target = compareTargets[compare.target] ?? "version";
  if (target === "value") return { ...common, target, value: compare.value ?? new Uint8Array(0) };
  const values = {
    version: compare.version,
    create: compare.createRevision,
    mod: compare.modRevision,
    lease: compare.lease,
  };
  return { ...common, target, value: toNumber(values[target] ?? 0) };
}

// Answers

const valueTarget = 4;

type FilterName = "maxModRevision" | "minModRevision" | "maxCreateRevision" | "minCreateRevision";
const filters: readonly (readonly [FilterName, (kv: KeyValue, bound: number) => boolean])[] = [
  ["maxModRevision", (kv, bound) => kv.modRevision <= bound],
  ["minModRevision", (kv, bound) => kv.modRevision >= bound],
  ["maxCreateRevision", (kv, bound) => kv.createRevision <= bound],
  ["minCreateRevision", (kv, bound) => kv.createRevision >= bound],
];

/** By SortTarget. */
const orders: readonly ((a: KeyValue, b: KeyValue) => number)[] = [
  (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0),
  (a, b) => a.version - b.version,
  (a, b) => a.createRevision - b.createRevision,
  (a, b) => a.modRevision - b.modRevision,
  (a, b) => Buffer.compare(a.value, b.value),
];

function rangeAnswer(request: RangeRequest, result: RangeResult): RangeAnswer {
  let kvs = result.kvs;
  let more = result.more;
  for (const [name, keeps] of filters) {
    const bound = toNumber(request[name]);
    if (bound !== 0) kvs = kvs.filter((kv) => keeps(kv, bound));
  }
  const order = orders[request.sortTarget];
  // Keys come in ascending order; any other target sorts, ascending unless it is asked otherwise.
  if (order && (request.sortOrder !== 0 || request.sortTarget !== 0)) {
    const sign = request.sortOrder === 2 ? -1 : 1;
    kvs = [...kvs].sort((a, b) => sign * order(a, b));
  }
  const limit = toNumber(request.limit);
  if (limit > 0 && kvs.length > limit) {
    kvs = kvs.slice(0, limit);
    more = true;
  }
  return { kvs, keysOnly: request.keysOnly, more: more && !request.countOnly, count: result.count };
}

const changes = (results: readonly OpResult[]): boolean =>
  results.some(
    (r) => r.type === "put" || (r.type === "delete" && r.deleted > 0) || (r.type === "txn" && changes(r.results)),
  );

/** How far the answers of a transaction have been told. */
interface Progress {
  readonly before: number;
  changed: boolean;
}

function answerTxn(
  request: TxnRequest,
  succeeded: boolean,
  results: readonly OpResult[],
  header: Part,
  at: Progress,
): Part {
  const ops = succeeded ? request.success : request.failure;
  const responses = results.map((result, i) => answerOp(ops[i]!, result, at));
  return txnPart(header, succeeded, responses);
}

function answerOp(op: RequestOp, result: OpResult, at: Progress): Part {
  const header = () => headerPart(at.changed ? at.before + 1 : at.before);
  switch (result.type) {
    case "range":
      return responseOp(1, rangePart(header(), rangeAnswer(op.requestRange!, result.result)));
    case "put":
      at.changed = true;
      return responseOp(2, putPart(header(), op.requestPut!.prevKv ? result.prevKv : undefined));
    case "delete":
      if (result.deleted > 0) at.changed = true;
      return responseOp(3, deletePart(header(), result.deleted, result.prevKvs));
    case "txn":
      return responseOp(4, answerTxn(op.requestTxn!, result.succeeded, result.results, headerPart(0), at));
  }
}
