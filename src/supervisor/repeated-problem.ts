// When something that fails again and again is worth a line of the log: at once, then after pauses that double, and at once
// when it fails for another reason. A server may be away for weeks, and somebody who watches wants to see that it is tried.
// Reasons that take turns, as two ends of one bad way do, have a pause each.
import type { Clock } from "#base/clock.ts";

const telling = { againMs: 10_000, longestMs: 3600_000 } as const;
/** One thing fails in few ways; where every reason is another, each is told anyhow. */
const maxReasons = 8;

export interface RepeatedProblem {
  /** Asked once for each failure. */
  isNews(reason: string): boolean;
  /** It went well: the next failure is news. */
  isOver(): void;
}

export function createRepeatedProblem(clock: Pick<Clock, "monotonicMs">): RepeatedProblem {
  const told = new Map<string, { readonly nextMs: number; readonly pauseMs: number }>();
  return {
    isNews(reason) {
      const nowMs = clock.monotonicMs();
      const before = told.get(reason);
      if (before && nowMs < before.nextMs) return false;
      const pauseMs = before ? Math.min(before.pauseMs * 2, telling.longestMs) : telling.againMs;
      // The one told longest ago is the first.
      told.delete(reason);
      told.set(reason, { nextMs: nowMs + pauseMs, pauseMs });
      if (told.size > maxReasons) told.delete(told.keys().next().value!);
      return true;
    },
    isOver() {
      told.clear();
    },
  };
}
