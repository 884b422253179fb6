// How much may be under way unconfirmed: what the path carries in twice its shortest round trip and a little time of
// queueing. More would only wait in buffers in front of what is small and urgent. The rate is the highest of the last
// samples, one sample a round trip. In the manner of BBR (Cardwell et al., 2016), without its probing.

/** Enough to find out more: each round trip may double it. */
const leastBytes = 32 * 1024;
/** Queueing that is put up with, so that turns of the event loop do not starve the path. */
const slackMs = 3;
const rememberedRates = 8;

export class Pace {
  readonly #mostBytes: number;
  limit: number;
  #rates: number[] = [];
  #shortestMs = Infinity;
  #sample: { readonly offset: number; readonly atMs: number; readonly confirmed: number } | undefined;

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
    this.limit = Math.min(4 * leastBytes, mostBytes);
  }

  /** Another path. */
  reset(): void {
    this.#sample = undefined;
    this.#rates = [];
    this.#shortestMs = Infinity;
    this.limit = Math.min(4 * leastBytes, this.#mostBytes);
  }

  sent(offset: number, confirmed: number, nowMs: number): void {
    this.#sample ??= { offset, atMs: nowMs, confirmed };
  }

  confirmed(offset: number, nowMs: number): void {
    const sample = this.#sample;
    if (!sample || offset < sample.offset) return;
    this.#sample = undefined;
    const tookMs = Math.max(nowMs - sample.atMs, 0.05);
    this.#shortestMs = Math.min(this.#shortestMs, tookMs);
    this.#rates.push((offset - sample.confirmed) / tookMs);
    if (this.#rates.length > rememberedRates) this.#rates.shift();
    const bytes = Math.max(...this.#rates) * (2 * this.#shortestMs + slackMs);
    this.limit = Math.min(this.#mostBytes, Math.max(leastBytes, bytes));
  }
}
