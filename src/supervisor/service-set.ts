// Services under names that come and go: one runs for each name of a list, for as long as it stands there. One that fails comes
// back after a pause, as every part of a server does; the others notice nothing.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { restarting, type Service, untilAborted } from "#base/service.ts";

export interface ServiceSetOptions {
  readonly name: string;
  readonly names: () => readonly string[];
  /** Calls when the names may have changed, until the returned function is called. */
  readonly onChange: (listener: () => void) => () => void;
  /** Asked anew for each run: one that has failed is not run again. */
  readonly make: (name: string) => Service;
}

/** A failed one comes back after the first number, which grows to the second. */
const restartPause = { minMs: 200, maxMs: 10_000 } as const;

export function createServiceSet(
  options: ServiceSetOptions,
  deps: { readonly clock: Clock; readonly log: Logger },
): Service {
  return {
    name: options.name,
    async run(signal, ready) {
      ready();
      const running = new Map<string, AbortController>();
      const tasks = new Set<Promise<void>>();
      const start = (name: string) => {
        const abort = new AbortController();
        running.set(name, abort);
        const one: Service = {
          name: `${options.name} ${name}`,
          run: async (stop, isReady) => options.make(name).run(stop, isReady),
        };
        const task = restarting(one, { ...deps, ...restartPause }).run(abort.signal, () => {});
        tasks.add(task);
        void task.then(() => tasks.delete(task));
      };
      const look = () => {
        const wanted = signal.aborted ? [] : options.names();
        for (const [name, abort] of running) {
          if (wanted.includes(name)) continue;
          running.delete(name);
          abort.abort(new Error("not wanted any more"));
        }
        for (const name of wanted) if (!running.has(name)) start(name);
      };
      const stop = options.onChange(look);
      look();
      await untilAborted(signal);
      stop();
      look();
      await Promise.all(tasks);
    },
  };
}
