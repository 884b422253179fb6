// The servers of a cluster with a shared datastore: each holds a key with its address in its session (server-session.ts), and
// reads those of the others. Whoever asks is told of all that live, this one included; a server that is gone leaves the list
// when its session ends. The keys are kube-apiserver's master leases, and so is what stands in them.
// Upstream counterpart: pkg/controlplane/reconcilers, lease.
import { type Clock, pause } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { type Backend, prefixRange, revision } from "#datastore/backend.ts";
import { isIp } from "#model/validation/names.ts";
import { addressText, type ServerAddress } from "./server-address.ts";
import type { ServerSession } from "./server-session.ts";

export interface ServerList {
  readonly service: Service;
  /** In order of their addresses; this one alone until the others are known. */
  readonly servers: readonly ServerAddress[];
  readonly isKnown: boolean;
  /** This server has another address now. */
  move(own: ServerAddress): void;
  /** Called with every change until the returned function is. */
  onChange(listener: () => void): () => void;
}

export interface ServerListDeps {
  readonly backend: Backend;
  readonly session: Pick<ServerSession, "hold" | "drop">;
  readonly clock: Clock;
  readonly log: Logger;
}

const prefix = "/registry/masterleases/";
const retryMs = 1000;
/** Far more than anybody has: what others write must not fill this server's memory. */
const maxServers = 100;

export function createServerList(first: ServerAddress, deps: ServerListDeps): ServerList {
  const { backend, session, clock, log } = deps;
  const listeners = new Set<() => void>();
  let own = first;
  let servers: readonly ServerAddress[] = [own];
  let isKnown = false;
  session.hold(`${prefix}${own.ip}`, formatAddress(own));

  const read = async (): Promise<number> => {
    const { kvs, revision: at } = await backend.range({ ...prefixRange(prefix), limit: maxServers });
    const found = kvs.flatMap(({ key, value }) => parseAddress(key, value) ?? []);
    const all = [...found.filter(({ ip }) => ip !== own.ip), own].sort((a, b) => (a.ip < b.ip ? -1 : 1));
    if (!isKnown || JSON.stringify(all) !== JSON.stringify(servers)) {
      [servers, isKnown] = [all, true];
      log.info("servers of this cluster", { servers: all.map(({ ip, port }) => `${ip}:${port}`).join() });
      for (const listener of listeners) listener();
    }
    return at;
  };

  return {
    get servers() {
      return servers;
    },
    get isKnown() {
      return isKnown;
    },
    move(next) {
      const before = own;
      own = next;
      // What is written is seen by the watch, and read again.
      session.hold(`${prefix}${next.ip}`, formatAddress(next));
      if (next.ip !== before.ip) session.drop(`${prefix}${before.ip}`);
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    service: {
      name: "server-list",
      async run(signal, ready) {
        ready();
        while (!signal.aborted) {
          try {
            await followOnce(await read(), signal);
          } catch (error) {
            if (signal.aborted) return;
            log.debug("the list of servers cannot be read, trying again", { error: messageOf(error) });
            await pause(clock, retryMs, signal);
          }
        }
      },
    },
  };

  /** Until something changes, or the watch ends. */
  function followOnce(from: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const over = () => {
        signal.removeEventListener("abort", over);
        watch.cancel();
        resolve();
      };
      const watch = backend.watch(
        { ...prefixRange(prefix), startRevision: revision(from + 1) },
        // Told from within: the watch is let go of afterwards.
        { onEvents: () => queueMicrotask(over), onEnd: () => queueMicrotask(over) },
      );
      signal.addEventListener("abort", over, { once: true });
      if (signal.aborted) over();
    });
  }
}

/** An earlier run of this server may have had another address; its session ends within this time. */
const nameWaitMs = 12_000;
const namePollMs = 500;

/**
 * Names of servers are those of their nodes: two of one name would take each other's node, and each other's turn. Holds the
 * name, or rejects with SERVER_NAME.
 */
export async function holdServerName(
  name: string,
  own: ServerAddress,
  { backend, session, clock }: Pick<ServerListDeps, "backend" | "session" | "clock">,
  signal: AbortSignal,
): Promise<void> {
  const key = `/mote/servers/${name}`;
  const mine = addressText(own);
  for (let waitedMs = 0; ; waitedMs += namePollMs) {
    const { kvs } = await backend.range({ key });
    const other = kvs[0] && Buffer.from(kvs[0].value).toString("utf8");
    if (other === undefined || other === mine) break;
    if (waitedMs >= nameWaitMs) {
      const message = `the name ${name} is that of the server at ${other}: choose another with --node-name`;
      throw new AppError("SERVER_NAME", message, { other });
    }
    await clock.sleep(namePollMs, signal);
  }
  session.hold(key, mine);
}

/** As kube-apiserver has it: an Endpoints object with the one address. */
export function formatAddress({ ip, port }: ServerAddress): string {
  const ports = [{ name: "https", port, protocol: "TCP" }];
  return JSON.stringify({
    kind: "Endpoints",
    apiVersion: "v1",
    metadata: {},
    subsets: [{ addresses: [{ ip }], ports }],
  });
}

/** The address stands in the key; a kube-apiserver's value says no port. */
export function parseAddress(key: string, value: Uint8Array): ServerAddress | undefined {
  const ip = key.slice(prefix.length);
  if (!isIp(ip)) return undefined;
  try {
    const { subsets } = JSON.parse(Buffer.from(value).toString("utf8")) as {
      subsets?: readonly { readonly ports?: readonly { readonly port?: unknown }[] }[];
    };
    const port = subsets?.[0]?.ports?.[0]?.port;
    if (typeof port === "number" && port > 0 && port < 65_536) return { ip, port };
  } catch {
    // In the binary form: the key says enough.
  }
  return { ip, port: 6443 };
}
