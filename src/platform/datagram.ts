// UDP and TCP sockets for parts that speak in whole packets or small messages (DNS). Addresses are literal; nothing is
// resolved here.
import { createSocket } from "node:dgram";
import { connect, createServer, isIPv6, type Socket } from "node:net";

export interface UdpSocket {
  readonly port: number;
  send(data: Uint8Array, port: number, address: string): void;
  close(): Promise<void>;
}

export interface UdpOptions {
  readonly address: string;
  /** 0 chooses one. */
  readonly port: number;
  readonly onMessage: (data: Buffer, from: { readonly address: string; readonly port: number }) => void;
  /** Errors after binding, e.g. a message that could not be sent. */
  readonly onError: (error: Error) => void;
}

export function openUdp(options: UdpOptions): Promise<UdpSocket> {
  const socket = createSocket({ type: isIPv6(options.address) ? "udp6" : "udp4" });
  return new Promise((resolve, reject) => {
    socket.once("error", (error) => {
      socket.close();
      reject(error);
    });
    socket.bind({ address: options.address, port: options.port, exclusive: true }, () => {
      socket.removeAllListeners("error");
      socket.on("error", options.onError);
      socket.on("message", (data, from) => options.onMessage(data, from));
      let isOpen = true;
      resolve({
        port: socket.address().port,
        send(data, port, address) {
          // Late answers to a socket that has been closed are nobody's concern.
          if (isOpen) socket.send(data, port, address, (error) => error && options.onError(error));
        },
        close: () =>
          new Promise((closed) => {
            if (!isOpen) {
              closed();
              return;
            }
            isOpen = false;
            socket.close(() => closed());
          }),
      });
    });
  });
}

export interface TcpConnection {
  readonly remoteAddress: string;
  /** Received data; ends when the other side ends, fails or `close` is called. */
  readonly chunks: AsyncIterable<Buffer>;
  write(data: Uint8Array): void;
  close(): void;
}

export interface TcpServer {
  readonly port: number;
  /** Stops listening and closes all connections. */
  close(): Promise<void>;
}

export interface TcpOptions {
  readonly address: string;
  readonly port: number;
  /** Further connections are refused. */
  readonly maxConnections: number;
  readonly onConnection: (connection: TcpConnection) => void;
}

export function listenTcp(options: TcpOptions): Promise<TcpServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    options.onConnection(wrap(socket));
  });
  server.maxConnections = options.maxConnections;
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: options.address, port: options.port }, () => {
      server.removeListener("error", reject);
      const address = server.address();
      resolve({
        port: typeof address === "object" && address ? address.port : options.port,
        close: () =>
          new Promise((closed) => {
            server.close(() => closed());
            for (const socket of sockets) socket.destroy();
          }),
      });
    });
  });
}

/** Rejects when the connection is refused or `signal` aborts first. */
export function connectTcp(address: string, port: number, signal: AbortSignal): Promise<TcpConnection> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port });
    const onAbort = () => socket.destroy(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    socket.once("close", () => signal.removeEventListener("abort", onAbort));
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.removeListener("error", reject);
      resolve(wrap(socket));
    });
  });
}

function wrap(socket: Socket): TcpConnection {
  // The iterator reports errors; without a listener of its own a late one would end the process.
  socket.on("error", () => {});
  async function* chunks(): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of socket) yield chunk as Buffer;
    } catch {
      // Reset or destroyed: for a message stream that is its end; incomplete messages are dropped by the reader.
    }
  }
  return {
    remoteAddress: socket.remoteAddress ?? "",
    chunks: { [Symbol.asyncIterator]: chunks },
    write: (data) => void (socket.writable && socket.write(data)),
    close: () => void socket.destroy(),
  };
}
