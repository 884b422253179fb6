// A client of the API for benches that costs little beside what it measures: HTTP/2 over TLS with frames written by hand,
// many requests in flight on few connections, windows as large as they can be, and watches that only count their lines.
import { connect, type TLSSocket } from "node:tls";
import { frameFlag, frameHeaderBytes, frameType, maxWindowBytes, preface, setting } from "#wire/http2/frames.ts";
import { encodeHeaderBlock, HpackDecoder } from "#wire/http2/hpack.ts";

export interface ApiAddress {
  readonly port: number;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface ApiAnswer {
  readonly status: number;
  readonly body: Buffer;
}

interface Stream {
  headers(status: number): void;
  data(bytes: Buffer): void;
  end(): void;
  fail(why: string): void;
}

const newline = 10;
/** Bytes taken before the server is told: seldom, and long before its window is used up. */
const creditBytes = 2 ** 28;

export class ApiConnection {
  readonly #socket: TLSSocket;
  readonly #decoder = new HpackDecoder(64 * 1024);
  readonly #streams = new Map<number, Stream>();
  readonly #blocks = new Map<string, Uint8Array>();
  #rest: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #credit = 0;
  #out: Buffer[] = [];

  static open(address: ApiAddress): Promise<ApiConnection> {
    return new Promise((resolve, reject) => {
      const { ca, cert, key, port } = address;
      const socket = connect({
        ...{ host: "127.0.0.1", port, ALPNProtocols: ["h2"], rejectUnauthorized: ca !== undefined },
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
      });
      socket.once("error", reject);
      socket.once("secureConnect", () => {
        socket.removeListener("error", reject);
        resolve(new ApiConnection(socket));
      });
    });
  }

  private constructor(socket: TLSSocket) {
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

  request(method: string, path: string, body?: Uint8Array, type = "application/json"): Promise<ApiAnswer> {
    return new Promise((resolve, reject) => {
      let status = 0;
      const parts: Buffer[] = [];
      this.#open(method, path, body, type, {
        headers(code) {
          status = code;
        },
        data: (bytes) => parts.push(Buffer.from(bytes)),
        end: () => resolve({ status, body: Buffer.concat(parts) }),
        fail: (why) => reject(new Error(`${method} ${path}: ${why}`)),
      });
    });
  }

  /** As `request`, but only the answer's size is kept. */
  size(path: string): Promise<{ status: number; bytes: number }> {
    return new Promise((resolve, reject) => {
      let status = 0;
      let size = 0;
      this.#open("GET", path, undefined, "", {
        headers(code) {
          status = code;
        },
        data(bytes) {
          size += bytes.length;
        },
        end: () => resolve({ status, bytes: size }),
        fail: (why) => reject(new Error(`GET ${path}: ${why}`)),
      });
    });
  }

  /** Resolves when the server has begun; `line` is called for each line that is complete. */
  watch(path: string, line: () => void, ended: (why: string) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#open("GET", path, undefined, "", {
        headers(status) {
          if (status === 200) resolve();
          else reject(new Error(`watch: ${status}`));
        },
        data(bytes) {
          // A line may come in several frames; only its end counts.
          if (bytes[bytes.length - 1] === newline) line();
        },
        end: () => ended("the server ended it"),
        fail(why) {
          reject(new Error(why));
          ended(why);
        },
      });
    });
  }

  close(): void {
    this.#streams.clear();
    this.#socket.destroy();
  }

  #open(method: string, path: string, body: Uint8Array | undefined, type: string, stream: Stream): void {
    const id = this.#nextId;
    this.#nextId += 2;
    this.#streams.set(id, stream);
    const flags = frameFlag.endHeaders | (body ? 0 : frameFlag.endStream);
    this.#send(frame(frameType.headers, flags, id, this.#headersOf(method, path, body ? type : "")));
    if (body) this.#send(frame(frameType.data, frameFlag.endStream, id, body));
  }

  #headersOf(method: string, path: string, type: string): Uint8Array {
    const key = `${method} ${path} ${type}`;
    let block = this.#blocks.get(key);
    if (!block) {
      block = encodeHeaderBlock([
        [":method", method],
        [":scheme", "https"],
        [":path", path],
        [":authority", "127.0.0.1"],
        ["accept", "application/json"],
        ...(type === "" ? [] : ([["content-type", type]] as const)),
      ]);
      if (this.#blocks.size < 100) this.#blocks.set(key, block);
    }
    return block;
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
        const headers = this.#decoder.decode(payload);
        const at = headers?.indexOf(":status") ?? -1;
        if (at >= 0) stream?.headers(Number(headers![at + 1]));
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
