// A client of the API for benches that costs little beside what it measures: many requests in flight on few connections
// over TLS, and watches that only count their lines.
import { connect, type TLSSocket } from "node:tls";
import { gunzipSync } from "node:zlib";
import { encodeHeaderBlock } from "#wire/http2/hpack.ts";
import { Http2Load, type LoadStream } from "./http2-load.ts";

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

/** As a stream, told of the status only. */
type Answer = Omit<LoadStream, "headers"> & { headers(status: number): void };

const newline = 10;
export class ApiConnection {
  readonly #connection: Http2Load;
  readonly #blocks = new Map<string, Uint8Array>();

  /** Large answers are asked for, and unpacked, as mote's own client does it. */
  #isCompressed = false;

  compressed(): this {
    this.#isCompressed = true;
    return this;
  }

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
    this.#connection = new Http2Load(socket);
  }

  request(method: string, path: string, body?: Uint8Array, type = "application/json"): Promise<ApiAnswer> {
    return new Promise((resolve, reject) => {
      let status = 0;
      const parts: Buffer[] = [];
      const whole = () => {
        const bytes = Buffer.concat(parts);
        return bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes;
      };
      this.#open(method, path, body, type, {
        headers(code) {
          status = code;
        },
        data: (bytes) => parts.push(Buffer.from(bytes)),
        end: () => resolve({ status, body: whole() }),
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
    this.#connection.close();
  }

  #open(method: string, path: string, body: Uint8Array | undefined, type: string, answer: Answer): void {
    this.#connection.open(this.#headersOf(method, path, body ? type : ""), body, false, {
      ...answer,
      headers(fields) {
        const at = fields.indexOf(":status");
        if (at >= 0) answer.headers(Number(fields[at + 1]));
      },
    });
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
        ...(this.#isCompressed ? ([["accept-encoding", "gzip"]] as const) : []),
        ...(type === "" ? [] : ([["content-type", type]] as const)),
      ]);
      if (this.#blocks.size < 100) this.#blocks.set(key, block);
    }
    return block;
  }
}
