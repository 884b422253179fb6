// Host side of assembly/tunnel: one module for all tunnels of the process, its memory only a workbench. What a decoder knows of
// a frame that is not over lives here, in 256 bytes, and goes over with each chunk; so there is nothing to free and nothing
// that could leak. Between frames, where idle tunnels are, it is two numbers.
// Invariant: no view of the module's memory leaves this file.
import { assert } from "#base/assert.ts";
import { readAsset } from "#platform/assets.ts";

/** One part of what came: of a message, as far as it has come; a whole control frame; or what the peer did wrong. */
export interface Piece {
  /** A message's type (0: one that nobody knows), or `controlKind` or `failureKind` plus opcode or reason. */
  readonly kind: number;
  readonly connection: number;
  readonly isFirst: boolean;
  readonly isLast: boolean;
  /** A view of the chunk, which was unmasked in place. */
  readonly bytes: Uint8Array;
}

export interface Frame {
  /** As of Piece. */
  readonly kind: number;
  readonly connection: number;
  readonly payload: Uint8Array;
}

export interface Decoder {
  /** The chunk is the decoder's from here on. After a failure nothing comes any more. */
  push(chunk: Uint8Array): Piece[];
  /** Bytes read so far, and where the frame began that is not over. */
  readonly total: number;
  readonly frameStart: number;
}

export interface TunnelCodec {
  decoder(isMasked: boolean): Decoder;
  /** Frames as bytes. At most `maxBatchFrames` of them with `maxBatchBytes` together. */
  encode(frames: readonly Frame[], isMasked: boolean): Buffer;
}

export const controlKind = 0x1000;
export const failureKind = 0x2000;
export const opcodes = { close: 8, ping: 9, pong: 10 } as const;
export const maxBatchBytes = 65536;
export const maxBatchFrames = 128;

/** By the number that assembly/tunnel/decode.ts gives. */
const failures: readonly string[] = [
  "",
  "a frame with reserved bits",
  "a frame with an unknown opcode",
  "a control frame that is too long or in parts",
  "a frame that is masked where it must not be, or is not where it must",
  "a frame out of order",
  "a message that is not binary",
  "a frame longer than any can be",
  "a number that is none",
  "a message that ends within its header",
];

export const failureText = (kind: number): string => failures[kind - failureKind] ?? "something unknown";

// Shared with assembly/tunnel/areas.ts and decode.ts.
const stateBytes = 256;
const consumedAt = 96;
/** Of State: headHave, inPayload, inMessage, hasFailed. All 0: a frame and a message are over, and all there is to know is `total`. */
const openAt = [48, 56, 72, 100] as const;
/** States that nobody needs at the moment. */
const mostSpareStates = 16;
const eventBytes = 24;
const frameBytes = 32;
const isFirst = 1;
const isLast = 2;
const inState = 4;
/** Longest header of a frame, with mask, and of a message in it. */
const headBytes = 14 + 40;

interface Exports {
  area(which: number): number;
  decode(from: number, length: number, wantsMask: number): number;
  encode(count: number, isMasked: number, id: number): number;
}

const nothing = new Uint8Array(0);

class WasmDecoder implements Decoder {
  readonly #decode: (decoder: WasmDecoder, chunk: Uint8Array) => Piece[];
  readonly isMasked: boolean;
  total = 0;
  frameStart = 0;
  /** Absent between frames. */
  state: Uint8Array | undefined;

  constructor(decode: (decoder: WasmDecoder, chunk: Uint8Array) => Piece[], isMasked: boolean) {
    this.#decode = decode;
    this.isMasked = isMasked;
  }

  push(chunk: Uint8Array): Piece[] {
    return this.#decode(this, chunk);
  }
}

export class WasmCodec implements TunnelCodec {
  readonly #module: Exports;
  readonly #memory: Uint8Array;
  readonly #view: DataView;
  readonly #at: { readonly in: number; out: number; state: number; events: number; frames: number };
  readonly #randomBytes: (size: number) => Uint8Array;
  #masks: DataView = new DataView(new ArrayBuffer(0));
  #masksUsed = 0;
  readonly #spareStates: Uint8Array[] = [];
  /** Receivers do not look at it. */
  #nextId = 1;

  constructor(wasm: Uint8Array<ArrayBuffer>, randomBytes: (size: number) => Uint8Array) {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(wasm), {
      env: {
        abort() {
          throw new Error("the codec of the tunnel failed");
        },
      },
    });
    this.#module = exports as unknown as Exports;
    const { buffer } = exports["memory"] as WebAssembly.Memory;
    this.#memory = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    const area = (which: number) => this.#module.area(which);
    this.#at = { in: area(0), out: area(1), state: area(2), events: area(3), frames: area(4) };
    this.#randomBytes = randomBytes;
  }

  decoder(isMasked: boolean): Decoder {
    return new WasmDecoder(this.#push, isMasked);
  }

  readonly #push = (decoder: WasmDecoder, chunk: Uint8Array): Piece[] => {
    const pieces: Piece[] = [];
    const view = this.#view;
    const at = this.#at;
    const { isMasked } = decoder;
    if (decoder.state) this.#memory.set(decoder.state, at.state);
    else {
      this.#memory.fill(0, at.state, at.state + stateBytes);
      view.setFloat64(at.state, decoder.total, true);
      view.setFloat64(at.state + 8, decoder.total, true);
    }
    for (let start = 0; start < chunk.length; start += maxBatchBytes) {
      const part = chunk.length <= maxBatchBytes ? chunk : chunk.subarray(start, start + maxBatchBytes);
      this.#memory.set(part, at.in);
      for (let from = 0; from < part.length; ) {
        const count = this.#module.decode(from, part.length, isMasked ? 1 : 0);
        const to = view.getUint32(at.state + consumedAt, true);
        if (isMasked) part.set(this.#memory.subarray(at.in + from, at.in + to), from);
        for (let i = 0, p = at.events; i < count; i++, p += eventBytes) {
          const flags = view.getUint32(p + 12, true);
          const offset = view.getUint32(p + 16, true);
          const length = view.getUint32(p + 20, true);
          const bytes =
            (flags & inState) !== 0 ? this.#memory.slice(at.state + offset, at.state + offset + length) : null;
          pieces.push({
            kind: view.getUint32(p + 8, true),
            connection: view.getFloat64(p, true),
            isFirst: (flags & isFirst) !== 0,
            isLast: (flags & isLast) !== 0,
            bytes: bytes ?? (length === 0 ? nothing : part.subarray(offset, offset + length)),
          });
        }
        // Only a failure makes no headway.
        if (to === from) break;
        from = to;
      }
    }
    this.#putBack(decoder);
    return pieces;
  };

  #putBack(decoder: WasmDecoder): void {
    const { state: from } = this.#at;
    decoder.total = this.#view.getFloat64(from, true);
    decoder.frameStart = this.#view.getFloat64(from + 8, true);
    if (openAt.some((offset) => this.#view.getUint32(from + offset, true) !== 0)) {
      decoder.state ??= this.#spareStates.pop() ?? new Uint8Array(stateBytes);
      decoder.state.set(this.#memory.subarray(from, from + stateBytes));
    } else if (decoder.state) {
      if (this.#spareStates.length < mostSpareStates) this.#spareStates.push(decoder.state);
      decoder.state = undefined;
    }
  }

  encode(frames: readonly Frame[], isMasked: boolean): Buffer {
    assert(frames.length <= maxBatchFrames, "too many frames for one batch");
    const view = this.#view;
    const at = this.#at;
    let offset = 0;
    let p = at.frames;
    for (const { kind, connection, payload } of frames) {
      if (isMasked) {
        assert(offset + payload.length <= maxBatchBytes, "too many bytes for one batch");
        this.#memory.set(payload, at.in + offset);
        view.setUint32(p + 20, this.#mask(), true);
      }
      view.setFloat64(p, connection, true);
      view.setUint32(p + 8, kind, true);
      view.setUint32(p + 12, offset, true);
      view.setUint32(p + 16, payload.length, true);
      offset += payload.length;
      p += frameBytes;
    }
    const written = this.#module.encode(frames.length, isMasked ? 1 : 0, this.#nextId);
    this.#nextId = (this.#nextId + frames.length) % 0x7fffffff;
    assert(written <= maxBatchBytes + maxBatchFrames * headBytes, "a batch larger than its area");
    const { out } = at;
    if (isMasked) {
      const whole = roomFor(written);
      whole.set(this.#memory.subarray(out, out + written));
      return whole;
    }
    const whole = roomFor(written + offset);
    let from = out;
    let to = 0;
    p = at.frames;
    for (const { payload } of frames) {
      const head = view.getUint32(p + 24, true);
      for (let i = 0; i < head; i++) whole[to++] = this.#memory[from++]!;
      whole.set(payload, to);
      to += payload.length;
      p += frameBytes;
    }
    return whole;
  }

  /** Keys must not be foreseen by whoever chooses the payload (RFC 6455, 10.3); asking for each alone is dear. */
  #mask(): number {
    if (this.#masksUsed === this.#masks.byteLength) {
      const bytes = this.#randomBytes(1024);
      this.#masks = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#masksUsed = 0;
    }
    this.#masksUsed += 4;
    return this.#masks.getUint32(this.#masksUsed - 4, true);
  }
}

/** What is small is gone soon, or copied by whoever keeps it: a piece of a shared block is enough, and ten times as quick. */
const roomFor = (size: number): Buffer => (size <= 256 ? Buffer.allocUnsafe(size) : Buffer.allocUnsafeSlow(size));

/** The codec for this CPU. */
export function loadCodec(randomBytes: (size: number) => Uint8Array): TunnelCodec {
  try {
    return new WasmCodec(readAsset("tunnel-simd.wasm"), randomBytes);
  } catch (error) {
    // V8 refuses to compile instructions that the CPU lacks.
    if (!(error instanceof Error) || error.name !== "CompileError") throw error;
    return new WasmCodec(readAsset("tunnel.wasm"), randomBytes);
  }
}
