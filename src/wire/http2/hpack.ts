// HPACK (RFC 7541): header blocks of HTTP/2. The decoder keeps the peer's dynamic table and must see every block of a
// connection in order; the encoder keeps no state, so that an answer's blocks can be made once and sent for ever.
// Bounds: the table's size, and the size of one decoded list. A block like the one before it, which has changed no table,
// is answered with the same list object: clients send the same headers for every call.
import { Buffer } from "node:buffer";
import { AppError } from "#base/errors.ts";
import { decodeHuffman } from "./huffman.ts";

/** name, value, name, value, … */
export type HeaderList = readonly string[];

const staticTable: readonly (readonly [name: string, value: string])[] = [
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  [":status", "200"],
  [":status", "204"],
  [":status", "206"],
  [":status", "304"],
  [":status", "400"],
  [":status", "404"],
  [":status", "500"],
  ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"],
  ["accept-language", ""],
  ["accept-ranges", ""],
  ["accept", ""],
  ["access-control-allow-origin", ""],
  ["age", ""],
  ["allow", ""],
  ["authorization", ""],
  ["cache-control", ""],
  ["content-disposition", ""],
  ["content-encoding", ""],
  ["content-language", ""],
  ["content-length", ""],
  ["content-location", ""],
  ["content-range", ""],
  ["content-type", ""],
  ["cookie", ""],
  ["date", ""],
  ["etag", ""],
  ["expect", ""],
  ["expires", ""],
  ["from", ""],
  ["host", ""],
  ["if-match", ""],
  ["if-modified-since", ""],
  ["if-none-match", ""],
  ["if-range", ""],
  ["if-unmodified-since", ""],
  ["last-modified", ""],
  ["link", ""],
  ["location", ""],
  ["max-forwards", ""],
  ["proxy-authenticate", ""],
  ["proxy-authorization", ""],
  ["range", ""],
  ["referer", ""],
  ["refresh", ""],
  ["retry-after", ""],
  ["server", ""],
  ["set-cookie", ""],
  ["strict-transport-security", ""],
  ["transfer-encoding", ""],
  ["user-agent", ""],
  ["vary", ""],
  ["via", ""],
  ["www-authenticate", ""],
];

/** The default of SETTINGS_HEADER_TABLE_SIZE, which we leave as it is. */
const maxTableBytes = 4096;
const entryOverheadBytes = 32;
/** No index, length or size of ours is larger. */
const maxInteger = 2 ** 28;

const broken = (what: string): AppError => new AppError("WIRE_HPACK", `malformed header block: ${what}`);

export class HpackDecoder {
  readonly #maxListBytes: number;
  /** Oldest first. */
  #names: string[] = [];
  #values: string[] = [];
  #tableBytes = 0;
  #tableLimit = maxTableBytes;
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;
  #lastBlock: Uint8Array | undefined;
  #lastList: HeaderList = [];

  constructor(maxListBytes: number) {
    this.#maxListBytes = maxListBytes;
  }

  /** Undefined when the list is larger than allowed; the table is kept right all the same. Throws WIRE_HPACK. */
  decode(block: Uint8Array): HeaderList | undefined {
    if (this.#lastBlock && sameBytes(this.#lastBlock, block)) return this.#lastList;
    this.#bytes = block;
    this.#at = 0;
    this.#end = block.length;
    const list: string[] = [];
    let listBytes = 0;
    let changed = false;
    while (this.#at < this.#end) {
      const first = block[this.#at]!;
      let name: string;
      let value: string;
      if (first >= 0x80) {
        [name, value] = this.#entry(this.#integer(7));
      } else if (first >= 0x40) {
        name = this.#name(6);
        value = this.#string();
        this.#add(name, value);
        changed = true;
      } else if (first >= 0x20) {
        if (list.length > 0) throw broken("a table size after a header");
        const limit = this.#integer(5);
        if (limit > maxTableBytes) throw broken(`table of ${limit} bytes`);
        this.#tableLimit = limit;
        this.#shrink(0);
        changed = true;
        continue;
      } else {
        name = this.#name(4);
        value = this.#string();
      }
      listBytes += name.length + value.length + entryOverheadBytes;
      if (listBytes <= this.#maxListBytes) list.push(name, value);
    }
    this.#bytes = block.subarray(0, 0);
    if (changed) this.#lastBlock = undefined;
    if (listBytes > this.#maxListBytes) return undefined;
    if (!changed && block.length <= 64) {
      this.#lastBlock = Uint8Array.from(block);
      this.#lastList = list;
    }
    return list;
  }

  #name(prefixBits: number): string {
    const index = this.#integer(prefixBits);
    return index === 0 ? this.#string() : this.#entry(index)[0];
  }

  #entry(index: number): readonly [string, string] {
    const fixed = staticTable[index - 1];
    if (fixed) return fixed;
    const at = this.#names.length - (index - staticTable.length);
    const name = index === 0 ? undefined : this.#names[at];
    if (name === undefined) throw broken(`no entry ${index}`);
    return [name, this.#values[at]!];
  }

  #add(name: string, value: string): void {
    const bytes = name.length + value.length + entryOverheadBytes;
    this.#shrink(bytes);
    if (bytes > this.#tableLimit) return;
    this.#names.push(name);
    this.#values.push(value);
    this.#tableBytes += bytes;
  }

  /** Drops the oldest until `room` more fit. */
  #shrink(room: number): void {
    while (this.#names.length > 0 && this.#tableBytes + room > this.#tableLimit) {
      this.#tableBytes -= this.#names.shift()!.length + this.#values.shift()!.length + entryOverheadBytes;
    }
  }

  #integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = this.#byte() & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#byte();
      value += (byte & 127) * 2 ** shift;
      if (value > maxInteger || shift > 28) throw broken("a number that is too large");
      if (byte < 128) return value;
    }
  }

  #string(): string {
    const huffman = (this.#bytes[this.#at] ?? 0) >= 0x80;
    const length = this.#integer(7);
    const start = this.#at;
    if (start + length > this.#end) throw broken("a string that goes beyond its end");
    this.#at += length;
    if (huffman) return decodeHuffman(this.#bytes, start, this.#at);
    const { buffer, byteOffset } = this.#bytes;
    return Buffer.from(buffer, byteOffset + start, length).toString("latin1");
  }

  #byte(): number {
    if (this.#at >= this.#end) throw broken("it ends too early");
    return this.#bytes[this.#at++]!;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A block that touches no table, of names in lower case and values in Latin-1. Throws WIRE_HPACK for control characters. */
export function encodeHeaderBlock(headers: readonly (readonly [name: string, value: string])[]): Uint8Array {
  let mostBytes = 0;
  for (const [name, value] of headers) mostBytes += name.length + value.length + maxPrefixBytes;
  const out = Buffer.allocUnsafe(mostBytes);
  let at = 0;
  for (const [name, value] of headers) {
    const known = staticIndex.get(name);
    const whole = known?.byValue.get(value);
    if (whole !== undefined) {
      out[at++] = 0x80 | whole;
      continue;
    }
    at = writeInteger(out, at, known?.first ?? 0, 4);
    if (!known) at = writeText(out, at, name);
    at = writeText(out, at, value);
  }
  return out.subarray(0, at);
}

/** Of one header: the index and two lengths. */
const maxPrefixBytes = 3 * 6;

/** Where a name stands in the static table, alone and with its values; indices fit into seven bits. */
const staticIndex: ReadonlyMap<string, { readonly first: number; readonly byValue: ReadonlyMap<string, number> }> =
  (() => {
    const out = new Map<string, { first: number; byValue: Map<string, number> }>();
    for (const [i, [name, value]] of staticTable.entries()) {
      const known = out.get(name) ?? { first: i + 1, byValue: new Map<string, number>() };
      known.byValue.set(value, i + 1);
      out.set(name, known);
    }
    return out;
  })();

function writeInteger(out: Buffer, start: number, value: number, prefixBits: number): number {
  const mask = (1 << prefixBits) - 1;
  let at = start;
  out[at++] = Math.min(value, mask);
  if (value < mask) return at;
  let rest = value - mask;
  for (; rest > 127; rest = Math.floor(rest / 128)) out[at++] = (rest % 128) | 128;
  out[at++] = rest;
  return at;
}

function writeText(out: Buffer, start: number, text: string): number {
  let at = writeInteger(out, start, text.length, 7);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if ((code < 32 && code !== tab) || code === 127 || code > 255) throw broken("a character that no header may have");
    out[at++] = code;
  }
  return at;
}

const tab = 9;
