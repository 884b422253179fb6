// Cron jobs: at each time of the schedule one job, named after the minute, so that a run is never made twice whatever
// happens between making it and writing that down. A run that was missed while nobody looked is made up for once.
// Upstream counterpart: pkg/controller/cronjob (controllerv2).
import { rfc3339 } from "#base/clock.ts";
import type { Service } from "#base/service.ts";
import type { CronJob, CronJobStatus, Job } from "#model/gen/batch-v1.ts";
import type { ObjectReference } from "#model/gen/core-v1.ts";
import { controllerOf, isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { cronJobs, jobs } from "#model/resources.ts";
import { isAlreadyExists, isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../../runtime/controller.ts";
import { isEqual } from "../../runtime/equal.ts";
import { controlledBy, controllerKey, controllerReference, indexByController } from "../../runtime/owners.ts";
import { deleteIfThere } from "../../runtime/writes.ts";
import { conditionOf, isFinished } from "../job/plan.ts";
import { jobNameOf, planHistory, planRun } from "./plan.ts";

const name = "cronjob-controller";
const scheduledAnnotation = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/** A timer may not be set for years: clocks jump. */
const longestWaitMs = 3_600_000;
/** Upstream's: from one second, doubling. */
const skewBuckets = Array.from({ length: 10 }, (_, i) => 2 ** i);

export function createCronJobController(deps: ControllerDeps): Service {
  const { client, clock } = deps;
  const cronJobStore = deps.informers.informer(cronJobs);
  const jobStore = deps.informers.informer(jobs);
  const events = deps.events.as(name);
  indexByController(jobStore);

  const skew = deps.metrics.histogram(
    "cronjob_controller_job_creation_skew_duration_seconds",
    "From when a run was due to when its job was made.",
    skewBuckets,
  );
  const say = (cronJob: CronJob, type: "Normal" | "Warning", reason: string, message: string) =>
    events.record({ resource: cronJobs as ResourceInfo, object: cronJob, type, reason, message });

  async function remove(cronJob: CronJob, job: Job): Promise<void> {
    try {
      if (await deleteIfThere(client, jobs, job, { propagationPolicy: "Background" })) {
        say(cronJob, "Normal", "SuccessfulDelete", `Deleted job ${nameOf(job)}`);
      }
    } catch (error) {
      say(cronJob, "Warning", "FailedDelete", `Deleted job: ${String(error)}`);
      throw error;
    }
  }

  /** The run's job: made now, or by an earlier attempt; undefined when another's job has the name or nothing may be made. */
  async function createRun(cronJob: CronJob, dueMs: number): Promise<Job | undefined> {
    const job = jobOf(cronJob, dueMs);
    try {
      const made = await client.create(jobs, job);
      const madeMs = Date.parse(made.metadata.creationTimestamp ?? "");
      skew.observe(Math.max(0, madeMs - dueMs) / 1000);
      say(cronJob, "Normal", "SuccessfulCreate", `Created job ${nameOf(made)}`);
      return made;
    } catch (error) {
      if (isNamespaceTerminating(error)) return undefined;
      if (isAlreadyExists(error)) {
        const found = await client.get(jobs, nameOf(job), namespaceOf(job));
        return controllerOf(found)?.uid === uidOf(cronJob) ? found : undefined;
      }
      say(cronJob, "Warning", "FailedCreate", `Error creating job: ${String(error)}`);
      throw error;
    }
  }

  /** As the API says where the store shows none: it may be behind, and a run must not be forgotten for that. */
  async function runOf(reference: ObjectReference, owned: readonly Job[]): Promise<Job | undefined> {
    const known = owned.find((job) => uidOf(job) === reference.uid);
    if (known) return known;
    try {
      const found = await client.get(jobs, reference.name ?? "", reference.namespace ?? "");
      return uidOf(found) === reference.uid ? found : undefined;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** The status after looking at the jobs: what has ended is no longer active. */
  async function follow(cronJob: CronJob, owned: readonly Job[]): Promise<CronJobStatus> {
    const status: CronJobStatus = { ...cronJob.status };
    const active: ObjectReference[] = [];
    for (const reference of status.active ?? []) {
      const job = await runOf(reference, owned);
      if (!job) say(cronJob, "Normal", "MissingJob", `Active job went missing: ${reference.name}`);
      else if (!isFinished(job)) active.push(reference);
      else {
        const kind = conditionOf(job, "Complete") ? "Complete" : "Failed";
        say(cronJob, "Normal", "SawCompletedJob", `Saw completed job: ${nameOf(job)}, condition: ${kind}`);
      }
    }
    for (const job of owned) {
      const isListed = active.some((reference) => reference.uid === uidOf(job));
      if (!isFinished(job) && !isListed && !isDeleting(job)) {
        // A run whose making was not written down (a cut just then) counts as what it is; one that somebody else made,
        // by hand perhaps, is not ours to wait for or to end.
        if (isRun(job)) active.push(referenceTo(job));
        else {
          const message = `Saw a job that the controller did not create or forgot: ${nameOf(job)}`;
          say(cronJob, "Warning", "UnexpectedJob", message);
        }
      }
      const ended = job.status?.completionTime;
      if (conditionOf(job, "Complete") && ended && ended > (status.lastSuccessfulTime ?? "")) {
        status.lastSuccessfulTime = ended;
      }
    }
    if (active.length > 0) status.active = active;
    else delete status.active;
    return status;
  }

  return createController(
    {
      name,
      workers: 5,
      triggers: [on(cronJobStore), on(jobStore, (job) => [controllerKey(job, cronJobs)])],
      async sync(key, again) {
        const cronJob = cronJobStore.get(key);
        if (!cronJob || isDeleting(cronJob)) return;
        const owned = controlledBy(jobStore, uidOf(cronJob));
        const status = await follow(cronJob, owned);
        for (const old of planHistory(cronJob, owned)) await remove(cronJob, old);

        const nowMs = clock.now();
        const plan = planRun(cronJob, status.active?.length ?? 0, nowMs);
        for (const note of plan.notes) say(cronJob, note.type, note.reason, note.message);
        if (plan.dueMs !== undefined) {
          if (plan.replaces) {
            for (const reference of status.active ?? []) {
              const job = await runOf(reference, owned);
              if (job) await remove(cronJob, job);
            }
            delete status.active;
          }
          const job = await createRun(cronJob, plan.dueMs);
          if (job && !isFinished(job) && !status.active?.some((reference) => reference.uid === uidOf(job))) {
            status.active = [...(status.active ?? []), referenceTo(job)];
          }
          if (job) status.lastScheduleTime = rfc3339(plan.dueMs);
        }
        if (!isEqual(status, cronJob.status ?? {})) await client.updateStatus(cronJobs, { ...cronJob, status });
        if (plan.againMs !== undefined) again(Math.min(plan.againMs, longestWaitMs));
      },
    },
    deps,
  );
}

function jobOf(cronJob: CronJob, dueMs: number): Job {
  const { metadata, spec } = cronJob.spec.jobTemplate;
  return {
    apiVersion: groupVersion(jobs as ResourceInfo),
    kind: jobs.kind,
    metadata: {
      name: jobNameOf(cronJob, dueMs),
      namespace: namespaceOf(cronJob),
      ...(metadata?.labels ? { labels: { ...metadata.labels } } : {}),
      annotations: { ...metadata?.annotations, [scheduledAnnotation]: rfc3339(dueMs) },
      ownerReferences: [controllerReference(cronJobs as ResourceInfo, cronJob)],
    },
    spec: spec ?? { template: {} },
  } as Job;
}

/** Made for a time of the schedule. */
const isRun = (job: Job): boolean => job.metadata.annotations?.[scheduledAnnotation] !== undefined;

function referenceTo(job: Job): ObjectReference {
  return {
    apiVersion: groupVersion(jobs as ResourceInfo),
    kind: jobs.kind,
    name: nameOf(job),
    namespace: namespaceOf(job),
    uid: uidOf(job),
    resourceVersion: job.metadata.resourceVersion ?? "",
  };
}
