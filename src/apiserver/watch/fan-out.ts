// Events of one change to thousands of watches, without holding the event loop: what is beyond a few milliseconds of a
// turn waits for the next ones, and then goes out connection by connection, so that each has one write for all of its
// streams. Few watches never wait. Order within a watch is kept. Bounded by what each watch may owe (endpoints/write.ts).
// Upstream counterpart: the goroutines of watchers, which the Go scheduler cuts up.
import type { Clock } from "#base/clock.ts";
import { nextTurn } from "#platform/turns.ts";

/** A watch with something to write. */
export interface Outlet {
  flush(): void;
}

/** Of one turn of the event loop. */
const budgetMs = 5;

export class FanOut {
  readonly #clock: Clock;
  readonly #queues = new Map<object, Outlet[]>();
  /** When this turn began to write; undefined: it has not yet. */
  #sinceMs: number | undefined;
  #isDraining = false;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** True: write at once, there is time left. Else the outlet is flushed in a later turn. */
  mayWrite(connection: object, outlet: Outlet): boolean {
    if (!this.#isDraining) {
      const nowMs = this.#clock.monotonicMs();
      if (this.#sinceMs === undefined) {
        this.#sinceMs = nowMs;
        void this.#endTurn();
        return true;
      }
      if (nowMs - this.#sinceMs < budgetMs) return true;
      this.#isDraining = true;
    }
    const queue = this.#queues.get(connection);
    if (queue) queue.push(outlet);
    else this.#queues.set(connection, [outlet]);
    return false;
  }

  async #endTurn(): Promise<void> {
    await nextTurn();
    while (this.#queues.size > 0) {
      const endMs = this.#clock.monotonicMs() + budgetMs;
      for (const [connection, queue] of this.#queues) {
        this.#queues.delete(connection);
        for (const outlet of queue) outlet.flush();
        if (this.#clock.monotonicMs() >= endMs) break;
      }
      await nextTurn();
    }
    this.#isDraining = false;
    this.#sinceMs = undefined;
  }
}
