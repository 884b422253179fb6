// Growing, jittered pauses between attempts. A long quiet time after the last failure starts it afresh.
// Upstream counterpart: apimachinery wait.Backoff as the reflector uses it.
import type { Clock, Random } from "#base/clock.ts";

export interface BackoffOptions {
  readonly minMs: number;
  readonly maxMs: number;
  /** After so long without a call the next pause is `minMs` again. */
  readonly resetMs: number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  #nextMs: number;
  #lastAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: BackoffOptions, deps: { readonly clock: Clock; readonly random: Random }) {
    this.#options = options;
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#nextMs = options.minMs;
  }

  /** All has been well meanwhile. */
  reset(): void {
    this.#nextMs = this.#options.minMs;
  }

  /** How long to wait now: between the step and twice the step, steps doubling up to the maximum. */
  next(): number {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lastAtMs > this.#options.resetMs) this.#nextMs = this.#options.minMs;
    this.#lastAtMs = nowMs;
    const stepMs = this.#nextMs;
    this.#nextMs = Math.min(this.#options.maxMs, stepMs * 2);
    return Math.min(this.#options.maxMs, stepMs * (1 + this.#random.float()));
  }
}
