// The tunnel's codec in plain TypeScript, written from the formats and not from the WASM one: the oracle of its tests, and
// what it is measured against. It is written to be quick: numbers without BigInt, masks four bytes at a time.
import {
  controlKind,
  type Decoder,
  type Frame,
  failureKind,
  type Piece,
  type TunnelCodec,
} from "#supervisor/tunnel/codec.ts";

const reason = {
  reserved: 1,
  opcode: 2,
  control: 3,
  mask: 4,
  order: 5,
  text: 6,
  length: 7,
  number: 8,
  short: 9,
} as const;

const isLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

/** bytes ^= key, whose byte number `phase` meets the first of `bytes`. */
function unmask(bytes: Uint8Array, key: Uint8Array, phase: number): void {
  let i = 0;
  const { length } = bytes;
  while (i < length && (bytes.byteOffset + i) % 4 !== 0) bytes[i] = bytes[i]! ^ key[(phase + i++) & 3]!;
  if (isLittleEndian && length - i >= 16) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + i, (length - i) >> 2);
    const at = (n: number) => key[(phase + i + n) & 3]!;
    const word = at(0) | (at(1) << 8) | (at(2) << 16) | (at(3) << 24);
    for (let w = 0; w < words.length; w++) words[w] = words[w]! ^ word;
    i += words.length * 4;
  }
  for (; i < length; i++) bytes[i] = bytes[i]! ^ key[(phase + i) & 3]!;
}

interface OpenFrame {
  readonly opcode: number;
  readonly isFinal: boolean;
  left: number;
  readonly key: Uint8Array;
  phase: number;
}

class PlainDecoder implements Decoder {
  total = 0;
  frameStart = 0;
  readonly #isMasked: boolean;
  #head: number[] = [];
  #frame: OpenFrame | undefined;
  #control: number[] = [];
  #message: { header: number[]; fields: number[]; isOpen: boolean; isTold: boolean } | undefined;
  #failed = false;

  constructor(isMasked: boolean) {
    this.#isMasked = isMasked;
  }

  push(chunk: Uint8Array): Piece[] {
    const pieces: Piece[] = [];
    let at = 0;
    const fail = (why: number) => {
      this.#failed = true;
      pieces.push({ kind: failureKind | why, connection: 0, isFirst: false, isLast: false, bytes: new Uint8Array(0) });
    };
    while (at < chunk.length && !this.#failed) {
      if (!this.#frame) {
        this.#head.push(chunk[at++]!);
        const why = this.#begin();
        if (why) fail(why);
        if (!this.#frame) continue;
      }
      const frame = this.#frame as OpenFrame;
      const part = chunk.subarray(at, at + frame.left);
      if (this.#isMasked) {
        unmask(part, frame.key, frame.phase);
        frame.phase = (frame.phase + part.length) & 3;
      }
      at += part.length;
      frame.left -= part.length;
      const why = frame.opcode >= 8 ? this.#controlPart(part, pieces) : this.#messagePart(part, pieces);
      if (why) fail(why);
      else if (frame.left === 0) {
        this.#frame = undefined;
        this.frameStart = this.total + at;
      }
    }
    this.total += at;
    return pieces;
  }

  /** A frame, when its head is whole. */
  #begin(): number {
    const head = this.#head;
    if (head.length < 2) return 0;
    const [first = 0, second = 0] = head;
    const extra = { 126: 2, 127: 8 }[second & 0x7f] ?? 0;
    if (head.length < 2 + extra + (second & 0x80 ? 4 : 0)) return 0;
    this.#head = [];
    if (first & 0x70) return reason.reserved;
    if (second >= 0x80 !== this.#isMasked) return reason.mask;
    const length = extra === 0 ? second & 0x7f : head.slice(2, 2 + extra).reduce((sum, byte) => sum * 256 + byte, 0);
    if (length > Number.MAX_SAFE_INTEGER) return reason.length;
    const opcode = first & 15;
    const isFinal = first >= 0x80;
    if (opcode > 10) return reason.opcode;
    if (opcode >= 8) {
      if (!isFinal || length > 125) return reason.control;
      this.#control = [];
    } else if (opcode === 1) return reason.text;
    else if (opcode !== 0 && opcode !== 2) return reason.opcode;
    else if ((opcode === 0) !== (this.#message !== undefined)) return reason.order;
    else if (opcode === 2) this.#message = { header: [], fields: [], isOpen: false, isTold: false };
    this.#frame = { opcode, isFinal, left: length, key: Uint8Array.from(head.slice(2 + extra)), phase: 0 };
    return 0;
  }

  #controlPart(part: Uint8Array, pieces: Piece[]): number {
    this.#control.push(...part);
    if (this.#frame!.left > 0) return 0;
    const bytes = Uint8Array.from(this.#control);
    pieces.push({ kind: controlKind | this.#frame!.opcode, connection: 0, isFirst: true, isLast: true, bytes });
    return 0;
  }

  #messagePart(part: Uint8Array, pieces: Piece[]): number {
    const message = this.#message!;
    const isLast = this.#frame!.isFinal && this.#frame!.left === 0;
    let at = 0;
    while (!message.isOpen && at < part.length) {
      const byte = part[at++]!;
      message.header.push(byte);
      if (message.header.length === 10 && byte > 1) return reason.number;
      if (byte & 0x80) continue;
      // Zigzag, exact as long as it is safe.
      const raw = message.header.reduceRight((sum, b) => sum * 128 + (b & 0x7f), 0);
      const low = message.header[0]! & 1;
      const value = low ? -Math.floor(raw / 2) - 1 : Math.floor(raw / 2);
      message.header = [];
      message.fields.push(value);
      const { fields } = message;
      if (fields.length === 2 && !Number.isSafeInteger(value)) return reason.number;
      if (fields.length === 3 && !(value > 0 && value < controlKind)) fields[2] = 0;
      message.isOpen = fields.length === 4 || (fields.length === 3 && fields[2] !== 1 && fields[2] !== 2);
    }
    if (!message.isOpen) return isLast ? reason.short : 0;
    const bytes = part.subarray(at);
    if (bytes.length > 0 || !message.isTold || isLast) {
      const [, connection = 0, kind = 0] = message.fields;
      pieces.push({ kind, connection, isFirst: !message.isTold, isLast, bytes });
      message.isTold = true;
    }
    if (isLast) this.#message = undefined;
    return 0;
  }
}

export class PlainCodec implements TunnelCodec {
  readonly #randomBytes: (size: number) => Uint8Array;
  #masks = new Uint8Array(0);
  #used = 0;
  #nextId = 1;

  constructor(randomBytes: (size: number) => Uint8Array) {
    this.#randomBytes = randomBytes;
  }

  decoder(isMasked: boolean): Decoder {
    return new PlainDecoder(isMasked);
  }

  encode(frames: readonly Frame[], isMasked: boolean): Buffer {
    let room = 0;
    for (const { payload } of frames) room += payload.length + 54;
    const out = Buffer.allocUnsafeSlow(room);
    let at = 0;
    for (const { kind, connection, payload } of frames) {
      const header: number[] = [];
      if (kind < controlKind) {
        varint(header, this.#nextId++);
        varint(header, connection);
        varint(header, kind);
        if (kind <= 2) varint(header, 15000);
      }
      const length = header.length + payload.length;
      const bit = isMasked ? 0x80 : 0;
      out[at++] = 0x80 | (kind < controlKind ? 2 : kind & 15);
      if (length < 126) out[at++] = bit | length;
      else if (length < 65536) {
        out[at++] = bit | 126;
        at = out.writeUInt16BE(length, at);
      } else {
        out[at++] = bit | 127;
        at = out.writeBigUInt64BE(BigInt(length), at);
      }
      const key = isMasked ? this.#mask() : undefined;
      if (key) {
        out.set(key, at);
        at += 4;
      }
      const start = at;
      for (const byte of header) out[at++] = byte;
      out.set(payload, at);
      at += payload.length;
      if (key) unmask(out.subarray(start, at), key, 0);
    }
    return out.subarray(0, at);
  }

  #mask(): Uint8Array {
    if (this.#used === this.#masks.length) {
      this.#masks = new Uint8Array(this.#randomBytes(1024));
      this.#used = 0;
    }
    this.#used += 4;
    return this.#masks.subarray(this.#used - 4, this.#used);
  }
}

function varint(out: number[], value: number): void {
  let left = value < 0 ? -2 * value - 1 : 2 * value;
  for (; left >= 128; left = Math.floor(left / 128)) out.push((left % 128) | 0x80);
  out.push(left);
}
