// When something that fails again and again is worth a line of the log: at once, then after pauses that double, and at once
// when it fails for another reason. A server may be away for weeks, and somebody who watches wants to see that it is tried.
import type { Clock } from "#base/clock.ts";

const telling = { againMs: 10_000, longestMs: 3600_000 } as const;

export interface RepeatedProblem {
  /** Asked once for each failure. */
  isNews(reason: string): boolean;
  /** It went well: the next failure is news. */
  isOver(): void;
}

export function createRepeatedProblem(clock: Clock): RepeatedProblem {
  let last: string | undefined;
  let nextMs = 0;
  let pauseMs: number = telling.againMs;
  return {
    isNews(reason) {
      const nowMs = clock.monotonicMs();
      if (reason === last && nowMs < nextMs) return false;
      if (reason !== last) pauseMs = telling.againMs;
      last = reason;
      nextMs = nowMs + pauseMs;
      pauseMs = Math.min(pauseMs * 2, telling.longestMs);
      return true;
    },
    isOver() {
      last = undefined;
    },
  };
}
