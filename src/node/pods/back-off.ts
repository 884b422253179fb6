// Restart and pull pauses: 10 s, doubled up to 5 min, forgotten after twice the longest pause without a failure. One
// entry per key; `forget` ends it, so entries are bounded by containers and images of pods on this node.
// Counterpart: client-go's flowcontrol.Backoff as the kubelet uses it.
import { formatDurationNanoseconds } from "#model/duration.ts";

interface Entry {
  delayMs: number;
  updatedMs: number;
}

export class BackOff {
  readonly #initialMs: number;
  readonly #maxMs: number;
  readonly #entries = new Map<string, Entry>();
  constructor(options: { readonly initialMs: number; readonly maxMs: number }) {
    this.#initialMs = options.initialMs;
    this.#maxMs = options.maxMs;
  }

  /** The pause that follows an event at `eventMs`; 0 when the key has no history or it is stale. */
  delayMs(key: string, eventMs: number): number {
    const entry = this.#entries.get(key);
    return entry && !this.#stale(entry, eventMs) ? entry.delayMs : 0;
  }

  /** Notes one more failure at `eventMs`. */
  next(key: string, eventMs: number, nowMs: number): void {
    const entry = this.#entries.get(key);
    if (!entry || this.#stale(entry, eventMs)) {
      this.#entries.set(key, { delayMs: this.#initialMs, updatedMs: nowMs });
      return;
    }
    entry.delayMs = Math.min(entry.delayMs * 2, this.#maxMs);
    entry.updatedMs = nowMs;
  }

  /** Ends every entry whose key starts with `prefix`. */
  forget(prefix: string): void {
    for (const key of this.#entries.keys()) if (key.startsWith(prefix)) this.#entries.delete(key);
  }

  #stale(entry: Entry, eventMs: number): boolean {
    return eventMs - entry.updatedMs > 2 * this.#maxMs;
  }
}

/** As Go prints a duration, in whole seconds: 10s, 1m20s, 5m0s. */
export const goSeconds = (ms: number): string => formatDurationNanoseconds(Math.round(ms / 1000) * 1e9);
