// How long an answer may take, from how long answers took. The slowest of late counts, and is forgotten by and by: a mean with
// its deviation (as TCP has it) follows neither the odd packet that is lost thrice nor a machine that is starved from one moment
// to the next. Invariant: never below what the profile says, never above `mostTimes` of it.

/** Of the slowest: with every answer that is quicker. Halved by seven. */
const forget = 0.9;
/** Of the profile's time. */
const mostTimes = 6;

export class Patience {
  readonly leastMs: number;
  readonly mostMs: number;
  #slowestMs = 0;

  constructor(leastMs: number) {
    this.leastMs = leastMs;
    this.mostMs = leastMs * mostTimes;
  }

  get ms(): number {
    return Math.min(this.mostMs, Math.max(this.leastMs, Math.round(2 * this.#slowestMs + this.leastMs / 2)));
  }

  answered(tookMs: number): void {
    this.#slowestMs = Math.max(this.#counted(tookMs), this.#slowestMs * forget);
  }

  /** Something else shows that answers may take so long. */
  expect(tookMs: number): void {
    this.#slowestMs = Math.max(this.#counted(tookMs), this.#slowestMs);
  }

  /** What is beyond makes no difference, and would take long to be forgotten. */
  #counted(tookMs: number): number {
    return Math.min(tookMs, this.mostMs / 2);
  }
}
