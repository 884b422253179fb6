// Cron jobs: a run a minute, history kept short, one at a time, replaced, suspended, and none twice through faults.
import { afterEach, expect, test } from "vitest";
import type { CronJob, CronJobSpec } from "#model/gen/batch-v1.ts";
import { cronJobs, events, jobs } from "#model/resources.ts";
import { InMemoryCluster, type InMemoryClusterOptions } from "#test/harness/in-memory-cluster.ts";
import { batchJob } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});
async function start(options: InMemoryClusterOptions, spec: Partial<CronJobSpec> = {}): Promise<InMemoryCluster> {
  cluster = await InMemoryCluster.start(options);
  const cronJob = {
    metadata: { name: "tick", namespace: "default" },
    spec: { schedule: "* * * * *", jobTemplate: { spec: batchJob().spec }, ...spec },
  } as CronJob;
  await cluster.client.create(cronJobs, cronJob);
  return cluster;
}
const get = (c: InMemoryCluster) => c.find(cronJobs, "tick", "default");
const jobNames = async (c: InMemoryCluster) => (await c.list(jobs, "default")).map((job) => job.metadata.name).sort();
const saying = async (c: InMemoryCluster, reason: string) =>
  (await c.list(events, "default")).filter((e) => e.reason === reason && e.involvedObject.kind === "CronJob");

test("one job a minute, the last three kept, the status follows", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 500 }) });
  const seen = new Set<string>();
  c.informers.informer(jobs).addHandler({ add: (job) => void seen.add(job.metadata.name ?? "") });
  await c.advance(6 * 60_000 + 5000);
  expect(seen.size).toBe(6);
  expect(await jobNames(c)).toEqual([...seen].sort().slice(-3));
  const status = (await get(c))?.status;
  expect(status?.active).toBeUndefined();
  expect(status?.lastScheduleTime).toMatch(/:00Z$/);
  expect(Date.parse(status?.lastSuccessfulTime ?? "")).toBeGreaterThanOrEqual(
    Date.parse(status?.lastScheduleTime ?? ""),
  );
  expect((await saying(c, "SawCompletedJob")).length).toBeGreaterThan(0);
  const [job] = await c.list(jobs, "default");
  expect(job?.metadata.annotations?.["batch.kubernetes.io/cronjob-scheduled-timestamp"]).toMatch(/:00Z$/);
  expect(job?.metadata.ownerReferences).toMatchObject([{ kind: "CronJob", name: "tick", controller: true }]);
});

test("Forbid waits for the one that runs", async () => {
  const c = await start({}, { concurrencyPolicy: "Forbid" });
  await c.advance(3 * 60_000 + 5000);
  expect(await jobNames(c)).toHaveLength(1);
  expect((await get(c))?.status?.active).toHaveLength(1);
  expect((await saying(c, "JobAlreadyActive")).length).toBeGreaterThan(0);
});

test("Replace ends the one that runs", async () => {
  const c = await start({}, { concurrencyPolicy: "Replace" });
  await c.advance(65_000);
  const [first] = await jobNames(c);
  await c.advance(60_000);
  const after = await jobNames(c);
  expect(after).toHaveLength(1);
  expect(after).not.toContain(first);
  expect((await get(c))?.status?.active?.map((reference) => reference.name)).toEqual(after);
});

test("suspended: nothing; resumed: it goes on", async () => {
  const c = await start({}, { suspend: true });
  await c.advance(3 * 60_000);
  expect(await jobNames(c)).toEqual([]);
  await c.client.patch(cronJobs, { name: "tick", namespace: "default" }, { spec: { suspend: false } });
  await c.advance(65_000);
  expect((await jobNames(c)).length).toBeGreaterThan(0);
});

test("deleted: its jobs go with it", async () => {
  const c = await start({});
  await c.advance(65_000);
  await c.client.delete(cronJobs, { name: "tick", namespace: "default" });
  await c.until(async () => (await jobNames(c)).length === 0, "jobs are gone");
});

test("requests that fail at random: each minute has one job, none is missed", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 500 }), seed: 3 }, { successfulJobsHistoryLimit: 100 });
  c.faultRate = 0.2;
  await c.advance(10 * 60_000);
  c.faultRate = 0;
  await c.advance(65_000);
  const minutes = (await jobNames(c)).map((n) => Number(n?.split("-")[1]));
  expect(new Set(minutes).size).toBe(minutes.length);
  expect(minutes).toHaveLength(11);
  expect(minutes.at(-1)! - minutes[0]!).toBe(10);
});

test.each(["Forbid", "Replace"] as const)(
  "%s: a job that somebody made by hand is neither waited for nor ended",
  async (policy) => {
    const c = await start({}, { concurrencyPolicy: policy });
    const owner = (await get(c))!.metadata;
    await c.client.create(jobs, {
      ...batchJob(),
      metadata: {
        name: "by-hand",
        namespace: "default",
        ownerReferences: [
          { apiVersion: "batch/v1", kind: "CronJob", name: owner.name!, uid: owner.uid!, controller: true },
        ],
      },
    });
    await c.advance(2 * 60_000 + 5000);
    const names = await jobNames(c);
    expect(names).toContain("by-hand");
    expect(names).toHaveLength(2);
    expect((await get(c))?.status?.active).toHaveLength(1);
    expect((await saying(c, "UnexpectedJob")).length).toBeGreaterThan(0);
    expect(await saying(c, "MissingJob")).toEqual([]);
    expect(c.metrics.render()).toMatch(/cronjob_controller_job_creation_skew_duration_seconds_count [1-9]/);
  },
);
