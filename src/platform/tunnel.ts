// Two byte streams joined: what comes out of one goes into the other, with back-pressure, until either side ends.
// Invariant: when one side has failed or closed, the other is closed too, and the promise resolves exactly then.
import type { Duplex } from "node:stream";

export interface TunnelEnd {
  readonly socket: Duplex;
  /** Bytes that were read from this side before. */
  readonly head: Uint8Array;
}

export interface TunnelResult {
  /** Bytes that went from a to b, and back. */
  readonly forwardBytes: number;
  readonly backwardBytes: number;
}

/** A half-close is passed on; the tunnel ends when both directions have, or when a side fails. Aborting cuts both. */
export function tunnel(a: TunnelEnd, b: TunnelEnd, signal?: AbortSignal): Promise<TunnelResult> {
  return new Promise((resolve) => {
    let forwardBytes = 0;
    let backwardBytes = 0;
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      signal?.removeEventListener("abort", over);
      a.socket.destroy();
      b.socket.destroy();
      resolve({ forwardBytes, backwardBytes });
    };
    const join = (from: TunnelEnd, to: TunnelEnd, count: (size: number) => void) => {
      if (from.head.length > 0) {
        count(from.head.length);
        to.socket.write(from.head);
      }
      from.socket.on("data", (chunk: Buffer) => {
        count(chunk.length);
        if (!to.socket.write(chunk)) from.socket.pause();
      });
      to.socket.on("drain", () => from.socket.resume());
      from.socket.on("end", () => to.socket.end());
      from.socket.on("error", over);
      from.socket.on("close", () => {
        // What was read but not yet sent still goes out before the other side is cut.
        if (to.socket.writableFinished || to.socket.destroyed || from.socket.errored) over();
        else to.socket.end(() => over());
      });
    };
    join(a, b, (size) => {
      forwardBytes += size;
    });
    join(b, a, (size) => {
      backwardBytes += size;
    });
    if (signal?.aborted || a.socket.destroyed || b.socket.destroyed) over();
    else signal?.addEventListener("abort", over, { once: true });
  });
}
