// Services under names that come and go: one runs for each name of a list, for as long as it stands there.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Service, untilAborted } from "#base/service.ts";

export interface ServiceSetOptions {
  readonly name: string;
  readonly names: () => readonly string[];
  /** Calls when the names may have changed, until the returned function is called. */
  readonly onChange: (listener: () => void) => () => void;
  readonly make: (name: string) => Service;
}

export function createServiceSet(options: ServiceSetOptions, deps: { readonly log: Logger }): Service {
  return {
    name: options.name,
    async run(signal, ready) {
      ready();
      const running = new Map<string, AbortController>();
      const tasks = new Set<Promise<void>>();
      const start = (name: string) => {
        const abort = new AbortController();
        running.set(name, abort);
        const task = options
          .make(name)
          .run(abort.signal, () => {})
          .catch((error: unknown) => {
            if (!abort.signal.aborted) deps.log.error("a service has failed", { name, error: messageOf(error) });
          });
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
