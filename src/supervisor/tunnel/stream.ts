// One connection inside a tunnel, as a Duplex. Bytes that nobody reads are held here and nowhere else, up to a window: of
// a mote's credit, or until k3s has been paused. remotedialer knows no half-close: an end in either direction ends both.
// Invariant: what is pushed to the reader came in order and once; what is held is bounded.
import { Duplex } from "node:stream";
import { AppError } from "#base/errors.ts";
import { orderlyEnd } from "./messages.ts";

/** What both motes take for granted when a stream begins. A stream that nobody reads holds no more than this. */
export const firstWindowBytes = 32 * 1024;
/** A window doubles up to this while its reader keeps up. */
const mostWindowBytes = 1024 * 1024;
/** The reader emptied half a window within this time: the window, and not the reader, is what holds the stream up. */
const quickMs = 100;

/** What a reader may leave lying beside half a window and count as one that keeps up. */
const lagBytes = 16 * 1024;

/** Small writes up to this go together. */
const gatherBytes = 16 * 1024;

/** Towards k3s: asks it to pause above the one, to resume below the other; it is not obliged to heed it at once. */
const pauseAboveBytes = 256 * 1024;
const resumeBelowBytes = 64 * 1024;
/** What k3s itself puts up with is 2 MiB and whatever was under way; above this it does not listen. */
const mostHeldBytes = 8 * 1024 * 1024;

/** Pieces smaller than this wait together in blocks: each alone would cost a hundred times its bytes. */
const smallPieceBytes = 1024;
const blockBytes = 4096;

/** What the stream asks of its session. */
export interface StreamHost {
  /** Who is at the other end. */
  readonly peer: string;
  readonly usesCredit: boolean;
  nowMs(): number;
  /** It has something to send. */
  ready(stream: TunnelStream): void;
  /** It is over on this side; `text` tells the other. */
  close(stream: TunnelStream, text: string): void;
  /** Nobody will read it any more; what it had borrowed comes back. */
  gone(lentBytes: number): void;
  credit(stream: TunnelStream, bytes: number): void;
  pausePeer(stream: TunnelStream, isPaused: boolean): void;
  /** Takes from what all streams may have above their first window; undefined: there is not so much. */
  borrow(bytes: number): boolean;
  giveBack(bytes: number): void;
}

interface Pending {
  bytes: Uint8Array;
  readonly done: (() => void) | undefined;
}

export interface Slice {
  readonly bytes: Uint8Array;
  /** The write is done when these bytes are. */
  readonly done: (() => void) | undefined;
}

export class TunnelStream extends Duplex {
  readonly connection: number;
  /** `tcp/127.0.0.1:10250`. */
  readonly target: string;
  /** Of the sender's queue. */
  deficit = 0;
  queue: "none" | "fresh" | "old" = "none";

  readonly #host: StreamHost;
  #pending: Pending[] = [];
  #final: (() => void) | undefined;
  #credit: number;
  #isPausedByPeer = false;
  /** The session knows it no more. */
  #isOver = false;

  #held: Uint8Array[] = [];
  #heldBytes = 0;
  /** The last of those is a block with so many bytes in it; 0: it is not. */
  #blockUsed = 0;
  #wants = false;
  #isEnding = false;
  #hasPausedPeer = false;
  /** Above so many bytes held it is asked to pause, once more where it was asked already. */
  #pauseAboveBytes = pauseAboveBytes;
  #window = firstWindowBytes;
  #left = firstWindowBytes;
  #consumed = 0;
  #grantedMs: number;
  #lagged = false;

  constructor(connection: number, target: string, host: StreamHost) {
    // What nobody reads waits here and not in Readable's list: there a byte may cost as much as a thousand.
    super({ allowHalfOpen: false, readableHighWaterMark: 1 });
    this.connection = connection;
    this.target = target;
    this.#host = host;
    this.#credit = host.usesCredit ? firstWindowBytes : Infinity;
    this.#grantedMs = host.nowMs();
    // A tunnel that breaks must not end the process because nobody listens yet, or any more.
    this.on("error", () => {});
    // Both directions end together.
    this.once("end", () => this.destroy());
  }

  /** Bytes that came and were not read. */
  get heldBytes(): number {
    return this.#heldBytes + this.readableLength;
  }
  get windowBytes(): number {
    return this.#window;
  }

  // ---- out ----

  get canSend(): boolean {
    if (this.#isOver) return false;
    if (this.#pending.length > 0) return this.#credit > 0 && !this.#isPausedByPeer;
    return this.#final !== undefined;
  }

  /** Nothing waits to be sent. */
  get isDrained(): boolean {
    return this.#pending.length === 0;
  }

  /** The next bytes to send; undefined: only the end is left. */
  slice(most: number): Slice | undefined {
    const first = this.#pending[0];
    if (!first) return undefined;
    const size = Math.min(most, this.#credit, first.bytes.length);
    this.#credit -= size;
    if (size === first.bytes.length) {
      this.#pending.shift();
      return { bytes: first.bytes, done: first.done };
    }
    const bytes = first.bytes.subarray(0, size);
    first.bytes = first.bytes.subarray(size);
    return { bytes, done: undefined };
  }

  /** The last of it has gone out. */
  finished(): void {
    this.#leave();
    this.#host.close(this, orderlyEnd);
    this.#isEnding = true;
    this.#drain();
  }

  addCredit(bytes: number): void {
    this.#credit += bytes;
    if (this.canSend) this.#host.ready(this);
  }

  setPausedByPeer(isPaused: boolean): void {
    this.#isPausedByPeer = isPaused;
    if (this.canSend) this.#host.ready(this);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#enqueue(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    const bytes = chunks.reduce((sum, { chunk }) => sum + chunk.length, 0);
    // Header and body of a request in one frame; what is large is better left where it is.
    if (bytes <= gatherBytes) {
      this.#enqueue(chunks.length === 1 ? chunks[0]!.chunk : Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
      return;
    }
    for (const [i, { chunk }] of chunks.entries()) this.#enqueue(chunk, i === chunks.length - 1 ? done : undefined);
  }

  #enqueue(bytes: Uint8Array, done: (() => void) | undefined): void {
    if (bytes.length === 0) {
      done?.();
      return;
    }
    // Nothing takes it any more, but what came before is still to be read: the writer waits until that is over. If its
    // writes were done at once, one that never tires would leave no turn to anybody.
    this.#pending.push({ bytes, done });
    if (this.canSend) this.#host.ready(this);
  }

  override _final(done: () => void): void {
    if (this.#isOver) {
      done();
      return;
    }
    this.#final = done;
    this.#host.ready(this);
  }

  // ---- in ----

  /** False: more than was allowed. The bytes are a view of a chunk. */
  receive(bytes: Uint8Array): boolean {
    if (this.#host.usesCredit) {
      this.#left -= bytes.length;
      if (this.#left < 0) return false;
    } else if (this.heldBytes + bytes.length > mostHeldBytes) return false;
    if (this.#heldBytes === 0 && this.#wants && this.readableLength === 0 && this.readableFlowing) {
      this.#pass(bytes);
      return true;
    }
    this.#hold(bytes);
    if (this.#wants) this.#drain();
    if (this.#heldBytes > this.#window / 2 + lagBytes) this.#lagged = true;
    // remotedialer has one mark for both directions: what its end reads of this stream lets it send again.
    if (!this.#host.usesCredit && this.heldBytes > this.#pauseAboveBytes) {
      this.#hasPausedPeer = true;
      this.#pauseAboveBytes = this.heldBytes + pauseAboveBytes;
      this.#host.pausePeer(this, true);
    }
    return true;
  }

  #hold(bytes: Uint8Array): void {
    this.#heldBytes += bytes.length;
    const at = this.#held.length - 1;
    const last = this.#held[at];
    if (last && bytes.length < smallPieceBytes) {
      if (this.#blockUsed === 0 && last.length < smallPieceBytes) {
        const block = new Uint8Array(blockBytes);
        block.set(last);
        this.#held[at] = block;
        this.#blockUsed = last.length;
      }
      if (this.#blockUsed > 0 && this.#blockUsed + bytes.length <= blockBytes) {
        this.#held[at]!.set(bytes, this.#blockUsed);
        this.#blockUsed += bytes.length;
        return;
      }
    }
    if (last && this.#blockUsed > 0) this.#held[at] = last.slice(0, this.#blockUsed);
    this.#blockUsed = 0;
    // A small view would hold its whole chunk for as long as it waits.
    this.#held.push(bytes.buffer.byteLength > 2 * bytes.length ? new Uint8Array(bytes) : bytes);
  }

  override _read(): void {
    this.#wants = true;
    this.#drain();
  }

  #drain(): void {
    // Whoever gets a piece may ask for the next before this returns.
    while (this.#wants && this.#held.length > 0) {
      const isBlock = this.#held.length === 1 && this.#blockUsed > 0;
      const first = this.#held.shift()!;
      const bytes = isBlock ? first.subarray(0, this.#blockUsed) : first;
      if (isBlock) this.#blockUsed = 0;
      this.#heldBytes -= bytes.length;
      this.#pass(bytes);
    }
    if (this.#hasPausedPeer && this.heldBytes < resumeBelowBytes) {
      this.#hasPausedPeer = false;
      this.#pauseAboveBytes = pauseAboveBytes;
      if (!this.#isOver) this.#host.pausePeer(this, false);
    }
    if (this.#isEnding && this.#held.length === 0 && this.#wants) {
      this.#isEnding = false;
      this.push(null);
    }
  }

  #pass(bytes: Uint8Array): void {
    this.#wants = false;
    if (this.push(bytes)) this.#wants = true;
    if (!this.#host.usesCredit || this.#isOver) return;
    this.#consumed += bytes.length;
    if (this.#consumed >= this.#window / 2) this.#grant();
  }

  #grant(): void {
    const nowMs = this.#host.nowMs();
    const isQuick = nowMs - this.#grantedMs < quickMs;
    this.#grantedMs = nowMs;
    let bytes = this.#consumed;
    this.#consumed = 0;
    if (isQuick && !this.#lagged && this.#window < mostWindowBytes && this.#host.borrow(this.#window)) {
      bytes += this.#window;
      this.#window *= 2;
    } else if (this.#lagged && this.#window > firstWindowBytes && bytes >= this.#window / 2) {
      const less = this.#window / 2;
      this.#host.giveBack(less);
      this.#window -= less;
      bytes -= less;
    }
    this.#lagged = false;
    if (bytes <= 0) return;
    this.#left += bytes;
    this.#host.credit(this, bytes);
  }

  // ---- the end ----

  /** The other side has ended it: what came before is still read. */
  endedByPeer(text: string): void {
    this.#leave();
    if (text !== orderlyEnd) {
      this.destroy(new AppError("TUNNEL_STREAM", `${this.#host.peer}: ${this.target}: ${text}`));
      return;
    }
    this.#isEnding = true;
    this.#drain();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.#isOver) {
      const text = error?.message ?? orderlyEnd;
      this.#leave();
      this.#host.close(this, text);
    }
    this.#held = [];
    this.#heldBytes = 0;
    this.#blockUsed = 0;
    this.#host.gone(this.#window - firstWindowBytes);
    const pending = this.#pending;
    this.#pending = [];
    done(error);
    for (const each of pending) each.done?.();
  }

  #leave(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const final = this.#final;
    this.#final = undefined;
    final?.();
  }
}
