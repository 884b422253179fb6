// Frames out of what a socket hands over: whole ones are taken where they lie in the chunk, cut ones are put together in a
// buffer of their own. Checks the preface and the length of a frame; everything else of it is for who takes it.
import { Buffer } from "node:buffer";
import { ConnectionError, defaultMaxFrameBytes, errorCode, frameHeaderBytes, preface } from "./frames.ts";

export interface FrameTaker {
  /** From its header at `at` to `end`. */
  frame(bytes: Buffer, at: number, end: number): void;
  isOver(): boolean;
}

export class FrameReader {
  readonly #take: FrameTaker;
  #started = false;
  #partial: Buffer | undefined;
  #partialBytes = 0;
  readonly #head = Buffer.alloc(Math.max(preface.length, frameHeaderBytes));
  #headBytes = 0;

  constructor(take: FrameTaker) {
    this.#take = take;
  }

  /** `isOver` is asked between frames: nothing is read behind the one that ended it all. */
  receive(chunk: Buffer): void {
    let at = 0;
    if (!this.#started) {
      at = this.#fillHead(chunk, 0, preface.length);
      const seen = this.#head.toString("latin1", 0, this.#headBytes);
      if (!preface.startsWith(seen)) throw new ConnectionError(errorCode.protocol, "this is not HTTP/2");
      if (this.#headBytes < preface.length) return;
      this.#headBytes = 0;
      this.#started = true;
    }
    while (at < chunk.length && !this.#take.isOver()) {
      if (this.#partial) {
        const size = Math.min(this.#partial.length - this.#partialBytes, chunk.length - at);
        chunk.copy(this.#partial, this.#partialBytes, at, at + size);
        this.#partialBytes += size;
        at += size;
        if (this.#partialBytes < this.#partial.length) return;
        const whole = this.#partial;
        this.#partial = undefined;
        this.#take.frame(whole, 0, whole.length);
        continue;
      }
      if (this.#headBytes > 0 || chunk.length - at < frameHeaderBytes) {
        at = this.#fillHead(chunk, at, frameHeaderBytes);
        if (this.#headBytes < frameHeaderBytes) return;
        this.#headBytes = 0;
        const length = this.#frameLength(this.#head, 0);
        const whole = Buffer.allocUnsafe(frameHeaderBytes + length);
        this.#head.copy(whole, 0, 0, frameHeaderBytes);
        if (length === 0) this.#take.frame(whole, 0, whole.length);
        else {
          this.#partial = whole;
          this.#partialBytes = frameHeaderBytes;
        }
        continue;
      }
      const end = at + frameHeaderBytes + this.#frameLength(chunk, at);
      if (end > chunk.length) {
        const whole = Buffer.allocUnsafe(end - at);
        chunk.copy(whole, 0, at);
        this.#partial = whole;
        this.#partialBytes = chunk.length - at;
        return;
      }
      this.#take.frame(chunk, at, end);
      at = end;
    }
  }

  #fillHead(chunk: Buffer, at: number, wanted: number): number {
    const size = Math.min(wanted - this.#headBytes, chunk.length - at);
    chunk.copy(this.#head, this.#headBytes, at, at + size);
    this.#headBytes += size;
    return at + size;
  }

  #frameLength(bytes: Buffer, at: number): number {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    if (length > defaultMaxFrameBytes) throw new ConnectionError(errorCode.frameSize, `frame of ${length} bytes`);
    return length;
  }
}
