// The arithmetic of a rollout: how many replicas each replica set of a deployment should have next, which old ones to
// forget, and what the deployment's status says. Pure; rounds and orders as upstream, since people watch these numbers.
// Upstream counterpart: pkg/controller/deployment/{rolling,recreate,sync,progress}.go and util/deployment_util.go.
import type { Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet } from "#model/gen/apps-v1.ts";
import type { PodTemplateSpec } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { canonicalJson, fnv1a, isEqual, safeEncode } from "../../runtime/equal.ts";

export const revisionAnnotation = "deployment.kubernetes.io/revision";
export const revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history";
export const desiredReplicasAnnotation = "deployment.kubernetes.io/desired-replicas";
export const maxReplicasAnnotation = "deployment.kubernetes.io/max-replicas";
export const podTemplateHashLabel = "pod-template-hash";
/** Not handed on from a deployment to its replica sets. */
const ownAnnotations: ReadonlySet<string> = new Set([
  "kubectl.kubernetes.io/last-applied-configuration",
  revisionAnnotation,
  revisionHistoryAnnotation,
  desiredReplicasAnnotation,
  maxReplicasAnnotation,
  "deprecated.deployment.rollback.to",
]);
/** Upstream's bound for the list of earlier revisions on one replica set. */
const maxHistoryLength = 2000;
/** "No deadline", as upstream writes it. */
const noDeadline = 2147483647;

export interface Scaling {
  readonly set: ReplicaSet;
  readonly replicas: number;
}

export const replicasOf = (object: { readonly spec: { readonly replicas?: number } }): number =>
  object.spec.replicas ?? 1;
const sum = (sets: readonly ReplicaSet[], value: (set: ReplicaSet) => number): number =>
  sets.reduce((total, set) => total + value(set), 0);
const available = (set: ReplicaSet): number => set.status?.availableReplicas ?? 0;
/** Counted in 64 bits, more than a number holds exactly; 0 for what is no revision. */
const parseRevision = (text: string): bigint => {
  const revision = /^\d{1,19}$/.test(text) ? BigInt(text) : 0n;
  return BigInt.asIntN(64, revision) === revision ? revision : 0n;
};
export const revisionOf = (set: ReplicaSet): bigint =>
  parseRevision(set.metadata.annotations?.[revisionAnnotation] ?? "");
/** One more than any of `old`. */
export const nextRevision = (old: readonly ReplicaSet[]): bigint => {
  const last = [...old].sort(byRevision).at(-1);
  return (last ? revisionOf(last) : 0n) + 1n;
};
const byRevision = (a: ReplicaSet, b: ReplicaSet): number => Number(BigInt.asIntN(64, revisionOf(a) - revisionOf(b)));
const isRolling = (d: Deployment): boolean => (d.spec.strategy?.type ?? "RollingUpdate") === "RollingUpdate";

/** "25%" of `total` or a plain number. */
function resolve(value: number | string | undefined, total: number, round: (x: number) => number): number {
  if (value === undefined) return 0;
  if (typeof value === "number") return value;
  return value.endsWith("%") ? round((Number.parseInt(value, 10) * total) / 100) : Number.parseInt(value, 10) || 0;
}

/** Surge rounds up and unavailability down; both zero would stand still, so then one may be unavailable. */
export function fenceposts(d: Deployment): { readonly maxSurge: number; readonly maxUnavailable: number } {
  if (!isRolling(d)) return { maxSurge: 0, maxUnavailable: 0 };
  const total = replicasOf(d);
  const maxSurge = resolve(d.spec.strategy?.rollingUpdate?.maxSurge, total, Math.ceil);
  const maxUnavailable = resolve(d.spec.strategy?.rollingUpdate?.maxUnavailable, total, Math.floor);
  return { maxSurge, maxUnavailable: maxSurge === 0 && maxUnavailable === 0 ? 1 : maxUnavailable };
}
function maxUnavailableOf(d: Deployment): number {
  const total = replicasOf(d);
  return !isRolling(d) || total === 0 ? 0 : Math.min(fenceposts(d).maxUnavailable, total);
}

/** Oldest first; equal ages by name. */
export const byAge = (a: ReplicaSet, b: ReplicaSet): number => {
  const left = a.metadata.creationTimestamp ?? "";
  const right = b.metadata.creationTimestamp ?? "";
  if (left !== right) return left < right ? -1 : 1;
  return nameOf(a) < nameOf(b) ? -1 : 1;
};

export function isSameTemplate(a: PodTemplateSpec | undefined, b: PodTemplateSpec | undefined): boolean {
  const plain = (template: PodTemplateSpec | undefined) => {
    const { [podTemplateHashLabel]: _, ...labels } = template?.metadata?.labels ?? {};
    return { ...template, metadata: { ...template?.metadata, labels, creationTimestamp: undefined } };
  };
  return isEqual(plain(a), plain(b));
}

/** The oldest replica set whose template is the deployment's, and all others. */
export function splitSets(
  d: Deployment,
  sets: readonly ReplicaSet[],
): { readonly current: ReplicaSet | undefined; readonly old: ReplicaSet[] } {
  const sorted = [...sets].sort(byAge);
  const current = sorted.find((set) => isSameTemplate(set.spec.template, d.spec.template));
  return { current, old: sorted.filter((set) => set !== current) };
}

/** Names the replica set of a template; `collisionCount` makes it differ where two templates had one hash. */
export function templateHash(template: PodTemplateSpec, collisionCount: number | undefined): string {
  const salt = collisionCount === undefined ? "" : String(collisionCount);
  return safeEncode(String(fnv1a(canonicalJson(template) + salt)));
}

/** Annotations of the current replica set: the deployment's, its revision, and for a new one the sizes it was made for. */
export function annotationsOf(
  d: Deployment,
  set: ReplicaSet | undefined,
  revision: bigint,
): Readonly<Record<string, string>> {
  const out: Record<string, string> = { ...set?.metadata.annotations };
  for (const [key, value] of Object.entries(d.metadata.annotations ?? {}))
    if (!ownAnnotations.has(key)) out[key] = value;
  const before = set?.metadata.annotations?.[revisionAnnotation];
  if (before === undefined || parseRevision(before) < revision) {
    out[revisionAnnotation] = String(revision);
    if (before !== undefined) {
      let history = [...(out[revisionHistoryAnnotation]?.split(",") ?? []), before];
      while (history.length > 1 && history.join(",").length > maxHistoryLength) history = history.slice(1);
      out[revisionHistoryAnnotation] = history.join(",");
    }
  }
  return set ? out : { ...out, ...sizeAnnotations(d) };
}

export function sizeAnnotations(d: Deployment): Readonly<Record<string, string>> {
  return {
    [desiredReplicasAnnotation]: String(replicasOf(d)),
    [maxReplicasAnnotation]: String(replicasOf(d) + fenceposts(d).maxSurge),
  };
}

/** The size a current replica set should have now. */
export function planCurrent(d: Deployment, all: readonly ReplicaSet[], currentReplicas: number): number {
  const wanted = replicasOf(d);
  if (currentReplicas >= wanted || !isRolling(d)) return wanted;
  const room = wanted + fenceposts(d).maxSurge - sum(all, replicasOf);
  return room <= 0 ? currentReplicas : currentReplicas + Math.min(room, wanted - currentReplicas);
}

/** Which old replica sets to make smaller now, without falling below the least that must be available. */
export function planOld(d: Deployment, current: ReplicaSet, old: readonly ReplicaSet[]): Scaling[] {
  const live = old.filter((set) => replicasOf(set) > 0).sort(byAge);
  const oldCount = sum(live, replicasOf);
  if (oldCount === 0) return [];
  const leastAvailable = replicasOf(d) - maxUnavailableOf(d);
  const currentUnavailable = replicasOf(current) - available(current);
  const most = oldCount + replicasOf(current) - leastAvailable - currentUnavailable;
  if (most <= 0) return [];
  const sizes = new Map(live.map((set) => [set, replicasOf(set)]));
  // First what does not work anyway: it frees room without making anything less available.
  let cleaned = 0;
  for (const set of live) {
    const unhealthy = Math.min(most - cleaned, replicasOf(set) - available(set));
    if (unhealthy <= 0) continue;
    sizes.set(set, replicasOf(set) - unhealthy);
    cleaned += unhealthy;
  }
  let spare = sum([...live, current], available) - leastAvailable;
  for (const set of live) {
    if (spare <= 0) break;
    const down = Math.min(sizes.get(set)!, spare);
    sizes.set(set, sizes.get(set)! - down);
    spare -= down;
  }
  return [...sizes]
    .filter(([set, replicas]) => replicas !== replicasOf(set))
    .map(([set, replicas]) => ({ set, replicas }));
}

/** True where a size annotation shows that the deployment was scaled since its replica sets were last written. */
export function isScaling(d: Deployment, sets: readonly ReplicaSet[]): boolean {
  return sets.some((set) => {
    const desired = set.metadata.annotations?.[desiredReplicasAnnotation];
    return replicasOf(set) > 0 && desired !== undefined && Number(desired) !== replicasOf(d);
  });
}

/** Spreads a change of size over the replica sets of an unfinished (or paused) rollout in proportion to their sizes. */
export function planProportional(
  d: Deployment,
  current: ReplicaSet | undefined,
  old: readonly ReplicaSet[],
): Scaling[] {
  const all = [...old, ...(current ? [current] : [])];
  const live = all.filter((set) => replicasOf(set) > 0);
  const newest = [...old].sort(byRevision).at(-1);
  const only = live.length === 0 ? (current ?? newest) : live.length === 1 ? live[0] : undefined;
  // Also where the size is right already: the size annotations may still speak of an earlier wish.
  if (only) return [{ set: only, replicas: replicasOf(d) }];
  const isSaturated =
    current !== undefined &&
    replicasOf(current) === replicasOf(d) &&
    current.metadata.annotations?.[desiredReplicasAnnotation] === String(replicasOf(d)) &&
    available(current) === replicasOf(d);
  if (isSaturated) return live.filter((set) => set !== current).map((set) => ({ set, replicas: 0 }));
  if (!isRolling(d)) return [];
  const allowed = replicasOf(d) > 0 ? replicasOf(d) + fenceposts(d).maxSurge : 0;
  const toAdd = allowed - sum(live, replicasOf);
  // Largest first; of equal size the newer one when growing, the older one when shrinking.
  live.sort((a, b) => replicasOf(b) - replicasOf(a) || (toAdd > 0 ? byAge(b, a) : byAge(a, b)));
  let added = 0;
  const planned = live.map((set) => {
    let share = 0;
    if (toAdd !== 0) {
      const fraction = fractionOf(d, set);
      share = toAdd > 0 ? Math.min(fraction, toAdd - added) : Math.max(fraction, toAdd - added);
    }
    added += share;
    return { set, replicas: replicasOf(set) + share };
  });
  const first = planned[0];
  if (first && toAdd !== 0) planned[0] = { set: first.set, replicas: Math.max(0, first.replicas + toAdd - added) };
  return planned;
}

function fractionOf(d: Deployment, set: ReplicaSet): number {
  if (replicasOf(d) === 0) return -replicasOf(set);
  const after = replicasOf(d) + fenceposts(d).maxSurge;
  const before = Number(set.metadata.annotations?.[maxReplicasAnnotation] ?? 0) || d.status?.replicas || 0;
  if (before === 0) return 0;
  return Math.round((replicasOf(set) * after) / before) - replicasOf(set);
}

/** Old replica sets beyond the history limit that hold nothing and have been observed: the lowest revisions go first. */
export function planCleanup(d: Deployment, old: readonly ReplicaSet[]): ReplicaSet[] {
  const limit = d.spec.revisionHistoryLimit;
  if (limit === undefined || limit === noDeadline) return [];
  const alive = old.filter((set) => !isDeleting(set)).sort(byRevision);
  return alive
    .slice(0, Math.max(0, alive.length - limit))
    .filter(
      (set) =>
        (set.status?.replicas ?? 0) === 0 &&
        replicasOf(set) === 0 &&
        (set.metadata.generation ?? 0) <= (set.status?.observedGeneration ?? 0),
    );
}

export const conditionOf = (status: DeploymentStatus | undefined, type: string): DeploymentCondition | undefined =>
  status?.conditions?.find((c) => c.type === type);
export const hasDeadline = (d: Deployment): boolean =>
  d.spec.progressDeadlineSeconds !== undefined && d.spec.progressDeadlineSeconds !== noDeadline;

export type ConditionInput = Pick<DeploymentCondition, "type" | "status" | "reason" | "message">;

/** Sets a condition; one that has the same status and reason stays as it is. */
export function withCondition(
  conditions: readonly DeploymentCondition[],
  input: ConditionInput,
  now: string,
  options: { readonly isForced?: boolean } = {},
): DeploymentCondition[] {
  const old = conditions.find((c) => c.type === input.type);
  if (old && old.status === input.status && old.reason === input.reason && !options.isForced) return [...conditions];
  const lastTransitionTime = old?.status === input.status ? (old.lastTransitionTime ?? now) : now;
  return [...conditions.filter((c) => c !== old), { ...input, lastUpdateTime: now, lastTransitionTime }];
}

/** Counts and the Available condition. */
export function planStatus(
  d: Deployment,
  current: ReplicaSet | undefined,
  old: readonly ReplicaSet[],
  now: string,
): DeploymentStatus {
  const all = [...old, ...(current ? [current] : [])];
  const availableCount = sum(all, available);
  const unavailable = Math.max(0, sum(all, replicasOf) - availableCount);
  const replicas = sum(all, (set) => set.status?.replicas ?? 0);
  const updated = current?.status?.replicas ?? 0;
  const ready = sum(all, (set) => set.status?.readyReplicas ?? 0);
  const isEnough = availableCount >= replicasOf(d) - maxUnavailableOf(d);
  const conditions = withCondition(
    d.status?.conditions ?? [],
    isEnough
      ? {
          type: "Available",
          status: "True",
          reason: "MinimumReplicasAvailable",
          message: "Deployment has minimum availability.",
        }
      : {
          type: "Available",
          status: "False",
          reason: "MinimumReplicasUnavailable",
          message: "Deployment does not have minimum availability.",
        },
    now,
  );
  const collisionCount = d.status?.collisionCount;
  return {
    observedGeneration: d.metadata.generation ?? 0,
    ...(replicas ? { replicas } : {}),
    ...(updated ? { updatedReplicas: updated } : {}),
    ...(ready ? { readyReplicas: ready } : {}),
    ...(availableCount ? { availableReplicas: availableCount } : {}),
    ...(unavailable ? { unavailableReplicas: unavailable } : {}),
    conditions,
    ...(collisionCount === undefined ? {} : { collisionCount }),
  };
}

export function isComplete(d: Deployment, status: DeploymentStatus): boolean {
  const wanted = replicasOf(d);
  return (
    (status.updatedReplicas ?? 0) === wanted &&
    (status.replicas ?? 0) === wanted &&
    (status.availableReplicas ?? 0) === wanted &&
    (status.observedGeneration ?? 0) >= (d.metadata.generation ?? 0)
  );
}

function isProgressing(before: DeploymentStatus, after: DeploymentStatus): boolean {
  const oldOnes = (s: DeploymentStatus) => (s.replicas ?? 0) - (s.updatedReplicas ?? 0);
  return (
    (after.updatedReplicas ?? 0) > (before.updatedReplicas ?? 0) ||
    oldOnes(after) < oldOnes(before) ||
    (after.readyReplicas ?? 0) > (before.readyReplicas ?? 0) ||
    (after.availableReplicas ?? 0) > (before.availableReplicas ?? 0)
  );
}

/** True when nothing has moved for longer than the deadline. */
function hasTimedOut(d: Deployment, nowMs: number): boolean {
  const condition = conditionOf(d.status, "Progressing");
  if (!condition || condition.reason === "NewReplicaSetAvailable") return false;
  if (condition.reason === "ProgressDeadlineExceeded") return true;
  return Date.parse(condition.lastUpdateTime ?? "") + d.spec.progressDeadlineSeconds! * 1000 < nowMs;
}

/** The whole status in the course of a rollout: counts, Available, Progressing, ReplicaFailure. */
export function planRolloutStatus(
  d: Deployment,
  current: ReplicaSet | undefined,
  old: readonly ReplicaSet[],
  time: { readonly nowMs: number; readonly now: string },
): DeploymentStatus {
  const status = planStatus(d, current, old, time.now);
  let conditions = status.conditions ?? [];
  const before = conditionOf(d.status, "Progressing");
  if (!hasDeadline(d)) conditions = conditions.filter((c) => c.type !== "Progressing");
  const isDone =
    (status.replicas ?? 0) === (status.updatedReplicas ?? 0) && before?.reason === "NewReplicaSetAvailable";
  if (hasDeadline(d) && !isDone) {
    const what = current ? `ReplicaSet "${nameOf(current)}"` : `Deployment "${nameOf(d)}"`;
    const type = "Progressing";
    if (isComplete(d, status)) {
      const message = `${what} has successfully progressed.`;
      conditions = withCondition(
        conditions,
        { type, status: "True", reason: "NewReplicaSetAvailable", message },
        time.now,
      );
    } else if (isProgressing(d.status ?? {}, status)) {
      const message = `${what} is progressing.`;
      const input = { type, status: "True", reason: "ReplicaSetUpdated", message };
      // Each step forward restarts the deadline, so the time is written even where the reason stays.
      conditions = withCondition(conditions, input, time.now, { isForced: true });
    } else if (hasTimedOut(d, time.nowMs)) {
      const message = `${what} has timed out progressing.`;
      const input = { type, status: "False", reason: "ProgressDeadlineExceeded", message };
      conditions = withCondition(conditions, input, time.now);
    }
  }
  // Those of the new one count for more than those of the old ones.
  const failing = [current, ...old]
    .flatMap((set) => set?.status?.conditions ?? [])
    .find((c) => c.type === "ReplicaFailure");
  conditions = conditions.filter((c) => c.type !== "ReplicaFailure");
  if (failing) {
    const { type, status: state, reason = "", message = "", lastTransitionTime = time.now } = failing;
    const copied = { type, status: state, reason, message, lastTransitionTime, lastUpdateTime: lastTransitionTime };
    conditions = [...conditions, copied];
  }
  return { ...status, conditions };
}

/** Milliseconds until an unfinished rollout passes its deadline; undefined when there is nothing to wait for. */
export function deadlineInMs(d: Deployment, status: DeploymentStatus, nowMs: number): number | undefined {
  const condition = conditionOf(d.status, "Progressing");
  if (!hasDeadline(d) || !condition || isComplete(d, status)) return undefined;
  if (condition.reason === "ProgressDeadlineExceeded") return undefined;
  const atMs = Date.parse(condition.lastUpdateTime ?? "") + d.spec.progressDeadlineSeconds! * 1000;
  return Math.max(1000, atMs - nowMs + 1000);
}
