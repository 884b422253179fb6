// Whose turn it is to send: streams that just became ready come before those that have been sending, and all of a kind go
// round with the same share, so that a keystroke waits for one frame and not for a download (deficit round robin with
// new and old flows, as fq_codel: RFC 8290). Invariant: a stream stands in at most one list.
import type { TunnelStream } from "./stream.ts";

/** What one turn may send. */
const quantumBytes = 16 * 1024;

export class SendQueue {
  #fresh: TunnelStream[] = [];
  #old: TunnelStream[] = [];

  add(stream: TunnelStream): void {
    if (stream.queue !== "none") return;
    stream.queue = "fresh";
    stream.deficit = quantumBytes;
    this.#fresh.push(stream);
  }

  /** The stream to send next; undefined: none has anything that may go. */
  next(): TunnelStream | undefined {
    for (;;) {
      const isFresh = this.#fresh.length > 0;
      const list = isFresh ? this.#fresh : this.#old;
      const stream = list[0];
      if (!stream) return undefined;
      if (stream.canSend && stream.deficit > 0) return stream;
      list.shift();
      if (stream.canSend || isFresh) {
        // Whoever was fresh does not become it again before all others had their turn.
        if (stream.deficit <= 0) stream.deficit += quantumBytes;
        stream.queue = "old";
        this.#old.push(stream);
      } else stream.queue = "none";
    }
  }

  clear(): void {
    this.#fresh = [];
    this.#old = [];
  }
}
