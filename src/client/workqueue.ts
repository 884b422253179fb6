// The queue between informers and a controller. Its promises, as upstream's client-go workqueue:
// a key is queued once however often it is added; a key is never worked on twice at a time; a key added while it is
// worked on is worked on again afterwards; order is first come, first served; failing keys come back after growing pauses.
//
//   add ──► waiting ──► active ──► done            addAfter ──► delayed (one timer per key, the earliest wins) ──► add
//              ▲           │ added meanwhile       retry    ──► addAfter(5 ms · 2^failures, at most 1000 s)
//              └───────────┘
//
// Bounded by the number of objects: there is at most one entry and one timer per key.
import type { Clock } from "#base/clock.ts";
import type { Metrics } from "#base/metrics.ts";
import { createQueueMetrics, noQueueMetrics, type QueueMetrics } from "./queue-metrics.ts";

export interface WorkQueueOptions {
  /** In metrics. */
  readonly name: string;
  /** Pause after the first failure; default 5 ms. */
  readonly minRetryMs?: number;
  /** Longest pause between attempts; default 1000 s. */
  readonly maxRetryMs?: number;
}

export class WorkQueue<K extends string = string> {
  readonly #clock: Clock;
  readonly #minRetryMs: number;
  readonly #maxRetryMs: number;
  readonly #metrics: QueueMetrics;
  /** Each with the time since when. Insertion order is work order. */
  readonly #waiting = new Map<K, number>();
  readonly #active = new Map<K, number>();
  /** Added while active. */
  readonly #again = new Map<K, number>();
  readonly #delayed = new Map<K, { readonly atMs: number; readonly cancel: () => void }>();
  readonly #failures = new Map<K, number>();
  #wake: () => void = () => {};

  constructor(options: WorkQueueOptions, deps: { readonly clock: Clock; readonly metrics?: Metrics }) {
    this.#clock = deps.clock;
    this.#minRetryMs = options.minRetryMs ?? 5;
    this.#maxRetryMs = options.maxRetryMs ?? 1_000_000;
    this.#metrics = deps.metrics
      ? createQueueMetrics(deps.metrics, options.name, () => {
          const nowMs = deps.clock.monotonicMs();
          return { depth: this.length, inWorkMs: [...this.#active.values()].map((sinceMs) => nowMs - sinceMs) };
        })
      : noQueueMetrics;
  }

  /** Keys that wait, not counting delayed and active ones. */
  get length(): number {
    return this.#waiting.size + this.#again.size;
  }
  /** Nothing waits and nothing is being worked on; delayed keys do not count. */
  get idle(): boolean {
    return this.length === 0 && this.#active.size === 0;
  }

  add(key: K): void {
    const isActive = this.#active.has(key);
    const queue = isActive ? this.#again : this.#waiting;
    if (queue.has(key)) return;
    queue.set(key, this.#clock.monotonicMs());
    this.#metrics.added();
    if (!isActive) this.#wake();
  }

  /** Adds after `ms`; of several pending delays of one key the earliest counts. */
  addAfter(key: K, ms: number): void {
    if (ms <= 0) {
      this.add(key);
      return;
    }
    const atMs = this.#clock.monotonicMs() + ms;
    const old = this.#delayed.get(key);
    if (old && old.atMs <= atMs) return;
    old?.cancel();
    const cancel = this.#clock.after(ms, () => {
      this.#delayed.delete(key);
      this.add(key);
    });
    this.#delayed.set(key, { atMs, cancel });
  }

  /** Adds after a pause that doubles with each call until `forget`. */
  retry(key: K): void {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    this.#metrics.retried();
    this.addAfter(key, Math.min(this.#maxRetryMs, this.#minRetryMs * 2 ** Math.min(failures, 40)));
  }

  forget(key: K): void {
    this.#failures.delete(key);
  }

  failures(key: K): number {
    return this.#failures.get(key) ?? 0;
  }

  /**
   * Works until `signal` aborts, then waits for what is active. `work` must not reject for ordinary failures: it calls
   * `retry` itself (controllers/runtime does); a rejection ends the queue.
   */
  async run(
    options: { readonly workers: number },
    work: (key: K) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const tasks = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    const one = async (key: K): Promise<void> => {
      try {
        await work(key);
      } catch (error) {
        failure ??= { error };
      } finally {
        this.#metrics.finished(this.#clock.monotonicMs() - (this.#active.get(key) ?? 0));
        this.#active.delete(key);
        const sinceMs = this.#again.get(key);
        if (sinceMs !== undefined) this.#waiting.set(key, sinceMs);
        this.#again.delete(key);
        this.#wake();
      }
    };
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted && !failure) {
        while (this.#active.size < options.workers) {
          const next = this.#waiting.entries().next();
          if (next.done) break;
          const [key, sinceMs] = next.value;
          const nowMs = this.#clock.monotonicMs();
          this.#waiting.delete(key);
          this.#active.set(key, nowMs);
          this.#metrics.started(nowMs - sinceMs);
          const task = one(key).then(() => void tasks.delete(task));
          tasks.add(task);
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (signal.aborted || failure || (this.#waiting.size > 0 && this.#active.size < options.workers)) resolve();
        });
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      // A queue that runs again (its service was restarted) looks at once at what was to come later.
      for (const { cancel } of this.#delayed.values()) cancel();
      await Promise.all(tasks);
      for (const [key, { cancel }] of this.#delayed) {
        cancel();
        this.#waiting.set(key, this.#clock.monotonicMs());
      }
      this.#delayed.clear();
      this.#wake = () => {};
    }
    if (failure) throw failure.error;
  }
}
