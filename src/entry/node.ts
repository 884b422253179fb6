// The parts of a node, in start order: network first, so that the first sandbox finds it; then the agent; then the node
// API over what the agent knows. And their undoing, for `mote killall`.

import type { Clock, Random } from "#base/clock.ts";
import { everyStep } from "#base/every-step.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import type { Client } from "#client/client.ts";
import type { EventSink } from "#client/events.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Node, Taint } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { createClusterDns, removeClusterDns } from "#network/cluster-dns.ts";
import { createOverlay, removeOverlay } from "#network/overlay.ts";
import { removePodNetwork } from "#network/pod-network.ts";
import { createServiceProxy, removeServiceProxy } from "#network/service-proxy.ts";
import { createNodeAccess } from "#node/access.ts";
import { createNodeAgent, type NodeAgent } from "#node/agent.ts";
import { configz, parseConfiguration, podsCgroupOf } from "#node/configuration.ts";
import {
  beginContainerd,
  type ContainerdOptions,
  defaultBinary,
  endBegunContainerd,
  stopAllPods,
} from "#node/containerd.ts";
import { CredentialProviders } from "#node/credentials.ts";
import type { NodeMemory } from "#node/memory.ts";
import { createNodeServer } from "#node/server.ts";
import { ensureImages } from "#node/shipped-images.ts";
import { isSystemStopping } from "#node/shutdown.ts";
import { assetFolder } from "#platform/assets.ts";
import { addressFingerprint, ociArchitecture } from "#platform/host.ts";
import type { TlsMaterial } from "#platform/https-server.ts";
import { systemCommands } from "#platform/processes.ts";
import { systemSysctl } from "#platform/sysctl.ts";
import type { ServerConfig } from "./config.ts";
import type { OwnAddresses } from "./own-addresses.ts";

/** What a node needs of a configuration. */
export type NodeConfig = Pick<
  ServerConfig,
  | "agentDir"
  | "clusterCidr"
  | "clusterDns"
  | "clusterDomain"
  | "containerdLogDir"
  | "credentialProviders"
  | "defaultRuntime"
  | "disabled"
  | "externalIps"
  | "kubeletArgs"
  | "localStorageDir"
  | "nodeIps"
  | "nodeLabels"
  | "nodeName"
  | "nodeTaints"
  | "overlay"
  | "registriesFile"
  | "resolvConf"
  | "runDir"
>;

/** Shipped with mote and imported, never pulled. */
const pauseImage = "mote.local/pause:1";
const nodeApiPort = 10250;
/** As kube-proxy's. */
const proxyHealthPort = 10256;
/** Where a process without one looks for programs. */
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Pods get this long to end when everything is taken down. */
const killallGraceSeconds = 5;

/** What containerd is configured by. */
export type ContainerdConfig = Pick<NodeConfig, "agentDir" | "containerdLogDir" | "defaultRuntime" | "runDir"> & {
  readonly overlay: Pick<NodeConfig["overlay"], "backend">;
};

function containerdOptions(config: ContainerdConfig): ContainerdOptions {
  return {
    root: `${config.agentDir}/containerd`,
    state: `${config.runDir}/containerd`,
    configDir: `${config.agentDir}/etc/containerd`,
    ...(config.containerdLogDir === undefined ? {} : { logDir: config.containerdLogDir }),
    cniBinDir: config.overlay.backend === "none" ? ownCniBinDir : "/usr/lib/cni",
    cniConfDir: cniConfDirOf(config),
    pauseImage,
    defaultRuntime: config.defaultRuntime,
  };
}

/** KEY[=VALUE]:EFFECT, as the flags were checked to be. */
function taintOf(text: string): Taint {
  const [pair = "", effect = ""] = text.split(/:(?=[^:]*$)/);
  const [key = "", value] = pair.split("=");
  return { key, effect, ...(value ? { value } : {}) };
}

/** Where network plugins that people bring install themselves: containerd's defaults, as k3s has it. */
const ownCniConfDir = "/etc/cni/net.d";
const ownCniBinDir = "/opt/cni/bin";

const cniConfDirOf = (config: ContainerdConfig): string =>
  config.overlay.backend === "none" ? ownCniConfDir : `${config.agentDir}/etc/cni/net.d`;
const ipamDirOf = (config: NodeConfig): string => `${config.runDir}/cni`;

/** What takes longest to start, before everything else; its process belongs to `nodeServices`. */
function beginNode(config: ContainerdConfig, log: Logger): Promise<number | undefined> {
  return beginContainerd(containerdOptions(config), log.child({ part: "node" }));
}

/** A start, over what takes longest; where it fails before it says that all is up, nothing stays of what it began. */
export async function withBegunNode<T>(
  config: ContainerdConfig,
  deps: Pick<NodeParts, "clock" | "log">,
  start: (begun: Promise<number | undefined>, up: () => void) => Promise<T>,
): Promise<T> {
  const begun = beginNode(config, deps.log);
  let isUp = false;
  try {
    return await start(begun, () => {
      isUp = true;
    });
  } catch (error) {
    if (!isUp) await endBegunContainerd(containerdOptions(config), begun, deps);
    throw error;
  }
}

/** What a node is made of, wherever its API server is. */
export interface NodeParts {
  readonly config: NodeConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** As the node. */
  readonly client: Client;
  readonly events: EventSink;
  /** Of services, their endpoints, nodes and namespaces. */
  readonly informers: InformerFactory;
  /** Asks who bears a token, and what somebody may do with this node. */
  readonly reviews: Client;
  readonly byCertificate: Parameters<typeof createNodeAccess>[0]["byCertificate"];
  /** Of the node API. */
  readonly tls: () => TlsMaterial;
  readonly onNewTls: (use: () => void) => () => void;
  /** `config.nodeIps` follows them. */
  readonly own: OwnAddresses;
  /** Where the API is elsewhere. */
  readonly memory?: NodeMemory;
  /** One of each family; none: the control plane chooses. */
  readonly podCidrs: readonly string[];
  /** Labels that the Node keeps, null: not there. */
  readonly ownLabels?: Readonly<Record<string, string | null>>;
}

export interface NodeServices {
  readonly services: Service[];
  readonly lookup: NodeAgent["lookup"];
}

export function nodeServices(parts: NodeParts, begun: Promise<number | undefined>): NodeServices {
  const { config, clock, random, log, metrics, informers } = parts;
  const commands = systemCommands;
  const credentialProviders = () =>
    config.credentialProviders &&
    new CredentialProviders(config.credentialProviders.configPath, config.credentialProviders.binDir, {
      ...{ commands, clock },
      log: log.child({ part: "credentials" }),
    });
  const nodeConfiguration = parseConfiguration(config.kubeletArgs);
  const agent = createNodeAgent(
    {
      nodeName: config.nodeName,
      get nodeIps() {
        return config.nodeIps;
      },
      externalIps: config.externalIps,
      dataFolder: config.agentDir,
      storageFolder: config.localStorageDir,
      kubeletFolder: nodeConfiguration.rootDir,
      sharesMounts: true,
      podCidrs: parts.podCidrs,
      clusterDns: config.clusterDns,
      clusterDomain: config.clusterDomain,
      containerd: { ...containerdOptions(config), begun },
      programs: {
        folders: (process.env["PATH"] ?? usualPath).split(":"),
        containerd: defaultBinary,
        cniFolder: config.overlay.backend === "none" ? undefined : containerdOptions(config).cniBinDir,
        needsRunc: config.defaultRuntime === "runc",
      },
      configuration: nodeConfiguration,
      taints: config.nodeTaints.map(taintOf),
      staticPodFolder: `${config.agentDir}/pod-manifests`,
      registriesFile: config.registriesFile,
      labels: Object.fromEntries(config.nodeLabels.map((label) => label.split("=", 2) as [string, string])),
      ownLabels: parts.ownLabels ?? {},
      ...(config.resolvConf === undefined ? {} : { resolvConf: config.resolvConf }),
      port: nodeApiPort,
      version: moteVersion,
    },
    {
      client: parts.client,
      ...{ clock, random, metrics, commands },
      events: parts.events,
      log: log.child({ part: "node" }),
      isMachineStopping: () => isSystemStopping(commands),
      credentialProviders: credentialProviders(),
      memory: parts.memory,
      onNodeIps: (changed) => parts.own.onChange(changed),
      ensureImages: (containerdSocket, unpacking) =>
        ensureImages(
          { containerdSocket, folder: `${assetFolder()}/images`, architecture: ociArchitecture() },
          { commands, log: log.child({ part: "images" }), unpacking },
        ),
    },
  );
  const network = [
    podNetwork(parts),
    ...(config.disabled.has("service-proxy")
      ? []
      : [
          createServiceProxy(
            {
              nodeName: config.nodeName,
              clusterCidrs: config.clusterCidr.split(","),
              masqueradesIpv6: config.overlay.masqueradesIpv6,
              localServiceIps: config.disabled.has("dns") ? [] : config.clusterDns,
              healthPort: proxyHealthPort,
            },
            { informers, commands, sysctl: systemSysctl, clock, metrics, log: log.child({ part: "service-proxy" }) },
          ),
        ]),
    ...(config.disabled.has("dns")
      ? []
      : [
          createClusterDns(
            { addresses: config.clusterDns, clusterDomain: config.clusterDomain, addsAddress: true },
            { informers, commands, clock, random, metrics, log: log.child({ part: "dns" }) },
          ),
        ]),
  ];
  const server = createNodeServer(
    {
      port: nodeApiPort,
      ...(config.nodeIps.some((ip) => ip.includes(":")) ? { host: "::" } : {}),
      configuration: configz(nodeConfiguration),
      tls: parts.tls,
    },
    {
      clock,
      log: log.child({ part: "node-api" }),
      lookup: agent.lookup,
      onNewTls: parts.onNewTls,
      ...createNodeAccess({
        nodeName: config.nodeName,
        client: parts.reviews,
        clock,
        byCertificate: parts.byCertificate,
      }),
      metrics: () => metrics.render(),
      stats: agent.stats,
    },
  );
  return { services: [...network, agent, server], lookup: agent.lookup };
}

/** Pods' addresses on this node, and the way to those of others. */
function podNetwork({ config, client, informers, events, clock, log, podCidrs }: NodeParts): Service {
  const { backend, device, usesExternalIp } = config.overlay;
  return createOverlay(
    {
      ...{ backend, usesExternalIp, nodeName: config.nodeName },
      get nodeIps() {
        return config.nodeIps;
      },
      clusterCidrs: config.clusterCidr.split(","),
      cniConfDir: cniConfDirOf(config),
      ipamDir: ipamDirOf(config),
      wireguardKeyFile: `${config.agentDir}/wireguard.key`,
      ...(device === undefined ? {} : { device }),
      podCidrs,
    },
    {
      ...{ client, informers, events, clock },
      commands: systemCommands,
      sysctl: systemSysctl,
      log: log.child({ part: "overlay" }),
      addresses: addressFingerprint,
    },
  );
}

/** This node's object as this run of the agent reports it: not before it has, and again on every change. */
export type OnNode = (isReady: boolean, reason: string) => void;

/** Tells the state of this node's object, but not what an earlier run left in the store. */
export function watchNode(
  nodeName: string,
  { clock, informers }: Pick<NodeParts, "clock" | "informers">,
  onNode: OnNode,
): void {
  const startedMs = clock.now();
  let staleHeartbeat: string | undefined;
  const look = (node: Node) => {
    if (node.metadata.name !== nodeName) return;
    const condition = node.status?.conditions?.find(({ type }) => type === "Ready");
    if (!condition) return;
    // RFC 3339 has whole seconds.
    if (Date.parse(condition.lastHeartbeatTime ?? "") < startedMs - 1000) staleHeartbeat = condition.lastHeartbeatTime;
    if (condition.lastHeartbeatTime === staleHeartbeat) return;
    onNode(condition.status === "True", condition.message ?? condition.reason ?? "");
  };
  informers.informer(nodes).addHandler({ add: look, update: look });
}

/** Takes down pods, containerd and networks of this data folder. `mote server` must have ended. */
export async function removeNode(config: NodeConfig, deps: Pick<NodeParts, "clock" | "log">): Promise<void> {
  const commands = systemCommands;
  const { clock, log } = deps;
  const { rootDir: kubeletDir, cgroupRoot } = parseConfiguration(config.kubeletArgs);
  const podsCgroup = podsCgroupOf(cgroupRoot);
  const ofPods = { podsDir: `${config.agentDir}/pods`, kubeletDir, podsCgroup, graceSeconds: killallGraceSeconds };
  const ofNetwork = { cniConfDir: cniConfDirOf(config), ipamDir: ipamDirOf(config) };
  await everyStep(
    [
      ["pods", () => stopAllPods({ ...containerdOptions(config), ...ofPods }, { clock, log, commands })],
      ["the overlay", () => removeOverlay(commands)],
      ["the pods' network", () => removePodNetwork(ofNetwork, { commands, log })],
      ["rules of services", () => removeServiceProxy(commands)],
      ["addresses of DNS", () => removeClusterDns(commands)],
    ],
    log,
  );
}
