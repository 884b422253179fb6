// From what metrics ask for to what is done: windows that wait out short swings, policies that bound how fast, and the bounds of
// the object. Pure; what must be remembered between two rounds is in `Memory`, in and out, on the monotonic clock.
// It is lost with the process, as upstream's is: the first round then remembers what there is, so that nothing is taken away for
// the length of a window. Upstream counterpart: pkg/controller/podautoscaler/horizontal.go.
import type { HorizontalPodAutoscaler, HPAScalingRules } from "#model/gen/autoscaling-v2.ts";

export interface Recommendation {
  readonly replicas: number;
  readonly atMs: number;
}
interface ScaleEvent {
  readonly change: number;
  readonly atMs: number;
}

/** Bounded: recommendations by window over period (240), events by the longest period of a policy over the same (120). */
export interface Memory {
  readonly recommendations: readonly Recommendation[];
  readonly ups: readonly ScaleEvent[];
  readonly downs: readonly ScaleEvent[];
}
export const nothingRemembered: Memory = { recommendations: [], ups: [], downs: [] };

export interface Limited {
  readonly replicas: number;
  readonly memory: Memory;
  readonly ableToScale: { readonly reason: string; readonly message: string };
  readonly scalingLimited: { readonly status: "True" | "False"; readonly reason: string; readonly message: string };
}

export interface LimitInput {
  readonly spec: HorizontalPodAutoscaler["spec"];
  readonly currentReplicas: number;
  readonly desiredReplicas: number;
  readonly memory: Memory;
  readonly monotonicMs: number;
  /** Where the object does not say: so long nothing is taken away that was wanted. */
  readonly downWindowMs: number;
}

const ready = { reason: "ReadyForNewScale", message: "recommended size matches current size" };
const stabilizedUp = {
  reason: "ScaleUpStabilized",
  message: "recent recommendations were lower than current one, applying the lowest recent recommendation",
};
const stabilizedDown = {
  reason: "ScaleDownStabilized",
  message: "recent recommendations were higher than current one, applying the highest recent recommendation",
};
const within = { reason: "DesiredWithinRange", message: "the desired count is within the acceptable range" };
const tooMany = {
  reason: "TooManyReplicas",
  message: "the desired replica count is more than the maximum replica count",
};
const tooFew = {
  reason: "TooFewReplicas",
  message: "the desired replica count is less than the minimum replica count",
};
const tooFastUp = {
  reason: "ScaleUpLimit",
  message: "the desired replica count is increasing faster than the maximum scale rate",
};
const tooFastDown = {
  reason: "ScaleDownLimit",
  message: "the desired replica count is decreasing faster than the maximum scale rate",
};

/** The first thing remembered of an autoscaler: what there was when it was first looked at. */
export const remembering = (memory: Memory, replicas: number, atMs: number): Memory =>
  memory.recommendations.length > 0 ? memory : { ...memory, recommendations: [{ replicas, atMs }] };

export function limit(input: LimitInput): Limited {
  return input.spec.behavior ? limitByBehavior(input) : limitByDefault(input);
}

function limitByDefault(input: LimitInput): Limited {
  const { spec, currentReplicas, desiredReplicas, memory, monotonicMs, downWindowMs } = input;
  const cutoffMs = monotonicMs - downWindowMs;
  const recent = memory.recommendations.filter((r) => r.atMs >= cutoffMs);
  const stabilized = Math.max(desiredReplicas, ...recent.map((r) => r.replicas));
  const next = { ...memory, recommendations: [...recent, { replicas: desiredReplicas, atMs: monotonicMs }] };
  const rate = Math.max(2 * currentReplicas, 4);
  const upper = spec.maxReplicas > rate ? { to: rate, why: tooFastUp } : { to: spec.maxReplicas, why: tooMany };
  const lower = { to: spec.minReplicas ?? 1, why: tooFew };
  return {
    ...bounded(stabilized, lower, upper),
    memory: next,
    ableToScale: stabilized === desiredReplicas ? ready : stabilizedDown,
  };
}

function limitByBehavior(input: LimitInput): Limited {
  const { spec, currentReplicas, desiredReplicas, memory, monotonicMs, downWindowMs } = input;
  const up = spec.behavior?.scaleUp ?? {};
  const down = spec.behavior?.scaleDown ?? {};
  const upCutoffMs = monotonicMs - (up.stabilizationWindowSeconds ?? 0) * 1000;
  const ownWindow = down.stabilizationWindowSeconds;
  const downCutoffMs = monotonicMs - (ownWindow === undefined ? downWindowMs : ownWindow * 1000);
  const after = (cutoffMs: number) => memory.recommendations.filter((r) => r.atMs > cutoffMs).map((r) => r.replicas);
  const atLeast = Math.min(desiredReplicas, ...after(upCutoffMs));
  const atMost = Math.max(desiredReplicas, ...after(downCutoffMs));
  const stabilized = Math.min(Math.max(currentReplicas, atLeast), atMost);
  const oldestMs = Math.min(upCutoffMs, downCutoffMs);
  const next = {
    ...memory,
    recommendations: [
      ...memory.recommendations.filter((r) => r.atMs >= oldestMs),
      { replicas: desiredReplicas, atMs: monotonicMs },
    ],
  };
  const ableToScale =
    stabilized === desiredReplicas ? ready : desiredReplicas >= currentReplicas ? stabilizedUp : stabilizedDown;
  const none = { to: stabilized, why: within };
  let result: Pick<Limited, "replicas" | "scalingLimited">;
  if (stabilized > currentReplicas) {
    const rate = Math.max(currentReplicas, scaleUpLimit(up, currentReplicas, memory, monotonicMs));
    const upper = spec.maxReplicas > rate ? { to: rate, why: tooFastUp } : { to: spec.maxReplicas, why: tooMany };
    result = bounded(stabilized, none, upper);
  } else if (stabilized < currentReplicas) {
    const rate = Math.min(currentReplicas, scaleDownLimit(down, currentReplicas, memory, monotonicMs));
    const min = spec.minReplicas ?? 1;
    const lower = min < rate ? { to: rate, why: tooFastDown } : { to: min, why: tooFew };
    result = bounded(stabilized, lower, none);
  } else result = bounded(stabilized, none, none);
  return { ...result, memory: next, ableToScale };
}

interface Bound {
  readonly to: number;
  readonly why: { readonly reason: string; readonly message: string };
}

function bounded(replicas: number, lower: Bound, upper: Bound): Pick<Limited, "replicas" | "scalingLimited"> {
  const hit = replicas < lower.to ? lower : replicas > upper.to ? upper : undefined;
  if (!hit) return { replicas, scalingLimited: { status: "False", ...within } };
  return { replicas: hit.to, scalingLimited: { status: "True", ...hit.why } };
}

/** How many there may be now, by the policy that the rules select. */
function scaleUpLimit(rules: HPAScalingRules, current: number, memory: Memory, nowMs: number): number {
  if (rules.selectPolicy === "Disabled") return current;
  const proposals = (rules.policies ?? []).map(({ type, value, periodSeconds }) => {
    const start = atPeriodStart(current, memory, periodSeconds, nowMs);
    // Rounded up, or few would never become more.
    return type === "Pods" ? start + value : Math.ceil(start * (1 + value / 100));
  });
  return rules.selectPolicy === "Min" ? Math.min(...proposals) : Math.max(...proposals);
}

function scaleDownLimit(rules: HPAScalingRules, current: number, memory: Memory, nowMs: number): number {
  if (rules.selectPolicy === "Disabled") return current;
  const proposals = (rules.policies ?? []).map(({ type, value, periodSeconds }) => {
    const start = atPeriodStart(current, memory, periodSeconds, nowMs);
    return type === "Pods" ? start - value : Math.trunc(start * (1 - value / 100));
  });
  // The smallest change leaves the most.
  return rules.selectPolicy === "Min" ? Math.max(...proposals) : Math.min(...proposals);
}

function atPeriodStart(current: number, memory: Memory, periodSeconds: number, nowMs: number): number {
  const cutoffMs = nowMs - periodSeconds * 1000;
  const sum = (events: readonly ScaleEvent[]) =>
    events.reduce((total, event) => (event.atMs > cutoffMs ? total + event.change : total), 0);
  return current - sum(memory.ups) + sum(memory.downs);
}

/** After a scale was written: what policies with periods go by. */
export function withScaleEvent(
  memory: Memory,
  spec: HorizontalPodAutoscaler["spec"],
  from: number,
  to: number,
  atMs: number,
): Memory {
  const { behavior } = spec;
  if (!behavior) return memory;
  const isUp = to > from;
  const longest = Math.max(
    0,
    ...((isUp ? behavior.scaleUp : behavior.scaleDown)?.policies ?? []).map((p) => p.periodSeconds),
  );
  const kept = (events: readonly ScaleEvent[]) => [
    ...events.filter((event) => event.atMs >= atMs - longest * 1000),
    { change: Math.abs(to - from), atMs },
  ];
  return isUp ? { ...memory, ups: kept(memory.ups) } : { ...memory, downs: kept(memory.downs) };
}
