// What goes out on streams: data within the windows of the peer and what the socket takes, otherwise queued; streams that
// owe have turns of a frame each. Bound: what all streams owe together, beyond which the connection ends.
// Says nothing of how a stream ends: its owner is told.
import { Buffer } from "node:buffer";
import { messageOf } from "#base/errors.ts";
import {
  defaultMaxFrameBytes,
  defaultWindowBytes,
  errorCode,
  expectFrame,
  frameFlag,
  frameType,
  maxWindowBytes,
} from "./frames.ts";
import { copyBelowBytes, type Output } from "./output.ts";
import type { SendBuffers } from "./send-buffers.ts";
import { type DataSource, type Http2Stream, maySend } from "./stream.ts";

export interface SenderOptions {
  readonly maxQueuedBytes: number;
  readonly buffers: SendBuffers;
  readonly isCrowded?: () => boolean;
}

/** The connection. */
interface SenderOwner {
  /** All was said on it. */
  localEnded(stream: Http2Stream): void;
  resetStream(stream: Http2Stream, code: number): void;
  fail(code: number, why: string): void;
  sourceFailed(why: string): void;
}

/** Data waits in its stream when so much is on its way to the socket. */
const maxOutputBytes = 1024 * 1024;
/** The same where connections are many: TLS keeps room for the most it was ever given at once, for as long as it lasts. */
const crowdedOutputBytes = 16 * 1024;

const noBytes = Buffer.alloc(0);

export class Sender {
  readonly #options: SenderOptions;
  readonly #output: Output;
  readonly #owner: SenderOwner;
  /** Streams that owe data, in the order of their turns. */
  readonly #waiting = new Set<Http2Stream>();
  #connectionSendWindow = defaultWindowBytes;
  #initialSendWindow = defaultWindowBytes;
  #maxSendFrame = defaultMaxFrameBytes;
  #queuedBytes = 0;
  #pumping = false;

  constructor(options: SenderOptions, output: Output, owner: SenderOwner) {
    this.#options = options;
    this.#output = output;
    this.#owner = owner;
  }

  /** Of a new stream. */
  get initialWindow(): number {
    return this.#initialSendWindow;
  }

  /** The peer has set another window for all streams; `pump` is called when its settings are through. */
  setInitialWindow(value: number, streams: Iterable<Http2Stream>): void {
    expectFrame(value <= maxWindowBytes, errorCode.flowControl, "window size");
    const change = value - this.#initialSendWindow;
    this.#initialSendWindow = value;
    for (const stream of streams) {
      stream.sendWindow += change;
      if (stream.queuedBytes > 0 || stream.source) this.#waiting.add(stream);
      expectFrame(stream.sendWindow <= maxWindowBytes, errorCode.flowControl, "window size");
    }
  }

  setMaxFrame(value: number): void {
    expectFrame(value >= defaultMaxFrameBytes && value <= 0xffffff, errorCode.protocol, "frame size");
    // Larger frames would only let one stream hold up the others for longer.
    this.#maxSendFrame = Math.min(value, 4 * defaultMaxFrameBytes);
  }

  /** The peer takes so much more on the whole connection. */
  widen(increment: number): void {
    expectFrame(increment > 0, errorCode.protocol, "WINDOW_UPDATE");
    this.#connectionSendWindow += increment;
    expectFrame(this.#connectionSendWindow <= maxWindowBytes, errorCode.flowControl, "window");
    this.pump();
  }

  /** And on one stream. */
  widenStream(stream: Http2Stream, increment: number): void {
    if (increment === 0 || stream.sendWindow + increment > maxWindowBytes) {
      this.#owner.resetStream(stream, increment === 0 ? errorCode.protocol : errorCode.flowControl);
      return;
    }
    stream.sendWindow += increment;
    if (stream.queuedBytes === 0 && !stream.source) return;
    this.#waiting.add(stream);
    this.pump();
  }

  /** The connection is over: streams are let go of without another word. */
  drop(): void {
    this.#waiting.clear();
  }

  headers(stream: Http2Stream, block: Uint8Array, end: boolean): void {
    if (stream.closed || stream.localEnded) return;
    this.#output.headers(stream.id, block, end);
    if (end) this.#owner.localEnded(stream);
  }

  data(stream: Http2Stream, bytes: Uint8Array): void {
    if (!maySend(stream) || bytes.length === 0) return;
    if (stream.queuedBytes === 0 && bytes.length <= this.#room(stream) && bytes.length <= this.#maxSendFrame) {
      this.#writeData(stream, bytes, false);
      return;
    }
    this.#enqueue(stream, bytes);
    this.#checkQueued();
  }

  last(stream: Http2Stream, bytes: Uint8Array): void {
    if (!maySend(stream)) return;
    const owesNothing = stream.queuedBytes === 0 && !stream.source;
    const fits = bytes.length <= this.#room(stream) && bytes.length <= this.#maxSendFrame;
    // An end without bytes needs no window.
    if (owesNothing && (fits || bytes.length === 0)) {
      this.#writeData(stream, bytes, true);
      this.#owner.localEnded(stream);
      return;
    }
    stream.finishing = true;
    if (bytes.length > 0) this.#enqueue(stream, bytes);
    this.#checkQueued();
  }

  #enqueue(stream: Http2Stream, bytes: Uint8Array): void {
    stream.queue.push(bytes);
    stream.queuedBytes += bytes.length;
    this.#queuedBytes += bytes.length;
    this.#waiting.add(stream);
  }

  #checkQueued(): void {
    if (this.#queuedBytes > this.#options.maxQueuedBytes) {
      this.#owner.fail(errorCode.enhanceYourCalm, "the client does not take what it asks for");
      return;
    }
    this.pump();
  }

  pair(stream: Http2Stream, head: Uint8Array, tail: Uint8Array): void {
    const size = head.length + tail.length;
    if (!maySend(stream) || stream.source) return;
    if (stream.queuedBytes === 0 && size <= this.#room(stream) && size <= this.#maxSendFrame && size < copyBelowBytes) {
      stream.sendWindow -= size;
      this.#connectionSendWindow -= size;
      this.#output.frame(frameType.data, 0, stream.id, head, tail);
      return;
    }
    // Many streams may wait with the same tail: it is not copied for any.
    this.#enqueue(stream, Uint8Array.from(head));
    if (tail.length > 0) this.#enqueue(stream, tail);
    this.#checkQueued();
  }

  from(stream: Http2Stream, source: DataSource): void {
    if (!maySend(stream)) {
      source.close();
      return;
    }
    stream.source = source;
    this.#waiting.add(stream);
    this.pump();
  }

  trailers(stream: Http2Stream, block: Uint8Array): void {
    if (!maySend(stream)) return;
    if (stream.queuedBytes > 0 || stream.source) {
      stream.trailers = block;
      return;
    }
    this.#output.headers(stream.id, block, true);
    this.#owner.localEnded(stream);
  }

  /** It owes nothing any more. */
  forget(stream: Http2Stream): void {
    if (stream.source) {
      this.#waiting.delete(stream);
      const { source } = stream;
      stream.source = undefined;
      // Its buffer may be in the output: nobody gets it back.
      stream.lent = undefined;
      source.close();
    }
    if (stream.queuedBytes === 0) return;
    this.#queuedBytes -= stream.queuedBytes;
    stream.queuedBytes = 0;
    stream.queue.length = 0;
    this.#waiting.delete(stream);
  }

  /** What may go out for the stream now. */
  #room(stream: Http2Stream): number {
    if (this.#output.isPaused) return 0;
    const most = this.#options.isCrowded?.() ? crowdedOutputBytes : maxOutputBytes;
    if (this.#output.bytes >= most) return 0;
    return Math.min(stream.sendWindow, this.#connectionSendWindow, Math.max(1024, most - this.#output.bytes));
  }

  /** False: the source has nothing more, or has failed. */
  #refill(stream: Http2Stream, source: DataSource): boolean {
    const buffer = this.#options.buffers.take();
    let size = 0;
    try {
      size = source.fill(buffer);
    } catch (error) {
      this.#options.buffers.give(buffer);
      this.#owner.sourceFailed(messageOf(error));
      this.#owner.resetStream(stream, errorCode.internal);
      return false;
    }
    if (size === 0) {
      this.#options.buffers.give(buffer);
      stream.source = undefined;
      source.close();
      return false;
    }
    stream.lent = buffer;
    stream.queue.push(buffer.subarray(0, size));
    stream.queuedBytes += size;
    this.#queuedBytes += size;
    return true;
  }

  /** One frame for each stream that owes something and may send, until nobody may. */
  pump(): void {
    if (this.#pumping || this.#waiting.size === 0) return;
    this.#pumping = true;
    const drained: Http2Stream[] = [];
    for (let moved = true; moved; ) {
      moved = false;
      for (const stream of this.#waiting) {
        const room = this.#room(stream);
        if (room <= 0) {
          if (stream.sendWindow > 0) break;
          // Its own window update takes it up again: who stalls many streams must not have them looked at each time.
          this.#waiting.delete(stream);
          continue;
        }
        // Who takes a byte at a time from many streams would hold a buffer for each: the next gets one when others have gone.
        if (stream.queuedBytes === 0 && stream.source && this.#queuedBytes > this.#options.maxQueuedBytes) continue;
        if (stream.queuedBytes === 0 && stream.source && !this.#refill(stream, stream.source)) {
          this.#waiting.delete(stream);
          if (!stream.closed) this.#sentAll(stream, drained);
          moved = true;
          continue;
        }
        const first = stream.queue[0]!;
        const size = Math.min(first.length, room, this.#maxSendFrame);
        const isLast = stream.finishing && !stream.source && size === stream.queuedBytes;
        this.#writeData(stream, size === first.length ? first : first.subarray(0, size), isLast);
        if (size === first.length) stream.queue.shift();
        else stream.queue[0] = first.subarray(size);
        stream.queuedBytes -= size;
        this.#queuedBytes -= size;
        moved = true;
        if (stream.queuedBytes > 0) continue;
        if (stream.lent) {
          this.#output.spend(stream.lent);
          stream.lent = undefined;
        }
        if (stream.source) continue;
        this.#waiting.delete(stream);
        if (isLast) this.#owner.localEnded(stream);
        else this.#sentAll(stream, drained);
      }
    }
    this.#pumping = false;
    for (const stream of drained) stream.sink?.caughtUp();
  }

  #sentAll(stream: Http2Stream, drained: Http2Stream[]): void {
    if (stream.trailers) {
      this.#output.headers(stream.id, stream.trailers, true);
      this.#owner.localEnded(stream);
    } else if (stream.finishing) {
      this.#writeData(stream, noBytes, true);
      this.#owner.localEnded(stream);
    } else drained.push(stream);
  }

  #writeData(stream: Http2Stream, bytes: Uint8Array, end: boolean): void {
    stream.sendWindow -= bytes.length;
    this.#connectionSendWindow -= bytes.length;
    this.#output.frame(frameType.data, end ? frameFlag.endStream : 0, stream.id, bytes);
  }
}
