// Whether the server can be reached. One request that gets no answer says no; from then on one small question, asked again
// with growing pauses or when somebody has reason to think so, finds out when it is back, and nothing else is sent meanwhile:
// no queue grows, no pod waits for a time-out, and whoever waits for the server goes on at once when it answers.
import type { Clock, Random } from "#base/clock.ts";
import { pause } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Deferred, deferred } from "#client/deferred.ts";
import { isApiError } from "#model/status.ts";

export interface ServerReachDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** A cheap question that only a working API answers; not by way of this. */
  readonly probe: (signal: AbortSignal) => Promise<unknown>;
}

/** A server on a small board that is busy takes its time. */
const probeMs = 5_000;
/** From one question to the next: one that took as long is followed by another at once. */
const retry = { minMs: 250, maxMs: 1_000, factor: 1.5, jitter: 0.2 } as const;
/** Answers of a server, or of something before it, that is not there yet. 401: it does not know us yet. */
const awayCodes: ReadonlySet<number> = new Set([401, 502, 503, 504]);

/** Whether a failed request says that there is no server, rather than what a server has said. */
export const saysAway = (error: unknown): boolean => !isApiError(error) || awayCodes.has(error.code);

export const serverAway = (): AppError => new AppError("NODE_SERVER_AWAY", "the server cannot be reached");

export class ServerReach {
  readonly #deps: ServerReachDeps;
  readonly #listeners = new Set<() => void>();
  readonly #awayListeners = new Set<() => void>();
  #back: Deferred<void> | undefined;
  #wake: () => void = () => {};
  /** Ends the pause before the next question; or sees to it that there is none. */
  #next = new AbortController();

  constructor(deps: ServerReachDeps) {
    this.#deps = deps;
  }

  get isAway(): boolean {
    return this.#back !== undefined;
  }

  /** Of a request: finds out whether the server has gone. */
  failed(error: unknown): void {
    if (this.#back || !saysAway(error)) return;
    this.#back = deferred();
    this.#wake();
    for (const listener of this.#awayListeners) listener();
  }

  /** Somebody knows that it is within reach again: it is asked now. */
  hurry(): void {
    if (this.#back) this.#next.abort();
  }

  /** Called whenever the server has gone. */
  onAway(listener: () => void): () => void {
    this.#awayListeners.add(listener);
    return () => this.#awayListeners.delete(listener);
  }

  /** Called whenever the server has come back. */
  onBack(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when the server can be reached; rejects with the signal's reason. */
  async whenBack(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const back = this.#back;
    if (!back) return;
    const aborted = deferred<never>();
    const onAbort = () => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([back.promise, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    ready();
    const { clock, log, random } = this.#deps;
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      // A boot without a server shall not find out by waiting.
      const first = await this.#ask(signal);
      if (first !== undefined) this.failed(first);
      while (!signal.aborted) {
        if (!this.#back) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
            if (signal.aborted || this.#back) resolve();
          });
          continue;
        }
        const sinceMs = clock.monotonicMs();
        let isTold = false;
        let pauseMs: number = retry.minMs;
        for (;;) {
          this.#next = new AbortController();
          const askedMs = clock.monotonicMs();
          const error = await this.#ask(signal);
          if (signal.aborted) return;
          if (error === undefined) break;
          if (!isTold) log.warn("the server cannot be reached: going on without it", { error: messageOf(error) });
          isTold = true;
          const leftMs = pauseMs * (1 + retry.jitter * (2 * random.float() - 1)) - (clock.monotonicMs() - askedMs);
          await this.#pause(Math.max(0, leftMs), signal);
          if (signal.aborted) return;
          pauseMs = Math.min(pauseMs * retry.factor, retry.maxMs);
        }
        if (isTold) log.info("the server is back", { afterMs: Math.round(clock.monotonicMs() - sinceMs) });
        this.#returned();
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const next = this.#next;
    const onAbort = () => next.abort();
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    await pause(this.#deps.clock, ms, next.signal);
    signal.removeEventListener("abort", onAbort);
  }

  #returned(): void {
    const back = this.#back;
    this.#back = undefined;
    back?.resolve();
    for (const listener of this.#listeners) listener();
  }

  /** Undefined when there is a server. */
  async #ask(signal: AbortSignal): Promise<unknown> {
    if (signal.aborted) return undefined;
    const cut = new AbortController();
    const onAbort = () => cut.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const cancel = this.#deps.clock.after(probeMs, () => cut.abort(serverAway()));
    try {
      await this.#deps.probe(cut.signal);
      return undefined;
    } catch (error) {
      return saysAway(error) ? error : undefined;
    } finally {
      cancel();
      signal.removeEventListener("abort", onAbort);
    }
  }
}
