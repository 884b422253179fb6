// A gRPC client for benches, for what h2load cannot do: another key for each put, and watches.
import { connect } from "node:net";
import { encodeHeaderBlock } from "#wire/http2/hpack.ts";
import { Http2Load, uint32 } from "./http2-load.ts";

interface Call {
  message(bytes: Buffer): void;
  end(status: string): void;
}

export class LoadConnection {
  readonly #connection: Http2Load;

  constructor(port: number) {
    this.#connection = new Http2Load(connect(port, "127.0.0.1"));
  }

  /** One message, one answer. Rejects when the status is not OK. */
  unary(path: string, message: Uint8Array): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      let answer: Buffer | undefined;
      this.#open(path, message, false, {
        message: (bytes) => {
          answer = bytes;
        },
        end: (status) => (status === "0" && answer ? resolve(answer) : reject(new Error(`gRPC status ${status}`))),
      });
    });
  }

  /** A stream that stays open. `failed` is told when it does not. */
  stream(path: string, message: (bytes: Buffer) => void): (message: Uint8Array) => void {
    const end = (status: string): never => {
      throw new Error(`a stream ended: ${status}`);
    };
    const id = this.#open(path, undefined, true, { message, end });
    return (bytes) => this.#connection.write(id, grpc(bytes));
  }

  close(): void {
    this.#connection.close();
  }

  #open(path: string, message: Uint8Array | undefined, isOpen: boolean, call: Call): number {
    let rest: Buffer = Buffer.alloc(0);
    let status = "none";
    return this.#connection.open(headersOf(path), message && grpc(message), isOpen, {
      headers(fields) {
        const at = fields.indexOf("grpc-status");
        if (at >= 0) status = fields[at + 1]!;
      },
      data(bytes) {
        rest = rest.length > 0 ? Buffer.concat([rest, bytes]) : bytes;
        while (rest.length >= 5) {
          const end = 5 + rest.readUInt32BE(1);
          if (end > rest.length) break;
          call.message(rest.subarray(5, end));
          rest = rest.subarray(end);
        }
      },
      end: () => call.end(status),
      fail: (why) => call.end(why),
    });
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
