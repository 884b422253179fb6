// What etcd's failures mean to users of a Backend: known texts first (they are part of etcd's API), then the status code.
// Everything that says nothing about the request itself is DATASTORE_UNAVAILABLE.
import { AppError, messageOf } from "#base/errors.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { type DatastoreErrorCode, datastoreError } from "../../errors.ts";

const byText: Readonly<Record<string, DatastoreErrorCode>> = {
  "etcdserver: mvcc: required revision has been compacted": "DATASTORE_COMPACTED",
  "etcdserver: mvcc: required revision is a future revision": "DATASTORE_FUTURE_REVISION",
  "etcdserver: mvcc: database space exceeded": "DATASTORE_FULL",
  "etcdserver: request is too large": "DATASTORE_TOO_LARGE",
  "etcdserver: too many operations in txn request": "DATASTORE_TOO_LARGE",
  "etcdserver: key not found": "DATASTORE_KEY_NOT_FOUND",
  "etcdserver: requested lease not found": "DATASTORE_LEASE_NOT_FOUND",
  "etcdserver: corrupt cluster": "DATASTORE_CORRUPT",
};

export function fromEtcd(error: unknown): Error {
  if (error instanceof AppError) return error;
  const message = messageOf(error);
  if (!isGrpcError(error)) return datastoreError("DATASTORE_UNAVAILABLE", message, {}, error);
  const known = Object.hasOwn(byText, message) ? byText[message] : undefined;
  if (known) return datastoreError(known, message, {}, error);
  // A server's bound for whole requests, told by gRPC before etcd sees them.
  if (/^(grpc: )?(received|trying to send) message larger than max/.test(message)) {
    return datastoreError("DATASTORE_TOO_LARGE", message, {}, error);
  }
  const isRefusal = ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "NOT_FOUND"].includes(error.code);
  return datastoreError(isRefusal ? "DATASTORE_BAD_REQUEST" : "DATASTORE_UNAVAILABLE", message, {}, error);
}
