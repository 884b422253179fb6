// The server's side of one HTTP/2 connection as a state machine: bytes in, bytes out, no sockets, no clocks. Why not
// node:http2: it costs some 40 µs for each stream where this costs a few, because here many requests of one chunk are
// handled in one pass and the answers of one turn leave as one write (docs/adr/2026-11-21-own-http2.md).
//
//   receive(chunk) -> frames -> events.request -> sink.data, sink.end          output ready -> takeOutput()
//   stream.respond, data, end -> windows -> output, or the stream's queue until the peer or the socket has room
//
// Bounds: header blocks (bytes, frames, decoded list), streams, what all streams owe together, and per `relax` interval
// resets, pings, settings and empty frames. Who passes one gets GOAWAY. Priorities and push do not exist here.
// Counterpart: RFC 9113; golang.org/x/net/http2.
import { Buffer } from "node:buffer";
import { hasCode, messageOf } from "#base/errors.ts";
import {
  defaultMaxFrameBytes,
  defaultWindowBytes,
  errorCode,
  frameFlag,
  frameHeaderBytes,
  frameType,
  maxWindowBytes,
  preface,
  setting,
} from "./frames.ts";
import { type HeaderList, HpackDecoder } from "./hpack.ts";
import type { SendBuffers } from "./send-buffers.ts";

export interface Http2Options {
  readonly maxConcurrentStreams: number;
  /** What a client may send ahead of the reader of one stream, and of the whole connection. */
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly maxHeaderBytes: number;
  /** What all streams together may owe their client. */
  readonly maxQueuedBytes: number;
  /** For data that is made while it is sent. */
  readonly buffers: SendBuffers;
  /** The other connections are so many that none should have much on its way to the socket. Default: they are not. */
  readonly isCrowded?: () => boolean;
}

/** Data that is made when there is room to send it. */
export interface DataSource {
  /** Writes what comes next and says how much; 0: that was all. What it throws resets the stream. */
  fill(into: Buffer): number;
  /** Nothing more is asked of it. */
  close(): void;
}

/** What happens to one stream. Called in order, from within `receive`. */
export interface StreamSink {
  /** The bytes stay as they are. Whoever is done with them says so by `consumed`. */
  data(bytes: Uint8Array): void;
  /** The client has said everything. */
  end(): void;
  /** The stream is gone before it was answered: reset by the client, or its connection is over. */
  gone(): void;
  /** Everything owed has left. */
  caughtUp(): void;
}

export interface ConnectionEvents {
  request(stream: Http2Stream, headers: HeaderList): StreamSink;
  /** There is something for `takeOutput`; said once until it is taken. */
  output(): void;
  /** Much waits for `takeOutput`: to be taken right now, so that it leaves while the rest is made. Nothing happens when it is not. */
  outputIsLarge(): void;
  /** A source threw; its stream is reset. */
  sourceFailed(why: string): void;
}

/** Frames of one header block: our frames hold 16 KiB, so this is more than any honest client needs. */
const maxContinuations = 32;
/** Between two calls of `relax`. */
const maxResets = 2000;
const maxControlFrames = 2000;
/** Answers to pings and settings that a client does not read. */
const maxControlBytes = 256 * 1024;
/** Larger payloads are handed on as they are instead of copied. */
const copyBelowBytes = 4096;
const chunkBytes = 16 * 1024;
/** A server has thousands of connections that say little: their first chunk after a quiet second is small. */
const quietChunkBytes = 1024;
/** Data waits in its stream when so much is on its way to the socket. */
const maxOutputBytes = 1024 * 1024;
/** The same where connections are many: TLS keeps room for the most it was ever given at once, for as long as it lasts. */
const crowdedOutputBytes = 16 * 1024;
/** The other side should have it. */
const largeOutputBytes = 256 * 1024;

/** Buffers that are waited for: what a few flushes take. */
const maxSending = 32;

const noBytes = Buffer.alloc(0);

export class Http2Stream {
  readonly id: number;
  readonly #connection: Http2ServerConnection;
  sink: StreamSink | undefined;
  sendWindow: number;
  receiveWindow: number;
  /** Consumed, and not yet given back to the client. */
  credit = 0;
  readonly queue: Uint8Array[] = [];
  queuedBytes = 0;
  /** Where more comes from when nothing is queued. */
  source: DataSource | undefined;
  /** What `queue` is of, when it is the source's. */
  lent: Buffer | undefined;
  trailers: Uint8Array | undefined;
  /** Nothing comes behind what is queued. */
  finishing = false;
  remoteEnded = false;
  localEnded = false;
  closed = false;
  /** Calls of `relax` since it was answered without the client having ended. */
  halfOpenTicks = 0;

  constructor(id: number, connection: Http2ServerConnection, sendWindow: number, receiveWindow: number) {
    this.id = id;
    this.#connection = connection;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
  }

  /** A header block; with `end` it is all there is. */
  respond(block: Uint8Array, end: boolean): void {
    this.#connection.sendHeaders(this, block, end);
  }
  /** `bytes` must not change any more. */
  data(bytes: Uint8Array): void {
    this.#connection.sendData(this, bytes);
  }
  /** `head`, which is copied, and `tail`, which must not change, as if they were one. */
  dataOf(head: Uint8Array, tail: Uint8Array): void {
    this.#connection.sendPair(this, head, tail);
  }
  /** All there will be but trailers. */
  dataFrom(source: DataSource): void {
    this.#connection.sendFrom(this, source);
  }
  end(trailers: Uint8Array): void {
    this.#connection.sendTrailers(this, trailers);
  }
  /** All there will be: what is owed, then `bytes`, which must not change any more. */
  finish(bytes: Uint8Array = noBytes): void {
    this.#connection.sendLast(this, bytes);
  }
  reset(code: number): void {
    this.#connection.resetStream(this, code);
  }
  /** The reader is done with so many bytes: the client may send as many more. */
  consumed(bytes: number): void {
    this.#connection.creditStream(this, bytes);
  }
}

/** A violation that ends the connection. */
class ConnectionError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export class Http2ServerConnection {
  readonly #options: Http2Options;
  readonly #events: ConnectionEvents;
  readonly #decoder: HpackDecoder;
  readonly #streams = new Map<number, Http2Stream>();
  /** Streams that owe data, in the order of their turns. */
  readonly #waiting = new Set<Http2Stream>();
  readonly #halfOpen = new Set<Http2Stream>();
  #lastStreamId = 0;
  #started = false;
  #settled = false;
  #leaving = false;
  /** Why the connection is over. */
  #failure: string | undefined;

  // What comes in.
  #partial: Buffer | undefined;
  #partialBytes = 0;
  readonly #head = Buffer.alloc(Math.max(preface.length, frameHeaderBytes));
  #headBytes = 0;
  #blockStream = 0;
  #blockEndsStream = false;
  #blockParts: Uint8Array[] = [];
  #blockBytes = 0;
  /** Found well formed. */
  #lastHeaders: HeaderList | undefined;
  #connectionReceiveWindow: number;
  #connectionCredit = 0;

  // What goes out.
  #connectionSendWindow = defaultWindowBytes;
  #initialSendWindow = defaultWindowBytes;
  #maxSendFrame = defaultMaxFrameBytes;
  /** Where small frames are gathered: one of its own, or when there is much to send at once, of those that are used again. */
  #chunk: Buffer = noBytes;
  #chunkIsLent = false;
  #nextChunkBytes = quietChunkBytes;
  #chunkStart = 0;
  #chunkAt = 0;
  #output: Uint8Array[] = [];
  #outputBytes = 0;
  #announced = false;
  #paused = false;
  #queuedBytes = 0;
  #pumping = false;
  /** Buffers of sources: all of it is in the output; the transport has it. */
  #spent: Buffer[] = [];
  #sending: Buffer[] = [];

  #resets = 0;
  #controls = 0;
  #controlBytes = 0;

  constructor(options: Http2Options, events: ConnectionEvents) {
    this.#options = options;
    this.#events = events;
    this.#decoder = new HpackDecoder(options.maxHeaderBytes);
    this.#connectionReceiveWindow = options.connectionWindowBytes;
    this.#sendSettings();
  }

  /** Over: `takeOutput` has the last there is to send. */
  get ended(): boolean {
    return this.#failure !== undefined || (this.#leaving && this.#streams.size === 0);
  }
  get failure(): string | undefined {
    return this.#failure;
  }
  /** The client has introduced itself. */
  get started(): boolean {
    return this.#settled;
  }
  get streamCount(): number {
    return this.#streams.size;
  }

  receive(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    try {
      this.#receive(chunk);
    } catch (error) {
      if (error instanceof ConnectionError) this.#fail(error.code, error.message);
      else if (hasCode(error, "WIRE_HPACK")) this.#fail(errorCode.compression, messageOf(error));
      else throw error;
    }
  }

  /** Segments in order; the connection forgets them. */
  takeOutput(): Uint8Array[] {
    this.#closeSegment();
    const output = this.#output;
    this.#output = [];
    this.#outputBytes = 0;
    this.#announced = false;
    this.#endLentChunk();
    if (this.#spent.length > 0) {
      // A socket that is never seen empty: these are not used again.
      if (this.#sending.length > maxSending) this.#sending = [];
      this.#sending.push(...this.#spent);
      this.#spent = [];
    }
    return output;
  }

  /** Everything that was taken has left: its bytes are not looked at any more. */
  written(): void {
    if (this.#sending.length === 0) return;
    for (const buffer of this.#sending) this.#options.buffers.give(buffer);
    this.#sending = [];
  }

  /** The socket takes nothing for now. */
  pause(): void {
    this.#paused = true;
  }
  /** The socket has taken what was handed out. */
  resume(): void {
    this.#paused = false;
    this.#controlBytes = 0;
    this.#pump();
  }

  /** To be called at regular intervals: allows what is bounded per interval anew, and lets go of half-open streams. */
  relax(): void {
    this.#resets = 0;
    this.#controls = 0;
    this.#nextChunkBytes = quietChunkBytes;
    // Nothing waits in it; what was handed out keeps its bytes itself.
    if (!this.#chunkIsLent && this.#chunkAt === this.#chunkStart) {
      this.#chunk = noBytes;
      this.#chunkStart = 0;
      this.#chunkAt = 0;
    }
    for (const stream of this.#halfOpen) {
      if (stream.halfOpenTicks++ > 0) this.resetStream(stream, errorCode.none);
    }
  }

  /** Asks the client to leave when its calls are done. */
  leave(): void {
    if (this.#leaving || this.#failure !== undefined) return;
    this.#leaving = true;
    this.#sendGoAway(errorCode.none, "");
  }

  /** The transport is gone. */
  close(): void {
    this.#failure ??= "the connection was closed";
    this.#dropStreams();
  }

  // Receiving

  #receive(chunk: Buffer): void {
    let at = 0;
    if (!this.#started) {
      at = this.#fillHead(chunk, 0, preface.length);
      const seen = this.#head.toString("latin1", 0, this.#headBytes);
      if (!preface.startsWith(seen)) throw new ConnectionError(errorCode.protocol, "this is not HTTP/2");
      if (this.#headBytes < preface.length) return;
      this.#headBytes = 0;
      this.#started = true;
    }
    while (at < chunk.length && this.#failure === undefined) {
      if (this.#partial) {
        const size = Math.min(this.#partial.length - this.#partialBytes, chunk.length - at);
        chunk.copy(this.#partial, this.#partialBytes, at, at + size);
        this.#partialBytes += size;
        at += size;
        if (this.#partialBytes < this.#partial.length) return;
        const whole = this.#partial;
        this.#partial = undefined;
        this.#frame(whole, 0, whole.length);
        continue;
      }
      if (this.#headBytes > 0 || chunk.length - at < frameHeaderBytes) {
        at = this.#fillHead(chunk, at, frameHeaderBytes);
        if (this.#headBytes < frameHeaderBytes) return;
        this.#headBytes = 0;
        const length = this.#frameLength(this.#head, 0);
        const whole = Buffer.allocUnsafe(frameHeaderBytes + length);
        this.#head.copy(whole, 0, 0, frameHeaderBytes);
        if (length === 0) this.#frame(whole, 0, whole.length);
        else {
          this.#partial = whole;
          this.#partialBytes = frameHeaderBytes;
        }
        continue;
      }
      const end = at + frameHeaderBytes + this.#frameLength(chunk, at);
      if (end > chunk.length) {
        const whole = Buffer.allocUnsafe(end - at);
        chunk.copy(whole, 0, at);
        this.#partial = whole;
        this.#partialBytes = chunk.length - at;
        return;
      }
      this.#frame(chunk, at, end);
      at = end;
    }
  }

  #fillHead(chunk: Buffer, at: number, wanted: number): number {
    const size = Math.min(wanted - this.#headBytes, chunk.length - at);
    chunk.copy(this.#head, this.#headBytes, at, at + size);
    this.#headBytes += size;
    return at + size;
  }

  #frameLength(bytes: Buffer, at: number): number {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    if (length > defaultMaxFrameBytes) throw new ConnectionError(errorCode.frameSize, `frame of ${length} bytes`);
    return length;
  }

  #frame(bytes: Buffer, at: number, end: number): void {
    const type = bytes[at + 3]!;
    const flags = bytes[at + 4]!;
    const id = bytes.readUInt32BE(at + 5) & 0x7fffffff;
    const start = at + frameHeaderBytes;
    if (!this.#settled) {
      if (type !== frameType.settings || (flags & frameFlag.ack) !== 0)
        throw new ConnectionError(errorCode.protocol, "the first frame is not SETTINGS");
      this.#settled = true;
    }
    if (this.#blockStream !== 0 && (type !== frameType.continuation || id !== this.#blockStream))
      throw new ConnectionError(errorCode.protocol, "a header block is interrupted");
    switch (type) {
      case frameType.data:
        this.#onData(bytes, start, end, flags, id);
        return;
      case frameType.headers:
        this.#onHeaders(bytes, start, end, flags, id);
        return;
      case frameType.continuation:
        if (this.#blockStream === 0) throw new ConnectionError(errorCode.protocol, "CONTINUATION of nothing");
        this.#onBlock(bytes.subarray(start, end), (flags & frameFlag.endHeaders) !== 0);
        return;
      case frameType.priority:
        this.#expect(end - start === 5 && id !== 0, errorCode.frameSize, "PRIORITY");
        this.#control();
        return;
      case frameType.reset:
        this.#expect(end - start === 4, errorCode.frameSize, "RST_STREAM");
        this.#onReset(id);
        return;
      case frameType.settings:
        this.#onSettings(bytes, start, end, flags, id);
        return;
      case frameType.ping:
        this.#expect(end - start === 8, errorCode.frameSize, "PING");
        this.#expect(id === 0, errorCode.protocol, "PING");
        this.#control();
        if ((flags & frameFlag.ack) === 0)
          this.#sendControl(frameType.ping, frameFlag.ack, 0, bytes.subarray(start, end));
        return;
      case frameType.goAway:
        this.#expect(end - start >= 8 && id === 0, errorCode.protocol, "GOAWAY");
        this.#leaving = true;
        return;
      case frameType.windowUpdate:
        this.#expect(end - start === 4, errorCode.frameSize, "WINDOW_UPDATE");
        this.#onWindowUpdate(id, bytes.readUInt32BE(start) & 0x7fffffff);
        return;
      case frameType.pushPromise:
        throw new ConnectionError(errorCode.protocol, "a client does not push");
      default:
        // Frames of extensions are skipped.
        this.#control();
    }
  }

  #expect(holds: boolean, code: number, what: string): void {
    if (!holds) throw new ConnectionError(code, `malformed ${what}`);
  }

  #control(): void {
    if (++this.#controls > maxControlFrames)
      throw new ConnectionError(errorCode.enhanceYourCalm, "too many control frames");
  }

  #onData(bytes: Buffer, start: number, end: number, flags: number, id: number): void {
    const length = end - start;
    if (id === 0 || id > this.#lastStreamId) throw new ConnectionError(errorCode.protocol, "DATA of no stream");
    if (length > this.#connectionReceiveWindow) throw new ConnectionError(errorCode.flowControl, "window exceeded");
    this.#connectionReceiveWindow -= length;
    this.#creditConnection(length);
    const ends = (flags & frameFlag.endStream) !== 0;
    if (length === 0 && !ends) this.#control();
    let from = start;
    let to = end;
    if ((flags & frameFlag.padded) !== 0) {
      this.#expect(length > 0 && bytes[start]! < length, errorCode.protocol, "padding");
      to -= bytes[start]!;
      from++;
    }
    const stream = this.#streams.get(id);
    // Of a stream that is over: what was under way when it ended.
    if (!stream) return;
    if (stream.remoteEnded) {
      this.resetStream(stream, errorCode.streamClosed);
      return;
    }
    if (length > stream.receiveWindow) {
      this.resetStream(stream, errorCode.flowControl);
      return;
    }
    stream.receiveWindow -= length;
    if (ends) stream.remoteEnded = true;
    const padding = length - (to - from);
    if (padding > 0) this.creditStream(stream, padding);
    if (stream.localEnded) this.creditStream(stream, to - from);
    else if (to > from) stream.sink?.data(bytes.subarray(from, to));
    if (ends) this.#remoteEnded(stream);
  }

  #onHeaders(bytes: Buffer, start: number, end: number, flags: number, id: number): void {
    let from = start;
    let to = end;
    if ((flags & frameFlag.padded) !== 0) {
      this.#expect(from < to, errorCode.frameSize, "HEADERS");
      to -= bytes[from++]!;
    }
    if ((flags & frameFlag.priority) !== 0) from += 5;
    this.#expect(from <= to, errorCode.protocol, "HEADERS");
    if (id % 2 === 0) throw new ConnectionError(errorCode.protocol, `HEADERS of stream ${id}`);
    this.#blockStream = id;
    this.#blockEndsStream = (flags & frameFlag.endStream) !== 0;
    this.#onBlock(bytes.subarray(from, to), (flags & frameFlag.endHeaders) !== 0);
  }

  #onBlock(part: Uint8Array, isLast: boolean): void {
    if (isLast && this.#blockParts.length === 0) {
      this.#onBlockEnd(part);
      return;
    }
    this.#blockParts.push(part);
    this.#blockBytes += part.length;
    if (this.#blockParts.length > maxContinuations || this.#blockBytes > 2 * this.#options.maxHeaderBytes)
      throw new ConnectionError(errorCode.enhanceYourCalm, "a header block is too large");
    if (!isLast) return;
    const block = Buffer.concat(this.#blockParts);
    this.#blockParts = [];
    this.#blockBytes = 0;
    this.#onBlockEnd(block);
  }

  #onBlockEnd(block: Uint8Array): void {
    const id = this.#blockStream;
    const ends = this.#blockEndsStream;
    this.#blockStream = 0;
    const headers = this.#decoder.decode(block);
    if (id <= this.#lastStreamId) {
      // Trailers of a request: nothing of them is of use.
      const stream = this.#streams.get(id);
      if (!stream) return;
      if (!ends || stream.remoteEnded) {
        this.resetStream(stream, errorCode.protocol);
        return;
      }
      stream.remoteEnded = true;
      this.#remoteEnded(stream);
      return;
    }
    this.#lastStreamId = id;
    if (this.#leaving || this.#streams.size >= this.#options.maxConcurrentStreams) {
      this.#countReset();
      this.#sendReset(id, errorCode.refusedStream);
      return;
    }
    if (headers === undefined || (headers !== this.#lastHeaders && !isWellFormed(headers))) {
      this.#countReset();
      this.#sendReset(id, headers === undefined ? errorCode.enhanceYourCalm : errorCode.protocol);
      return;
    }
    this.#lastHeaders = headers;
    const stream = new Http2Stream(id, this, this.#initialSendWindow, this.#options.streamWindowBytes);
    this.#streams.set(id, stream);
    stream.remoteEnded = ends;
    stream.sink = this.#events.request(stream, headers);
    if (ends && !stream.closed) this.#remoteEnded(stream);
  }

  #remoteEnded(stream: Http2Stream): void {
    if (stream.localEnded) this.#closeStream(stream);
    else stream.sink?.end();
  }

  #countReset(): void {
    if (++this.#resets > maxResets) throw new ConnectionError(errorCode.enhanceYourCalm, "too many streams are reset");
  }

  #onReset(id: number): void {
    this.#expect(id !== 0 && id <= this.#lastStreamId, errorCode.protocol, "RST_STREAM");
    this.#countReset();
    const stream = this.#streams.get(id);
    if (!stream) return;
    const answered = stream.localEnded;
    this.#closeStream(stream);
    if (!answered) stream.sink?.gone();
  }

  #onSettings(bytes: Buffer, start: number, end: number, flags: number, id: number): void {
    this.#expect(id === 0, errorCode.protocol, "SETTINGS");
    this.#control();
    if ((flags & frameFlag.ack) !== 0) {
      this.#expect(end === start, errorCode.frameSize, "SETTINGS");
      return;
    }
    this.#expect((end - start) % 6 === 0, errorCode.frameSize, "SETTINGS");
    for (let at = start; at < end; at += 6) {
      const name = bytes.readUInt16BE(at);
      const value = bytes.readUInt32BE(at + 2);
      if (name === setting.initialWindowSize) {
        this.#expect(value <= maxWindowBytes, errorCode.flowControl, "window size");
        const change = value - this.#initialSendWindow;
        this.#initialSendWindow = value;
        for (const stream of this.#streams.values()) {
          stream.sendWindow += change;
          if (stream.queuedBytes > 0 || stream.source) this.#waiting.add(stream);
          this.#expect(stream.sendWindow <= maxWindowBytes, errorCode.flowControl, "window size");
        }
      } else if (name === setting.maxFrameSize) {
        this.#expect(value >= defaultMaxFrameBytes && value <= 0xffffff, errorCode.protocol, "frame size");
        // Larger frames would only let one stream hold up the others for longer.
        this.#maxSendFrame = Math.min(value, 4 * defaultMaxFrameBytes);
      } else if (name === setting.enablePush) this.#expect(value <= 1, errorCode.protocol, "SETTINGS");
      // The size of the header table does not matter: what we send uses none.
    }
    this.#sendControl(frameType.settings, frameFlag.ack, 0, noBytes);
    this.#pump();
  }

  #onWindowUpdate(id: number, increment: number): void {
    if (id === 0) {
      this.#expect(increment > 0, errorCode.protocol, "WINDOW_UPDATE");
      this.#connectionSendWindow += increment;
      this.#expect(this.#connectionSendWindow <= maxWindowBytes, errorCode.flowControl, "window");
      this.#pump();
      return;
    }
    this.#expect(id <= this.#lastStreamId, errorCode.protocol, "WINDOW_UPDATE");
    const stream = this.#streams.get(id);
    if (!stream) return;
    if (increment === 0 || stream.sendWindow + increment > maxWindowBytes) {
      this.resetStream(stream, increment === 0 ? errorCode.protocol : errorCode.flowControl);
      return;
    }
    stream.sendWindow += increment;
    if (stream.queuedBytes === 0 && !stream.source) return;
    this.#waiting.add(stream);
    this.#pump();
  }

  // Windows that we grant

  #creditConnection(bytes: number): void {
    this.#connectionCredit += bytes;
    if (this.#connectionCredit < this.#options.connectionWindowBytes / 2) return;
    this.#sendWindowUpdate(0, this.#connectionCredit);
    this.#connectionReceiveWindow += this.#connectionCredit;
    this.#connectionCredit = 0;
  }

  creditStream(stream: Http2Stream, bytes: number): void {
    if (stream.remoteEnded || stream.closed) return;
    stream.credit += bytes;
    if (stream.credit < this.#options.streamWindowBytes / 2) return;
    this.#sendWindowUpdate(stream.id, stream.credit);
    stream.receiveWindow += stream.credit;
    stream.credit = 0;
  }

  // Sending

  sendHeaders(stream: Http2Stream, block: Uint8Array, end: boolean): void {
    if (stream.closed || stream.localEnded) return;
    this.#writeHeaders(stream.id, block, end);
    if (end) this.#localEnded(stream);
  }

  sendData(stream: Http2Stream, bytes: Uint8Array): void {
    if (!maySend(stream) || bytes.length === 0) return;
    if (stream.queuedBytes === 0 && bytes.length <= this.#room(stream) && bytes.length <= this.#maxSendFrame) {
      this.#writeData(stream, bytes, false);
      return;
    }
    this.#enqueue(stream, bytes);
    this.#checkQueued();
  }

  sendLast(stream: Http2Stream, bytes: Uint8Array): void {
    if (!maySend(stream)) return;
    const owesNothing = stream.queuedBytes === 0 && !stream.source;
    const fits = bytes.length <= this.#room(stream) && bytes.length <= this.#maxSendFrame;
    // An end without bytes needs no window.
    if (owesNothing && (fits || bytes.length === 0)) {
      this.#writeData(stream, bytes, true);
      this.#localEnded(stream);
      return;
    }
    stream.finishing = true;
    if (bytes.length > 0) this.#enqueue(stream, bytes);
    this.#checkQueued();
  }

  #enqueue(stream: Http2Stream, bytes: Uint8Array): void {
    stream.queue.push(bytes);
    stream.queuedBytes += bytes.length;
    this.#queuedBytes += bytes.length;
    this.#waiting.add(stream);
  }

  #checkQueued(): void {
    if (this.#queuedBytes > this.#options.maxQueuedBytes) {
      this.#fail(errorCode.enhanceYourCalm, "the client does not take what it asks for");
      return;
    }
    this.#pump();
  }

  sendPair(stream: Http2Stream, head: Uint8Array, tail: Uint8Array): void {
    const size = head.length + tail.length;
    if (!maySend(stream) || stream.source) return;
    if (stream.queuedBytes === 0 && size <= this.#room(stream) && size <= this.#maxSendFrame && size < copyBelowBytes) {
      stream.sendWindow -= size;
      this.#connectionSendWindow -= size;
      this.#writeFrame(frameType.data, 0, stream.id, head, tail);
      return;
    }
    // Many streams may wait with the same tail: it is not copied for any.
    this.#enqueue(stream, Uint8Array.from(head));
    if (tail.length > 0) this.#enqueue(stream, tail);
    this.#checkQueued();
  }

  sendFrom(stream: Http2Stream, source: DataSource): void {
    if (!maySend(stream)) {
      source.close();
      return;
    }
    stream.source = source;
    this.#waiting.add(stream);
    this.#pump();
  }

  sendTrailers(stream: Http2Stream, block: Uint8Array): void {
    if (!maySend(stream)) return;
    if (stream.queuedBytes > 0 || stream.source) {
      stream.trailers = block;
      return;
    }
    this.#writeHeaders(stream.id, block, true);
    this.#localEnded(stream);
  }

  resetStream(stream: Http2Stream, code: number): void {
    if (stream.closed) return;
    this.#sendReset(stream.id, code);
    const answered = stream.localEnded;
    this.#closeStream(stream);
    if (!answered) stream.sink?.gone();
  }

  #localEnded(stream: Http2Stream): void {
    stream.localEnded = true;
    if (stream.remoteEnded) this.#closeStream(stream);
    else this.#halfOpen.add(stream);
  }

  #closeStream(stream: Http2Stream): void {
    stream.closed = true;
    this.#streams.delete(stream.id);
    this.#forgetQueue(stream);
    if (this.#halfOpen.size > 0) this.#halfOpen.delete(stream);
    if (this.#leaving && this.#streams.size === 0) this.#announce();
  }

  #forgetQueue(stream: Http2Stream): void {
    if (stream.source) {
      this.#waiting.delete(stream);
      const { source } = stream;
      stream.source = undefined;
      // Its buffer may be in the output: nobody gets it back.
      stream.lent = undefined;
      source.close();
    }
    if (stream.queuedBytes === 0) return;
    this.#queuedBytes -= stream.queuedBytes;
    stream.queuedBytes = 0;
    stream.queue.length = 0;
    this.#waiting.delete(stream);
  }

  /** What may go out for the stream now. */
  #room(stream: Http2Stream): number {
    if (this.#paused) return 0;
    const most = this.#options.isCrowded?.() ? crowdedOutputBytes : maxOutputBytes;
    if (this.#outputBytes >= most) return 0;
    return Math.min(stream.sendWindow, this.#connectionSendWindow, Math.max(1024, most - this.#outputBytes));
  }

  /** False: the source has nothing more, or has failed. */
  #refill(stream: Http2Stream, source: DataSource): boolean {
    const buffer = this.#options.buffers.take();
    let size = 0;
    try {
      size = source.fill(buffer);
    } catch (error) {
      this.#options.buffers.give(buffer);
      this.#events.sourceFailed(messageOf(error));
      this.resetStream(stream, errorCode.internal);
      return false;
    }
    if (size === 0) {
      this.#options.buffers.give(buffer);
      stream.source = undefined;
      source.close();
      return false;
    }
    stream.lent = buffer;
    stream.queue.push(buffer.subarray(0, size));
    stream.queuedBytes += size;
    this.#queuedBytes += size;
    return true;
  }

  /** One frame for each stream that owes something and may send, until nobody may. */
  #pump(): void {
    if (this.#pumping || this.#waiting.size === 0) return;
    this.#pumping = true;
    const drained: Http2Stream[] = [];
    for (let moved = true; moved; ) {
      moved = false;
      for (const stream of this.#waiting) {
        const room = this.#room(stream);
        if (room <= 0) {
          if (stream.sendWindow > 0) break;
          // Its own window update takes it up again: who stalls many streams must not have them looked at each time.
          this.#waiting.delete(stream);
          continue;
        }
        // Who takes a byte at a time from many streams would hold a buffer for each: the next gets one when others have gone.
        if (stream.queuedBytes === 0 && stream.source && this.#queuedBytes > this.#options.maxQueuedBytes) continue;
        if (stream.queuedBytes === 0 && stream.source && !this.#refill(stream, stream.source)) {
          this.#waiting.delete(stream);
          if (!stream.closed) this.#sentAll(stream, drained);
          moved = true;
          continue;
        }
        const first = stream.queue[0]!;
        const size = Math.min(first.length, room, this.#maxSendFrame);
        const isLast = stream.finishing && !stream.source && size === stream.queuedBytes;
        this.#writeData(stream, size === first.length ? first : first.subarray(0, size), isLast);
        if (size === first.length) stream.queue.shift();
        else stream.queue[0] = first.subarray(size);
        stream.queuedBytes -= size;
        this.#queuedBytes -= size;
        moved = true;
        if (stream.queuedBytes > 0) continue;
        if (stream.lent) {
          this.#spent.push(stream.lent);
          stream.lent = undefined;
        }
        if (stream.source) continue;
        this.#waiting.delete(stream);
        if (isLast) this.#localEnded(stream);
        else this.#sentAll(stream, drained);
      }
    }
    this.#pumping = false;
    for (const stream of drained) stream.sink?.caughtUp();
  }

  #sentAll(stream: Http2Stream, drained: Http2Stream[]): void {
    if (stream.trailers) {
      this.#writeHeaders(stream.id, stream.trailers, true);
      this.#localEnded(stream);
    } else if (stream.finishing) {
      this.#writeData(stream, noBytes, true);
      this.#localEnded(stream);
    } else drained.push(stream);
  }

  #writeData(stream: Http2Stream, bytes: Uint8Array, end: boolean): void {
    stream.sendWindow -= bytes.length;
    this.#connectionSendWindow -= bytes.length;
    this.#writeFrame(frameType.data, end ? frameFlag.endStream : 0, stream.id, bytes);
  }

  #writeHeaders(id: number, block: Uint8Array, end: boolean): void {
    const endStream = end ? frameFlag.endStream : 0;
    if (block.length <= defaultMaxFrameBytes) {
      this.#writeFrame(frameType.headers, frameFlag.endHeaders | endStream, id, block);
      return;
    }
    for (let at = 0; at < block.length; at += defaultMaxFrameBytes) {
      const part = block.subarray(at, at + defaultMaxFrameBytes);
      const last = at + defaultMaxFrameBytes >= block.length ? frameFlag.endHeaders : 0;
      if (at === 0) this.#writeFrame(frameType.headers, endStream | last, id, part);
      else this.#writeFrame(frameType.continuation, last, id, part);
    }
  }

  /** `tail` only where both together are copied. */
  #writeFrame(type: number, flags: number, id: number, payload: Uint8Array, tail: Uint8Array = noBytes): void {
    const length = payload.length + tail.length;
    const copied = length < copyBelowBytes;
    const needed = copied ? frameHeaderBytes + length : frameHeaderBytes;
    if (this.#chunk.length - this.#chunkAt < needed) this.#nextChunk(needed);
    const out = this.#chunk;
    let at = this.#chunkAt;
    out[at++] = length >>> 16;
    out[at++] = length >>> 8;
    out[at++] = length;
    out[at++] = type;
    out[at++] = flags;
    out[at++] = id >>> 24;
    out[at++] = id >>> 16;
    out[at++] = id >>> 8;
    out[at++] = id;
    if (copied) {
      out.set(payload, at);
      if (tail.length > 0) out.set(tail, at + payload.length);
      this.#chunkAt = at + length;
    } else {
      this.#chunkAt = at;
      this.#closeSegment();
      this.#output.push(payload);
    }
    this.#outputBytes += frameHeaderBytes + length;
    this.#announce();
    if (this.#outputBytes >= largeOutputBytes && !this.#paused) this.#events.outputIsLarge();
  }

  #nextChunk(needed: number): void {
    this.#closeSegment();
    this.#endLentChunk();
    this.#chunkIsLent = this.#outputBytes >= chunkBytes;
    this.#chunk = this.#chunkIsLent
      ? this.#options.buffers.take()
      : Buffer.allocUnsafeSlow(Math.max(needed, this.#nextChunkBytes));
    this.#nextChunkBytes = chunkBytes;
    this.#chunkStart = 0;
    this.#chunkAt = 0;
  }

  /** All of it is in the output. */
  #endLentChunk(): void {
    if (!this.#chunkIsLent) return;
    this.#chunkIsLent = false;
    this.#spent.push(this.#chunk);
    this.#chunk = noBytes;
    this.#chunkStart = 0;
    this.#chunkAt = 0;
  }

  #closeSegment(): void {
    if (this.#chunkAt === this.#chunkStart) return;
    this.#output.push(this.#chunk.subarray(this.#chunkStart, this.#chunkAt));
    this.#chunkStart = this.#chunkAt;
  }

  #announce(): void {
    if (this.#announced) return;
    this.#announced = true;
    this.#events.output();
  }

  /** What the client makes us send, whether it reads or not. */
  #sendControl(type: number, flags: number, id: number, payload: Uint8Array): void {
    this.#writeFrame(type, flags, id, payload);
    if (!this.#paused) return;
    this.#controlBytes += frameHeaderBytes + payload.length;
    if (this.#controlBytes > maxControlBytes)
      throw new ConnectionError(errorCode.enhanceYourCalm, "the client asks and does not read");
  }

  #sendReset(id: number, code: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(code);
    this.#writeFrame(frameType.reset, 0, id, payload);
  }

  #sendWindowUpdate(id: number, bytes: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(bytes);
    this.#writeFrame(frameType.windowUpdate, 0, id, payload);
  }

  #sendSettings(): void {
    const { maxConcurrentStreams, streamWindowBytes, connectionWindowBytes, maxHeaderBytes } = this.#options;
    const values: readonly (readonly [number, number])[] = [
      [setting.maxConcurrentStreams, maxConcurrentStreams],
      [setting.initialWindowSize, streamWindowBytes],
      [setting.maxHeaderListSize, maxHeaderBytes],
    ];
    const payload = Buffer.alloc(6 * values.length);
    values.forEach(([name, value], i) => {
      payload.writeUInt16BE(name, 6 * i);
      payload.writeUInt32BE(value, 6 * i + 2);
    });
    this.#writeFrame(frameType.settings, 0, 0, payload);
    if (connectionWindowBytes > defaultWindowBytes)
      this.#sendWindowUpdate(0, connectionWindowBytes - defaultWindowBytes);
  }

  #sendGoAway(code: number, why: string): void {
    const payload = Buffer.alloc(8 + why.length);
    payload.writeUInt32BE(this.#lastStreamId, 0);
    payload.writeUInt32BE(code, 4);
    payload.write(why, 8, "latin1");
    this.#writeFrame(frameType.goAway, 0, 0, payload);
  }

  #fail(code: number, why: string): void {
    if (this.#failure !== undefined) return;
    this.#sendGoAway(code, why);
    this.#failure = why;
    this.#dropStreams();
  }

  #dropStreams(): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#waiting.clear();
    this.#halfOpen.clear();
    for (const stream of streams) {
      stream.closed = true;
      stream.queue.length = 0;
      stream.queuedBytes = 0;
      stream.source?.close();
      stream.source = undefined;
      if (!stream.localEnded) stream.sink?.gone();
    }
  }
}

/** Whether more may be said on it. */
const maySend = ({ closed, localEnded, trailers, finishing }: Http2Stream): boolean =>
  !closed && !localEnded && !trailers && !finishing;

/** Names in lower case without control characters, values without line ends: what a request may not smuggle on. */
function isWellFormed(headers: HeaderList): boolean {
  for (let i = 0; i < headers.length; i += 2) {
    if (!/^:?[!#-'*+.0-9^_`a-z|~-]+$/.test(headers[i]!) || /[\0\r\n]/.test(headers[i + 1]!)) return false;
  }
  return true;
}
