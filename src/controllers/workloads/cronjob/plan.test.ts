import { describe, expect, test } from "vitest";
import type { CronJob, Job } from "#model/gen/batch-v1.ts";
import { jobNameOf, planHistory, planRun } from "./plan.ts";

const nowMs = Date.parse("2026-01-01T10:00:30Z");
function cronJob(spec: Partial<CronJob["spec"]> = {}, lastScheduleTime?: string): CronJob {
  return {
    metadata: { name: "tick", namespace: "ns", creationTimestamp: "2026-01-01T09:58:30Z" },
    spec: { schedule: "* * * * *", timeZone: "UTC", concurrencyPolicy: "Allow", jobTemplate: {}, ...spec },
    status: lastScheduleTime ? { lastScheduleTime } : {},
  } as CronJob;
}
const due = (c: CronJob, active = 0): string | undefined => {
  const { dueMs } = planRun(c, active, nowMs);
  return dueMs === undefined ? undefined : new Date(dueMs).toISOString().slice(11, 16);
};
const reasons = (c: CronJob, active = 0) => planRun(c, active, nowMs).notes.map((note) => note.reason);

test("the last of the missed runs is made up for, once", () => {
  expect(due(cronJob())).toBe("10:00");
  expect(due(cronJob({}, "2026-01-01T10:00:00Z"))).toBeUndefined();
  expect(planRun(cronJob(), 0, nowMs).againMs).toBe(30_100);
});
test("a suspended one starts nothing and is not looked at again", () => {
  expect(planRun(cronJob({ suspend: true }), 0, nowMs)).toEqual({ notes: [], replaces: false });
});
test("what is older than the starting deadline is not made up for", () => {
  expect(due(cronJob({ schedule: "59 9 * * *", startingDeadlineSeconds: 10 }))).toBeUndefined();
  expect(due(cronJob({ schedule: "59 9 * * *", startingDeadlineSeconds: 200 }))).toBe("09:59");
});
describe("while one is running", () => {
  test.each([
    ["Allow", "10:00", false, []],
    ["Forbid", undefined, false, ["JobAlreadyActive"]],
    ["Replace", "10:00", true, []],
  ])("%s", (concurrencyPolicy, expected, replaces, said) => {
    const c = cronJob({ concurrencyPolicy });
    expect(due(c, 1)).toBe(expected);
    expect(planRun(c, 1, nowMs).replaces).toBe(replaces);
    expect(reasons(c, 1)).toEqual(said);
  });
});
test("years of missed minutes are a warning and one run, found without walking through them", () => {
  const c = cronJob({}, "1970-01-01T00:00:00Z");
  expect(due(c)).toBe("10:00");
  expect(reasons(c)).toEqual(["TooManyMissedTimes"]);
});
test("a schedule or zone that cannot be read says so", () => {
  expect(reasons(cronJob({ schedule: "x" }))).toEqual(["UnparseableSchedule"]);
  expect(reasons(cronJob({ timeZone: "Europe/Atlantis" }))).toEqual(["UnknownTimeZone"]);
});
test("the minute names the job", () => {
  expect(jobNameOf(cronJob(), Date.parse("2026-01-01T10:00:00Z"))).toBe("tick-29454360");
});
test("of the finished the newest are kept, each kind by its own limit", () => {
  const job = (name: string, startTime: string, type?: string) =>
    ({
      metadata: { name },
      status: { startTime, conditions: type ? [{ type, status: "True" }] : [] },
    }) as unknown as Job;
  const jobs = [
    job("c2", "2026-01-01T02:00:00Z", "Complete"),
    job("c1", "2026-01-01T01:00:00Z", "Complete"),
    job("c3", "2026-01-01T03:00:00Z", "Complete"),
    job("f1", "2026-01-01T01:00:00Z", "Failed"),
    job("running", "2026-01-01T00:00:00Z"),
  ];
  const c = cronJob({ successfulJobsHistoryLimit: 1, failedJobsHistoryLimit: 0 });
  expect(planHistory(c, jobs).map((j) => j.metadata.name)).toEqual(["c1", "c2", "f1"]);
});
