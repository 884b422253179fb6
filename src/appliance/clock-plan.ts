// A clock that is safe on boards without a battery: at start it is never earlier than what is known to be past, and time
// servers may move it, but not behind that either. Pure.

export interface ClockFacts {
  readonly nowMs: number;
  /** Moments that have certainly passed: the image's making, the last known time, what mote.yaml says. */
  readonly past: readonly (number | undefined)[];
}

/** An earlier answer of a time server is wrong by this much before it is disbelieved: clocks before us may have run fast. */
const toleranceMs = 24 * 3600_000;
/** Smaller differences are left alone: leases and certificates do not care, and steps disturb timers. */
const minStepMs = 500;
/** No clock of this century. */
const maxMs = Date.UTC(2100, 0, 1);
/** The last known time is written when it is older than this. */
const persistMs = 24 * 3600_000;

export const floorOf = (past: ClockFacts["past"]): number =>
  Math.max(0, ...past.filter((ms): ms is number => ms !== undefined && Number.isFinite(ms) && ms < maxMs));

/** The time to set at start, or undefined where the clock is right. */
export function startTime({ nowMs, past }: ClockFacts): number | undefined {
  const floor = floorOf(past);
  return nowMs < floor ? floor : undefined;
}

/** The time to set by a server's answer, or undefined where it is close enough or cannot be. */
export function serverTime(facts: ClockFacts & { readonly offsetMs: number }): number | undefined {
  const wanted = facts.nowMs + facts.offsetMs;
  if (Math.abs(facts.offsetMs) < minStepMs || wanted > maxMs) return undefined;
  return isBelow(facts) ? undefined : wanted;
}

/** Whether a server's answer is earlier than can be. */
export const isBelow = (facts: ClockFacts & { readonly offsetMs: number }): boolean =>
  facts.nowMs + facts.offsetMs < floorOf(facts.past) - toleranceMs;

/** Whether the last known time on flash is old enough to be written again. */
export const shouldPersist = (nowMs: number, lastKnownMs: number | undefined): boolean =>
  lastKnownMs === undefined || nowMs - lastKnownMs >= persistMs;

export const parseLastKnown = (text: string | undefined): number | undefined => {
  const ms = Date.parse(text?.trim() ?? "");
  return Number.isNaN(ms) ? undefined : ms;
};
