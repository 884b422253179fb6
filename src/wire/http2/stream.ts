// One stream as its reader and writer see it, and what of it the connection and its sender keep: windows, what it owes,
// how far it has come. Has no rules of its own: what may go out is decided in sender.ts, what comes in and how it ends in
// server-connection.ts.
import { Buffer } from "node:buffer";

/** Data that is made when there is room to send it. */
export interface DataSource {
  /** Writes what comes next and says how much; 0: that was all. What it throws resets the stream. */
  fill(into: Buffer): number;
  /** Nothing more is asked of it. */
  close(): void;
}

/** What happens to one stream. Called in order, from within `receive`. */
export interface StreamSink {
  /** The bytes stay as they are. Whoever is done with them says so by `consumed`. */
  data(bytes: Uint8Array): void;
  /** The client has said everything. */
  end(): void;
  /** The stream is gone before it was answered: reset by the client, or its connection is over. */
  gone(): void;
  /** Everything owed has left. */
  caughtUp(): void;
}

/** What goes out on streams; sender.ts. */
interface StreamSender {
  headers(stream: Http2Stream, block: Uint8Array, end: boolean): void;
  data(stream: Http2Stream, bytes: Uint8Array): void;
  pair(stream: Http2Stream, head: Uint8Array, tail: Uint8Array): void;
  from(stream: Http2Stream, source: DataSource): void;
  trailers(stream: Http2Stream, block: Uint8Array): void;
  last(stream: Http2Stream, bytes: Uint8Array): void;
}

/** Its connection. */
interface StreamOwner {
  resetStream(stream: Http2Stream, code: number): void;
  creditStream(stream: Http2Stream, bytes: number): void;
}

interface StreamWindows {
  readonly send: number;
  readonly receive: number;
}

const noBytes = Buffer.alloc(0);

export class Http2Stream {
  readonly id: number;
  readonly #owner: StreamOwner;
  readonly #sender: StreamSender;
  sink: StreamSink | undefined;
  sendWindow: number;
  receiveWindow: number;
  /** Consumed, and not yet given back to the client. */
  credit = 0;
  readonly queue: Uint8Array[] = [];
  queuedBytes = 0;
  /** Where more comes from when nothing is queued. */
  source: DataSource | undefined;
  /** What `queue` is of, when it is the source's. */
  lent: Buffer | undefined;
  trailers: Uint8Array | undefined;
  /** Nothing comes behind what is queued. */
  finishing = false;
  remoteEnded = false;
  localEnded = false;
  closed = false;
  /** Calls of `relax` since it was answered without the client having ended. */
  halfOpenTicks = 0;

  constructor(id: number, owner: StreamOwner, sender: StreamSender, { send, receive }: StreamWindows) {
    this.id = id;
    this.#owner = owner;
    this.#sender = sender;
    this.sendWindow = send;
    this.receiveWindow = receive;
  }

  /** A header block; with `end` it is all there is. */
  respond(block: Uint8Array, end: boolean): void {
    this.#sender.headers(this, block, end);
  }
  /** `bytes` must not change any more. */
  data(bytes: Uint8Array): void {
    this.#sender.data(this, bytes);
  }
  /** `head`, which is copied, and `tail`, which must not change, as if they were one. */
  dataOf(head: Uint8Array, tail: Uint8Array): void {
    this.#sender.pair(this, head, tail);
  }
  /** All there will be but trailers. */
  dataFrom(source: DataSource): void {
    this.#sender.from(this, source);
  }
  end(trailers: Uint8Array): void {
    this.#sender.trailers(this, trailers);
  }
  /** All there will be: what is owed, then `bytes`, which must not change any more. */
  finish(bytes: Uint8Array = noBytes): void {
    this.#sender.last(this, bytes);
  }
  reset(code: number): void {
    this.#owner.resetStream(this, code);
  }
  /** The reader is done with so many bytes: the client may send as many more. */
  consumed(bytes: number): void {
    this.#owner.creditStream(this, bytes);
  }
}

/** Whether more may be said on it. */
export const maySend = ({ closed, localEnded, trailers, finishing }: Http2Stream): boolean =>
  !closed && !localEnded && !trailers && !finishing;
