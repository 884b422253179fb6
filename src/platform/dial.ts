// Whether something listens: a TCP connection that is closed at once.
import * as net from "node:net";

/** Resolves when the connection stands; rejects with the reason it does not. */
export function tryConnect(target: {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
}): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(target.port, target.host);
    socket.setTimeout(target.timeoutMs, () => {
      socket.destroy(new Error(`dial tcp ${target.host}:${target.port}: i/o timeout`));
    });
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.once("error", (error) => reject(error));
  });
}
