// Tells watches of changes without holding the event loop: the datastore hands a change to all of them in one breath, and
// with thousands, or with selectors that have to look at it, that is more than a turn should take. What is beyond a few
// milliseconds is told in later turns, in the order it came, so that order within a watch is kept. What is then written is
// cut up in the same way by fan-out.ts. Bounded by what each watch may be behind with (feed.ts).
// Upstream counterpart: the cacher's dispatching, which waits for slow watchers in goroutines.
import type { Clock } from "#base/clock.ts";
import type { WatchEvent } from "#datastore/backend.ts";
import { nextTurn } from "#platform/turns.ts";

/** Must not throw. */
export type Hear = (events: readonly WatchEvent[]) => void;

/** Of one turn of the event loop. */
const budgetMs = 5;
/** Between two looks at the clock; few of them take a millisecond. */
const atOnce = 16;

interface Waiting {
  readonly hear: Hear;
  readonly events: readonly WatchEvent[];
}

export class Relay {
  readonly #clock: Clock;
  #waiting: Waiting[] = [];
  /** When this turn began to tell; undefined: it has not yet. */
  #sinceMs: number | undefined;
  #isLate = false;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** Whether a watch that nothing waits for may hear something at once. Else: tellLater. */
  mayTell(): boolean {
    if (!this.#isLate && !this.#hasTime()) this.#isLate = true;
    return !this.#isLate;
  }

  /** Behind everything that waits already. */
  tellLater(hear: Hear, events: readonly WatchEvent[]): void {
    this.#waiting.push({ hear, events });
  }

  #hasTime(): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (this.#sinceMs === undefined) {
      this.#sinceMs = nowMs;
      void this.#endTurn();
    }
    return nowMs - this.#sinceMs < budgetMs;
  }

  async #endTurn(): Promise<void> {
    await nextTurn();
    while (this.#waiting.length > 0) {
      const round = this.#waiting;
      this.#waiting = [];
      let endMs = this.#clock.monotonicMs() + budgetMs;
      for (const [i, { hear, events }] of round.entries()) {
        if (i % atOnce === atOnce - 1 && this.#clock.monotonicMs() >= endMs) {
          await nextTurn();
          endMs = this.#clock.monotonicMs() + budgetMs;
        }
        hear(events);
      }
      await nextTurn();
    }
    this.#isLate = false;
    this.#sinceMs = undefined;
  }
}
