// The etcd v3 API over a Backend: what etcdctl and an upstream Kubernetes API server speak. Answers with etcd's codes and
// texts; a table from method to function is all there is here. Deviations from etcd 3.5 (docs/datastore.md): no users,
// one member, keys of at most 4096 bytes, lease ids up to 2^53, hashes of a form of our own.
// Upstream counterpart: etcd server/etcdserver/api/v3rpc, kine in k3s.
import { dirname } from "node:path";
import type { Clock } from "#base/clock.ts";
import { hasCode } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { untilAborted } from "#base/service.ts";
import { makeFolder } from "#platform/files.ts";
import { changeMode, kindOf, removeFile } from "#platform/folders.ts";
import {
  type GrpcHandler,
  type GrpcHandlers,
  type GrpcServerOptions,
  type GrpcStream,
  type GrpcTls,
  openGrpcServer,
} from "#platform/grpc-server.ts";
import { type EtcdMethods, etcdMethods } from "#wire/gen/etcd.ts";
import { encodeFrame, GrpcError } from "#wire/grpc.ts";
import type { DataSource } from "#wire/http2/stream.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import { type Backend, maxTxnOps as backendMaxTxnOps } from "./backend.ts";
import { etcdError, toGrpcError } from "./etcdface/errors.ts";
import * as kv from "./etcdface/kv.ts";
import * as lease from "./etcdface/lease.ts";
import * as maintenance from "./etcdface/maintenance.ts";
import { etcdCodec, frameOf, frameOfTable, type Identity, type Part } from "./etcdface/messages.ts";
import { AheadBudget } from "./etcdface/range-source.ts";
import { readPut, readRange, readTxn } from "./etcdface/requests.ts";
import { EncodedEvents, serveWatch } from "./etcdface/watch.ts";

export type { SnapshotSource } from "./etcdface/maintenance.ts";

export interface EtcdFaceOptions {
  /** Default 3.5.16: Kubernetes asks for watch progress from 3.5.13 on. */
  readonly etcdVersion?: string | undefined;
  /** Default 5 s, as kine; etcd's own is 10 minutes, too long for a Kubernetes API server's consistent lists. */
  readonly watchProgressIntervalMs?: number | undefined;
  /** etcd's --max-request-bytes, default 1.5 MiB. */
  readonly maxRequestBytes?: number | undefined;
  /** What MemberList says clients reach the store at. */
  readonly clientUrls?: readonly string[] | undefined;
}

export interface EtcdFaceDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly sizes?: (() => Promise<maintenance.StoreSizes>) | undefined;
  /** Absent: Maintenance.Snapshot says that there is none. */
  readonly openSnapshot?: (() => Promise<maintenance.SnapshotSource>) | undefined;
}

/** One member of one cluster: "mote" in ASCII. Clients show it and compare it with itself. */
const identity: Identity = { clusterId: 0x6d6f7465, memberId: 0x6d6f7465, raftTerm: 1 };
const defaultMaxRequestBytes = 1.5 * 1024 * 1024;
/** etcd takes messages of so much more than a request may have, and refuses them by its own words. */
const messageOverheadBytes = 512 * 1024;

const healthCodec = createWireCodec("HealthCheckRequest\n service 1 string\nHealthCheckResponse\n status 1 enum\n");
const healthServing = 1;

/** The handlers of every method served. */
export function createEtcdFace(options: EtcdFaceOptions, deps: EtcdFaceDeps): GrpcHandlers {
  const { backend, clock } = deps;
  const maxRequestBytes = options.maxRequestBytes ?? defaultMaxRequestBytes;
  const encodedEvents = new EncodedEvents(identity);
  const alarms = new maintenance.Alarms(identity.memberId);
  const header = () => ({ ...identity, revision: backend.revision() });
  const checkAlarms = (adds: boolean) => alarms.check(adds);
  const kvDeps: kv.KvDeps = {
    ...{ backend, identity, maxTxnOps: backendMaxTxnOps, maxRequestBytes, checkAlarms },
    ahead: new AheadBudget(),
  };
  const leaseDeps: lease.LeaseDeps = { backend, header, checkAlarms };
  const maintenanceDeps: maintenance.MaintenanceDeps = {
    ...{ backend, identity, alarms, header },
    etcdVersion: options.etcdVersion ?? "3.5.16",
    clientUrls: options.clientUrls ?? [],
    sizes: deps.sizes ?? (async () => ({ totalBytes: 0, usedBytes: 0 })),
    openSnapshot: deps.openSnapshot,
  };
  /** A write tells whether there is space. */
  const written = <T>(given: T): T => {
    alarms.note(false);
    return given;
  };
  const notWritten = (error: unknown): never => {
    const failure = toGrpcError(error);
    if (hasCode(failure.cause, "DATASTORE_FULL")) alarms.note(true);
    throw failure;
  };
  const writing = <T>(answer: Promise<T>): Promise<T> => answer.then(written, notWritten);
  const failed = (error: unknown): never => {
    throw toGrpcError(error);
  };

  const handlers = new Map<string, GrpcHandler>();
  /** Read by hand where they are of the plain form, answered with a frame. */
  const quick = <K extends keyof EtcdMethods>(
    method: K,
    read: (message: Uint8Array) => EtcdMethods[K]["request"] | undefined,
    answer: (request: EtcdMethods[K]["request"], bytes: number) => Promise<Uint8Array | DataSource>,
  ) => {
    const { path, request } = etcdMethods[method];
    handlers.set(path, {
      kind: "unary",
      handle(message) {
        try {
          const decoded = read(message) ?? decode<EtcdMethods[K]["request"]>(request, message);
          return answer(decoded, message.length).catch(failed);
        } catch (error) {
          return Promise.reject(toGrpcError(error));
        }
      },
    });
  };
  const unary = <K extends keyof EtcdMethods>(
    method: K,
    answer: (request: EtcdMethods[K]["request"], bytes: number) => Promise<Part | object>,
    kind: "part" | "table",
  ) => {
    const { path, request, response } = etcdMethods[method];
    handlers.set(path, {
      kind: "unary",
      async handle(message) {
        const decoded = decode<EtcdMethods[K]["request"]>(request, message);
        try {
          const result = await answer(decoded, message.length);
          return kind === "part" ? frameOf(result as Part) : frameOfTable(response, result);
        } catch (error) {
          throw toGrpcError(error);
        }
      },
    });
  };
  const stream = <K extends keyof EtcdMethods>(method: K, serve: (stream: GrpcStream) => Promise<void>) => {
    const handle = async (call: GrpcStream) => {
      try {
        await serve(call);
      } catch (error) {
        throw toGrpcError(error);
      }
    };
    handlers.set(etcdMethods[method].path, { kind: "stream", handle });
  };

  quick("KV/Range", readRange, (request) => kv.range(kvDeps, request));
  quick("KV/Put", readPut, (request, bytes) => writing(kv.put(kvDeps, request, bytes)));
  unary("KV/DeleteRange", (request, bytes) => kv.deleteRange(kvDeps, request, bytes), "part");
  quick("KV/Txn", readTxn, async (request, bytes) => frameOf(await writing(kv.txn(kvDeps, request, bytes))));
  unary("KV/Compact", (request) => kv.compact(kvDeps, request), "part");
  stream("Watch/Watch", (call) =>
    serveWatch(call, {
      ...{ backend, clock, identity, maxRequestBytes, encodedEvents },
      progressIntervalMs: options.watchProgressIntervalMs ?? 5000,
      decode: (message) => decode("WatchRequest", message),
    }),
  );
  unary("Lease/LeaseGrant", (request) => lease.grant(leaseDeps, request), "table");
  unary("Lease/LeaseRevoke", (request) => lease.revoke(leaseDeps, request), "table");
  unary("Lease/LeaseTimeToLive", (request) => lease.timeToLive(leaseDeps, request), "table");
  unary("Lease/LeaseLeases", () => lease.leases(leaseDeps), "table");
  stream("Lease/LeaseKeepAlive", (call) =>
    lease.serveKeepAlive(call, {
      ...leaseDeps,
      decode: (message) => decode("LeaseKeepAliveRequest", message),
      frame: (answer) => frameOfTable("LeaseKeepAliveResponse", answer),
    }),
  );
  unary("Maintenance/Alarm", (request) => maintenance.alarm(maintenanceDeps, request), "table");
  unary("Maintenance/Status", () => maintenance.status(maintenanceDeps), "table");
  // Space comes back as part of normal work; there is nothing to wait for.
  unary("Maintenance/Defragment", async () => ({}), "table");
  unary("Maintenance/Hash", () => maintenance.hash(maintenanceDeps), "table");
  unary("Maintenance/HashKV", (request) => maintenance.hashKv(maintenanceDeps, request), "table");
  stream("Maintenance/Snapshot", (call) =>
    maintenance.serveSnapshot(call, {
      ...maintenanceDeps,
      frame: (answer) => frameOfTable("SnapshotResponse", answer),
    }),
  );
  unary(
    "Maintenance/MoveLeader",
    async ({ targetID }) => {
      if (Number(targetID) !== identity.memberId) throw etcdError("badLeaderTransferee");
      return {};
    },
    "table",
  );
  unary("Cluster/MemberList", () => maintenance.memberList(maintenanceDeps), "table");
  unary("Auth/AuthStatus", async () => ({ header: header(), enabled: false, authRevision: 1 }), "table");
  unary(
    "Auth/Authenticate",
    async () => {
      throw etcdError("authNotEnabled");
    },
    "table",
  );
  handlers.set("/grpc.health.v1.Health/Check", {
    kind: "unary",
    async handle(message) {
      const { service } = healthCodec.decode<{ service: string }>("HealthCheckRequest", message);
      if (service !== "") throw new GrpcError("NOT_FOUND", "unknown service");
      return encodeFrame(healthCodec.encode("HealthCheckResponse", { status: healthServing }));
    },
  });
  return handlers;
}

function decode<T extends object>(name: string, message: Uint8Array): T {
  try {
    return etcdCodec.decode<T>(name, message);
  } catch (error) {
    throw new GrpcError("INTERNAL", `grpc: error unmarshalling request: ${(error as Error).message}`, { cause: error });
  }
}

export interface EtcdListenerOptions extends EtcdFaceOptions {
  readonly listen: GrpcServerOptions["listen"];
  readonly tls?: GrpcTls | undefined;
}

/** How long calls may take to end when the listener stops: watches are told at once. */
const stopGraceMs = 500;

/** Listens until told to stop. `listening` is told the address. */
export function createEtcdListener(
  options: EtcdListenerOptions,
  deps: EtcdFaceDeps & { readonly log: Logger },
  listening: (address: string) => void = () => {},
): Service {
  const { listen, tls, maxRequestBytes = defaultMaxRequestBytes } = options;
  return {
    name: "etcd",
    async run(signal, ready) {
      if ("socketPath" in listen) {
        await makeFolder(dirname(listen.socketPath), 0o700);
        // Left by a process that was killed: whoever lives and serves this store has its lock.
        if ((await kindOf(listen.socketPath)) === "socket") await removeFile(listen.socketPath);
      }
      const server = await openGrpcServer(
        { listen, tls, maxMessageBytes: maxRequestBytes + messageOverheadBytes, log: deps.log },
        createEtcdFace(options, deps),
      );
      if ("socketPath" in listen) await changeMode(listen.socketPath, 0o600);
      deps.log.info("etcd API is served", { address: server.address });
      listening(server.address);
      ready();
      await untilAborted(signal);
      await server.close(stopGraceMs);
    },
  };
}
