// Unary gRPC calls over HTTP/2 with as little work as can be: node:http2 costs three times as much as the call itself,
// which a hundred thousand calls feel. For peers of tests on this machine, and for nothing else: one connection, no
// deadlines, whatever is unusual is an error.
import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import { decodeMessage, GrpcError, grpcCodes } from "#wire/grpc.ts";
import { frameFlag, frameHeaderBytes, frameType, maxWindowBytes, preface, setting } from "#wire/http2/frames.ts";
import { encodeHeaderBlock, HpackDecoder } from "#wire/http2/hpack.ts";

interface Call {
  readonly resolve: (message: Uint8Array) => void;
  readonly reject: (error: Error) => void;
  readonly parts: Buffer[];
}

const maxFrameBytes = 16_384;
const defaultWindowBytes = 65_535;
/** What the peer is allowed to send is renewed after so much of it. */
const renewBytes = 2 ** 29;

export class RawClient {
  readonly #socket: Socket;
  readonly #decoder = new HpackDecoder(16_384);
  readonly #blocks = new Map<string, Uint8Array>();
  readonly #calls = new Map<number, Call>();
  /** What may still be sent, on the connection and at first on a stream; frames that wait for it. */
  #window = defaultWindowBytes;
  #streamWindow = defaultWindowBytes;
  readonly #streamWindows = new Map<number, number>();
  #waiting: { readonly id: number; readonly data: Buffer }[] = [];
  #out: Uint8Array[] = [];
  #received = 0;
  #nextId = 1;
  #rest: Buffer = Buffer.alloc(0);
  #failure: Error | undefined;

  static async open(port: number): Promise<RawClient> {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new RawClient(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(setting.enablePush, 0);
    settings.writeUInt16BE(setting.initialWindowSize, 6);
    settings.writeUInt32BE(maxWindowBytes, 8);
    socket.write(preface);
    this.#frame(frameType.settings, 0, 0, settings);
    this.#allow(maxWindowBytes - defaultWindowBytes);
    this.#flush();
    socket.on("data", (chunk: Buffer) => {
      try {
        this.#receive(chunk);
      } catch (error) {
        this.#fail(error as Error);
      }
    });
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("the connection ended")));
  }

  unary(path: string, message: Uint8Array): Promise<Uint8Array> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId;
    this.#nextId += 2;
    const data = Buffer.allocUnsafe(5 + message.length);
    data[0] = 0;
    data.writeUInt32BE(message.length, 1);
    data.set(message, 5);
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject, parts: [] });
      this.#frame(frameType.headers, frameFlag.endHeaders, id, this.#block(path));
      this.#waiting.push({ id, data });
      this.#send();
      this.#flush();
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #block(path: string): Uint8Array {
    let block = this.#blocks.get(path);
    if (!block) {
      block = encodeHeaderBlock([
        [":method", "POST"],
        [":scheme", "http"],
        [":path", path],
        [":authority", "localhost"],
        ["content-type", "application/grpc"],
        ["te", "trailers"],
      ]);
      this.#blocks.set(path, block);
    }
    return block;
  }

  #frame(type: number, flags: number, id: number, payload: Uint8Array): void {
    const head = Buffer.allocUnsafe(frameHeaderBytes);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(id, 5);
    this.#out.push(head, payload);
  }

  /** In one piece: cheaper than a vector of small ones. */
  #flush(): void {
    if (this.#out.length === 0) return;
    this.#socket.write(this.#out.length === 1 ? this.#out[0]! : Buffer.concat(this.#out));
    this.#out = [];
  }

  #allow(bytes: number): void {
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32BE(bytes);
    this.#frame(frameType.windowUpdate, 0, 0, payload);
  }

  #send(): void {
    while (this.#waiting.length > 0) {
      const { id, data } = this.#waiting[0]!;
      const own = this.#streamWindows.get(id) ?? this.#streamWindow;
      const size = Math.min(data.length, own, this.#window, maxFrameBytes);
      if (size <= 0) return;
      const isLast = size === data.length;
      this.#frame(frameType.data, isLast ? frameFlag.endStream : 0, id, data.subarray(0, size));
      this.#window -= size;
      if (isLast) {
        this.#waiting.shift();
        this.#streamWindows.delete(id);
      } else {
        this.#waiting[0] = { id, data: data.subarray(size) };
        this.#streamWindows.set(id, own - size);
      }
    }
  }

  #receive(chunk: Buffer): void {
    const all = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let at = 0;
    while (all.length - at >= frameHeaderBytes) {
      const size = all.readUIntBE(at, 3);
      const end = at + frameHeaderBytes + size;
      if (end > all.length) break;
      this.#take(all[at + 3]!, all[at + 4]!, all.readUInt32BE(at + 5), all.subarray(at + frameHeaderBytes, end));
      at = end;
    }
    this.#rest = all.subarray(at);
    this.#flush();
  }

  #take(type: number, flags: number, id: number, payload: Buffer): void {
    switch (type) {
      case frameType.data:
        this.#received += payload.length;
        if (this.#received > renewBytes) {
          this.#allow(this.#received);
          this.#received = 0;
        }
        this.#calls.get(id)?.parts.push(payload);
        return;
      case frameType.headers:
        if (!(flags & frameFlag.endHeaders) || flags & frameFlag.padded) throw new Error("unusual headers");
        this.#headers(id, (flags & frameFlag.endStream) !== 0, payload);
        return;
      case frameType.settings:
        if (flags & frameFlag.ack) return;
        for (let i = 0; i < payload.length; i += 6) {
          if (payload.readUInt16BE(i) === setting.initialWindowSize) this.#streamWindow = payload.readUInt32BE(i + 2);
        }
        this.#frame(frameType.settings, frameFlag.ack, 0, Buffer.alloc(0));
        return;
      case frameType.ping:
        if (!(flags & frameFlag.ack)) this.#frame(frameType.ping, frameFlag.ack, 0, payload);
        return;
      case frameType.windowUpdate: {
        const bytes = payload.readUInt32BE(0);
        if (id === 0) this.#window += bytes;
        else if (this.#streamWindows.has(id)) this.#streamWindows.set(id, this.#streamWindows.get(id)! + bytes);
        this.#send();
        return;
      }
      case frameType.reset: {
        // What follows an answer that is already whole.
        const call = this.#calls.get(id);
        this.#calls.delete(id);
        this.#waiting = this.#waiting.filter((w) => w.id !== id);
        call?.reject(new GrpcError("UNAVAILABLE", `the stream was reset: ${payload.readUInt32BE(0)}`));
        return;
      }
      case frameType.goAway:
        throw new Error(`the server goes away: ${payload.subarray(8).toString()}`);
      default:
        throw new Error(`frame of type ${type}`);
    }
  }

  #headers(id: number, isEnd: boolean, payload: Buffer): void {
    const list = this.#decoder.decode(payload);
    if (!isEnd) return;
    const call = this.#calls.get(id);
    if (!call) return;
    this.#calls.delete(id);
    this.#waiting = this.#waiting.filter((w) => w.id !== id);
    const of = (name: string) => {
      const at = list?.indexOf(name) ?? -1;
      return at < 0 ? undefined : list![at + 1];
    };
    const status = Number(of("grpc-status") ?? 2);
    if (status !== 0) {
      call.reject(new GrpcError(grpcCodes[status] ?? "UNKNOWN", decodeMessage(of("grpc-message") ?? "")));
      return;
    }
    const data = call.parts.length === 1 ? call.parts[0]! : Buffer.concat(call.parts);
    if (data.length < 5 || data.readUInt32BE(1) !== data.length - 5) call.reject(new Error("not one whole message"));
    else call.resolve(data.subarray(5));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
    this.#socket.destroy();
  }
}
