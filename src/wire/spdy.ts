// SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 with the 3.1 changes) as Kubernetes streams use it: kubectl and containerd
// open a connection by an HTTP upgrade and carry stdin, stdout, … as streams that are told apart by a header.
// `SpdySession` is the protocol without the socket: bytes in through `receive`, bytes out through `send`.
//
//   control  |1| version 15 = 3 | type 16 | flags 8 | length 24 | payload
//   data     |0| stream id 31             | flags 8 | length 24 | payload
//
// Flow control: Go's implementation neither sends nor obeys windows, so we send without waiting and rely on TCP; peers
// that do count get WINDOW_UPDATE for what they sent us. Upstream counterpart: github.com/moby/spdystream.
import { AppError } from "#base/errors.ts";
import { concat, HeaderReader, HeaderWriter, readUint32, type SpdyHeaders, uint32 } from "./spdy/headers.ts";

export type { SpdyHeaders };

export interface SpdyStreamHandlers {
  reply?(headers: SpdyHeaders): void;
  data(bytes: Uint8Array): void;
  /** The peer will send no more on this stream. */
  end(): void;
  /** The stream is dead in both directions. Called at most once, also when the session ends. */
  reset(): void;
}

export interface SpdyStream {
  readonly id: number;
  readonly headers: SpdyHeaders;
  write(bytes: Uint8Array): void;
  /** Half-closes: no more from us. */
  end(): void;
  /** Gives the stream up in both directions. */
  reset(): void;
  /** Of a stream that the peer opened: accepts it. */
  reply(headers?: SpdyHeaders): void;
}

export interface SpdySessionOptions {
  readonly role: "client" | "server";
  readonly send: (bytes: Uint8Array) => void;
  /** A stream the peer opened; what is returned handles it. Undefined refuses it. */
  readonly accept?: (stream: SpdyStream) => SpdyStreamHandlers | undefined;
  /** The peer says that it goes away; existing streams may finish. */
  readonly goAway?: () => void;
  /** Tell the peer that what it sent was taken; for peers that obey windows. Go's do not. */
  readonly windowUpdates?: boolean;
}

interface Entry {
  readonly stream: SpdyStream;
  handlers: SpdyStreamHandlers;
  sentEnd: boolean;
  gotEnd: boolean;
}

const version = 3;
const types = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;
const flagFin = 1;
const resets = { protocolError: 1, refusedStream: 3, cancel: 5 } as const;
const headBytes = 8;
/** Control frames carry a few headers or numbers. */
const maxControlBytes = 64 * 1024;
/** What one data frame of ours carries: small enough that streams interleave. */
const maxDataBytes = 64 * 1024;
/** port-forward opens two per connection; more than this at once is no client of ours. */
const maxStreams = 1024;

export class SpdySession {
  readonly #options: SpdySessionOptions;
  readonly #streams = new Map<number, Entry>();
  readonly #headerReader = new HeaderReader();
  readonly #headerWriter = new HeaderWriter();
  #nextId: number;
  #lastPeerId = 0;
  #ended = false;
  /** Bytes of an unfinished head or control frame. */
  #partial: Uint8Array = new Uint8Array(0);
  /** The data frame being received. */
  #data: { entry: Entry | undefined; id: number; left: number; fin: boolean } | undefined;

  constructor(options: SpdySessionOptions) {
    this.#options = options;
    this.#nextId = options.role === "client" ? 1 : 2;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  open(headers: SpdyHeaders, handlers: SpdyStreamHandlers): SpdyStream {
    if (this.#ended) throw new AppError("WIRE_SPDY_ENDED", "the SPDY session is over");
    const id = this.#nextId;
    this.#nextId += 2;
    const entry = this.#add(id, headers, handlers);
    this.#control(types.synStream, 0, [uint32(id), uint32(0), Uint8Array.of(0, 0), this.#headerWriter.encode(headers)]);
    return entry.stream;
  }

  ping(id: number): void {
    this.#control(types.ping, 0, [uint32(id)]);
  }

  /** Says good-bye and resets whatever is open; nothing is sent afterwards. */
  close(): void {
    if (this.#ended) return;
    this.#control(types.goAway, 0, [uint32(this.#lastPeerId), uint32(0)]);
    this.end();
  }

  /** The connection is gone: every stream still open is reset. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    const open = [...this.#streams.values()];
    this.#streams.clear();
    for (const entry of open) entry.handlers.reset();
  }

  /** Takes bytes in any portions. Throws WIRE_SPDY when the peer breaks the protocol; the session is over then. */
  receive(chunk: Uint8Array): void {
    try {
      this.#receive(chunk);
    } catch (error) {
      if (!this.#ended) this.#control(types.goAway, 0, [uint32(this.#lastPeerId), uint32(1)]);
      this.end();
      throw error;
    }
  }

  #receive(chunk: Uint8Array): void {
    let rest = chunk;
    while (!this.#ended) {
      if (this.#data) {
        const piece = rest.subarray(0, this.#data.left);
        rest = rest.subarray(piece.length);
        this.#takeData(piece);
        if (this.#data) return;
        continue;
      }
      if (this.#partial.length > 0) {
        rest = concat([this.#partial, rest]);
        this.#partial = new Uint8Array(0);
      }
      if (rest.length < headBytes) break;
      const first = readUint32(rest, 0);
      const size = readUint32(rest, 4) & 0xffffff;
      const flags = rest[4]!;
      if ((first & 0x80000000) === 0) {
        this.#data = { entry: this.#streams.get(first), id: first, left: size, fin: (flags & flagFin) !== 0 };
        rest = rest.subarray(headBytes);
        if (!this.#data.entry && first === 0) throw broken("data on stream 0");
        if (size === 0) this.#takeData(new Uint8Array(0));
        continue;
      }
      if (((first >>> 16) & 0x7fff) !== version) throw broken(`version ${(first >>> 16) & 0x7fff}`);
      if (size > maxControlBytes) throw broken(`control frame of ${size} bytes`);
      if (rest.length < headBytes + size) break;
      this.#takeControl(first & 0xffff, flags, rest.subarray(headBytes, headBytes + size));
      rest = rest.subarray(headBytes + size);
    }
    if (!this.#ended) this.#partial = rest.slice();
  }

  #takeData(piece: Uint8Array): void {
    const data = this.#data!;
    data.left -= piece.length;
    const { entry } = data;
    const isLast = data.left === 0;
    if (isLast) this.#data = undefined;
    if (piece.length > 0 && this.#options.windowUpdates) {
      this.#control(types.windowUpdate, 0, [uint32(0), uint32(piece.length)]);
      if (entry) this.#control(types.windowUpdate, 0, [uint32(data.id), uint32(piece.length)]);
    }
    // Data for a stream that was reset a moment ago is normal and dropped.
    if (!entry || this.#streams.get(data.id) !== entry) return;
    if (entry.gotEnd) throw broken("data after the end of a stream");
    if (piece.length > 0) entry.handlers.data(piece);
    if (isLast && data.fin) this.#gotEnd(entry);
  }

  #takeControl(type: number, flags: number, payload: Uint8Array): void {
    switch (type) {
      case types.synStream:
        this.#takeSynStream(flags, payload);
        return;
      case types.synReply:
      case types.headers: {
        const id = readUint32(payload, 0) & 0x7fffffff;
        // Decoded in any case: the compression state goes on.
        const headers = this.#headerReader.decode(payload.subarray(4));
        const entry = this.#streams.get(id);
        if (type === types.synReply) entry?.handlers.reply?.(headers);
        if (entry && (flags & flagFin) !== 0) this.#gotEnd(entry);
        return;
      }
      case types.rstStream: {
        const entry = this.#streams.get(readUint32(payload, 0) & 0x7fffffff);
        if (!entry) return;
        this.#streams.delete(entry.stream.id);
        entry.handlers.reset();
        return;
      }
      case types.ping: {
        const id = readUint32(payload, 0);
        const isOurs = (id & 1) === (this.#options.role === "client" ? 1 : 0);
        if (!isOurs) this.ping(id);
        return;
      }
      case types.goAway:
        this.#options.goAway?.();
        return;
      default:
        // SETTINGS, WINDOW_UPDATE and whatever comes later change nothing here.
        return;
    }
  }

  #takeSynStream(flags: number, payload: Uint8Array): void {
    const id = readUint32(payload, 0) & 0x7fffffff;
    if (payload.length < 10) throw broken("short SYN_STREAM");
    const headers = this.#headerReader.decode(payload.subarray(10));
    const isPeers = (id & 1) === (this.#options.role === "client" ? 0 : 1);
    if (!isPeers || id <= this.#lastPeerId) throw broken(`stream id ${id}`);
    this.#lastPeerId = id;
    const refuse = () => this.#control(types.rstStream, 0, [uint32(id), uint32(resets.refusedStream)]);
    if (!this.#options.accept || this.#streams.size >= maxStreams) {
      refuse();
      return;
    }
    const entry = this.#add(id, headers, silent);
    const handlers = this.#options.accept(entry.stream);
    if (!handlers) {
      this.#streams.delete(id);
      refuse();
      return;
    }
    entry.handlers = handlers;
    if ((flags & flagFin) !== 0) this.#gotEnd(entry);
  }

  #gotEnd(entry: Entry): void {
    if (entry.gotEnd) return;
    entry.gotEnd = true;
    if (entry.sentEnd) this.#streams.delete(entry.stream.id);
    entry.handlers.end();
  }

  #add(id: number, headers: SpdyHeaders, handlers: SpdyStreamHandlers): Entry {
    const isOpen = () => !this.#ended && this.#streams.get(id) === entry;
    const stream: SpdyStream = {
      id,
      headers,
      write: (bytes) => {
        if (!isOpen() || entry.sentEnd) return;
        for (let at = 0; at < bytes.length; at += maxDataBytes)
          this.#dataFrame(id, 0, bytes.subarray(at, at + maxDataBytes));
      },
      end: () => {
        if (!isOpen() || entry.sentEnd) return;
        entry.sentEnd = true;
        this.#dataFrame(id, flagFin, new Uint8Array(0));
        if (entry.gotEnd) this.#streams.delete(id);
      },
      reset: () => {
        if (!isOpen()) return;
        this.#streams.delete(id);
        this.#control(types.rstStream, 0, [uint32(id), uint32(resets.cancel)]);
        entry.handlers.reset();
      },
      reply: (replyHeaders = {}) => {
        if (isOpen()) this.#control(types.synReply, 0, [uint32(id), this.#headerWriter.encode(replyHeaders)]);
      },
    };
    const entry: Entry = { stream, handlers, sentEnd: false, gotEnd: false };
    this.#streams.set(id, entry);
    return entry;
  }

  #control(type: number, flags: number, payload: readonly Uint8Array[]): void {
    if (this.#ended) return;
    const size = payload.reduce((sum, part) => sum + part.length, 0);
    this.#options.send(
      concat([uint32((0x80000000 | (version << 16) | type) >>> 0), uint32(((flags << 24) | size) >>> 0), ...payload]),
    );
  }

  #dataFrame(id: number, flags: number, bytes: Uint8Array): void {
    this.#options.send(concat([uint32(id), uint32(((flags << 24) | bytes.length) >>> 0), bytes]));
  }
}

const silent: SpdyStreamHandlers = { data() {}, end() {}, reset() {} };
const broken = (why: string) => new AppError("WIRE_SPDY", `the SPDY peer broke the protocol: ${why}`);
