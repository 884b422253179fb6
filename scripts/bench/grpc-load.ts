// A gRPC client for benches that costs little beside what it measures: one socket, frames written by hand, many calls in
// flight, no flow control worth the name (its windows are as large as they can be). For what h2load cannot do: another
// key for each put, and watches.
import { connect, type Socket } from "node:net";
import { frameFlag, frameHeaderBytes, frameType, maxWindowBytes, preface, setting } from "#wire/http2/frames.ts";
import { encodeHeaderBlock, HpackDecoder } from "#wire/http2/hpack.ts";

interface Stream {
  message(bytes: Buffer): void;
  end(status: string): void;
  rest: Buffer;
}

export class LoadConnection {
  readonly #socket: Socket;
  readonly #decoder = new HpackDecoder(64 * 1024);
  readonly #streams = new Map<number, Stream>();
  #rest: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #credit = 0;
  #out: Buffer[] = [];

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    this.#socket.on("error", (error) => this.#failed(error.message));
    this.#socket.on("close", () => this.#failed("closed"));
    const window = Buffer.alloc(6);
    window.writeUInt16BE(setting.initialWindowSize);
    window.writeUInt32BE(maxWindowBytes, 2);
    this.#send(Buffer.from(preface), frame(frameType.settings, 0, 0, window));
    this.#send(frame(frameType.windowUpdate, 0, 0, uint32(maxWindowBytes - 65_535)));
  }

  /** One message, one answer. Rejects when the status is not OK. */
  unary(path: string, message: Uint8Array): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      let answer: Buffer | undefined;
      const id = this.#open(path, {
        message: (bytes) => {
          answer = bytes;
        },
        end: (status) => (status === "0" && answer ? resolve(answer) : reject(new Error(`gRPC status ${status}`))),
      });
      this.#send(frame(frameType.data, frameFlag.endStream, id, grpc(message)));
    });
  }

  /** A stream that stays open. */
  stream(path: string, message: (bytes: Buffer) => void): (message: Uint8Array) => void {
    const id = this.#open(path, { message, end: (status) => this.#failed(`a stream ended: ${status}`) });
    return (bytes) => this.#send(frame(frameType.data, 0, id, grpc(bytes)));
  }

  close(): void {
    this.#streams.clear();
    this.#socket.destroy();
  }

  #open(path: string, { message, end }: Omit<Stream, "rest">): number {
    const id = this.#nextId;
    this.#nextId += 2;
    this.#streams.set(id, { message, end, rest: Buffer.alloc(0) });
    this.#send(frame(frameType.headers, frameFlag.endHeaders, id, headersOf(path)));
    return id;
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
      const end = at + frameHeaderBytes + bytes.readUIntBE(at, 3);
      if (end > bytes.length) break;
      this.#frame(
        bytes[at + 3]!,
        bytes[at + 4]!,
        bytes.readUInt32BE(at + 5),
        bytes.subarray(at + frameHeaderBytes, end),
      );
      at = end;
    }
    this.#rest = bytes.subarray(at);
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    const stream = this.#streams.get(id);
    if (type === frameType.data) {
      this.#credit += payload.length;
      if (this.#credit > 2 ** 28) {
        this.#send(frame(frameType.windowUpdate, 0, 0, uint32(this.#credit)));
        this.#credit = 0;
      }
      if (stream) this.#data(stream, payload);
    } else if (type === frameType.headers) {
      const headers = this.#decoder.decode(payload);
      if ((flags & frameFlag.endStream) === 0) return;
      this.#streams.delete(id);
      stream?.end(headers?.[headers.indexOf("grpc-status") + 1] ?? "none");
    } else if (type === frameType.reset) {
      this.#streams.delete(id);
      stream?.end("reset");
    } else if (type === frameType.ping && (flags & frameFlag.ack) === 0) {
      this.#send(frame(frameType.ping, frameFlag.ack, 0, payload));
    } else if (type === frameType.settings && (flags & frameFlag.ack) === 0) {
      this.#send(frame(frameType.settings, frameFlag.ack, 0, Buffer.alloc(0)));
    }
  }

  #data(stream: Stream, payload: Buffer): void {
    let rest = stream.rest.length > 0 ? Buffer.concat([stream.rest, payload]) : payload;
    while (rest.length >= 5) {
      const end = 5 + rest.readUInt32BE(1);
      if (end > rest.length) break;
      stream.message(rest.subarray(5, end));
      rest = rest.subarray(end);
    }
    stream.rest = rest;
  }

  #failed(why: string): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const { end } of streams) end(why);
  }
}

const blocks = new Map<string, Uint8Array>();

function headersOf(path: string): Uint8Array {
  let block = blocks.get(path);
  block ??= encodeHeaderBlock([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "127.0.0.1"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
  ]);
  blocks.set(path, block);
  return block;
}

function grpc(message: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([0]), uint32(message.length), message]);
}

function uint32(value: number): Buffer {
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
