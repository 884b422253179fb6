// The TLS door: one port for HTTP/2, HTTP/1.1 and its upgrades (WebSocket, SPDY), with client certificates asked for
// but not demanded. Certificates are handed on as presented: whoever authenticates verifies the chain. One handler
// serves both protocols: HTTP/2 by our own state machine (http2-exchange.ts), which costs a fraction of node:http2's streams
// (docs/adr/2026-11-21-own-http2.md), HTTP/1.1 by node:https.
import { constants } from "node:crypto";
import type { IncomingMessage, ServerResponse as NodeServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { HeaderList } from "#wire/http2/hpack.ts";
import { SendBuffers } from "#wire/http2/send-buffers.ts";
import type { Http2Options } from "#wire/http2/server-connection.ts";
import {
  answeredError,
  beginExchange,
  goneError,
  Over,
  type PeerConnection,
  type RequestHead,
  refuseExchange,
  requestHead,
} from "./http2-exchange.ts";
import { Http2Socket, tickMs } from "./http2-socket.ts";

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
  /** DER of what it sent along with it. */
  clientIntermediates?(): readonly Uint8Array[];
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
  /** Open connections at one time; more are closed at once. Default 5000. */
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

/** Header bytes of one request: Go's default is 1 MiB; no Kubernetes client comes near 64 KiB. */
const maxHeaderBytes = 64 * 1024;
const http2Options: Omit<Http2Options, "buffers"> = {
  // Upstream's default, and its window: what a client may send before somebody reads it.
  maxConcurrentStreams: 250,
  streamWindowBytes: 256 * 1024,
  connectionWindowBytes: 1024 * 1024,
  maxHeaderBytes,
  maxQueuedBytes: 256 * 1024 * 1024,
};
/** The first that the client knows too. */
const offered = ["h2", "http/1.1"] as const;
const keepAliveMs = 30_000;
/** Upstream's. Clients that keep HTTP/1.1 connections would else write into ones that we are closing. */
const idleConnectionMs = 90_000;
/** A thousand nodes have two each, for the API and the tunnel, and those of k3s more. */
const defaultMaxConnections = 5000;
/** Connections of a fleet whose server did not run for some seconds; the kernel's own bound may be lower. */
const maxBacklog = 4096;
/** From here on memory counts for more than the speed of single large answers. */
const crowdedFrom = 500;

/** Listens. Rejects with HTTPS_LISTEN when the address is taken or may not be used. */
export async function openHttpsServer(options: HttpsServerOptions, handlers: HttpsHandlers): Promise<HttpsServer> {
  const { log } = options;
  const server = createServer({
    requestCert: true,
    rejectUnauthorized: false,
    // A list would be copied for each connection, and each copy would hold the block of memory that it was cut from.
    ALPNCallback: ({ protocols }) => offered.find((protocol) => protocols.includes(protocol)),
    maxHeaderSize: maxHeaderBytes,
    keepAliveTimeout: idleConnectionMs,
    ...contextOf(options.tls),
  });
  const sockets = new Set<Socket>();
  const connections = new Set<Http2Socket>();
  const buffers = new SendBuffers();
  const maxConnections = options.maxConnections ?? defaultMaxConnections;
  server.on("connection", (socket: Socket) => {
    if (sockets.size >= maxConnections) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    // Small answers must not wait for Nagle's timer.
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
  });
  const acceptHttp2 = (socket: TLSSocket) => {
    const request = requestsOf(socket, log, handlers);
    const over = () => connections.delete(connection);
    const connection: Http2Socket = new Http2Socket(
      socket,
      { ...http2Options, buffers, log, what: "HTTP/2", isCrowded: () => sockets.size >= crowdedFrom },
      { request, over },
    );
    connections.add(connection);
  };
  // Node's own listener takes what is not HTTP/2.
  const acceptHttp1 = server.listeners("secureConnection") as ((this: typeof server, socket: TLSSocket) => void)[];
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket: TLSSocket) => {
    if (socket.alpnProtocol === "h2") acceptHttp2(socket);
    else for (const accept of acceptHttp1) accept.call(server, socket);
  });
  // Of failed handshakes too.
  server.on("clientError", (error: Error & { readonly code?: string }, socket: Duplex) => {
    log.debug("bad request", { error: messageOf(error) });
    if (socket.writable && /^(?:HPE_|ERR_HTTP_)/.test(error.code ?? ""))
      socket.end("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request");
    else socket.destroy();
  });
  server.on("request", (message: IncomingMessage, answer: NodeServerResponse) => {
    const response = new NodeResponse(answer);
    const request = requestOf(message, response.over);
    handlers.request(request, response).catch((error: unknown) => {
      log.error("request handler failed", { error: messageOf(error) });
      response.destroy();
    });
  });
  server.on("upgrade", (message: IncomingMessage, socket: Duplex, head: Buffer) => {
    const over = new Over();
    socket.on("close", () => over.end(goneError));
    socket.on("error", () => socket.destroy());
    const request = requestOf(message, over);
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
    server.listen({ host: options.host, port: options.port, backlog: maxBacklog }, () => {
      server.off("error", failed);
      server.on("error", (error) => log.error("https server failed", { error: messageOf(error) }));
      resolve();
    });
  });
  const ticks = setInterval(() => {
    for (const connection of connections) connection.tick();
  }, tickMs);
  ticks.unref();
  const address = server.address() as AddressInfo;
  return {
    host: address.address,
    port: address.port,
    setTls: (tls) => server.setSecureContext(contextOf(tls)),
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const connection of connections) connection.leave();
      // Idle HTTP/1.1 connections would hold `close` for their whole keep-alive time.
      server.closeIdleConnections();
      const timer = setTimeout(() => {
        for (const connection of connections) connection.destroy();
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
      clearInterval(ticks);
    },
  };
}

/** Requests of one connection as exchanges. Clients often send the same head again. */
function requestsOf(socket: TLSSocket, log: Logger, handlers: HttpsHandlers) {
  const peer = new Peer(socket, log);
  const handle: HttpsHandlers["request"] = (request, response) => handlers.request(request, response);
  let lastList: HeaderList | undefined;
  let lastHead: RequestHead | undefined;
  return (stream: Parameters<typeof beginExchange>[0], list: HeaderList) => {
    if (list !== lastList) {
      lastHead = requestHead(list);
      lastList = list;
    }
    return lastHead ? beginExchange(stream, lastHead, peer, handle) : refuseExchange(stream);
  };
}

/** The other side of a connection. Making its certificate an object costs as much as a small request: once is enough. */
class Peer implements PeerConnection {
  readonly log: Logger;
  readonly remoteAddress: string;
  readonly #socket: TLSSocket;
  #presented: Presented | undefined;

  constructor(socket: TLSSocket, log: Logger) {
    this.#socket = socket;
    this.log = log;
    this.remoteAddress = socket.remoteAddress ?? "";
  }

  get clientCertificate(): Uint8Array | undefined {
    this.#presented ??= presentedOn(this.#socket);
    return this.#presented.leaf;
  }

  clientIntermediates(): readonly Uint8Array[] {
    this.#presented ??= presentedOn(this.#socket);
    return this.#presented.others;
  }
}

interface Presented {
  readonly leaf: Uint8Array | undefined;
  /** Without those that nobody else vouches for: on an ordinary connection there are no others. */
  readonly others: readonly Uint8Array[];
}

const nobody: Presented = { leaf: undefined, others: [] };
/** With a certificate in a handshake: more than any chain of authorities that each vouched for the next. */
const maxOthers = 32;

/** To be asked once: what was sent along is with the first object that node makes of a connection's certificate. */
function presentedOn(socket: TLSSocket): Presented {
  const leaf = socket.getPeerX509Certificate?.();
  if (!leaf) return nobody;
  const others: Uint8Array[] = [];
  let at = leaf.issuerCertificate;
  for (let i = 0; at && i < maxOthers; i++, at = at.issuerCertificate) {
    if (!at.checkIssued(at)) others.push(new Uint8Array(at.raw));
  }
  return { leaf: new Uint8Array(leaf.raw), others };
}

/** Of HTTP/1.1 connections. */
const presented = new WeakMap<object, Presented>();

function presentedBy(socket: TLSSocket): Presented {
  let known = presented.get(socket);
  if (!known) {
    known = presentedOn(socket);
    presented.set(socket, known);
  }
  return known;
}

/** All of it: what a later context does not say is node's default again. */
function contextOf(tls: TlsMaterial) {
  return {
    ...{ cert: tls.certificatePem, key: tls.keyPem, ...(tls.clientCaPem ? { ca: tls.clientCaPem } : {}) },
    minVersion: "TLSv1.2" as const,
    // Two sessions for each connection, with the client's certificate, for clients that hardly ever use them.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

function requestOf(message: IncomingMessage, over: Over): ServerRequest {
  const socket = message.socket as TLSSocket;
  return {
    method: message.method ?? "GET",
    target: message.url ?? "/",
    headers: message.headers,
    http2: false,
    remoteAddress: socket.remoteAddress ?? "",
    connection: socket,
    get clientCertificate() {
      return presentedBy(socket).leaf;
    },
    clientIntermediates: () => presentedBy(socket).others,
    body: message,
    get signal() {
      return over.signal;
    },
  };
}

/** Of HTTP/1.1. */
class NodeResponse implements ServerResponse {
  readonly over = new Over();
  readonly #response: NodeServerResponse;
  #waiting: (() => void)[] = [];
  #ended = false;
  constructor(response: NodeServerResponse) {
    this.#response = response;
    const wake = () => {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    };
    response.on("drain", wake);
    response.on("error", () => this.destroy());
    response.on("close", () => {
      this.over.end(answeredError);
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
    if (this.#response.headersSent || this.#ended || this.over.isOver) return;
    const out: Record<string, string | number | string[]> = {};
    for (const [name, value] of Object.entries(headers)) {
      if (value !== undefined) out[name] = typeof value === "object" ? [...value] : value;
    }
    this.#response.writeHead(status, out);
  }
  flushHead(): void {
    if (!this.over.isOver) this.#response.flushHeaders();
  }
  write(chunk: Uint8Array | string): boolean {
    if (this.#ended || this.over.isOver) return true;
    return this.#response.write(chunk);
  }
  async drained(): Promise<void> {
    if (this.over.isOver || !this.#response.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
    });
  }
  end(chunk?: Uint8Array | string): void {
    if (this.#ended || this.over.isOver) return;
    this.#ended = true;
    if (chunk === undefined) this.#response.end();
    else this.#response.end(chunk);
  }
  destroy(): void {
    this.#response.destroy();
  }
}
