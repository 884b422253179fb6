// The TLS door: one port for HTTP/2, HTTP/1.1 and its upgrades (WebSocket, SPDY), with client certificates asked for
// but not demanded. Certificates are handed on as presented: whoever authenticates verifies the chain. One handler
// serves both protocols; node's types for raw sockets leave this file only for upgrades.
import type { IncomingMessage } from "node:http";
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";

export type { Duplex, IncomingMessage };

export type HeaderValue = string | number | readonly string[];
export type ResponseHeaders = Readonly<Record<string, HeaderValue | undefined>>;
/** Lower-case names, as node gives them. */
export type RequestHeaders = Readonly<Record<string, string | string[] | undefined>>;

export interface ServerRequest {
  readonly method: string;
  /** The request target as it came: path and query, nothing decoded. */
  readonly target: string;
  readonly headers: RequestHeaders;
  readonly http2: boolean;
  readonly remoteAddress: string;
  /** The same object for all requests of a connection. */
  readonly connection: object;
  /** DER of the leaf the client presented. Not verified. */
  readonly clientCertificate: Uint8Array | undefined;
  /** Rejects when the client goes away before the end. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Aborts when the response is over or the client has gone. */
  readonly signal: AbortSignal;
}

export interface ServerResponse {
  readonly headSent: boolean;
  head(status: number, headers: ResponseHeaders): void;
  /** Sends the head before there is a body, so that a watcher knows that it watches. */
  flushHead(): void;
  /** False: enough is buffered; wait for `drained` before more. */
  write(chunk: Uint8Array | string): boolean;
  /** Bytes accepted by `write` that the client has not taken yet. */
  readonly pendingBytes: number;
  /** Resolves when writing may go on, or when the response is over. */
  drained(): Promise<void>;
  end(chunk?: Uint8Array | string): void;
  /** Cuts the response so that the client sees it is incomplete. */
  destroy(): void;
}

/** An HTTP/1.1 upgrade: `socket` is ours, unanswered; `head` are bytes that came behind the request. */
export interface ServerUpgrade {
  readonly request: ServerRequest;
  readonly socket: Duplex;
  readonly head: Uint8Array;
  /** For libraries that want node's own request (ws). */
  readonly message: IncomingMessage;
}

export interface TlsMaterial {
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Names sent to clients as acceptable issuers of their certificates. */
  readonly clientCaPem?: string;
}

export interface HttpsServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly tls: TlsMaterial;
  readonly log: Logger;
  /** Open connections at one time; more are closed at once. Default 2000. */
  readonly maxConnections?: number;
}

export interface HttpsHandlers {
  /** Must not reject. */
  request(request: ServerRequest, response: ServerResponse): Promise<void>;
  upgrade(upgrade: ServerUpgrade): Promise<void>;
}

export interface HttpsServer {
  readonly host: string;
  readonly port: number;
  /** For connections from now on. */
  setTls(tls: TlsMaterial): void;
  /** Stops listening, asks clients to leave, and cuts whoever is still there after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

/** Streams one connection may have open: upstream's default. */
const maxConcurrentStreams = 250;
/** Header bytes of one request: Go's default is 1 MiB; no Kubernetes client comes near 64 KiB. */
const maxHeaderBytes = 64 * 1024;

/** Listens. Rejects with HTTPS_LISTEN when the address is taken or may not be used. */
export async function openHttpsServer(options: HttpsServerOptions, handlers: HttpsHandlers): Promise<HttpsServer> {
  const { log } = options;
  const server: Http2SecureServer = createSecureServer({
    allowHTTP1: true,
    requestCert: true,
    rejectUnauthorized: false,
    minVersion: "TLSv1.2",
    ALPNProtocols: ["h2", "http/1.1"],
    maxHeaderListPairs: 256,
    maxSessionMemory: 32,
    maxSessionInvalidFrames: 100,
    maxSessionRejectedStreams: 100,
    unknownProtocolTimeout: 10_000,
    settings: { maxConcurrentStreams, maxHeaderListSize: maxHeaderBytes, initialWindowSize: 1024 * 1024 },
    ...contextOf(options.tls),
  });
  const sockets = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  const maxConnections = options.maxConnections ?? 2000;
  server.on("connection", (socket: Socket) => {
    if (sockets.size >= maxConnections) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    // Small answers must not wait for Nagle's timer.
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
  });
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", (error) => log.debug("http2 session failed", { error: messageOf(error) }));
  });
  server.on("tlsClientError", (error) => log.debug("TLS handshake failed", { error: messageOf(error) }));
  server.on("sessionError", (error) => log.debug("http2 session failed", { error: messageOf(error) }));
  server.on("clientError", (error: Error, socket: Socket) => {
    log.debug("bad request", { error: messageOf(error) });
    if (socket.writable)
      socket.end("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request");
    else socket.destroy();
  });
  server.on("request", (req: Http2ServerRequest, res: Http2ServerResponse) => {
    const response = new NodeResponse(res);
    handlers
      .request(requestOf(req as unknown as IncomingMessage, response.signal), response)
      .catch((error: unknown) => {
        log.error("request handler failed", { error: messageOf(error) });
        response.destroy();
      });
  });
  server.on("upgrade", (message: IncomingMessage, socket: Duplex, head: Buffer) => {
    const gone = new AbortController();
    socket.on("close", () => gone.abort(new AppError("HTTPS_GONE", "connection closed")));
    socket.on("error", () => socket.destroy());
    const request = requestOf(message, gone.signal);
    handlers.upgrade({ request, socket, head, message }).catch((error: unknown) => {
      log.error("upgrade handler failed", { error: messageOf(error) });
      socket.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(
        new AppError(
          "HTTPS_LISTEN",
          `cannot listen on ${options.host}:${options.port}: ${hasCode(cause, "EADDRINUSE") ? "another program has the port" : cause.message}`,
          {},
          { cause },
        ),
      );
    server.once("error", failed);
    server.listen({ host: options.host, port: options.port, backlog: 511 }, () => {
      server.off("error", failed);
      server.on("error", (error) => log.error("https server failed", { error: messageOf(error) }));
      resolve();
    });
  });
  const address = server.address() as AddressInfo;
  return {
    host: address.address,
    port: address.port,
    setTls: (tls) => server.setSecureContext(contextOf(tls)),
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const session of sessions) session.close();
      // Idle HTTP/1.1 connections would hold `close` for their whole keep-alive time.
      (server as unknown as { closeIdleConnections?: () => void }).closeIdleConnections?.();
      const timer = setTimeout(() => {
        for (const session of sessions) session.destroy();
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** By connection: making the certificate an object costs as much as a small request. */
const certificates = new WeakMap<object, Uint8Array | "none">();

function certificateOf(message: IncomingMessage): Uint8Array | undefined {
  const { stream, socket } = message as unknown as { stream?: { session?: object }; socket: TLSSocket };
  // On HTTP/2 `socket` is a proxy of its own per stream; asking it for the certificate is allowed.
  const connection = message.httpVersionMajor === 2 ? stream?.session : socket;
  if (!connection) return undefined;
  let known = certificates.get(connection);
  if (known === undefined) {
    const raw = socket.getPeerX509Certificate?.()?.raw;
    known = raw ? new Uint8Array(raw) : "none";
    certificates.set(connection, known);
  }
  return known === "none" ? undefined : known;
}

function contextOf(tls: TlsMaterial) {
  return { cert: tls.certificatePem, key: tls.keyPem, ...(tls.clientCaPem ? { ca: tls.clientCaPem } : {}) };
}

function requestOf(message: IncomingMessage, signal: AbortSignal): ServerRequest {
  const socket = message.socket as TLSSocket;
  return {
    method: message.method ?? "GET",
    target: message.url ?? "/",
    headers: message.headers,
    http2: message.httpVersionMajor === 2,
    remoteAddress: socket.remoteAddress ?? "",
    connection: (message as { readonly stream?: { readonly session?: object } }).stream?.session ?? socket,
    get clientCertificate() {
      return certificateOf(message);
    },
    body: message,
    signal,
  };
}

class NodeResponse implements ServerResponse {
  readonly #response: Http2ServerResponse;
  readonly #over = new AbortController();
  readonly signal: AbortSignal;
  #waiting: (() => void)[] = [];
  #ended = false;
  constructor(response: Http2ServerResponse) {
    this.#response = response;
    this.signal = this.#over.signal;
    const wake = () => {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    };
    response.on("drain", wake);
    response.on("error", () => this.destroy());
    response.on("close", () => {
      this.#over.abort(new AppError("HTTPS_GONE", "the response is over"));
      wake();
    });
  }
  get headSent(): boolean {
    return this.#response.headersSent;
  }
  get pendingBytes(): number {
    return this.#response.writableLength;
  }
  head(status: number, headers: ResponseHeaders): void {
    if (this.#response.headersSent || this.#ended || this.signal.aborted) return;
    const out: Record<string, string | number | string[]> = {};
    for (const [name, value] of Object.entries(headers)) {
      if (value !== undefined) out[name] = typeof value === "object" ? [...value] : value;
    }
    this.#response.writeHead(status, out);
  }
  flushHead(): void {
    if (!this.signal.aborted) (this.#response as unknown as { flushHeaders(): void }).flushHeaders();
  }
  write(chunk: Uint8Array | string): boolean {
    if (this.#ended || this.signal.aborted) return true;
    return this.#response.write(chunk as Buffer);
  }
  async drained(): Promise<void> {
    if (this.signal.aborted || !this.#response.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
    });
  }
  end(chunk?: Uint8Array | string): void {
    if (this.#ended || this.signal.aborted) return;
    this.#ended = true;
    if (chunk === undefined) this.#response.end();
    else this.#response.end(chunk as Buffer);
  }
  destroy(): void {
    const stream = this.#response.stream as { destroy?: () => void } | undefined;
    if (stream?.destroy) stream.destroy();
    else this.#response.destroy();
  }
}
