// Jobs with policies: failures that end the job, that do not count, that end one index; success before all are done.
import { afterEach, expect, test } from "vitest";
import type { Job, JobSpec } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { jobs, pods } from "#model/resources.ts";
import { InMemoryCluster, type PodBehaviour } from "#test/harness/in-memory-cluster.ts";
import { batchJob } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});
const indexKey = "batch.kubernetes.io/job-completion-index";
const indexOf = (pod: Pod) => Number(pod.metadata.annotations?.[indexKey]);
const get = async (c: InMemoryCluster): Promise<Job> => (await c.find(jobs, "work", "default"))!;
const reasonOf = (job: Job, type: string) =>
  job.status?.conditions?.find((one) => one.type === type && one.status === "True")?.reason;

/** Runs the job until it has a condition of this type; its status then. */
async function run(spec: Partial<JobSpec>, behaviour: (pod: Pod) => PodBehaviour, type: string): Promise<Job> {
  cluster = await InMemoryCluster.start({ behaviour });
  const c = cluster;
  await c.client.create(jobs, batchJob(spec));
  await c.until(async () => reasonOf(await get(c), type) !== undefined, `job is ${type}`, 600_000);
  return get(c);
}
/** Exit codes by try, per index; the last one repeats. */
function codes(byIndex: Record<number, number[]>): (pod: Pod) => PodBehaviour {
  const tries = new Map<string, { index: number; at: number }>();
  const seen = new Map<number, number>();
  return (pod) => {
    const uid = pod.metadata.uid ?? "";
    const index = indexOf(pod);
    if (!tries.has(uid)) {
      tries.set(uid, { index, at: seen.get(index) ?? 0 });
      seen.set(index, (seen.get(index) ?? 0) + 1);
    }
    const list = byIndex[index] ?? [0];
    return { exitAfterMs: 200, exitCode: list[Math.min(tries.get(uid)?.at ?? 0, list.length - 1)] ?? 0 };
  };
}
const indexed = (spec: Partial<JobSpec>): Partial<JobSpec> => ({
  completionMode: "Indexed",
  completions: 3,
  parallelism: 3,
  ...spec,
});

test("an exit code that ends the whole job", async () => {
  const rules = [{ action: "FailJob", onExitCodes: { operator: "In", values: [42] } }];
  const job = await run({ podFailurePolicy: { rules } }, () => ({ exitAfterMs: 200, exitCode: 42 }), "Failed");
  expect(reasonOf(job, "Failed")).toBe("PodFailurePolicy");
  expect(job.status?.failed).toBe(1);
});

test("failures that are ignored do not use up the limit", async () => {
  let made = 0;
  const seen = new Map<string, number>();
  const behaviour = (pod: Pod) => {
    const uid = pod.metadata.uid ?? "";
    if (!seen.has(uid)) seen.set(uid, made++);
    return { exitAfterMs: 200, exitCode: (seen.get(uid) ?? 0) < 3 ? 7 : 0 };
  };
  const rules = [{ action: "Ignore", onExitCodes: { operator: "In", values: [7] } }];
  const job = await run({ backoffLimit: 0, podFailurePolicy: { rules } }, behaviour, "Complete");
  expect(job.status).toMatchObject({ succeeded: 1 });
  expect(job.status?.failed).toBeUndefined();
});

test("each index has tries of its own; one that has used them up fails the job when the others are done", async () => {
  const job = await run(indexed({ backoffLimitPerIndex: 1 }), codes({ 0: [1, 0], 1: [1] }), "Failed");
  expect(reasonOf(job, "Failed")).toBe("FailedIndexes");
  expect(job.status).toMatchObject({ completedIndexes: "0,2", failedIndexes: "1", succeeded: 2, failed: 3 });
  const all = await cluster!.list(pods, "default");
  expect(all.filter((pod) => pod.metadata.finalizers?.length)).toEqual([]);
  const second = all
    .filter((pod) => indexOf(pod) === 1)
    .map((pod) => pod.metadata.annotations?.["batch.kubernetes.io/job-index-failure-count"]);
  expect(second.sort()).toEqual(["0", "1"]);
});

test("too many failed indexes end the job at once", async () => {
  const spec = indexed({ completions: 6, backoffLimitPerIndex: 0, maxFailedIndexes: 1 });
  const job = await run(spec, codes({ 0: [1], 1: [1], 2: [1] }), "Failed");
  expect(reasonOf(job, "Failed")).toBe("MaxFailedIndexesExceeded");
});

test("an index that a rule gives up is not tried again", async () => {
  const rules = [{ action: "FailIndex", onExitCodes: { operator: "In", values: [9] } }];
  const spec = indexed({ backoffLimitPerIndex: 5, podFailurePolicy: { rules } });
  const job = await run(spec, codes({ 2: [9] }), "Failed");
  expect(job.status).toMatchObject({ failedIndexes: "2", completedIndexes: "0,1", failed: 1 });
});

test("enough indexes have succeeded: what still runs is ended, the job is complete", async () => {
  const behaviour = (pod: Pod): PodBehaviour => (indexOf(pod) === 0 ? { exitAfterMs: 200 } : {});
  const job = await run(indexed({ successPolicy: { rules: [{ succeededIndexes: "0" }] } }), behaviour, "Complete");
  expect(reasonOf(job, "SuccessCriteriaMet")).toBe("SuccessPolicy");
  expect(reasonOf(job, "Complete")).toBe("SuccessPolicy");
  expect(job.status).toMatchObject({ completedIndexes: "0", succeeded: 1, terminating: 0 });
});

test("a pod that was deleted before it had a node has failed, and is replaced", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const template = {
    spec: { ...batchJob().spec.template.spec!, nodeSelector: { "example.com/none": "here" } },
  };
  const rules = [{ action: "Ignore", onPodConditions: [{ type: "DisruptionTarget", status: "True" }] }];
  await c.client.create(jobs, batchJob({ template, backoffLimit: 3, podFailurePolicy: { rules } }));
  const podsNow = async () => c.list(pods, "default");
  await c.until(async () => (await podsNow()).length === 1, "one that fits nowhere");
  const [first] = await podsNow();
  await c.client.delete(pods, { name: first!.metadata.name!, namespace: "default" });
  await c.until(
    async () => (await podsNow()).some((pod) => pod.metadata.uid !== first?.metadata.uid),
    "another one",
    120_000,
  );
  // Nobody disrupted it: the failure counts.
  expect((await get(c)).status?.failed).toBe(1);
});
