// HTTP/2 for clients of benches that cost little beside what they measure: one socket, frames written by hand, many streams
// at once, windows as large as they can be.
import type { Socket } from "node:net";
import { frameFlag, frameHeaderBytes, frameType, maxWindowBytes, preface, setting } from "#wire/http2/frames.ts";
import { HpackDecoder } from "#wire/http2/hpack.ts";

export interface LoadStream {
  /** Names and values by turns: of the answer's head, then perhaps of its trailers. */
  headers(fields: readonly string[]): void;
  data(bytes: Buffer): void;
  end(): void;
  fail(why: string): void;
}

/** Bytes taken before the server is told: seldom, and long before its window is used up. */
const creditBytes = 2 ** 28;

export class Http2Load {
  readonly #socket: Socket;
  readonly #decoder = new HpackDecoder(64 * 1024);
  readonly #streams = new Map<number, LoadStream>();
  #rest: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #credit = 0;
  #out: Buffer[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (error) => this.#failed(error.message));
    socket.on("close", () => this.#failed("closed"));
    const window = Buffer.alloc(6);
    window.writeUInt16BE(setting.initialWindowSize);
    window.writeUInt32BE(maxWindowBytes, 2);
    this.#send(Buffer.from(preface), frame(frameType.settings, 0, 0, window));
    this.#send(frame(frameType.windowUpdate, 0, 0, uint32(maxWindowBytes - 65_535)));
  }

  /** A new stream; one that `isOpen` takes more by `write`. */
  open(head: Uint8Array, body: Uint8Array | undefined, isOpen: boolean, stream: LoadStream): number {
    const id = this.#nextId;
    this.#nextId += 2;
    this.#streams.set(id, stream);
    const isBare = body === undefined && !isOpen;
    this.#send(frame(frameType.headers, frameFlag.endHeaders | (isBare ? frameFlag.endStream : 0), id, head));
    if (body) this.#send(frame(frameType.data, isOpen ? 0 : frameFlag.endStream, id, body));
    return id;
  }

  write(id: number, bytes: Uint8Array): void {
    this.#send(frame(frameType.data, 0, id, bytes));
  }

  close(): void {
    this.#streams.clear();
    this.#socket.destroy();
  }

  #send(...parts: Buffer[]): void {
    if (this.#out.length === 0) {
      process.nextTick(() => {
        this.#socket.write(Buffer.concat(this.#out));
        this.#out = [];
      });
    }
    this.#out.push(...parts);
  }

  #receive(chunk: Buffer): void {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let at = 0;
    while (bytes.length - at >= frameHeaderBytes) {
      const start = at + frameHeaderBytes;
      const end = start + bytes.readUIntBE(at, 3);
      if (end > bytes.length) break;
      this.#frame(bytes[at + 3]!, bytes[at + 4]!, bytes.readUInt32BE(at + 5), bytes.subarray(start, end));
      at = end;
    }
    this.#rest = bytes.subarray(at);
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    const stream = this.#streams.get(id);
    switch (type) {
      case frameType.data:
        this.#take(payload.length);
        if (payload.length > 0) stream?.data(payload);
        break;
      case frameType.headers: {
        const fields = this.#decoder.decode(payload);
        if (fields) stream?.headers(fields);
        break;
      }
      case frameType.reset:
        this.#streams.delete(id);
        stream?.fail("reset");
        return;
      case frameType.goAway:
        this.#failed("the server goes away");
        return;
      case frameType.ping:
        if ((flags & frameFlag.ack) === 0) this.#send(frame(frameType.ping, frameFlag.ack, 0, payload));
        return;
      case frameType.settings:
        if ((flags & frameFlag.ack) === 0) this.#send(frame(frameType.settings, frameFlag.ack, 0, Buffer.alloc(0)));
        return;
      default:
        return;
    }
    if ((flags & frameFlag.endStream) !== 0) {
      this.#streams.delete(id);
      stream?.end();
    }
  }

  #take(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit < creditBytes) return;
    this.#send(frame(frameType.windowUpdate, 0, 0, uint32(this.#credit)));
    this.#credit = 0;
  }

  #failed(why: string): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const { fail } of streams) fail(why);
  }
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function frame(type: number, flags: number, id: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(frameHeaderBytes + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(id, 5);
  bytes.set(payload, frameHeaderBytes);
  return bytes;
}
