// What a replica set (or replication controller) should do about its pods, and what to say of them. Pure.
// Upstream counterpart: pkg/controller/replicaset/{replica_set,replica_set_utils}.go.
import type { ReplicaSetCondition, ReplicaSetStatus } from "#model/gen/apps-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isEqual } from "../../runtime/equal.ts";
import { maxBurst } from "../../runtime/pod-control.ts";
import { rankForDeletion } from "../../runtime/pod-ranking.ts";
import { isPodAvailable, isPodReady } from "../../runtime/pods.ts";
import type { Labels } from "../../runtime/selector.ts";

export type ScalePlan = { readonly create: number } | { readonly remove: readonly Pod[] };

export function planScale(options: {
  readonly active: readonly Pod[];
  readonly replicas: number;
  /** Related pods on the same node, for the choice of what to remove. */
  readonly neighbours: (pod: Pod) => number;
  readonly nowMs: number;
}): ScalePlan {
  const difference = options.active.length - options.replicas;
  if (difference < 0) return { create: Math.min(-difference, maxBurst) };
  const count = Math.min(difference, maxBurst);
  if (count === 0) return { remove: [] };
  // When all go, order does not matter.
  if (count === options.active.length) return { remove: options.active };
  return { remove: rankForDeletion(options.active, options.neighbours, options.nowMs).slice(0, count) };
}

/**
 * How much older each of `removed` is than the youngest active pod: 1 where the youngest goes. Pods that are not ready
 * go first whatever their age and are not told of.
 */
export function ageRatios(active: readonly Pod[], removed: readonly Pod[], nowMs: number): number[] {
  const ageOf = (pod: Pod): number => nowMs - Date.parse(pod.metadata.creationTimestamp ?? "");
  const ready = active.filter(isPodReady);
  const youngest = Math.min(...ready.map(ageOf));
  return youngest > 0 ? removed.filter((pod) => ready.includes(pod)).map((pod) => ageOf(pod) / youngest) : [];
}

/** The status that follows from the pods; the old one when nothing differs. */
export function planStatus(options: {
  readonly old: ReplicaSetStatus;
  readonly active: readonly Pod[];
  readonly templateLabels: Labels;
  readonly minReadySeconds: number;
  readonly generation: number;
  /** Why managing pods failed, if it did. */
  readonly failure: { readonly reason: "FailedCreate" | "FailedDelete"; readonly message: string } | undefined;
  readonly nowMs: number;
  readonly now: string;
}): ReplicaSetStatus {
  const { old, active, failure } = options;
  const labels = Object.entries(options.templateLabels);
  const fullyLabeled = active.filter((pod) => labels.every(([k, v]) => pod.metadata.labels?.[k] === v)).length;
  const ready = active.filter(isPodReady).length;
  const available = active.filter((pod) => isPodAvailable(pod, options.minReadySeconds, options.nowMs)).length;
  const others = (old.conditions ?? []).filter((c) => c.type !== "ReplicaFailure");
  const current = (old.conditions ?? []).find((c) => c.type === "ReplicaFailure");
  let conditions: ReplicaSetCondition[] = others;
  if (failure) {
    const isSame = current?.status === "True" && current.reason === failure.reason;
    const fresh = { type: "ReplicaFailure", status: "True", ...failure, lastTransitionTime: options.now };
    conditions = [...others, isSame ? current : fresh];
  }
  const next: ReplicaSetStatus = {
    replicas: active.length,
    ...(fullyLabeled ? { fullyLabeledReplicas: fullyLabeled } : {}),
    ...(ready ? { readyReplicas: ready } : {}),
    ...(available ? { availableReplicas: available } : {}),
    observedGeneration: Math.max(options.generation, old.observedGeneration ?? 0),
    ...(conditions.length > 0 ? { conditions } : {}),
  };
  return isEqual(next, old) ? old : next;
}
