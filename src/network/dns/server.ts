// The UDP and TCP ends of the name server on one address. Bounded in questions under way, connections and idle time.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { listenTcp, openUdp, type TcpConnection, type UdpSocket } from "#platform/datagram.ts";
import { framed, messagesIn } from "./forwarder.ts";
import type { Responder } from "./responder.ts";

export interface DnsServerOptions {
  readonly address: string;
  /** 0 chooses one port for both. */
  readonly port: number;
}

export interface DnsServerDeps {
  readonly responder: Responder;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface DnsServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Questions under way over UDP; further ones are dropped, and clients ask again. */
const maxPending = 512;
const maxConnections = 128;
const idleMs = 10_000;

export async function openDnsServer(options: DnsServerOptions, deps: DnsServerDeps): Promise<DnsServer> {
  const { clock, log, responder } = deps;
  const pending = new Set<Promise<void>>();
  let socket: UdpSocket | undefined;
  const track = (work: Promise<void>): void => {
    const task = work
      .catch((error: unknown) => log.debug("dns client failed", { error: messageOf(error) }))
      .then(() => void pending.delete(task));
    pending.add(task);
  };
  socket = await openUdp({
    ...options,
    onMessage(query, from) {
      if (pending.size >= maxPending) return;
      const answer = async () => {
        const response = await responder.respond(query, "udp");
        if (response) socket?.send(response, from.port, from.address);
      };
      track(answer());
    },
    onError: (error) => log.debug("dns socket error", { error: error.message }),
  });
  const converse = async (connection: TcpConnection): Promise<void> => {
    let cancel = clock.after(idleMs, () => connection.close());
    try {
      for await (const query of messagesIn(connection.chunks)) {
        cancel();
        const response = await responder.respond(query, "tcp");
        if (!response) break;
        connection.write(framed(response));
        cancel = clock.after(idleMs, () => connection.close());
      }
    } finally {
      cancel();
      connection.close();
    }
  };
  try {
    const server = await listenTcp({
      address: options.address,
      port: socket.port,
      maxConnections,
      onConnection: (connection) => track(converse(connection)),
    });
    const udp = socket;
    return {
      port: udp.port,
      async close() {
        await Promise.all([udp.close(), server.close()]);
        await Promise.all(pending);
      },
    };
  } catch (error) {
    await socket.close();
    throw error;
  }
}
