// Protobuf by table: no generated classes, no library. A message is a plain object; its table says which member is which
// field. Used for CRI (tables in wire/gen), the Kubernetes API (model/protobuf.ts) and OpenAPI v2 at build time.
// int64 is a number where safe, else a bigint; bytes are Uint8Array; enums are numbers; map keys are strings.
// Invariants: encoding is deterministic (fields by number, map keys sorted), decoding never reads beyond its input,
// never nests deeper than `maxDepth`, and no key (`__proto__`) can reach a prototype.
import { Buffer } from "node:buffer";
import { assert } from "#base/assert.ts";
import { AppError } from "#base/errors.ts";

export type WireScalar = "string" | "bool" | "int32" | "int64" | "uint32" | "uint64" | "double" | "bytes" | "enum";

/** A length-delimited field whose value is not an object with the message's fields (Time, Quantity, …). */
export interface WireCustom {
  encode(value: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

export interface WireField {
  readonly name: string;
  readonly number: number;
  readonly type: WireScalar | "message" | "custom";
  readonly repeated: boolean;
  readonly map: boolean;
  /** `implicit`: zero is not written; `explicit`: written when present; `always`: written even when absent. */
  readonly presence: "implicit" | "explicit" | "always";
  /** The message's members are members of the holder. */
  readonly inline: boolean;
  /** Decoded zero values and empty messages are left out, as Go's `omitempty` would. */
  readonly dropZero: boolean;
  readonly packed: boolean;
  readonly message?: () => WireMessage;
  readonly custom?: WireCustom;
}

export interface WireMessage {
  readonly name: string;
  readonly fields: readonly WireField[];
  readonly byNumber: ReadonlyMap<number, WireField>;
  /** Absent scalars, lists and maps decode to their zero value (proto3 readers expect it). */
  readonly zeros: boolean;
}

/** What may be given for encoding where `T` is what decoding yields: everything may be left out. */
export type WireInput<T> = T extends Uint8Array | string | number | bigint | boolean | undefined
  ? T
  : T extends readonly (infer U)[]
    ? readonly WireInput<U>[]
    : { readonly [K in keyof T]?: WireInput<T[K]> | undefined };

export interface WireCodec {
  message(name: string): WireMessage;
  encode(name: string, value: object): Uint8Array;
  decode<T extends object = Record<string, unknown>>(name: string, bytes: Uint8Array): T;
}

/** Deeper nesting than any message of ours; keeps a hostile input from exhausting the stack. */
const maxDepth = 200;
const scalarTypes: ReadonlySet<string> = new Set([
  "string",
  "bool",
  "int32",
  "int64",
  "uint32",
  "uint64",
  "double",
  "bytes",
  "enum",
]);

/**
 * A codec for proto3 messages out of a generated table: message names in column 0, below each its fields indented by
 * one space: `name number type [flag]`, where type may start with `[]` or `{}`; flag `p` marks members of a oneof and `a` fields that
 * are written even when zero.
 */
export function createWireCodec(table: string): WireCodec {
  const messages = new Map<string, WireMessage>();
  const message = (name: string): WireMessage => {
    const found = messages.get(name);
    assert(found, `no protobuf message ${name}`);
    return found;
  };
  let fields: WireField[] = [];
  for (const line of table.split("\n")) {
    if (line === "") continue;
    if (!line.startsWith(" ")) {
      fields = [];
      messages.set(line, { name: line, fields, byNumber: new Map(), zeros: true });
      continue;
    }
    const [name, number, type, flag] = line.slice(1).split(" ") as [string, string, string, string | undefined];
    const repeated = type.startsWith("[]");
    const map = type.startsWith("{}");
    const base = repeated || map ? type.slice(2) : type;
    const scalar = scalarTypes.has(base);
    fields.push({
      name,
      number: Number(number),
      type: scalar ? (base as WireScalar) : "message",
      repeated,
      map,
      presence: flag === "a" ? "always" : flag === "p" || !scalar ? "explicit" : "implicit",
      inline: false,
      dropZero: false,
      packed: repeated && scalar && base !== "string" && base !== "bytes",
      ...(scalar ? {} : { message: () => message(base) }),
    });
  }
  for (const [name, found] of messages) messages.set(name, defineMessage(name, found.fields, { zeros: true }));
  return {
    message,
    encode: (name, value) => encodeMessage(message(name), value),
    decode: <T extends object>(name: string, bytes: Uint8Array) => decodeMessage(message(name), bytes) as T,
  };
}

export function defineMessage(
  name: string,
  fields: readonly WireField[],
  options: { readonly zeros?: boolean } = {},
): WireMessage {
  const sorted = [...fields].sort((a, b) => a.number - b.number);
  return { name, fields: sorted, byNumber: new Map(sorted.map((f) => [f.number, f])), zeros: options.zeros ?? false };
}

export function encodeMessage(message: WireMessage, value: object): Uint8Array {
  const writer = new Writer();
  writeMessage(writer, message, value as Record<string, unknown>, 0);
  return writer.finish();
}

export function decodeMessage(message: WireMessage, bytes: Uint8Array): Record<string, unknown> {
  const reader = new Reader(bytes);
  const into: Record<string, unknown> = {};
  readMessage(reader, reader.end, message, into, 0);
  return into;
}

const malformed = (what: string): AppError => new AppError("WIRE_PROTOBUF", `malformed protobuf: ${what}`);

/** A member under any name, without touching prototypes. */
export function setMember(object: Record<string, unknown>, name: string, value: unknown): void {
  if (name === "__proto__") {
    Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  } else object[name] = value;
}
const getMember = (object: Record<string, unknown>, name: string): unknown =>
  name === "__proto__" && !Object.hasOwn(object, name) ? undefined : object[name];

// Writing

function writeMessage(writer: Writer, message: WireMessage, value: Record<string, unknown>, depth: number): void {
  if (depth > maxDepth) throw malformed("nested too deeply");
  for (const field of message.fields) {
    if (field.inline) {
      writer.tag(field.number, 2);
      writer.delimited(() => writeMessage(writer, field.message!(), value, depth + 1));
      continue;
    }
    const member = getMember(value, field.name);
    if (member === undefined || member === null) {
      if (field.presence === "always") writeZero(writer, field);
      continue;
    }
    if (field.map) {
      const map = member as Record<string, unknown>;
      for (const key of Object.keys(map).sort()) {
        writer.tag(field.number, 2);
        writer.delimited(() => {
          writer.tag(1, 2);
          writer.string(key);
          const entry = map[key];
          if (entry !== null && entry !== undefined) writeValue(writer, field, 2, entry, depth);
          else if (field.type === "custom") writeValue(writer, field, 2, undefined, depth);
        });
      }
    } else if (field.repeated) {
      const list = member as readonly unknown[];
      if (list.length === 0) continue;
      if (field.packed) {
        writer.tag(field.number, 2);
        writer.delimited(() => {
          for (const item of list) writeScalar(writer, field.type as WireScalar, item);
        });
      } else for (const item of list) writeValue(writer, field, field.number, item, depth);
    } else if (field.presence !== "implicit" || !isZero(member)) {
      writeValue(writer, field, field.number, member, depth);
    }
  }
}

function writeZero(writer: Writer, field: WireField): void {
  if (field.repeated || field.map) return;
  if (field.type === "message") {
    writer.tag(field.number, 2);
    // Go writes the zero struct out; readers only ask whether it is there, so members inside follow the same rule.
    writer.delimited(() => writeMessage(writer, field.message!(), {}, 0));
  } else if (field.type === "custom") {
    writer.tag(field.number, 2);
    writer.bytes(field.custom!.encode(undefined));
  } else if (field.type !== "bytes") {
    writeValue(writer, field, field.number, field.type === "string" ? "" : field.type === "bool" ? false : 0, 0);
  }
}

function writeValue(writer: Writer, field: WireField, number: number, value: unknown, depth: number): void {
  switch (field.type) {
    case "message":
      writer.tag(number, 2);
      writer.delimited(() =>
        writeMessage(writer, field.message!(), (value ?? {}) as Record<string, unknown>, depth + 1),
      );
      return;
    case "custom":
      writer.tag(number, 2);
      writer.bytes(field.custom!.encode(value));
      return;
    default:
      writer.tag(number, wireTypeOf(field.type));
      writeScalar(writer, field.type, value);
  }
}

function writeScalar(writer: Writer, type: WireScalar, value: unknown): void {
  switch (type) {
    case "string":
      writer.string(String(value));
      return;
    case "bytes":
      writer.bytes(value as Uint8Array);
      return;
    case "bool":
      writer.varint(value === true ? 1 : 0);
      return;
    case "double":
      writer.double(Number(value));
      return;
    case "int32":
    case "int64":
    case "uint32":
    case "uint64":
    case "enum":
      if (typeof value !== "bigint" && !Number.isInteger(value)) throw malformed(`${String(value)} is no integer`);
      writer.varint(value as number | bigint);
  }
}

const wireTypeOf = (type: WireScalar): number =>
  type === "string" || type === "bytes" ? 2 : type === "double" ? 1 : 0;
const isZero = (value: unknown): boolean =>
  value === "" || value === 0 || value === 0n || value === false || (value instanceof Uint8Array && value.length === 0);

class Writer {
  #buffer = Buffer.allocUnsafe(512);
  #at = 0;

  tag(number: number, wireType: number): void {
    this.varint(number * 8 + wireType);
  }
  varint(value: number | bigint): void {
    this.#reserve(10);
    if (typeof value === "bigint" || value < 0 || value > Number.MAX_SAFE_INTEGER) {
      let rest = BigInt.asUintN(64, BigInt(value));
      while (rest > 127n) {
        this.#buffer[this.#at++] = Number(rest & 127n) | 128;
        rest >>= 7n;
      }
      this.#buffer[this.#at++] = Number(rest);
      return;
    }
    let rest = value;
    while (rest > 127) {
      this.#buffer[this.#at++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#buffer[this.#at++] = rest;
  }
  double(value: number): void {
    this.#reserve(8);
    this.#at = this.#buffer.writeDoubleLE(value, this.#at);
  }
  string(value: string): void {
    const length = Buffer.byteLength(value);
    this.varint(length);
    this.#reserve(length);
    this.#at += this.#buffer.write(value, this.#at);
  }
  bytes(value: Uint8Array): void {
    this.varint(value.length);
    this.#reserve(value.length);
    this.#buffer.set(value, this.#at);
    this.#at += value.length;
  }
  /** Writes the content first and moves it by the size of its length, which most often is one byte. */
  delimited(content: () => void): void {
    this.#reserve(1);
    const start = this.#at++;
    content();
    const length = this.#at - start - 1;
    let size = 1;
    for (let rest = length; rest > 127; rest = Math.floor(rest / 128)) size++;
    if (size > 1) {
      this.#reserve(size);
      this.#buffer.copyWithin(start + size, start + 1, this.#at);
    }
    this.#at = start;
    this.varint(length);
    this.#at += length;
  }
  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.#at);
  }
  #reserve(size: number): void {
    if (this.#at + size <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + size));
    larger.set(this.#buffer.subarray(0, this.#at));
    this.#buffer = larger;
  }
}

// Reading

function readMessage(
  reader: Reader,
  end: number,
  message: WireMessage,
  into: Record<string, unknown>,
  depth: number,
): void {
  if (depth > maxDepth) throw malformed("nested too deeply");
  while (reader.at < end) {
    const tag = Number(reader.varint(end));
    const number = Math.floor(tag / 8);
    const wireType = tag % 8;
    if (number === 0) throw malformed("field number 0");
    const field = message.byNumber.get(number);
    if (!field) {
      reader.skip(wireType, end);
      continue;
    }
    if (field.inline) {
      const inner = reader.delimited(wireType, end);
      readMessage(reader, inner, field.message!(), into, depth + 1);
    } else if (field.map) readMapEntry(reader, end, wireType, field, into, depth);
    else if (field.repeated) {
      let list = getMember(into, field.name) as unknown[] | undefined;
      if (list === undefined) {
        list = [];
        setMember(into, field.name, list);
      }
      const scalar = field.type !== "message" && field.type !== "custom" ? wireTypeOf(field.type) : 2;
      if (scalar !== 2 && wireType === 2) {
        const inner = reader.delimited(wireType, end);
        while (reader.at < inner) list.push(readScalar(reader, inner, field.type as WireScalar, scalar));
      } else list.push(readValue(reader, end, wireType, field, undefined, depth));
    } else {
      const value = readValue(reader, end, wireType, field, getMember(into, field.name), depth);
      if (value === undefined || (field.dropZero && isZero(value))) delete into[field.name];
      else setMember(into, field.name, value);
    }
  }
  if (message.zeros) addZeros(message, into);
}

function addZeros(message: WireMessage, into: Record<string, unknown>): void {
  for (const field of message.fields) {
    if (Object.hasOwn(into, field.name)) continue;
    if (field.repeated) into[field.name] = [];
    else if (field.map) into[field.name] = {};
    else if (field.presence === "implicit") into[field.name] = zeroOf(field.type);
  }
}

function zeroOf(type: WireField["type"]): unknown {
  if (type === "string") return "";
  if (type === "bool") return false;
  if (type === "bytes") return new Uint8Array(0);
  return 0;
}

function readMapEntry(
  reader: Reader,
  outer: number,
  outerType: number,
  field: WireField,
  into: Record<string, unknown>,
  depth: number,
): void {
  const end = reader.delimited(outerType, outer);
  let key = "";
  let value: unknown;
  while (reader.at < end) {
    const tag = Number(reader.varint(end));
    if (tag === 10) key = reader.string(end);
    else if (Math.floor(tag / 8) === 2) value = readValue(reader, end, tag % 8, field, undefined, depth);
    else reader.skip(tag % 8, end);
  }
  if (value === undefined && field.type === "message") value = {};
  if (value === undefined) value = field.type === "custom" ? null : zeroOf(field.type);
  let map = getMember(into, field.name) as Record<string, unknown> | undefined;
  if (map === undefined) {
    map = {};
    setMember(into, field.name, map);
  }
  setMember(map, key, value);
}

function readValue(
  reader: Reader,
  end: number,
  wireType: number,
  field: WireField,
  earlier: unknown,
  depth: number,
): unknown {
  if (field.type === "message") {
    const inner = reader.delimited(wireType, end);
    // A message field that comes twice is merged.
    const value = (earlier ?? {}) as Record<string, unknown>;
    readMessage(reader, inner, field.message!(), value, depth + 1);
    return value;
  }
  if (field.type === "custom") {
    const inner = reader.delimited(wireType, end);
    return field.custom!.decode(reader.take(inner));
  }
  return readScalar(reader, end, field.type, wireType);
}

function readScalar(reader: Reader, end: number, type: WireScalar, wireType: number): unknown {
  if (wireType !== wireTypeOf(type)) throw malformed(`wire type ${wireType} for ${type}`);
  switch (type) {
    case "string":
      return reader.string(end);
    case "bytes":
      return new Uint8Array(reader.take(reader.delimited(2, end)));
    case "bool":
      return reader.varint(end) !== 0;
    case "double":
      return reader.double(end);
    case "int32":
    case "enum":
      return Number(BigInt.asIntN(32, BigInt(reader.varint(end))));
    case "uint32":
      return Number(BigInt.asUintN(32, BigInt(reader.varint(end))));
    case "int64":
      return signed(reader.varint(end));
    case "uint64":
      return reader.varint(end);
  }
}

function signed(value: number | bigint): number | bigint {
  if (typeof value === "number") return value;
  const result = BigInt.asIntN(64, value);
  return result >= BigInt(Number.MIN_SAFE_INTEGER) && result <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Number(result)
    : result;
}

class Reader {
  at = 0;
  readonly end: number;
  readonly #bytes: Buffer;
  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.end = bytes.byteLength;
  }
  /** Unsigned; a number where safe. */
  varint(end: number): number | bigint {
    let value = 0;
    let factor = 1;
    const start = this.at;
    for (let index = 0; index < 7; index++) {
      const byte = this.#byte(end);
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
    this.at = start;
    let big = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte(end);
      big |= BigInt(byte & 127) << shift;
      if (byte < 128) {
        big = BigInt.asUintN(64, big);
        return big <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(big) : big;
      }
    }
    throw malformed("varint of more than ten bytes");
  }
  double(end: number): number {
    if (this.at + 8 > end) throw malformed("unexpected end");
    const value = this.#bytes.readDoubleLE(this.at);
    this.at += 8;
    return value;
  }
  string(end: number): string {
    const inner = this.delimited(2, end);
    const value = this.#bytes.toString("utf8", this.at, inner);
    this.at = inner;
    return value;
  }
  /** Reads a length; the end of what it covers. */
  delimited(wireType: number, end: number): number {
    if (wireType !== 2) throw malformed(`wire type ${wireType} where a length is expected`);
    const length = Number(this.varint(end));
    if (this.at + length > end) throw malformed("unexpected end");
    return this.at + length;
  }
  take(end: number): Uint8Array {
    const bytes = this.#bytes.subarray(this.at, end);
    this.at = end;
    return bytes;
  }
  skip(wireType: number, end: number): void {
    if (wireType === 0) this.varint(end);
    else if (wireType === 1) this.at += 8;
    else if (wireType === 2) this.at = this.delimited(2, end);
    else if (wireType === 5) this.at += 4;
    else throw malformed(`wire type ${wireType}`);
    if (this.at > end) throw malformed("unexpected end");
  }
  #byte(end: number): number {
    if (this.at >= end) throw malformed("unexpected end");
    return this.#bytes[this.at++]!;
  }
}
