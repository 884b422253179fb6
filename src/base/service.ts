// One lifecycle for everything that runs: a signal in, an awaited end out. There is no start/stop pair and no status
// flag; whoever starts a service awaits its `run`.

import { type Clock, pause } from "./clock.ts";
import { AppError, messageOf } from "./errors.ts";
import type { Logger } from "./log.ts";

export interface Service {
  readonly name: string;
  /** Works until `signal` aborts, ends what it began, then resolves. Calls `ready` once. Rejects only when broken. */
  run(signal: AbortSignal, ready: () => void): Promise<void>;
}

/** Resolves when `signal` aborts, at once when it has. For services that only hold something open. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

export interface RunAllOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** How long one service may take to end after its signal aborted, ms. */
  readonly stopTimeoutMs: number;
}

/**
 * Starts services in order, each after the one before is ready, and calls `ready` when all are. Stops newest first
 * when `signal` aborts or the first service fails; rejects with that failure, or naming whoever did not stop in time.
 */
export async function runAll(
  services: readonly Service[],
  options: RunAllOptions,
  signal: AbortSignal,
  ready: () => void = () => {},
): Promise<void> {
  const running: { service: Service; abort: AbortController; done: Promise<void>; ended: boolean }[] = [];
  const failures: unknown[] = [];
  let stop = () => {};
  const stopping = new Promise<void>((resolve) => {
    stop = resolve;
  });
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  try {
    for (const service of services) {
      if (signal.aborted || failures.length > 0) break;
      const abort = new AbortController();
      let markReady = () => {};
      const isReady = new Promise<void>((resolve) => {
        markReady = resolve;
      });
      const startedAt = options.clock.monotonicMs();
      const entry = { service, abort, ended: false, done: Promise.resolve() };
      entry.done = service.run(abort.signal, markReady).then(
        () => {
          entry.ended = true;
          if (!abort.signal.aborted) {
            failures.push(new AppError("SERVICE_ENDED", `${service.name} ended by itself`));
            stop();
          }
        },
        (error: unknown) => {
          entry.ended = true;
          if (abort.signal.aborted && error === abort.signal.reason) return;
          failures.push(error);
          options.log.error("service failed", { service: service.name, error: messageOf(error) });
          stop();
        },
      );
      running.push(entry);
      await Promise.race([isReady, stopping]);
      options.log.debug("service ready", {
        service: service.name,
        ms: Math.round(options.clock.monotonicMs() - startedAt),
      });
    }
    if (!signal.aborted && failures.length === 0) {
      ready();
      await stopping;
    }
  } finally {
    signal.removeEventListener("abort", stop);
    for (const entry of running.reverse()) {
      entry.abort.abort(new AppError("SERVICE_STOP", `${entry.service.name} was asked to stop`));
      const timer = new AbortController();
      const late = options.clock.sleep(options.stopTimeoutMs, timer.signal).then(
        () => {
          if (!entry.ended) {
            failures.push(
              new AppError(
                "SERVICE_STOP_TIMEOUT",
                `${entry.service.name} did not end within ${options.stopTimeoutMs} ms`,
              ),
            );
          }
        },
        () => {},
      );
      await Promise.race([entry.done, late]);
      timer.abort();
      await late;
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** Keeps a service alive: restarts it with growing pauses when it fails, so that no component ends the process. */
export function restarting(
  service: Service,
  options: { readonly clock: Clock; readonly log: Logger; readonly minMs: number; readonly maxMs: number },
): Service {
  return {
    name: service.name,
    async run(signal, ready) {
      let pauseMs = options.minMs;
      while (!signal.aborted) {
        const startedAt = options.clock.monotonicMs();
        try {
          await service.run(signal, ready);
          if (signal.aborted) return;
          options.log.warn("service ended, restarting", { service: service.name });
        } catch (error) {
          if (signal.aborted) return;
          options.log.error("service failed, restarting", { service: service.name, error: messageOf(error) });
        }
        if (options.clock.monotonicMs() - startedAt > options.maxMs) pauseMs = options.minMs;
        await pause(options.clock, pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, options.maxMs);
      }
    },
  };
}
