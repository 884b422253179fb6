// Tells watches of changes without holding the event loop: the datastore hands a change to all of them in one breath, and
// with thousands, or with selectors that have to look at it, that is more than a turn should take. What is beyond a few
// milliseconds is told in later turns, in the order it came, so that order within a watch is kept. What is then written is
// cut up in the same way by fan-out.ts.
// What waits is kept once, however many wait for it: the datastore gives all watches of a range the same batch, and a batch
// leads to the one behind it; a watch has only its place in that chain. What all have heard nobody holds any more. Bounded by
// what each watch may be behind with (feed.ts).
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

interface Batch {
  readonly events: readonly WatchEvent[];
  /** What came next to those that this one waited for. */
  next: Batch | undefined;
}

/** One watch: what it is still to hear, from `first` to `last`. */
export class Listener {
  readonly hear: Hear;
  first: Batch | undefined;
  last: Batch | undefined;
  /** Batches. */
  owed = 0;

  constructor(hear: Hear) {
    this.hear = hear;
  }

  append(batch: Batch): void {
    const { last } = this;
    if (last === undefined) this.first = batch;
    else if (last.next === undefined || last.next === batch) last.next = batch;
    else this.#copy().next = batch;
    this.last = batch;
    this.owed++;
  }

  /** Undefined: nothing waits. */
  take(): readonly WatchEvent[] | undefined {
    const { first } = this;
    if (first === undefined) return undefined;
    // Beyond `last` the chain goes on with what this watch has not been told.
    if (first === this.last) this.clear();
    else {
      this.first = first.next;
      this.owed--;
    }
    return first.events;
  }

  clear(): void {
    this.first = undefined;
    this.last = undefined;
    this.owed = 0;
  }

  /** A chain of its own, for what follows on it differs from what follows for others; its end. */
  #copy(): Batch {
    const end = this.last;
    let from = this.first!;
    let to: Batch = { events: from.events, next: undefined };
    this.first = to;
    while (from !== end) {
      from = from.next!;
      to.next = { events: from.events, next: undefined };
      to = to.next;
    }
    return to;
  }
}

export class Relay {
  readonly #clock: Clock;
  /** Each once. */
  #waiting: Listener[] = [];
  /** The one that was queued last: others are told of it next. */
  #latest: Batch | undefined;
  /** When this turn began to tell; undefined: it has not yet. */
  #sinceMs: number | undefined;
  #isLate = false;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** At once where there is time and nothing waits for it; else behind everything that waits already. */
  tell(listener: Listener, events: readonly WatchEvent[]): void {
    if (listener.owed === 0 && this.#mayTell()) {
      listener.hear(events);
      return;
    }
    if (this.#latest?.events !== events) this.#latest = { events, next: undefined };
    if (listener.owed === 0) this.#waiting.push(listener);
    listener.append(this.#latest);
  }

  #mayTell(): boolean {
    if (!this.#isLate && !this.#hasTime()) this.#isLate = true;
    return !this.#isLate;
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
      for (const [i, listener] of round.entries()) {
        if (i % atOnce === atOnce - 1 && this.#clock.monotonicMs() >= endMs) {
          await nextTurn();
          endMs = this.#clock.monotonicMs() + budgetMs;
        }
        const events = listener.take();
        if (events === undefined) continue;
        // Before it hears, which may end it.
        if (listener.owed > 0) this.#waiting.push(listener);
        listener.hear(events);
      }
      await nextTurn();
    }
    this.#latest = undefined;
    this.#isLate = false;
    this.#sinceMs = undefined;
  }
}
