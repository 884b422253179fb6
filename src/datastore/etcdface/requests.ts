// Requests that come by the thousand (Put, Range, and transactions of them) read by hand in one pass: several times quicker
// than by table. What is not of the plain form that clients send (another wire type, an unknown field, a number beyond
// 2^49, a field that comes twice) is left to the table codec, which decides what it means; so both always agree.
// Values are views of what was received: the engine and the log copy what they keep.
import type { Compare, PutRequest, RangeRequest, RequestOp, TxnRequest } from "#wire/gen/etcd.ts";

/** Undefined: to be read by table. */
export const readPut = (bytes: Uint8Array): PutRequest | undefined => whole(bytes, put);
export const readRange = (bytes: Uint8Array): RangeRequest | undefined => whole(bytes, range);
export const readTxn = (bytes: Uint8Array): TxnRequest | undefined => whole(bytes, txn);

/** Where reading stands; `ok` turns false, and reading ends, at whatever is not plain. */
interface Cursor {
  readonly bytes: Uint8Array;
  at: number;
  ok: boolean;
}

type Reading<T> = (cursor: Cursor, end: number) => T;

function whole<T>(bytes: Uint8Array, read: Reading<T>): T | undefined {
  const cursor: Cursor = { bytes, at: 0, ok: true };
  const value = read(cursor, bytes.length);
  return cursor.ok ? value : undefined;
}

/** Seven bytes of seven bits. */
const maxVarintBytes = 7;
const noBytes = new Uint8Array(0);

function varint(cursor: Cursor, end: number): number {
  const { bytes } = cursor;
  let value = 0;
  let factor = 1;
  for (let i = 0; i < maxVarintBytes && cursor.at < end; i++) {
    const byte = bytes[cursor.at++]!;
    value += (byte & 127) * factor;
    if (byte < 128) return value;
    factor *= 128;
  }
  cursor.ok = false;
  return 0;
}

function delimited(cursor: Cursor, end: number): number {
  const length = varint(cursor, end);
  if (cursor.at + length <= end) return cursor.at + length;
  cursor.ok = false;
  return cursor.at;
}

function view(cursor: Cursor, end: number): Uint8Array {
  const to = delimited(cursor, end);
  const bytes = cursor.bytes.subarray(cursor.at, to);
  cursor.at = to;
  return bytes;
}

/** 32 bits with a sign; which values mean something is for the service to say. */
function enumeration<T extends number>(cursor: Cursor, end: number): T {
  const value = varint(cursor, end);
  if (value > 0x7fffffff) cursor.ok = false;
  return value as T;
}

function nested<T>(cursor: Cursor, end: number, read: Reading<T>): T {
  return read(cursor, delimited(cursor, end));
}

/** Calls `field` with each tag; fields must ascend, so that none comes twice. */
function fields(cursor: Cursor, end: number, field: (tag: number) => boolean, mayRepeat: boolean): void {
  let last = 0;
  while (cursor.ok && cursor.at < end) {
    const tag = varint(cursor, end);
    if (mayRepeat ? tag < last : tag <= last) cursor.ok = false;
    last = tag;
    if (cursor.ok && !field(tag)) cursor.ok = false;
  }
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

function put(cursor: Cursor, end: number): PutRequest {
  const request: Writable<PutRequest> = {
    ...{ key: noBytes, value: noBytes, lease: 0, prevKv: false, ignoreValue: false, ignoreLease: false },
  };
  let last = 0;
  while (cursor.ok && cursor.at < end) {
    const tag = cursor.bytes[cursor.at++]!;
    if (tag <= last) cursor.ok = false;
    last = tag;
    if (tag === 10) request.key = view(cursor, end);
    else if (tag === 18) request.value = view(cursor, end);
    else if (tag === 24) request.lease = varint(cursor, end);
    else if (tag === 32) request.prevKv = varint(cursor, end) !== 0;
    else if (tag === 40) request.ignoreValue = varint(cursor, end) !== 0;
    else if (tag === 48) request.ignoreLease = varint(cursor, end) !== 0;
    else cursor.ok = false;
  }
  return request;
}

const rangeNumbers = {
  24: "limit",
  32: "revision",
  80: "minModRevision",
  88: "maxModRevision",
  96: "minCreateRevision",
  104: "maxCreateRevision",
} as const;
const rangeFlags = { 56: "serializable", 64: "keysOnly", 72: "countOnly" } as const;

function range(cursor: Cursor, end: number): RangeRequest {
  const request: Writable<RangeRequest> = {
    ...{ key: noBytes, rangeEnd: noBytes, limit: 0, revision: 0, sortOrder: 0, sortTarget: 0 },
    ...{ serializable: false, keysOnly: false, countOnly: false },
    ...{ minModRevision: 0, maxModRevision: 0, minCreateRevision: 0, maxCreateRevision: 0 },
  };
  fields(
    cursor,
    end,
    (tag) => {
      if (tag === 10) request.key = view(cursor, end);
      else if (tag === 18) request.rangeEnd = view(cursor, end);
      else if (tag === 40) request.sortOrder = enumeration(cursor, end);
      else if (tag === 48) request.sortTarget = enumeration(cursor, end);
      else if (tag in rangeFlags) request[rangeFlags[tag as keyof typeof rangeFlags]] = varint(cursor, end) !== 0;
      else if (tag in rangeNumbers) request[rangeNumbers[tag as keyof typeof rangeNumbers]] = varint(cursor, end);
      else return false;
      return true;
    },
    false,
  );
  return request;
}

const compareNumbers = { 32: "version", 40: "createRevision", 48: "modRevision", 64: "lease" } as const;
/** Field 64, delimited. */
const rangeEndTag = 514;

function compare(cursor: Cursor, end: number): Compare {
  const request: Writable<Compare> = { result: 0, target: 0, key: noBytes, rangeEnd: noBytes };
  fields(
    cursor,
    end,
    (tag) => {
      if (tag === 8) request.result = enumeration(cursor, end);
      else if (tag === 16) request.target = enumeration(cursor, end);
      else if (tag === 26) request.key = view(cursor, end);
      else if (tag === 58) request.value = view(cursor, end);
      else if (tag === rangeEndTag) request.rangeEnd = view(cursor, end);
      else if (tag in compareNumbers) request[compareNumbers[tag as keyof typeof compareNumbers]] = varint(cursor, end);
      else return false;
      return true;
    },
    false,
  );
  return request;
}

/** A delete, or a transaction within one, is rare: by table, with all around it. */
function op(cursor: Cursor, end: number): RequestOp {
  const request: Writable<RequestOp> = {};
  fields(
    cursor,
    end,
    (tag) => {
      if (tag === 10) request.requestRange = nested(cursor, end, range);
      else if (tag === 18) request.requestPut = nested(cursor, end, put);
      else return false;
      return true;
    },
    false,
  );
  return request;
}

function txn(cursor: Cursor, end: number): TxnRequest {
  const compares: Compare[] = [];
  const success: RequestOp[] = [];
  const failure: RequestOp[] = [];
  fields(
    cursor,
    end,
    (tag) => {
      if (tag === 10) compares.push(nested(cursor, end, compare));
      else if (tag === 18) success.push(nested(cursor, end, op));
      else if (tag === 26) failure.push(nested(cursor, end, op));
      else return false;
      return true;
    },
    true,
  );
  return { compare: compares, success, failure };
}
