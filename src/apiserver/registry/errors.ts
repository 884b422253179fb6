// What the API answers when the datastore refuses: one table from its codes to a Status.
import { AppError, messageOf } from "#base/errors.ts";
import { ApiError, expired, internalError, requestTooLarge, serviceUnavailable } from "#model/status.ts";

const byCode: Readonly<Record<string, (error: AppError) => ApiError>> = {
  DATASTORE_COMPACTED: () => expired("The resourceVersion for the provided list is too old."),
  DATASTORE_CLOSED: () => serviceUnavailable("the datastore is shutting down"),
  DATASTORE_FULL: () => new ApiError(507, "InternalError", "the datastore has no space left"),
  DATASTORE_TOO_LARGE: (error) => requestTooLarge(error.message),
  DATASTORE_FLUSH_FAILED: () => serviceUnavailable("the datastore could not flush the write; its outcome is unknown"),
  DATASTORE_UNAVAILABLE: (error) => serviceUnavailable(`the datastore does not answer: ${error.message}`),
};

/** Any thrown thing as the Status to send. Programmer errors become a 500 that says no more than their message. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof AppError) {
    const make = byCode[error.code];
    if (make) return make(error);
  }
  return internalError(messageOf(error));
}

/** A read asked for a revision that is still to come. */
export function tooLargeRevision(asked: number, current: number): ApiError {
  return new ApiError(504, "Timeout", `Too large resource version: ${asked}, current: ${current}`, {
    causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
    retryAfterSeconds: 1,
  });
}
