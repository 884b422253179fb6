// TCP connections to whatever listens.
import * as net from "node:net";
import type { Duplex } from "node:stream";
import { AppError, messageOf } from "#base/errors.ts";

/** Rejects with DIAL_FAILED in the words that Go uses, or with the signal's reason. */
export function openTcp(
  target: { readonly host: string; readonly port: number; readonly timeoutMs: number },
  signal?: AbortSignal,
): Promise<Duplex> {
  const { host, port, timeoutMs } = target;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const socket = net.connect({ host, port, noDelay: true });
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error("i/o timeout")));
    const onAbort = () => socket.destroy(new Error("aborted"));
    signal?.addEventListener("abort", onAbort, { once: true });
    const failed = (error: Error) => {
      signal?.removeEventListener("abort", onAbort);
      const address = `${host.includes(":") ? `[${host}]` : host}:${port}`;
      const reason = signal?.aborted
        ? signal.reason
        : new AppError("DIAL_FAILED", `dial tcp ${address}: ${messageOf(error)}`);
      reject(reason);
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.setTimeout(0);
      socket.removeListener("error", failed);
      signal?.removeEventListener("abort", onAbort);
      resolve(socket);
    });
  });
}

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
