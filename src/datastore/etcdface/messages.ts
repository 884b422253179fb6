// The answers that are many or large (key-values, ranges, transactions, watches) written straight into one gRPC frame:
// sizes first, then bytes, so that a value moves once. All other messages go through the table codec.
// Field numbers: wire/gen/etcd.ts. Invariant, held by a test: the bytes are those the table codec would write.
import { Buffer } from "node:buffer";
import { etcdTable } from "#wire/gen/etcd.ts";
import { framePrefixBytes } from "#wire/grpc.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import type { KeyValue, WatchEvent } from "../backend.ts";
import type { RawItem } from "../engine/items.ts";

export const etcdCodec = createWireCodec(etcdTable);

/** Who answers: in the header of every answer, the same for the life of a store. */
export interface Identity {
  readonly clusterId: number;
  readonly memberId: number;
  readonly raftTerm: number;
}

/** A message whose size is known before it is written. */
export interface Part {
  readonly size: number;
  write(out: Buffer, at: number): number;
}

/** A frame that holds the message. */
export function frameOf(message: Part): Uint8Array {
  const out = Buffer.allocUnsafe(framePrefixBytes + message.size);
  out[0] = 0;
  out.writeUInt32BE(message.size, 1);
  message.write(out, framePrefixBytes);
  return out;
}

export function frameOfTable(name: string, value: object): Uint8Array {
  const bytes = etcdCodec.encode(name, value);
  return frameOf({ size: bytes.length, write: (out, at) => at + put(out, at, bytes) });
}

/** `identity` absent: the header of an answer within a transaction. */
export function headerPart(revision: number, identity?: Identity): Part {
  const { clusterId = 0, memberId = 0, raftTerm = 0 } = identity ?? {};
  return message([
    ...numberField(1, clusterId),
    ...numberField(2, memberId),
    ...numberField(3, revision),
    ...numberField(4, raftTerm),
  ]);
}

/** Everything of a header but its revision: the same for every answer. */
const headers = new WeakMap<Identity, { readonly before: Uint8Array; readonly after: Uint8Array }>();

/** The frame of an answer that is a header and nothing else, as that of almost every put. */
export function headerFrame(revision: number, identity: Identity): Uint8Array {
  let parts = headers.get(identity);
  if (!parts) {
    const { clusterId, memberId, raftTerm } = identity;
    const bytes = (part: Part) => {
      const out = Buffer.alloc(part.size);
      part.write(out, 0);
      return out;
    };
    const before = bytes(message([...numberField(1, clusterId), ...numberField(2, memberId)]));
    parts = { before, after: bytes(message(numberField(4, raftTerm))) };
    headers.set(identity, parts);
  }
  const { before, after } = parts;
  const header = before.length + numberSize(revision) + after.length;
  const size = 1 + varintSize(header) + header;
  const out = Buffer.allocUnsafe(framePrefixBytes + size);
  out[0] = 0;
  out.writeUInt32BE(size, 1);
  let at = writeVarint(out, writeVarint(out, framePrefixBytes, 10), header);
  at += put(out, at, before);
  put(out, writeNumber(out, at, 3, revision), after);
  return out;
}

export interface RangeAnswer {
  readonly kvs: readonly KeyValue[];
  readonly keysOnly: boolean;
  readonly more: boolean;
  readonly count: number;
}

export const rangePart = (header: Part, { kvs, keysOnly, more, count }: RangeAnswer): Part =>
  message([field(1, header), keyValuesPart(kvs, keysOnly), ...numberField(3, more ? 1 : 0), ...numberField(4, count)]);

/** The same without its key-values: what stands before and after them. */
export function rangeEnds(header: Part, more: boolean, count: number): { readonly before: Part; readonly after: Part } {
  return {
    before: message([field(1, header)]),
    after: message([...numberField(3, more ? 1 : 0), ...numberField(4, count)]),
  };
}

export const putPart = (header: Part, prevKv: KeyValue | undefined): Part =>
  message([field(1, header), ...(prevKv ? [field(2, keyValuePart(prevKv, false))] : [])]);

export const deletePart = (header: Part, deleted: number, prevKvs: readonly KeyValue[]): Part =>
  message([field(1, header), ...numberField(2, deleted), ...prevKvs.map((kv) => field(3, keyValuePart(kv, false)))]);

export const txnPart = (header: Part, succeeded: boolean, responses: readonly Part[]): Part =>
  message([field(1, header), ...numberField(2, succeeded ? 1 : 0), ...responses.map((part) => field(3, part))]);

/** One answer of a transaction; `kind`: its field in ResponseOp. */
export const responseOp = (kind: 1 | 2 | 3 | 4, answer: Part): Part => message([field(kind, answer)]);

export interface WatchAnswer {
  readonly watchId: number;
  readonly created?: boolean;
  readonly canceled?: boolean;
  readonly compactRevision?: number;
  readonly cancelReason?: string;
  readonly fragment?: boolean;
  readonly events?: readonly Part[];
}

export const watchPart = (header: Part, answer: WatchAnswer): Part =>
  message([
    field(1, header),
    ...numberField(2, answer.watchId),
    ...numberField(3, answer.created ? 1 : 0),
    ...numberField(4, answer.canceled ? 1 : 0),
    ...numberField(5, answer.compactRevision ?? 0),
    ...(answer.cancelReason ? [bytesField(6, Buffer.from(answer.cancelReason))] : []),
    ...numberField(7, answer.fragment ? 1 : 0),
    ...(answer.events ?? []).map((event) => field(11, event)),
  ]);

/** What the answers to many watches have in common: a header before the id, events after it. */
export interface SharedAnswer {
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

export function sharedAnswer(header: Part, events: readonly Part[]): SharedAnswer {
  const bytes = (part: Part) => {
    const out = Buffer.allocUnsafe(part.size);
    part.write(out, 0);
    return out;
  };
  return { before: bytes(field(1, header)), after: bytes(message(events.map((event) => field(11, event)))) };
}

/** Writes the beginning of one of these answers' frames, up to `after`, and says how long it is. */
export function writeWatchHead(out: Buffer, watchId: number, { before, after }: SharedAnswer): number {
  const size = before.length + numberSize(watchId) + after.length;
  out[0] = 0;
  out.writeUInt32BE(size, 1);
  out.set(before, framePrefixBytes);
  return writeNumber(out, framePrefixBytes + before.length, 2, watchId);
}

/** The field of an answer's list of events that this event fills. */
export const eventFieldSize = (event: Part): number => 1 + varintSize(event.size) + event.size;

export const eventPart = ({ type, kv, prevKv }: WatchEvent, withPrevious: boolean): Part =>
  message([
    ...numberField(1, type === "delete" ? 1 : 0),
    field(2, keyValuePart(kv, false)),
    ...(withPrevious && prevKv ? [field(3, keyValuePart(prevKv, false))] : []),
  ]);

/** Field 2 for each, of which there may be thousands: no object of its own for any. */
function keyValuesPart(kvs: readonly KeyValue[], keysOnly: boolean): Part {
  const sizes = kvs.map((kv) => keyValueSize(kv, keysOnly));
  let size = 0;
  for (const one of sizes) size += 1 + varintSize(one) + one;
  return {
    size,
    write(out, start) {
      let at = start;
      for (let i = 0; i < kvs.length; i++) {
        out[at] = 18;
        at = writeKeyValue(out, writeVarint(out, at + 1, sizes[i]!), kvs[i]!, keysOnly);
      }
      return at;
    },
  };
}

/** As a field 2, in the list of a range's answer. */
export function itemSize(item: RawItem, keysOnly: boolean): number {
  const size = itemContentSize(item, keysOnly);
  return 1 + varintSize(size) + size;
}

export function writeItem(out: Buffer, start: number, item: RawItem, keysOnly: boolean): number {
  const { keyBytes } = item;
  const valueBytes = keysOnly ? 0 : item.valueBytes;
  out[start] = 18;
  let at = writeVarint(out, start + 1, itemContentSize(item, keysOnly));
  out[at++] = 10;
  at = writeVarint(out, at, keyBytes);
  item.copyKey(out, at);
  at = writeNumber(out, at + keyBytes, 2, item.createRevision);
  at = writeNumber(out, at, 3, item.modRevision);
  at = writeNumber(out, at, 4, item.version);
  if (valueBytes > 0) {
    out[at++] = 42;
    at = writeVarint(out, at, valueBytes);
    item.copyValue(out, at);
    at += valueBytes;
  }
  return writeNumber(out, at, 6, item.lease);
}

function itemContentSize(item: RawItem, keysOnly: boolean): number {
  const valueBytes = keysOnly ? 0 : item.valueBytes;
  return (
    1 +
    varintSize(item.keyBytes) +
    item.keyBytes +
    numberSize(item.createRevision) +
    numberSize(item.modRevision) +
    numberSize(item.version) +
    (valueBytes === 0 ? 0 : 1 + varintSize(valueBytes) + valueBytes) +
    numberSize(item.lease)
  );
}

function keyValuePart(kv: KeyValue, keysOnly: boolean): Part {
  return {
    size: keyValueSize(kv, keysOnly),
    write: (out, start) => writeKeyValue(out, start, kv, keysOnly),
  };
}

function keyValueSize(
  { key, value, createRevision, modRevision, version, lease }: KeyValue,
  keysOnly: boolean,
): number {
  const valueSize = keysOnly ? 0 : value.length;
  return (
    1 +
    varintSize(key.length) +
    key.length +
    numberSize(createRevision) +
    numberSize(modRevision) +
    numberSize(version) +
    (valueSize === 0 ? 0 : 1 + varintSize(valueSize) + valueSize) +
    numberSize(lease)
  );
}

function writeKeyValue(out: Buffer, start: number, kv: KeyValue, keysOnly: boolean): number {
  const { key, value } = kv;
  let at = writeVarint(out, start, 10);
  at = writeVarint(out, at, key.length);
  at += out.write(key, at, "latin1");
  at = writeNumber(out, at, 2, kv.createRevision);
  at = writeNumber(out, at, 3, kv.modRevision);
  at = writeNumber(out, at, 4, kv.version);
  if (!keysOnly && value.length > 0) {
    at = writeVarint(out, at, 42);
    at = writeVarint(out, at, value.length);
    at += put(out, at, value);
  }
  return writeNumber(out, at, 6, kv.lease);
}

function message(fields: readonly Part[]): Part {
  let size = 0;
  for (const { size: part } of fields) size += part;
  return {
    size,
    write(out, start) {
      let at = start;
      for (const part of fields) at = part.write(out, at);
      return at;
    },
  };
}

const field = (number: number, content: Part): Part => ({
  size: 1 + varintSize(content.size) + content.size,
  write: (out, at) => content.write(out, writeVarint(out, writeVarint(out, at, number * 8 + 2), content.size)),
});

const bytesField = (number: number, bytes: Uint8Array): Part =>
  field(number, { size: bytes.length, write: (out, at) => at + put(out, at, bytes) });

/** Zero is not written. */
const numberField = (number: number, value: number): Part[] =>
  value === 0
    ? []
    : [{ size: numberSize(value), write: (out: Buffer, at: number) => writeNumber(out, at, number, value) }];

const numberSize = (value: number): number => (value === 0 ? 0 : 1 + varintSize(value));

function writeNumber(out: Buffer, at: number, number: number, value: number): number {
  return value === 0 ? at : writeVarint(out, writeVarint(out, at, number * 8), value);
}

/** Negative numbers take ten bytes, as two's complement. */
function varintSize(value: number): number {
  if (value < 128) return value < 0 ? 10 : 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  if (value < 0x10000000) return 4;
  let size = 1;
  for (let rest = value; rest > 127; rest = Math.floor(rest / 128)) size++;
  return size;
}

function writeVarint(out: Buffer, start: number, value: number): number {
  let at = start;
  if (value < 0) {
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 127n) {
      out[at++] = Number(rest & 127n) | 128;
      rest >>= 7n;
    }
    out[at++] = Number(rest);
    return at;
  }
  let rest = value;
  if (rest < 0x80000000) {
    while (rest > 127) {
      out[at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    out[at++] = rest;
    return at;
  }
  while (rest > 127) {
    out[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  out[at++] = rest;
  return at;
}

function put(out: Buffer, at: number, bytes: Uint8Array): number {
  out.set(bytes, at);
  return bytes.length;
}
