// The next step of a stateful set: pods have numbers, are made in rising order and ended in falling order, one at a time
// unless told otherwise. Pure. Upstream counterpart: pkg/controller/statefulset/stateful_set_control.go.
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { isPodAvailable, isPodFinished, isPodReady } from "../../runtime/pods.ts";
import { revisionHashLabel } from "../../runtime/revisions.ts";

export function ordinalOf(set: StatefulSet, pod: Pod): number | undefined {
  const prefix = `${nameOf(set)}-`;
  const text = nameOf(pod).slice(prefix.length);
  return nameOf(pod).startsWith(prefix) && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** By which services and people pick out one pod of the set. */
export const identityLabels = (podName: string, ordinal: number): Readonly<Record<string, string>> => ({
  "statefulset.kubernetes.io/pod-name": podName,
  "apps.kubernetes.io/pod-index": String(ordinal),
});
const hasIdentity = (pod: Pod, ordinal: number): boolean =>
  Object.entries(identityLabels(nameOf(pod), ordinal)).every(([key, value]) => pod.metadata.labels?.[key] === value);

export interface SetPlan {
  /** Ordinals of pods to make, with the revision to make them of. */
  readonly create: readonly { readonly ordinal: number; readonly isUpdated: boolean }[];
  readonly remove: readonly Pod[];
  /** Not started yet: a claim of theirs that has gone meanwhile is made again. */
  readonly pending: readonly Pod[];
  /** Have lost the labels that say which of the set's pods they are. */
  readonly nameless: readonly Pod[];
  /** Waits only for the passing of minReadySeconds. */
  readonly isWaitingForAge: boolean;
}

export interface SetInput {
  readonly set: StatefulSet;
  readonly pods: readonly Pod[];
  /** Names of the revision in force and of the one rolled from; equal when nothing rolls. */
  readonly updateRevision: string;
  readonly nowMs: number;
}

export const revisionOf = (pod: Pod): string => pod.metadata.labels?.[revisionHashLabel] ?? "";
const firstOrdinal = (set: StatefulSet): number => set.spec.ordinals?.start ?? 0;
export const replicasOf = (set: StatefulSet): number => set.spec.replicas ?? 1;
/** A partition counts places, not ordinals: with two it is the third pod that is rolled first, whatever its number. */
const firstUpdated = (set: StatefulSet): number =>
  firstOrdinal(set) + (set.spec.updateStrategy?.rollingUpdate?.partition ?? 0);

export function planSet(input: SetInput): SetPlan {
  const { set, pods, updateRevision, nowMs } = input;
  const isOrdered = set.spec.podManagementPolicy !== "Parallel";
  const first = firstOrdinal(set);
  const last = first + replicasOf(set) - 1;
  const byOrdinal = new Map<number, Pod>();
  const surplus: Pod[] = [];
  for (const pod of pods) {
    const ordinal = ordinalOf(set, pod);
    if (ordinal === undefined) continue;
    if (ordinal >= first && ordinal <= last) byOrdinal.set(ordinal, pod);
    else surplus.push(pod);
  }
  const isHealthy = (pod: Pod) => isPodReady(pod) && pod.status?.phase === "Running" && !isDeleting(pod);
  const isAvailable = (pod: Pod) => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs);
  const create: { ordinal: number; isUpdated: boolean }[] = [];
  const remove: Pod[] = [];
  const pending: Pod[] = [];
  const nameless = [...byOrdinal]
    .filter(([ordinal, pod]) => !isDeleting(pod) && !isPodFinished(pod) && !hasIdentity(pod, ordinal))
    .map(([, pod]) => pod);
  const plan = (isWaitingForAge = false): SetPlan => ({ create, remove, pending, nameless, isWaitingForAge });

  for (let ordinal = first; ordinal <= last; ordinal++) {
    const pod = byOrdinal.get(ordinal);
    if (!pod) create.push({ ordinal, isUpdated: isMadeOfUpdate(input, ordinal, byOrdinal) });
    else if (isPodFinished(pod) && !isDeleting(pod)) remove.push(pod);
    else {
      if (pod.status?.phase === "Pending" && !isDeleting(pod)) pending.push(pod);
      if (isOrdered && isHealthy(pod) && !isAvailable(pod)) return plan(true);
      if (!isOrdered || (isHealthy(pod) && isAvailable(pod))) continue;
    }
    if (isOrdered) return plan();
  }

  surplus.sort((a, b) => ordinalOf(set, b)! - ordinalOf(set, a)!);
  for (const pod of surplus) {
    if (isOrdered && !isDeleting(pod)) {
      // Of several that do not work only the first is ended: shrinking would hide what made the others fail.
      const isBlocked = !isHealthy(pod) && surplus.some((other) => other !== pod && !isHealthy(other));
      if (isBlocked) return plan();
      if (isHealthy(pod) && !isAvailable(pod)) return plan(true);
    }
    if (!isDeleting(pod)) remove.push(pod);
    if (isOrdered) return plan();
  }
  if (create.length > 0 || remove.length > 0) return plan();

  if (set.spec.updateStrategy?.type === "OnDelete") return plan();
  for (let ordinal = last; ordinal >= firstUpdated(set); ordinal--) {
    const pod = byOrdinal.get(ordinal);
    if (!pod) continue;
    if (revisionOf(pod) !== updateRevision && !isDeleting(pod)) {
      remove.push(pod);
      return plan();
    }
    if (!isHealthy(pod) || !isAvailable(pod)) return plan(isHealthy(pod));
  }
  return plan();
}

/**
 * During a roll, which goes from the last ordinal down, a missing pod is made of the new revision when the roll has come
 * as far as it, and comes back as what it was otherwise. Upstream counts in the status instead; the pods themselves
 * cannot be behind in the same way.
 */
function isMadeOfUpdate(input: SetInput, ordinal: number, byOrdinal: ReadonlyMap<number, Pod>): boolean {
  const { set, updateRevision } = input;
  const current = set.status?.currentRevision;
  if (set.spec.updateStrategy?.type === "OnDelete" || !current || current === updateRevision) return true;
  if (ordinal < firstUpdated(set)) return false;
  return [...byOrdinal].every(([other, pod]) => other <= ordinal || revisionOf(pod) === updateRevision);
}

export function planStatus(input: SetInput & { readonly currentRevision: string }): NonNullable<StatefulSet["status"]> {
  const { set, updateRevision, nowMs } = input;
  const mine = input.pods.filter((pod) => ordinalOf(set, pod) !== undefined);
  const count = (test: (pod: Pod) => boolean) => mine.filter(test).length;
  const isMade = (pod: Pod) => !isDeleting(pod) && !isPodFinished(pod);
  const ready = count((pod) => pod.status?.phase === "Running" && isPodReady(pod));
  const available = count((pod) => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs));
  const updated = count((pod) => isMade(pod) && revisionOf(pod) === updateRevision);
  let { currentRevision } = input;
  const isWhole = updated === replicasOf(set) && ready === replicasOf(set) && mine.length === replicasOf(set);
  // Where pods are exchanged by hand nobody says when that is over.
  if (isWhole && set.spec.updateStrategy?.type !== "OnDelete") currentRevision = updateRevision;
  const current = count((pod) => isMade(pod) && revisionOf(pod) === currentRevision);
  const { collisionCount, conditions } = set.status ?? {};
  return {
    observedGeneration: set.metadata.generation ?? 0,
    replicas: mine.length,
    ...(ready ? { readyReplicas: ready } : {}),
    ...(current ? { currentReplicas: current } : {}),
    ...(updated ? { updatedReplicas: updated } : {}),
    currentRevision,
    updateRevision,
    collisionCount: collisionCount ?? 0,
    availableReplicas: available,
    ...(conditions ? { conditions } : {}),
  };
}
