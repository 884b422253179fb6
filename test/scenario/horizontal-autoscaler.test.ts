// An autoscaler follows the load of its pods: up within two rounds, down only after the window; says what is wrong where it
// cannot; writes nothing while nothing changes; and is asked about in both of its versions.
import { afterEach, expect, test } from "vitest";
import type { HorizontalPodAutoscaler } from "#model/gen/autoscaling-v2.ts";
import { deployments, events, horizontalPodAutoscalers, horizontalPodAutoscalersV1 } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

const minuteMs = 60_000;
const requested = (replicas: number) => {
  const deployment = webDeployment({ replicas });
  deployment.spec.template.spec!.containers[0]!.resources = { requests: { cpu: "200m" } };
  return deployment;
};
const autoscaler = (spec: Partial<HorizontalPodAutoscaler["spec"]> = {}): HorizontalPodAutoscaler =>
  ({
    metadata: { name: "web", namespace: "default" },
    spec: {
      scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: "web" },
      minReplicas: 1,
      maxReplicas: 8,
      metrics: [
        { type: "Resource", resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 50 } } },
      ],
      ...spec,
    },
  }) as HorizontalPodAutoscaler;

async function startWith(load: { cores: number }): Promise<InMemoryCluster> {
  // All pods share the load.
  cluster = await InMemoryCluster.start({
    usage: () => ({ cores: load.cores / Math.max(1, running), memoryBytes: 2 ** 24 }),
  });
  const c = cluster;
  let running = 1;
  c.informers.informer(deployments).addHandler({
    update: (object) => {
      running = object.status?.readyReplicas ?? 1;
    },
  });
  return c;
}
const replicasOf = async (c: InMemoryCluster) => (await c.find(deployments, "web", "default"))?.spec.replicas;
const statusOf = async (c: InMemoryCluster) => (await c.find(horizontalPodAutoscalers, "web", "default"))?.status;
const conditionsOf = async (c: InMemoryCluster) =>
  Object.fromEntries(((await statusOf(c))?.conditions ?? []).map((one) => [one.type, `${one.status} ${one.reason}`]));

test("follows the load up and, after the window, down", async () => {
  const load = { cores: 0.1 };
  const c = await startWith(load);
  await c.client.create(deployments, requested(1));
  await c.until(async () => (await c.find(deployments, "web", "default"))?.status?.readyReplicas === 1, "runs");
  // Pods count from their first minutes on only when they are ready and measured since.
  await c.advance(minuteMs);
  await c.client.create(horizontalPodAutoscalers, autoscaler());
  await c.until(async () => (await statusOf(c))?.currentMetrics?.length === 1, "the first round", 2 * minuteMs);
  expect(await statusOf(c)).toMatchObject({
    currentReplicas: 1,
    desiredReplicas: 1,
    currentMetrics: [
      { type: "Resource", resource: { name: "cpu", current: { averageUtilization: 50, averageValue: "100m" } } },
    ],
  });

  load.cores = 0.6;
  await c.until(async () => (await replicasOf(c)) === 6, "six pods share 0.6 cores at 50 % of 200m", 3 * minuteMs);
  expect(await statusOf(c)).toMatchObject({ lastScaleTime: expect.any(String) as string });
  await c.advance(2 * minuteMs);
  expect(await replicasOf(c)).toBe(6);
  expect(await conditionsOf(c)).toEqual({
    AbleToScale: "True ReadyForNewScale",
    ScalingActive: "True ValidMetricFound",
    ScalingLimited: "False DesiredWithinRange",
  });

  load.cores = 0.1;
  await c.advance(4 * minuteMs);
  expect(await replicasOf(c)).toBe(6);
  expect((await conditionsOf(c))["AbleToScale"]).toBe("True ScaleDownStabilized");
  await c.until(async () => (await replicasOf(c)) === 1, "down again", 4 * minuteMs);
  const told = (await c.list(events, "default")).filter((event) => event.reason === "SuccessfulRescale");
  expect(told.map((event) => event.message)).toContain("New size: 1; reason: All metrics below target");
  expect(told.every((event) => event.source?.component === "horizontal-pod-autoscaler")).toBe(true);

  // Nothing changes, nothing is written.
  await c.advance(10 * minuteMs);
  const before = (await c.find(horizontalPodAutoscalers, "web", "default"))?.metadata.resourceVersion;
  await c.advance(10 * minuteMs);
  expect((await c.find(horizontalPodAutoscalers, "web", "default"))?.metadata.resourceVersion).toBe(before);
});

test("comes to the same where requests are lost", async () => {
  const load = { cores: 0.1 };
  const c = await startWith(load);
  await c.client.create(deployments, requested(1));
  await c.advance(minuteMs);
  await c.client.create(horizontalPodAutoscalers, autoscaler());
  c.faultRate = 0.1;
  load.cores = 0.6;
  await c.until(async () => (await replicasOf(c)) === 6, "six pods", 8 * minuteMs);
  c.faultRate = 0;
  await c.until(async () => (await statusOf(c))?.currentReplicas === 6, "told", 2 * minuteMs);
});

test("behaviour bounds how fast; one version shows what the other was told", async () => {
  const load = { cores: 5 };
  const c = await startWith(load);
  await c.client.create(deployments, requested(1));
  await c.advance(minuteMs);
  const behavior = { scaleUp: { policies: [{ type: "Pods", value: 1, periodSeconds: 60 }] } };
  await c.client.create(horizontalPodAutoscalers, autoscaler({ behavior }));
  await c.until(async () => (await replicasOf(c)) === 2, "one more", 2 * minuteMs);
  await c.advance(45_000);
  expect(await replicasOf(c)).toBe(2);
  expect((await conditionsOf(c))["ScalingLimited"]).toBe("True ScaleUpLimit");
  await c.until(async () => (await replicasOf(c)) === 3, "and one more", minuteMs);

  const old = await c.client.get(horizontalPodAutoscalersV1, "web", "default");
  expect(old.spec).toMatchObject({ targetCPUUtilizationPercentage: 50, maxReplicas: 8 });
  expect(old.status?.currentCPUUtilizationPercentage).toBeGreaterThan(50);
  await c.client.update(horizontalPodAutoscalersV1, { ...old, spec: { ...old.spec, maxReplicas: 4 } });
  const now = await c.client.get(horizontalPodAutoscalers, "web", "default");
  expect(now.spec.maxReplicas).toBe(4);
  expect(now.spec.behavior?.scaleUp).toMatchObject({ selectPolicy: "Max", ...behavior.scaleUp });
  expect(Object.keys(now.metadata.annotations ?? {})).toEqual([]);
});

test("says what is wrong: no target, no requests, two for the same pods", async () => {
  const c = await startWith({ cores: 1 });
  await c.client.create(horizontalPodAutoscalers, autoscaler());
  await c.until(async () => (await conditionsOf(c))["AbleToScale"] !== undefined, "looked at", minuteMs);
  expect(await conditionsOf(c)).toEqual({ AbleToScale: "False FailedGetScale" });
  await c.client.create(deployments, webDeployment({ replicas: 1 }));
  await c.until(
    async () => (await conditionsOf(c))["ScalingActive"] === "False FailedGetResourceMetric",
    "no requests",
    2 * minuteMs,
  );
  const condition = (await statusOf(c))?.conditions?.find((one) => one.type === "ScalingActive");
  expect(condition?.message).toContain("failed to get cpu utilization: ");
  const second = autoscaler();
  second.metadata.name = "other";
  await c.client.create(horizontalPodAutoscalers, second);
  await c.until(
    async () => (await conditionsOf(c))["ScalingActive"] === "False AmbiguousSelector",
    "two of them",
    2 * minuteMs,
  );
});
