// A clock that moves only when told to, so that hours pass in milliseconds and runs repeat exactly.
import type { Clock } from "#base/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly fire: () => void;
}

const defaultTurns = 20;

export class FakeClock implements Clock {
  #nowMs: number;
  readonly #turns: number;
  #monotonicMs = 0;
  #order = 0;
  #timers: Timer[] = [];

  /** `turns` of the loop for what is set going at one moment: fewer where many moments pass and each starts little. */
  constructor(startMs = Date.UTC(2026, 0, 1), { turns = defaultTurns }: { readonly turns?: number } = {}) {
    this.#nowMs = startMs;
    this.#turns = turns;
  }
  now(): number {
    return this.#nowMs;
  }
  monotonicMs(): number {
    return this.#monotonicMs;
  }
  after(ms: number, callback: () => void): () => void {
    const timer: Timer = { atMs: this.#monotonicMs + Math.max(0, ms), order: this.#order++, fire: callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((t) => t !== timer);
    };
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const cancel = this.after(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      const onAbort = () => {
        cancel();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }
  /** Wall clock only: what a battery-less board or NTP does. */
  jump(ms: number): void {
    this.#nowMs += ms;
  }
  /** Pending timers, for tests that assert that nothing was left behind. */
  get pending(): number {
    return this.#timers.length;
  }
  /** Lets `ms` pass, firing timers in order and letting promises settle after each. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#monotonicMs + ms;
    for (;;) {
      await settle(this.#turns);
      let next: Timer | undefined;
      for (const t of this.#timers) {
        if (t.atMs <= endMs && (!next || t.atMs < next.atMs || (t.atMs === next.atMs && t.order < next.order)))
          next = t;
      }
      if (!next) break;
      this.#timers = this.#timers.filter((t) => t !== next);
      this.#nowMs += next.atMs - this.#monotonicMs;
      this.#monotonicMs = next.atMs;
      next.fire();
    }
    this.#nowMs += endMs - this.#monotonicMs;
    this.#monotonicMs = endMs;
    await settle(this.#turns);
  }
}

/** Operations on files that Node.js has under way, by its names for them. */
const fileOperations = new Set(["FSReqPromise", "FSReqCallback"]);
/** For one that never ends, such as a read of a pipe that nobody writes to; files on a busy machine take more than a second. */
const filePatienceMs = 10_000;

/**
 * Lets everything run that only waits for other promises, immediates or files. Without the files time would run away from
 * code that reads one, on a machine where that takes long.
 */
export async function settle(turns = defaultTurns): Promise<void> {
  let endMs: number | undefined;
  for (;;) {
    for (let i = 0; i < turns; i++) await new Promise<void>((resolve) => setImmediate(resolve));
    if (!process.getActiveResourcesInfo().some((name) => fileOperations.has(name))) return;
    endMs ??= performance.now() + filePatienceMs;
    if (performance.now() > endMs) return;
    await new Promise<void>((resolve) => setTimeout(resolve, 1));
  }
}
