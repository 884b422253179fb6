// Servers relay for each other: each dials the others, tells them which nodes it holds tunnels of, and dials those nodes
// for them. So any server reaches any node as long as one of them holds its tunnel; and the node of a server itself, which has
// none. The wire is remotedialer's peering: the protocol of a connect is `NODE::PROTO`.
// Upstream counterpart: remotedialer peer.go.
import type { Service } from "#base/service.ts";
import type { Duplex } from "#platform/https-server.ts";
import { createTunnelClient, type TunnelClientDeps, type TunnelClientOptions } from "./client.ts";
import { peerHeaders, type TunnelServer } from "./server.ts";

export interface RelayOptions extends Omit<TunnelClientOptions, "headers"> {
  /** This server's name among them. */
  readonly id: string;
  readonly peerToken: string;
  /** The node of this server, which is dialed plainly here. */
  readonly ownNode?: {
    readonly name: string;
    readonly mayDial: (proto: string, address: string) => boolean;
    readonly open: (address: string, signal: AbortSignal) => Promise<Duplex>;
  };
}

/** To one other server. */
export function createRelay(
  options: RelayOptions,
  deps: Omit<TunnelClientDeps, "mayDial" | "open" | "onSession"> & { readonly tunnels: TunnelServer },
): Service {
  const { tunnels } = deps;
  const { ownNode } = options;
  let stopTelling = () => {};
  return createTunnelClient(
    { ...options, headers: { [peerHeaders.id]: options.id, [peerHeaders.token]: options.peerToken } },
    {
      ...deps,
      // The other one is a server: what a node lets happen, the node decides.
      mayDial: (proto) => proto.includes("::"),
      async open(target, address, signal) {
        const split = target.lastIndexOf("::");
        const [node, proto] = [target.slice(0, split), target.slice(split + 2)];
        if (node !== ownNode?.name) return tunnels.dialLocal(node, proto, address);
        if (!ownNode.mayDial(proto, address)) throw new Error("connect not allowed");
        return ownNode.open(address, signal);
      },
      onSession(session) {
        stopTelling();
        stopTelling = session ? tunnels.onNode((node, isThere) => session.announce(node, isThere)) : () => {};
        if (session && ownNode) session.announce(ownNode.name, true);
      },
    },
  );
}
