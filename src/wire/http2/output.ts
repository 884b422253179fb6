// Frames on their way to the socket: small ones are gathered in chunks, large payloads are handed on as they are. Knows
// no streams and no windows (sender.ts); what it says on its own are settings, resets, updates and goodbyes.
// Bounds: what control frames a client may make us owe while it reads nothing, and how many buffers wait for a flush.
import { Buffer } from "node:buffer";
import {
  ConnectionError,
  defaultMaxFrameBytes,
  defaultWindowBytes,
  errorCode,
  frameFlag,
  frameHeaderBytes,
  frameType,
  setting,
} from "./frames.ts";
import type { SendBuffers } from "./send-buffers.ts";

export interface OutputOptions {
  readonly maxConcurrentStreams: number;
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly maxHeaderBytes: number;
  readonly buffers: SendBuffers;
}

export interface OutputEvents {
  output(): void;
  outputIsLarge(): void;
}

/** Answers to pings and settings that a client does not read. */
const maxControlBytes = 256 * 1024;
/** Larger payloads are handed on as they are instead of copied. */
export const copyBelowBytes = 4096;
const chunkBytes = 16 * 1024;
/** A server has thousands of connections that say little: their first chunk after a quiet second is small. */
const quietChunkBytes = 1024;
/** The other side should have it. */
const largeOutputBytes = 256 * 1024;

/** Buffers that are waited for: what a few flushes take. */
const maxSending = 32;

const noBytes = Buffer.alloc(0);

export class Output {
  readonly #options: OutputOptions;
  readonly #events: OutputEvents;
  /** Where small frames are gathered: one of its own, or when there is much to send at once, of those that are used again. */
  #chunk: Buffer = noBytes;
  #chunkIsLent = false;
  #nextChunkBytes = quietChunkBytes;
  #chunkStart = 0;
  #chunkAt = 0;
  #output: Uint8Array[] = [];
  #outputBytes = 0;
  #announced = false;
  #paused = false;
  /** Buffers of sources: all of it is in the output; the transport has it. */
  #spent: Buffer[] = [];
  #sending: Buffer[] = [];
  #controlBytes = 0;

  constructor(options: OutputOptions, events: OutputEvents) {
    this.#options = options;
    this.#events = events;
  }

  /** What waits for `take`. */
  get bytes(): number {
    return this.#outputBytes;
  }
  get isPaused(): boolean {
    return this.#paused;
  }

  /** Segments in order; the connection forgets them. */
  take(): Uint8Array[] {
    this.#closeSegment();
    const output = this.#output;
    this.#output = [];
    this.#outputBytes = 0;
    this.#announced = false;
    this.#endLentChunk();
    if (this.#spent.length > 0) {
      // A socket that is never seen empty: these are not used again.
      if (this.#sending.length > maxSending) this.#sending = [];
      this.#sending.push(...this.#spent);
      this.#spent = [];
    }
    return output;
  }

  /** Everything that was taken has left: its bytes are not looked at any more. */
  written(): void {
    if (this.#sending.length === 0) return;
    for (const buffer of this.#sending) this.#options.buffers.give(buffer);
    this.#sending = [];
  }

  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    this.#controlBytes = 0;
  }

  /** A buffer that a source filled, when all of it is in the output. */
  spend(buffer: Buffer): void {
    this.#spent.push(buffer);
  }

  /** At regular intervals: a connection that says nothing holds no chunk. */
  relax(): void {
    this.#nextChunkBytes = quietChunkBytes;
    // Nothing waits in it; what was handed out keeps its bytes itself.
    if (!this.#chunkIsLent && this.#chunkAt === this.#chunkStart) {
      this.#chunk = noBytes;
      this.#chunkStart = 0;
      this.#chunkAt = 0;
    }
  }

  /** `tail` only where both together are copied. */
  frame(type: number, flags: number, id: number, payload: Uint8Array, tail: Uint8Array = noBytes): void {
    const length = payload.length + tail.length;
    const copied = length < copyBelowBytes;
    const needed = copied ? frameHeaderBytes + length : frameHeaderBytes;
    if (this.#chunk.length - this.#chunkAt < needed) this.#nextChunk(needed);
    const out = this.#chunk;
    let at = this.#chunkAt;
    out[at++] = length >>> 16;
    out[at++] = length >>> 8;
    out[at++] = length;
    out[at++] = type;
    out[at++] = flags;
    out[at++] = id >>> 24;
    out[at++] = id >>> 16;
    out[at++] = id >>> 8;
    out[at++] = id;
    if (copied) {
      out.set(payload, at);
      if (tail.length > 0) out.set(tail, at + payload.length);
      this.#chunkAt = at + length;
    } else {
      this.#chunkAt = at;
      this.#closeSegment();
      this.#output.push(payload);
    }
    this.#outputBytes += frameHeaderBytes + length;
    this.announce();
    if (this.#outputBytes >= largeOutputBytes && !this.#paused) this.#events.outputIsLarge();
  }

  #nextChunk(needed: number): void {
    this.#closeSegment();
    this.#endLentChunk();
    this.#chunkIsLent = this.#outputBytes >= chunkBytes;
    this.#chunk = this.#chunkIsLent
      ? this.#options.buffers.take()
      : Buffer.allocUnsafeSlow(Math.max(needed, this.#nextChunkBytes));
    this.#nextChunkBytes = chunkBytes;
    this.#chunkStart = 0;
    this.#chunkAt = 0;
  }

  /** All of it is in the output. */
  #endLentChunk(): void {
    if (!this.#chunkIsLent) return;
    this.#chunkIsLent = false;
    this.#spent.push(this.#chunk);
    this.#chunk = noBytes;
    this.#chunkStart = 0;
    this.#chunkAt = 0;
  }

  #closeSegment(): void {
    if (this.#chunkAt === this.#chunkStart) return;
    this.#output.push(this.#chunk.subarray(this.#chunkStart, this.#chunkAt));
    this.#chunkStart = this.#chunkAt;
  }

  /** Once, until it is taken. */
  announce(): void {
    if (this.#announced) return;
    this.#announced = true;
    this.#events.output();
  }

  headers(id: number, block: Uint8Array, end: boolean): void {
    const endStream = end ? frameFlag.endStream : 0;
    if (block.length <= defaultMaxFrameBytes) {
      this.frame(frameType.headers, frameFlag.endHeaders | endStream, id, block);
      return;
    }
    for (let at = 0; at < block.length; at += defaultMaxFrameBytes) {
      const part = block.subarray(at, at + defaultMaxFrameBytes);
      const last = at + defaultMaxFrameBytes >= block.length ? frameFlag.endHeaders : 0;
      if (at === 0) this.frame(frameType.headers, endStream | last, id, part);
      else this.frame(frameType.continuation, last, id, part);
    }
  }

  /** What the client makes us send, whether it reads or not. */
  control(type: number, flags: number, id: number, payload: Uint8Array): void {
    this.frame(type, flags, id, payload);
    if (!this.#paused) return;
    this.#controlBytes += frameHeaderBytes + payload.length;
    if (this.#controlBytes > maxControlBytes)
      throw new ConnectionError(errorCode.enhanceYourCalm, "the client asks and does not read");
  }

  reset(id: number, code: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(code);
    this.frame(frameType.reset, 0, id, payload);
  }

  windowUpdate(id: number, bytes: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(bytes);
    this.frame(frameType.windowUpdate, 0, id, payload);
  }

  settings(): void {
    const { maxConcurrentStreams, streamWindowBytes, connectionWindowBytes, maxHeaderBytes } = this.#options;
    const values: readonly (readonly [number, number])[] = [
      [setting.maxConcurrentStreams, maxConcurrentStreams],
      [setting.initialWindowSize, streamWindowBytes],
      [setting.maxHeaderListSize, maxHeaderBytes],
    ];
    const payload = Buffer.alloc(6 * values.length);
    values.forEach(([name, value], i) => {
      payload.writeUInt16BE(name, 6 * i);
      payload.writeUInt32BE(value, 6 * i + 2);
    });
    this.frame(frameType.settings, 0, 0, payload);
    if (connectionWindowBytes > defaultWindowBytes) this.windowUpdate(0, connectionWindowBytes - defaultWindowBytes);
  }

  goAway(lastStreamId: number, code: number, why: string): void {
    const payload = Buffer.alloc(8 + why.length);
    payload.writeUInt32BE(lastStreamId, 0);
    payload.writeUInt32BE(code, 4);
    payload.write(why, 8, "latin1");
    this.frame(frameType.goAway, 0, 0, payload);
  }
}
