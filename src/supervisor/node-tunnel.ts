// A node's tunnel to one server, as the rest of the node sees it: a service that keeps it open. What the server may dial
// here is decided here.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { openTcp } from "#platform/dial.ts";
import {
  createTunnelClient,
  type TunnelClient,
  type TunnelClientDeps,
  type TunnelClientOptions,
} from "./tunnel/client.ts";
import { loadCodec } from "./tunnel/codec.ts";
import { type DialRules, dialPolicy } from "./tunnel/egress.ts";

export interface NodeTunnelOptions extends Omit<TunnelClientOptions, "headers"> {
  readonly rules: DialRules;
}

/** A kubelet or pod that does not take a connection within this time is told of as unreachable. */
const dialTimeoutMs = 30_000;

export function createNodeTunnel(
  options: NodeTunnelOptions,
  deps: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Logger;
    readonly onLink?: (isThere: boolean) => void;
  } & Pick<TunnelClientDeps, "dial">,
): TunnelClient {
  return createTunnelClient(options, {
    ...deps,
    codec: loadCodec((size) => deps.random.bytes(size)),
    mayDial: dialPolicy(options.rules),
    open(_proto, address, signal) {
      const colon = address.lastIndexOf(":");
      const host = address.slice(0, colon).replace(/^\[|\]$/g, "");
      return openTcp({ host, port: Number(address.slice(colon + 1)), timeoutMs: dialTimeoutMs }, signal);
    },
  });
}
