// How many pods of a budget may be taken away now. Pure. Upstream counterpart: pkg/controller/disruption.
import { rfc3339 } from "#base/clock.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { Condition, IntOrString } from "#model/gen/meta-v1.ts";
import type { PodDisruptionBudget, PodDisruptionBudgetStatus } from "#model/gen/policy-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { isPodReady } from "../runtime/pods.ts";

/** From an eviction that was granted to the pod's deletion; then it is believed that it will not be deleted. */
export const evictionTimeoutMs = 120_000;

export const allowedCondition = "DisruptionAllowed";

export interface Wanted {
  readonly expected: number;
  readonly healthy: number;
}

/** Whether the budget is a share of what controllers want, so that these have to be asked. */
export const needsScale = ({ spec }: PodDisruptionBudget): boolean =>
  spec.maxUnavailable !== undefined || typeof spec.minAvailable === "string";

/** `scale`: replicas wanted by all controllers of the pods together; for budgets that need it. */
export function wantedOf({ spec }: PodDisruptionBudget, podCount: number, scale: number): Wanted {
  if (spec.maxUnavailable !== undefined) {
    return { expected: scale, healthy: Math.max(0, scale - shareOf(spec.maxUnavailable, scale)) };
  }
  if (typeof spec.minAvailable === "string") return { expected: scale, healthy: shareOf(spec.minAvailable, scale) };
  return { expected: podCount, healthy: spec.minAvailable ?? 0 };
}

/** A number, or "25%" of `total` rounded up: the side that keeps more of what is asked for. */
const shareOf = (value: IntOrString, total: number): number =>
  typeof value === "string" ? Math.ceil((Number(value.slice(0, -1)) * total) / 100) : value;

export interface Disrupted {
  /** Granted evictions whose pods are still to go. */
  readonly pending: Record<string, string>;
  /** Pods that were to go and did not. */
  readonly stayed: readonly Pod[];
  /** How long until the first of `pending` runs out. */
  readonly againMs?: number;
}

export function disruptedOf(budget: PodDisruptionBudget, pods: readonly Pod[], nowMs: number): Disrupted {
  const pending: Record<string, string> = {};
  const stayed: Pod[] = [];
  const ends: number[] = [];
  for (const pod of pods) {
    const granted = budget.status?.disruptedPods?.[nameOf(pod)];
    if (granted === undefined || isDeleting(pod)) continue;
    const leftMs = Date.parse(granted) + evictionTimeoutMs - nowMs;
    if (leftMs <= 0) stayed.push(pod);
    else {
      pending[nameOf(pod)] = granted;
      ends.push(leftMs);
    }
  }
  return { pending, stayed, ...(ends.length > 0 ? { againMs: Math.min(...ends) } : {}) };
}

export function planStatus(
  budget: PodDisruptionBudget,
  pods: readonly Pod[],
  wanted: Wanted,
  disrupted: Disrupted,
  nowMs: number,
): PodDisruptionBudgetStatus {
  const currentHealthy = pods.filter(
    (pod) => !isDeleting(pod) && disrupted.pending[nameOf(pod)] === undefined && isPodReady(pod),
  ).length;
  const spare = currentHealthy - wanted.healthy;
  const disruptionsAllowed = wanted.expected > 0 && spare > 0 ? spare : 0;
  const condition: ConditionInput =
    disruptionsAllowed > 0
      ? { status: "True", reason: "SufficientPods", message: "" }
      : { status: "False", reason: "InsufficientPods", message: "" };
  return {
    currentHealthy,
    desiredHealthy: wanted.healthy,
    expectedPods: wanted.expected,
    disruptionsAllowed,
    observedGeneration: budget.metadata.generation ?? 0,
    ...(Object.keys(disrupted.pending).length > 0 ? { disruptedPods: disrupted.pending } : {}),
    conditions: withCondition(budget, condition, nowMs),
  };
}

/** Where it cannot be told what is allowed, nothing is. */
export function planFailure(budget: PodDisruptionBudget, message: string, nowMs: number): PodDisruptionBudgetStatus {
  const condition = { status: "False", reason: "SyncFailed", message };
  return {
    ...{ currentHealthy: 0, desiredHealthy: 0, expectedPods: 0 },
    ...budget.status,
    disruptionsAllowed: 0,
    observedGeneration: budget.metadata.generation ?? 0,
    conditions: withCondition(budget, condition, nowMs),
  };
}

type ConditionInput = Pick<Condition, "status" | "reason" | "message">;

function withCondition(budget: PodDisruptionBudget, next: ConditionInput, nowMs: number): Condition[] {
  const all = budget.status?.conditions ?? [];
  const old = all.find((one) => one.type === allowedCondition);
  const lastTransitionTime = old?.status === next.status ? old.lastTransitionTime : rfc3339(nowMs);
  const observedGeneration = budget.metadata.generation ?? 0;
  return [
    ...all.filter((one) => one !== old),
    { type: allowedCondition, ...next, lastTransitionTime, observedGeneration },
  ];
}
