// Controllers that look at everything from time to time, and sooner when something changes: one key, which comes back
// after each round, and after a growing pause where a round fails.
// Upstream counterpart: wait.Until around a monitor function, as in nodelifecycle and podgc.
import type { Service } from "#base/service.ts";
import { type ControllerDeps, type ControllerSpec, createController } from "./controller.ts";

export interface PeriodicSpec extends Pick<ControllerSpec, "name" | "triggers" | "begin"> {
  readonly periodMs: number;
  round(): Promise<void>;
}

/** The one key; what marks it brings a round forward. */
export const everything = "everything";

export const createPeriodicController = ({ periodMs, round, ...spec }: PeriodicSpec, deps: ControllerDeps): Service =>
  createController(
    {
      ...spec,
      workers: 1,
      firstKeys: [everything],
      async sync(_key, again) {
        again(periodMs);
        await round();
      },
    },
    deps,
  );
