// `mote kine`: the datastore alone, behind the etcd v3 API. For an upstream Kubernetes API server, etcdctl, and tests.
import { dirname, resolve } from "node:path";
import { AppError, messageOf } from "#base/errors.ts";
import { restarting, runAll, type Service } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import { type FlagValues, parseFlags, usageError } from "#cli/flags.ts";
import { kineFlags } from "#cli/kine-flags.ts";
import { createCompactor } from "#datastore/compactor.ts";
import { createEtcdListener } from "#datastore/etcd-face.ts";
import { etcdSnapshots } from "#datastore/etcd-snapshot.ts";
import { openDatastore } from "#datastore/open.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";
import { systemClock } from "#platform/clock.ts";
import { readFileIfExists } from "#platform/files.ts";
import type { GrpcTls } from "#platform/grpc-server.ts";
import { stopSignal } from "#platform/signals.ts";
import { parseEtcdAddress } from "./etcd-address.ts";
import { createProcessLog } from "./log.ts";

const stopTimeoutMs = 5000;
const restartPause = { minMs: 200, maxMs: 10_000 } as const;

/** Runs until SIGTERM or SIGINT; resolves with the exit code. */
export async function runKine(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const flags = kineFlags.map((flag) => ({ ...flag, env: flag.name.toUpperCase().replaceAll("-", "_") }));
  const { values, positionals } = parseFlags(flags, { args, env: withKineNames(env) });
  if (positionals.length > 0) throw usageError(`unexpected argument "${positionals[0]}"`);
  const address = parseEtcdAddress(
    "listen-address",
    String(values["listen-address"]),
    values["server-cert-file"] !== undefined,
  );
  const tls = await tlsOf(values, address.secure);
  const compactIntervalMs = durationMs(values, "compact-interval");
  const watchProgressIntervalMs = durationMs(values, "watch-progress-notify-interval");
  const log = createProcessLog(systemClock, values["debug"] === true);
  const signal = stopSignal();
  log.info("mote kine starts", { version: moteVersion, endpoint: values["endpoint"] });
  const memoryMib = values["datastore-memory"] as number | undefined;
  const maximumMemoryBytes = memoryMib === undefined ? undefined : memoryMib * 1024 * 1024;
  const backend = await openDatastore(
    { endpoint: endpointOf(String(values["endpoint"])), maximumMemoryBytes },
    { clock: systemClock, log: log.child({ part: "datastore" }) },
  ).catch((error: unknown) => {
    throw new AppError("STARTUP", messageOf(error), {}, { cause: error });
  });
  const alive = (service: Service) => restarting(service, { clock: systemClock, log, ...restartPause });
  const sizes = async () => {
    const { heldBytes } = backend.accounts();
    return { totalBytes: heldBytes, usedBytes: heldBytes };
  };
  const endpoint = endpointOf(String(values["endpoint"]));
  const openSnapshot = endpoint.startsWith("sqlite://")
    ? etcdSnapshots(backend, dirname(endpoint.slice("sqlite://".length)), { clock: systemClock, log })
    : undefined;
  const services = [
    createEtcdListener(
      {
        ...{ listen: address.listen, tls, watchProgressIntervalMs },
        etcdVersion: String(values["emulated-etcd-version"]),
        maxRequestBytes: Number(values["max-request-bytes"]),
        clientUrls: [address.url],
      },
      { backend, clock: systemClock, sizes, openSnapshot, log: log.child({ part: "etcd" }) },
    ),
    ...(compactIntervalMs > 0
      ? [alive(createCompactor({ intervalMs: compactIntervalMs }, { store: backend, clock: systemClock, log }))]
      : []),
  ];
  try {
    await runAll(services, { clock: systemClock, log, stopTimeoutMs }, signal, () => log.info("mote kine is ready"));
    return 0;
  } finally {
    await backend.close();
    log.info("mote kine ended");
  }
}

/** KINE_LISTEN_ADDRESS stands for MOTE_LISTEN_ADDRESS. */
function withKineNames(env: Readonly<Record<string, string | undefined>>): Record<string, string | undefined> {
  const kine = Object.entries(env).filter(([name]) => name.startsWith("KINE_"));
  return Object.fromEntries(kine.map(([name, value]) => [`MOTE_${name.slice("KINE_".length)}`, value]));
}

async function tlsOf(values: FlagValues, secure: boolean): Promise<GrpcTls | undefined> {
  const read = async (flag: string) => {
    const path = values[flag];
    if (path === undefined) return undefined;
    const bytes = await readFileIfExists(String(path));
    if (!bytes) throw usageError(`--${flag}: there is no file ${String(path)}`);
    return bytes.toString("utf8");
  };
  const certificatePem = await read("server-cert-file");
  const keyPem = await read("server-key-file");
  const clientCaPem = await read("trusted-ca-file");
  if (!secure) {
    if (certificatePem ?? keyPem ?? clientCaPem) {
      throw usageError("certificates are for an address that begins with https://");
    }
    return undefined;
  }
  if (!certificatePem || !keyPem) throw usageError("https needs --server-cert-file and --server-key-file");
  return { certificatePem, keyPem, clientCaPem };
}

/** Paths may be relative; parameters of kine's SQLite driver mean nothing here. */
function endpointOf(text: string): string {
  const [, path] = /^sqlite:\/\/([^?]*)/.exec(text) ?? [];
  return path === undefined ? text : `sqlite://${resolve(path === "" ? "db/state.db" : path)}`;
}

function durationMs(values: FlagValues, flag: string): number {
  const text = String(values[flag]);
  try {
    return parseDurationNanoseconds(text) / 1e6;
  } catch (error) {
    throw usageError(`--${flag}: "${text}" is not allowed; use a duration such as 90s or 5m (${messageOf(error)})`);
  }
}
