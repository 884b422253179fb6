// A raw DEFLATE decoder (RFC 1951) for header blocks. Why not node:zlib: its stateful streams are asynchronous only, and
// header blocks share one compression state over the whole connection but must be decoded in frame order, at once.
// Each call must be handed whole blocks, as every SPDY peer sends them (flushed at the end of each frame).
// Output and history are bounded; anything malformed throws WIRE_INFLATE.
import { AppError } from "#base/errors.ts";

const windowBytes = 32 * 1024;

export class Inflater {
  #window: Uint8Array;

  constructor(dictionary: Uint8Array) {
    this.#window = dictionary.slice(-windowBytes);
  }

  /** The bytes that `input`, a run of whole blocks, stands for. */
  inflate(input: Uint8Array, maxOutputBytes: number): Uint8Array {
    const bits = new BitReader(input);
    const out = new Output(this.#window, maxOutputBytes);
    let final = false;
    while (!final && bits.remaining >= 3) {
      final = bits.take(1) === 1;
      const type = bits.take(2);
      if (type === 0) stored(bits, out);
      else if (type === 1) coded(bits, out, fixedLiterals(), fixedDistances());
      else if (type === 2) {
        const { literals, distances } = dynamicCodes(bits);
        coded(bits, out, literals, distances);
      } else throw broken("block type 3");
    }
    const produced = out.produced();
    this.#window = out.window(windowBytes);
    return produced;
  }
}

const broken = (why: string) => new AppError("WIRE_INFLATE", `malformed deflate data: ${why}`);

class BitReader {
  readonly #input: Uint8Array;
  #at = 0;
  #hold = 0;
  #held = 0;
  constructor(input: Uint8Array) {
    this.#input = input;
  }
  /** Bits left. */
  get remaining(): number {
    return this.#held + (this.#input.length - this.#at) * 8;
  }
  take(count: number): number {
    while (this.#held < count) {
      const byte = this.#input[this.#at];
      if (byte === undefined) throw broken("it ends inside a block");
      this.#at++;
      this.#hold |= byte << this.#held;
      this.#held += 8;
    }
    const value = this.#hold & ((1 << count) - 1);
    this.#hold >>>= count;
    this.#held -= count;
    return value;
  }
  /** Drops the rest of the current byte and hands out `count` whole ones. */
  bytes(count: number): Uint8Array {
    this.#at -= this.#held >> 3;
    this.#hold = 0;
    this.#held = 0;
    if (this.#at + count > this.#input.length) throw broken("it ends inside a stored block");
    const bytes = this.#input.subarray(this.#at, this.#at + count);
    this.#at += count;
    return bytes;
  }
}

class Output {
  #bytes: Uint8Array;
  #size: number;
  readonly #start: number;
  readonly #max: number;
  constructor(history: Uint8Array, maxOutputBytes: number) {
    this.#start = history.length;
    this.#size = history.length;
    this.#max = history.length + maxOutputBytes;
    this.#bytes = new Uint8Array(history.length + 4096);
    this.#bytes.set(history);
  }
  push(byte: number): void {
    if (this.#size >= this.#max) throw broken("it expands beyond the limit");
    if (this.#size === this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#size++] = byte;
  }
  copy(distance: number, length: number): void {
    if (distance > this.#size) throw broken("distance before the start");
    for (let i = 0; i < length; i++) this.push(this.#bytes[this.#size - distance]!);
  }
  produced(): Uint8Array {
    return this.#bytes.slice(this.#start, this.#size);
  }
  window(size: number): Uint8Array {
    return this.#bytes.slice(Math.max(0, this.#size - size), this.#size);
  }
}

/** A canonical Huffman code: how many codes of each length, and the symbols in code order. */
interface Code {
  readonly counts: Uint16Array;
  readonly symbols: Uint16Array;
}

const maxBits = 15;

function codeOf(lengths: readonly number[]): Code {
  const counts = new Uint16Array(maxBits + 1);
  for (const length of lengths) counts[length]!++;
  counts[0] = 0;
  let left = 1;
  for (let length = 1; length <= maxBits; length++) {
    left = left * 2 - counts[length]!;
    if (left < 0) throw broken("over-subscribed code");
  }
  const offsets = new Uint16Array(maxBits + 2);
  for (let length = 1; length <= maxBits; length++) offsets[length + 1] = offsets[length]! + counts[length]!;
  const symbols = new Uint16Array(lengths.length);
  lengths.forEach((length, symbol) => {
    if (length !== 0) symbols[offsets[length]!++] = symbol;
  });
  return { counts, symbols };
}

function symbol(bits: BitReader, code: Code): number {
  let value = 0;
  let first = 0;
  let index = 0;
  for (let length = 1; length <= maxBits; length++) {
    value |= bits.take(1);
    const count = code.counts[length]!;
    if (value - first < count) return code.symbols[index + value - first]!;
    index += count;
    first = (first + count) << 1;
    value <<= 1;
  }
  throw broken("no such code");
}

// RFC 1951, 3.2.5: lengths 257..285 and distances 0..29, base values and extra bits.
const lengthBase = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
];
const lengthExtra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const distanceBase = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
  8193, 12289, 16385, 24577,
];
const distanceExtra = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];
/** RFC 1951, 3.2.7: the order in which the lengths of the code length code come. */
const lengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const fixedLiterals = (): Code =>
  codeOf(Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8)));
const fixedDistances = (): Code => codeOf(new Array<number>(30).fill(5));

function stored(bits: BitReader, out: Output): void {
  const head = bits.bytes(4);
  const size = head[0]! | (head[1]! << 8);
  if ((size ^ 0xffff) !== (head[2]! | (head[3]! << 8))) throw broken("stored block sizes differ");
  for (const byte of bits.bytes(size)) out.push(byte);
}

function coded(bits: BitReader, out: Output, literals: Code, distances: Code): void {
  for (;;) {
    const value = symbol(bits, literals);
    if (value < 256) out.push(value);
    else if (value === 256) return;
    else {
      const base = lengthBase[value - 257];
      if (base === undefined) throw broken("no such length");
      const length = base + bits.take(lengthExtra[value - 257]!);
      const at = symbol(bits, distances);
      const start = distanceBase[at];
      if (start === undefined) throw broken("no such distance");
      out.copy(start + bits.take(distanceExtra[at]!), length);
    }
  }
}

function dynamicCodes(bits: BitReader): { literals: Code; distances: Code } {
  const literalCount = bits.take(5) + 257;
  const distanceCount = bits.take(5) + 1;
  const lengthCount = bits.take(4) + 4;
  const lengthLengths = new Array<number>(19).fill(0);
  for (let i = 0; i < lengthCount; i++) lengthLengths[lengthOrder[i]!] = bits.take(3);
  const lengthCode = codeOf(lengthLengths);
  const lengths: number[] = [];
  while (lengths.length < literalCount + distanceCount) {
    const value = symbol(bits, lengthCode);
    if (value < 16) lengths.push(value);
    else {
      const previous = lengths.at(-1);
      if (value === 16 && previous === undefined) throw broken("nothing to repeat");
      const times = value === 16 ? 3 + bits.take(2) : value === 17 ? 3 + bits.take(3) : 11 + bits.take(7);
      for (let i = 0; i < times; i++) lengths.push(value === 16 ? previous! : 0);
    }
  }
  if (lengths.length > literalCount + distanceCount) throw broken("too many code lengths");
  return { literals: codeOf(lengths.slice(0, literalCount)), distances: codeOf(lengths.slice(literalCount)) };
}
