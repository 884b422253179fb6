// A server's flags, environment and configuration files as one frozen ServerConfig with every path derived.
import { type ApiArguments, parseApiArguments } from "#apiserver/arguments.ts";
import { messageOf } from "#base/errors.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { type ControllerSettings, parseControllerArguments } from "#controllers/arguments.ts";
import { isEtcdEndpoint, parseEtcdEndpoints } from "#datastore/etcd-endpoints.ts";
import { parseCron } from "#model/cron.ts";
import type { OverlayOptions } from "#network/overlay.ts";
import { parseSchedulerArguments, type SchedulerArguments } from "#scheduler/arguments.ts";
import type { EgressMode } from "#supervisor/tunnels.ts";
import { clusterRangesOf, nodeIpsIn } from "./cluster-addresses.ts";
import { defaultPaths, type Runner } from "./default-paths.ts";
import { type EtcdAddress, parseGuardedEtcdAddress } from "./etcd-address.ts";
import { checked, type NodeSettings, nodeSettings, overlayBackend, serverUrl } from "./node-config.ts";
import { type S3Choice, s3ChoiceOf } from "./snapshot-s3.ts";

export interface ServerConfig extends Omit<NodeSettings, "overlayDevice"> {
  readonly serverDir: string;
  readonly bindAddress: string;
  readonly port: number;
  readonly advertiseAddress: string;
  readonly tlsSans: readonly string[];
  readonly token: string | undefined;
  /** Lets nodes join and no servers; undefined: `token` does. */
  readonly agentToken: string | undefined;
  /** A server of the cluster that this one joins, https://HOST:PORT. */
  readonly joins: string | undefined;
  /** One range, or one of each IP family with a comma between; the first family is the cluster's own. */
  readonly clusterCidr: string;
  readonly serviceCidr: string;
  /** First address of the service range: the `kubernetes` service. */
  readonly apiServiceIp: string;
  readonly nodePorts: { readonly first: number; readonly last: number };
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  readonly datastore: {
    /** `sqlite:///FILE`, `memory://`, or addresses of an external etcd. */
    readonly endpoint: string;
    /** Ceiling of the own store's memory in MiB; undefined: by what the machine has. */
    readonly memoryMib: number | undefined;
    readonly caFile: string | undefined;
    readonly certFile: string | undefined;
    readonly keyFile: string | undefined;
    /** Where the etcd API of the own store is served. */
    readonly etcdListen: readonly EtcdAddress[];
  };
  readonly snapshots: {
    readonly folder: string;
    readonly name: string;
    readonly retention: number;
    readonly compress: boolean;
    /** Undefined: only on request. */
    readonly schedule: string | undefined;
    /** Undefined: no bucket. */
    readonly s3: S3Choice | undefined;
  };
  readonly kubeconfigPath: string;
  readonly kubeconfigMode: number;
  readonly disabled: ReadonlySet<string>;
  readonly disableAgent: boolean;
  /** One of each family, the cluster's first. */
  readonly nodeIps: readonly [string, ...string[]];
  readonly overlay: {
    readonly backend: OverlayOptions["backend"];
    readonly usesExternalIp: boolean;
    readonly masqueradesIpv6: boolean;
    /** Undefined: by `nodeIps`. */
    readonly device: string | undefined;
  };
  readonly apiArguments: ApiArguments;
  /** Keys that mote makes itself: whether from the start, and of which kind. */
  readonly secretsEncryption: { readonly enable: boolean; readonly provider: "aescbc" | "secretbox" };
  readonly schedulerArguments: SchedulerArguments;
  readonly controllerSettings: ControllerSettings;
  readonly egressMode: EgressMode;
  readonly warnings: readonly string[];
}

export function serverConfig(values: FlagValues, warnings: readonly string[], runner: Runner): ServerConfig {
  const text = (name: string) => values[name] as string | undefined;
  const list = (name: string) => (values[name] as readonly string[] | undefined) ?? [];
  const controllerSettings = checked(() => parseControllerArguments(list("kube-controller-manager-arg")));
  const { warnings: addressWarnings, ...ranges } = clusterRangesOf({
    clusterCidr: text("cluster-cidr")!,
    serviceCidr: text("service-cidr")!,
    clusterDns: text("cluster-dns"),
    maskSizes: controllerSettings.maskSizes,
  });
  const { overlayDevice, ...node } = nodeSettings(values, runner);
  const { dataDir } = node;
  const nodeIps = nodeIpsIn(ranges.clusterCidr, node.givenNodeIps);
  const ports = /^(\d+)-(\d+)$/.exec(text("service-node-port-range")!);
  const first = Number(ports?.[1]);
  const last = Number(ports?.[2]);
  if (!ports || first < 1 || last > 65535 || first > last) {
    throw usageError(
      `service-node-port-range: "${text("service-node-port-range")}" is not allowed; use FIRST-LAST within 1-65535`,
    );
  }
  const mode = text("write-kubeconfig-mode")!;
  if (!/^0?[0-7]{3}$/.test(mode))
    throw usageError(`write-kubeconfig-mode: "${mode}" is not allowed; use octal such as 0600`);
  return Object.freeze({
    ...node,
    serverDir: `${dataDir}/server`,
    bindAddress: text("bind-address") ?? (nodeIps[0].includes(":") ? "::" : "0.0.0.0"),
    port: values["https-listen-port"] as number,
    advertiseAddress: text("advertise-address") ?? nodeIps[0],
    tlsSans: list("tls-san"),
    token: text("token"),
    agentToken: text("agent-token"),
    joins: joinsOf(values),
    ...ranges,
    nodePorts: { first, last },
    clusterDomain: text("cluster-domain")!,
    datastore: datastoreOf(values, dataDir),
    snapshots: {
      folder: text("etcd-snapshot-dir") ?? `${dataDir}/server/db/snapshots`,
      name: text("etcd-snapshot-name") ?? "etcd-snapshot",
      retention: (values["etcd-snapshot-retention"] as number | undefined) ?? 5,
      compress: values["etcd-snapshot-compress"] === true,
      schedule: scheduleOf(values),
      s3: s3ChoiceOf(values, "etcd-s3"),
    },
    kubeconfigPath: text("write-kubeconfig") ?? defaultPaths(runner).kubeconfig,
    kubeconfigMode: Number.parseInt(mode, 8),
    disabled: new Set(list("disable")),
    disableAgent: values["disable-agent"] === true,
    nodeIps,
    overlay: {
      backend: overlayBackend(text("flannel-backend")!),
      usesExternalIp: values["flannel-external-ip"] === true,
      masqueradesIpv6: values["flannel-ipv6-masq"] === true,
      device: overlayDevice,
    },
    apiArguments: checked(() => parseApiArguments(list("kube-apiserver-arg"))),
    secretsEncryption: {
      enable: values["secrets-encryption"] === true,
      provider: text("secrets-encryption-provider") as "aescbc" | "secretbox",
    },
    schedulerArguments: checked(() => parseSchedulerArguments(list("kube-scheduler-arg"))),
    controllerSettings,
    egressMode: text("egress-selector-mode") as EgressMode,
    warnings: [...warnings, ...addressWarnings],
  });
}

/**
 * The same for commands that work on a folder, be it a server's or a node's: whom that one joins, as its configuration or the
 * environment may say, is nothing to them.
 */
export const folderConfig = (values: FlagValues, runner: Runner): ServerConfig =>
  serverConfig({ ...values, server: undefined }, [], runner);

function joinsOf(values: FlagValues): string | undefined {
  const server = values["server"] as string | undefined;
  if (server === undefined) return undefined;
  if (!isEtcdEndpoint(String(values["datastore-endpoint"] ?? ""))) {
    throw usageError(
      "server: a further server needs a datastore that all servers reach; start all of them with --datastore-endpoint and " +
        "the addresses of an etcd, or start this machine as a node (mote agent)",
    );
  }
  return serverUrl(server);
}

function datastoreOf(values: FlagValues, dataDir: string): ServerConfig["datastore"] {
  const text = (name: string) => values[name] as string | undefined;
  const endpoint = text("datastore-endpoint") ?? `sqlite://${dataDir}/server/db/state.db`;
  const [caFile, certFile, keyFile] = [text("datastore-cafile"), text("datastore-certfile"), text("datastore-keyfile")];
  const isEtcd = isEtcdEndpoint(endpoint);
  if (isEtcd) checkEtcd(endpoint);
  else if (!/^(sqlite:\/\/\/.+|memory:\/\/)$/.test(endpoint)) throw usageError(refusedEndpoint(endpoint));
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw usageError("datastore-certfile and datastore-keyfile: one needs the other");
  }
  if (!endpoint.startsWith("https://") && (caFile ?? certFile) !== undefined) {
    throw usageError("datastore-cafile, -certfile and -keyfile are for endpoints that begin with https://");
  }
  const listen = (values["etcd-listen"] as readonly string[] | undefined) ?? [];
  if (isEtcd && listen.length > 0) {
    throw usageError("etcd-listen: the datastore is an external etcd; let clients use that one");
  }
  const etcdListen = listen.map((address) => parseGuardedEtcdAddress("etcd-listen", address));
  const memoryMib = values["datastore-memory"] as number | undefined;
  return { endpoint, memoryMib, caFile, certFile, keyFile, etcdListen };
}

function checkEtcd(endpoint: string): void {
  try {
    parseEtcdEndpoints(endpoint);
  } catch (error) {
    throw usageError(messageOf(error));
  }
}

/** Schemes of k3s that are not here. */
const foreignSchemes = ["mysql", "postgres", "postgresql", "nats", "litestream", "t4"];

function refusedEndpoint(endpoint: string): string {
  const [, scheme = ""] = /^([a-z0-9]+):/.exec(endpoint) ?? [];
  const allowed = "use sqlite:///FILE, memory://, or https://HOST:2379 for an etcd";
  // The rest of it may hold a password.
  return foreignSchemes.includes(scheme)
    ? `datastore-endpoint: ${scheme}:// is not supported; ${allowed}`
    : `datastore-endpoint: "${endpoint}" is not allowed; ${allowed}`;
}

function scheduleOf(values: FlagValues): string | undefined {
  const schedule = values["etcd-snapshot-schedule-cron"] as string | undefined;
  if (schedule === undefined || values["etcd-disable-snapshots"] === true) return undefined;
  try {
    parseCron(schedule);
  } catch (error) {
    throw usageError(
      `etcd-snapshot-schedule-cron: "${schedule}" is not a schedule such as "0 */12 * * *": ${messageOf(error)}`,
    );
  }
  return schedule;
}
