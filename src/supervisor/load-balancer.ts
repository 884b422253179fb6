// All connections of a node to its servers: `connect` opens one to the server that is best, and those to a server that is
// lost are cut, so that whoever holds one comes back over another server within seconds. Those to servers that are well are
// never touched. What to do is decided in balancer/plan.ts; here it is done. Whether a server is well its tunnel says
// (server-tunnels.ts), and which servers there are the cluster.
// Invariant: a connection is counted from the moment it stands until it is closed.
// Upstream counterpart: k3s pkg/agent/loadbalancer.
import type { Clock } from "#base/clock.ts";
import { AppError, hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";
import type { TcpSocket } from "#platform/http-dial.ts";
import type { Duplex } from "#platform/https-server.ts";
import { connectPatiently, type PatientConnect } from "#platform/patient-connect.ts";
import { listenTcp } from "#platform/tcp-server.ts";
import { tunnel } from "#platform/tunnel.ts";
import {
  type Attempt,
  type Change,
  inOrder,
  planFailure,
  planList,
  planSuccess,
  type ServerEntry,
} from "./balancer/plan.ts";
import { addressesIn, ServersFile, splitAddress } from "./balancer/state-file.ts";

/** A name that every server's certificate has, also of k3s, and no node's: addresses may change, and nodes have them too. */
export const serverName = "kubernetes";

export interface LoadBalancerOptions {
  /** https://HOST:PORT, as the node was given it: what is left when nothing else is known. */
  readonly server: string;
  /** Where the list is kept: DATA-DIR/agent/etc. */
  readonly folder: string;
}

export interface LoadBalancerDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Default: plain TCP. */
  readonly dial?: (
    address: string,
    timeoutMs: number,
    signal?: AbortSignal,
    how?: Pick<PatientConnect, "againMs" | "onHint">,
  ) => Promise<TcpSocket>;
}

export interface LoadBalancer {
  /** With the state of each. */
  readonly servers: readonly ServerEntry[];
  /** To the best server that takes one. Rejects with SERVERS_UNREACHABLE. */
  connect(signal?: AbortSignal): Promise<TcpSocket>;
  /** What the cluster says; an empty list says nothing. */
  setServers(addresses: readonly string[]): Promise<void>;
  /** What a server's tunnel says. */
  report(address: string, isWell: boolean): void;
  /** Whoever answers there is of another cluster: connections would be in vain, however well they stand. */
  disown(address: string, why: string): void;
  /** Called when servers come or go until the returned function is. */
  onChange(listener: () => void): () => void;
}

/**
 * Who has not answered for so long is tried so much more rarely: its tunnel goes on trying, and tells when it gets through. A
 * node that is without its server for days shall not send for nothing.
 */
const rare = { afterMs: 30_000, againMs: 2000 } as const;
/** While there are others to try, and the last. */
const dialTimeoutMs = { others: 3000, last: 10_000 } as const;

export async function openLoadBalancer(options: LoadBalancerOptions, deps: LoadBalancerDeps): Promise<LoadBalancer> {
  const { clock, log } = deps;
  const dial = deps.dial ?? dialTcp;
  const given = addressOf(options.server);
  const file = new ServersFile(options, deps);
  const listeners = new Set<() => void>();
  const sockets = new Map<string, Set<TcpSocket>>();
  /** Of dials that wait for an answer, by address: begins another attempt. */
  const dialing = new Map<string, Set<() => void>>();
  /** Since when none has got through, by address. */
  const awaySinceMs = new Map<string, number>();
  let servers = planList([], { listed: await file.read(), given }, clock.monotonicMs()).servers;

  const apply = ({ servers: next, hangUp }: Change): void => {
    for (const { address, state } of next) {
      const before = servers.find((one) => one.address === address)?.state;
      if (before !== state) log.debug("a server's state", { server: address, state, before: before ?? "" });
    }
    servers = next;
    for (const address of hangUp) {
      const open = [...(sockets.get(address) ?? [])];
      const isAlone = next.every((one) => one.address === address);
      const what = isAlone ? "connections are closed: there is no other server" : "connections move to another server";
      if (open.length > 0) log.info(what, { from: address, connections: open.length });
      for (const socket of open) socket.destroy();
    }
  };
  const count = (address: string): void => {
    const connections = sockets.get(address)?.size ?? 0;
    servers = servers.map((one) => (one.address === address ? { ...one, connections } : one));
  };
  const failed = (address: string, by: Attempt, why: string): void => {
    const change = planFailure(servers, address, by, clock.monotonicMs());
    if (change.servers !== servers) log.warn("a server is lost", { server: address, why });
    apply(change);
  };
  const howTo = (address: string): Pick<PatientConnect, "againMs" | "onHint"> => ({
    ...(clock.monotonicMs() - (awaySinceMs.get(address) ?? Number.POSITIVE_INFINITY) >= rare.afterMs
      ? { againMs: rare.againMs }
      : {}),
    onHint(attempt) {
      const all = dialing.get(address) ?? new Set();
      dialing.set(address, all.add(attempt));
      return () => {
        all.delete(attempt);
        if (all.size === 0 && dialing.get(address) === all) dialing.delete(address);
      };
    },
  });
  /** One has got through: so may those that wait. */
  const isWithinReach = (address: string): void => {
    awaySinceMs.delete(address);
    for (const attempt of [...(dialing.get(address) ?? [])]) attempt();
  };
  const keep = (address: string, socket: TcpSocket): void => {
    const open = sockets.get(address) ?? new Set();
    sockets.set(address, open.add(socket));
    count(address);
    socket.once("close", () => {
      open.delete(socket);
      if (open.size === 0) sockets.delete(address);
      count(address);
    });
    isWithinReach(address);
    apply(planSuccess(servers, address, "dial", clock.monotonicMs()));
  };

  return {
    get servers() {
      return servers;
    },
    async connect(signal) {
      const order = inOrder(servers);
      const reasons: string[] = [];
      for (const [i, address] of order.entries()) {
        signal?.throwIfAborted();
        try {
          const timeoutMs = i + 1 < order.length ? dialTimeoutMs.others : dialTimeoutMs.last;
          const socket = await dial(address, timeoutMs, signal, howTo(address));
          keep(address, socket);
          return socket;
        } catch (error) {
          signal?.throwIfAborted();
          reasons.push(messageOf(error));
          if (!awaySinceMs.has(address)) awaySinceMs.set(address, clock.monotonicMs());
          failed(address, "dial", messageOf(error));
        }
      }
      throw new AppError("SERVERS_UNREACHABLE", `no server can be reached: ${reasons.join("; ")}`);
    },
    async setServers(addresses) {
      const listed = addressesIn(addresses);
      if (listed.length === 0) return;
      const before = servers.map(({ address }) => address).join();
      apply(planList(servers, { listed, given }, clock.monotonicMs()));
      for (const address of awaySinceMs.keys()) {
        if (!servers.some((one) => one.address === address)) awaySinceMs.delete(address);
      }
      const now = servers.map(({ address }) => address).join();
      if (now !== before) {
        log.info("the cluster's servers", { servers: now });
        for (const listener of listeners) listener();
      }
      await file.write(listed);
    },
    report(address, isWell) {
      if (isWell) {
        isWithinReach(address);
        apply(planSuccess(servers, address, "check", clock.monotonicMs()));
      } else failed(address, "check", "its tunnel does not stand");
    },
    disown(address, why) {
      failed(address, "proof", why);
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** HOST:PORT of https://HOST:PORT. */
export function addressOf(server: string): string {
  const { hostname, port } = new URL(server);
  return `${hostname}:${port || 443}`;
}

async function dialTcp(
  address: string,
  timeoutMs: number,
  signal?: AbortSignal,
  how: Pick<PatientConnect, "againMs" | "onHint"> = {},
): Promise<TcpSocket> {
  const target = splitAddress(address);
  if (!target) throw new AppError("SERVERS_UNREACHABLE", `"${address}" is no HOST:PORT`);
  return connectPatiently({ ...target, timeoutMs, ...how }, signal);
}

/** How long until a port that somebody else has is asked for again. */
const portRetryMs = 60_000;
/** Far more than programs of one machine need; one that forgets its connections must not take the node's descriptors. */
const maxLocalConnections = 500;

/** The same for other programs of this machine, at a port of 127.0.0.1: TLS is between them and the server. */
export function createBalancerPort(
  options: { readonly port: number },
  deps: { readonly balancer: LoadBalancer; readonly clock: Clock; readonly log: Logger },
): Service {
  const { balancer, clock, log } = deps;
  const nothing = new Uint8Array(0);
  let open = 0;
  const take = async (socket: Duplex, signal: AbortSignal): Promise<void> => {
    if (open >= maxLocalConnections) {
      socket.destroy();
      return;
    }
    open++;
    try {
      const server = await balancer.connect(signal);
      await tunnel({ socket, head: nothing }, { socket: server, head: nothing }, signal);
    } catch (error) {
      log.debug("a connection found no server", { error: messageOf(error) });
      socket.destroy();
    } finally {
      open--;
    }
  };
  return {
    name: "server-port",
    async run(signal, ready) {
      // The node itself needs none.
      ready();
      while (!signal.aborted) {
        try {
          const listener = await listenTcp({ host: "127.0.0.1", port: options.port }, (socket) => {
            void take(socket, signal);
          });
          await untilAborted(signal);
          await listener.close();
        } catch (error) {
          if (!hasCode(error, "EADDRINUSE")) throw error;
          log.warn("the local port to the servers is in use; choose another with --lb-server-port", {
            port: options.port,
          });
          await clock.sleep(portRetryMs, signal).catch(() => {
            // Stopped.
          });
        }
      }
    },
  };
}
