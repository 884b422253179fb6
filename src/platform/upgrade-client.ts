// One HTTP/1.1 request on a connection of its own, that may turn into another protocol: how the API server reaches
// nodes and the node agent reaches containerd's stream server. No redirects, no retries, no keep-alive.
import type { X509Certificate } from "node:crypto";
import * as http from "node:http";
import * as https from "node:https";
import { Socket } from "node:net";
import { Duplex, Readable } from "node:stream";
import { AppError, messageOf } from "#base/errors.ts";
import { connectTls, identityCheck } from "./key-trust.ts";

export interface UpgradeTls {
  /** PEM of the authorities that may have signed the other side's certificate. */
  readonly ca?: string;
  /** Whoever answers will do: for servers whose certificate nobody can know. */
  readonly isUnchecked?: true;
  /** See HttpClientOptions; heeded by WebSockets (raw-websocket.ts) and over connections that are there. */
  readonly trust?: "keys" | "dates";
  /** Who it must be, in place of the check for a name: what is wrong with the certificate that was shown. */
  readonly identity?: (leaf: X509Certificate) => string | undefined;
  readonly cert?: string;
  readonly key?: string;
  /** Name to check in the certificate where it differs from the host. */
  readonly serverName?: string;
}

export interface UpgradeTarget {
  readonly host: string;
  readonly port: number;
  readonly tls?: UpgradeTls;
  /** An open connection to it, over which everything goes. */
  readonly socket?: Duplex;
}

export interface UpgradeRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  /** A list becomes one header line per value. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  /** A stream is sent as it is read. */
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
  /** From the start until the head of the answer is there, or only until the connection stands. */
  readonly timeoutMs: number;
  readonly timeoutOf?: "head" | "connection";
}

export type UpgradeHeaders = Readonly<Record<string, string | string[] | undefined>>;

export interface PlainAnswer {
  readonly status: number;
  readonly headers: UpgradeHeaders;
  /** Breaking out of the loop closes the connection. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface UpgradedAnswer {
  readonly status: 101;
  readonly headers: UpgradeHeaders;
  readonly socket: Duplex;
  /** Bytes of the new protocol that came with the head. */
  readonly head: Uint8Array;
}

export const isUpgraded = (answer: PlainAnswer | UpgradedAnswer): answer is UpgradedAnswer =>
  answer.status === 101 && "socket" in answer;

const trustOf = (by: UpgradeTls) => ({
  ...(by.ca === undefined ? {} : { ca: by.ca }),
  rejectUnauthorized: by.isUnchecked !== true,
  minVersion: "TLSv1.2" as const,
  ...(by.cert === undefined ? {} : { cert: by.cert }),
  ...(by.key === undefined ? {} : { key: by.key }),
  ...(by.serverName === undefined ? {} : { servername: by.serverName }),
  ...(by.identity === undefined ? {} : { checkServerIdentity: identityCheck(by.identity) }),
});

/** A connection of its own, or the one that is there. */
function wayOf({ host, socket }: UpgradeTarget, by?: UpgradeTls) {
  if (!socket) {
    return {
      agent: by ? new https.Agent({ keepAlive: false, maxCachedSessions: 0 }) : new http.Agent({ keepAlive: false }),
    };
  }
  if (!by) return { createConnection: () => socket as Socket };
  const under = socket instanceof Socket ? socket : new Underlay(socket);
  const open = connectTls({ host, socket: under, ...trustOf(by) }, by);
  // TLS does not hear of the end of what it runs over.
  under.once("close", () => open.destroy(under.errored ?? undefined));
  return { createConnection: () => open as Socket };
}

/**
 * What TLS runs over where that is no socket of the system. TLS throws away what it has not handed on yet when this closes, so
 * a stream that closes at its end closes here only when TLS has let go of it.
 */
class Underlay extends Duplex {
  readonly #inner: Duplex;
  constructor(inner: Duplex) {
    super();
    this.#inner = inner;
    inner.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) inner.pause();
    });
    inner.on("end", () => this.push(null));
    inner.on("error", (error) => this.destroy(error));
    inner.on("close", () => {
      if (!inner.readableEnded) this.destroy(inner.errored ?? new Error("the connection was cut"));
    });
  }
  override _read(): void {
    this.#inner.resume();
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // Nobody takes it any more; what came is still to be read.
    if (this.#inner.readableEnded) done();
    else this.#inner.write(chunk, (error) => done(this.#inner.readableEnded ? null : error));
  }
  override _final(done: (error?: Error | null) => void): void {
    if (this.#inner.readableEnded) done();
    else this.#inner.end(() => done());
  }
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#inner.destroy(error ?? undefined);
    done(error);
  }
}

/**
 * Rejects with UPGRADE_FAILED (`isConnected`: the request may have been sent), UPGRADE_TIMEOUT or the signal's reason. After the
 * head the signal still cuts the body.
 */
export function openUpgrade(
  to: UpgradeTarget,
  request: UpgradeRequest,
  signal: AbortSignal,
): Promise<PlainAnswer | UpgradedAnswer> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const what = `${request.method} ${to.host}:${to.port}`;
    const { body } = request;
    const stream = body !== undefined && Symbol.asyncIterator in body ? body : undefined;
    const bytes = stream ? undefined : (body as Uint8Array | undefined);
    const common = {
      host: to.host,
      port: to.port,
      method: request.method,
      path: request.target,
      headers: {
        ...(request.headers as Record<string, string | string[]>),
        ...(bytes === undefined ? {} : { "content-length": String(bytes.length) }),
        // Node would not frame the bodies of some methods.
        ...(stream && request.headers["content-length"] === undefined ? { "transfer-encoding": "chunked" } : {}),
      },
    };
    const outgoing = to.tls
      ? https.request({ ...common, ...trustOf(to.tls), ...wayOf(to, to.tls) })
      : http.request({ ...common, ...wayOf(to) });
    const timer = setTimeout(
      () => outgoing.destroy(new AppError("UPGRADE_TIMEOUT", `${what}: no answer within ${request.timeoutMs} ms`)),
      request.timeoutMs,
    );
    const onAbort = () => outgoing.destroy(signal.reason instanceof Error ? signal.reason : new Error("aborted"));
    signal.addEventListener("abort", onAbort, { once: true });
    const settled = () => clearTimeout(timer);
    let isConnected = false;
    outgoing.on("socket", (socket) =>
      socket.once(to.tls ? "secureConnect" : "connect", () => {
        isConnected = true;
      }),
    );
    outgoing.on("close", () => {
      settled();
      signal.removeEventListener("abort", onAbort);
    });
    outgoing.on("error", (cause) => {
      settled();
      if (signal.aborted) reject(signal.reason);
      // What becomes of a tunnel is to this what a socket's errors are.
      else if (cause instanceof AppError && !cause.code.startsWith("TUNNEL_")) reject(cause);
      else reject(new AppError("UPGRADE_FAILED", `${what}: ${messageOf(cause)}`, { isConnected }, { cause }));
    });
    outgoing.on("response", (incoming) => {
      settled();
      resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: incoming });
    });
    outgoing.on("upgrade", (incoming: http.IncomingMessage, socket: Duplex, head: Buffer) => {
      settled();
      signal.removeEventListener("abort", onAbort);
      resolve({ status: 101, headers: incoming.headers, socket, head });
    });
    if (request.timeoutOf === "connection") {
      outgoing.on("socket", (socket) => socket.once(to.tls ? "secureConnect" : "connect", settled));
    }
    if (!stream) {
      outgoing.end(bytes);
      return;
    }
    const chunks = Readable.from(stream, { objectMode: false });
    chunks.on("error", (error) => outgoing.destroy(error));
    outgoing.on("close", () => chunks.destroy());
    chunks.pipe(outgoing);
  });
}
