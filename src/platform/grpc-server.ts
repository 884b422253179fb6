// gRPC calls answered over HTTP/2: clear text on a unix socket or a TCP address, or TLS, with client certificates where
// a CA for them is given. A handler gets message bytes and answers with frames (prefix included), so that an answer is
// built once and never copied. Bounds: message size, header size, streams and connections; a stream's backlog is the
// handler's to watch (`write` says when to stop). Deadlines of clients are kept. Counterpart: google.golang.org/grpc.
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { decodeTimeout, encodeMessage, FrameReader, GrpcError, grpcCodes } from "#wire/grpc.ts";

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
  /** Resolves when the client has caught up, or the call is over. */
  drained(): Promise<void>;
}

export type GrpcHandler =
  | { readonly kind: "unary"; handle(message: Uint8Array, call: GrpcCall): Promise<Uint8Array> }
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

/** Streams of one connection: a Kubernetes API server keeps hundreds of watches on one. */
const maxConcurrentStreams = 10_000;
const maxConnections = 2000;
const maxHeaderBytes = 16 * 1024;
/** Bytes a stream may owe its client before its handler is told to stop. */
const maxBacklogBytes = 1024 * 1024;
/** What a client may send ahead of the reader of its stream. */
const windowBytes = 1024 * 1024;

/** How long a client may leave its side of an answered call open. A reset at once would overtake the answer. */
const halfOpenMs = 1000;

const answerHeaders = { ":status": 200, "content-type": "application/grpc" } as const;

/** Listens. Rejects with GRPC_LISTEN when the address is taken or may not be used. */
export async function openGrpcServer(options: GrpcServerOptions, handlers: GrpcHandlers): Promise<GrpcServer> {
  const { log, tls } = options;
  const common = {
    settings: { maxConcurrentStreams, initialWindowSize: windowBytes, maxHeaderListSize: maxHeaderBytes },
    maxSessionMemory: 256,
    maxSessionInvalidFrames: 100,
    maxSessionRejectedStreams: 100,
  };
  const server = tls
    ? http2.createSecureServer({
        ...common,
        ALPNProtocols: ["h2"],
        minVersion: "TLSv1.2",
        cert: tls.certificatePem,
        key: tls.keyPem,
        ...(tls.clientCaPem ? { ca: tls.clientCaPem, requestCert: true, rejectUnauthorized: true } : {}),
      })
    : http2.createServer(common);
  const sockets = new Set<Socket | TLSSocket>();
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on("connection", (socket: Socket) => {
    if (sockets.size >= maxConnections) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
  });
  server.on("session", (session) => {
    sessions.add(session);
    // The window of the connection must not be what holds a single large message back.
    session.setLocalWindowSize(8 * windowBytes);
    session.on("close", () => sessions.delete(session));
    session.on("error", (error) => log.debug("gRPC session failed", { error: messageOf(error) }));
  });
  server.on("sessionError", (error) => log.debug("gRPC session failed", { error: messageOf(error) }));
  if (tls) server.on("tlsClientError", (error: Error) => log.debug("TLS handshake failed", { error: error.message }));
  server.on("stream", (stream, headers) => {
    const call = new Call(stream, options, log);
    const failure = refusal(headers, handlers);
    if (failure === undefined) call.start(handlers.get(headers[":path"]!)!, headers["grpc-timeout"]);
    else call.refuse(failure);
  });
  await listen(server, options.listen);
  server.on("error", (error: Error) => log.error("gRPC server failed", { error: error.message }));
  const bound = server.address();
  const port = bound !== null && typeof bound === "object" ? (bound as AddressInfo).port : undefined;
  return {
    address: "socketPath" in options.listen ? `unix://${options.listen.socketPath}` : `${options.listen.host}:${port}`,
    port,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const session of sessions) session.close();
      const timer = setTimeout(() => {
        for (const session of sessions) session.destroy();
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

function listen(
  server: http2.Http2Server | http2.Http2SecureServer,
  where: GrpcServerOptions["listen"],
): Promise<void> {
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

function refusal(headers: http2.IncomingHttpHeaders, handlers: GrpcHandlers): GrpcError | number | undefined {
  if (headers[":method"] !== "POST") return 405;
  if (!/^application\/grpc(?:$|[+;])/.test(headers["content-type"] ?? "")) return 415;
  const path = headers[":path"] ?? "";
  if (handlers.has(path)) {
    const encoding = headers["grpc-encoding"];
    if (encoding === undefined || encoding === "identity") return undefined;
    return new GrpcError(
      "UNIMPLEMENTED",
      `grpc: Decompressor is not installed for grpc-encoding "${String(encoding)}"`,
    );
  }
  const [, service, method] = /^\/(.*)\/([^/]*)$/.exec(path) ?? [];
  if (service === undefined) return new GrpcError("UNIMPLEMENTED", `malformed method name: "${path}"`);
  const known = [...handlers.keys()].some((name) => name.startsWith(`/${service}/`));
  return new GrpcError(
    "UNIMPLEMENTED",
    known ? `unknown method ${method} for service ${service}` : `unknown service ${service}`,
  );
}

const goneError = () => new GrpcError("CANCELLED", "context canceled");

class Call implements GrpcStream {
  readonly #stream: http2.ServerHttp2Stream;
  readonly #reader: FrameReader;
  readonly #log: Logger;
  readonly #over = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #waiting: (() => void)[] = [];
  #ended = false;
  #status: GrpcError | undefined;

  constructor(stream: http2.ServerHttp2Stream, options: GrpcServerOptions, log: Logger) {
    this.#stream = stream;
    this.#reader = new FrameReader(options.maxMessageBytes);
    this.#log = log;
    stream.on("error", () => this.#gone());
    stream.on("aborted", () => this.#gone());
    stream.on("close", () => this.#gone());
    stream.on("drain", () => this.#wake());
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  refuse(failure: GrpcError | number): void {
    if (typeof failure === "number") {
      this.#ended = true;
      this.#stream.respond({ ":status": failure }, { endStream: true });
      this.#stream.close();
    } else this.#finish(failure);
  }

  start(handler: GrpcHandler, timeout: string | string[] | undefined): void {
    if (timeout !== undefined) {
      const ms = decodeTimeout(String(timeout));
      if (ms === undefined) {
        this.#finish(new GrpcError("INTERNAL", `malformed grpc-timeout: ${String(timeout)}`));
        return;
      }
      this.#timer = setTimeout(
        () => this.#finish(new GrpcError("DEADLINE_EXCEEDED", "context deadline exceeded")),
        Math.min(ms, 0x7fffffff),
      );
    }
    if (handler.kind === "unary") this.#unary(handler.handle);
    else {
      handler.handle(this).then(
        () => this.#finish(undefined),
        (error: unknown) => this.#finish(error),
      );
    }
  }

  #unary(handle: (message: Uint8Array, call: GrpcCall) => Promise<Uint8Array>): void {
    let message: Uint8Array | undefined;
    this.#stream.on("data", (chunk: Uint8Array) => {
      if (this.#ended) return;
      try {
        for (const next of this.#reader.push(chunk)) {
          if (message) throw new GrpcError("INTERNAL", "a unary call has one request message");
          message = next;
        }
      } catch (error) {
        this.#finish(error);
      }
    });
    this.#stream.on("end", () => {
      if (this.#ended || this.signal.aborted) return;
      if (message === undefined || this.#reader.partial) {
        this.#finish(new GrpcError("INTERNAL", "the request ended before its message did"));
        return;
      }
      handle(message, this).then(
        (frame) => {
          this.#head();
          if (!this.#ended) this.#stream.write(frame);
          this.#finish(undefined);
        },
        (error: unknown) => this.#finish(error),
      );
    });
  }

  get messages(): AsyncIterable<Uint8Array> {
    const stream = this.#stream;
    const reader = this.#reader;
    const { signal } = this;
    return (async function* () {
      try {
        for await (const chunk of stream.iterator({ destroyOnReturn: false })) yield* reader.push(chunk as Uint8Array);
      } catch (error) {
        signal.throwIfAborted();
        throw error;
      }
      signal.throwIfAborted();
      if (reader.partial) throw new GrpcError("INTERNAL", "the request ended inside a message");
    })();
  }

  write(frame: Uint8Array): boolean {
    this.#head();
    if (this.#ended || this.signal.aborted) return true;
    this.#stream.write(frame);
    return this.#stream.writableLength < maxBacklogBytes;
  }

  async drained(): Promise<void> {
    if (this.#ended || this.signal.aborted || !this.#stream.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  #head(): void {
    if (this.#ended || this.signal.aborted || this.#stream.headersSent || this.#stream.destroyed) return;
    this.#stream.respond(answerHeaders, { waitForTrailers: true });
    this.#stream.on("wantTrailers", () => {
      if (this.#stream.destroyed) return;
      const status = this.#status;
      this.#stream.sendTrailers(status ? trailersOf(status) : { "grpc-status": "0" });
      this.#letGo();
    });
  }

  /** Ends the call with a status; the first one counts. */
  #finish(failure: unknown): void {
    clearTimeout(this.#timer);
    if (this.#ended) return;
    this.#status = failure === undefined ? undefined : this.#statusOf(failure);
    const stream = this.#stream;
    if (!stream.destroyed && !stream.closed && !this.signal.aborted) {
      if (stream.headersSent || !this.#status) {
        this.#head();
        this.#ended = true;
        stream.end();
      } else {
        this.#ended = true;
        stream.respond({ ...answerHeaders, ...trailersOf(this.#status) }, { endStream: true });
        this.#letGo();
      }
    }
    this.#ended = true;
    this.#over.abort(this.#status ?? goneError());
    this.#wake();
  }

  /** The call is answered: what the client still sends is thrown away, and for a moment it may end by itself. */
  #letGo(): void {
    const stream = this.#stream;
    if (stream.readableEnded || stream.destroyed) return;
    stream.resume();
    const timer = setTimeout(() => stream.close(http2.constants.NGHTTP2_NO_ERROR), halfOpenMs);
    timer.unref();
    stream.once("close", () => clearTimeout(timer));
  }

  #statusOf(failure: unknown): GrpcError {
    if (failure instanceof GrpcError) return failure;
    this.#log.error("gRPC handler failed", { error: messageOf(failure) });
    return new GrpcError("UNKNOWN", messageOf(failure));
  }

  #gone(): void {
    clearTimeout(this.#timer);
    if (!this.signal.aborted) this.#over.abort(goneError());
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

function trailersOf(status: GrpcError): Record<string, string> {
  return { "grpc-status": String(grpcCodes.indexOf(status.code)), "grpc-message": encodeMessage(status.message) };
}
