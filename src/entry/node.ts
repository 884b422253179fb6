// The parts of a node, in start order: network first, so that the first sandbox finds it; then the agent; then the node
// API over what the agent knows. And their undoing, for `mote killall`.

import { identities } from "#apiserver/compose.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import { Client } from "#client/client.ts";
import type { Taint } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { createClusterDns, ensureDnsService, removeClusterDns } from "#network/cluster-dns.ts";
import { createPodNetwork, removePodNetwork } from "#network/pod-network.ts";
import { createServiceProxy, removeServiceProxy } from "#network/service-proxy.ts";
import { createNodeAccess } from "#node/access.ts";
import { createNodeAgent } from "#node/agent.ts";
import { configz, parseConfiguration } from "#node/configuration.ts";
import { beginContainerd, type ContainerdOptions, stopAllPods } from "#node/containerd.ts";
import { CredentialProviders } from "#node/credentials.ts";
import { createNodeServer } from "#node/server.ts";
import { ensureImages } from "#node/shipped-images.ts";
import { isSystemStopping } from "#node/shutdown.ts";
import { assetFolder } from "#platform/assets.ts";
import { defaultMtu, ociArchitecture } from "#platform/host.ts";
import type { TlsMaterial } from "#platform/https-server.ts";
import { systemCommands } from "#platform/processes.ts";
import { systemSysctl } from "#platform/sysctl.ts";
import type { Pki } from "#supervisor/pki.ts";
import type { ServerConfig } from "./config.ts";
import type { ServerContext } from "./server.ts";

/** Shipped with mote and imported, never pulled. */
const pauseImage = "mote.local/pause:1";
const nodeApiPort = 10250;
/** Where CSI drivers' manifests expect to meet the node agent. */
const kubeletDir = "/var/lib/kubelet";
/** As k3s labels its servers; nodes may not give themselves roles, so the server does. */
const roleLabels = { "node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/master": "true" };
/** Pods get this long to end when everything is taken down. */
const killallGraceSeconds = 5;

/** The first /24 of the cluster range: one node. */
function podCidrOf(config: ServerConfig): string {
  return `${config.clusterCidr.split("/")[0]}/24`;
}

function containerdOptions(config: ServerConfig): ContainerdOptions {
  return {
    root: `${config.agentDir}/containerd`,
    state: `${config.runDir}/containerd`,
    configDir: `${config.agentDir}/etc/containerd`,
    ...(config.containerdLogDir === undefined ? {} : { logDir: config.containerdLogDir }),
    cniBinDir: "/usr/lib/cni",
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

const cniConfDirOf = (config: ServerConfig): string => `${config.agentDir}/etc/cni/net.d`;
const ipamDirOf = (config: ServerConfig): string => `${config.runDir}/cni`;

/** What takes longest to start, before everything else; its process belongs to `nodeServices`. */
export function beginNode(config: ServerConfig, log: ServerContext["log"]): Promise<number | undefined> {
  return beginContainerd(containerdOptions(config), log.child({ part: "node" }));
}

export function nodeServices(context: ServerContext, begun: Promise<number | undefined>): Service[] {
  const { config, clock, random, log, metrics, api, client, informers, events, pki } = context;
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
      nodeIp: config.nodeIp,
      dataFolder: config.agentDir,
      storageFolder: config.localStorageDir,
      kubeletFolder: kubeletDir,
      sharesMounts: true,
      podCidr: podCidrOf(config),
      clusterDns: config.clusterDns,
      clusterDomain: config.clusterDomain,
      containerd: { ...containerdOptions(config), begun },
      configuration: nodeConfiguration,
      taints: config.nodeTaints.map(taintOf),
      staticPodFolder: `${config.agentDir}/pod-manifests`,
      registriesFile: config.registriesFile,
      labels: Object.fromEntries(config.nodeLabels.map((label) => label.split("=", 2) as [string, string])),
      ...(config.resolvConf === undefined ? {} : { resolvConf: config.resolvConf }),
      port: nodeApiPort,
      version: moteVersion,
    },
    {
      client: new Client(api.server.transport(identities.node(config.nodeName))),
      ...{ clock, random, metrics, commands },
      events: events.as("kubelet"),
      log: log.child({ part: "node" }),
      isMachineStopping: () => isSystemStopping(commands),
      credentialProviders: credentialProviders(),
      ensureImages: (containerdSocket) =>
        ensureImages(
          { containerdSocket, folder: `${assetFolder()}/images`, architecture: ociArchitecture() },
          { commands, log: log.child({ part: "images" }) },
        ),
    },
  );
  const network = [
    createPodNetwork(
      {
        podCidr: podCidrOf(config),
        mtu: defaultMtu(),
        cniConfDir: cniConfDirOf(config),
        ipamDir: ipamDirOf(config),
      },
      { commands, log: log.child({ part: "pod-network" }) },
    ),
    ...(config.disabled.has("service-proxy")
      ? []
      : [
          createServiceProxy(
            {
              nodeName: config.nodeName,
              clusterCidr: config.clusterCidr,
              localServiceIps: config.disabled.has("dns") ? [] : [config.clusterDns],
            },
            { informers, commands, sysctl: systemSysctl, clock, metrics, log: log.child({ part: "service-proxy" }) },
          ),
        ]),
    ...(config.disabled.has("dns")
      ? []
      : [
          createClusterDns(
            { address: config.clusterDns, clusterDomain: config.clusterDomain, addsAddress: true },
            { informers, commands, clock, random, metrics, log: log.child({ part: "dns" }) },
          ),
          dnsService(context),
        ]),
  ];
  return [
    ...network,
    agent,
    roles(context),
    createNodeServer(
      {
        port: nodeApiPort,
        configuration: configz(nodeConfiguration),
        tls: () => nodeTls(pki.current),
      },
      {
        clock,
        log: log.child({ part: "node-api" }),
        lookup: agent.lookup,
        onNewTls: (use) => pki.onRenewal(use),
        ...createNodeAccess({
          nodeName: config.nodeName,
          ...{ client, clock },
          byCertificate: (certificate) => api.authenticateCertificate(certificate),
        }),
        metrics: () => metrics.render(),
        stats: agent.stats,
      },
    ),
  ];

  function roles({ config }: ServerContext): Service {
    return {
      name: "node-roles",
      async run(signal, ready) {
        await client.patch(nodes, { name: config.nodeName }, { metadata: { labels: roleLabels } });
        ready();
        await untilAborted(signal);
      },
    };
  }

  /** The kube-dns Service, for whoever asks the API where DNS is. */
  function dnsService({ config }: ServerContext): Service {
    return {
      name: "dns-service",
      async run(signal, ready) {
        await ensureDnsService(client, config.clusterDns);
        ready();
        await untilAborted(signal);
      },
    };
  }
}

const nodeTls = ({ servingKubelet, clientCa }: Pki): TlsMaterial => ({
  certificatePem: servingKubelet.certificate,
  keyPem: servingKubelet.key,
  clientCaPem: clientCa.certificate,
});

/** Takes down pods, containerd and networks of this data folder. `mote server` must have ended. */
export async function removeNode(config: ServerConfig, deps: Pick<ServerContext, "clock" | "log">): Promise<void> {
  const commands = systemCommands;
  const { clock, log } = deps;
  await stopAllPods(
    { ...containerdOptions(config), podsDir: `${config.agentDir}/pods`, kubeletDir, graceSeconds: killallGraceSeconds },
    { clock, log, commands },
  );
  await removePodNetwork({ cniConfDir: cniConfDirOf(config), ipamDir: ipamDirOf(config) }, { commands, log });
  await removeServiceProxy(commands);
  await removeClusterDns(commands);
}
