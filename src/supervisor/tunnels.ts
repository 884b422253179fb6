// The tunnels of a server as the rest of it sees them: connections of nodes and of other servers come in, and whoever wants
// an address is told which way to go. Tunnels are accepted in every mode; the mode says what they are used for.
import type { Clock, Random } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import { type Service, untilAborted } from "#base/service.ts";
import type { Informer, InformerFactory } from "#client/informer.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { nodes, pods } from "#model/resources.ts";
import type { Duplex, ServerUpgrade } from "#platform/https-server.ts";
import { loadCodec } from "./tunnel/codec.ts";
import { type EgressMode, planEgress } from "./tunnel/egress.ts";
import { createTunnelServer } from "./tunnel/server.ts";

export type { EgressMode } from "./tunnel/egress.ts";

export interface TunnelsOptions {
  readonly mode: EgressMode;
  /** The node of this server: it is never tunnelled to. */
  readonly nodeName: string;
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
  /** Says goodbye at its end. */
  readonly service: Service;
}

/** The stores are shared: the names must be nobody else's. */
const nodeIndex = "address-of-egress";
const podIndex = "address-of-egress";

export function createTunnels(options: TunnelsOptions, deps: TunnelsDeps): Tunnels {
  const { random, log } = deps;
  const server = createTunnelServer({}, { ...deps, codec: () => loadCodec((size) => random.bytes(size)) });
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
