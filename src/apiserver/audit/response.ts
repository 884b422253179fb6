// A response that tells the audit log what is answered. Where the log is waited for, the last of an answer goes out only
// when its event is kept. Upstream counterpart: auditResponseWriter.
import type { ResponseHeaders, ServerResponse } from "#platform/https-server.ts";
import type { AuditRecord } from "./record.ts";

export class AuditedResponse implements ServerResponse {
  readonly #inner: ServerResponse;
  readonly #record: AuditRecord;
  constructor(inner: ServerResponse, record: AuditRecord) {
    this.#inner = inner;
    this.#record = record;
  }
  get headSent(): boolean {
    return this.#inner.headSent;
  }
  get pendingBytes(): number {
    return this.#inner.pendingBytes;
  }
  head(status: number, headers: ResponseHeaders): void {
    this.#record.head(status);
    this.#inner.head(status, headers);
  }
  flushHead(): void {
    this.#inner.flushHead();
  }
  write(chunk: Uint8Array | string): boolean {
    return this.#inner.write(chunk);
  }
  drained(): Promise<void> {
    return this.#inner.drained();
  }
  end(chunk?: Uint8Array | string): void {
    const kept = this.#record.ending();
    if (kept) void kept.then(() => this.#inner.end(chunk));
    else this.#inner.end(chunk);
  }
  destroy(): void {
    this.#inner.destroy();
  }
}

/** Calls `onStatus` with the code of what is written first to a socket whose owner answers by itself. */
export function onFirstStatus(
  socket: { write(chunk: unknown, ...rest: never[]): boolean },
  onStatus: (code: number) => void,
): void {
  const write = socket.write;
  socket.write = (chunk, ...rest) => {
    socket.write = write;
    const text = typeof chunk === "string" ? chunk : Buffer.from(chunk as Uint8Array).toString("latin1", 0, 16);
    const code = /^HTTP\/1\.[01] (\d{3})/.exec(text)?.[1];
    if (code !== undefined) onStatus(Number(code));
    return write.call(socket, chunk, ...rest);
  };
}
