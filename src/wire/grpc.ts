// gRPC's framing and status rules without a transport: five-byte message prefix, timeouts, status and message trailers.
// Compressed messages are refused (we never offer an encoding). Source: the gRPC over HTTP/2 protocol description.

import { Buffer } from "node:buffer";

export const grpcCodes = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;
export type GrpcCode = (typeof grpcCodes)[number];

/** A call that did not end with OK. The message is the server's own, as people will read it in events. */
export class GrpcError extends Error {
  override readonly name = "GrpcError";
  readonly code: GrpcCode;
  constructor(code: GrpcCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export const isGrpcError = (error: unknown, code?: GrpcCode): error is GrpcError =>
  error instanceof GrpcError && (code === undefined || error.code === code);

export const framePrefixBytes = 5;

/** One uncompressed message with its prefix. */
export function encodeFrame(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(framePrefixBytes + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, framePrefixBytes);
  return frame;
}

/** Cuts a byte stream into messages; `maxBytes` bounds one message. Throws GrpcError for what gRPC does not allow. */
export class FrameReader {
  readonly #maxBytes: number;
  #chunks: Uint8Array[] = [];
  #size = 0;
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Uint8Array): Uint8Array[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    const messages: Uint8Array[] = [];
    while (this.#size >= framePrefixBytes) {
      const head = this.#peek(framePrefixBytes);
      if (head[0] !== 0) throw new GrpcError("UNIMPLEMENTED", "compressed gRPC messages are not supported");
      const length = new DataView(head.buffer, head.byteOffset).getUint32(1);
      if (length > this.#maxBytes) {
        throw new GrpcError("RESOURCE_EXHAUSTED", `received message larger than max (${length} vs. ${this.#maxBytes})`);
      }
      if (this.#size < framePrefixBytes + length) break;
      messages.push(this.#take(framePrefixBytes + length).subarray(framePrefixBytes));
    }
    return messages;
  }

  /** True when the stream stopped inside a message. */
  get partial(): boolean {
    return this.#size > 0;
  }

  #peek(size: number): Uint8Array {
    if (this.#chunks[0]!.length < size) this.#chunks = [this.#join()];
    return this.#chunks[0]!.subarray(0, size);
  }

  #take(size: number): Uint8Array {
    if (this.#chunks[0]!.length < size) this.#chunks = [this.#join()];
    const first = this.#chunks[0]!;
    this.#size -= size;
    if (first.length === size) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(size);
    return first.subarray(0, size);
  }

  #join(): Uint8Array {
    const all = new Uint8Array(this.#size);
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }
}

/** The `grpc-timeout` header: at most eight digits and a unit. */
export function encodeTimeout(ms: number): string {
  const whole = Math.max(1, Math.ceil(ms));
  return whole < 100_000_000 ? `${whole}m` : `${Math.min(99_999_999, Math.ceil(whole / 1000))}S`;
}

const timeoutUnitsMs: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/** The `grpc-timeout` header in milliseconds; undefined when it is not one. */
export function decodeTimeout(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * timeoutUnitsMs[unit!]!;
}

/** The error that trailers stand for, or undefined for OK. */
export function statusOf(headers: Readonly<Record<string, unknown>>): GrpcError | undefined {
  const raw = headers["grpc-status"];
  if (raw === undefined) {
    const http = headers[":status"];
    return new GrpcError("UNKNOWN", `the server ended the call without a gRPC status (HTTP ${String(http)})`);
  }
  const code = grpcCodes[Number(raw)] ?? "UNKNOWN";
  if (code === "OK") return undefined;
  return new GrpcError(code, decodeMessage(String(headers["grpc-message"] ?? "")) || code);
}

/** `grpc-message` as it goes into a header: what is not printable ASCII, and `%`, percent-encoded. */
export function encodeMessage(text: string): string {
  return text.replace(/[^ -$&-~]+/gu, (part) => {
    // Through UTF-8 and back: a lone half of a surrogate pair has none.
    const whole = Buffer.from(part).toString();
    return encodeURIComponent(whole);
  });
}

/** `grpc-message` is UTF-8, percent-encoded; what is not valid is kept as it came. */
export function decodeMessage(text: string): string {
  try {
    return decodeURIComponent(text.replace(/%(?![0-9A-Fa-f]{2})/g, "%25"));
  } catch {
    return text;
  }
}
