// What a cron job asks for now: which run is due, whether it may start, and which finished jobs have been kept long enough.
// Pure. Upstream counterpart: pkg/controller/cronjob (controllerv2, utils).
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { type Cron, CronError, parseCron } from "#model/cron.ts";
import type { CronJob, Job } from "#model/gen/batch-v1.ts";
import { nameOf } from "#model/object.ts";
import { conditionOf } from "../job/plan.ts";

/** A clock that was wrong for years must not be walked through minute by minute: upstream warns from here on. */
const manyMissed = 100;

export interface Note {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
}

export interface RunPlan {
  readonly notes: readonly Note[];
  /** When the run that is due was to start; absent: none is. */
  readonly dueMs?: number;
  /** How long until it is worth another look. */
  readonly againMs?: number;
  /** Running jobs to end before the due one starts. */
  readonly replaces: boolean;
}

const nothing = (...notes: Note[]): RunPlan => ({ notes, replaces: false });
const warning = (reason: string, message: string): Note => ({ type: "Warning", reason, message });

/** `active`: how many of its jobs have not ended. */
export function planRun(cronJob: CronJob, active: number, nowMs: number): RunPlan {
  const { spec, status, metadata } = cronJob;
  if (spec.suspend === true) return nothing();
  let cron: Cron;
  try {
    cron = parseCron(spec.schedule, spec.timeZone);
  } catch (error) {
    const text = messageOf(error);
    if (error instanceof CronError) {
      return nothing(
        warning("UnparseableSchedule", `unparseable schedule: ${JSON.stringify(spec.schedule)} : ${text}`),
      );
    }
    return nothing(warning("UnknownTimeZone", `invalid timeZone: ${JSON.stringify(spec.timeZone)}: ${text}`));
  }
  const createdMs = Date.parse(metadata.creationTimestamp ?? "");
  const lastMs = status?.lastScheduleTime ? Date.parse(status.lastScheduleTime) : createdMs;
  const deadlineMs = spec.startingDeadlineSeconds === undefined ? undefined : spec.startingDeadlineSeconds * 1000;
  const earliestMs = deadlineMs === undefined ? lastMs : Math.max(lastMs, nowMs - deadlineMs);
  const nextMs = cron.next(nowMs);
  const againMs = nextMs === undefined ? {} : { againMs: nextMs - nowMs + graceMs };
  const { latestMs, missed } = latestDue(cron, earliestMs, nowMs);
  const notes: Note[] = [];
  if (missed > manyMissed) {
    const hint = "Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    notes.push(warning("TooManyMissedTimes", `too many missed start times. ${hint}`));
  }
  if (latestMs === undefined) return { notes, replaces: false, ...againMs };
  if (deadlineMs !== undefined && latestMs + deadlineMs < nowMs) {
    notes.push(warning("MissSchedule", `Missed scheduled time to start a job: ${rfc3339(latestMs)}`));
    return { notes, replaces: false, ...againMs };
  }
  if (spec.concurrencyPolicy === "Forbid" && active > 0) {
    const message = "Not starting job because prior execution is running and concurrency policy is Forbid";
    notes.push({ type: "Normal", reason: "JobAlreadyActive", message });
    return { notes, replaces: false, ...againMs };
  }
  return { notes, dueMs: latestMs, replaces: spec.concurrencyPolicy === "Replace", ...againMs };
}

/** Upstream looks a moment after the minute, so that a clock that is read twice does not say "not yet". */
const graceMs = 100;

/** The last time to fire in (`afterMs`, `nowMs`], and how many there were, up to one more than is worth counting. */
function latestDue(cron: Cron, afterMs: number, nowMs: number): { latestMs: number | undefined; missed: number } {
  let latestMs: number | undefined;
  let missed = 0;
  let at = cron.next(afterMs);
  while (at !== undefined && at <= nowMs) {
    latestMs = at;
    missed++;
    at = missed > manyMissed ? lastBefore(cron, at, nowMs) : cron.next(at);
    if (at === latestMs) break;
  }
  return { latestMs, missed };
}

/** The last firing in [`fromMs`, `nowMs`], by halving, since `next` never goes back. `fromMs` is one. */
function lastBefore(cron: Cron, fromMs: number, nowMs: number): number {
  let foundMs = fromMs;
  let endMs = nowMs;
  while (foundMs < endMs) {
    const middleMs = Math.floor((foundMs + endMs) / 2);
    const at = cron.next(middleMs);
    if (at !== undefined && at <= nowMs) foundMs = at;
    else {
      // Nothing after the middle: one of those up to it, or the one that is known.
      const before = cron.next(foundMs);
      if (before === undefined || before > middleMs) return foundMs;
      endMs = middleMs;
    }
  }
  return foundMs;
}

/** A name that tells the run: the same run made twice collides instead of running twice. */
export const jobNameOf = (cronJob: CronJob, dueMs: number): string =>
  `${nameOf(cronJob)}-${Math.floor(dueMs / 60_000)}`;

/** Finished jobs beyond the history limits, oldest first. */
export function planHistory(cronJob: CronJob, jobs: readonly Job[]): Job[] {
  const { successfulJobsHistoryLimit, failedJobsHistoryLimit } = cronJob.spec;
  const startOf = (job: Job): string => job.status?.startTime ?? "";
  const beyond = (type: string, limit: number | undefined): Job[] => {
    if (limit === undefined) return [];
    const ended = jobs
      .filter((job) => conditionOf(job, type) !== undefined)
      .sort((a, b) => startOf(a).localeCompare(startOf(b)) || nameOf(a).localeCompare(nameOf(b)));
    return ended.slice(0, Math.max(0, ended.length - limit));
  };
  return [...beyond("Complete", successfulJobsHistoryLimit), ...beyond("Failed", failedJobsHistoryLimit)];
}
