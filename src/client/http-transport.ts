// Transport over HTTP(S) to any Kubernetes API server: JSON both ways, failures rebuilt as ApiError from the Status in
// the body. It does not retry and does not reconnect: that is the informer's business, which alone knows what to resume.
// Upstream counterpart: client-go rest.Request and its watch decoder.
import { AppError } from "#base/errors.ts";
import type { UnknownObject } from "#model/object.ts";
import { ApiError, type Status } from "#model/status.ts";
import { type HttpClient, type HttpResponse, readBody } from "#platform/http-client.ts";
import type { ApiRequest, ClientWatchEvent, Transport } from "./transport.ts";

export interface HttpTransportOptions {
  /** A token, or where to read the current one: bound tokens are renewed while we run. */
  readonly token?: string | (() => Promise<string>);
  readonly userAgent: string;
  /** Silence after which a plain request fails; default 60 s, the API server's own limit. */
  readonly requestTimeoutMs?: number;
  /** Silence after which a watch counts as dead; default 10 min. Bookmarks come about once a minute. */
  readonly watchIdleMs?: number;
}

/** Larger than any list page we ask for: 500 objects of at most 1.5 MiB never occur together; this guards memory. */
const maxBodyBytes = 256 * 1024 * 1024;
/** One watch event holds one object, at most 3 MiB as the API takes it, a little more when escaped. */
const maxLineBytes = 8 * 1024 * 1024;
/**
 * A server that went away mid-way is waited for: by requests for a moment, by watches for longer than the informers' pauses
 * take to start afresh, so that they go on the moment it is back.
 */
const requestPatienceMs = 2000;
const watchPatienceMs = 180_000;

/** Lists of large clusters over slow or paid lines: a tenth of the bytes. Watches stay plain, as events are small. */
const acceptCompressed = { "accept-encoding": "gzip" } as const;

export function createHttpTransport(options: HttpTransportOptions, deps: { readonly http: HttpClient }): Transport {
  const send = async (
    request: ApiRequest,
    idleTimeoutMs: number,
    patienceMs: number,
    more: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<HttpResponse> => {
    const token = typeof options.token === "function" ? await options.token() : options.token;
    const headers: Record<string, string> = {
      accept: request.accept ?? "application/json",
      "user-agent": options.userAgent,
      ...more,
    };
    if (token) headers["authorization"] = `Bearer ${token}`;
    if (request.body !== undefined) headers["content-type"] = request.contentType ?? "application/json";
    return deps.http.send(
      {
        method: request.method,
        path: request.path + queryString(request.query),
        headers,
        ...(request.body === undefined ? {} : { body: encode(request.body) }),
        ...{ idleTimeoutMs, patienceMs },
      },
      signal,
    );
  };

  return {
    async request(request, signal) {
      const timeoutMs = options.requestTimeoutMs ?? 60_000;
      const response = await send(request, timeoutMs, requestPatienceMs, acceptCompressed, signal);
      const body = await readBody(response, maxBodyBytes);
      if (response.status >= 400) throw errorOf(response.status, body);
      return JSON.parse(body.toString("utf8")) as UnknownObject;
    },

    async *watch(request, signal, onOpen) {
      const response = await send(request, options.watchIdleMs ?? 600_000, watchPatienceMs, {}, signal);
      if (response.status >= 400) throw errorOf(response.status, await readBody(response, maxBodyBytes));
      onOpen?.();
      try {
        for await (const line of linesOf(response.body)) yield JSON.parse(line) as ClientWatchEvent;
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        response.destroy();
      }
    },
  };
}

/** Splits a byte stream at newlines; empty lines are dropped, an unfinished last one too (the connection broke in it). */
export async function* linesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  for await (const chunk of body) {
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const tail = chunk.subarray(from, at);
      from = at + 1;
      const line = Buffer.concat([...pending, tail]).toString("utf8");
      pending = [];
      pendingBytes = 0;
      if (line.trim() !== "") yield line;
    }
    if (from < chunk.length) {
      pendingBytes += chunk.length - from;
      if (pendingBytes > maxLineBytes) {
        throw new AppError("CLIENT_EVENT_TOO_LARGE", `watch event is larger than ${maxLineBytes} bytes`);
      }
      pending.push(chunk.subarray(from));
    }
  }
}

function encode(body: unknown): string | Uint8Array {
  return body instanceof Uint8Array || typeof body === "string" ? body : JSON.stringify(body);
}

function queryString(query: ApiRequest["query"]): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) if (value !== undefined) search.set(key, value);
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

/** A Status body is taken as it is; anything else (a proxy's page) becomes an error of the same code. */
function errorOf(code: number, body: Buffer): ApiError {
  const text = body.toString("utf8");
  try {
    const parsed = JSON.parse(text) as Partial<Status>;
    if (parsed.kind === "Status")
      return ApiError.from({ ...(parsed as Status), metadata: parsed.metadata ?? {}, code });
  } catch {
    // Not JSON: the text itself is all that is known.
  }
  const reasons: Readonly<Record<number, string>> = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Gone",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
    504: "Timeout",
  };
  return new ApiError(code, reasons[code] ?? (code >= 500 ? "InternalError" : "Unknown"), text.trim().slice(0, 1000));
}
