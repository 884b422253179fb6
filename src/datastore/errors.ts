// Everything a Backend rejects with, by code. The API server and the etcd face each map these in one table.
import { AppError } from "#base/errors.ts";

export type DatastoreErrorCode =
  | "DATASTORE_COMPACTED"
  | "DATASTORE_FUTURE_REVISION"
  | "DATASTORE_CLOSED"
  | "DATASTORE_FULL"
  | "DATASTORE_TOO_LARGE"
  | "DATASTORE_FLUSH_FAILED"
  | "DATASTORE_WATCH_SLOW"
  | "DATASTORE_LEASE_NOT_FOUND"
  | "DATASTORE_KEY_NOT_FOUND"
  | "DATASTORE_UNAVAILABLE"
  | "DATASTORE_LOCKED"
  | "DATASTORE_FORMAT"
  | "DATASTORE_CORRUPT"
  | "DATASTORE_BUCKET"
  | "DATASTORE_BAD_REQUEST";

export function datastoreError(
  code: DatastoreErrorCode,
  message: string,
  details: Readonly<Record<string, unknown>> = {},
  cause?: unknown,
): AppError {
  return new AppError(code, message, details, cause === undefined ? undefined : { cause });
}

export function futureRevision(asked: number, current: number): Error {
  return datastoreError("DATASTORE_FUTURE_REVISION", `revision ${asked} is not yet reached; current is ${current}`, {
    asked,
    current,
  });
}

export function compactedRevision(asked: number, compacted: number): Error {
  return datastoreError("DATASTORE_COMPACTED", `revision ${asked} has been compacted; oldest is ${compacted}`, {
    asked,
    compacted,
  });
}

export function leaseNotFound(id: number): Error {
  return datastoreError("DATASTORE_LEASE_NOT_FOUND", `lease ${id} not found`, { id });
}

export function closedError(): Error {
  return datastoreError("DATASTORE_CLOSED", "the datastore is closed");
}

export function recoveringError(): Error {
  return datastoreError("DATASTORE_FLUSH_FAILED", "the datastore is recovering from a failed write");
}

const beingRebuilt = "the datastore's index failed and is being rebuilt";

export function faultError(): Error {
  return datastoreError("DATASTORE_CORRUPT", beingRebuilt);
}

export function isFaultError(error: unknown): boolean {
  return error instanceof Error && error.message === beingRebuilt;
}
