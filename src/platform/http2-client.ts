// Requests to one server over one HTTP/2 connection, however many watches run: the door through which an agent speaks to its
// API server. A connection costs both ends far more than a stream, and one that is dead is found out once for all.
//
//   send ─▶ connection (shared; opened when needed) ─▶ stream      check, or no answer for 2 s ─▶ PING ─▶ silence: all streams fail
//
// A connection that is lost is not a failure at once: who says for how long it has patience is held until there is another.
// One that never was there fails at once. Servers without HTTP/2 get HTTP/1.1. Upstream counterpart: client-go's transport.
import * as http2 from "node:http2";
import { Readable } from "node:stream";
import * as tls from "node:tls";
import { AppError, messageOf } from "#base/errors.ts";
import { machineAddresses } from "./host.ts";
import {
  createHttpClient,
  type HttpClient,
  type HttpClientOptions,
  type HttpRequest,
  type HttpResponse,
} from "./http-client.ts";
import { connectTls } from "./key-trust.ts";
import { connectPatiently } from "./patient-connect.ts";
import { systemRandom } from "./random.ts";

export interface Http2Client extends HttpClient {
  /** Somebody has reason to doubt the connection: where nothing answers soon, everything on it fails, and another is made. */
  check(): void;
  /** Somebody knows that the server is within reach again: whoever pauses before the next attempt makes it now. */
  hurry(): void;
}

const connectTimeoutMs = 5000;
const handshakeTimeoutMs = 10_000;
/** How long a request waits for its head before the connection is doubted… */
const doubtMs = 2000;
/** …and how long the other end has to answer then. */
const answerMs = 1000;
/** Beside watches that are silent, as client-go. */
const idlePingMs = 30_000;
/** From one attempt to the next while somebody waits: half of it for certain. One that took as long is followed at once. */
const retry = { minMs: 100, maxMs: 500 } as const;
/** What a server may send ahead of a reader, for one stream and all: large lists over long paths. */
const streamWindowBytes = 1024 * 1024;
const connectionWindowBytes = 4 * 1024 * 1024;
/** node's own bound of what a connection holds, in MB; its default is less than two windows. */
const maxSessionMemory = 32;

const { HTTP2_HEADER_METHOD, HTTP2_HEADER_PATH, HTTP2_HEADER_STATUS, NGHTTP2_CANCEL } = http2.constants;

export function createHttp2Client(options: HttpClientOptions): Http2Client {
  const base = new URL(options.baseUrl);
  const host = base.hostname.replace(/^\[|\]$/g, "");
  const port = Number(base.port || 443);
  const prefix = base.pathname.replace(/\/$/, "");
  const context = tls.createSecureContext({
    minVersion: "TLSv1.2",
    ...(options.ca === undefined ? {} : { ca: Buffer.from(options.ca) }),
    ...(options.cert === undefined ? {} : { cert: Buffer.from(options.cert) }),
    ...(options.key === undefined ? {} : { key: Buffer.from(options.key) }),
  });
  let current: Connection | undefined;
  let connecting: Promise<Connection | HttpClient> | undefined;
  let fallback: HttpClient | undefined;
  let failures = 0;
  let attemptedMs = 0;
  let wasConnected = false;
  let isClosed = false;
  const closing = new AbortController();
  /** Ends a pause. */
  const pausing = new Set<() => void>();
  const hurry = () => {
    for (const over of [...pausing]) over();
  };
  const pauseFor = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const over = () => {
        clearTimeout(timer);
        pausing.delete(over);
        resolve();
      };
      const timer = setTimeout(over, ms);
      pausing.add(over);
    });

  const open = async (): Promise<Connection | HttpClient> => {
    const tcp = options.dial
      ? await options.dial(closing.signal)
      : await connectPatiently({ host, port, timeoutMs: connectTimeoutMs }, closing.signal);
    tcp.setKeepAlive(true, idlePingMs);
    const settings = {
      ...{ socket: tcp, host, secureContext: context, ALPNProtocols: ["h2", "http/1.1"] },
      rejectUnauthorized: options.insecureSkipTlsVerify !== true,
      ...(options.serverName === undefined ? {} : { servername: options.serverName }),
    };
    const secure = connectTls(settings, options);
    await handshake(secure, closing.signal);
    if (secure.alpnProtocol !== "h2") {
      secure.destroy();
      fallback = createHttpClient(options);
      return fallback;
    }
    const connection: Connection = new Connection(base.origin, secure, () => {
      if (current === connection) current = undefined;
    });
    current = connection;
    return connection;
  };

  /** The one there is, or that everybody waits for. */
  const connection = (): Promise<Connection | HttpClient> => {
    if (connecting) return connecting;
    attemptedMs = performance.now();
    connecting = open()
      .then(
        (opened) => {
          failures = 0;
          wasConnected = true;
          return opened;
        },
        (error: unknown) => {
          failures++;
          throw error;
        },
      )
      .finally(() => {
        connecting = undefined;
      });
    return connecting;
  };

  return {
    async send(request, signal) {
      const what = `${request.method} ${base.origin}${prefix}${request.path.split("?")[0]}`;
      const endMs = performance.now() + (request.patienceMs ?? 0);
      for (;;) {
        if (signal?.aborted) throw signal.reason;
        if (isClosed) throw new AppError("HTTP_FAILED", `${what}: the client is closed`);
        let way: Connection | HttpClient;
        try {
          way = fallback ?? (current?.isUsable ? current : await abortable(connection(), signal));
        } catch (cause) {
          if (signal?.aborted) throw signal.reason;
          if (!wasConnected || isClosed || performance.now() >= endMs)
            throw new AppError("HTTP_FAILED", `${what}: ${messageOf(cause)}`, {}, { cause });
          const wholeMs = Math.min(retry.maxMs, retry.minMs * 2 ** Math.min(failures, 8));
          const leftMs = attemptedMs + wholeMs * (0.5 + systemRandom.float() / 2) - performance.now();
          if (leftMs > 0) await abortable(pauseFor(leftMs), signal);
          continue;
        }
        return way instanceof Connection ? way.send(request, prefix, what, signal) : way.send(request, signal);
      }
    },
    check: () => current?.ask(),
    hurry,
    close() {
      isClosed = true;
      closing.abort(new AppError("HTTP_FAILED", "the client is closed"));
      hurry();
      current?.end("the client is closed");
      fallback?.close();
    },
  };
}

class Connection {
  readonly #origin: string;
  readonly #session: http2.ClientHttp2Session;
  readonly #localAddress: string | undefined;
  #isAsking = false;

  constructor(origin: string, socket: tls.TLSSocket, leaving: () => void) {
    this.#origin = origin;
    this.#localAddress = socket.localAddress;
    this.#session = http2.connect(origin, {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: streamWindowBytes },
      maxSessionMemory,
    });
    const session = this.#session;
    session.on("connect", () => session.setLocalWindowSize(connectionWindowBytes));
    // Of its streams each tells its own reader.
    session.on("error", () => {});
    session.on("goaway", leaving);
    const pings = setInterval(() => this.ask(), idlePingMs);
    session.on("close", () => {
      clearInterval(pings);
      leaving();
    });
  }

  /** False from the moment that it begins to end. */
  get isUsable(): boolean {
    return !this.#session.closed && !this.#session.destroyed;
  }

  ask(): void {
    const session = this.#session;
    if (this.#isAsking || !this.isUsable) return;
    if (this.#localAddress !== undefined && !hasAddress(this.#localAddress)) {
      // Nothing will ever arrive there.
      this.end("this machine's address has changed");
      return;
    }
    this.#isAsking = true;
    // An answer that has come while this process did not run is read before it is judged.
    const timer = setTimeout(() => setImmediate(() => this.#isAsking && this.end("silent")), answerMs);
    session.ping(() => {
      this.#isAsking = false;
      clearTimeout(timer);
    });
  }

  end(why: string): void {
    this.#isAsking = false;
    this.#session.destroy(new AppError("HTTP_FAILED", `${this.#origin}: ${why}`));
  }

  send(request: HttpRequest, prefix: string, what: string, signal: AbortSignal | undefined): Promise<HttpResponse> {
    return new Promise((resolve, reject) => {
      const { body } = request;
      const chunks = typeof body === "object" && "chunks" in body ? body : undefined;
      const bytes = chunks ? undefined : (body as string | Uint8Array | undefined);
      const sizeBytes = chunks?.sizeBytes ?? (bytes === undefined ? undefined : Buffer.byteLength(bytes));
      const failed = (cause: unknown): unknown => {
        if (signal?.aborted) return signal.reason;
        if (cause instanceof AppError && cause.code === "HTTP_TIMEOUT") return cause;
        return new AppError("HTTP_FAILED", `${what}: ${messageOf(cause)}`, {}, { cause });
      };
      let stream: http2.ClientHttp2Stream;
      try {
        stream = this.#session.request(
          {
            ...request.headers,
            ...(sizeBytes === undefined ? {} : { "content-length": String(sizeBytes) }),
            [HTTP2_HEADER_METHOD]: request.method,
            [HTTP2_HEADER_PATH]: prefix + request.path,
          },
          { endStream: body === undefined },
        );
      } catch (cause) {
        // It ended since it was looked at.
        reject(failed(cause));
        return;
      }
      const doubt = setTimeout(() => this.ask(), doubtMs);
      const onAbort = () => stream.destroy(signal?.reason as Error);
      signal?.addEventListener("abort", onAbort, { once: true });
      stream.setTimeout(request.idleTimeoutMs, () =>
        stream.destroy(new AppError("HTTP_TIMEOUT", `${what}: silent for ${request.idleTimeoutMs} ms`)),
      );
      stream.on("error", (cause) => reject(failed(cause)));
      stream.on("close", () => {
        clearTimeout(doubt);
        signal?.removeEventListener("abort", onAbort);
        // Where it was answered this says nothing any more.
        reject(failed("closed before there was an answer"));
      });
      stream.on("response", (headers) => {
        clearTimeout(doubt);
        resolve({
          status: Number(headers[HTTP2_HEADER_STATUS] ?? 0),
          headers,
          body: stream,
          destroy: () => {
            stream.close(NGHTTP2_CANCEL);
            stream.destroy();
          },
        });
      });
      if (chunks) {
        const source = Readable.from(chunks.chunks, { objectMode: false });
        source.on("error", (error) => stream.destroy(error));
        stream.on("close", () => source.destroy());
        source.pipe(stream);
      } else if (bytes !== undefined) stream.end(bytes);
    });
  }
}

/** Whether this machine still has it; an IPv4 one may be written as IPv6. */
function hasAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, "").split("%")[0]!;
  const all = machineAddresses();
  // None at all: they cannot be read.
  return all.length === 0 || /^127\./.test(plain) || all.includes(plain);
}

/** Rejects when it fails, when nobody answers in time, or with the signal's reason. */
function handshake(socket: tls.TLSSocket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(new Error("no TLS handshake in time")), handshakeTimeoutMs);
    const onAbort = () => socket.destroy(new Error("aborted"));
    signal.addEventListener("abort", onAbort, { once: true });
    const settled = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    };
    socket.once("error", reject);
    socket.once("close", () => {
      settled();
      reject(new Error("closed in the TLS handshake"));
    });
    socket.once("secureConnect", () => {
      // Whose certificate is not believed is destroyed here already (key-trust.ts); its error follows.
      if (socket.destroyed) return;
      settled();
      socket.removeListener("error", reject);
      resolve();
    });
    if (signal.aborted) onAbort();
  });
}

function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const settled = () => signal.removeEventListener("abort", onAbort);
    work.then(
      (value) => {
        settled();
        resolve(value);
      },
      (error: unknown) => {
        settled();
        reject(error);
      },
    );
    if (signal.aborted) onAbort();
  });
}
