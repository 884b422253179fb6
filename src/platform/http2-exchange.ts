// One request and its answer on a stream of wire/http2, in the terms of https-server.ts. Most exchanges are short: what few
// of them need (a signal, a queue of body chunks, somebody who waits) is made when it is asked for.
// Invariant: a request that RFC 9113 calls malformed, or whose body is not as long as it said, is reset and goes no further.
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { errorCode } from "#wire/http2/frames.ts";
import { encodeHeaderBlock, type HeaderList } from "#wire/http2/hpack.ts";
import type { Http2Stream, StreamSink } from "#wire/http2/stream.ts";
import type { HttpsHandlers, RequestHeaders, ResponseHeaders, ServerRequest, ServerResponse } from "./https-server.ts";

/** What all requests of a connection share. */
export interface PeerConnection {
  readonly remoteAddress: string;
  readonly clientCertificate: Uint8Array | undefined;
  clientIntermediates(): readonly Uint8Array[];
  readonly log: Logger;
}

/** The head of a request, which clients often repeat: read once for the same list. */
export interface RequestHead {
  readonly method: string;
  readonly target: string;
  readonly headers: RequestHeaders;
  /** Undefined: it does not say. */
  readonly contentLength: number | undefined;
}

/** Bytes a stream may owe its client before its handler is told to stop. */
const maxBacklogBytes = 512 * 1024;

const pseudoNames = new Set([":method", ":path", ":scheme", ":authority"]);
/** Of a connection, which HTTP/2 does not have in messages. */
const connectionNames = new Set(["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]);
/** Of these the first counts where a client sends several. */
const singleNames = new Set(["authorization", "content-length", "content-type", "host", "user-agent"]);

/** Undefined: malformed. */
export function requestHead(list: HeaderList): RequestHead | undefined {
  const headers: Record<string, string> = Object.create(null);
  let isPseudoOver = false;
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i]!;
    const value = list[i + 1]!;
    if (name.startsWith(":")) {
      if (isPseudoOver || !pseudoNames.has(name) || name in headers) return undefined;
    } else {
      isPseudoOver = true;
      if (connectionNames.has(name) || (name === "te" && value !== "trailers")) return undefined;
    }
    const before = headers[name];
    if (before === undefined) headers[name] = value;
    else if (!singleNames.has(name)) headers[name] = `${before}${name === "cookie" ? "; " : ", "}${value}`;
    else if (name === "content-length" && before !== value) return undefined;
  }
  const { ":method": method, ":path": target, "content-length": length } = headers;
  if (!method || !target) return undefined;
  if (length !== undefined && !/^\d{1,15}$/.test(length)) return undefined;
  return { method, target, headers, contentLength: length === undefined ? undefined : Number(length) };
}

/** Hands the request to the handler. */
export function beginExchange(
  stream: Http2Stream,
  head: RequestHead,
  peer: PeerConnection,
  handle: HttpsHandlers["request"],
): StreamSink {
  const response = new StreamResponse(stream);
  const request = new StreamRequest(stream, head, peer, response);
  if (head.headers["expect"] === "100-continue") stream.respond(continueBlock, false);
  handle(request, response).catch((error: unknown) => {
    peer.log.error("request handler failed", { error: messageOf(error) });
    response.destroy();
  });
  return request;
}

/** Resets what is malformed. */
export function refuseExchange(stream: Http2Stream): StreamSink {
  stream.reset(errorCode.protocol);
  return { data: (bytes) => stream.consumed(bytes.length), end() {}, gone() {}, caughtUp() {} };
}

class StreamRequest implements ServerRequest, StreamSink {
  readonly http2 = true;
  readonly #stream: Http2Stream;
  readonly #head: RequestHead;
  readonly #peer: PeerConnection;
  readonly #response: StreamResponse;
  #chunks: Uint8Array[] = [];
  #receivedBytes = 0;
  #hasEnded = false;
  #wake: (() => void) | undefined;

  constructor(stream: Http2Stream, head: RequestHead, peer: PeerConnection, response: StreamResponse) {
    this.#stream = stream;
    this.#head = head;
    this.#peer = peer;
    this.#response = response;
  }

  get method(): string {
    return this.#head.method;
  }
  get target(): string {
    return this.#head.target;
  }
  get headers(): RequestHeaders {
    return this.#head.headers;
  }
  get remoteAddress(): string {
    return this.#peer.remoteAddress;
  }
  get connection(): object {
    return this.#peer;
  }
  get clientCertificate(): Uint8Array | undefined {
    return this.#peer.clientCertificate;
  }
  clientIntermediates(): readonly Uint8Array[] {
    return this.#peer.clientIntermediates();
  }
  get signal(): AbortSignal {
    return this.#response.over.signal;
  }
  get body(): AsyncIterable<Uint8Array> {
    return this.#read();
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#stream.consumed(chunk.length);
        yield chunk;
        continue;
      }
      if (this.#hasEnded) return;
      if (this.#response.over.isOver) throw goneError();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }

  // What the protocol tells

  data(bytes: Uint8Array): void {
    // Nobody reads on once the answer is complete.
    if (this.#response.hasEnded) {
      this.#stream.consumed(bytes.length);
      return;
    }
    this.#receivedBytes += bytes.length;
    const { contentLength } = this.#head;
    if (contentLength !== undefined && this.#receivedBytes > contentLength) {
      this.#stream.reset(errorCode.protocol);
      return;
    }
    this.#chunks.push(bytes);
    this.#wake?.();
  }

  end(): void {
    const { contentLength } = this.#head;
    const isShort = contentLength !== undefined && this.#receivedBytes !== contentLength;
    if (isShort && !this.#response.hasEnded) {
      this.#stream.reset(errorCode.protocol);
      return;
    }
    this.#hasEnded = true;
    this.#wake?.();
  }

  gone(): void {
    this.#chunks = [];
    this.#response.over.end(goneError);
    this.#response.wake();
    this.#wake?.();
  }

  caughtUp(): void {
    this.#response.wake();
  }
}

class StreamResponse implements ServerResponse {
  readonly over = new Over();
  readonly #stream: Http2Stream;
  /** Set and not yet sent. */
  #head: Uint8Array | undefined;
  #headSent = false;
  #waiting: (() => void)[] = [];
  hasEnded = false;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
  }

  get headSent(): boolean {
    return this.#headSent;
  }
  get pendingBytes(): number {
    return this.#stream.queuedBytes;
  }

  head(status: number, headers: ResponseHeaders): void {
    if (this.#headSent || this.hasEnded) return;
    this.#head = answerBlock(status, headers);
  }

  flushHead(): void {
    if (this.#headSent || this.hasEnded || this.over.isOver) return;
    this.#headSent = true;
    this.#stream.respond(this.#head ?? answerBlock(200, {}), false);
    this.#head = undefined;
  }

  write(chunk: Uint8Array | string): boolean {
    if (this.hasEnded || this.over.isOver) return true;
    this.flushHead();
    this.#stream.data(bytesOf(chunk));
    return this.#stream.queuedBytes < maxBacklogBytes;
  }

  async drained(): Promise<void> {
    if (this.hasEnded || this.over.isOver || this.#stream.queuedBytes === 0) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  end(chunk?: Uint8Array | string): void {
    if (this.hasEnded || this.over.isOver) return;
    if (chunk === undefined && !this.#headSent) {
      this.#headSent = true;
      this.#stream.respond(this.#head ?? answerBlock(200, {}), true);
    } else {
      this.flushHead();
      this.#stream.finish(chunk === undefined ? undefined : bytesOf(chunk));
    }
    this.hasEnded = true;
    this.#head = undefined;
    this.over.end(answeredError);
  }

  destroy(): void {
    this.#stream.reset(errorCode.internal);
  }

  wake(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** The end of an exchange, with a signal for whoever asks for one. */
export class Over {
  #controller: AbortController | undefined;
  #reason: Error | undefined;
  #isOver = false;

  get isOver(): boolean {
    return this.#isOver;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#isOver) this.#controller.abort(this.#reason ?? answeredError());
    }
    return this.#controller.signal;
  }

  /** The first call counts. */
  end(reason: () => Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (!this.#controller) return;
    this.#reason = reason();
    this.#controller.abort(this.#reason);
  }
}

export const goneError = (): AppError => new AppError("HTTPS_GONE", "the client has gone");
export const answeredError = (): AppError => new AppError("HTTPS_GONE", "the response is over");

const bytesOf = (chunk: Uint8Array | string): Uint8Array => (typeof chunk === "string" ? Buffer.from(chunk) : chunk);

const continueBlock = encodeHeaderBlock([[":status", "100"]]);

function answerBlock(status: number, headers: ResponseHeaders): Uint8Array {
  const list: [string, string][] = [[":status", String(status)]];
  let hasDate = false;
  for (const given in headers) {
    const value = headers[given];
    const name = given.toLowerCase();
    if (value === undefined || connectionNames.has(name)) continue;
    if (name === "date") hasDate = true;
    if (typeof value === "object") for (const each of value) list.push([name, each]);
    else list.push([name, String(value)]);
  }
  if (!hasDate) list.push(["date", new Date().toUTCString()]);
  return encodeHeaderBlock(list);
}
