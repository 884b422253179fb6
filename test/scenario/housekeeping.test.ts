// Small controllers that keep things as they should be: replication controllers, what nodes are told, token secrets.
import { afterEach, expect, test } from "vitest";
import type { Job } from "#model/gen/batch-v1.ts";
import type { Pod, ReplicationController } from "#model/gen/core-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";
import {
  configMaps,
  jobs,
  namespaces,
  nodes,
  pods,
  priorityClasses,
  replicationControllers,
} from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { batchJob } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});
const line = (c: InMemoryCluster, text: string) =>
  c.metrics
    .render()
    .split("\n")
    .find((one) => one.startsWith(text));

test("a replication controller keeps its number of pods", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const target = { name: "rc", namespace: "default" };
  const metadata = { labels: { app: "rc" } };
  await c.client.create(replicationControllers, {
    metadata: target,
    spec: {
      replicas: 3,
      selector: { app: "rc" },
      template: { metadata, spec: { containers: [{ name: "c", image: "c:1" }] } },
    },
  } as unknown as ReplicationController);
  const status = async () => (await c.find(replicationControllers, "rc", "default"))?.status;
  await c.until(async () => (await status())?.readyReplicas === 3, "three");
  const [first] = await c.list(pods, "default");
  await c.client.delete(pods, { name: first?.metadata.name ?? "", namespace: "default" });
  await c.until(async () => {
    const all = await c.list(pods, "default");
    return all.length === 3 && all.every((pod: Pod) => pod.metadata.uid !== first?.metadata.uid);
  }, "another comes for it");
  await c.until(async () => (await status())?.readyReplicas === 3, "three again");
  await c.client.patch(replicationControllers, target, { spec: { replicas: 1 } });
  await c.until(async () => (await status())?.replicas === 1, "one");
  expect(line(c, "replicaset_controller_sorting_deletion_age_ratio_count")).toMatch(/ 2$/);
});

test("nodes are told for how long they may keep what they read", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const ttl = async () => (await c.find(nodes, "node-1"))?.metadata.annotations?.["node.alpha.kubernetes.io/ttl"];
  await c.until(async () => (await ttl()) === "0", "told");
});

test("from when on uses of token secrets are written down", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const name = "kube-apiserver-legacy-service-account-token-tracking";
  await c.until(async () => (await c.find(configMaps, name, "kube-system")) !== undefined, "written");
  const { data } = (await c.find(configMaps, name, "kube-system"))!;
  expect(data?.["since"]).toBe(new Date(c.clock.now()).toISOString().slice(0, 10));
});

test("the authority of every namespace is published, and counted", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(namespaces, { metadata: { name: "team" }, spec: {} });
  await c.until(async () => (await c.find(configMaps, "kube-root-ca.crt", "team")) !== undefined, "published");
  await c.client.delete(configMaps, { name: "kube-root-ca.crt", namespace: "team" });
  await c.until(async () => (await c.find(configMaps, "kube-root-ca.crt", "team")) !== undefined, "published again");
  expect(line(c, 'root_ca_cert_publisher_sync_total{code="200"}')).toBeDefined();
});

test("a priority class keeps its first generation", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const high: PriorityClass = { metadata: { name: "high" }, value: 7, description: "a" };
  const made = await c.client.create(priorityClasses, high);
  const changed = await c.client.update(priorityClasses, { ...made, description: "b" });
  expect([made.metadata.generation, changed.metadata.generation, changed.description]).toEqual([1, 1, "b"]);
});

test("queues and jobs count under upstream's names", async () => {
  cluster = await InMemoryCluster.start({ behaviour: () => ({ exitAfterMs: 200 }) });
  const c = cluster;
  const spec = { completions: 2, parallelism: 2, completionMode: "Indexed", ttlSecondsAfterFinished: 5 };
  await c.client.create(jobs, batchJob(spec));
  const foreign = batchJob({ managedBy: "example.com/other" });
  foreign.metadata.name = "foreign";
  await c.client.create(jobs, foreign);
  const find = async (): Promise<Job | undefined> => c.find(jobs, "work", "default");
  await c.until(async () => (await find())?.status?.succeeded === 2, "done");
  await c.until(async () => (await find()) === undefined, "cleaned up", 30_000);
  for (const text of [
    'job_controller_job_pods_creation_total{reason="new",status="succeeded"} 2',
    'job_controller_job_finished_indexes_total{status="succeeded",backoffLimit="global"} 2',
    'job_controller_jobs_by_external_controller_total{controller_name="example.com/other"}',
    "ttl_after_finished_controller_job_deletion_duration_seconds_count 1",
    'workqueue_adds_total{name="job"}',
    'workqueue_work_duration_seconds_count{name="garbage_collector"}',
  ]) {
    expect(line(c, text), text).toBeDefined();
  }
  expect((await c.list(pods, "default")).filter((pod) => pod.metadata.generateName?.startsWith("foreign"))).toEqual([]);
});

test("finished pods beyond what is kept go, the oldest first", async () => {
  cluster = await InMemoryCluster.start({
    behaviour: () => ({ exitAfterMs: 200 }),
    controllerArguments: ["terminated-pod-gc-threshold=2"],
  });
  const c = cluster;
  const bare = async (name: string) => {
    const spec = { restartPolicy: "Never", containers: [{ name: "c", image: "c:1" }] };
    await c.client.create(pods, { metadata: { name, namespace: "default" }, spec });
    await c.advance(1500);
  };
  for (const name of ["a", "b", "c", "d"]) await bare(name);
  const left = async () => (await c.list(pods, "default")).map((pod) => pod.metadata.name).sort();
  await c.until(async () => (await left()).length === 2, "two are left", 60_000);
  expect(await left()).toEqual(["c", "d"]);
  await c.advance(60_000);
  expect(await left()).toEqual(["c", "d"]);
  expect(line(c, "pod_gc_collector_force_delete_pods_total")).toContain('reason="terminated"} 2');
});

test("a node is given up as soon as it was told", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2, controllerArguments: ["node-monitor-grace-period=20s"] });
  const c = cluster;
  await c.advance(30_000);
  c.kubelets.get("node-2")!.isCut = true;
  const state = async () =>
    (await c.find(nodes, "node-2"))?.status?.conditions?.find(({ type }) => type === "Ready")?.status;
  await c.until(async () => (await state()) === "Unknown", "unknown", 36_000);
});
