// Indexes of an indexed job: which are done, which have failed for good, and which wait for their
// next try. An index counts its own failures in annotations of its pods; the last failed pod keeps its finalizer until
// its successor carries the count on. Pure. Upstream counterpart: pkg/controller/job/indexed_job_utils.go of 1.32.
import type { Job } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { parseIndexes } from "./index-text.ts";
import { failureCounts, hasFailed, hasSucceeded, judgeFailure } from "./policies.ts";

export const trackingFinalizer = "batch.kubernetes.io/job-tracking";
export const completionIndexKey = "batch.kubernetes.io/job-completion-index";
export const failureCountKey = "batch.kubernetes.io/job-index-failure-count";
export const ignoredFailureCountKey = "batch.kubernetes.io/job-index-ignored-failure-count";

export const isIndexed = (job: Job): boolean => job.spec.completionMode === "Indexed";
export const isTracked = (pod: Pod): boolean => pod.metadata.finalizers?.includes(trackingFinalizer) === true;
/** Whether each index has failures of its own. */
export const hasIndexLimit = (job: Job): boolean => isIndexed(job) && job.spec.backoffLimitPerIndex !== undefined;

export function completionIndexOf(pod: Pod): number | undefined {
  return countIn(pod, completionIndexKey);
}

function countIn(pod: Pod, key: string): number | undefined {
  const text = pod.metadata.annotations?.[key];
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** Indexes in `known` and those of tracked pods that `are`. */
function indexesOf(job: Job, known: string | undefined, pods: readonly Pod[], are: (pod: Pod) => boolean): number[] {
  const completions = job.spec.completions ?? 0;
  const all = new Set(parseIndexes(known, completions));
  for (const pod of pods) {
    const index = completionIndexOf(pod);
    if (index !== undefined && index < completions && isTracked(pod) && are(pod)) all.add(index);
  }
  return [...all].sort((a, b) => a - b);
}

export const succeededIndexes = (job: Job, pods: readonly Pod[]): number[] =>
  indexesOf(job, job.status?.completedIndexes, pods, hasSucceeded);

/** Indexes that will not be tried again. */
export function failedIndexes(job: Job, pods: readonly Pod[]): number[] {
  const limit = job.spec.backoffLimitPerIndex;
  if (!hasIndexLimit(job) || limit === undefined) return [];
  return indexesOf(job, job.status?.failedIndexes, pods, (pod) => {
    if (!hasFailed(job, pod)) return false;
    const { action } = judgeFailure(job, pod);
    return action === "FailIndex" || (action !== "Ignore" && (countIn(pod, failureCountKey) ?? 0) >= limit);
  });
}

/** Failures of an index up to and with those that this pod knows of. */
const triesBefore = (pod: Pod): number =>
  (countIn(pod, failureCountKey) ?? 0) + (countIn(pod, ignoredFailureCountKey) ?? 0);

/** By index that is to be tried again: its last pod, which has failed and has no successor yet. */
export function lastFailures(job: Job, pods: readonly Pod[]): ReadonlyMap<number, Pod> {
  const last = new Map<number, Pod>();
  if (!hasIndexLimit(job)) return last;
  const done = new Set([...succeededIndexes(job, pods), ...failedIndexes(job, pods)]);
  for (const pod of pods) {
    const index = completionIndexOf(pod);
    if (index === undefined || index >= (job.spec.completions ?? 0) || done.has(index)) continue;
    const known = last.get(index);
    if (!known || triesBefore(pod) >= triesBefore(known)) last.set(index, pod);
  }
  for (const [index, pod] of last) if (!hasFailed(job, pod) || !isTracked(pod)) last.delete(index);
  return last;
}

/** What the successor of `failed` carries; the first pod of an index starts at zero. */
export function failureAnnotations(job: Job, failed: Pod | undefined): Record<string, string> {
  if (!hasIndexLimit(job)) return {};
  const isCounted = failed !== undefined && failureCounts(job, failed);
  const before = (key: string): number => (failed ? (countIn(failed, key) ?? 0) : 0);
  const count = before(failureCountKey) + (isCounted ? 1 : 0);
  const ignored = before(ignoredFailureCountKey) + (failed && !isCounted ? 1 : 0);
  return { [failureCountKey]: String(count), ...(ignored > 0 ? { [ignoredFailureCountKey]: String(ignored) } : {}) };
}

/** Tries that an index has behind it when this pod is its last: for the pause before the next. */
export const triesWith = (failed: Pod): number => triesBefore(failed) + 1;
