// HTTP and HTTPS requests over kept-alive HTTP/1.1 connections: the door through which the client machinery, probes and
// whatever else speaks HTTP leaves the process. Bodies stream; whoever reads one bounds it (readBody does). There are no
// redirects and no retries, and a proxy only where the caller names one.
import * as http from "node:http";
import * as https from "node:https";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { AppError, messageOf } from "#base/errors.ts";
import { dialAgent, type HttpDial } from "./http-dial.ts";
import { parseProxy, tunnelAgent } from "./http-proxy.ts";
import { connectTls, keyTrustAgent } from "./key-trust.ts";

export interface HttpClientOptions {
  /** Scheme, host and port, e.g. https://127.0.0.1:6443; a path is kept as prefix. */
  readonly baseUrl: string;
  /** PEM. */
  readonly ca?: string | Uint8Array;
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
  /** Name to ask for and check in the certificate where it differs from the host. */
  readonly serverName?: string;
  readonly insecureSkipTlsVerify?: boolean;
  /** `keys`: whoever leads to the key of an authority in `ca`, also when dates say otherwise. Default `dates`. */
  readonly trust?: "keys" | "dates";
  /** Idle connections kept; default 4. Connections in use are not limited: each watch holds one. */
  readonly maxIdleSockets?: number;
  /** `http://[USER:PASSWORD@]HOST:PORT`. */
  readonly proxy?: string;
  /** Opens the connections in place of a plain dial; for https only. */
  readonly dial?: HttpDial;
}

export interface HttpRequest {
  readonly method: string;
  /** Path with query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A stream is sent as it is read, and left where the request fails. */
  readonly body?: string | Uint8Array | { readonly sizeBytes: number; readonly chunks: AsyncIterable<Uint8Array> };
  /** The connection may be silent for so long, connecting included; HTTP_TIMEOUT after it. */
  readonly idleTimeoutMs: number;
  /** How long a connection that was there and is lost may take to come back; default 0. HTTP/2 only. */
  readonly patienceMs?: number;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Must be read to its end or left by `break`/`destroy`, else the connection stays taken. */
  readonly body: AsyncIterable<Uint8Array>;
  destroy(): void;
}

export interface HttpClient {
  /** Resolves with any status once the headers are there; rejects with HTTP_FAILED, HTTP_TIMEOUT or the signal's reason. */
  send(request: HttpRequest, signal?: AbortSignal): Promise<HttpResponse>;
  /** Ends idle and running connections. */
  close(): void;
}

export function createHttpClient(options: HttpClientOptions): HttpClient {
  const base = new URL(options.baseUrl);
  const secure = base.protocol === "https:";
  const prefix = base.pathname.replace(/\/$/, "");
  const pool = { keepAlive: true, keepAliveMsecs: 30_000, maxFreeSockets: options.maxIdleSockets ?? 4 };
  const proxy = options.proxy === undefined ? undefined : parseProxy(options.proxy);
  const tlsOptions = {
    ...pool,
    ...(options.ca === undefined ? {} : { ca: Buffer.from(options.ca) }),
    ...(options.cert === undefined ? {} : { cert: Buffer.from(options.cert) }),
    ...(options.key === undefined ? {} : { key: Buffer.from(options.key) }),
    ...(options.serverName === undefined ? {} : { servername: options.serverName }),
    rejectUnauthorized: options.insecureSkipTlsVerify !== true,
    minVersion: "TLSv1.2" as const,
  };
  const secureAgent = () => {
    if (proxy) return tunnelAgent(proxy, tlsOptions);
    if (options.dial) return dialAgent(options.dial, tlsOptions, (to) => connectTls(to, options));
    if (options.trust === "keys") return keyTrustAgent(options.ca ?? "", tlsOptions);
    return new https.Agent(tlsOptions);
  };
  const agent = secure ? secureAgent() : new http.Agent(pool);
  // Plain HTTP goes to the proxy itself, with the whole URL as its path.
  const plainProxy = secure ? undefined : proxy;

  const send = (request: HttpRequest, signal?: AbortSignal): Promise<HttpResponse> =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const { body } = request;
      const stream = typeof body === "object" && "chunks" in body ? body : undefined;
      const bytes = stream === undefined ? (body as string | Uint8Array | undefined) : undefined;
      const sizeBytes = stream?.sizeBytes ?? (bytes === undefined ? undefined : Buffer.byteLength(bytes));
      const what = `${request.method} ${base.origin}${prefix}${request.path.split("?")[0]}`;
      const outgoing = (secure ? https : http).request({
        agent,
        host: plainProxy?.host ?? base.hostname.replace(/^\[|\]$/g, ""),
        port: plainProxy?.port ?? (base.port || (secure ? 443 : 80)),
        method: request.method,
        path: (plainProxy ? base.origin : "") + prefix + request.path,
        headers: {
          ...(plainProxy ? { host: base.host, ...plainProxy.headers } : {}),
          ...request.headers,
          ...(sizeBytes === undefined ? {} : { "content-length": String(sizeBytes) }),
        },
        timeout: request.idleTimeoutMs,
      });
      const onAbort = () => outgoing.destroy(signal?.reason as Error);
      signal?.addEventListener("abort", onAbort, { once: true });
      outgoing.on("close", () => signal?.removeEventListener("abort", onAbort));
      outgoing.on("timeout", () =>
        outgoing.destroy(new AppError("HTTP_TIMEOUT", `${what}: silent for ${request.idleTimeoutMs} ms`)),
      );
      outgoing.on("error", (cause) => {
        if (signal?.aborted) reject(signal.reason);
        else if (cause instanceof AppError) reject(cause);
        else reject(new AppError("HTTP_FAILED", `${what}: ${messageOf(cause)}`, {}, { cause }));
      });
      outgoing.on("response", (incoming) => {
        resolve({
          status: incoming.statusCode ?? 0,
          headers: incoming.headers,
          body: incoming,
          destroy: () => incoming.destroy(),
        });
      });
      if (stream === undefined) outgoing.end(bytes);
      else {
        const chunks = Readable.from(stream.chunks, { objectMode: false });
        chunks.on("error", (error) => outgoing.destroy(error));
        outgoing.on("close", () => chunks.destroy());
        chunks.pipe(outgoing);
      }
    });

  return { send, close: () => agent.destroy() };
}

/** The whole body, unpacked where it came compressed; HTTP_TOO_LARGE beyond `maxBytes`. */
export async function readBody(response: HttpResponse, maxBytes: number): Promise<Buffer> {
  const isCompressed = response.headers["content-encoding"] === "gzip";
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of isCompressed ? unpacked(response.body) : response.body) {
    sizeBytes += part.length;
    if (sizeBytes > maxBytes) throw new AppError("HTTP_TOO_LARGE", `response is larger than ${maxBytes} bytes`);
    parts.push(part);
  }
  return parts.length === 1 ? Buffer.from(parts[0]!) : Buffer.concat(parts);
}

/** What fails on the way in fails the reader, and a reader that leaves ends both. */
function unpacked(body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  return pipeline(body, createGunzip(), () => {
    // The reader is told by the stream that it reads.
  });
}
