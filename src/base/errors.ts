// The error class of everything that is not a Kubernetes Status (for that see model/status.ts).
// Ask by `code`, never by message text. Codes are upper snake case and start with their folder: DATASTORE_COMPACTED.

export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: string;
  readonly details: Readonly<Record<string, unknown>>;
  constructor(
    code: string,
    message: string,
    details: Readonly<Record<string, unknown>> = {},
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.code = code;
    this.details = details;
  }
}

export function hasCode(error: unknown, code: string): boolean {
  return typeof error === "object" && error !== null && (error as { code?: unknown }).code === code;
}

/** The message of whatever was thrown, for logs and conditions. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** True where `error` only says that `signal` was aborted. */
export function isAbort(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && (error === signal.reason || (error instanceof Error && error.name === "AbortError"));
}
