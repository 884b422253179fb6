// A node's word that it takes connections for more than its own API: the label that servers look for before they send what is
// for pods and addresses behind it through its tunnel. It is there where the cluster's mode asks for it, and else it is not.
// Upstream counterpart: k3s pkg/agent/tunnel.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { type EgressMode, egressLabel } from "./tunnel/egress.ts";

/** The value to write, null to take it away; undefined: it is as it should be. */
export function planEgressLabel(mode: EgressMode, node: Node): "true" | null | undefined {
  const found = node.metadata.labels?.[egressLabel];
  if (mode === "pod" || mode === "cluster") return found === "true" ? undefined : "true";
  return found === undefined ? undefined : null;
}

/** Until the node is there and knows: it registers while this runs, and a server may be away for long. */
const pauses = { minMs: 1000, maxMs: 60_000 } as const;

export function createEgressLabel(
  options: { readonly mode: EgressMode; readonly nodeName: string },
  deps: {
    readonly client: Pick<Client, "get" | "patch">;
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Logger;
  },
): Service {
  const { client, clock, random, log } = deps;
  const { mode, nodeName } = options;
  return {
    name: "label of the tunnel",
    async run(signal, ready) {
      // The node works without.
      ready();
      for (let pauseMs: number = pauses.minMs; !signal.aborted; pauseMs = Math.min(pauseMs * 2, pauses.maxMs)) {
        try {
          const value = planEgressLabel(mode, await client.get(nodes, nodeName));
          if (value !== undefined)
            await client.patch(nodes, { name: nodeName }, { metadata: { labels: { [egressLabel]: value } } });
          break;
        } catch (error) {
          log.debug("the label of the tunnel is not looked after yet", { error: messageOf(error) });
          await pause(clock, pauseMs * (0.5 + random.float() / 2), signal);
        }
      }
      await untilAborted(signal);
    },
  };
}
