// CBOR (RFC 8949) as the Kubernetes API speaks it: values are those of JSON. What is written is deterministic: shortest
// lengths and floats, keys in the bytewise order of their encodings, text as byte strings, bytes under tag 22. What is
// read is checked and bounded: one item, string keys that come once, valid UTF-8, no numbers that JSON lacks, nothing
// allocated before its bytes are there. Indefinite lengths are read and never written.
// Upstream counterpart: the modes of apimachinery's runtime/serializer/cbor.
import { Buffer, isUtf8 } from "node:buffer";
import { AppError } from "#base/errors.ts";
import { setMember } from "./protobuf.ts";

export interface CborReadOptions {
  /** Whole numbers that a double cannot hold come out as bigint instead of being rounded. */
  readonly bigints?: boolean;
}

/** Upstream's bounds. Tags count as a level. */
const maxDepth = 64;
const maxArrayElements = 1024;
const maxMapPairs = 1024;

const major = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5, tag: 6, simple: 7 } as const;
const tags = {
  timeText: 0,
  timeNumber: 1,
  bigPositive: 2,
  bigNegative: 3,
  base64Url: 21,
  base64: 22,
  base16: 23,
  selfDescribed: 55_799,
} as const;
const indefinite = 31;
const breakByte = 0xff;
const selfDescribedPrefix = Buffer.from([0xd9, 0xd9, 0xf7]);
const int64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n } as const;

/** One item and nothing behind it. Rejects with WIRE_CBOR; details hold the offset. */
export function decodeCbor(bytes: Uint8Array, options: CborReadOptions = {}): unknown {
  const reader = new Reader(bytes, options);
  const value = reader.value(0);
  reader.end();
  return value;
}

/** With the tag that says what it is. Members that are undefined are left out; a Uint8Array is bytes for base64. */
export function encodeCbor(value: unknown): Uint8Array {
  const writer = new Writer();
  writer.raw(selfDescribedPrefix);
  writer.value(value, 0);
  return writer.finish();
}

/** A map of encoded items, whose keys must be in order: shorter ones first. */
export function encodeCborMap(members: readonly (readonly [key: string, item: Uint8Array])[]): Uint8Array {
  const writer = new Writer();
  writer.raw(selfDescribedPrefix);
  writer.head(major.map, members.length);
  for (const [key, item] of members) {
    writer.text(key);
    writer.raw(item);
  }
  return writer.finish();
}

/** Text as an item of its own. */
export function encodeCborText(text: string): Uint8Array {
  const writer = new Writer();
  writer.text(text);
  return writer.finish();
}

// Reading

class Reader {
  readonly #bytes: Buffer;
  readonly #options: CborReadOptions;
  #at = 0;

  constructor(bytes: Uint8Array, options: CborReadOptions) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#options = options;
  }

  end(): void {
    const rest = this.#bytes.length - this.#at;
    if (rest > 0) throw this.#fail(`${rest} bytes of extraneous data starting at index ${this.#at}`);
  }

  value(depth: number): unknown {
    const first = this.#byte();
    const info = first & 0x1f;
    switch (first >> 5) {
      case major.unsigned:
        return this.#whole(this.#argument(info), false);
      case major.negative:
        return this.#whole(this.#argument(info), true);
      case major.bytes:
        return this.#utf8(this.#string(major.bytes, info), "byte string");
      case major.text:
        return this.#utf8(this.#string(major.text, info), "text string");
      case major.array:
        return this.#array(info, this.#deeper(depth));
      case major.map:
        return this.#map(info, this.#deeper(depth));
      case major.tag:
        return this.#tagged(this.#argument(info), this.#deeper(depth));
      default:
        return this.#simple(info);
    }
  }

  #deeper(depth: number): number {
    if (depth >= maxDepth) throw this.#fail(`exceeded max nested level ${maxDepth}`);
    return depth + 1;
  }

  #array(info: number, depth: number): unknown[] {
    const list: unknown[] = [];
    const count = this.#count(info, maxArrayElements, 1, "array elements");
    while (!this.#isLast(list.length, count, maxArrayElements, "array elements")) list.push(this.value(depth));
    return list;
  }

  #map(info: number, depth: number): Record<string, unknown> {
    const map: Record<string, unknown> = {};
    const count = this.#count(info, maxMapPairs, 2, "map pairs");
    for (let pairs = 0; !this.#isLast(pairs, count, maxMapPairs, "map pairs"); pairs++) {
      const key = this.#key();
      if (Object.hasOwn(map, key)) throw this.#fail(`found duplicate map key ${JSON.stringify(key)}`);
      setMember(map, key, this.value(depth));
    }
    return map;
  }

  #key(): string {
    const first = this.#byte();
    const type = first >> 5;
    if (type !== major.bytes && type !== major.text) throw this.#fail("map keys must be strings");
    return this.#utf8(this.#string(type, first & 0x1f), "map key");
  }

  /** Undefined: until the break. What cannot be in the bytes that are left is refused before anything is read. */
  #count(info: number, most: number, bytesEach: number, what: string): number | undefined {
    if (info === indefinite) return undefined;
    const count = Number(this.#argument(info));
    if (count > most) throw this.#fail(`exceeded max number of ${what} ${most}`);
    if (count * bytesEach > this.#bytes.length - this.#at) throw this.#unexpectedEnd();
    return count;
  }

  #isLast(seen: number, count: number | undefined, most: number, what: string): boolean {
    if (count !== undefined) return seen === count;
    if (this.#bytes[this.#at] === breakByte) {
      this.#at++;
      return true;
    }
    if (seen >= most) throw this.#fail(`exceeded max number of ${what} ${most}`);
    return false;
  }

  #string(type: number, info: number): Buffer {
    if (info !== indefinite) return this.#take(this.#argument(info));
    const chunks: Buffer[] = [];
    for (;;) {
      const first = this.#byte();
      if (first === breakByte) return Buffer.concat(chunks);
      // Chunks have a length each, and are what the whole is.
      if (first >> 5 !== type || (first & 0x1f) === indefinite) throw this.#fail("wrong chunk of a string");
      const chunk = this.#take(this.#argument(first & 0x1f));
      // Text is valid chunk by chunk.
      if (type === major.text && !isUtf8(chunk)) throw this.#fail("invalid UTF-8 string");
      if (chunk.length > 0) chunks.push(chunk);
    }
  }

  #take(length: number | bigint): Buffer {
    if (length > this.#bytes.length - this.#at) throw this.#unexpectedEnd();
    const start = this.#at;
    this.#at += Number(length);
    return this.#bytes.subarray(start, this.#at);
  }

  #utf8(bytes: Buffer, what: string): string {
    const text = bytes.toString("utf8");
    // Only then may it have been something else.
    if (text.includes("\ufffd") && !isUtf8(bytes)) throw this.#fail(`invalid UTF-8 in ${what}`);
    return text;
  }

  #whole(argument: number | bigint, isNegative: boolean): number | bigint {
    if (typeof argument === "number") return isNegative ? -1 - argument : argument;
    const exact = isNegative ? -1n - argument : argument;
    if (exact > int64.max || exact < int64.min) throw this.#fail(`integer ${exact} does not fit into 64 bits`);
    const value = Number(exact);
    return this.#options.bigints && !Number.isSafeInteger(value) ? exact : value;
  }

  /** Of the first byte's low bits: a number, or a bigint where eight bytes follow. */
  #argument(info: number): number | bigint {
    if (info < 24) return info;
    switch (info) {
      case 24:
        return this.#byte();
      case 25:
        return this.#take(2).readUInt16BE();
      case 26:
        return this.#take(4).readUInt32BE();
      case 27:
        return this.#take(8).readBigUInt64BE();
      default:
        throw this.#fail(`invalid additional information ${info}`);
    }
  }

  #tagged(number: number | bigint, depth: number): unknown {
    switch (number) {
      case tags.timeText: {
        const content = this.value(depth);
        if (typeof content !== "string" || !/^\d{4}-\d\d-\d\dT/.test(content) || Number.isNaN(Date.parse(content)))
          throw this.#fail("tag number 0 must be followed by an RFC 3339 time");
        return content;
      }
      case tags.timeNumber:
        return this.#time(this.value(depth));
      case tags.bigPositive:
      case tags.bigNegative:
        throw this.#fail("bignums are not allowed");
      case tags.base64Url:
        return this.#tagBytes().toString("base64url");
      case tags.base64:
        return this.#tagBytes().toString("base64");
      case tags.base16:
        return this.#tagBytes().toString("hex");
      default:
        // Of no meaning here: the content is the value.
        return this.value(depth);
    }
  }

  #tagBytes(): Buffer {
    const first = this.#byte();
    if (first >> 5 !== major.bytes) throw this.#fail("the tag must be followed by a byte string");
    return this.#string(major.bytes, first & 0x1f);
  }

  #time(seconds: unknown): string {
    // Years 0 to 9999: what a timestamp in text can say.
    const isTime = typeof seconds === "number" && seconds >= -62_167_219_200 && seconds < 253_402_300_800;
    if (!isTime) throw this.#fail("tag number 1 must be followed by a time in seconds");
    return new Date(Math.round(seconds * 1000)).toISOString().replace(/\.?0*Z$/, "Z");
  }

  #simple(info: number): unknown {
    switch (info) {
      case 20:
        return false;
      case 21:
        return true;
      case 22:
        return null;
      case 25:
        return this.#finite(halfToNumber(this.#take(2).readUInt16BE()));
      case 26:
        return this.#finite(this.#take(4).readFloatBE());
      case 27:
        return this.#finite(this.#take(8).readDoubleBE());
      case indefinite:
        throw this.#fail('unexpected "break" code');
      default:
        throw this.#fail(`simple value ${info === 24 ? this.#byte() : info} is not recognized`);
    }
  }

  #finite(value: number): number {
    if (!Number.isFinite(value)) throw this.#fail("floating-point NaN and infinity are not allowed");
    return value;
  }

  #byte(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw this.#unexpectedEnd();
    this.#at++;
    return byte;
  }

  #unexpectedEnd(): AppError {
    return this.#fail(this.#bytes.length === 0 ? "EOF" : "unexpected EOF");
  }
  #fail(why: string): AppError {
    return new AppError("WIRE_CBOR", `cbor: ${why}`, { offset: this.#at });
  }
}

function halfToNumber(half: number): number {
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

// Writing

/** Far beyond what can be stored; a loop in an object must not take the stack. */
const maxWrittenDepth = 2000;

class Writer {
  #buffer = Buffer.allocUnsafe(1024);
  #at = 0;

  finish(): Uint8Array {
    return Buffer.from(this.#buffer.subarray(0, this.#at));
  }

  value(value: unknown, depth: number): void {
    if (depth > maxWrittenDepth) throw cannotWrite("it is nested too deeply");
    switch (typeof value) {
      case "string":
        this.text(value);
        return;
      case "number":
        this.#number(value);
        return;
      case "boolean":
        this.#byte(value ? 0xf5 : 0xf4);
        return;
      case "bigint":
        this.#bigint(value);
        return;
      case "object":
        if (value === null) this.#byte(0xf6);
        else if (value instanceof Uint8Array) {
          this.head(major.tag, tags.base64);
          this.head(major.bytes, value.length);
          this.raw(value);
        } else if (Array.isArray(value)) {
          this.head(major.array, value.length);
          // As in JSON, what is no value is null in a list.
          for (const item of value) this.value(item === undefined ? null : item, depth + 1);
        } else this.#map(value as Record<string, unknown>, depth);
        return;
      default:
        throw cannotWrite(`a ${typeof value} is no value`);
    }
  }

  text(text: string): void {
    const size = Buffer.byteLength(text);
    this.head(major.bytes, size);
    this.#reserve(size);
    this.#at += this.#buffer.write(text, this.#at);
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  head(type: number, argument: number): void {
    this.#reserve(9);
    const first = type << 5;
    if (argument < 24) this.#at = this.#buffer.writeUInt8(first | argument, this.#at);
    else if (argument < 0x100) {
      this.#at = this.#buffer.writeUInt8(first | 24, this.#at);
      this.#at = this.#buffer.writeUInt8(argument, this.#at);
    } else if (argument < 0x1_0000) {
      this.#at = this.#buffer.writeUInt8(first | 25, this.#at);
      this.#at = this.#buffer.writeUInt16BE(argument, this.#at);
    } else if (argument < 0x1_0000_0000) {
      this.#at = this.#buffer.writeUInt8(first | 26, this.#at);
      this.#at = this.#buffer.writeUInt32BE(argument, this.#at);
    } else this.#longHead(type, BigInt(argument));
  }

  #longHead(type: number, argument: bigint): void {
    this.#reserve(9);
    this.#at = this.#buffer.writeUInt8((type << 5) | 27, this.#at);
    this.#at = this.#buffer.writeBigUInt64BE(argument, this.#at);
  }

  #map(map: Record<string, unknown>, depth: number): void {
    const keys: { text: string; size: number }[] = [];
    for (const text of Object.keys(map)) {
      if (map[text] !== undefined) keys.push({ text, size: Buffer.byteLength(text) });
    }
    keys.sort(byEncoding);
    this.head(major.map, keys.length);
    for (const { text } of keys) {
      this.text(text);
      this.value(map[text], depth + 1);
    }
  }

  /** A whole number is an integer, as JSON text of it would be to a reader in Go. */
  #number(value: number): void {
    if (!Number.isFinite(value)) throw cannotWrite("NaN and infinity are not allowed");
    if (Number.isSafeInteger(value)) {
      if (value >= 0) this.head(major.unsigned, value);
      else this.head(major.negative, -1 - value);
    } else if (Number.isInteger(value) && Math.abs(value) < 2 ** 63) this.#bigint(BigInt(value));
    else this.#float(value);
  }

  #bigint(value: bigint): void {
    if (value > int64.max || value < int64.min) throw cannotWrite(`integer ${value} does not fit into 64 bits`);
    if (Number.isSafeInteger(Number(value))) this.#number(Number(value));
    else if (value >= 0n) this.#longHead(major.unsigned, value);
    else this.#longHead(major.negative, -1n - value);
  }

  #float(value: number): void {
    this.#reserve(9);
    const half = numberToHalf(value);
    if (half !== undefined) {
      this.#byte(0xf9);
      this.#at = this.#buffer.writeUInt16BE(half, this.#at);
    } else if (Math.fround(value) === value) {
      this.#byte(0xfa);
      this.#at = this.#buffer.writeFloatBE(value, this.#at);
    } else {
      this.#byte(0xfb);
      this.#at = this.#buffer.writeDoubleBE(value, this.#at);
    }
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#buffer[this.#at++] = byte;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + bytes));
    larger.set(this.#buffer.subarray(0, this.#at));
    this.#buffer = larger;
  }
}

/** The bits of a half that is exactly `value`, if there is one. */
function numberToHalf(value: number): number | undefined {
  const size = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  if (size === 0) return sign;
  if (size > 65_504 || size < 2 ** -24) return undefined;
  const exponent = Math.floor(Math.log2(size));
  if (exponent < -14) {
    const fraction = size * 2 ** 24;
    return Number.isInteger(fraction) ? sign | fraction : undefined;
  }
  const fraction = (size / 2 ** exponent - 1) * 1024;
  return Number.isInteger(fraction) && fraction >= 0 && fraction < 1024
    ? sign | ((exponent + 15) << 10) | fraction
    : undefined;
}

/** The order of encoded keys: lengths stand before the bytes. */
function byEncoding(a: { text: string; size: number }, b: { text: string; size: number }): number {
  if (a.size !== b.size) return a.size - b.size;
  const isPlain = a.size === a.text.length && b.size === b.text.length;
  if (isPlain) return a.text < b.text ? -1 : 1;
  return Buffer.compare(Buffer.from(a.text), Buffer.from(b.text));
}

const cannotWrite = (why: string): AppError => new AppError("WIRE_CBOR", `cbor: cannot be written: ${why}`);
