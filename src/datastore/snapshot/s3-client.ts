// A small S3 client: upload in bounded memory, download that resumes, list, delete. Each request is retried while that can
// help; what cannot be helped is told in one sentence that names the flag to mend.
// Invariants: no file is in memory as a whole; an upload that failed leaves no parts behind, as far as it can be reached;
// every operation ends within `timeoutMs`. Upstream counterpart: minio-go in k3s.
import { createHash } from "node:crypto";
import type { Clock, Random } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { openForWriting } from "#platform/file-writer.ts";
import { createHttpClient, type HttpClient, type HttpResponse, readBody } from "#platform/http-client.ts";
import { type OpenFile, openForReading } from "#platform/open-file.ts";
import { datastoreError } from "../errors.ts";
import { completeUpload, readError, readPage, readUploadId, type S3Object } from "./s3-answers.ts";
import { emptyBodyHash, encodePath, encodeQuery, type S3Keys, signRequest } from "./signature-v4.ts";

export interface S3Target {
  /** HOST[:PORT]. */
  readonly endpoint: string;
  /** PEM of the authority that signed the endpoint's certificate. */
  readonly endpointCa: string | undefined;
  readonly skipSslVerify: boolean;
  /** Plain HTTP. */
  readonly insecure: boolean;
  readonly keys: S3Keys;
  readonly bucket: string;
  readonly bucketLookup: "auto" | "dns" | "path";
  readonly region: string;
  readonly proxy: string | undefined;
  /** Of one operation with all its retries. */
  readonly timeoutMs: number;
}

export interface S3Deps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface S3Limits {
  /** Files above it go up in parts. */
  readonly singleBytes: number;
  /** At least 5 MiB by S3's rule; raised where 10,000 parts would not do. */
  readonly partBytes: number;
}

const mebibyte = 1024 * 1024;
const defaultLimits: S3Limits = { singleBytes: 64 * mebibyte, partBytes: 16 * mebibyte };
const maxParts = 10_000;
const attempts = 5;
const firstPauseMs = 500;
const maxPauseMs = 8000;
const silentMs = 30_000;
/** A page of 1000 keys of 1024 bytes, each escaped, fits. */
const maxAnswerBytes = 8 * mebibyte;
/** 100,000 snapshots in one folder: somebody else's files. */
const maxPages = 100;
const chunkBytes = 64 * 1024;

interface Call {
  readonly method: string;
  /** Empty: the bucket itself. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Body;
}

/** Sent again from its start when a request is retried. */
interface Body {
  readonly hash: string;
  readonly sizeBytes: number;
  chunks(): AsyncIterable<Uint8Array>;
}

/** What one answer amounts to: `details` of the error that `answerError` makes. */
interface FailureDetails {
  readonly status: number;
  readonly s3Code: string;
  readonly region?: string;
  readonly serverMs?: number;
}

export class S3Client {
  readonly #target: S3Target;
  readonly #deps: S3Deps;
  readonly #limits: S3Limits;
  readonly #http: HttpClient;
  readonly #host: string;
  /** Before the key, of every path. */
  readonly #prefix: string;
  /** The server's clock minus ours: a board that booted in 1970 can still sign. */
  #skewMs = 0;

  constructor(target: S3Target, deps: S3Deps, limits: S3Limits = defaultLimits) {
    this.#target = target;
    this.#deps = deps;
    this.#limits = limits;
    const isDns = usesDns(target);
    const scheme = target.insecure ? "http" : "https";
    const url = new URL(`${scheme}://${isDns ? `${target.bucket}.` : ""}${target.endpoint}`);
    this.#host = url.host;
    this.#prefix = isDns ? "/" : `/${encodePath(target.bucket)}/`;
    this.#http = createHttpClient({
      baseUrl: url.origin,
      insecureSkipTlsVerify: target.skipSslVerify,
      ...(target.endpointCa === undefined ? {} : { ca: target.endpointCa }),
      ...(target.proxy === undefined ? {} : { proxy: target.proxy }),
    });
  }

  close(): void {
    this.#http.close();
  }

  /** Uploads a file under `key`; an object of that name is replaced, whole or not at all. */
  put(path: string, key: string, signal?: AbortSignal): Promise<void> {
    return this.#within(`upload ${key}`, signal, async (inTime) => {
      const file = await openForReading(path);
      if (!file) throw datastoreError("DATASTORE_BAD_REQUEST", `there is no file ${path}`);
      try {
        const { sizeBytes } = await file.facts();
        if (sizeBytes > this.#limits.singleBytes) await this.#putInParts(file, sizeBytes, key, inTime);
        else await this.#discard({ method: "PUT", key, body: await bodyOf(file, 0, sizeBytes) }, inTime);
      } finally {
        await file.close();
      }
    });
  }

  /** Downloads to `path`, resuming where a connection broke. */
  get(key: string, path: string, signal?: AbortSignal): Promise<void> {
    return this.#within(`download ${key}`, signal, async (inTime) => {
      const file = await openForWriting(path);
      let tag: string | undefined;
      try {
        const read = async (response: HttpResponse) => {
          // 200 to a request for the rest: the server sends all of it.
          if (response.status === 200 && file.sizeBytes > 0) await file.rewind(0);
          const start = file.sizeBytes;
          tag = textOf(response.headers["etag"]);
          for await (const chunk of response.body) await file.write(chunk);
          const expected = Number(textOf(response.headers["content-length"]) ?? Number.NaN);
          if (file.sizeBytes - start < expected) throw new AppError("HTTP_FAILED", "the answer broke off");
        };
        await this.#retrying(
          () => ({
            ...{ method: "GET", key },
            headers:
              file.sizeBytes > 0 && tag !== undefined ? { range: `bytes=${file.sizeBytes}-`, "if-match": tag } : {},
          }),
          read,
          inTime,
          async () => {
            // Without a tag nobody can say that the rest belongs to the same object.
            if (tag === undefined) await file.rewind(0);
          },
        );
        await file.finish();
      } finally {
        await file.close();
      }
    });
  }

  /** All objects whose key begins with `prefix`. */
  list(prefix: string, signal?: AbortSignal): Promise<S3Object[]> {
    return this.#within("list", signal, async (inTime) => {
      const found: S3Object[] = [];
      let next: string | undefined;
      for (let page = 0; page < maxPages; page++) {
        const query = { "list-type": "2", "encoding-type": "url", "max-keys": "1000", prefix };
        const answer = await this.#text(
          { method: "GET", query: { ...query, ...(next === undefined ? {} : { "continuation-token": next }) } },
          inTime,
        );
        const read = readPage(answer);
        if (!read) throw s3Error(`${this.#host} does not answer as S3 does`);
        found.push(...read.objects);
        next = read.next;
        if (next === undefined) return found;
      }
      throw s3Error(`more than ${maxPages * 1000} objects begin with "${prefix}"; use a folder of its own`);
    });
  }

  /** Not there is as good as removed. */
  remove(key: string, signal?: AbortSignal): Promise<void> {
    return this.#within(`delete ${key}`, signal, async (inTime) => {
      try {
        await this.#discard({ method: "DELETE", key }, inTime);
      } catch (error) {
        if (detailsOf(error)?.s3Code !== "NoSuchKey") throw error;
      }
    });
  }

  async #putInParts(file: OpenFile, sizeBytes: number, key: string, signal: AbortSignal): Promise<void> {
    const partBytes = Math.max(this.#limits.partBytes, Math.ceil(sizeBytes / maxParts));
    const uploadId = readUploadId(await this.#text({ method: "POST", key, query: { uploads: "" } }, signal));
    if (!uploadId) throw s3Error(`${this.#host} gave no upload id`);
    try {
      const tags: string[] = [];
      for (let offset = 0; offset < sizeBytes; offset += partBytes) {
        const body = await bodyOf(file, offset, Math.min(partBytes, sizeBytes - offset));
        const query = { partNumber: String(tags.length + 1), uploadId };
        const tag = await this.#retrying(() => ({ method: "PUT", key, query, body }), tagOf, signal);
        if (!tag) throw s3Error(`${this.#host} gave no tag for a part`);
        tags.push(tag);
      }
      await this.#complete(key, uploadId, tags, sizeBytes, signal);
    } catch (error) {
      await this.#abandon(key, uploadId);
      throw error;
    }
  }

  /** Has time of its own: what made the upload fail may have been the end of the operation. */
  async #abandon(key: string, uploadId: string): Promise<void> {
    const late = new AbortController();
    const cancel = this.#deps.clock.after(silentMs, () => late.abort(s3Error("no answer")));
    try {
      await this.#discard({ method: "DELETE", key, query: { uploadId } }, late.signal);
    } catch (error) {
      this.#deps.log.warn("parts of an upload stay behind", { key, error: messageOf(error) });
    } finally {
      cancel();
    }
  }

  /** An answer that was lost makes the repeated request fail, though the object is there. */
  async #complete(
    key: string,
    uploadId: string,
    tags: readonly string[],
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<void> {
    const body = bodyOfText(completeUpload(tags));
    try {
      await this.#text({ method: "POST", key, query: { uploadId }, body }, signal);
    } catch (error) {
      if (detailsOf(error)?.s3Code !== "NoSuchUpload") throw error;
      const length = await this.#retrying(
        () => ({ method: "HEAD", key }),
        async ({ headers }) => Number(textOf(headers["content-length"])),
        signal,
      );
      if (length !== sizeBytes) throw error;
    }
  }

  async #discard(call: Call, signal: AbortSignal): Promise<void> {
    await this.#text(call, signal);
  }

  /** The answer's text. S3 can say 200 first and put the error into the body of it. */
  #text(call: Call, signal: AbortSignal): Promise<string> {
    const read = async (response: HttpResponse) => {
      const text = (await readBody(response, maxAnswerBytes)).toString("utf8");
      if (readError(text)) throw this.#answerError(response, text);
      return text;
    };
    return this.#retrying(() => call, read, signal);
  }

  async #retrying<T>(
    call: () => Call,
    read: (response: HttpResponse) => Promise<T>,
    signal: AbortSignal,
    beforeRetry: () => Promise<void> = async () => {},
  ): Promise<T> {
    const { clock, random, log } = this.#deps;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(call(), read, signal);
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        const details = detailsOf(error);
        const isSkewed = details?.s3Code === "RequestTimeTooSkewed" && details.serverMs !== undefined;
        if (attempt >= attempts || !(isSkewed || isTransient(error))) throw error;
        if (isSkewed) this.#skewMs = details.serverMs! - clock.now();
        log.debug("S3 request is tried again", { attempt, error: messageOf(error) });
        const pauseMs = Math.min(maxPauseMs, firstPauseMs * 2 ** (attempt - 1));
        await clock.sleep(isSkewed ? 0 : pauseMs * (0.5 + random.float() / 2), signal);
        await beforeRetry();
      }
    }
  }

  async #once<T>(call: Call, read: (response: HttpResponse) => Promise<T>, signal: AbortSignal): Promise<T> {
    const path = call.key === undefined ? this.#prefix : `${this.#prefix}${encodePath(call.key)}`;
    const query = encodeQuery(call.query ?? {});
    const headers = signRequest(
      {
        ...{ method: call.method, host: this.#host, path, query, headers: call.headers ?? {} },
        bodyHash: call.body?.hash ?? emptyBodyHash,
      },
      this.#target.keys,
      { region: this.#target.region, nowMs: this.#deps.clock.now() + this.#skewMs },
    );
    const { body } = call;
    const response = await this.#http.send(
      {
        ...{ method: call.method, path: query === "" ? path : `${path}?${query}`, headers, idleTimeoutMs: silentMs },
        ...(body ? { body: { sizeBytes: body.sizeBytes, chunks: body.chunks() } } : {}),
      },
      signal,
    );
    try {
      if (response.status < 200 || response.status > 299) {
        throw this.#answerError(response, (await readBody(response, maxAnswerBytes)).toString("utf8"));
      }
      return await read(response);
    } finally {
      // Without effect where the body was read to its end.
      response.destroy();
    }
  }

  #answerError({ status, headers }: HttpResponse, text: string): AppError {
    const said = readError(text);
    const region = textOf(headers["x-amz-bucket-region"]) ?? said?.region;
    const serverMs = Date.parse(textOf(headers["date"]) ?? "");
    const s3Code = said?.code ?? (status === 404 ? "NotFound" : "");
    const details: FailureDetails = {
      ...{ status, s3Code },
      ...(region === undefined ? {} : { region }),
      ...(Number.isNaN(serverMs) ? {} : { serverMs }),
    };
    const hint = hintFor(details, this.#target);
    const what = said ? `${said.code}: ${said.message}` : "no S3 error";
    return s3Error(`${this.#host} answered ${status} (${what})${hint === "" ? "" : `; ${hint}`}`, { ...details });
  }

  /** Names the operation in what it rejects with, and ends it in time. */
  async #within<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (inTime: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const late = new AbortController();
    const { timeoutMs, bucket } = this.#target;
    const cancel = this.#deps.clock.after(timeoutMs, () =>
      late.abort(s3Error(`not done within ${timeoutMs / 1000} s; --etcd-s3-timeout sets it`)),
    );
    try {
      return await (signal ? withEither([late.signal, signal], work) : work(late.signal));
    } catch (error) {
      if (signal?.aborted) throw error;
      throw datastoreError("DATASTORE_BUCKET", `S3 bucket ${bucket}: ${what}: ${messageOf(error)}`, {}, error);
    } finally {
      cancel();
    }
  }
}

/** Names of buckets that may stand before a host: no dots, which no wildcard certificate covers. */
function usesDns({ bucketLookup, bucket, endpoint }: S3Target): boolean {
  if (bucketLookup !== "auto") return bucketLookup === "dns";
  const host = endpoint.replace(/:\d+$/, "");
  return /(^|\.)(amazonaws\.com(\.cn)?|aliyuncs\.com)$/.test(host) && /^[a-z0-9-]{3,63}$/.test(bucket);
}

function hintFor({ status, s3Code, region }: FailureDetails, target: S3Target): string {
  if (region !== undefined && region !== target.region) {
    return `the bucket is in region ${region}; set --etcd-s3-region`;
  }
  switch (s3Code) {
    case "InvalidAccessKeyId":
    case "SignatureDoesNotMatch":
      return "check --etcd-s3-access-key and --etcd-s3-secret-key";
    case "ExpiredToken":
    case "InvalidToken":
      return "renew --etcd-s3-session-token";
    case "NoSuchBucket":
      return "create the bucket, or check --etcd-s3-bucket and --etcd-s3-bucket-lookup-type";
    case "RequestTimeTooSkewed":
      return "set the clock";
    default:
      return status === 403 ? "the keys lack a right" : "";
  }
}

const transientStatus: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
const transientCodes: ReadonlySet<string> = new Set(["RequestTimeout", "SlowDown", "InternalError"]);
const brokenConnection = ["ECONNRESET", "EPIPE", "ETIMEDOUT", "ERR_STREAM_PREMATURE_CLOSE", "ECONNABORTED"];

function isTransient(error: unknown): boolean {
  const details = detailsOf(error);
  if (details) return transientStatus.has(details.status) || transientCodes.has(details.s3Code);
  // No retry makes a certificate better.
  if (hasCode(error, "HTTP_FAILED")) {
    const code = String(((error as AppError).cause as { code?: unknown } | undefined)?.code ?? "");
    return !/CERT|VERIFY|SIGNED|ALTNAME|ERR_SSL|HTTP_PROXY/.test(code);
  }
  return hasCode(error, "HTTP_TIMEOUT") || brokenConnection.some((code) => hasCode(error, code));
}

function detailsOf(error: unknown): FailureDetails | undefined {
  if (!hasCode(error, "DATASTORE_BUCKET")) return undefined;
  const { details } = error as AppError;
  return typeof details["status"] === "number" ? (details as unknown as FailureDetails) : undefined;
}

const s3Error = (message: string, details: Readonly<Record<string, unknown>> = {}): AppError =>
  datastoreError("DATASTORE_BUCKET", message, details);

const textOf = (header: string | readonly string[] | undefined): string | undefined =>
  typeof header === "string" ? header : header?.[0];

async function tagOf(response: HttpResponse): Promise<string | undefined> {
  await readBody(response, maxAnswerBytes);
  return textOf(response.headers["etag"]);
}

function bodyOfText(text: string): Body {
  const bytes = Buffer.from(text);
  return {
    hash: createHash("sha256").update(bytes).digest("hex"),
    sizeBytes: bytes.length,
    async *chunks() {
      yield bytes;
    },
  };
}

/** A part of a file. It is read twice, for its hash and to be sent, rather than held. */
async function bodyOf(file: OpenFile, offset: number, sizeBytes: number): Promise<Body> {
  const chunks = async function* () {
    for (let done = 0; done < sizeBytes; ) {
      const chunk = await file.read(offset + done, Math.min(chunkBytes, sizeBytes - done));
      if (chunk.length === 0) throw datastoreError("DATASTORE_BAD_REQUEST", "the file shrank while it was read");
      done += chunk.length;
      yield chunk;
    }
  };
  const hash = createHash("sha256");
  for await (const chunk of chunks()) hash.update(chunk);
  return { hash: hash.digest("hex"), sizeBytes, chunks };
}
