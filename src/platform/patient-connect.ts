// TCP connections over paths that come and go: a new attempt beside the running ones every quarter of a second, so that a path
// that is back is used at once (a lost SYN is repeated after 1, 3 and 7 seconds only), and one that is slow has time all the
// same. Whoever learns that the path is back may ask for one at once.
// Invariant: of all attempts at most one connection is left.
import * as net from "node:net";
import { AppError, messageOf } from "#base/errors.ts";

export interface PatientConnect {
  readonly host: string;
  readonly port: number;
  /** Of all attempts together. */
  readonly timeoutMs: number;
  /** Between attempts; default 250. More where bytes cost money. */
  readonly againMs?: number;
  /** From this address: where the machine has lost it, that is a failure at once. */
  readonly localAddress?: string;
  /** Is given what begins another attempt; what it returns takes that back. */
  readonly onHint?: (attempt: () => void) => () => void;
}

const defaultAgainMs = 250;
/** Beside the first, which has all the time of a slow path: the newest of three seconds. */
const maxNewer = 12;

/** Rejects with CONNECT_FAILED, at once where somebody refuses, or with the signal's reason. */
export function connectPatiently(to: PatientConnect, signal?: AbortSignal): Promise<net.Socket> {
  const { host, port, timeoutMs } = to;
  const from = to.localAddress === undefined ? {} : { localAddress: to.localAddress };
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const attempts = new Set<net.Socket>();
    const over = (winner?: net.Socket) => {
      clearInterval(again);
      clearTimeout(last);
      forgetHint();
      signal?.removeEventListener("abort", onAbort);
      for (const socket of attempts) if (socket !== winner) socket.destroy();
      attempts.clear();
    };
    const fail = (why: string) => {
      over();
      const name = `${host.includes(":") ? `[${host}]` : host}:${port}`;
      reject(signal?.aborted ? signal.reason : new AppError("CONNECT_FAILED", `${name}: ${why}`));
    };
    const onAbort = () => fail("aborted");
    const attempt = () => {
      const [, oldest] = attempts;
      if (oldest && attempts.size > maxNewer) {
        attempts.delete(oldest);
        oldest.destroy();
      }
      const socket = net.connect({ host, port, noDelay: true, ...from });
      attempts.add(socket);
      // Also of those that lost.
      socket.on("error", (error) => {
        if (attempts.has(socket)) fail(messageOf(error));
      });
      socket.once("connect", () => {
        if (!attempts.has(socket)) return;
        over(socket);
        resolve(socket);
      });
    };
    const again = setInterval(attempt, to.againMs ?? defaultAgainMs);
    const last = setTimeout(() => fail(`no connection within ${timeoutMs} ms`), timeoutMs);
    const forgetHint = to.onHint?.(attempt) ?? (() => {});
    signal?.addEventListener("abort", onAbort, { once: true });
    attempt();
  });
}
