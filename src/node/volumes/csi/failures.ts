// What does not work, by key: when it is tried again, with pauses that double, and whether there is anything new to say of it.
// Entries are forgotten by whoever knows that a key has gone. Counterpart: the kubelet's exponential backoff of operations.

const pauses = { firstMs: 1_000, maxMs: 60_000 } as const;

interface Failure {
  readonly untilMs: number;
  readonly pauseMs: number;
  readonly message: string;
}

export class Failures {
  readonly #failures = new Map<string, Failure>();

  isDue(key: string, nowMs: number): boolean {
    return this.untilMs(key) <= nowMs;
  }

  /** When it may be tried again; long past where it has not failed. */
  untilMs(key: string): number {
    return this.#failures.get(key)?.untilMs ?? Number.NEGATIVE_INFINITY;
  }

  /** True where it has not been said before. */
  note(key: string, message: string, nowMs: number): boolean {
    const before = this.#failures.get(key);
    const pauseMs = before ? Math.min(before.pauseMs * 2, pauses.maxMs) : pauses.firstMs;
    this.#failures.set(key, { untilMs: nowMs + pauseMs, pauseMs, message });
    return before?.message !== message;
  }

  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** Forgets all others. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.#failures.keys()) if (!keys.has(key)) this.#failures.delete(key);
  }
}
