// Reads flags, environment and configuration files once, and turns them into one frozen ServerConfig with every path
// derived. Nothing else reads the environment.
import { type ApiArguments, parseApiArguments } from "#apiserver/arguments.ts";
import { messageOf } from "#base/errors.ts";
import { type Flag, type FlagValues, parseFlags, usageError } from "#cli/flags.ts";
import { serverFlags } from "#cli/server-flags.ts";
import { type ControllerSettings, parseControllerArguments } from "#controllers/arguments.ts";
import { isEtcdEndpoint, parseEtcdEndpoints } from "#datastore/etcd-endpoints.ts";
import { parseCron } from "#model/cron.ts";
import type { OverlayOptions } from "#network/overlay.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { listFolder, readFileIfExists } from "#platform/files.ts";
import { hostName } from "#platform/host.ts";
import { parseSchedulerArguments, type SchedulerArguments } from "#scheduler/arguments.ts";
import type { EgressMode } from "#supervisor/tunnels.ts";
import { parseYaml } from "#wire/yaml.ts";
import { clusterRangesOf, nodeIpsIn, nodeIpsOf } from "./cluster-addresses.ts";
import { type EtcdAddress, parseGuardedEtcdAddress } from "./etcd-address.ts";
import { type S3Choice, s3ChoiceOf } from "./snapshot-s3.ts";

export interface ServerConfig {
  readonly debug: boolean;
  readonly dataDir: string;
  readonly serverDir: string;
  readonly agentDir: string;
  /** Volumes of the storage class local-path. */
  readonly localStorageDir: string;
  readonly runDir: string;
  /** Where containerd's log goes when not beside its configuration. */
  readonly containerdLogDir?: string;
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
  readonly nodeName: string;
  /** One of each family, the cluster's first. */
  readonly nodeIps: readonly [string, ...string[]];
  /** Those of the flag, whatever cluster the node is in; undefined: it takes what the machine has. */
  readonly givenNodeIps: readonly string[] | undefined;
  readonly overlay: {
    readonly backend: OverlayOptions["backend"];
    readonly usesExternalIp: boolean;
    readonly masqueradesIpv6: boolean;
    /** Undefined: by `nodeIps`. */
    readonly device: string | undefined;
  };
  readonly nodeLabels: readonly string[];
  readonly nodeTaints: readonly string[];
  readonly apiArguments: ApiArguments;
  /** Keys that mote makes itself: whether from the start, and of which kind. */
  readonly secretsEncryption: { readonly enable: boolean; readonly provider: "aescbc" | "secretbox" };
  readonly schedulerArguments: SchedulerArguments;
  readonly controllerSettings: ControllerSettings;
  readonly egressMode: EgressMode;
  /** `NAME=VALUE` for the node agent, under the kubelet's flag names. */
  readonly kubeletArgs: readonly string[];
  /** Handler of the runtime of pods without a runtime class. */
  readonly defaultRuntime: string;
  /** Mirrors and credentials of image registries; need not exist. */
  readonly registriesFile: string;
  /** Programs that know credentials of registries; undefined: none. */
  readonly credentialProviders: { readonly configPath: string; readonly binDir: string } | undefined;
  readonly resolvConf: string | undefined;
  readonly warnings: readonly string[];
}

/** Of `mote agent`: a node as the server has one, and the server that it belongs to. */
export interface AgentConfig {
  readonly node: ServerConfig;
  /** https://HOST:PORT */
  readonly server: string;
  readonly token: string | undefined;
  readonly tokenFile: string | undefined;
  /** Of 127.0.0.1, where other programs of this machine reach the servers; 0: none. */
  readonly balancerPort: number;
}

/** Who runs the command: the folders it may write follow from that, as k3s has them under $HOME without root. */
export interface Runner {
  readonly isRoot: boolean;
  readonly home: string | undefined;
}

/** Where things are when no flag says so. */
export function defaultPaths({ isRoot, home }: Runner): { dataDir: string; kubeconfig: string } {
  return isRoot || !home
    ? { dataDir: "/var/lib/mote", kubeconfig: "/etc/mote/kubeconfig.yaml" }
    : { dataDir: `${home}/.mote`, kubeconfig: `${home}/.mote/kubeconfig.yaml` };
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Parses `args` with the configuration files that --config names; only the default file may be missing. */
export async function readFlags(
  flags: readonly Flag[],
  args: readonly string[],
  env: Environment,
): Promise<{ values: FlagValues; positionals: readonly string[]; warnings: readonly string[] }> {
  // The first pass only finds --config; mistakes are reported by the second.
  const first = parseFlags(flags, { args, env });
  const path = String(first.values["config"]);
  const defaultConfig = flags.find((flag) => flag.name === "config")?.default;
  const names = [path];
  for (const entry of await listFolder(`${path}.d`)) {
    if (entry.isFile() && /\.ya?ml$/.test(entry.name)) names.push(`${path}.d/${entry.name}`);
  }
  names.splice(1, names.length, ...names.slice(1).sort());
  const files: { path: string; values: Record<string, unknown> }[] = [];
  for (const name of names) {
    const bytes = await readConfig(name);
    if (!bytes) {
      if (path === defaultConfig) continue;
      throw usageError(`config: there is no file ${name}`);
    }
    let values: unknown;
    try {
      values = parseYaml(bytes.toString("utf8"));
    } catch (error) {
      throw usageError(`${name}: not readable as YAML: ${messageOf(error)}`);
    }
    if (values === null || values === undefined) continue;
    if (typeof values !== "object" || Array.isArray(values)) {
      throw usageError(`${name}: a map of flag names to values is expected`);
    }
    files.push({ path: name, values: values as Record<string, unknown> });
  }
  return parseFlags(flags, { args, env, files });
}

async function readConfig(path: string): Promise<Buffer | undefined> {
  try {
    return await readFileIfExists(path);
  } catch (error) {
    throw usageError(`config: cannot read ${path}: ${messageOf(error)}`);
  }
}

export function serverConfig(values: FlagValues, warnings: readonly string[], runner: Runner): ServerConfig {
  const text = (name: string) => values[name] as string | undefined;
  const list = (name: string) => (values[name] as readonly string[] | undefined) ?? [];
  const paths = defaultPaths(runner);
  const dataDir = text("data-dir") ?? paths.dataDir;
  const controllerSettings = checked(() => parseControllerArguments(list("kube-controller-manager-arg")));
  const { warnings: addressWarnings, ...ranges } = clusterRangesOf({
    clusterCidr: text("cluster-cidr")!,
    serviceCidr: text("service-cidr")!,
    clusterDns: text("cluster-dns"),
    maskSizes: controllerSettings.maskSizes,
  });
  const givenNodeIps = nodeIpsOf(text("node-ip"));
  const nodeIps = nodeIpsIn(ranges.clusterCidr, givenNodeIps);
  const nodeName = (text("node-name") ?? hostName()).toLowerCase();
  if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(nodeName) || nodeName.length > 253) {
    throw usageError(`node-name: "${nodeName}" is not allowed; use lower case letters, digits, '-' and '.'`);
  }
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
  for (const label of list("node-label")) {
    if (!/^[^=]+=[^=]*$/.test(label)) throw usageError(`node-label: "${label}" is not allowed; use KEY=VALUE`);
  }
  for (const taint of list("node-taint")) {
    if (!/^[^=:]+(=[^:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$/.test(taint)) {
      throw usageError(`node-taint: "${taint}" is not allowed; use KEY[=VALUE]:NoSchedule|PreferNoSchedule|NoExecute`);
    }
  }
  return Object.freeze({
    debug: values["debug"] === true,
    dataDir,
    serverDir: `${dataDir}/server`,
    agentDir: `${dataDir}/agent`,
    localStorageDir: text("default-local-storage-path") ?? `${dataDir}/storage`,
    runDir: text("run-dir")!,
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
    kubeconfigPath: text("write-kubeconfig") ?? paths.kubeconfig,
    kubeconfigMode: Number.parseInt(mode, 8),
    disabled: new Set(list("disable")),
    disableAgent: values["disable-agent"] === true,
    nodeName,
    nodeIps,
    givenNodeIps,
    overlay: {
      backend: overlayBackend(text("flannel-backend")!),
      usesExternalIp: values["flannel-external-ip"] === true,
      masqueradesIpv6: values["flannel-ipv6-masq"] === true,
      device: deviceOf(text("flannel-iface")),
    },
    nodeLabels: list("node-label"),
    nodeTaints: list("node-taint"),
    apiArguments: checked(() => parseApiArguments(list("kube-apiserver-arg"))),
    secretsEncryption: {
      enable: values["secrets-encryption"] === true,
      provider: text("secrets-encryption-provider") as "aescbc" | "secretbox",
    },
    schedulerArguments: checked(() => parseSchedulerArguments(list("kube-scheduler-arg"))),
    controllerSettings,
    egressMode: text("egress-selector-mode") as EgressMode,
    kubeletArgs: checkedKubeletArgs(list("kubelet-arg")),
    defaultRuntime: text("default-runtime")!,
    registriesFile: text("private-registry")!,
    credentialProviders: credentialProvidersOf(
      text("image-credential-provider-config"),
      text("image-credential-provider-bin-dir"),
    ),
    resolvConf: text("resolv-conf"),
    warnings: [...warnings, ...addressWarnings],
  });
}

/** `values` are those of the agent's flags; what is the server's alone has its default. */
export function agentConfig(values: FlagValues, warnings: readonly string[], runner: Runner): AgentConfig {
  const defaults = Object.fromEntries(serverFlags.map((flag) => [flag.name, flag.default]));
  const { server, token, "token-file": tokenFile } = values as Readonly<Record<string, string | undefined>>;
  if (server === undefined) throw usageError("server: name the server to join, such as --server https://HOST:6443");
  const { server: _, ...rest } = values;
  const node = serverConfig({ ...defaults, ...rest }, warnings, runner);
  return { node, server: serverUrl(server), token, tokenFile, balancerPort: values["lb-server-port"] as number };
}

function serverUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "https:" || url.pathname !== "/" || url.search !== "" || url.username !== "") {
    throw usageError(`server: "${text}" is not allowed; use https://HOST:PORT`);
  }
  return url.origin;
}

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

function credentialProvidersOf(configPath: string | undefined, binDir: string | undefined) {
  if ((configPath === undefined) !== (binDir === undefined)) {
    throw usageError("image-credential-provider-config and -bin-dir: one needs the other");
  }
  return configPath !== undefined && binDir !== undefined ? { configPath, binDir } : undefined;
}

/** Mistakes are told before anything starts. */
function checked<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw usageError(messageOf(error));
  }
}

function checkedKubeletArgs(args: readonly string[]): readonly string[] {
  checked(() => parseConfiguration(args));
  return args;
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

/** Also what a server tells its agents. */
export function overlayBackend(name: string): OverlayOptions["backend"] {
  if (name === "vxlan" || name === "host-gw" || name === "wireguard-native" || name === "none") return name;
  const isForeign = ["wireguard", "ipsec", "tailscale"].includes(name);
  const allowed = "use vxlan, wireguard-native, host-gw or none";
  throw usageError(
    `flannel-backend: ${isForeign ? `${name} is not supported` : `"${name}" is not allowed`}; ${allowed}`,
  );
}

/** The kernel's own bound for names of devices. */
function deviceOf(name: string | undefined): string | undefined {
  if (name === undefined || /^[^\s/:]{1,15}$/.test(name)) return name;
  throw usageError(`flannel-iface: "${name}" is not allowed; use the name of a network device such as eth0`);
}
