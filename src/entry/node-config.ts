// What a node is configured by, of a server or of an agent, from its flags; and `mote agent` as a whole. It knows nothing of the
// control plane: an agent does not load what only a server needs.
import { messageOf } from "#base/errors.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import type { OverlayOptions } from "#network/overlay.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { hostName } from "#platform/host.ts";
import { externalIpsOf, nodeIpsOf } from "./cluster-addresses.ts";
import { defaultPaths, type Runner } from "./default-paths.ts";

export interface NodeSettings {
  readonly debug: boolean;
  readonly dataDir: string;
  readonly agentDir: string;
  /** Volumes of the storage class local-path. */
  readonly localStorageDir: string;
  readonly runDir: string;
  /** Where containerd's log goes when not beside its configuration. */
  readonly containerdLogDir?: string;
  readonly nodeName: string;
  /** Those of the flag, whatever cluster the node is in; undefined: it takes what the machine has. */
  readonly givenNodeIps: readonly string[] | undefined;
  /** Where the node is reached from outside, as behind a translation of addresses; its certificates name them too. */
  readonly externalIps: readonly string[];
  /** Of the overlay; undefined: by the node's addresses. */
  readonly overlayDevice: string | undefined;
  readonly nodeLabels: readonly string[];
  readonly nodeTaints: readonly string[];
  /** `NAME=VALUE` for the node agent, under the kubelet's flag names. */
  readonly kubeletArgs: readonly string[];
  /** Handler of the runtime of pods without a runtime class. */
  readonly defaultRuntime: string;
  /** Mirrors and credentials of image registries; need not exist. */
  readonly registriesFile: string;
  /** Programs that know credentials of registries; undefined: none. */
  readonly credentialProviders: { readonly configPath: string; readonly binDir: string } | undefined;
  readonly resolvConf: string | undefined;
}

/** Of `mote agent`: its node, and the server that it belongs to. What the cluster is like the server says. */
export interface AgentConfig {
  readonly node: NodeSettings;
  readonly warnings: readonly string[];
  /** https://HOST:PORT */
  readonly server: string;
  readonly token: string | undefined;
  readonly tokenFile: string | undefined;
  /** Of 127.0.0.1, where other programs of this machine reach the servers; 0: none. */
  readonly balancerPort: number;
  /** Bytes cost money on the way to the servers. */
  readonly isMetered: boolean;
}

export function nodeSettings(values: FlagValues, runner: Runner): NodeSettings {
  const text = (name: string) => values[name] as string | undefined;
  const list = (name: string) => (values[name] as readonly string[] | undefined) ?? [];
  const dataDir = text("data-dir") ?? defaultPaths(runner).dataDir;
  const givenNodeIps = nodeIpsOf(text("node-ip"));
  const nodeName = (text("node-name") ?? hostName()).toLowerCase();
  if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(nodeName) || nodeName.length > 253) {
    throw usageError(`node-name: "${nodeName}" is not allowed; use lower case letters, digits, '-' and '.'`);
  }
  for (const label of list("node-label")) {
    if (!/^[^=]+=[^=]*$/.test(label)) throw usageError(`node-label: "${label}" is not allowed; use KEY=VALUE`);
  }
  for (const taint of list("node-taint")) {
    if (!/^[^=:]+(=[^:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$/.test(taint)) {
      throw usageError(`node-taint: "${taint}" is not allowed; use KEY[=VALUE]:NoSchedule|PreferNoSchedule|NoExecute`);
    }
  }
  return {
    debug: values["debug"] === true,
    dataDir,
    agentDir: `${dataDir}/agent`,
    localStorageDir: text("default-local-storage-path") ?? `${dataDir}/storage`,
    runDir: text("run-dir")!,
    nodeName,
    givenNodeIps,
    externalIps: externalIpsOf(text("node-external-ip")),
    overlayDevice: deviceOf(text("flannel-iface")),
    nodeLabels: list("node-label"),
    nodeTaints: list("node-taint"),
    kubeletArgs: checkedKubeletArgs(list("kubelet-arg")),
    defaultRuntime: text("default-runtime")!,
    registriesFile: text("private-registry")!,
    credentialProviders: credentialProvidersOf(
      text("image-credential-provider-config"),
      text("image-credential-provider-bin-dir"),
    ),
    resolvConf: text("resolv-conf"),
  };
}

/** `values` are those of the agent's flags. */
export function agentConfig(values: FlagValues, warnings: readonly string[], runner: Runner): AgentConfig {
  const { server, token, "token-file": tokenFile } = values as Readonly<Record<string, string | undefined>>;
  if (server === undefined) throw usageError("server: name the server to join, such as --server https://HOST:6443");
  return {
    node: nodeSettings(values, runner),
    warnings,
    server: serverUrl(server),
    ...{ token, tokenFile },
    balancerPort: values["lb-server-port"] as number,
    isMetered: values["tunnel-keepalive"] === "metered",
  };
}

export function serverUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "https:" || url.pathname !== "/" || url.search !== "" || url.username !== "") {
    throw usageError(`server: "${text}" is not allowed; use https://HOST:PORT`);
  }
  return url.origin;
}

function credentialProvidersOf(configPath: string | undefined, binDir: string | undefined) {
  if ((configPath === undefined) !== (binDir === undefined)) {
    throw usageError("image-credential-provider-config and -bin-dir: one needs the other");
  }
  return configPath !== undefined && binDir !== undefined ? { configPath, binDir } : undefined;
}

/** Mistakes are told before anything starts. */
export function checked<T>(parse: () => T): T {
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
