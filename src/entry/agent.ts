// `mote agent`: a node whose API server is elsewhere. Joins, then runs the parts of a node over HTTPS with the node's own
// certificates, and keeps a tunnel to each server. Composition only.
import { clientCertificates } from "#apiserver/client-certificates.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { restarting, runAll, type Service } from "#base/service.ts";
import { moteVersion } from "#base/version.ts";
import { Client } from "#client/client.ts";
import { EventRecorder } from "#client/events.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { InformerFactory } from "#client/informer.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { noteHome, settleHome } from "#node/home-cluster.ts";
import { NodeMemory } from "#node/memory.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { makeFolder } from "#platform/files.ts";
import { isRoot } from "#platform/host.ts";
import { createHttp2Client, type Http2Client } from "#platform/http2-client.ts";
import { acquireProcessLock } from "#platform/process-lock.ts";
import { systemRandom as random } from "#platform/random.ts";
import { stopSignal } from "#platform/signals.ts";
import { egressLabels } from "#supervisor/egress-label.ts";
import { type Credentials, type Membership, openMembership } from "#supervisor/join-client.ts";
import { createBalancerPort, type LoadBalancer, openLoadBalancer, serverName } from "#supervisor/load-balancer.ts";
import { claimWithNode } from "#supervisor/name-claim.ts";
import { readerTransport } from "#supervisor/reader-transport.ts";
import { createServerTunnels, followServers } from "#supervisor/server-tunnels.ts";
import { nodeIpsIn, possibleNodeIps } from "./cluster-addresses.ts";
import type { Invocation } from "./invocation.ts";
import { createProcessLog } from "./log.ts";
import { type NodeConfig, nodeServices, type OnNode, watchNode, withBegunNode } from "./node.ts";
import { type AgentConfig, agentConfig, overlayBackend } from "./node-config.ts";
import { withNodeId } from "./node-id.ts";
import { followOwnAddresses, type OwnAddresses } from "./own-addresses.ts";
import { readFlagsOnly } from "./read-flags.ts";
import { tokenOf } from "./token-file.ts";

const stopTimeoutMs = 10_000;
/** A failed part comes back after this, growing to the second number. */
const restartPause = { minMs: 200, maxMs: 10_000 } as const;
/** Fixed, as the server's. */
const nodeApiPort = 10250;

/** Who runs the agent; as the server's. */
export interface AgentHost {
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** The node has joined, now or before. */
  readonly onApiReady?: () => void;
  /** What keeps the node from joining so far, in a sentence. */
  readonly onProblem?: (sentence: string) => void;
  readonly onNode?: OnNode;
}

/** `mote agent` from its command line. */
export async function agentCommand({ flags, args, env, runner }: Invocation): Promise<number> {
  const { values, warnings } = await readFlagsOnly(flags, args, env);
  const config = agentConfig(values, warnings, runner);
  return runAgent({ ...config, node: await withNodeId(config.node, values, random) });
}

/** Runs until the host's signal, by default SIGTERM or SIGINT; resolves with the exit code. */
export async function runAgent(config: AgentConfig, host?: AgentHost): Promise<number> {
  if (!isRoot()) throw new AppError("STARTUP", "a node needs root for containers and networks");
  const { log, signal, ...tells } = host ?? {
    log: createProcessLog(clock, config.node.debug),
    signal: stopSignal(),
  };
  for (const warning of config.warnings) log.warn(warning);
  const startedMs = clock.monotonicMs();
  const { nodeName, givenNodeIps, externalIps, agentDir, dataDir } = config.node;
  log.info("mote agent starts", { version: moteVersion, node: nodeName, data: dataDir, server: config.server });
  await makeFolder(agentDir);
  const lock = await acquireProcessLock(`${agentDir}/agent`);
  try {
    const balancer = await openLoadBalancer(
      { server: config.server, folder: `${agentDir}/etc` },
      { clock, log: log.child({ part: "servers" }) },
    );
    let own: OwnAddresses | undefined;
    let joined: Membership | undefined;
    const ipsIn = (of: Membership) => nodeIpsIn(of.current.settings.clusterCidr, givenNodeIps);
    const membership = await openMembership(
      {
        ...{ server: config.server, folder: agentDir, nodeName },
        get nodeIps() {
          const inside = own?.current ?? (joined ? ipsIn(joined) : possibleNodeIps(givenNodeIps));
          return [...new Set([...inside, ...externalIps])];
        },
        passwordFile: `${dataDir}/node/password`,
        token: await tokenOf(config, log),
        way: { dial: balancer.connect },
      },
      {
        ...{ clock, random, log: log.child({ part: "joining" }), onProblem: tells.onProblem },
        onServers: (servers) => balancer.setServers(servers),
      },
      signal,
    );
    joined = membership;
    const joinedMs = clock.monotonicMs();
    tells.onApiReady?.();
    const overlay = { backend: overlayBackend(membership.current.settings.flannelBackend) };
    await withBegunNode({ ...config.node, overlay }, { clock, log }, async (begun, up) => {
      await membership.catchUp();
      const { clusterCidr } = membership.current.settings;
      const nodeIps = ipsIn(membership);
      own = followOwnAddresses({ clusterCidr, given: givenNodeIps, nodeIps }, { clock, log });
      // The node API's certificate names them.
      own.onChange(() => membership.moved());
      const graceMs = parseConfiguration(config.node.kubeletArgs).shutdownGracePeriodMs;
      await runAll(
        await services(config, { membership, balancer, own, joinedMs }, log, begun, tells.onNode),
        { clock, log, stopTimeoutMs: stopTimeoutMs + graceMs },
        signal,
        () => {
          up();
          log.info("mote agent is ready", { ms: Math.round(clock.monotonicMs() - startedMs) });
        },
      );
    });
    return 0;
  } catch (error) {
    if (signal.aborted) return 0;
    throw error;
  } finally {
    await lock.release();
    log.info("mote agent ended");
  }
}

async function services(
  { node, server, balancerPort, isMetered }: AgentConfig,
  {
    membership,
    balancer,
    own,
    joinedMs,
  }: {
    readonly membership: Membership;
    readonly balancer: LoadBalancer;
    readonly own: OwnAddresses;
    readonly joinedMs: number;
  },
  log: Logger,
  begun: Promise<number | undefined>,
  onNode: OnNode | undefined,
): Promise<Service[]> {
  const { settings } = membership.current;
  const config: NodeConfig = {
    ...node,
    clusterCidr: settings.clusterCidr,
    get nodeIps() {
      return own.current;
    },
    overlay: {
      device: node.overlayDevice,
      backend: overlayBackend(settings.flannelBackend),
      usesExternalIp: settings.flannelExternalIp,
      masqueradesIpv6: settings.flannelIpv6Masq,
    },
    clusterDns: settings.clusterDns,
    clusterDomain: settings.clusterDomain,
    disabled: new Set(settings.hasServiceProxy ? [] : ["service-proxy"]),
  };
  const { nodeName } = config;
  const connections: Http2Client[] = [];
  const transportAs = (pair: (credentials: Credentials) => Credentials["kubelet"]) => {
    const connect = () => {
      const { certificate, key } = pair(membership.current);
      const { serverCa } = membership.current;
      const way = { dial: balancer.connect, serverName } as const;
      return createHttp2Client({ baseUrl: server, ca: serverCa, cert: certificate, key, trust: "keys", ...way });
    };
    const http = renewable(connect, membership);
    connections.push(http);
    return createHttpTransport({ userAgent: `mote-agent/${moteVersion}` }, { http });
  };
  const ownTransport = transportAs(({ kubelet }) => kubelet);
  const memoryFolder = `${node.agentDir}/remembered`;
  const home = () => ({ dataFolder: node.agentDir, memoryFolder, keys: membership.clusterKeys });
  await settleHome(home(), log);
  membership.onChange(() => {
    noteHome(home()).catch((error: unknown) => {
      // Noted at the next start, from which on it counts.
      log.debug("cannot note the cluster's authorities", { error: messageOf(error) });
    });
  });
  const memory = await NodeMemory.open(
    { folder: memoryFolder, nodeName, sinceMs: joinedMs },
    {
      ...{ clock, random, log: log.child({ part: "memory" }) },
      probe: (path, stop) => ownTransport.request({ method: "GET", path }, stop),
    },
  );
  const client = new Client(memory.transport(ownTransport));
  // Of servers of mote a node may read it all as itself: one connection less, for both ends.
  const ofOthers = membership.current.proxy
    ? readerTransport({
        controller: transportAs(({ controller }) => controller),
        proxy: transportAs(({ controller, proxy }) => proxy ?? controller),
      })
    : ownTransport;
  const controllerClient = new Client(memory.transport(ofOthers));
  const informers = new InformerFactory(
    {},
    {
      ...{ client: controllerClient, clock, random, log: log.child({ part: "informers" }) },
      recall: memory.networkRecall,
    },
  );
  memory.watch(informers);
  claimWithNode(nodeName, informers, membership);
  if (onNode) watchNode(nodeName, { clock, informers }, onNode);
  const metrics = new Metrics();
  const events = new EventRecorder(
    { component: "kubelet", host: nodeName },
    { client, clock, random, log: log.child({ part: "events" }) },
  );
  const parts = nodeServices(
    {
      ...{ config, clock, random, log, metrics, client, events, informers, memory, own },
      reviews: client,
      async byCertificate(certificate, intermediates) {
        try {
          return await certificates(certificate, intermediates);
        } catch (error) {
          // The API server may have an authority that is not known here yet.
          membership.check();
          throw error;
        }
      },
      tls() {
        const { serving, clientCa } = membership.current;
        return { certificatePem: serving.certificate, keyPem: serving.key, clientCaPem: clientCa };
      },
      onNewTls: (use) => membership.onChange(use),
      podCidrs: [],
      ownLabels: egressLabels(settings.egressMode),
    },
    begun,
  );
  // By the server's time: it is the one who shows certificates.
  const judge = { ...clock, now: () => membership.nowMs() };
  const onVouched = () => membership.check();
  const authenticator = () => clientCertificates(membership.current.clientCa, { clock: judge, log, onVouched });
  let certificates = authenticator();
  membership.onChange(() => {
    certificates = authenticator();
  });
  const tunnels = createServerTunnels(
    {
      tls() {
        const { serverCa, kubelet } = membership.current;
        return { ca: serverCa, cert: kubelet.certificate, key: kubelet.key, trust: "keys" };
      },
      isMetered,
      rules: {
        mode: settings.egressMode,
        nodeApiPort,
        get nodeAddresses() {
          return config.nodeIps;
        },
        clusterCidrs: settings.clusterCidr.split(","),
        pods: () => parts.lookup.pods(),
      },
    },
    {
      ...{ clock, random, balancer, log: log.child({ part: "tunnel" }) },
      // A tunnel finds out first: what else runs to its server is asked at once.
      onLost() {
        for (const connection of connections) connection.check();
      },
      onFound() {
        for (const connection of connections) connection.hurry();
        memory.reach.hurry();
      },
    },
  );
  memory.reach.onBack(() => tunnels.hurry());
  followServers(informers, balancer, { log, hasServiceProxy: settings.hasServiceProxy });
  const port = createBalancerPort({ port: balancerPort }, { balancer, clock, log: log.child({ part: "servers" }) });
  const all = [membership.service, own.service, ...memory.services, informers, events, tunnels, ...parts.services];
  return [...all, ...(balancerPort === 0 ? [] : [port])].map((service) =>
    restarting(service, { clock, log, ...restartPause }),
  );
}

/**
 * Connections with another certificate from the next change on; what runs over the old ones begins again. Being turned away
 * is a reason to ask for another.
 */
function renewable(connect: () => Http2Client, membership: Membership): Http2Client {
  let current = connect();
  membership.onChange(() => {
    const old = current;
    current = connect();
    old.close();
  });
  return {
    async send(request, signal) {
      const response = await current.send(request, signal);
      if (response.status === 401) membership.check();
      return response;
    },
    check: () => current.check(),
    hurry: () => current.hurry(),
    close: () => current.close(),
  };
}
