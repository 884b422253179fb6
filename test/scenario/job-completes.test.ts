// Jobs: a plain one, one with failures, one that gives up, an indexed one, suspension, deadline and time to live.
import { afterEach, expect, test } from "vitest";
import type { Job } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { events, jobs, pods } from "#model/resources.ts";
import { InMemoryCluster, type InMemoryClusterOptions } from "#test/harness/in-memory-cluster.ts";
import { batchJob } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});
async function start(options: InMemoryClusterOptions = {}): Promise<InMemoryCluster> {
  cluster = await InMemoryCluster.start(options);
  return cluster;
}

const get = (c: InMemoryCluster) => c.find(jobs, "work", "default");
const conditionsOf = (job: Job | undefined) =>
  (job?.status?.conditions ?? []).filter((x) => x.status === "True").map((x) => `${x.type}/${x.reason}`);
const has = async (c: InMemoryCluster, type: string) =>
  conditionsOf(await get(c)).some((x) => x.startsWith(`${type}/`));
const isTracked = (pod: Pod) => pod.metadata.finalizers?.includes("batch.kubernetes.io/job-tracking") === true;

test("five pods, two at a time, each counted once", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 500 }) });
  let most = 0;
  const store = c.informers.informer(pods);
  const look = () => {
    most = Math.max(most, store.list("default").filter((p) => p.status?.phase === "Running").length);
  };
  store.addHandler({ add: look, update: look });
  await c.client.create(jobs, batchJob({ completions: 5, parallelism: 2 }));
  await c.until(() => has(c, "Complete"), "job is complete");
  const job = await get(c);
  expect(conditionsOf(job)).toEqual(["SuccessCriteriaMet/CompletionsReached", "Complete/CompletionsReached"]);
  expect(job?.status).toMatchObject({ succeeded: 5, ready: 0, terminating: 0, uncountedTerminatedPods: {} });
  expect(job?.status?.active).toBeUndefined();
  expect(job?.status?.completionTime).toBeDefined();
  expect(most).toBe(2);
  const all = await c.list(pods, "default");
  expect(all).toHaveLength(5);
  expect(all.filter(isTracked)).toEqual([]);
  const reasons = (await c.list(events, "default")).map((e) => e.reason);
  expect(reasons.filter((r) => r === "SuccessfulCreate")).toHaveLength(5);
  expect(reasons).toContain("Completed");
});

test("failed pods are replaced after growing pauses until one succeeds", async () => {
  let made = 0;
  const seen = new Map<string, number>();
  const c = await start({
    behaviour: (pod) => {
      const uid = pod.metadata.uid ?? "";
      if (!seen.has(uid)) seen.set(uid, made++);
      return { exitAfterMs: 100, exitCode: (seen.get(uid) ?? 0) < 2 ? 1 : 0 };
    },
  });
  await c.client.create(jobs, batchJob());
  await c.until(() => has(c, "Complete"), "job is complete", 120_000);
  expect((await get(c))?.status).toMatchObject({ succeeded: 1, failed: 2 });
  const created = (await c.list(pods, "default"))
    .map((p) => Date.parse(p.metadata.creationTimestamp ?? "") / 1000)
    .sort();
  expect(created[1]! - created[0]!).toBeGreaterThanOrEqual(10);
  expect(created[2]! - created[1]!).toBeGreaterThanOrEqual(20);
});

test("a job that keeps failing gives up at its limit", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 100, exitCode: 1 }) });
  await c.client.create(jobs, batchJob({ backoffLimit: 1 }));
  await c.until(() => has(c, "Failed"), "job has failed", 120_000);
  const job = await get(c);
  expect(conditionsOf(job)).toEqual(["FailureTarget/BackoffLimitExceeded", "Failed/BackoffLimitExceeded"]);
  expect(job?.status?.failed).toBe(2);
  expect((await c.list(pods, "default")).filter(isTracked)).toEqual([]);
});

test("a job past its deadline loses its pods", async () => {
  const c = await start();
  await c.client.create(jobs, batchJob({ activeDeadlineSeconds: 10, parallelism: 2, completions: 2 }));
  await c.until(async () => (await get(c))?.status?.ready === 2, "both run");
  await c.until(() => has(c, "Failed"), "deadline");
  expect(conditionsOf(await get(c))).toContain("Failed/DeadlineExceeded");
  await c.until(async () => (await c.list(pods, "default")).length === 0, "pods are gone");
});

test("an indexed job runs each index once and tells its pods which", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 200 }) });
  await c.client.create(jobs, batchJob({ completions: 4, parallelism: 3, completionMode: "Indexed" }));
  await c.until(() => has(c, "Complete"), "job is complete");
  expect((await get(c))?.status?.completedIndexes).toBe("0-3");
  const all = await c.list(pods, "default");
  expect(all.map((p) => p.metadata.annotations?.["batch.kubernetes.io/job-completion-index"]).sort()).toEqual([
    "0",
    "1",
    "2",
    "3",
  ]);
  expect(all.map((p) => p.spec.hostname).sort()).toEqual(["work-0", "work-1", "work-2", "work-3"]);
  expect(all[0]?.spec.containers[0]?.env?.[0]?.name).toBe("JOB_COMPLETION_INDEX");
});

test("a suspended job has no pods, a resumed one runs", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 5000 }) });
  await c.client.create(jobs, batchJob({ suspend: true }));
  await c.until(() => has(c, "Suspended"), "is suspended");
  expect(await c.list(pods, "default")).toEqual([]);
  const target = { name: "work", namespace: "default" };
  await c.client.patch(jobs, target, { spec: { suspend: false } });
  await c.until(async () => (await get(c))?.status?.active === 1, "runs");
  await c.client.patch(jobs, target, { spec: { suspend: true } });
  await c.until(async () => (await c.list(pods, "default")).length === 0, "pods are gone again");
  await c.client.patch(jobs, target, { spec: { suspend: false } });
  await c.until(() => has(c, "Complete"), "completes");
});

test("a finished job goes when its time to live is over, and its pods with it", async () => {
  const c = await start({ behaviour: () => ({ exitAfterMs: 100 }) });
  await c.client.create(jobs, batchJob({ ttlSecondsAfterFinished: 30 }));
  await c.until(() => has(c, "Complete"), "completes");
  await c.advance(25_000);
  expect(await get(c)).toBeDefined();
  await c.until(async () => (await get(c)) === undefined, "job is gone", 20_000);
  expect(await c.list(pods, "default")).toEqual([]);
});
