// The tunnels of a server as the rest of it sees them: connections of nodes and of other servers come in, and whoever wants
// an address is told which way to go. Tunnels are accepted in every mode; the mode says what they are used for.
import { createHmac } from "node:crypto";
import type { Clock, Random } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { type Service, untilAborted } from "#base/service.ts";
import type { Informer, InformerFactory } from "#client/informer.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nodes, pods } from "#model/resources.ts";
import { openTcp } from "#platform/dial.ts";
import type { Duplex, ServerUpgrade } from "#platform/https-server.ts";
import type { UpgradeTls } from "#platform/upgrade-client.ts";
import { splitAddress } from "./balancer/state-file.ts";
import { loadCodec, type TunnelCodec } from "./tunnel/codec.ts";
import { defaultNodeApiPort, dialPolicy, type EgressMode, planEgress } from "./tunnel/egress.ts";
import { createRelay } from "./tunnel/relay.ts";
import { createTunnelServer } from "./tunnel/server.ts";

export type { EgressMode } from "./tunnel/egress.ts";

export interface TunnelsOptions {
  readonly mode: EgressMode;
  /** The node of this server: it is never tunnelled to. */
  readonly nodeName: string;
  /** What servers of this cluster know each other by; absent: there are no others. */
  readonly peerToken?: string;
}

/** The same for all servers that have the same keys, and nothing that tells them. */
export const peerTokenOf = (key: string): string =>
  createHmac("sha256", key).update("servers of one cluster relay for each other").digest("hex");

export interface PeerOptions {
  /** HOST:PORT of the other server. */
  readonly address: string;
  /** The name of this one, by which the other tells its peers apart. */
  readonly own: string;
  /** Whether this server has a node. */
  readonly hasNode: boolean;
  readonly tls: () => UpgradeTls;
}

export interface TunnelsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
}

export interface Tunnels {
  acceptNode(upgrade: ServerUpgrade, node: string): void;
  acceptPeer(upgrade: ServerUpgrade): boolean;
  /** Undefined: dial plainly. A node without tunnel may be in reach all the same. */
  connect(host: string, port: number): Duplex | undefined;
  /** Lets `informers` tell where nodes and pods are; before that everything is dialed plainly. */
  watch(informers: InformerFactory): void;
  /** Reaches nodes for another server, as long as it runs; that one does the same. */
  relay(peer: PeerOptions): Service;
  /** Says goodbye at its end. */
  readonly service: Service;
}

/** The stores are shared: the names must be nobody else's. */
const nodeIndex = "address-of-egress";
const podIndex = "address-of-egress";
/** Of this server's own node API, for another server. */
const dialTimeoutMs = 10_000;

export function createTunnels(options: TunnelsOptions, deps: TunnelsDeps): Tunnels {
  const { clock, random, log } = deps;
  const { peerToken } = options;
  const loaded = (): TunnelCodec => loadCodec((size) => random.bytes(size));
  const server = createTunnelServer(peerToken === undefined ? {} : { peerToken }, { ...deps, codec: loaded });
  let nodeStore: Informer<Node> | undefined;
  let podStore: Informer<Pod> | undefined;
  return {
    acceptNode: (upgrade, node) => server.accept(upgrade, node),
    acceptPeer: (upgrade) => server.acceptPeer(upgrade),
    connect(host, port) {
      const way = planEgress(
        options.mode,
        options.nodeName,
        { host, port },
        {
          node: (name) => nodeStore?.get(name),
          nodeAt: (address) => nodeStore?.byIndex(nodeIndex, address)[0],
          podAt: (address) => podStore?.byIndex(podIndex, address)[0],
        },
      );
      if (!way) return undefined;
      try {
        return server.dial(way.node, "tcp", way.address);
      } catch (error) {
        const level = hasCode(error, "TUNNEL_NO_SESSION") ? "debug" : "warn";
        log[level]("no way through a tunnel", { node: way.node, error: messageOf(error) });
        return undefined;
      }
    },
    watch(informers) {
      nodeStore = informers.informer(nodes);
      nodeStore.addIndex(nodeIndex, (node) => (node.status?.addresses ?? []).map(({ address }) => address));
      if (options.mode !== "pod" && options.mode !== "cluster") return;
      podStore = informers.informer(pods);
      podStore.addIndex(podIndex, ({ spec, status }) =>
        spec.hostNetwork ? [] : (status?.podIPs ?? []).map(({ ip }) => ip ?? ""),
      );
    },
    relay({ address, own, hasNode, tls }) {
      const target = splitAddress(address);
      if (!target || peerToken === undefined) throw new Error(`no way to relay for ${address}`);
      const ownNode = {
        name: options.nodeName,
        mayDial: dialPolicy({
          ...{ mode: "agent", nodeApiPort: defaultNodeApiPort, nodeAddresses: [], clusterCidrs: [] },
          pods: () => [],
        }),
        open(to: string, signal: AbortSignal) {
          const { host, port } = splitAddress(to) ?? { host: "127.0.0.1", port: 0 };
          return openTcp({ host, port, timeoutMs: dialTimeoutMs }, signal);
        },
      };
      return createRelay(
        { ...target, tls, id: own, peerToken, ...(hasNode ? { ownNode } : {}) },
        { clock, random, log, codec: loaded(), tunnels: server },
      );
    },
    service: {
      name: "tunnels",
      async run(signal, ready) {
        ready();
        await untilAborted(signal);
        server.close();
      },
    },
  };
}
