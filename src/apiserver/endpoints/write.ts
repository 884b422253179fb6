// The HTTP face of answers: status, headers, body, watch streams. A watcher that does not read is cut off once it owes
// `maxOwedBytes`, so that one stuck client costs bounded memory; it comes back with the revision it has.
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { createGzip, gzip } from "node:zlib";
import type { UnknownObject } from "#model/object.ts";
import type { ApiError } from "#model/status.ts";
import type { ServerRequest, ServerResponse } from "#platform/https-server.ts";
import type { FanOut } from "../watch/fan-out.ts";
import { type FeedDeps, type FeedEvent, type FeedSink, runFeed } from "../watch/feed.ts";
import { type Encoder, watchForm } from "./encode.ts";
import {
  acceptsGzip,
  contentTypes,
  type Formats,
  isPretty,
  negotiate,
  parseAccept,
  type Representation,
} from "./negotiation.ts";
import type { CompressedAnswer, IncludeObject, ListResult, Result } from "./result.ts";

export interface WriteDeps {
  readonly encoder: Encoder;
  readonly feed: FeedDeps;
  readonly fanOut: FanOut;
  /** Whether a kind has a protobuf message. */
  readonly hasProtobuf: (apiVersion: string, kind: string) => boolean;
  readonly formats: Formats;
  /**
   * Calls `leave` when the server stops (at once where it does already): watches then end properly and their clients
   * come back. The returned function takes it back.
   */
  readonly onClosing: (leave: () => void) => () => void;
}

export interface Exchange {
  readonly request: ServerRequest;
  readonly query: URLSearchParams;
  readonly response: ServerResponse;
  readonly auditId: string;
  readonly warnings: readonly string[];
  /** What flow control took the request for. */
  readonly flow?: { readonly schemaUid: string; readonly levelUid: string };
}

const maxOwedBytes = 8 * 1024 * 1024;
/** Upstream's threshold; smaller answers are not worth the time. */
const gzipThresholdBytes = 128 * 1024;
const gzipAsync = promisify(gzip);
/** Of a large list: enough for the socket to have work, little beside what the list would be. */
const partBytes = 256 * 1024;

type Encodable = Exclude<Result, { type: "connect" }>;

/** The representation an answer will have; refused before anything is done (406). */
function representationOf(
  { formats }: WriteDeps,
  { request, query }: Exchange,
  offer: { protobuf: boolean; transforms: boolean },
): Representation {
  const pretty = isPretty(query, one(request.headers["user-agent"]));
  return negotiate(one(request.headers["accept"]), { ...offer, ...formats }, pretty);
}

export async function writeResult(deps: WriteDeps, exchange: Exchange, result: Encodable): Promise<void> {
  const { encoder } = deps;
  const { response } = exchange;
  const include = includeOf(exchange.query);
  switch (result.type) {
    case "raw":
      response.head(result.status, {
        ...commonHeaders(exchange),
        "content-type": result.contentType,
        ...(result.status === 304 ? {} : { "content-length": byteLength(result.body) }),
        ...result.headers,
      });
      response.end(exchange.request.method === "HEAD" || result.status === 304 ? undefined : result.body);
      return;
    case "object": {
      const { apiVersion = "", kind = "" } = result.object;
      const offer = { protobuf: deps.hasProtobuf(apiVersion, kind), transforms: result.transforms !== false };
      const as = representationOf(deps, exchange, offer);
      const plain: Representation = { ...as, shape: "object" };
      await writeBody(exchange, result.status, encoder.object(result.object, plain), contentTypes[as.format]);
      return;
    }
    case "item":
    case "list": {
      const { info } = result.view;
      const as = representationOf(deps, exchange, {
        protobuf: deps.hasProtobuf(info.storageVersion, info.kind),
        transforms: true,
      });
      if (result.type === "list" && (result.share || isLarge(result))) {
        const parts = encoder.listParts(result, as, include, partBytes);
        if (parts && result.share) {
          const encode = () => compressed(parts, contentTypes[as.format]);
          await writeCompressed(exchange, await result.share(encode));
          return;
        }
        if (parts) {
          await writeParts(exchange, parts, contentTypes[as.format]);
          return;
        }
      }
      const body =
        result.type === "item"
          ? encoder.item(result.view, result.item, as, include)
          : await encoder.list(result, as, include);
      await writeBody(exchange, result.type === "item" ? result.status : 200, body, contentTypes[as.format]);
      return;
    }
    case "objects": {
      const as = representationOf(deps, exchange, { protobuf: false, transforms: true });
      const body = encoder.objects(result.info, result.objects, result.isList, as, include);
      await writeBody(exchange, 200, body, contentTypes[as.format]);
      return;
    }
    case "compressed":
      await writeCompressed(exchange, result);
      return;
    case "watch":
      await writeWatch(deps, exchange, result, include);
      return;
  }
}

/** A whole answer would take too much at a time, of memory or of the event loop. */
function isLarge({ items, more }: ListResult): boolean {
  if (more) return true;
  let size = 0;
  for (const { value } of items) size += value.length;
  return size > 4 * partBytes;
}

/** As fast as the client takes it, a part at a time: what comes meanwhile has its turn. */
async function writeParts(exchange: Exchange, parts: AsyncIterable<Uint8Array>, contentType: string): Promise<void> {
  const { request, response } = exchange;
  const isSmaller = takesGzip(request);
  response.head(200, {
    ...commonHeaders(exchange),
    "content-type": contentType,
    ...(isSmaller ? { "content-encoding": "gzip", vary: "Accept-Encoding" } : {}),
    ...(request.http2 ? {} : { "transfer-encoding": "chunked" }),
  });
  if (request.method !== "HEAD") {
    for await (const part of isSmaller ? gzipped(parts) : parts) {
      if (!response.write(part)) await response.drained();
      if (request.signal.aborted) return;
    }
  }
  response.end();
}

/** For who takes it so: only they are given one (endpoints/lists.ts). */
async function writeCompressed(exchange: Exchange, { parts, contentType }: CompressedAnswer): Promise<void> {
  const { request, response } = exchange;
  response.head(200, {
    ...commonHeaders(exchange),
    "content-type": contentType,
    ...{ "content-encoding": "gzip", vary: "Accept-Encoding" },
    "content-length": parts.reduce((sum, { length }) => sum + length, 0),
  });
  if (request.method !== "HEAD") {
    for (const part of parts) {
      if (!response.write(part)) await response.drained();
      if (request.signal.aborted) return;
    }
  }
  response.end();
}

async function* gzipped(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const source = Readable.from(parts, { objectMode: false });
  const gzip = createGzip({ level: 1, chunkSize: partBytes / 4 });
  source.on("error", (error) => gzip.destroy(error));
  gzip.on("close", () => source.destroy());
  yield* source.pipe(gzip);
}

async function compressed(parts: AsyncIterable<Uint8Array>, contentType: string): Promise<CompressedAnswer> {
  return { type: "compressed", contentType, parts: await collected(gzipped(parts)) };
}

async function collected(parts: AsyncIterable<Uint8Array>): Promise<readonly Uint8Array[]> {
  const all: Uint8Array[] = [];
  for await (const part of parts) all.push(part);
  return all;
}

const takesGzip = (request: ServerRequest): boolean => acceptsGzip(one(request.headers["accept-encoding"]));

/** A Status; falls back to JSON for clients that accept nothing else we have. */
export async function writeError(deps: WriteDeps, exchange: Exchange, error: ApiError): Promise<void> {
  const { response } = exchange;
  if (response.headSent) {
    response.destroy();
    return;
  }
  const status = error.status as unknown as UnknownObject;
  let as: Representation = { format: "json", shape: "object", metaVersion: "v1", pretty: false };
  if (error.code !== 406) {
    const accept = one(exchange.request.headers["accept"]) ?? "";
    if (accept.includes("protobuf") && !accept.includes("json")) as = { ...as, format: "protobuf" };
    else if (accept.trim() === "application/yaml") as = { ...as, format: "yaml" };
    else if (deps.formats.cbor && parseAccept(accept)[0]?.type === contentTypes.cbor) as = { ...as, format: "cbor" };
  }
  const retry = error.status.details?.retryAfterSeconds;
  await writeBody(exchange, error.code, deps.encoder.object(status, as), contentTypes[as.format], {
    ...(retry === undefined ? {} : { "retry-after": retry }),
    ...(error.code === 401 ? { "www-authenticate": 'Bearer realm="kubernetes"' } : {}),
  });
}

async function writeBody(
  exchange: Exchange,
  status: number,
  body: Uint8Array,
  contentType: string,
  extra: Record<string, string | number> = {},
): Promise<void> {
  const { request, response } = exchange;
  let bytes = body;
  const headers: Record<string, string | number | readonly string[]> = {
    ...commonHeaders(exchange),
    "content-type": contentType,
    ...extra,
  };
  if (bytes.length > gzipThresholdBytes && status === 200 && takesGzip(request)) {
    bytes = await gzipAsync(bytes, { level: 1 });
    headers["content-encoding"] = "gzip";
    headers["vary"] = "Accept-Encoding";
  }
  headers["content-length"] = bytes.length;
  response.head(status, headers);
  response.end(request.method === "HEAD" ? undefined : bytes);
}

/** CBOR has a type of its own for more than one item, whatever the client asked for. */
const streamTypes: Readonly<Record<Representation["format"], string>> = {
  json: contentTypes.json,
  yaml: contentTypes.json,
  protobuf: `${contentTypes.protobuf};stream=watch`,
  cbor: "application/cbor-seq",
};

async function writeWatch(
  deps: WriteDeps,
  exchange: Exchange,
  result: Extract<Result, { type: "watch" }>,
  include: IncludeObject,
): Promise<void> {
  const { encoder } = deps;
  const { request, response } = exchange;
  const { view, plan } = result;
  const { info } = view;
  const as = representationOf(deps, exchange, {
    protobuf: deps.hasProtobuf(info.storageVersion, info.kind),
    transforms: true,
  });
  const stream: Representation = as.format === "yaml" ? { ...as, format: "json" } : as;
  response.head(200, {
    ...commonHeaders(exchange),
    "content-type": streamTypes[stream.format],
    ...(request.http2 ? {} : { "transfer-encoding": "chunked" }),
  });
  response.flushHead();
  const form = watchForm(view, stream, include);
  let needsColumns = stream.shape === "table";
  /** Events are encoded when they are written: thousands of watches may be told of one in the same breath. */
  let pending: (Uint8Array | FeedEvent)[] = [];
  let pendingBytes = 0;
  const encoded = (each: Uint8Array | FeedEvent): Uint8Array => {
    if (each instanceof Uint8Array) return each;
    const bytes = encoder.event(form, each, needsColumns);
    needsColumns = false;
    return bytes;
  };
  const outlet = {
    flush() {
      if (pending.length === 0) return;
      const due = pending;
      pending = [];
      pendingBytes = 0;
      try {
        response.write(due.length === 1 ? encoded(due[0]!) : Buffer.concat(due.map(encoded)));
      } catch {
        // An object that cannot be shown in this representation: the client sees a cut stream and lists again.
        cut();
      }
    },
  };
  const write = (all: readonly (Uint8Array | FeedEvent)[]) => {
    const isWaiting = pending.length > 0;
    for (const each of all) {
      pending.push(each);
      pendingBytes += each instanceof Uint8Array ? each.length : each.item.value.length;
    }
    if (!isWaiting && deps.fanOut.mayWrite(request.connection, outlet)) outlet.flush();
  };
  const end = () => {
    outlet.flush();
    response.end();
  };
  const over = new AbortController();
  const stop = () => over.abort();
  request.signal.addEventListener("abort", stop, { once: true });
  if (request.signal.aborted) stop();
  const leave = () => {
    end();
    stop();
  };
  const forget = deps.onClosing(leave);
  const cut = () => {
    response.destroy();
    stop();
  };
  const sink: FeedSink = {
    async initial(events) {
      pending.push(...events.map(encoded));
      outlet.flush();
      await response.drained();
    },
    events(events) {
      write(events);
      if (response.pendingBytes + pendingBytes > maxOwedBytes) cut();
    },
    bookmark: (revision, initialEnd) => write([encoder.bookmark(view, revision, initialEnd, stream)]),
    error(status) {
      pending.push(encoder.error(status, stream));
      end();
    },
    end,
  };
  try {
    await runFeed(plan, deps.feed, sink, over.signal);
  } finally {
    request.signal.removeEventListener("abort", stop);
    forget();
  }
}

function commonHeaders(exchange: Exchange): Record<string, string | readonly string[]> {
  const warnings = exchange.warnings.map((warning) => `299 - ${JSON.stringify(warning)}`);
  return {
    "audit-id": exchange.auditId,
    "cache-control": "no-cache, private",
    ...(warnings.length > 0 ? { warning: warnings } : {}),
    ...flowHeaders(exchange),
  };
}

/** Of objects that are not in the store yet nothing is said. */
function flowHeaders({ flow }: Exchange): Record<string, string> {
  if (!flow || flow.schemaUid === "" || flow.levelUid === "") return {};
  return {
    "x-kubernetes-pf-flowschema-uid": flow.schemaUid,
    "x-kubernetes-pf-prioritylevel-uid": flow.levelUid,
  };
}

function includeOf(query: URLSearchParams): IncludeObject {
  const value = query.get("includeObject");
  return value === "None" || value === "Object" ? value : "Metadata";
}

const byteLength = (body: Uint8Array | string): number =>
  typeof body === "string" ? Buffer.byteLength(body) : body.length;

/** A header that may come several times, as one. */
export const one = (value: string | string[] | undefined): string | undefined =>
  Array.isArray(value) ? value.join(", ") : value;
