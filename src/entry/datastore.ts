// What `mote server` keeps its cluster in: a store of its own, or an external etcd; and the services around it: history
// kept short, snapshots (an external etcd has its own), the etcd API of the own store for others.
import { dirname } from "node:path";
import type { Clock, Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import type { Backend } from "#datastore/backend.ts";
import { createCompactor } from "#datastore/compactor.ts";
import { openEtcdBackend } from "#datastore/etcd-backend.ts";
import { createEtcdCompactor } from "#datastore/etcd-compactor.ts";
import { isEtcdEndpoint } from "#datastore/etcd-endpoints.ts";
import { createEtcdListener } from "#datastore/etcd-face.ts";
import { etcdSnapshots } from "#datastore/etcd-snapshot.ts";
import { type DamageReport, openDatastore } from "#datastore/open.ts";
import { s3SettingsOfSecret } from "#datastore/s3-settings.ts";
import { createSnapshotSchedule, createSnapshotSocket, snapshotSocket } from "#datastore/snapshots.ts";
import type { Datastore } from "#datastore/store.ts";
import { readFileIfExists } from "#platform/files.ts";
import type { GrpcClientTls } from "#platform/grpc-client.ts";
import type { EtcdPki } from "#supervisor/etcd-pki.ts";
import type { ServerConfig } from "./config.ts";
import { resolveS3 } from "./snapshot-s3.ts";

export interface OpenedDatastore {
  readonly backend: Backend;
  /** The own store; absent with an external etcd. */
  readonly store: Datastore | undefined;
}

export interface DatastoreParts {
  readonly clock: Clock;
  readonly log: Logger;
}

export async function openServerDatastore(
  config: ServerConfig,
  deps: DatastoreParts & {
    readonly random: Random;
    readonly metrics: Metrics;
    readonly signal: AbortSignal;
    readonly damaged: (report: DamageReport) => void;
  },
): Promise<OpenedDatastore> {
  const { endpoint, memoryMib } = config.datastore;
  if (!isEtcdEndpoint(endpoint)) {
    const maximumMemoryBytes = memoryMib === undefined ? undefined : memoryMib * 1024 * 1024;
    const store = await openDatastore({ endpoint, maximumMemoryBytes }, deps);
    return { backend: store, store };
  }
  return {
    backend: await openEtcdBackend({ endpoint, tls: await readAnew(config, deps.log) }, deps),
    store: undefined,
  };
}

/** Read for each connection, so that certificates may be replaced; those of before do until there are whole ones. */
async function readAnew(config: ServerConfig, log: Logger): Promise<() => Promise<GrpcClientTls>> {
  let last = await clientTls(config);
  return async () => {
    try {
      last = await clientTls(config);
    } catch (error) {
      log.warn("the certificate for etcd cannot be read; the one of before is used", { error: messageOf(error) });
    }
    return last;
  };
}

async function clientTls({ datastore }: ServerConfig): Promise<GrpcClientTls> {
  const read = async (flag: string, path: string | undefined) => {
    if (path === undefined) return undefined;
    const bytes = await readFileIfExists(path);
    if (!bytes) throw new AppError("STARTUP", `--${flag}: there is no file ${path}`);
    return bytes.toString("utf8");
  };
  return {
    caPem: await read("datastore-cafile", datastore.caFile),
    certificatePem: await read("datastore-certfile", datastore.certFile),
    keyPem: await read("datastore-keyfile", datastore.keyFile),
  };
}

/** `pki`: present where an address of the etcd API needs it. */
export function createDatastoreServices(
  config: ServerConfig,
  { backend, store }: OpenedDatastore,
  pki: EtcdPki | undefined,
  deps: DatastoreParts & {
    /** Data of a secret in kube-system. */
    readonly readSecret: (name: string) => Promise<Readonly<Record<string, string | Uint8Array>> | undefined>;
  },
): Service[] {
  if (!store) return [createEtcdCompactor({}, { backend, ...deps })];
  const { schedule, s3, ...rest } = config.snapshots;
  const readSettings = async (name: string) => s3SettingsOfSecret(await deps.readSecret(name), `kube-system/${name}`);
  const options = {
    ...{ ...rest, schedule, node: config.nodeName },
    ...(s3 === undefined ? {} : { s3: () => resolveS3(s3, readSettings) }),
  };
  const socket = snapshotSocket(`${config.serverDir}/db`);
  return [
    createCompactor({}, { store, ...deps }),
    createSnapshotSocket({ ...options, socket, readSecret: readSettings }, { store, ...deps }),
    ...(schedule === undefined ? [] : [createSnapshotSchedule({ ...options, schedule }, { store, ...deps })]),
    ...etcdListeners(config, store, pki, deps),
  ];
}

function etcdListeners(
  config: ServerConfig,
  store: Datastore,
  pki: EtcdPki | undefined,
  deps: DatastoreParts,
): Service[] {
  const { endpoint, etcdListen } = config.datastore;
  const openSnapshot = endpoint.startsWith("sqlite://")
    ? etcdSnapshots(store, dirname(endpoint.slice("sqlite://".length)), deps)
    : undefined;
  const sizes = async () => {
    const { heldBytes } = store.accounts();
    return { totalBytes: heldBytes, usedBytes: heldBytes };
  };
  const clientUrls = etcdListen.map(({ url }) => url);
  return etcdListen.map(({ listen, secure }) => {
    const tls =
      secure && pki
        ? { certificatePem: pki.server.certificate, keyPem: pki.server.key, clientCaPem: pki.ca.certificate }
        : undefined;
    return createEtcdListener({ listen, tls, clientUrls }, { backend: store, sizes, openSnapshot, ...deps });
  });
}
