// How many requests begin in one turn of the event loop. Clients send dozens in one breath, and all of them would be worked on
// before anybody else has a turn: heartbeats, watches, timers. So a turn begins as many as take some milliseconds, going by
// what they took in turns before; the others follow in order. Whoever comes alone never waits.
// Bounded by who calls: streams of connections. Upstream counterpart: the Go scheduler, which cuts work up.
import type { Clock } from "#base/clock.ts";
import { nextTurn } from "#platform/turns.ts";

const turnMs = 8;
/** However long they take: a turn has a cost of its own. */
const leastPerTurn = 4;
/** Of one more turn in what is known of the cost, where it was dearer and where it was cheaper. */
const weight = { up: 0.5, down: 0.2 };

export class Pace {
  readonly #clock: Clock;
  readonly #waiting: (() => void)[] = [];
  #begun = 0;
  #isTurning = false;
  /** Of a request, in turns so far. */
  #costMs = 0;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** Undefined: begin at once. */
  enter(): Promise<void> | undefined {
    if (!this.#isTurning) {
      this.#isTurning = true;
      void this.#turn();
    }
    if (this.#waiting.length === 0 && this.#begun < this.#perTurn()) {
      this.#begun++;
      return undefined;
    }
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  #perTurn(): number {
    return Math.max(leastPerTurn, turnMs / this.#costMs);
  }

  async #turn(): Promise<void> {
    for (;;) {
      const sinceMs = this.#clock.monotonicMs();
      await nextTurn();
      if (this.#begun === 0) break;
      const costMs = (this.#clock.monotonicMs() - sinceMs) / this.#begun;
      this.#costMs += (costMs > this.#costMs ? weight.up : weight.down) * (costMs - this.#costMs);
      const next = this.#waiting.splice(0, this.#perTurn());
      this.#begun = next.length;
      for (const begin of next) begin();
    }
    this.#isTurning = false;
  }
}
