// The server's end of the tunnels: takes the upgrades of nodes and of other servers, keeps who can be reached, and dials
// through them. A node may hold several tunnels; the one heard last is used. What another server can reach is dialed
// through that server. Invariant: a tunnel belongs to the identity its certificate proved, also when it is resumed.
// Upstream counterpart: remotedialer server.go, session_manager.go, peer.go.
import { timingSafeEqual } from "node:crypto";
import type { Duplex } from "node:stream";
import type { Clock, Random } from "#base/clock.ts";
import { AppError } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { ServerUpgrade } from "#platform/https-server.ts";
import { acceptBareWebSocket } from "#platform/raw-websocket.ts";
import { bridgeMs } from "./client.ts";
import type { TunnelCodec } from "./codec.ts";
import { type Keepalive, keepalives } from "./keepalive.ts";
import { formatHello, isBeside, moteHeader, parseHello } from "./messages.ts";
import { Session } from "./session.ts";
import { Ticks } from "./ticks.ts";

/** Headers with which a server proves to another that it is one, as remotedialer's. */
export const peerHeaders = { id: "x-api-tunnel-id", token: "x-api-tunnel-token" } as const;

export interface TunnelServerOptions {
  /** Shared by all servers; absent: no server is taken for a peer. */
  readonly peerToken?: string;
}

export interface TunnelServerDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Loaded when the first tunnel comes: a server without other nodes needs none. */
  readonly codec: () => TunnelCodec;
}

export interface TunnelServer {
  /** The upgrade of an authenticated node; answers it in any case. */
  accept(upgrade: ServerUpgrade, node: string): void;
  /** The same of another server; false when it is none, and nothing was answered. */
  acceptPeer(upgrade: ServerUpgrade): boolean;
  /** Whether `node` has a tunnel here, also one that waits for its node to come back. */
  has(node: string): boolean;
  /** Throws TUNNEL_NO_SESSION. What is written goes out at once: there is no other sign that the stream stands. */
  dial(node: string, proto: string, address: string): Duplex;
  /** The same for another server: through tunnels to nodes only, so that two servers never send it round in circles. */
  dialLocal(node: string, proto: string, address: string): Duplex;
  /** Tells of every node that comes and goes, and of those that are here; the returned function ends it. */
  onNode(listener: (node: string, isThere: boolean) => void): () => void;
  close(): void;
}

/** Of one identity: an agent dials once, and again while the server has not yet noticed that the first is dead. */
const maxSessionsPerName = 8;
/**
 * On metered links nobody notices for minutes that a node has lost its power, and it may lose it again and again. Longer than living
 * ends of other links are silent, so that devices that took one name do not drive each other out without a pause.
 */
const silentMs = 10_000;
/** All of them together: as many nodes as one server is meant for, and then some. */
const maxSessions = 5000;
/** What a dialing end may ask for: no timer of ours turns faster, and none is kept for days. */
const leastPingMs = 250;
const mostPingMs = 900_000;

const beganAnew = "the other end began anew";

interface Peer {
  /** Nodes that it can reach. */
  readonly nodes: Set<string>;
}

export function createTunnelServer(options: TunnelServerOptions, deps: TunnelServerDeps): TunnelServer {
  const { clock, log } = deps;
  const nodes = new Map<string, Session[]>();
  const peers = new Map<Session, Peer>();
  const waiting = new Map<Session, () => void>();
  /** Others of the same end have come after them. */
  const replaced = new WeakSet<Session>();
  /** Which tunnel of which process each belongs to, where that was said. */
  const origins = new WeakMap<Session, string>();
  const listeners = new Set<(node: string, isThere: boolean) => void>();
  const ticks = new Ticks(clock);
  let codec: TunnelCodec | undefined;
  let sessions = 0;
  deps.metrics.gaugeOf(
    "mote_supervisor_tunnels",
    "Tunnels of nodes and other servers, waiting ones included.",
    () => sessions,
  );
  deps.metrics.gaugeOf("mote_supervisor_tunnel_streams", "Connections through all tunnels.", () => {
    let sum = 0;
    for (const list of nodes.values()) for (const session of list) sum += session.liveStreamCount;
    for (const session of peers.keys()) sum += session.liveStreamCount;
    return sum;
  });

  const loaded = (): TunnelCodec => {
    codec ??= deps.codec();
    return codec;
  };

  const tell = (node: string, isThere: boolean) => {
    for (const listener of listeners) listener(node, isThere);
  };

  /** A process that begins another tunnel has forgotten nothing of its others; whoever else begins anew, all. */
  const isForgotten = (one: Session, of: string | undefined): boolean => !isBeside(origins.get(one), of);

  /** Answers the handshake, and goes on with a session of `owned` or begins one. */
  const take = (
    upgrade: ServerUpgrade,
    peer: string,
    owned: readonly Session[],
    begun: (session: Session) => void,
    over: (session: Session) => void,
    client?: (session: Session, name: string, isThere: boolean) => void,
  ): void => {
    const hello = parseHello(upgrade.request.headers[moteHeader]);
    const old = hello?.session === undefined ? undefined : owned.find((one) => isSame(one.token, hello.session!));
    const goesOn = old !== undefined && hello !== undefined && old.canResume(hello.from);
    if (!goesOn && (owned.length >= maxSessionsPerName || sessions >= maxSessions)) {
      // The oldest of the same end that waits is worth less than one that is there; and so is one that may only seem to be there.
      const isSilent = (one: Session) => clock.monotonicMs() - one.heardMs >= silentMs;
      const idle =
        owned.find((one) => !one.isAttached) ?? owned.find((one) => isForgotten(one, hello?.of) && isSilent(one));
      if (!idle) {
        log.warn("tunnel: too many", { peer });
        upgrade.socket.end("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        return;
      }
      idle.end("another took its place");
    }
    const session = goesOn
      ? old
      : new Session(
          {
            peer,
            isDialer: false,
            isMote: hello !== undefined,
            keepalive: hello ? bounded(hello) : keepalives.k3s,
          },
          { ...deps, codec: loaded(), ticks },
          {
            ...(client ? { client: (name, isThere) => client(session, name, isThere) } : {}),
            detached() {
              log.info("tunnel: lost, waiting for it", { peer });
              waiting.set(
                session,
                replaced.has(session)
                  ? clock.after(0, () => session.end(beganAnew))
                  : clock.after(bridgeMs, () => session.end("it was away for too long")),
              );
            },
            over(reason) {
              waiting.get(session)?.();
              waiting.delete(session);
              sessions--;
              log.info("tunnel: ended", { peer, reason });
              over(session);
            },
          },
        );
    // An earlier connection of the session is deaf from here on: what it still brings would be counted twice.
    if (goesOn) session.cut();
    if (!goesOn) {
      sessions++;
      // Whoever begins anew has forgotten what it had: nobody comes back for that, and what hangs there may be told at once.
      for (const one of [...owned]) {
        if (!isForgotten(one, hello?.of)) continue;
        replaced.add(one);
        if (!one.isAttached) one.end(beganAnew);
      }
      if (hello?.of !== undefined) origins.set(session, hello.of);
      begun(session);
    }
    const answer = formatHello({ session: session.token, from: session.wanted, ...session.options.keepalive });
    const socket = acceptBareWebSocket(upgrade, hello ? { [moteHeader]: answer } : {});
    if (!socket) {
      if (!goesOn) session.end("no handshake");
      return;
    }
    waiting.get(session)?.();
    waiting.delete(session);
    log.info(goesOn ? "tunnel: goes on" : "tunnel: opened", { peer, mote: hello !== undefined });
    session.attach(socket, upgrade.head, goesOn ? (hello?.from ?? 0) : 0);
  };

  /** The one heard last: an old connection that is half dead must not stand before a new one. */
  const best = (list: Iterable<Session> | undefined): Session | undefined => {
    let found: Session | undefined;
    for (const session of list ?? []) {
      if (session.isOver) continue;
      if (!found || rank(session) > rank(found)) found = session;
    }
    return found;
  };
  const rank = (session: Session): number => session.heardMs + (session.isAttached ? 2 ** 40 : 0);

  const missing = (node: string) =>
    new AppError("TUNNEL_NO_SESSION", `failed to find Session for client ${node}`, { node });

  return {
    accept(upgrade, node) {
      take(
        upgrade,
        node,
        nodes.get(node) ?? [],
        (session) => {
          const list = nodes.get(node);
          if (list) list.push(session);
          else nodes.set(node, [session]);
          if (!list) tell(node, true);
        },
        (session) => {
          const rest = (nodes.get(node) ?? []).filter((one) => one !== session);
          if (rest.length > 0) nodes.set(node, rest);
          else {
            nodes.delete(node);
            tell(node, false);
          }
        },
      );
    },
    acceptPeer(upgrade) {
      const id = upgrade.request.headers[peerHeaders.id];
      const token = upgrade.request.headers[peerHeaders.token];
      if (typeof id !== "string" || typeof token !== "string" || !options.peerToken) return false;
      if (id === "" || id.length > 100 || !isSame(token, options.peerToken)) return false;
      const peer = `server ${id}`;
      take(
        upgrade,
        peer,
        [...peers.keys()].filter((one) => one.options.peer === peer),
        (session) => peers.set(session, { nodes: new Set() }),
        (session) => peers.delete(session),
        (session, name, isThere) => {
          const known = peers.get(session)?.nodes;
          if (!isThere) known?.delete(name);
          else if (known && known.size < maxSessions) known.add(name);
        },
      );
      return true;
    },
    has: (node) => best(nodes.get(node)) !== undefined,
    dialLocal(node, proto, address) {
      const own = best(nodes.get(node));
      if (!own) throw missing(node);
      return own.open(proto, address);
    },
    dial(node, proto, address) {
      const own = best(nodes.get(node));
      if (own?.isAttached) return own.open(proto, address);
      const through = best([...peers].filter(([, peer]) => peer.nodes.has(node)).map(([session]) => session));
      // A way that stands is better than one that may come back.
      if (own && !through?.isAttached) return own.open(proto, address);
      if (!through) throw missing(node);
      return through.open(`${node}::${proto}`, address);
    },
    onNode(listener) {
      listeners.add(listener);
      for (const node of nodes.keys()) listener(node, true);
      return () => void listeners.delete(listener);
    },
    close() {
      for (const session of [...[...nodes.values()].flat(), ...peers.keys()]) session.close();
    },
  };
}

function bounded({ pingMs, deadMs }: Keepalive): Keepalive {
  const bound = (ms: number) => Math.min(mostPingMs, Math.max(leastPingMs, ms));
  return { pingMs: bound(pingMs), deadMs: bound(deadMs) };
}

function isSame(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
