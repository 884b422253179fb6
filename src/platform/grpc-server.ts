// gRPC calls answered over HTTP/2: clear text on a unix socket or a TCP address, or TLS, with client certificates where
// a CA for them is given. A handler gets message bytes and answers with frames (prefix included), so that an answer is
// built once and never copied. Bounds: message size, header size, streams and connections; a stream's backlog is the
// handler's to watch (`write` says when to stop). Deadlines of clients are kept. The protocol itself is in wire/http2; here
// are sockets, timers and the rules of gRPC. What a turn of the event loop answers leaves as one write.
// Counterpart: google.golang.org/grpc.
import * as net from "node:net";
import * as tls from "node:tls";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { decodeTimeout, encodeMessage, FrameReader, framePrefixBytes, GrpcError, grpcCodes } from "#wire/grpc.ts";
import { encodeHeaderBlock, type HeaderList } from "#wire/http2/hpack.ts";
import { SendBuffers } from "#wire/http2/send-buffers.ts";
import type { Http2Options } from "#wire/http2/server-connection.ts";
import type { DataSource, Http2Stream, StreamSink } from "#wire/http2/stream.ts";
import { Http2Socket, type Http2SocketEvents, introductionTicks, tickMs } from "./http2-socket.ts";

export interface GrpcTls {
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Clients must present a certificate of this CA. */
  readonly clientCaPem?: string | undefined;
}

export interface GrpcServerOptions {
  readonly listen: { readonly socketPath: string } | { readonly host: string; readonly port: number };
  readonly tls?: GrpcTls | undefined;
  /** Bound of one received message. */
  readonly maxMessageBytes: number;
  readonly log: Logger;
}

export interface GrpcCall {
  /** Aborts with a GrpcError when the client cancels, its deadline passes, or the connection ends. */
  readonly signal: AbortSignal;
}

export interface GrpcStream extends GrpcCall {
  /** What the client sends; ends when it has nothing more to say. Not reading stops the client. */
  readonly messages: AsyncIterable<Uint8Array>;
  /** One frame. False: the client is behind; wait for `drained` before more. */
  write(frame: Uint8Array): boolean;
  /** The same with a frame in two parts, of which the first may be written over afterwards. */
  writeOf(head: Uint8Array, tail: Uint8Array): boolean;
  /** Resolves when the client has caught up, or the call is over. */
  drained(): Promise<void>;
}

export type GrpcHandler =
  /** Answers with a frame, or with what writes it while it is sent. */
  | { readonly kind: "unary"; handle(message: Uint8Array, call: GrpcCall): Promise<Uint8Array | DataSource> }
  | { readonly kind: "stream"; handle(stream: GrpcStream): Promise<void> };

/** By path: `/package.Service/Method`. */
export type GrpcHandlers = ReadonlyMap<string, GrpcHandler>;

export interface GrpcServer {
  /** `unix:///path` or `host:port`. */
  readonly address: string;
  readonly port: number | undefined;
  /** Stops listening, tells clients to leave, and cuts whoever is still there after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

const maxConnections = 2000;
const http2Options: Omit<Http2Options, "buffers"> = {
  // A Kubernetes API server keeps hundreds of watches on one connection.
  maxConcurrentStreams: 10_000,
  streamWindowBytes: 1024 * 1024,
  // The window of the connection must not be what holds a single large message back.
  connectionWindowBytes: 8 * 1024 * 1024,
  maxHeaderBytes: 16 * 1024,
  maxQueuedBytes: 256 * 1024 * 1024,
};
/** Bytes a stream may owe its client before its handler is told to stop. */
const maxBacklogBytes = 1024 * 1024;
/** How much of an answer waits in the socket before its streams are held back. */
const socketBufferBytes = 256 * 1024;

const answerBlock = encodeHeaderBlock([
  [":status", "200"],
  ["content-type", "application/grpc"],
]);
const okTrailers = encodeHeaderBlock([["grpc-status", "0"]]);

/** Listens. Rejects with GRPC_LISTEN when the address is taken or may not be used. */
export async function openGrpcServer(options: GrpcServerOptions, handlers: GrpcHandlers): Promise<GrpcServer> {
  const { log } = options;
  const connections = new Set<Http2Socket>();
  const buffers = new SendBuffers();
  const accept = (socket: net.Socket) => {
    const over = () => connections.delete(connection);
    const connection: Http2Socket = new Http2Socket(
      socket,
      { ...http2Options, buffers, log, what: "gRPC" },
      { request: callsOf(options, handlers), over },
    );
    connections.add(connection);
  };
  const server = options.tls
    ? tlsServer(options.tls, log, accept)
    : net.createServer({ highWaterMark: socketBufferBytes }, accept);
  server.maxConnections = maxConnections;
  await listen(server, options.listen);
  server.on("error", (error: Error) => log.error("gRPC server failed", { error: error.message }));
  const timer = setInterval(() => {
    for (const connection of connections) connection.tick();
  }, tickMs);
  timer.unref();
  const bound = server.address();
  const port = bound !== null && typeof bound === "object" ? (bound as net.AddressInfo).port : undefined;
  return {
    address: "socketPath" in options.listen ? `unix://${options.listen.socketPath}` : `${options.listen.host}:${port}`,
    port,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const connection of connections) connection.leave();
      const cut = setTimeout(() => {
        for (const connection of connections) connection.destroy();
      }, graceMs);
      await closed;
      clearTimeout(cut);
      clearInterval(timer);
    },
  };
}

function tlsServer(options: GrpcTls, log: Logger, accept: (socket: net.Socket) => void): tls.Server {
  const server = tls.createServer(
    {
      ALPNProtocols: ["h2"],
      minVersion: "TLSv1.2",
      handshakeTimeout: introductionTicks * tickMs,
      cert: options.certificatePem,
      key: options.keyPem,
      ...(options.clientCaPem ? { ca: options.clientCaPem, requestCert: true, rejectUnauthorized: true } : {}),
    },
    (socket) => {
      if (socket.alpnProtocol === "h2") accept(socket);
      else socket.destroy();
    },
  );
  server.on("tlsClientError", (error: Error) => log.debug("TLS handshake failed", { error: error.message }));
  return server;
}

function listen(server: net.Server, where: GrpcServerOptions["listen"]): Promise<void> {
  const name = "socketPath" in where ? where.socketPath : `${where.host}:${where.port}`;
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(new AppError("GRPC_LISTEN", `cannot listen on ${name}: ${cause.message}`, {}, { cause }));
    server.once("error", failed);
    const listening = () => {
      server.off("error", failed);
      resolve();
    };
    if ("socketPath" in where) server.listen({ path: where.socketPath }, listening);
    else server.listen({ host: where.host, port: where.port, backlog: 511 }, listening);
  });
}

/** Requests of one connection as calls. Clients send the same headers for many. */
function callsOf(options: GrpcServerOptions, handlers: GrpcHandlers): Http2SocketEvents["request"] {
  let lastHeaders: HeaderList | undefined;
  let lastRoute: Route | undefined;
  return (stream, headers) => {
    if (headers !== lastHeaders || !lastRoute) {
      lastRoute = routeOf(headers, handlers);
      lastHeaders = headers;
    }
    const call = new Call(stream, options);
    if (lastRoute.handler) call.start(lastRoute.handler, lastRoute.timeout);
    else call.refuse(lastRoute.refusal!);
    return call;
  };
}

interface Route {
  readonly handler?: GrpcHandler;
  readonly refusal?: GrpcError | number;
  readonly timeout?: string | undefined;
}

function routeOf(list: HeaderList, handlers: GrpcHandlers): Route {
  const header = (name: string): string | undefined => {
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) return list[i + 1];
    return undefined;
  };
  if (header(":method") !== "POST") return { refusal: 405 };
  if (!/^application\/grpc(?:$|[+;])/.test(header("content-type") ?? "")) return { refusal: 415 };
  const path = header(":path") ?? "";
  const handler = handlers.get(path);
  if (handler) {
    const encoding = header("grpc-encoding");
    if (encoding === undefined || encoding === "identity") return { handler, timeout: header("grpc-timeout") };
    const message = `grpc: Decompressor is not installed for grpc-encoding "${encoding}"`;
    return { refusal: new GrpcError("UNIMPLEMENTED", message) };
  }
  const [, service, method] = /^\/(.*)\/([^/]*)$/.exec(path) ?? [];
  if (service === undefined) return { refusal: new GrpcError("UNIMPLEMENTED", `malformed method name: "${path}"`) };
  const known = [...handlers.keys()].some((name) => name.startsWith(`/${service}/`));
  return {
    refusal: new GrpcError(
      "UNIMPLEMENTED",
      known ? `unknown method ${method} for service ${service}` : `unknown service ${service}`,
    ),
  };
}

/** Why the signal of a call that was answered aborts: nobody is told. */
const answered = new GrpcError("CANCELLED", "context canceled");
const goneError = () => new GrpcError("CANCELLED", "context canceled");

class Call implements GrpcStream, StreamSink {
  readonly #stream: Http2Stream;
  readonly #options: GrpcServerOptions;
  /** Of a unary call; absent where messages are read one by one. */
  #handle: Extract<GrpcHandler, { kind: "unary" }>["handle"] | undefined;
  #reader: FrameReader | undefined;
  /** Came and is not yet read. */
  #messages: Uint8Array[] = [];
  #heldBytes = 0;
  #inputEnded = false;
  #inputWaiting: (() => void) | undefined;
  /** Made when somebody asks for it: most calls end before. */
  #over: AbortController | undefined;
  #overReason: GrpcError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #waiting: (() => void)[] = [];
  #headSent = false;
  #ended = false;

  constructor(stream: Http2Stream, options: GrpcServerOptions) {
    this.#stream = stream;
    this.#options = options;
  }

  get signal(): AbortSignal {
    if (!this.#over) {
      this.#over = new AbortController();
      if (this.#overReason) this.#over.abort(this.#overReason);
    }
    return this.#over.signal;
  }

  refuse(failure: GrpcError | number): void {
    if (typeof failure === "number") {
      this.#ended = true;
      this.#stream.respond(encodeHeaderBlock([[":status", String(failure)]]), true);
    } else this.#finish(failure);
  }

  start(handler: GrpcHandler, timeout: string | undefined): void {
    if (timeout !== undefined) {
      const ms = decodeTimeout(timeout);
      if (ms === undefined) {
        this.#finish(new GrpcError("INTERNAL", `malformed grpc-timeout: ${timeout}`));
        return;
      }
      this.#timer = setTimeout(
        () => this.#finish(new GrpcError("DEADLINE_EXCEEDED", "context deadline exceeded")),
        Math.min(ms, 0x7fffffff),
      );
    }
    if (handler.kind === "unary") {
      this.#handle = handler.handle;
      return;
    }
    handler.handle(this).then(
      () => this.#finish(undefined),
      (error: unknown) => this.#finish(error),
    );
  }

  // What the protocol tells

  data(bytes: Uint8Array): void {
    if (this.#ended || this.#overReason) {
      this.#stream.consumed(bytes.length);
      return;
    }
    if (
      this.#handle &&
      !this.#reader &&
      this.#messages.length === 0 &&
      isOneMessage(bytes, this.#options.maxMessageBytes)
    ) {
      this.#stream.consumed(bytes.length);
      this.#messages.push(bytes.subarray(framePrefixBytes));
      return;
    }
    this.#reader ??= new FrameReader(this.#options.maxMessageBytes);
    try {
      this.#messages.push(...this.#reader.push(bytes));
      if (this.#handle && this.#messages.length > 1)
        throw new GrpcError("INTERNAL", "a unary call has one request message");
    } catch (error) {
      this.#stream.consumed(bytes.length);
      this.#finish(error);
      return;
    }
    this.#heldBytes += bytes.length;
    // A message that has only begun must get its rest: its size is bounded by itself.
    if (this.#handle || this.#messages.length === 0) this.#release();
    this.#inputWaiting?.();
  }

  end(): void {
    this.#inputEnded = true;
    if (!this.#handle) {
      this.#inputWaiting?.();
      return;
    }
    if (this.#ended || this.#overReason) return;
    const [message] = this.#messages;
    if (message === undefined || this.#reader?.partial) {
      this.#finish(new GrpcError("INTERNAL", "the request ended before its message did"));
      return;
    }
    this.#handle(message, this).then(
      (answer) => {
        if (this.#ended || this.#overReason) {
          if (!(answer instanceof Uint8Array)) answer.close();
          return;
        }
        this.#stream.respond(answerBlock, false);
        this.#headSent = true;
        if (answer instanceof Uint8Array) this.#stream.data(answer);
        else this.#stream.dataFrom(answer);
        this.#finish(undefined);
      },
      (error: unknown) => this.#finish(error),
    );
  }

  gone(): void {
    clearTimeout(this.#timer);
    this.#abort(goneError());
  }

  caughtUp(): void {
    this.#wake();
  }

  // What a handler asks

  get messages(): AsyncIterable<Uint8Array> {
    return this.#read();
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    for (;;) {
      if (this.#overReason) throw this.#overReason;
      const message = this.#messages.shift();
      if (message !== undefined) {
        if (this.#messages.length === 0) this.#release();
        yield message;
        continue;
      }
      if (this.#inputEnded) break;
      await new Promise<void>((resolve) => {
        this.#inputWaiting = resolve;
      });
      this.#inputWaiting = undefined;
    }
    if (this.#reader?.partial) throw new GrpcError("INTERNAL", "the request ended inside a message");
  }

  write(frame: Uint8Array): boolean {
    if (this.#ended || this.#overReason) return true;
    this.#head();
    this.#stream.data(frame);
    return this.#stream.queuedBytes < maxBacklogBytes;
  }

  writeOf(head: Uint8Array, tail: Uint8Array): boolean {
    if (this.#ended || this.#overReason) return true;
    this.#head();
    this.#stream.dataOf(head, tail);
    return this.#stream.queuedBytes < maxBacklogBytes;
  }

  async drained(): Promise<void> {
    if (this.#ended || this.#overReason || this.#stream.queuedBytes === 0) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  #release(): void {
    this.#stream.consumed(this.#heldBytes);
    this.#heldBytes = 0;
  }

  #head(): void {
    if (this.#headSent) return;
    this.#headSent = true;
    this.#stream.respond(answerBlock, false);
  }

  /** Ends the call with a status; the first one counts. */
  #finish(failure: unknown): void {
    if (this.#timer) clearTimeout(this.#timer);
    if (this.#ended) return;
    this.#ended = true;
    const status = failure === undefined ? undefined : this.#statusOf(failure);
    if (!this.#overReason) {
      if (!status) {
        this.#head();
        this.#stream.end(okTrailers);
      } else if (this.#headSent) this.#stream.end(encodeHeaderBlock(trailersOf(status)));
      else {
        const head = [[":status", "200"], ["content-type", "application/grpc"], ...trailersOf(status)] as const;
        this.#stream.respond(encodeHeaderBlock(head), true);
      }
    }
    this.#messages = [];
    this.#release();
    this.#abort(status ?? answered);
  }

  #abort(reason: GrpcError): void {
    if (this.#overReason) return;
    this.#overReason = reason;
    this.#over?.abort(reason);
    this.#wake();
    this.#inputWaiting?.();
  }

  #statusOf(failure: unknown): GrpcError {
    if (failure instanceof GrpcError) return failure;
    this.#options.log.error("gRPC handler failed", { error: messageOf(failure) });
    return new GrpcError("UNKNOWN", messageOf(failure));
  }

  #wake(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** The whole of one uncompressed message and nothing else. */
function isOneMessage(bytes: Uint8Array, maxBytes: number): boolean {
  const size = bytes.length - framePrefixBytes;
  if (size < 0 || size > maxBytes || bytes[0] !== 0) return false;
  return bytes[1]! * 2 ** 24 + (bytes[2]! << 16) + (bytes[3]! << 8) + bytes[4]! === size;
}

function trailersOf(status: GrpcError): readonly (readonly [string, string])[] {
  return [
    ["grpc-status", String(grpcCodes.indexOf(status.code))],
    ["grpc-message", encodeMessage(status.message)],
  ];
}
