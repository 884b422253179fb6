// The decisions of the job controller: which pods count, whether the job is over, what to create and delete. Pure.
// Upstream counterpart: pkg/controller/job/{job_controller,backoff_utils}.go of 1.32.
import type { Job, JobCondition } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isDeleting, uidOf } from "#model/object.ts";
import { maxBurst } from "../../runtime/pod-control.ts";
import { rankForDeletion } from "../../runtime/pod-ranking.ts";
import { isPodActive, isPodFinished, restartsOf } from "../../runtime/pods.ts";
import {
  completionIndexOf,
  failedIndexes,
  hasIndexLimit,
  isIndexed,
  isTracked,
  lastFailures,
  succeededIndexes,
  triesWith,
} from "./indexes.ts";
import {
  failureCounts,
  hasFailed,
  hasSucceeded,
  judgeFailure,
  metSuccessRule,
  replacesOnlyFailed,
} from "./policies.ts";

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
  const newFailed = fresh.filter((pod) => !hasSucceeded(pod) && hasFailed(job, pod) && failureCounts(job, pod));
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
  for (const pod of job.spec.podFailurePolicy ? pods : []) {
    const verdict = hasFailed(job, pod) ? judgeFailure(job, pod) : undefined;
    if (verdict?.action === "FailJob") return { type, reason: "PodFailurePolicy", message: verdict.message };
  }
  const limit = job.spec.backoffLimit ?? 6;
  // Also where nothing has failed since: the limit may have been lowered.
  let isOverLimit = counts.failed > limit;
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
  return planIndexFailure(job, pods);
}

function planIndexFailure(job: Job, pods: readonly Pod[]): Outcome | undefined {
  if (!hasIndexLimit(job)) return undefined;
  const type = "FailureTarget";
  const failed = failedIndexes(job, pods).length;
  if (job.spec.maxFailedIndexes !== undefined && failed > job.spec.maxFailedIndexes) {
    const message = "Job has exceeded the specified maximal number of failed indexes";
    return { type, reason: "MaxFailedIndexesExceeded", message };
  }
  const isAllDone = failed + succeededIndexes(job, pods).length >= (job.spec.completions ?? 0);
  return failed > 0 && isAllDone ? { type, reason: "FailedIndexes", message: "Job has failed indexes" } : undefined;
}

/** Whether a rule of the success policy is met; what still runs is ended then. */
export function planEarlySuccess(job: Job, pods: readonly Pod[]): Outcome | undefined {
  if (!isIndexed(job) || !job.spec.successPolicy) return undefined;
  const message = metSuccessRule(job, succeededIndexes(job, pods));
  return message === undefined ? undefined : { type: "SuccessCriteriaMet", reason: "SuccessPolicy", message };
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
  /** How long until an index that has failed may be tried again. */
  readonly againMs?: number;
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
  // Pods on their way out keep their place where only what has ended is replaced.
  const leaving = replacesOnlyFailed(job) ? pods.filter((pod) => isDeleting(pod) && !isPodFinished(pod)) : [];
  const missing = Math.min(wanted - active.length - leaving.length, maxBurst);
  if (missing <= 0) return { remove, ...none };
  if (!isIndexed(job)) return { remove, create: missing, indexes: [] };
  const taken = new Set([...active, ...leaving].map(completionIndexOf));
  for (const index of [...succeededIndexes(job, pods), ...failedIndexes(job, pods)]) taken.add(index);
  const waiting = lastFailures(job, pods);
  const indexes: number[] = [];
  const waits: number[] = [];
  for (let i = 0; i < (completions ?? 0) && indexes.length < missing; i++) {
    if (taken.has(i)) continue;
    const failed = waiting.get(i);
    const waitMs = failed ? endedAtMs(failed, nowMs) + failurePauseMs(triesWith(failed)) - nowMs : 0;
    if (waitMs > 0) waits.push(waitMs);
    else indexes.push(i);
  }
  return { remove, create: indexes.length, indexes, ...(waits.length > 0 ? { againMs: Math.min(...waits) } : {}) };
}

/** When the last container of a pod ended; now, where nothing tells. */
export function endedAtMs(pod: Pod, nowMs: number): number {
  const ends = (pod.status?.containerStatuses ?? []).map((s) => Date.parse(s.state?.terminated?.finishedAt ?? ""));
  return Math.max(0, ...ends.filter((ms) => !Number.isNaN(ms))) || nowMs;
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
