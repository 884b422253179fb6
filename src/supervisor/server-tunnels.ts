// A node's tunnels, one to each server that it knows, so that every server reaches it without another's help. They come and go
// with the list, and are what says whether a server is well: a tunnel that stands is asked for a sign of life every second.
// Upstream counterpart: k3s pkg/agent/tunnel.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { endpointSlices } from "#model/resources.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { planTunnels } from "./balancer/plan.ts";
import { splitAddress } from "./balancer/state-file.ts";
import { type LoadBalancer, serverName } from "./load-balancer.ts";
import { createNodeTunnel, type NodeTunnelOptions } from "./node-tunnel.ts";
import { addressText } from "./server-address.ts";
import type { TunnelClient } from "./tunnel/client.ts";

export type ServerTunnelsOptions = Omit<NodeTunnelOptions, "host" | "port">;

export interface ServerTunnelsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly balancer: LoadBalancer;
  /** A tunnel was lost: whatever else runs to that server is worth a look. */
  readonly onLost?: () => void;
  /** A tunnel stands again: what waits for that server need not wait any longer. */
  readonly onFound?: () => void;
  readonly dial?: typeof dialBareWebSocket;
}

interface Running {
  readonly client: TunnelClient;
  /** The last attempt failed; undefined: there was none yet. */
  hasFailed: boolean | undefined;
  /** Since when it has not stood any more; undefined: it does, or never did. */
  lostMs: number | undefined;
  readonly stop: () => void;
  readonly done: Promise<void>;
}

/** Lets the endpoints of the service `kubernetes` say which servers there are. */
export function followServers(
  informers: InformerFactory,
  balancer: LoadBalancer,
  { log, hasServiceProxy }: { readonly log: Logger; readonly hasServiceProxy: boolean },
): void {
  // A node that translates service addresses has all slices anyway.
  const own = { namespace: "default", fieldSelector: "metadata.name=kubernetes" };
  const store = informers.informer(endpointSlices, hasServiceProxy ? {} : own);
  const look = ({ metadata }: EndpointSlice): void => {
    if (metadata.namespace !== "default" || metadata.labels?.["kubernetes.io/service-name"] !== "kubernetes") return;
    balancer.setServers(serversIn(store.list("default"))).catch((error: unknown) => {
      log.warn("the list of servers is not kept", { error: messageOf(error) });
    });
  };
  store.addHandler({ add: look, update: look, delete: look });
}

/** HOST:PORT of each. */
export function serversIn(slices: readonly EndpointSlice[]): readonly string[] {
  const own = slices.filter(({ metadata }) => metadata.labels?.["kubernetes.io/service-name"] === "kubernetes");
  return own.flatMap(({ endpoints, ports = [] }) => {
    const port = ports.find(({ name }) => name === "https")?.port;
    if (port === undefined) return [];
    const ready = endpoints.filter(({ conditions }) => conditions?.ready !== false);
    return ready.flatMap(({ addresses }) => addresses.map((ip) => addressText({ ip, port })));
  });
}

/** While a server is on its way up, and else: a state that somebody waits for takes two looks. */
const lookMs = { soon: 1000, later: 10_000 } as const;
/** A server that takes connections and says nothing is not waited for as long as a handshake may take. */
const silentMs = 2500;
/** From the handshake to the session. */
const attachMs = 20;

export interface ServerTunnels extends Service {
  /** Somebody knows that a server is within reach: no tunnel pauses before its next attempt. */
  hurry(): void;
}

export function createServerTunnels(options: ServerTunnelsOptions, deps: ServerTunnelsDeps): ServerTunnels {
  const { clock, log, balancer } = deps;
  const dial = deps.dial ?? dialBareWebSocket;
  const running = new Map<string, Running>();
  const processId = Buffer.from(deps.random.bytes(8)).toString("hex");
  let begun = 0;
  let wake = () => {};

  const start = (address: string): void => {
    const target = splitAddress(address);
    if (!target) return;
    const abort = new AbortController();
    const tried = (hasFailed: boolean) => {
      const mine = running.get(address);
      if (mine?.client !== client || abort.signal.aborted) return;
      mine.hasFailed = hasFailed;
      clock.after(hasFailed ? 0 : attachMs, () => wake());
    };
    const client = createNodeTunnel(
      { ...options, ...target, tls: () => ({ ...options.tls(), serverName }), of: `${processId}-${++begun}` },
      {
        ...{ clock, random: deps.random, log },
        onLink(isThere) {
          const mine = running.get(address);
          if (mine?.client === client) mine.lostMs = isThere ? undefined : clock.monotonicMs();
          if (isThere) {
            // On a busy machine it stands later than `attachMs` after its handshake.
            clock.after(0, () => wake());
            deps.onFound?.();
            return;
          }
          deps.onLost?.();
          clock.after(silentMs, () => wake());
        },
        async dial(request, signal) {
          try {
            const answer = await dial(request, signal);
            tried(false);
            return answer;
          } catch (error) {
            if (error instanceof AppError && error.details["isStranger"] === true)
              balancer.disown(address, messageOf(error));
            tried(true);
            throw error;
          }
        },
      },
    );
    const done = client
      .run(abort.signal, () => {})
      .catch((error: unknown) => {
        if (abort.signal.aborted) return;
        log.error("a tunnel has failed, beginning another", { server: address, error: messageOf(error) });
        running.delete(address);
      });
    running.set(address, {
      client,
      hasFailed: undefined,
      lostMs: undefined,
      done,
      stop: () => abort.abort(new Error("no server any more")),
    });
  };

  const isConnected = (address: string) => running.get(address)?.client.isConnected ?? false;

  /** Starts, stops and reports; true when it should be looked at again soon. */
  const look = (): boolean => {
    const wanted = planTunnels(balancer.servers, isConnected);
    for (const [address, tunnel] of [...running]) {
      if (wanted.includes(address)) continue;
      running.delete(address);
      tunnel.stop();
      stopping.add(tunnel.done);
      void tunnel.done.finally(() => stopping.delete(tunnel.done));
    }
    for (const address of wanted) if (!running.has(address)) start(address);
    for (const [address, { client, hasFailed, lostMs }] of running) {
      const isSilent = lostMs !== undefined && clock.monotonicMs() - lostMs >= silentMs;
      if (client.isConnected) balancer.report(address, true);
      else if (hasFailed || isSilent) balancer.report(address, false);
    }
    return balancer.servers.some(({ state }) => state === "recovering" || state === "unchecked");
  };
  const stopping = new Set<Promise<void>>();

  return {
    name: "tunnels to servers",
    hurry() {
      for (const { client } of running.values()) client.hurry();
    },
    async run(signal, ready) {
      // The node works without.
      ready();
      const stopListening = balancer.onChange(() => wake());
      while (!signal.aborted) {
        const woken = new AbortController();
        wake = () => woken.abort();
        signal.addEventListener("abort", wake, { once: true });
        const isSoon = look();
        await pause(clock, isSoon ? lookMs.soon : lookMs.later, woken.signal);
        signal.removeEventListener("abort", wake);
      }
      stopListening();
      for (const { stop } of running.values()) stop();
      await Promise.all([...[...running.values()].map(({ done }) => done), ...stopping]);
      running.clear();
      log.debug("tunnels ended");
    },
  };
}
