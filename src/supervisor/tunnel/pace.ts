// How much may be under way unconfirmed: what the path carries in twice its shortest round trip and a little time of
// queueing. More would only wait in buffers in front of what is small and urgent. The rate is the highest of the last
// windows, each a round trip or more. In the manner of BBR (Cardwell et al., 2016), without its probing.

/** Enough to find out more: each round trip may double it. */
const leastBytes = 32 * 1024;
const firstBytes = 128 * 1024;
/**
 * Queueing that nobody notices. It must be longer than a busy machine takes to let both ends run: what comes back later than
 * that looks like a slow path, and a limit that shrinks with it would make it one.
 */
const slackMs = 50;
const rememberedRates = 8;
/** Beside small messages: so much keeps both ends of a quick path at work, and is gone within a millisecond or two. */
const leastSharedBytes = 64 * 1024;
/** Of what the path itself holds; the rest would be a queue. */
const sharedGain = 1.25;

export class Pace {
  readonly #mostBytes: number;
  limit = 0;
  /** The same while small messages go to and fro beside bulk: what they would wait behind. */
  sharedLimit = 0;
  #rates: number[] = [];
  #shortestMs = Infinity;
  /** Of a round trip: what was sent first after the last one was measured. */
  #probe: { readonly offset: number; readonly atMs: number } | undefined;
  /** Of the rate: at least one round trip, so that it has its share of every burst. */
  #window: { readonly confirmed: number; readonly atMs: number } | undefined;

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
    this.reset();
  }

  /** Another path. */
  reset(): void {
    this.#probe = undefined;
    this.#window = undefined;
    this.#rates = [];
    this.#shortestMs = Infinity;
    this.limit = Math.min(firstBytes, this.#mostBytes);
    this.sharedLimit = this.limit;
  }

  /** Everything up to `offset` is sent, all before `confirmed` has come back; `isFirst`: nothing was under way. */
  sent(offset: number, confirmed: number, isFirst: boolean, nowMs: number): void {
    this.#probe ??= { offset, atMs: nowMs };
    // Time in which nothing was to be sent says nothing of the path.
    if (isFirst || !this.#window) this.#window = { confirmed, atMs: nowMs };
  }

  confirmed(offset: number, nowMs: number): void {
    const probe = this.#probe;
    if (probe && offset >= probe.offset) {
      this.#probe = undefined;
      this.#shortestMs = Math.min(this.#shortestMs, Math.max(nowMs - probe.atMs, 0.05));
    }
    const window = this.#window;
    if (!window || nowMs - window.atMs < Math.max(this.#shortestMs, 0.5) || this.#shortestMs === Infinity) return;
    this.#window = { confirmed: offset, atMs: nowMs };
    this.#rates.push((offset - window.confirmed) / (nowMs - window.atMs));
    if (this.#rates.length > rememberedRates) this.#rates.shift();
    const rate = Math.max(...this.#rates);
    this.limit = Math.min(this.#mostBytes, Math.max(leastBytes, rate * (2 * this.#shortestMs + slackMs)));
    this.sharedLimit = Math.min(this.limit, Math.max(leastSharedBytes, rate * this.#shortestMs * sharedGain));
  }
}
