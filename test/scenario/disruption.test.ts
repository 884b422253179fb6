// Draining under a budget: evictions are granted only as long as enough pods are ready, and go on when new ones are.
import { afterEach, expect, test } from "vitest";
import { rfc3339 } from "#base/clock.ts";
import { type CustomResourceDefinition, walkableResourceOf } from "#model/custom-resources.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { customResourceDefinitions, deployments, jobs, podDisruptionBudgets, pods } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { batchJob, webDeployment } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});
const budgetOf = (c: InMemoryCluster) => c.find(podDisruptionBudgets, "b", "default");
const readyPods = async (c: InMemoryCluster) =>
  (await c.list(pods, "default")).filter(
    (pod) =>
      !pod.metadata.deletionTimestamp && pod.status?.conditions?.some((x) => x.type === "Ready" && x.status === "True"),
  );
const evict = (c: InMemoryCluster, name: string) =>
  c.client.create(pods, { metadata: { name, namespace: "default" } } as ApiObject, { name, subresource: "eviction" });

test.each([{ minAvailable: 2 }, { maxUnavailable: 1 }, { maxUnavailable: "33%" }, { minAvailable: "60%" }])(
  "three replicas, %j: one at a time",
  async (spec) => {
    const c = await InMemoryCluster.start();
    cluster = c;
    const deployment = await c.client.create(deployments, webDeployment({ replicas: 3 }));
    const selector = deployment.spec.selector;
    const budget = { metadata: { name: "b", namespace: "default" }, spec: { ...spec, selector } };
    await c.client.create(podDisruptionBudgets, budget as PodDisruptionBudget);
    const isOpen = async () => (await budgetOf(c))?.status?.disruptionsAllowed === 1;
    await c.until(isOpen, "one may go");
    expect((await budgetOf(c))?.status).toMatchObject({ currentHealthy: 3, desiredHealthy: 2, expectedPods: 3 });
    for (const pod of await readyPods(c)) {
      await c.until(isOpen, "one may go");
      const others = (await readyPods(c)).filter((other) => other.metadata.name !== pod.metadata.name);
      await evict(c, pod.metadata.name ?? "");
      await expect(evict(c, others[0]?.metadata.name ?? "")).rejects.toMatchObject({ code: 429 });
      expect((await readyPods(c)).length).toBeGreaterThanOrEqual(2);
    }
    await c.until(isOpen, "all are back");
    expect((await budgetOf(c))?.status?.disruptedPods).toBeUndefined();
  },
);

test("pods without a controller under a budget by share: said, and not counted", async () => {
  const c = await InMemoryCluster.start();
  cluster = c;
  const labels = { app: "alone" };
  const spec = { containers: [{ name: "c", image: "c:1" }] };
  await c.client.create(pods, { metadata: { name: "alone", namespace: "default", labels }, spec } as never);
  await c.client.create(podDisruptionBudgets, {
    metadata: { name: "b", namespace: "default" },
    spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
  } as PodDisruptionBudget);
  await c.until(async () => (await budgetOf(c))?.status?.observedGeneration === 1, "the budget is seen");
  expect((await budgetOf(c))?.status).toMatchObject({ expectedPods: 0, disruptionsAllowed: 0 });
});

test("pods of what cannot be scaled: nothing is allowed, and it is said why", async () => {
  const c = await InMemoryCluster.start();
  cluster = c;
  const job = batchJob({ completions: 2, parallelism: 2 });
  job.spec.template.metadata = { labels: { app: "work" } };
  await c.client.create(jobs, job);
  await c.until(async () => (await c.list(pods, "default")).length === 2, "pods");
  await c.client.create(podDisruptionBudgets, {
    metadata: { name: "b", namespace: "default" },
    spec: { maxUnavailable: 1, selector: { matchLabels: { app: "work" } } },
  } as PodDisruptionBudget);
  await c.until(async () => (await budgetOf(c))?.status?.observedGeneration === 1, "the budget is seen");
  const { disruptionsAllowed, conditions } = (await budgetOf(c))!.status!;
  expect(disruptionsAllowed).toBe(0);
  const message = "jobs.batch does not implement the scale subresource";
  expect(conditions).toMatchObject([{ type: "DisruptionAllowed", status: "False", reason: "SyncFailed", message }]);
});

test("pods of a custom resource count by its scale", async () => {
  const c = await InMemoryCluster.start();
  cluster = c;
  const name = "boats.example.com";
  await c.client.create(customResourceDefinitions, {
    metadata: { name },
    spec: {
      group: "example.com",
      scope: "Namespaced",
      names: { plural: "boats", kind: "Boat" },
      versions: [
        {
          name: "v1",
          served: true,
          storage: true,
          subresources: {
            status: {},
            scale: { specReplicasPath: ".spec.replicas", statusReplicasPath: ".status.replicas" },
          },
          schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
        },
      ],
    },
  } as CustomResourceDefinition);
  const row = async () => walkableResourceOf((await c.find(customResourceDefinitions, name))!);
  await c.until(async () => (await row()) !== undefined, "established");
  const boats = (await row())!;
  const made = { metadata: { name: "one", namespace: "default" }, spec: { replicas: 4 } } as ApiObject;
  const boat = await c.client.create(boats, made);
  const labels = { app: "boat" };
  for (const pod of ["a", "b", "c"]) {
    const reference = {
      apiVersion: "example.com/v1",
      kind: "Boat",
      name: "one",
      uid: boat.metadata.uid!,
      controller: true,
    };
    await c.client.create(pods, {
      metadata: { name: pod, namespace: "default", labels, ownerReferences: [reference] },
      spec: { containers: [{ name: "c", image: "c:1" }] },
    } as Pod);
  }
  await c.client.create(podDisruptionBudgets, {
    metadata: { name: "b", namespace: "default" },
    spec: { maxUnavailable: 2, selector: { matchLabels: labels } },
  } as PodDisruptionBudget);
  await c.until(async () => (await budgetOf(c))?.status?.disruptionsAllowed === 1, "one may go");
  expect((await budgetOf(c))?.status).toMatchObject({ expectedPods: 4, desiredHealthy: 2, currentHealthy: 3 });
});

test("a pod that was to go and stays is no longer said to go", async () => {
  const c = await InMemoryCluster.start();
  cluster = c;
  const spec = { containers: [{ name: "c", image: "c:1" }] };
  await c.client.create(pods, { metadata: { name: "p", namespace: "default" }, spec } as Pod);
  const conditionOf = async () =>
    (await c.find(pods, "p", "default"))?.status?.conditions?.find((one) => one.type === "DisruptionTarget");
  await c.until(async () => (await c.find(pods, "p", "default"))?.status?.phase === "Running", "runs");
  const pod = (await c.find(pods, "p", "default"))!;
  const lastTransitionTime = rfc3339(c.clock.now());
  const condition = { type: "DisruptionTarget", status: "True", reason: "PreemptionByScheduler", lastTransitionTime };
  const conditions = [...(pod.status?.conditions ?? []), condition];
  await c.client.updateStatus(pods, { ...pod, status: { ...pod.status, conditions } });
  await c.advance(110_000);
  expect((await conditionOf())?.status).toBe("True");
  await c.until(async () => (await conditionOf())?.status === "False", "taken back", 20_000);
});
