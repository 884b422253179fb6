// gRPC calls over HTTP/2, to a unix socket (containerd) or a TCP address (gRPC probes, etcd), clear or with TLS. One
// session, opened on first use and again after it broke; a call in flight when it breaks fails with UNAVAILABLE, one that
// never left this side with NotConnectedError. Every unary call has a deadline; messages are bounded; with `keepalive` a
// peer that is gone without a word is noticed. Counterpart: google.golang.org/grpc clients.
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from "node:http2";
import * as net from "node:net";
import * as tls from "node:tls";
import { encodeFrame, encodeTimeout, FrameReader, GrpcError, statusOf } from "#wire/grpc.ts";

export interface GrpcClientOptions {
  readonly target: { readonly socketPath: string } | { readonly host: string; readonly port: number };
  /** Extra request headers, e.g. `containerd-namespace`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Absent: clear text. A function is asked for each connection, for certificates that are replaced. */
  readonly tls?: GrpcClientTls | (() => Promise<GrpcClientTls>) | undefined;
  readonly connectTimeoutMs?: number;
  /** Bound of one received message; containerd's own is 16 MiB. */
  readonly maxMessageBytes?: number;
  /** Asks a quiet peer for a sign of life, and ends the session when none comes. Absent: the operating system's word. */
  readonly keepalive?: { readonly intervalMs: number; readonly timeoutMs: number };
}

/** There was no connection: the server has seen nothing of the call, which may be made again whatever it does. */
export class NotConnectedError extends GrpcError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("UNAVAILABLE", message, options);
  }
}

export interface GrpcClientTls {
  /** Authorities the server's certificate must come from; absent: the system's. */
  readonly caPem?: string | undefined;
  readonly certificatePem?: string | undefined;
  readonly keyPem?: string | undefined;
  /** Name the certificate must have; default the host. */
  readonly serverName?: string | undefined;
}

/** A call in which both sides send as many messages as they like. */
export interface GrpcDuplex {
  send(message: Uint8Array): void;
  /** Nothing more will be sent. */
  end(): void;
  /** Breaking out of the loop cancels the call. Slow readers stop the server. */
  readonly messages: AsyncIterable<Uint8Array>;
}

export interface CallOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface GrpcClient {
  unary(path: string, message: Uint8Array, options: CallOptions): Promise<Uint8Array>;
  /** Messages of a server-streaming call. Breaking out of the loop cancels it. Slow readers stop the server. */
  serverStream(path: string, message: Uint8Array, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Until `signal` aborts, which cancels it. */
  duplex(path: string, signal: AbortSignal): Promise<GrpcDuplex>;
  close(): void;
}

export function createGrpcClient(options: GrpcClientOptions): GrpcClient {
  const maxBytes = options.maxMessageBytes ?? 16 * 1024 * 1024;
  let session: ClientHttp2Session | undefined;
  let opening: Promise<ClientHttp2Session> | undefined;
  let closes = 0;

  function open(): Promise<ClientHttp2Session> {
    if (session && !session.closed && !session.destroyed) return Promise.resolve(session);
    const closesBefore = closes;
    opening ??= connectSession(options).then(
      (fresh) => {
        opening = undefined;
        if (closes !== closesBefore) {
          // Nobody would end this one.
          fresh.destroy();
          throw new NotConnectedError("the client was closed");
        }
        session = fresh;
        // Without a call in flight an open session must not keep the process alive.
        fresh.on("close", () => {
          if (session === fresh) session = undefined;
        });
        return fresh;
      },
      (error: unknown) => {
        opening = undefined;
        throw error;
      },
    );
    return opening;
  }

  async function start(path: string, message: Uint8Array, timeoutMs: number | undefined): Promise<ClientHttp2Stream> {
    const stream = await request(path, timeoutMs);
    stream.end(encodeFrame(message));
    return stream;
  }

  async function request(path: string, timeoutMs: number | undefined): Promise<ClientHttp2Stream> {
    const live = await open();
    return live.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...(timeoutMs === undefined ? {} : { "grpc-timeout": encodeTimeout(timeoutMs) }),
      ...options.headers,
    });
  }

  return {
    async unary(path, message, call) {
      call.signal?.throwIfAborted();
      const stream = await start(path, message, call.timeoutMs);
      return new Promise<Uint8Array>((resolve, reject) => {
        const reader = new FrameReader(maxBytes);
        let answer: Uint8Array | undefined;
        let status: GrpcError | undefined = new GrpcError("UNAVAILABLE", "the connection ended before the call did");
        let failure: unknown;
        const cancel = (error: unknown) => {
          failure ??= error;
          stream.close(8);
        };
        const onAbort = () => cancel(call.signal?.reason);
        call.signal?.addEventListener("abort", onAbort, { once: true });
        if (call.signal?.aborted) onAbort();
        // The server has the deadline too; ours is later, for a server that does not answer at all.
        const timer = setTimeout(
          () => cancel(new GrpcError("DEADLINE_EXCEEDED", "context deadline exceeded")),
          call.timeoutMs + 500,
        );
        stream.on("response", (headers: IncomingHttpHeaders) => {
          if (headers["grpc-status"] !== undefined || Number(headers[":status"]) !== 200) status = statusOf(headers);
        });
        stream.on("trailers", (headers: IncomingHttpHeaders) => {
          status = statusOf(headers);
        });
        stream.on("data", (chunk: Uint8Array) => {
          try {
            for (const frame of reader.push(chunk)) answer = frame;
          } catch (error) {
            cancel(error);
          }
        });
        stream.on("error", (cause) => {
          failure ??= new GrpcError("UNAVAILABLE", cause.message, { cause });
        });
        stream.on("close", () => {
          clearTimeout(timer);
          call.signal?.removeEventListener("abort", onAbort);
          if (failure !== undefined) reject(failure as Error);
          else if (status) reject(status);
          else if (answer === undefined) reject(new GrpcError("INTERNAL", "the server sent no message"));
          else resolve(answer);
        });
      });
    },

    async *serverStream(path, message, signal) {
      signal.throwIfAborted();
      yield* messagesOf(await start(path, message, undefined), maxBytes, signal);
    },

    async duplex(path, signal) {
      signal.throwIfAborted();
      const stream = await request(path, undefined);
      return {
        send: (message) => {
          if (!stream.closed && !stream.destroyed) stream.write(encodeFrame(message));
        },
        end: () => stream.end(),
        messages: messagesOf(stream, maxBytes, signal),
      };
    },

    close() {
      closes++;
      session?.destroy();
      session = undefined;
    },
  };
}

/** Listens from now on: what comes before the loop begins is not lost. */
function messagesOf(stream: ClientHttp2Stream, maxBytes: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
  const reader = new FrameReader(maxBytes);
  let status: GrpcError | undefined = new GrpcError("UNAVAILABLE", "the connection ended before the call did");
  const onAbort = () => stream.close(8);
  signal.addEventListener("abort", onAbort, { once: true });
  // It may have aborted while the stream was being opened.
  if (signal.aborted) onAbort();
  let failure: Error | undefined;
  stream.on("error", (error) => {
    failure = error;
  });
  stream.on("response", (headers: IncomingHttpHeaders) => {
    if (headers["grpc-status"] !== undefined || Number(headers[":status"]) !== 200) status = statusOf(headers);
  });
  stream.on("trailers", (headers: IncomingHttpHeaders) => {
    status = statusOf(headers);
  });
  return (async function* () {
    try {
      if (failure) throw failure;
      for await (const chunk of stream) yield* reader.push(chunk as Uint8Array);
    } catch (cause) {
      signal.throwIfAborted();
      throw cause instanceof GrpcError
        ? cause
        : new GrpcError("UNAVAILABLE", cause instanceof Error ? cause.message : String(cause), { cause });
    } finally {
      signal.removeEventListener("abort", onAbort);
      stream.close(8);
    }
    signal.throwIfAborted();
    if (status) throw status;
  })();
}

/** Connects first and starts HTTP/2 only on a live socket, so that a missing server is one clear error. */
async function connectSession(options: GrpcClientOptions): Promise<ClientHttp2Session> {
  const { target } = options;
  const where = "socketPath" in target ? target.socketPath : `${target.host}:${target.port}`;
  const failed = (cause: unknown) =>
    new NotConnectedError(`cannot connect to ${where}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  let secure: GrpcClientTls | undefined;
  let socket: net.Socket;
  try {
    secure = typeof options.tls === "function" ? await options.tls() : options.tls;
    // Throws for a key that is not that of the certificate.
    socket = openSocket(target, secure);
  } catch (cause) {
    throw failed(cause);
  }
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => socket.destroy(new Error("connection timed out")),
      options.connectTimeoutMs ?? 5_000,
    );
    const onError = (cause: Error) => {
      clearTimeout(timer);
      reject(failed(cause));
    };
    socket.once("error", onError);
    socket.once(secure ? "secureConnect" : "connect", () => {
      clearTimeout(timer);
      const session = connect("http://localhost", {
        createConnection: () => socket,
        settings: { enablePush: false, initialWindowSize: 1 << 20 },
      });
      session.once("error", () => session.destroy());
      socket.off("error", onError);
      if (options.keepalive) keepAlive(session, options.keepalive);
      resolve(session);
    });
  });
}

function openSocket(target: GrpcClientOptions["target"], secure: GrpcClientTls | undefined): net.Socket {
  const plain = "socketPath" in target ? { path: target.socketPath } : { port: target.port, host: target.host };
  if (!secure) return net.connect(plain);
  return tls.connect({
    ...plain,
    ALPNProtocols: ["h2"],
    minVersion: "TLSv1.2",
    ...serverNameOf(target, secure),
    ...(secure.caPem ? { ca: secure.caPem } : {}),
    ...(secure.certificatePem && secure.keyPem ? { cert: secure.certificatePem, key: secure.keyPem } : {}),
  });
}

/** A ping per interval; its answer must come within the timeout. */
function keepAlive(
  session: ClientHttp2Session,
  times: { readonly intervalMs: number; readonly timeoutMs: number },
): void {
  let late: NodeJS.Timeout | undefined;
  const timer = setInterval(() => {
    if (session.closed || session.destroyed || late) return;
    late = setTimeout(() => session.destroy(), times.timeoutMs);
    const sent = session.ping(() => {
      clearTimeout(late);
      late = undefined;
    });
    if (!sent) session.destroy();
  }, times.intervalMs);
  timer.unref();
  session.once("close", () => {
    clearInterval(timer);
    clearTimeout(late);
  });
}

/** Node takes no address as a server name: certificates for addresses are checked by the host it connects to. */
function serverNameOf(target: GrpcClientOptions["target"], secure: GrpcClientTls): { servername?: string } {
  const name = secure.serverName ?? ("host" in target ? target.host : "localhost");
  return net.isIP(name) === 0 ? { servername: name } : {};
}
