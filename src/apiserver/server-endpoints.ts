// Keeps the endpoints of the service `kubernetes` at the servers that live, be it one whose address changes or several: pods
// reach the API at any of them, and agents learn from it which servers there are. Every server does this, and all come to the same.
// Upstream counterpart: pkg/controlplane/reconcilers.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import type { Client } from "#client/client.ts";
import { publishServers } from "./bootstrap/bootstrapper.ts";

export interface ServerEndpointsOptions {
  readonly serviceIp: string;
  readonly apiPort: number;
  /** Undefined: not known yet, and what stands there stays. */
  readonly addresses: () => readonly string[] | undefined;
  readonly onChange: (listener: () => void) => () => void;
}

const retryMs = 1000;
/** Somebody may have changed what stands there. */
const lookMs = 60_000;

export function createServerEndpoints(
  options: ServerEndpointsOptions,
  deps: { readonly client: Client; readonly clock: Clock; readonly log: Logger },
): Service {
  const { client, clock, log } = deps;
  return {
    name: "server-endpoints",
    async run(signal, ready) {
      ready();
      let wake = () => {};
      const stop = options.onChange(() => wake());
      while (!signal.aborted) {
        const woken = new AbortController();
        wake = () => woken.abort();
        signal.addEventListener("abort", wake, { once: true });
        let waitMs = lookMs;
        const addresses = options.addresses();
        try {
          if (addresses) await publishServers({ ...options, addresses }, client);
        } catch (error) {
          waitMs = retryMs;
          if (!signal.aborted)
            log.warn("the addresses of servers are not told, trying again", { error: messageOf(error) });
        }
        await pause(clock, waitMs, woken.signal);
        signal.removeEventListener("abort", wake);
      }
      stop();
    },
  };
}
