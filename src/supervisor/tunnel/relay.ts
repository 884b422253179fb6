// Servers relay for each other: each dials the others, tells them which nodes it holds tunnels of, and dials those nodes
// for them. So any server reaches any node as long as one of them holds its tunnel. The wire is remotedialer's peering:
// the protocol of a connect is `NODE::PROTO`. Upstream counterpart: remotedialer peer.go.
import type { Service } from "#base/service.ts";
import { createTunnelClient, type TunnelClientDeps, type TunnelClientOptions } from "./client.ts";
import { peerHeaders, type TunnelServer } from "./server.ts";

export interface RelayOptions extends Omit<TunnelClientOptions, "headers"> {
  /** This server's name among them. */
  readonly id: string;
  readonly peerToken: string;
}

/** To one other server. */
export function createRelay(
  options: RelayOptions,
  deps: Omit<TunnelClientDeps, "mayDial" | "open" | "onSession"> & { readonly tunnels: TunnelServer },
): Service {
  const { tunnels } = deps;
  let stopTelling = () => {};
  return createTunnelClient(
    { ...options, headers: { [peerHeaders.id]: options.id, [peerHeaders.token]: options.peerToken } },
    {
      ...deps,
      // The other one is a server: what a node lets happen, the node decides.
      mayDial: (proto) => proto.includes("::"),
      async open(proto, address) {
        const split = proto.lastIndexOf("::");
        return tunnels.dialLocal(proto.slice(0, split), proto.slice(split + 2), address);
      },
      onSession(session) {
        stopTelling();
        stopTelling = session ? tunnels.onNode((node, isThere) => session.announce(node, isThere)) : () => {};
      },
    },
  );
}
