// The bytes of a tunnel over whatever socket there is. Between motes a link outlives its sockets: what the other end has
// not confirmed is kept, and sent again over the next one. Both count bytes of frames; confirmed is always where a frame
// begins, so that each socket carries whole frames from its first byte on, and the receiver drops what it had of the first.
// Invariant: every byte reaches the decoder once and in order; what is kept never exceeds `maxUnconfirmedBytes` by more
// than small frames. Towards k3s nothing is kept: the link ends with its socket.
import type { Duplex } from "node:stream";
import { assert } from "#base/assert.ts";
import type { Clock } from "#base/clock.ts";
import type { Decoder, Piece, TunnelCodec } from "./codec.ts";
import { Pace } from "./pace.ts";

export interface LinkOptions {
  readonly isDialer: boolean;
  readonly isResumable: boolean;
}

export interface LinkHandlers {
  pieces(pieces: readonly Piece[]): void;
  /** There may be room again. */
  writable(): void;
  /** The socket is gone; not called for one that `attach` replaces. */
  detached(): void;
}

/** Kept for the case of a cut, and so what may be under way: memory of a tunnel, and the delay behind bulk, are bounded by it. */
export const maxUnconfirmedBytes = 1024 * 1024;
/** Answers and signals go out beyond it; whoever reads as many and confirms none wants us to keep them for ever. */
export const mostUnconfirmedBytes = 2 * maxUnconfirmedBytes;
/** In Node's own queue: the kernel's is behind it. */
const maxQueuedBytes = 128 * 1024;
/** Answers and signals go out beyond it, up to here. */
const mostQueuedBytes = 512 * 1024;

/** Small frames are kept together, up to this: a ping's two bytes alone would cost two hundred times as many. */
const gatherBytes = 512;

interface Kept {
  readonly start: number;
  /** The first `length` of these; there may be room for more behind them. */
  readonly bytes: Uint8Array;
  length: number;
}

export class Link {
  readonly #options: LinkOptions;
  readonly #clock: Clock;
  readonly #handlers: LinkHandlers;
  readonly #decoder: Decoder;
  readonly #pace = new Pace(maxUnconfirmedBytes);
  #socket: Duplex | undefined;
  #kept: Kept[] = [];
  #sent = 0;
  #confirmed = 0;
  #queued = 0;
  #skip = 0;
  heardMs: number;
  /** When the first bytes that want an answer went out after the last that came in. */
  unansweredMs: number | undefined;

  constructor(
    options: LinkOptions,
    deps: { readonly codec: TunnelCodec; readonly clock: Clock },
    handlers: LinkHandlers,
  ) {
    this.#options = options;
    this.#clock = deps.clock;
    this.#handlers = handlers;
    // The dialing end masks.
    this.#decoder = deps.codec.decoder(!options.isDialer);
    this.heardMs = deps.clock.monotonicMs();
  }

  get isAttached(): boolean {
    return this.#socket !== undefined;
  }
  /** From here on this end wants the other's bytes: where the frame begins that has not come whole. */
  get wanted(): number {
    return this.#decoder.frameStart;
  }
  get unconfirmedBytes(): number {
    return this.#sent - this.#confirmed;
  }
  /** How many bytes of streams may go out now; `isShared`: small messages should find little in front of them. */
  room(isShared: boolean): number {
    if (!this.#socket) return 0;
    const queueRoom = maxQueuedBytes - this.#queued;
    if (!this.#options.isResumable) return queueRoom;
    return Math.min(queueRoom, (isShared ? this.#pace.sharedLimit : this.#pace.limit) - this.unconfirmedBytes);
  }
  /** Not even answers get away. */
  get isClogged(): boolean {
    return this.#queued > mostQueuedBytes;
  }
  /** Small frames when the way is slow, so that others get in between. */
  get frameBytes(): number {
    return this.#pace.limit >= 256 * 1024 || !this.#options.isResumable ? 16 * 1024 : 4 * 1024;
  }

  /** Whether the other end can be given what it wants. */
  has(from: number): boolean {
    return from === this.#sent || (from <= this.#sent && from >= (this.#kept[0]?.start ?? this.#sent));
  }

  /** Goes on over `socket`, with the bytes that the other end wants; an earlier socket is cut. */
  attach(socket: Duplex, head: Uint8Array, from: number): void {
    assert(this.has(from), "the other end wants bytes that are gone");
    const old = this.#socket;
    this.#socket = socket;
    old?.destroy();
    this.#queued = 0;
    this.#skip = this.#decoder.total - this.#decoder.frameStart;
    this.#pace.reset();
    this.heardMs = this.#clock.monotonicMs();
    this.unansweredMs = undefined;
    socket.on("data", (chunk: Buffer) => this.#read(socket, chunk));
    socket.on("error", () => socket.destroy());
    socket.on("end", () => socket.destroy());
    socket.on("close", () => this.#lost(socket));
    if (socket.destroyed) {
      this.#lost(socket);
      return;
    }
    for (const { start, bytes, length } of this.#kept) {
      if (start + length > from) this.#write(socket, bytes.subarray(Math.max(0, from - start), length));
    }
    if (this.#sent > from) this.unansweredMs = this.heardMs;
    this.confirm(from);
    if (head.length > 0) this.#read(socket, head);
  }

  /** Frames, whole. `isAsking`: a living end says something to it, sooner or later. */
  send(bytes: Uint8Array, isAsking: boolean): void {
    const socket = this.#socket;
    assert(socket, "nothing is sent while there is no socket");
    if (this.#options.isResumable) {
      this.#keep(bytes);
      const isFirst = this.#sent === this.#confirmed;
      this.#pace.sent(this.#sent + bytes.length, this.#confirmed, isFirst, this.#clock.monotonicMs());
    }
    this.#sent += bytes.length;
    if (isAsking) this.unansweredMs ??= this.#clock.monotonicMs();
    this.#write(socket, bytes);
  }

  /** The other end has read all before `offset`. */
  confirm(offset: number): void {
    if (!(offset > this.#confirmed && offset <= this.#sent)) return;
    this.#confirmed = offset;
    this.#pace.confirmed(offset, this.#clock.monotonicMs());
    let gone = 0;
    while (gone < this.#kept.length && this.#kept[gone]!.start + this.#kept[gone]!.length <= offset) gone++;
    if (gone > 0) this.#kept = this.#kept.slice(gone);
    this.#handlers.writable();
  }

  /** Cuts the socket; what is kept stays. */
  cut(): void {
    this.#socket?.destroy();
  }

  /** Sends what was written, then the end. */
  finish(): void {
    this.#socket?.end();
  }

  forget(): void {
    this.#kept = [];
  }

  #keep(bytes: Uint8Array): void {
    if (bytes.length > gatherBytes / 2) {
      this.#kept.push({ start: this.#sent, bytes, length: bytes.length });
      return;
    }
    let last = this.#kept.at(-1);
    if (!last || last.length + bytes.length > last.bytes.length) {
      last = { start: this.#sent, bytes: Buffer.allocUnsafeSlow(gatherBytes), length: 0 };
      this.#kept.push(last);
    }
    last.bytes.set(bytes, last.length);
    last.length += bytes.length;
  }

  #write(socket: Duplex, bytes: Uint8Array): void {
    this.#queued += bytes.length;
    socket.write(bytes, () => {
      if (socket !== this.#socket) return;
      this.#queued -= bytes.length;
      this.#handlers.writable();
    });
  }

  #read(socket: Duplex, chunk: Uint8Array): void {
    if (socket !== this.#socket) return;
    this.heardMs = this.#clock.monotonicMs();
    this.unansweredMs = undefined;
    let fresh = chunk;
    if (this.#skip > 0) {
      const known = Math.min(this.#skip, chunk.length);
      this.#skip -= known;
      fresh = chunk.subarray(known);
    }
    if (fresh.length > 0) this.#handlers.pieces(this.#decoder.push(fresh));
  }

  #lost(socket: Duplex): void {
    if (socket !== this.#socket) return;
    this.#socket = undefined;
    this.#queued = 0;
    this.#handlers.detached();
  }
}
