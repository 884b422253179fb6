// The memory of thresholds between two looks: since when each is crossed, which are to be acted on, which conditions the node
// shows. Pure: state in, state out. Counterpart: the first half of the kubelet's eviction manager synchronize.
import { crossed, type Observations, type PressureCondition, signalFacts, type Threshold } from "./signals.ts";

export interface PressureState {
  /** Thresholds met at the last look, with the time since when. */
  readonly met: ReadonlyMap<Threshold, number>;
  /** When each condition was last observed. */
  readonly conditionSeenMs: ReadonlyMap<PressureCondition, number>;
}

export const noPressure: PressureState = { met: new Map(), conditionSeenMs: new Map() };

export interface PressureDecision {
  readonly state: PressureState;
  /** What the node shows: observed now, or not long enough ago. */
  readonly conditions: ReadonlySet<PressureCondition>;
  /** To act on, most urgent first: memory before the others, as it is gone fastest. */
  readonly act: readonly Threshold[];
}

export function decidePressure(
  thresholds: readonly Threshold[],
  seen: Observations,
  before: PressureState,
  nowMs: number,
  transitionPeriodMs: number,
): PressureDecision {
  const now = crossed(thresholds, seen, false);
  // One that was met stays so until what must be reclaimed beyond it is free as well.
  const still = crossed([...before.met.keys()], seen, true);
  const met = new Map([...new Set([...now, ...still])].map((t) => [t, before.met.get(t) ?? nowMs]));
  const conditionSeenMs = new Map(before.conditionSeenMs);
  for (const t of met.keys()) conditionSeenMs.set(signalFacts[t.signal].condition, nowMs);
  const conditions = new Set<PressureCondition>();
  for (const [condition, atMs] of conditionSeenMs) {
    if (nowMs - atMs < transitionPeriodMs || atMs === nowMs) conditions.add(condition);
    else conditionSeenMs.delete(condition);
  }
  const act = [...met].filter(([t, sinceMs]) => nowMs - sinceMs >= t.graceMs).map(([t]) => t);
  act.sort((a, b) => Number(b.signal === "memory.available") - Number(a.signal === "memory.available"));
  return { state: { met, conditionSeenMs }, conditions, act };
}
