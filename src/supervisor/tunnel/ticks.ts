// When tunnels are looked at: one timer for all that are looked at equally often, however many there are. Invariant: no timer
// runs while nobody waits for it, and nobody is looked at less often than asked for.
import type { Clock } from "#base/clock.ts";

export interface Ticking {
  /** `lateMs`: this process did not run for so long, so what has arrived meanwhile has not been looked at yet. */
  tick(nowMs: number, lateMs: number): void;
}

interface Round {
  readonly everyMs: number;
  readonly members: Set<Ticking>;
  tickedMs: number;
  stop: () => void;
}

/** Few, so that few timers serve all. */
const stepsMs = [250, 500, 1000, 2500, 5000] as const;

export class Ticks {
  readonly #clock: Clock;
  readonly #rounds = new Map<number, Round>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(one: Ticking, everyMs: number): void {
    const step = stepsMs.findLast((ms) => ms <= everyMs) ?? stepsMs[0];
    let round = this.#rounds.get(step);
    if (!round) {
      round = { everyMs: step, members: new Set(), tickedMs: this.#clock.monotonicMs(), stop: () => {} };
      this.#rounds.set(step, round);
      this.#arm(round);
    }
    round.members.add(one);
  }

  delete(one: Ticking): void {
    for (const round of this.#rounds.values()) {
      if (!round.members.delete(one) || round.members.size > 0) continue;
      round.stop();
      this.#rounds.delete(round.everyMs);
    }
  }

  #arm(round: Round): void {
    round.stop = this.#clock.after(round.everyMs, () => {
      const nowMs = this.#clock.monotonicMs();
      const lateMs = Math.max(0, nowMs - round.tickedMs - round.everyMs);
      round.tickedMs = nowMs;
      this.#arm(round);
      for (const one of round.members) one.tick(nowMs, lateMs);
    });
  }
}
