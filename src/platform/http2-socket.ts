// Moves bytes between a socket and the HTTP/2 state machine (wire/http2): what a turn of the event loop answers leaves as one
// write, and a socket that takes no more holds the streams back. Whoever accepts the socket gives the streams their
// meaning (grpc-server.ts, https-server.ts) and calls `tick` once a second.
import type { Socket } from "node:net";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { HeaderList } from "#wire/http2/hpack.ts";
import { type Http2Options, Http2ServerConnection } from "#wire/http2/server-connection.ts";
import type { Http2Stream, StreamSink } from "#wire/http2/stream.ts";

export interface Http2SocketOptions extends Http2Options {
  readonly log: Logger;
  /** For the log: whose connection it is. */
  readonly what: string;
}

export interface Http2SocketEvents {
  request(stream: Http2Stream, headers: HeaderList): StreamSink;
  /** The connection is gone; called once. */
  over(): void;
}

/** How often `tick` is to be called: what is bounded per interval is allowed anew. */
export const tickMs = 1000;
/** Until when a client must have introduced itself. */
export const introductionTicks = 10;
const keepAliveMs = 30_000;

export class Http2Socket {
  readonly #socket: Socket;
  readonly #options: Http2SocketOptions;
  readonly #events: Http2SocketEvents;
  readonly #http2: Http2ServerConnection;
  #ticks = 0;
  #ending = false;
  #flushing = false;
  #over = false;

  constructor(socket: Socket, options: Http2SocketOptions, events: Http2SocketEvents) {
    this.#socket = socket;
    this.#options = options;
    this.#events = events;
    const { log, what } = options;
    this.#http2 = new Http2ServerConnection(options, {
      request: (stream, headers) => events.request(stream, headers),
      output: () => this.#schedule(),
      outputIsLarge: () => {
        if (!this.#flushing) this.#flush();
      },
      sourceFailed: (error) => log.error("an answer could not be completed", { error }),
    });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("drain", () => this.#drained());
    socket.on("error", (error) => log.debug(`${what} connection failed`, { error: messageOf(error) }));
    socket.on("end", () => this.destroy());
    socket.on("close", () => this.destroy());
  }

  /** Asks the client to leave when its streams are done. */
  leave(): void {
    this.#http2.leave();
    if (!this.#http2.started) this.destroy();
  }

  destroy(): void {
    if (this.#over) return;
    this.#over = true;
    this.#events.over();
    this.#http2.close();
    this.#socket.destroy();
  }

  tick(): void {
    // A client that does not take the last it is told, or says nothing at all, is cut off.
    if (this.#ending || (++this.#ticks === introductionTicks && !this.#http2.started)) {
      this.destroy();
      return;
    }
    this.#http2.relax();
  }

  #receive(chunk: Buffer): void {
    if (this.#over) return;
    try {
      this.#http2.receive(chunk);
    } catch (error) {
      this.#options.log.error(`${this.#options.what} connection failed`, { error: messageOf(error) });
      this.destroy();
    }
  }

  /** After all that is answered in the same breath; what a flush itself lets follow leaves others their turn. */
  #schedule(): void {
    if (this.#flushing) setImmediate(() => this.#flush());
    else process.nextTick(() => this.#flush());
  }

  #flush(): void {
    if (this.#over) return;
    this.#flushing = true;
    this.#write();
    this.#flushing = false;
  }

  #write(): void {
    // Of what was written before, which over TLS is never gone at once.
    if (this.#socket.writableLength === 0) this.#http2.written();
    const output = this.#http2.takeOutput();
    let more = true;
    if (output.length === 1) more = this.#socket.write(output[0]!);
    else if (output.length > 1) {
      this.#socket.cork();
      for (const part of output) more = this.#socket.write(part);
      this.#socket.uncork();
    }
    if (this.#socket.writableLength === 0) this.#http2.written();
    if (!more) this.#http2.pause();
    else if (output.length > 0) this.#http2.resume();
    if (!this.#http2.ended || this.#ending) return;
    this.#ending = true;
    const { failure } = this.#http2;
    if (failure !== undefined) this.#options.log.debug(`${this.#options.what} connection is cut off`, { why: failure });
    // What is under way is sent; the client may not keep it open.
    this.#socket.end(() => this.destroy());
  }

  #drained(): void {
    this.#http2.written();
    this.#http2.resume();
  }
}
