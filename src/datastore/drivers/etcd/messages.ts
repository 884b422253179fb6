// A Backend's transactions and ranges as etcd's messages, and its answers back. Keys are byte strings on our side
// (latin-1). Revisions and lease ids above 2^53 are rounded: the first do not happen, the second are only shown.
import { Buffer } from "node:buffer";
import type {
  Compare as EtcdCompare,
  KeyValue as EtcdKeyValue,
  Event,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from "#wire/gen/etcd.ts";
import type { WireInput } from "#wire/protobuf.ts";
import {
  revision as asRevision,
  type Compare,
  type Key,
  type KeyRange,
  type KeyValue,
  type Op,
  type OpResult,
  type RangeOptions,
  type Txn,
  type TxnResult,
  type WatchEvent,
} from "../../backend.ts";
import { datastoreError } from "../../errors.ts";

const compareResults = { "=": 0, ">": 1, "<": 2, "!=": 3 } as const;
const compareTargets = { version: 0, create: 1, mod: 2, value: 3, lease: 4 } as const;
const deleteEvent = 1;

export const keyBytes = (key: Key): Uint8Array => Buffer.from(key, "latin1");
export const keyText = (bytes: Uint8Array): Key =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

export const rangeFields = (range: KeyRange): { key: Uint8Array; rangeEnd?: Uint8Array } => ({
  key: keyBytes(range.key),
  ...(range.end === undefined ? {} : { rangeEnd: keyBytes(range.end) }),
});

export const rangeRequest = (options: RangeOptions): WireInput<RangeRequest> => ({
  ...rangeFields(options),
  limit: options.limit ?? 0,
  revision: options.revision ?? 0,
  keysOnly: options.keysOnly ?? false,
  countOnly: options.countOnly ?? false,
});

export function txnRequest(txn: Txn): WireInput<TxnRequest> {
  return {
    compare: txn.compares.map(compareMessage),
    success: txn.success.map(opMessage),
    failure: (txn.failure ?? []).map(opMessage),
  };
}

/** True when neither branch can change anything. */
export function onlyReads(txn: Txn): boolean {
  return [...txn.success, ...(txn.failure ?? [])].every(
    (op) => op.type === "range" || (op.type === "txn" && onlyReads(op.txn)),
  );
}

function compareMessage(compare: Compare): WireInput<EtcdCompare> {
  const common = {
    ...rangeFields(compare),
    result: compareResults[compare.op],
    target: compareTargets[compare.target],
  };
  switch (compare.target) {
    case "version":
      return { ...common, version: compare.value };
    case "create":
      return { ...common, createRevision: compare.value };
    case "mod":
      return { ...common, modRevision: compare.value };
    case "lease":
      return { ...common, lease: compare.value };
    case "value":
      return { ...common, value: compare.value };
  }
}

function opMessage(op: Op): WireInput<RequestOp> {
  switch (op.type) {
    case "range":
      return { requestRange: rangeRequest(op.range) };
    case "delete":
      return { requestDeleteRange: { ...rangeFields(op), prevKv: op.prevKv ?? false } };
    case "txn":
      return { requestTxn: txnRequest(op.txn) };
    case "put": {
      const { keepValue = false, keepLease = false } = op;
      const put = { key: keyBytes(op.key), prevKv: true, ignoreValue: keepValue, ignoreLease: keepLease };
      return {
        requestPut: {
          ...put,
          ...(keepValue ? {} : { value: op.value }),
          ...(keepLease ? {} : { lease: op.lease ?? 0 }),
        },
      };
    }
  }
}

export function txnResult(response: TxnResponse): TxnResult {
  const revision = asRevision(Number(response.header?.revision ?? 0));
  return { succeeded: response.succeeded, revision, results: response.responses.map((r) => opResult(r, revision)) };
}

function opResult(response: ResponseOp, revision: TxnResult["revision"]): OpResult {
  const { responsePut, responseRange, responseDeleteRange, responseTxn } = response;
  if (responsePut) return { type: "put", prevKv: responsePut.prevKv ? keyValue(responsePut.prevKv) : undefined };
  if (responseRange) return { type: "range", result: { ...rangeResult(responseRange), revision } };
  if (responseDeleteRange) {
    const { deleted, prevKvs } = responseDeleteRange;
    return { type: "delete", deleted: Number(deleted), prevKvs: prevKvs.map(keyValue) };
  }
  if (responseTxn) {
    const results = responseTxn.responses.map((r) => opResult(r, revision));
    return { type: "txn", succeeded: responseTxn.succeeded, results };
  }
  throw datastoreError("DATASTORE_UNAVAILABLE", "etcd answered an operation with nothing that is known");
}

export function rangeResult({ kvs, count, more }: RangeResponse): { kvs: KeyValue[]; count: number; more: boolean } {
  return { kvs: kvs.map(keyValue), count: Number(count), more };
}

export const keyValue = (kv: EtcdKeyValue): KeyValue => ({
  key: keyText(kv.key),
  value: kv.value,
  createRevision: asRevision(Number(kv.createRevision)),
  modRevision: asRevision(Number(kv.modRevision)),
  version: Number(kv.version),
  lease: Number(kv.lease),
});

export function watchEvent({ type, kv, prevKv }: Event): WatchEvent {
  if (!kv) throw datastoreError("DATASTORE_UNAVAILABLE", "etcd sent an event without a key");
  return {
    type: Number(type) === deleteEvent ? "delete" : "put",
    kv: keyValue(kv),
    prevKv: prevKv ? keyValue(prevKv) : undefined,
  };
}
