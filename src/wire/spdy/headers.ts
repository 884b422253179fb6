// Header blocks of SPDY/3: a count, then length-prefixed names (lower case) and values, all inside one zlib stream that
// lasts as long as the connection. We write stored blocks (valid deflate that needs no compressor; header blocks are a
// few dozen bytes) and read whatever the peer compresses.
import { AppError } from "#base/errors.ts";
import { dictionaryAdler32, spdyDictionary } from "./dictionary.ts";
import { Inflater } from "./inflate.ts";

/** Names are lower case on the wire; several values of one name are joined by NUL there. */
export type SpdyHeaders = Readonly<Record<string, string>>;

/** Headers of one stream, inflated. Real ones are below 200 bytes. */
const maxBlockBytes = 32 * 1024;
const maxPairs = 128;

export class HeaderWriter {
  #isFirst = true;

  encode(headers: SpdyHeaders): Uint8Array {
    const pairs = Object.entries(headers);
    const parts = [uint32(pairs.length)];
    for (const [name, value] of pairs) {
      for (const text of [name.toLowerCase(), value]) {
        const bytes = new TextEncoder().encode(text);
        parts.push(uint32(bytes.length), bytes);
      }
    }
    const block = concat(parts);
    const out: Uint8Array[] = [];
    if (this.#isFirst) {
      // RFC 1950: deflate with a 32 KiB window, a preset dictionary follows, check bits fit.
      out.push(Uint8Array.of(0x78, 0x20), uint32(dictionaryAdler32));
      this.#isFirst = false;
    }
    for (let at = 0; at < block.length; at += 0xffff) {
      const piece = block.subarray(at, at + 0xffff);
      const size = piece.length;
      out.push(Uint8Array.of(0, size & 255, size >> 8, ~size & 255, (~size >> 8) & 255), piece);
    }
    // An empty stored block: zlib's sync flush. Go's reader hands out what it has only when it meets one.
    out.push(Uint8Array.of(0, 0, 0, 0xff, 0xff));
    return concat(out);
  }
}

export class HeaderReader {
  #inflater: Inflater | undefined;

  decode(compressed: Uint8Array): SpdyHeaders {
    let input = compressed;
    if (!this.#inflater) {
      const isZlib = input.length >= 2 && (input[0]! & 15) === 8 && ((input[0]! << 8) | input[1]!) % 31 === 0;
      if (!isZlib) throw malformed("no zlib stream");
      const hasDictionary = (input[1]! & 0x20) !== 0;
      if (hasDictionary && readUint32(input, 2) !== dictionaryAdler32) throw malformed("unknown dictionary");
      this.#inflater = new Inflater(hasDictionary ? spdyDictionary() : new Uint8Array(0));
      input = input.subarray(hasDictionary ? 6 : 2);
    }
    const block = this.#inflater.inflate(input, maxBlockBytes);
    const headers: Record<string, string> = Object.create(null) as Record<string, string>;
    let at = 0;
    const number = (): number => {
      const value = readUint32(block, at);
      at += 4;
      return value;
    };
    const text = (): string => {
      const size = number();
      if (at + size > block.length) throw malformed("text beyond the block");
      const value = new TextDecoder().decode(block.subarray(at, at + size));
      at += size;
      return value;
    };
    const count = number();
    if (count > maxPairs) throw malformed(`${count} pairs`);
    for (let i = 0; i < count; i++) {
      const name = text().toLowerCase();
      headers[name] = text();
    }
    return headers;
  }
}

const malformed = (why: string) => new AppError("WIRE_SPDY", `malformed header block: ${why}`);

export function readUint32(bytes: Uint8Array, at: number): number {
  if (at + 4 > bytes.length) throw malformed("it is cut short");
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

export const uint32 = (value: number): Uint8Array =>
  Uint8Array.of((value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
