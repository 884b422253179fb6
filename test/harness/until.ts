// Waits for what comes true in its own time: real sockets, files and processes. The limit is for what never does; a machine
// at load takes ten times as long as one that is idle, so no test gives less.
import { systemClock } from "#platform/clock.ts";

const stepMs = 5;

/** Resolves when `isSo` says yes; throws with `what` after `limitMs`. What `isSo` throws is thrown. */
export async function until(isSo: () => boolean | Promise<boolean>, what = "it", limitMs = 30_000): Promise<void> {
  const endMs = systemClock.monotonicMs() + limitMs;
  while (!(await isSo())) {
    if (systemClock.monotonicMs() > endMs) throw new Error(`${what} did not come true within ${limitMs / 1000} s`);
    await systemClock.sleep(stepMs);
  }
}
