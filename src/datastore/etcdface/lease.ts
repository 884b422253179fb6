// The Lease service. Ids are int64 to etcd and safe integers here: a greater one cannot be granted, and asking for one
// finds nothing. Upstream counterpart: etcd server/etcdserver/api/v3rpc/lease.go, lease/lessor.go.
import { Buffer } from "node:buffer";
import { hasCode } from "#base/errors.ts";
import type { GrpcStream } from "#platform/grpc-server.ts";
import type {
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseRevokeRequest,
  LeaseTimeToLiveRequest,
} from "#wire/gen/etcd.ts";
import { GrpcError } from "#wire/grpc.ts";
import type { Backend, Lease } from "../backend.ts";
import { etcdError, toGrpcError } from "./errors.ts";
import { toNumber } from "./kv.ts";

export interface LeaseDeps {
  readonly backend: Backend;
  header(): object;
  checkAlarms(adds: boolean): void;
}

/** etcd's bounds: the upper is fixed, the lower is one and a half times its election timeout, rounded up. */
const maxTtlSeconds = 9_000_000_000;
const minTtlSeconds = 2;

export async function grant({ backend, header, checkAlarms }: LeaseDeps, request: LeaseGrantRequest): Promise<object> {
  checkAlarms(true);
  const id = toNumber(request.ID);
  const ttl = toNumber(request.TTL);
  if (ttl > maxTtlSeconds) throw etcdError("leaseTtlTooLarge");
  if (!Number.isSafeInteger(id) || id < 0) {
    throw new GrpcError("OUT_OF_RANGE", "etcdserver: lease ID must be from 0 to 9007199254740991");
  }
  if (id !== 0 && (await find(backend, id))) throw etcdError("leaseExists");
  const lease = await backend.grantLease(Math.max(ttl, minTtlSeconds), id, true);
  return { header: header(), ID: lease.id, TTL: lease.ttlSeconds };
}

export async function revoke(
  { backend, header, checkAlarms }: LeaseDeps,
  request: LeaseRevokeRequest,
): Promise<object> {
  checkAlarms(false);
  await backend.revokeLease(toNumber(request.ID));
  return { header: header() };
}

export async function timeToLive({ backend, header }: LeaseDeps, request: LeaseTimeToLiveRequest): Promise<object> {
  const lease = await find(backend, toNumber(request.ID), request.keys);
  if (!lease) return { header: header(), ID: request.ID, TTL: -1 };
  return {
    header: header(),
    ID: request.ID,
    TTL: lease.remainingSeconds,
    grantedTTL: lease.ttlSeconds,
    keys: lease.keys.map((key) => Buffer.from(key, "latin1")),
  };
}

export async function leases({ backend, header }: LeaseDeps): Promise<object> {
  const found = [...(await backend.leases())].sort((a, b) => a.remainingSeconds - b.remainingSeconds);
  return { header: header(), leases: found.map(({ id }) => ({ ID: id })) };
}

export async function serveKeepAlive(
  stream: GrpcStream,
  deps: LeaseDeps & { decode(message: Uint8Array): LeaseKeepAliveRequest; frame(answer: object): Uint8Array },
): Promise<void> {
  for await (const message of stream.messages) {
    const { ID } = deps.decode(message);
    // The header is made before: a client must not see a revision newer than its lease's renewal.
    const header = deps.header();
    let ttl = 0;
    try {
      ttl = (await deps.backend.keepAlive(toNumber(ID))).ttlSeconds;
    } catch (error) {
      if (!hasCode(error, "DATASTORE_LEASE_NOT_FOUND")) throw toGrpcError(error);
    }
    if (!stream.write(deps.frame({ header, ID, TTL: ttl }))) await stream.drained();
  }
}

async function find(
  backend: Backend,
  id: number,
  withKeys = false,
): Promise<(Lease & { readonly keys: readonly string[] }) | undefined> {
  try {
    return await backend.lease(id, withKeys);
  } catch (error) {
    if (hasCode(error, "DATASTORE_LEASE_NOT_FOUND")) return undefined;
    throw error;
  }
}
