// Draining under a budget: evictions are granted only as long as enough pods are ready, and go on when new ones are.
import { afterEach, expect, test } from "vitest";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { deployments, podDisruptionBudgets, pods } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment } from "./objects.ts";

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
