// Jobs: run pods until enough have succeeded, or too many have failed. No pod is counted twice or missed: every pod
// carries a finalizer until its uid stands in the status, and its uid stands there until the finalizer is gone.
//
//   pod ends ──► uid into status.uncountedTerminatedPods ──► finalizer off the pod ──► counted, uid out of the status
//
// A job that is decided (SuccessCriteriaMet, FailureTarget) becomes Complete or Failed once all is counted and no pod
// is terminating. Upstream counterpart: pkg/controller/job (1.32); jobs with spec.managedBy of another
// controller are left alone.
import { rfc3339 } from "#base/clock.ts";
import type { Service } from "#base/service.ts";
import type { Job, JobCondition, JobStatus } from "#model/gen/batch-v1.ts";
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf, namespaceOf, splitKey, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { jobs, pods } from "#model/resources.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../../runtime/controller.ts";
import { isEqual } from "../../runtime/equal.ts";
import { Expectations, lookAgainMs } from "../../runtime/expectations.ts";
import { claim, controllerKey, controllerReference, indexByController, onDependents } from "../../runtime/owners.ts";
import { createPodControl, podFromTemplate, slowStart } from "../../runtime/pod-control.ts";
import { isPodActive, isPodFinished, isPodReady } from "../../runtime/pods.ts";
import { matcherOf } from "../../runtime/selector.ts";
import { dropFinalizer } from "../../runtime/writes.ts";
import { formatIndexes, parseIndexes } from "./index-text.ts";
import {
  completionIndexKey,
  completionIndexOf,
  failedIndexes,
  failureAnnotations,
  hasIndexLimit,
  isIndexed,
  isTracked,
  lastFailures,
  trackingFinalizer,
} from "./indexes.ts";
import {
  type Counts,
  conditionOf,
  countEnded,
  deadlineInMs,
  decidedOutcome,
  endedAtMs,
  failurePauseMs,
  isFinished,
  maxUncounted,
  type Outcome,
  planEarlySuccess,
  planFailure,
  planPods,
  planSuccess,
} from "./plan.ts";
import { hasFailed, hasSucceeded, judgeFailure, replacesOnlyFailed } from "./policies.ts";

const name = "job-controller";
/** Upstream's: from 4 ms, doubling. */
const secondsBuckets = Array.from({ length: 15 }, (_, i) => 0.004 * 2 ** i);

/** Failures of a job's pods since the last success, for the pause before the next pod. */
interface FailureRecord {
  readonly inARow: number;
  readonly lastAtMs: number;
  /** Pods that are in these numbers, as long as they are there. */
  readonly noted: ReadonlySet<string>;
}

export function createJobController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const jobStore = deps.informers.informer(jobs);
  const podStore = deps.informers.informer(pods);
  const events = deps.events.as(name);
  const podControl = createPodControl(client, events, jobs as ResourceInfo);
  const expectations = new Expectations(clock, podStore);
  const failures = new Map<string, FailureRecord>();
  /** Finalizers taken off whose pods the store still shows with them. */
  const untracked = new Map<string, Set<string>>();
  indexByController(podStore);

  const jobKeyOf = (pod: Pod) => controllerKey(pod, jobs);
  const seen = (pod: Pod) => {
    const key = jobKeyOf(pod);
    if (key) untracked.get(key)?.delete(uidOf(pod));
  };
  podStore.addHandler({
    update(pod) {
      if (!isTracked(pod)) seen(pod);
    },
    delete: seen,
  });

  const metrics = {
    syncs: deps.metrics.counter("job_controller_job_syncs_total", "Looks at a job."),
    syncSeconds: deps.metrics.histogram(
      "job_controller_job_sync_duration_seconds",
      "How long a look at a job takes.",
      secondsBuckets,
    ),
    finished: deps.metrics.counter("job_controller_jobs_finished_total", "Jobs that have ended."),
    podsFinished: deps.metrics.counter("job_controller_job_pods_finished_total", "Pods of jobs that were counted."),
    podsCreated: deps.metrics.counter("job_controller_job_pods_creation_total", "Pods that were to be made for jobs."),
    indexesFinished: deps.metrics.counter("job_controller_job_finished_indexes_total", "Indexes that are over."),
    failuresHandled: deps.metrics.counter(
      "job_controller_pod_failures_handled_by_failure_policy_total",
      "Failed pods that a rule of their job's failure policy matched.",
    ),
    external: deps.metrics.counter(
      "job_controller_jobs_by_external_controller_total",
      "Looks at jobs that another controller manages.",
    ),
  };
  const modeOf = ({ spec }: Job): string => spec.completionMode ?? "NonIndexed";
  const say = (job: Job, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: jobs as ResourceInfo, object: job, type, reason, message });

  async function createPods(
    key: string,
    job: Job,
    count: number,
    indexes: readonly number[],
    replaced: ReadonlyMap<number, Pod>,
    reason: string,
  ): Promise<void> {
    const { error, done } = await slowStart(count, async (i) => {
      const index = indexes[i];
      const pod = podOf(job, index, index === undefined ? undefined : replaced.get(index));
      expectations.created(key, await podControl.create(pod, job));
    });
    if (done > 0) metrics.podsCreated.add(done, { reason, status: "succeeded" });
    if (error !== undefined) metrics.podsCreated.add(1, { reason, status: "failed" });
    if (error !== undefined && !isNamespaceTerminating(error)) throw error;
  }

  async function removeFinalizer(key: string, pod: Pod): Promise<void> {
    const gone = untracked.get(key) ?? new Set();
    untracked.set(key, gone);
    gone.add(uidOf(pod));
    try {
      // A pod that is gone stays noted until the store has seen it go, or it would be counted again and again.
      await dropFinalizer(client, pods, pod, trackingFinalizer);
    } catch (error) {
      gone.delete(uidOf(pod));
      throw error;
    }
  }

  /** Each pod counts once, however often a sync has to be made again before the status shows it. */
  function noteEnds(key: string, owned: readonly Pod[], { newFailed, newSucceeded }: Counts): FailureRecord {
    const old = failures.get(key) ?? { inARow: 0, lastAtMs: 0, noted: new Set() };
    const isNew = (pod: Pod) => !old.noted.has(uidOf(pod));
    const endOf = (pod: Pod): number => endedAtMs(pod, clock.now());
    const succeeded = newSucceeded.filter(isNew);
    const lastSuccessMs = Math.max(0, ...succeeded.map(endOf));
    const fresh = newFailed
      .filter(isNew)
      .map(endOf)
      .filter((ms) => ms > lastSuccessMs);
    const record = {
      inARow: (succeeded.length > 0 ? 0 : old.inARow) + fresh.length,
      lastAtMs: Math.max(old.lastAtMs, ...fresh),
      noted: new Set([...newFailed, ...newSucceeded, ...owned.filter((pod) => !isNew(pod))].map(uidOf)),
    };
    failures.set(key, record);
    return record;
  }

  /** The last part of a sync: counts what has ended, in the order that survives a crash at any point. */
  async function track(
    key: string,
    job: Job,
    owned: readonly Pod[],
    status: JobStatus,
    outcome: Outcome | undefined,
    terminatingCount: number,
  ): Promise<void> {
    const removed = untracked.get(key) ?? new Set<string>();
    const held = new Set(owned.filter((pod) => isTracked(pod) && !removed.has(uidOf(pod))).map(uidOf));
    let next = countUnheld(job, status, held);
    const doneWith: Pod[] = [];
    const succeeded = new Set(next.uncountedTerminatedPods?.succeeded ?? []);
    const failed = new Set(next.uncountedTerminatedPods?.failed ?? []);
    const indexes = new Set(parseIndexes(next.completedIndexes, job.spec.completions ?? 0));
    // The last failed pod of an index keeps the count until its successor has it.
    const kept = outcome || isDeleting(job) ? new Map<number, Pod>() : lastFailures(job, owned);
    for (const pod of owned) {
      const uid = uidOf(pod);
      if (!held.has(uid)) continue;
      const isOver = hasSucceeded(pod) || hasFailed(job, pod) || (outcome !== undefined && isDeleting(pod));
      if (!isOver && !isDeleting(job)) continue;
      if (kept.get(completionIndexOf(pod) ?? -1) === pod) continue;
      doneWith.push(pod);
      if (hasSucceeded(pod) && !failed.has(uid)) {
        const index = completionIndexOf(pod);
        if (!isIndexed(job)) succeeded.add(uid);
        else if (index !== undefined && index < (job.spec.completions ?? 0)) indexes.add(index);
      } else if (isOver) {
        const { action, message } = judgeFailure(job, pod);
        if (message !== "" && !failed.has(uid)) metrics.failuresHandled.add(1, { action });
        if (action !== "Ignore") failed.add(uid);
      }
      if (succeeded.size + failed.size >= maxUncounted) break;
    }
    const now = rfc3339(clock.now());
    next = withUncounted(next, [...succeeded], [...failed]);
    if (isIndexed(job)) {
      const sorted = [...indexes].sort((a, b) => a - b);
      const { completedIndexes: _, succeeded: __, ...rest } = next;
      next = {
        ...rest,
        ...(sorted.length > 0 ? { completedIndexes: formatIndexes(sorted), succeeded: sorted.length } : {}),
        ...(hasIndexLimit(job) ? { failedIndexes: formatIndexes(failedIndexes(job, owned)) } : {}),
      };
    }
    if (outcome && !conditionOf({ ...job, status: next }, outcome.type)) {
      next = { ...next, conditions: [...(next.conditions ?? []), makeCondition(outcome.type, outcome, now)] };
    }
    let current = job;
    const write = async (wanted: JobStatus): Promise<void> => {
      if (isEqual(wanted, current.status)) return;
      const before = current.status;
      current = await client.updateStatus(jobs, { ...current, status: wanted });
      for (const result of ["succeeded", "failed"] as const) {
        const more = (wanted[result] ?? 0) - (before?.[result] ?? 0);
        if (more > 0) metrics.podsFinished.add(more, { completion_mode: modeOf(job), result });
      }
      if (!isIndexed(job)) return;
      const completions = job.spec.completions ?? 0;
      for (const [field, name] of [
        ["completedIndexes", "succeeded"],
        ["failedIndexes", "failed"],
      ] as const) {
        const more =
          parseIndexes(wanted[field], completions).length - parseIndexes(before?.[field], completions).length;
        const backoffLimit = hasIndexLimit(job) ? "perIndex" : "global";
        if (more > 0) metrics.indexesFinished.add(more, { status: name, backoffLimit });
      }
    };
    if (doneWith.length > 0) {
      await write(next);
      const results = await Promise.allSettled(doneWith.map((pod) => removeFinalizer(key, pod)));
      doneWith.forEach((pod, i) => {
        if (results[i]!.status === "fulfilled") held.delete(uidOf(pod));
      });
      next = countUnheld(job, next, held);
      const broken = results.find((r) => r.status === "rejected");
      if (broken) {
        await write(next);
        throw broken.reason;
      }
    }
    const isCounted = (next.uncountedTerminatedPods?.succeeded?.length ?? 0) === 0 && held.size === 0;
    const isAllCounted = isCounted && (next.uncountedTerminatedPods?.failed?.length ?? 0) === 0;
    if (outcome && isAllCounted && terminatingCount === 0) {
      const type = outcome.type === "SuccessCriteriaMet" ? "Complete" : "Failed";
      next = {
        ...next,
        conditions: [...(next.conditions ?? []), makeCondition(type, outcome, now)],
        ...(type === "Complete" ? { completionTime: now } : {}),
      };
      await write(next);
      sayFinished(job, next, outcome);
      return;
    }
    await write(next);
  }

  async function sync(key: string, again: (ms: number) => void, done: { action: string }): Promise<void> {
    const job = jobStore.get(key);
    if (!job) {
      expectations.forget(key);
      failures.delete(key);
      untracked.delete(key);
      await freeOrphans(key);
      return;
    }
    if (job.spec.managedBy !== undefined && job.spec.managedBy !== "kubernetes.io/job-controller") {
      metrics.external.add(1, { controller_name: job.spec.managedBy });
      return;
    }
    const isCertain = expectations.satisfied(key);
    const owned = await claim(client, {
      owner: job,
      ownerResource: jobs,
      dependents: podStore,
      dependentResource: pods,
      matches: matcherOf(job.spec.selector),
      finalizer: trackingFinalizer,
    });
    if (isFinished(job)) {
      for (const pod of owned) if (isTracked(pod)) await removeFinalizer(key, pod);
      return;
    }
    const nowMs = clock.now();
    const now = rfc3339(nowMs);
    const removed = untracked.get(key) ?? new Set<string>();
    const countable = owned.filter((pod) => !removed.has(uidOf(pod)));
    const counts = countEnded(job, countable);
    const pause = noteEnds(key, owned, counts);
    let active = owned.filter(isPodActive);
    let terminating = owned.filter((pod) => isDeleting(pod) && !isPodFinished(pod)).length;
    let status: JobStatus = { ...job.status, uncountedTerminatedPods: job.status?.uncountedTerminatedPods ?? {} };
    if (status.startTime === undefined && !job.spec.suspend) status = { ...status, startTime: now };
    const leftMs = deadlineInMs({ ...job, status }, nowMs);
    if (leftMs !== undefined && leftMs > 0) again(leftMs);

    let outcome = decidedOutcome(job) ?? planFailure(job, owned, counts, nowMs) ?? planEarlySuccess(job, countable);
    let failure: unknown;
    const endPods = async (doomed: readonly Pod[]) => {
      try {
        await podControl.deleteAll(doomed, job, (pod) => expectations.deleted(key, pod));
        active = active.filter((pod) => !doomed.includes(pod));
        terminating += doomed.length;
      } catch (error) {
        failure = error;
      }
    };
    if (outcome) await endPods(active);
    else {
      let isManaged = false;
      if (isCertain && !isDeleting(job)) {
        isManaged = true;
        const plan = planPods(job, countable, counts.succeeded, nowMs);
        // Where each index counts its own failures, each pauses by itself.
        const waitMs = hasIndexLimit(job) ? 0 : pause.lastAtMs + failurePauseMs(pause.inARow) - nowMs;
        if (plan.againMs !== undefined) again(plan.againMs);
        if (plan.remove.length > 0) done.action = "pods_deleted";
        else done.action = plan.create > 0 ? "pods_created" : "tracking";
        if (plan.remove.length > 0) await endPods(plan.remove);
        else if (plan.create > 0 && waitMs > 0) again(waitMs);
        else if (plan.create > 0) {
          try {
            const reason = whyCreate(job, counts.failed, terminating);
            await createPods(key, job, plan.create, plan.indexes, lastFailures(job, countable), reason);
          } catch (error) {
            failure = error;
          }
        }
        // What was just created is not in `active` yet, but certainly the job is not over.
        if (plan.create === 0) outcome = planSuccess(job, counts.succeeded, active.length);
      }
      if (isManaged && !outcome) status = noteSuspension(job, status, now);
    }
    // What came and went while a watch was broken brings no event.
    if (!expectations.satisfied(key)) again(lookAgainMs);
    const ready = active.filter(isPodReady).length;
    const { active: _, ...rest } = status;
    status = { ...rest, ...(active.length > 0 ? { active: active.length } : {}), ready, terminating };
    await track(key, job, owned, status, outcome, terminating);
    if (failure) throw failure;
  }

  function sayFinished(job: Job, status: JobStatus, outcome: Outcome): void {
    const isGood = outcome.type === "SuccessCriteriaMet";
    if (!isGood) say(job, "Warning", outcome.reason, outcome.message);
    else {
      if (job.spec.completions !== undefined && (status.succeeded ?? 0) > job.spec.completions) {
        const message = "Too many succeeded pods running after completion count reached";
        say(job, "Warning", "TooManySucceededPods", message);
      }
      say(job, "Normal", "Completed", "Job completed");
    }
    metrics.finished.add(1, {
      completion_mode: modeOf(job),
      result: isGood ? "succeeded" : "failed",
      reason: outcome.reason,
    });
  }

  /** `sync`, with what it did and how long that took. */
  async function measuredSync(key: string, again: (ms: number) => void): Promise<void> {
    const job = jobStore.get(key);
    const startedMs = clock.monotonicMs();
    const done = { action: "reconciling" };
    let result = "error";
    try {
      await sync(key, again, done);
      result = "success";
    } finally {
      if (job) {
        const labels = { completion_mode: modeOf(job), result, action: done.action };
        metrics.syncs.add(1, labels);
        metrics.syncSeconds.observe((clock.monotonicMs() - startedMs) / 1000, labels);
      }
    }
  }

  /** The Suspended condition, and the events when it changes. */
  function noteSuspension(job: Job, status: JobStatus, now: string): JobStatus {
    const old = status.conditions?.find((c) => c.type === "Suspended");
    const isSuspended = old?.status === "True";
    if (job.spec.suspend === true && !isSuspended) {
      const condition = makeCondition("Suspended", { reason: "JobSuspended", message: "Job suspended" }, now);
      say(job, "Normal", "Suspended", "Job suspended");
      return { ...status, conditions: [...(status.conditions ?? []).filter((c) => c !== old), condition] };
    }
    if (job.spec.suspend !== true && isSuspended) {
      const condition = makeCondition("Suspended", { reason: "JobResumed", message: "Job resumed" }, now);
      say(job, "Normal", "Resumed", "Job resumed");
      const others = (status.conditions ?? []).filter((c) => c !== old);
      return { ...status, startTime: now, conditions: [...others, { ...condition, status: "False" }] };
    }
    return status;
  }

  /** Pods of a job that is gone must not be kept by a finalizer that nobody will take off. */
  async function freeOrphans(key: string): Promise<void> {
    for (const pod of podStore.list(splitKey(key).namespace)) {
      if (isTracked(pod) && jobKeyOf(pod) === key) await removeFinalizer(key, pod);
    }
    untracked.delete(key);
  }

  return createController(
    {
      name,
      workers: 5,
      triggers: [
        on(jobStore),
        onDependents(
          podStore,
          jobStore,
          (job, pod) => (isTracked(pod) || !isDeleting(pod)) && matcherOf(job.spec.selector)(pod.metadata.labels ?? {}),
        ),
      ],
      sync: measuredSync,
    },
    deps,
  );
}

/** Counts noted pods whose finalizer is gone. `held`: uids that still carry it. */
function countUnheld(job: Job, status: JobStatus, held: ReadonlySet<string>): JobStatus {
  const succeeded = status.uncountedTerminatedPods?.succeeded ?? [];
  const failed = status.uncountedTerminatedPods?.failed ?? [];
  const plus = (count: number | undefined, uids: readonly string[]) =>
    (count ?? 0) + uids.filter((uid) => !held.has(uid)).length;
  const counted = {
    succeeded: isIndexed(job) ? (status.succeeded ?? 0) : plus(status.succeeded, succeeded),
    failed: plus(status.failed, failed),
  };
  const { succeeded: _, failed: __, ...rest } = status;
  return withUncounted(
    {
      ...rest,
      ...(counted.succeeded > 0 ? { succeeded: counted.succeeded } : {}),
      ...(counted.failed > 0 ? { failed: counted.failed } : {}),
    },
    succeeded.filter((uid) => held.has(uid)),
    failed.filter((uid) => held.has(uid)),
  );
}

function withUncounted(status: JobStatus, succeeded: readonly string[], failed: readonly string[]): JobStatus {
  return {
    ...status,
    uncountedTerminatedPods: {
      ...(succeeded.length > 0 ? { succeeded: [...succeeded] } : {}),
      ...(failed.length > 0 ? { failed: [...failed] } : {}),
    },
  };
}

function makeCondition(
  type: string,
  why: { readonly reason: string; readonly message: string },
  now: string,
): JobCondition {
  return {
    type,
    status: "True",
    lastProbeTime: now,
    lastTransitionTime: now,
    reason: why.reason,
    message: why.message,
  };
}

/** As upstream's metric tells first pods from those that follow others. */
function whyCreate(job: Job, failed: number, terminating: number): string {
  if (replacesOnlyFailed(job)) return failed > 0 ? "recreate_failed" : "new";
  return failed + terminating > 0 ? "recreate_terminating_or_failed" : "new";
}

/** What is left of a generated name without its random ending. */
const longestPrefix = 58;

/** A pod of the job; with an index it gets it as annotation, label, host name and environment variable. */
function podOf(job: Job, index: number | undefined, replaced: Pod | undefined): Pod {
  const indexed = index !== undefined;
  // The API server cuts long prefixes: the index must not be what is lost.
  const suffix = indexed ? `-${index}-` : "-";
  const pod = podFromTemplate(job.spec.template, {
    namespace: namespaceOf(job),
    generateName: nameOf(job).slice(0, longestPrefix - suffix.length) + suffix,
    reference: controllerReference(jobs as ResourceInfo, job),
  });
  pod.metadata.finalizers = [...(pod.metadata.finalizers ?? []), trackingFinalizer];
  if (!indexed) return pod;
  pod.metadata.annotations = {
    ...pod.metadata.annotations,
    [completionIndexKey]: String(index),
    ...failureAnnotations(job, replaced),
  };
  pod.metadata.labels = { ...pod.metadata.labels, [completionIndexKey]: String(index) };
  const variable = {
    name: "JOB_COMPLETION_INDEX",
    valueFrom: { fieldRef: { fieldPath: `metadata.labels['${completionIndexKey}']` } },
  };
  const withIndex = (container: Container): Container =>
    container.env?.some((e) => e.name === variable.name)
      ? container
      : { ...container, env: [...(container.env ?? []), variable] };
  pod.spec = {
    ...pod.spec,
    hostname: `${nameOf(job)}-${index}`,
    containers: pod.spec.containers.map(withIndex),
    ...(pod.spec.initContainers ? { initContainers: pod.spec.initContainers.map(withIndex) } : {}),
  };
  return pod;
}
