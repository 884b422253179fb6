// What a job's policies say of its pods: which failures end the job or an index, which do not count, and when enough
// indexes have succeeded. Pure. Upstream counterpart: pkg/controller/job/{pod_failure_policy,success_policy}.go of 1.32.
import type { Job, PodFailurePolicyRule } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf } from "#model/object.ts";
import { parseIndexes } from "./index-text.ts";

/** Whether a pod is replaced only once it has ended, or as soon as it is being deleted. */
export const replacesOnlyFailed = ({ spec }: Job): boolean =>
  spec.podReplacementPolicy === "Failed" || spec.podFailurePolicy !== undefined;

export const hasSucceeded = (pod: Pod): boolean => pod.status?.phase === "Succeeded";
/** A pod being deleted counts as failed at once, unless the job waits for how it ends. */
export const hasFailed = (job: Job, pod: Pod): boolean =>
  pod.status?.phase === "Failed" || (!replacesOnlyFailed(job) && isDeleting(pod) && !hasSucceeded(pod));

export interface Verdict {
  readonly action: "FailJob" | "FailIndex" | "Ignore" | "Count";
  /** Of the rule that matched; empty when none did. */
  readonly message: string;
}

const unmatched: Verdict = { action: "Count", message: "" };

/** What the failure policy says of a pod that has failed: by the first rule that matches. */
export function judgeFailure(job: Job, pod: Pod): Verdict {
  for (const [i, rule] of (job.spec.podFailurePolicy?.rules ?? []).entries()) {
    const why = matchExitCodes(rule, pod) ?? matchConditions(rule, pod);
    if (why === undefined) continue;
    return { action: rule.action as Verdict["action"], message: `${why} matching ${rule.action} rule at index ${i}` };
  }
  return unmatched;
}

function matchExitCodes({ onExitCodes }: PodFailurePolicyRule, pod: Pod): string | undefined {
  if (!onExitCodes) return undefined;
  const statuses = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
  for (const { name, state } of statuses) {
    const code = state?.terminated?.exitCode ?? 0;
    if (code === 0 || (onExitCodes.containerName !== undefined && onExitCodes.containerName !== name)) continue;
    if (onExitCodes.values.includes(code) === (onExitCodes.operator === "In")) {
      return `Container ${name} for pod ${namespaceOf(pod)}/${nameOf(pod)} failed with exit code ${code}`;
    }
  }
  return undefined;
}

function matchConditions({ onPodConditions = [] }: PodFailurePolicyRule, pod: Pod): string | undefined {
  const found = pod.status?.conditions?.find(({ type, status }) =>
    onPodConditions.some((pattern) => pattern.type === type && pattern.status === status),
  );
  return found && `Pod ${namespaceOf(pod)}/${nameOf(pod)} has condition ${found.type}`;
}

/** Whether a failed pod is one of status.failed. */
export const failureCounts = (job: Job, pod: Pod): boolean => judgeFailure(job, pod).action !== "Ignore";

/** The first rule of the success policy that is met, in words. */
export function metSuccessRule(job: Job, succeeded: readonly number[]): string | undefined {
  const all = new Set(succeeded);
  for (const [i, rule] of (job.spec.successPolicy?.rules ?? []).entries()) {
    const wanted = rule.succeededIndexes;
    const relevant = wanted === undefined ? [...all] : parseIndexes(wanted, job.spec.completions ?? 0);
    const reached = relevant.filter((index) => all.has(index)).length;
    const needed = rule.succeededCount ?? relevant.length;
    if (needed > 0 && reached >= needed) return `Matched rules at index ${i}`;
  }
  return undefined;
}
