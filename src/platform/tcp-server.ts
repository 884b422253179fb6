// A TCP port that hands on each connection. Who takes them decides how many there may be.
import * as net from "node:net";
import type { Duplex } from "node:stream";

export interface TcpListener {
  /** The one that was given, or that the system chose for 0. */
  readonly port: number;
  /** Cuts what runs, too. */
  close(): Promise<void>;
}

/** Rejects with the system's error, such as EADDRINUSE. */
export function listenTcp(
  options: { readonly host: string; readonly port: number },
  onSocket: (socket: Duplex) => void,
): Promise<TcpListener> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    // Whoever reads it hears of it too; nobody may be reading yet.
    socket.on("error", () => socket.destroy());
    onSocket(socket);
  });
  return new Promise((resolve, reject) => {
    // Later ones are of a connection that could not be taken, for want of descriptors: nothing the others should end for.
    server.on("error", reject);
    server.listen(options.port, options.host, () => {
      const address = server.address();
      resolve({
        port: typeof address === "object" && address !== null ? address.port : options.port,
        async close() {
          const closed = new Promise<void>((done) => server.close(() => done()));
          for (const socket of sockets) socket.destroy();
          await closed;
        },
      });
    });
  });
}
