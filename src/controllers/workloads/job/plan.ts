// The decisions of the job controller: which pods count, whether the job is over, what to create and delete. Pure.
// Upstream counterpart: pkg/controller/job/{job_controller,indexed_job_utils,backoff_utils}.go of 1.32.
import type { Job, JobCondition } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isDeleting, uidOf } from "#model/object.ts";
import { maxBurst } from "../../runtime/pod-control.ts";
import { rankForDeletion } from "../../runtime/pod-ranking.ts";
import { isPodActive, restartsOf } from "../../runtime/pods.ts";

export const trackingFinalizer = "batch.kubernetes.io/job-tracking";
export const completionIndexKey = "batch.kubernetes.io/job-completion-index";
/** Pods counted per status write: upstream's bound on the two uid lists. */
export const maxUncounted = 500;

export interface Outcome {
  readonly type: "SuccessCriteriaMet" | "FailureTarget";
  readonly reason: string;
  readonly message: string;
}

export const conditionOf = (job: Job, type: string): JobCondition | undefined =>
  job.status?.conditions?.find((c) => c.type === type && c.status === "True");
export const isFinished = (job: Job): boolean =>
  conditionOf(job, "Complete") !== undefined || conditionOf(job, "Failed") !== undefined;
export const isIndexed = (job: Job): boolean => job.spec.completionMode === "Indexed";
export const isTracked = (pod: Pod): boolean => pod.metadata.finalizers?.includes(trackingFinalizer) === true;
/** A pod being deleted counts as failed at once: nothing it still does will be waited for. */
export const hasFailed = (pod: Pod): boolean =>
  pod.status?.phase === "Failed" || (isDeleting(pod) && pod.status?.phase !== "Succeeded");
export const hasSucceeded = (pod: Pod): boolean => pod.status?.phase === "Succeeded";

export function completionIndexOf(pod: Pod): number | undefined {
  const text = pod.metadata.annotations?.[completionIndexKey];
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** "0,2-4" as sorted numbers; what is beyond `completions` (the job was made smaller) is left out. */
export function parseIndexes(text: string | undefined, completions: number): number[] {
  const out: number[] = [];
  for (const part of text ? text.split(",") : []) {
    const [first, last] = part.split("-").map(Number);
    if (first === undefined || Number.isNaN(first)) continue;
    for (let i = first; i <= Math.min(last ?? first, completions - 1); i++) out.push(i);
  }
  return out;
}

/** The reverse: runs of three and more as a range, of two as "a,b". */
export function formatIndexes(indexes: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < indexes.length; ) {
    let end = i;
    while (indexes[end + 1] === indexes[end]! + 1) end++;
    if (end - i >= 2) parts.push(`${indexes[i]}-${indexes[end]}`);
    else for (let k = i; k <= end; k++) parts.push(String(indexes[k]));
    i = end + 1;
  }
  return parts.join(",");
}

/** Indexes that have succeeded: those in the status and those of tracked pods that are done. */
export function succeededIndexes(job: Job, pods: readonly Pod[]): number[] {
  const completions = job.spec.completions ?? 0;
  const all = new Set(parseIndexes(job.status?.completedIndexes, completions));
  for (const pod of pods) {
    const index = completionIndexOf(pod);
    if (index !== undefined && index < completions && hasSucceeded(pod) && isTracked(pod)) all.add(index);
  }
  return [...all].sort((a, b) => a - b);
}

export interface Counts {
  readonly succeeded: number;
  readonly failed: number;
  /** Succeeded or failed since the status was written. */
  readonly newSucceeded: readonly Pod[];
  readonly newFailed: readonly Pod[];
}

/** What has ended so far: in the status, noted but not yet counted there, and new. */
export function countEnded(job: Job, pods: readonly Pod[]): Counts {
  const uncounted = job.status?.uncountedTerminatedPods;
  const noted = new Set([...(uncounted?.succeeded ?? []), ...(uncounted?.failed ?? [])]);
  const fresh = pods.filter((pod) => isTracked(pod) && !noted.has(uidOf(pod)));
  const newSucceeded = fresh.filter(hasSucceeded);
  const newFailed = fresh.filter((pod) => !hasSucceeded(pod) && hasFailed(pod));
  return {
    succeeded: isIndexed(job)
      ? succeededIndexes(job, pods).length
      : (job.status?.succeeded ?? 0) + (uncounted?.succeeded?.length ?? 0) + newSucceeded.length,
    failed: (job.status?.failed ?? 0) + (uncounted?.failed?.length ?? 0) + newFailed.length,
    newSucceeded,
    newFailed,
  };
}

/** Milliseconds left until activeDeadlineSeconds; undefined without a deadline or while suspended. */
export function deadlineInMs(job: Job, nowMs: number): number | undefined {
  const { activeDeadlineSeconds, suspend } = job.spec;
  const start = job.status?.startTime;
  if (activeDeadlineSeconds === undefined || start === undefined || suspend) return undefined;
  return Date.parse(start) + activeDeadlineSeconds * 1000 - nowMs;
}

/** What an earlier sync has decided; it stays so whatever changes afterwards. */
export function decidedOutcome(job: Job): Outcome | undefined {
  for (const type of ["FailureTarget", "SuccessCriteriaMet"] as const) {
    const decided = conditionOf(job, type);
    if (decided) return { type, reason: decided.reason ?? "", message: decided.message ?? "" };
  }
  return undefined;
}

/** Whether the job has failed, and why. */
export function planFailure(job: Job, pods: readonly Pod[], counts: Counts, nowMs: number): Outcome | undefined {
  const type = "FailureTarget";
  const limit = job.spec.backoffLimit ?? 6;
  const isNew = counts.failed > (job.status?.failed ?? 0);
  let isOverLimit = isNew && counts.failed > limit;
  if (!isOverLimit && job.spec.template.spec?.restartPolicy === "OnFailure") {
    const alive = pods.filter((pod) => pod.status?.phase === "Running" || pod.status?.phase === "Pending");
    const restarts = alive.reduce((total, pod) => total + restartsOf(pod), 0);
    isOverLimit = limit === 0 ? restarts > 0 : restarts >= limit;
  }
  if (isOverLimit) {
    return { type, reason: "BackoffLimitExceeded", message: "Job has reached the specified backoff limit" };
  }
  const leftMs = deadlineInMs(job, nowMs);
  if (leftMs !== undefined && leftMs <= 0) {
    return { type, reason: "DeadlineExceeded", message: "Job was active longer than specified deadline" };
  }
  return undefined;
}

/** Whether the job has succeeded. Without completions any success will do once nothing runs any more. */
export function planSuccess(job: Job, succeeded: number, activeCount: number): Outcome | undefined {
  const type = "SuccessCriteriaMet";
  const { completions } = job.spec;
  const isDone = activeCount === 0 && (completions === undefined ? succeeded > 0 : succeeded >= completions);
  if (!isDone) return undefined;
  return { type, reason: "CompletionsReached", message: "Reached expected number of succeeded pods" };
}

/** What to do about pods: delete some, create some (`indexes` for an indexed job). */
export interface PodPlan {
  readonly remove: readonly Pod[];
  readonly create: number;
  readonly indexes: readonly number[];
}

export function planPods(job: Job, pods: readonly Pod[], succeeded: number, nowMs: number): PodPlan {
  const active = pods.filter(isPodActive);
  const none = { create: 0, indexes: [] };
  if (job.spec.suspend) return { remove: active, ...none };
  const parallelism = job.spec.parallelism ?? 1;
  const { completions } = job.spec;
  let wanted: number;
  if (completions === undefined) wanted = succeeded > 0 ? active.length : parallelism;
  else wanted = Math.max(0, Math.min(completions - succeeded, parallelism));
  const duplicates = isIndexed(job) ? surplusByIndex(job, pods, active) : [];
  const rest = active.filter((pod) => !duplicates.includes(pod));
  const tooMany = Math.max(0, rest.length - wanted);
  const ranked = tooMany > 0 ? rankForDeletion(rest, () => 0, nowMs).slice(0, tooMany) : [];
  const remove = [...duplicates, ...ranked].slice(0, maxBurst);
  if (remove.length > 0) return { remove, ...none };
  const missing = Math.min(wanted - active.length, maxBurst);
  if (missing <= 0) return { remove, ...none };
  if (!isIndexed(job)) return { remove, create: missing, indexes: [] };
  const taken = new Set([...active.map(completionIndexOf), ...succeededIndexes(job, pods)]);
  const indexes: number[] = [];
  for (let i = 0; i < (completions ?? 0) && indexes.length < missing; i++) if (!taken.has(i)) indexes.push(i);
  return { remove, create: indexes.length, indexes };
}

/** Active pods without a usable index, of an index that is done, or second ones of an index. */
function surplusByIndex(job: Job, pods: readonly Pod[], active: readonly Pod[]): Pod[] {
  const seen = new Set<number>(succeededIndexes(job, pods));
  const surplus: Pod[] = [];
  for (const pod of active) {
    const index = completionIndexOf(pod);
    if (index === undefined || index >= (job.spec.completions ?? 0) || seen.has(index)) surplus.push(pod);
    else seen.add(index);
  }
  return surplus;
}

/** Pause before the next pod after failures without a success between them: 10 s doubling to 10 min. */
export function failurePauseMs(failuresInARow: number): number {
  return failuresInARow === 0 ? 0 : Math.min(600_000, 10_000 * 2 ** Math.min(failuresInARow - 1, 20));
}
