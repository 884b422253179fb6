// The server's side of one HTTP/2 connection as a state machine: bytes in, bytes out, no sockets, no clocks. Why not
// node:http2: it costs some 40 µs for each stream where this costs a few, because here many requests of one chunk are
// handled in one pass and the answers of one turn leave as one write (docs/adr/2026-11-21-own-http2.md).
//
//   receive(chunk) -> frame-reader.ts -> events.request -> sink.data, sink.end           output ready -> takeOutput()
//   stream.respond, data, end -> sender.ts: windows -> output.ts, or the stream's queue until peer or socket has room
//
// Here is what frames mean: header blocks, streams that begin and end, settings, windows that we grant.
// Bounds: header blocks (bytes, frames, decoded list), streams, what all streams owe together, and per `relax` interval
// resets, pings, settings and empty frames. Who passes one gets GOAWAY. Priorities and push do not exist here.
// Counterpart: RFC 9113; golang.org/x/net/http2.
import { Buffer } from "node:buffer";
import { hasCode, messageOf } from "#base/errors.ts";
import { FrameReader } from "./frame-reader.ts";
import { ConnectionError, errorCode, expectFrame, frameFlag, frameHeaderBytes, frameType, setting } from "./frames.ts";
import { type HeaderList, HpackDecoder } from "./hpack.ts";
import { Output } from "./output.ts";
import type { SendBuffers } from "./send-buffers.ts";
import { Sender } from "./sender.ts";
import { Http2Stream, type StreamSink } from "./stream.ts";

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
const noBytes = Buffer.alloc(0);

export class Http2ServerConnection {
  readonly #options: Http2Options;
  readonly #events: ConnectionEvents;
  readonly #decoder: HpackDecoder;
  readonly #streams = new Map<number, Http2Stream>();
  readonly #halfOpen = new Set<Http2Stream>();
  #lastStreamId = 0;
  #settled = false;
  #leaving = false;
  /** Why the connection is over. */
  #failure: string | undefined;

  // What comes in.
  readonly #reader: FrameReader;
  #blockStream = 0;
  #blockEndsStream = false;
  #blockParts: Uint8Array[] = [];
  #blockBytes = 0;
  /** Found well formed. */
  #lastHeaders: HeaderList | undefined;
  #connectionReceiveWindow: number;
  #connectionCredit = 0;

  // What goes out.
  readonly #output: Output;
  readonly #sender: Sender;

  #resets = 0;
  #controls = 0;

  constructor(options: Http2Options, events: ConnectionEvents) {
    this.#options = options;
    this.#events = events;
    this.#decoder = new HpackDecoder(options.maxHeaderBytes);
    this.#connectionReceiveWindow = options.connectionWindowBytes;
    this.#output = new Output(options, events);
    this.#sender = new Sender(options, this.#output, {
      localEnded: (stream) => this.#localEnded(stream),
      resetStream: (stream, code) => this.resetStream(stream, code),
      fail: (code, why) => this.#fail(code, why),
      sourceFailed: (why) => events.sourceFailed(why),
    });
    this.#reader = new FrameReader({
      frame: (bytes, at, end) => this.#frame(bytes, at, end),
      isOver: () => this.#failure !== undefined,
    });
    this.#output.settings();
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
      this.#reader.receive(chunk);
    } catch (error) {
      if (error instanceof ConnectionError) this.#fail(error.code, error.message);
      else if (hasCode(error, "WIRE_HPACK")) this.#fail(errorCode.compression, messageOf(error));
      else throw error;
    }
  }

  /** Segments in order; the connection forgets them. */
  takeOutput(): Uint8Array[] {
    return this.#output.take();
  }

  /** Everything that was taken has left: its bytes are not looked at any more. */
  written(): void {
    this.#output.written();
  }

  /** The socket takes nothing for now. */
  pause(): void {
    this.#output.pause();
  }
  /** The socket has taken what was handed out. */
  resume(): void {
    this.#output.resume();
    this.#sender.pump();
  }

  /** To be called at regular intervals: allows what is bounded per interval anew, and lets go of half-open streams. */
  relax(): void {
    this.#resets = 0;
    this.#controls = 0;
    this.#output.relax();
    for (const stream of this.#halfOpen) {
      if (stream.halfOpenTicks++ > 0) this.resetStream(stream, errorCode.none);
    }
  }

  /** Asks the client to leave when its calls are done. */
  leave(): void {
    if (this.#leaving || this.#failure !== undefined) return;
    this.#leaving = true;
    this.#output.goAway(this.#lastStreamId, errorCode.none, "");
  }

  /** The transport is gone. */
  close(): void {
    this.#failure ??= "the connection was closed";
    this.#dropStreams();
  }

  // Receiving

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
        expectFrame(end - start === 5 && id !== 0, errorCode.frameSize, "PRIORITY");
        this.#control();
        return;
      case frameType.reset:
        expectFrame(end - start === 4, errorCode.frameSize, "RST_STREAM");
        this.#onReset(id);
        return;
      case frameType.settings:
        this.#onSettings(bytes, start, end, flags, id);
        return;
      case frameType.ping:
        expectFrame(end - start === 8, errorCode.frameSize, "PING");
        expectFrame(id === 0, errorCode.protocol, "PING");
        this.#control();
        if ((flags & frameFlag.ack) === 0)
          this.#output.control(frameType.ping, frameFlag.ack, 0, bytes.subarray(start, end));
        return;
      case frameType.goAway:
        expectFrame(end - start >= 8 && id === 0, errorCode.protocol, "GOAWAY");
        this.#leaving = true;
        return;
      case frameType.windowUpdate:
        expectFrame(end - start === 4, errorCode.frameSize, "WINDOW_UPDATE");
        this.#onWindowUpdate(id, bytes.readUInt32BE(start) & 0x7fffffff);
        return;
      case frameType.pushPromise:
        throw new ConnectionError(errorCode.protocol, "a client does not push");
      default:
        // Frames of extensions are skipped.
        this.#control();
    }
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
      expectFrame(length > 0 && bytes[start]! < length, errorCode.protocol, "padding");
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
      expectFrame(from < to, errorCode.frameSize, "HEADERS");
      to -= bytes[from++]!;
    }
    if ((flags & frameFlag.priority) !== 0) from += 5;
    expectFrame(from <= to, errorCode.protocol, "HEADERS");
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
      this.#output.reset(id, errorCode.refusedStream);
      return;
    }
    if (headers === undefined || (headers !== this.#lastHeaders && !isWellFormed(headers))) {
      this.#countReset();
      this.#output.reset(id, headers === undefined ? errorCode.enhanceYourCalm : errorCode.protocol);
      return;
    }
    this.#lastHeaders = headers;
    const stream = new Http2Stream(id, this, this.#sender, {
      send: this.#sender.initialWindow,
      receive: this.#options.streamWindowBytes,
    });
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
    expectFrame(id !== 0 && id <= this.#lastStreamId, errorCode.protocol, "RST_STREAM");
    this.#countReset();
    const stream = this.#streams.get(id);
    if (!stream) return;
    const answered = stream.localEnded;
    this.#closeStream(stream);
    if (!answered) stream.sink?.gone();
  }

  #onSettings(bytes: Buffer, start: number, end: number, flags: number, id: number): void {
    expectFrame(id === 0, errorCode.protocol, "SETTINGS");
    this.#control();
    if ((flags & frameFlag.ack) !== 0) {
      expectFrame(end === start, errorCode.frameSize, "SETTINGS");
      return;
    }
    expectFrame((end - start) % 6 === 0, errorCode.frameSize, "SETTINGS");
    for (let at = start; at < end; at += 6) {
      const name = bytes.readUInt16BE(at);
      const value = bytes.readUInt32BE(at + 2);
      if (name === setting.initialWindowSize) {
        this.#sender.setInitialWindow(value, this.#streams.values());
      } else if (name === setting.maxFrameSize) this.#sender.setMaxFrame(value);
      else if (name === setting.enablePush) expectFrame(value <= 1, errorCode.protocol, "SETTINGS");
      // The size of the header table does not matter: what we send uses none.
    }
    this.#output.control(frameType.settings, frameFlag.ack, 0, noBytes);
    this.#sender.pump();
  }

  #onWindowUpdate(id: number, increment: number): void {
    if (id === 0) {
      this.#sender.widen(increment);
      return;
    }
    expectFrame(id <= this.#lastStreamId, errorCode.protocol, "WINDOW_UPDATE");
    const stream = this.#streams.get(id);
    if (stream) this.#sender.widenStream(stream, increment);
  }

  // Windows that we grant

  #creditConnection(bytes: number): void {
    this.#connectionCredit += bytes;
    if (this.#connectionCredit < this.#options.connectionWindowBytes / 2) return;
    this.#output.windowUpdate(0, this.#connectionCredit);
    this.#connectionReceiveWindow += this.#connectionCredit;
    this.#connectionCredit = 0;
  }

  creditStream(stream: Http2Stream, bytes: number): void {
    if (stream.remoteEnded || stream.closed) return;
    stream.credit += bytes;
    if (stream.credit < this.#options.streamWindowBytes / 2) return;
    this.#output.windowUpdate(stream.id, stream.credit);
    stream.receiveWindow += stream.credit;
    stream.credit = 0;
  }

  // Ends

  resetStream(stream: Http2Stream, code: number): void {
    if (stream.closed) return;
    this.#output.reset(stream.id, code);
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
    this.#sender.forget(stream);
    if (this.#halfOpen.size > 0) this.#halfOpen.delete(stream);
    if (this.#leaving && this.#streams.size === 0) this.#output.announce();
  }

  #fail(code: number, why: string): void {
    if (this.#failure !== undefined) return;
    this.#output.goAway(this.#lastStreamId, code, why);
    this.#failure = why;
    this.#dropStreams();
  }

  #dropStreams(): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#sender.drop();
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

/** Names in lower case without control characters, values without line ends: what a request may not smuggle on. */
function isWellFormed(headers: HeaderList): boolean {
  for (let i = 0; i < headers.length; i += 2) {
    if (!/^:?[!#-'*+.0-9^_`a-z|~-]+$/.test(headers[i]!) || /[\0\r\n]/.test(headers[i + 1]!)) return false;
  }
  return true;
}
