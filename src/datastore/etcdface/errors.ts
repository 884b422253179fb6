// What etcd clients know failures by: status code and text, as etcd's rpctypes has them. Clients compare the texts.
import { type AppError, hasCode, messageOf } from "#base/errors.ts";
import { type GrpcCode, GrpcError } from "#wire/grpc.ts";

const failures = {
  emptyKey: ["INVALID_ARGUMENT", "etcdserver: key is not provided"],
  keyNotFound: ["INVALID_ARGUMENT", "etcdserver: key not found"],
  valueProvided: ["INVALID_ARGUMENT", "etcdserver: value is provided"],
  leaseProvided: ["INVALID_ARGUMENT", "etcdserver: lease is provided"],
  tooManyOps: ["INVALID_ARGUMENT", "etcdserver: too many operations in txn request"],
  duplicateKey: ["INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request"],
  requestTooLarge: ["INVALID_ARGUMENT", "etcdserver: request is too large"],
  compacted: ["OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"],
  futureRevision: ["OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"],
  noSpace: ["RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded"],
  leaseNotFound: ["NOT_FOUND", "etcdserver: requested lease not found"],
  leaseExists: ["FAILED_PRECONDITION", "etcdserver: lease already exists"],
  leaseTtlTooLarge: ["OUT_OF_RANGE", "etcdserver: too large lease TTL"],
  corrupt: ["DATA_LOSS", "etcdserver: corrupt cluster"],
  stopped: ["UNAVAILABLE", "etcdserver: server stopped"],
  timeout: ["UNAVAILABLE", "etcdserver: request timed out"],
  authNotEnabled: ["FAILED_PRECONDITION", "etcdserver: authentication is not enabled"],
  badLeaderTransferee: ["FAILED_PRECONDITION", "etcdserver: bad leader transferee"],
} as const satisfies Readonly<Record<string, readonly [GrpcCode, string]>>;

export type EtcdFailure = keyof typeof failures;

export function etcdError(failure: EtcdFailure, cause?: unknown): GrpcError {
  const [code, text] = failures[failure];
  return new GrpcError(code, text, cause === undefined ? undefined : { cause });
}

/** Every code that a Backend rejects with. */
const byDatastoreCode: Readonly<Record<string, EtcdFailure>> = {
  DATASTORE_COMPACTED: "compacted",
  DATASTORE_FUTURE_REVISION: "futureRevision",
  DATASTORE_CLOSED: "stopped",
  DATASTORE_FULL: "noSpace",
  DATASTORE_TOO_LARGE: "requestTooLarge",
  // The outcome is unknown, which is what a timeout means to an etcd client.
  DATASTORE_FLUSH_FAILED: "timeout",
  DATASTORE_CORRUPT: "timeout",
  DATASTORE_LEASE_NOT_FOUND: "leaseNotFound",
  DATASTORE_KEY_NOT_FOUND: "keyNotFound",
};

export function toGrpcError(error: unknown): GrpcError {
  if (error instanceof GrpcError) return error;
  const code = (error as { code?: unknown } | undefined)?.code;
  const failure = typeof code === "string" && Object.hasOwn(byDatastoreCode, code) ? byDatastoreCode[code] : undefined;
  if (failure) return etcdError(failure, error);
  // What the face itself overlooks, as etcd does, and the store does not (docs/datastore.md).
  if (hasCode(error, "DATASTORE_BAD_REQUEST") && (error as AppError).details["key"] !== undefined) {
    return etcdError("duplicateKey", error);
  }
  if (hasCode(error, "DATASTORE_BAD_REQUEST") || hasCode(error, "WIRE_PROTOBUF")) {
    return new GrpcError("INVALID_ARGUMENT", `etcdserver: ${messageOf(error)}`, { cause: error });
  }
  return new GrpcError("UNKNOWN", messageOf(error), { cause: error });
}
