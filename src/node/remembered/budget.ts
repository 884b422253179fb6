// Bytes that may be written: so many at once, and so many more a day. What had to be written all the same makes a debt, which
// is never more than a day's, so that nothing that waits for it waits longer.
import type { Clock } from "#base/clock.ts";

export interface BudgetBounds {
  readonly burstBytes: number;
  readonly dailyBytes: number;
}

const dayMs = 24 * 3600_000;

export class Budget {
  readonly #bounds: BudgetBounds;
  readonly #clock: Clock;
  #bytes: number;
  #atMs: number;

  constructor(bounds: BudgetBounds, clock: Clock) {
    this.#bounds = bounds;
    this.#clock = clock;
    this.#bytes = bounds.burstBytes;
    this.#atMs = clock.monotonicMs();
  }

  take(bytes: number): void {
    this.#grow();
    this.#bytes = Math.max(-this.#bounds.dailyBytes, this.#bytes - bytes);
  }

  /** Until there is so much; what is larger than all that can be saved up waits for a full purse. */
  lackMs(bytes: number): number {
    this.#grow();
    return this.#untilMs(Math.min(bytes, this.#bounds.burstBytes) - this.#bytes);
  }

  /** Until there is no debt. */
  debtMs(): number {
    this.#grow();
    return this.#untilMs(-this.#bytes);
  }

  #untilMs(lacking: number): number {
    return lacking <= 0 ? 0 : Math.ceil((lacking / this.#bounds.dailyBytes) * dayMs);
  }

  #grow(): void {
    const { burstBytes, dailyBytes } = this.#bounds;
    const nowMs = this.#clock.monotonicMs();
    this.#bytes = Math.min(burstBytes, this.#bytes + ((nowMs - this.#atMs) * dailyBytes) / dayMs);
    this.#atMs = nowMs;
  }
}
