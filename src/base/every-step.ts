// Taking things down: every step is tried, whatever became of those before, and what failed is told together at the end.
import { AppError, messageOf } from "./errors.ts";
import type { Logger } from "./log.ts";

/** What is taken down, and how. */
type Step = readonly [what: string, work: () => unknown];

/** Rejects with TEARDOWN, which names all that failed. */
export async function everyStep(steps: readonly Step[], log: Logger): Promise<void> {
  const failures: string[] = [];
  for (const [what, work] of steps) {
    try {
      await work();
    } catch (error) {
      log.warn("cannot be taken down, going on", { what, error: messageOf(error) });
      failures.push(`${what}: ${messageOf(error)}`);
    }
  }
  if (failures.length > 0) throw new AppError("TEARDOWN", `not all is down: ${failures.join("; ")}`);
}
