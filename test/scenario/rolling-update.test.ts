// A deployment is created, rolled to a new template, rolled back, paused in the middle, and starved of progress.
import { afterEach, expect, test } from "vitest";
import type { Deployment } from "#model/gen/apps-v1.ts";
import type { Event, Pod } from "#model/gen/core-v1.ts";
import { deployments, events, pods, replicaSets } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

const at = (d: Deployment | undefined, type: string) => d?.status?.conditions?.find((c) => c.type === type);
const isRolledOut = (d: Deployment | undefined): boolean =>
  d?.status?.observedGeneration === d?.metadata.generation &&
  d?.status?.updatedReplicas === d?.spec.replicas &&
  d?.status?.replicas === d?.spec.replicas &&
  d?.status?.availableReplicas === d?.spec.replicas;

async function deploy(c: InMemoryCluster, image: string): Promise<void> {
  const patch = { spec: { template: { spec: { containers: [{ name: "web", image }] } } } };
  await c.client.patch(deployments, { name: "web", namespace: "default" }, patch, {
    type: "application/strategic-merge-patch+json",
  });
}
const get = (c: InMemoryCluster) => c.find(deployments, "web", "default");

test("a deployment becomes available, and a new template replaces pods without going below the floor", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2 });
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 4, maxSurge: 1, maxUnavailable: 1 }));
  await c.until(async () => isRolledOut(await get(c)), "first rollout");
  const first = await get(c);
  expect(first?.metadata.annotations?.["deployment.kubernetes.io/revision"]).toBe("1");
  expect(at(first, "Available")?.reason).toBe("MinimumReplicasAvailable");
  expect(at(first, "Progressing")?.reason).toBe("NewReplicaSetAvailable");

  let least = 99;
  let most = 0;
  const store = c.informers.informer(pods);
  const measure = () => {
    const all = store.list("default").filter((p: Pod) => !p.metadata.deletionTimestamp);
    most = Math.max(most, all.length);
    least = Math.min(
      least,
      all.filter((p) => p.status?.conditions?.some((x) => x.type === "Ready" && x.status === "True")).length,
    );
  };
  const unsubscribe = store.addHandler({ add: measure, update: measure, delete: measure });
  await deploy(c, "web:2");
  await c.until(async () => isRolledOut(await get(c)), "second rollout");
  unsubscribe();
  expect(least).toBeGreaterThanOrEqual(3);
  expect(most).toBeLessThanOrEqual(5);
  const sets = await c.list(replicaSets, "default");
  expect(
    sets.map((s) => [s.metadata.annotations?.["deployment.kubernetes.io/revision"], s.spec.replicas]).sort(),
  ).toEqual([
    ["1", 0],
    ["2", 4],
  ]);
  const running = await c.list(pods, "default");
  expect(new Set(running.map((p) => p.spec.containers[0]?.image))).toEqual(new Set(["web:2"]));

  // Rolling back is putting the old template back: its replica set gets the next revision.
  await deploy(c, "web:1");
  await c.until(async () => isRolledOut(await get(c)), "rollback");
  const back = (await c.list(replicaSets, "default")).find((s) => s.spec.replicas === 4);
  expect(back?.metadata.annotations?.["deployment.kubernetes.io/revision"]).toBe("3");
  expect(back?.metadata.annotations?.["deployment.kubernetes.io/revision-history"]).toBe("1");
  expect((await get(c))?.metadata.annotations?.["deployment.kubernetes.io/revision"]).toBe("3");

  const said = (await c.list(events, "default")).filter((e: Event) => e.reason === "ScalingReplicaSet");
  expect(said.some((e) => /^Scaled up replica set web-\S+ from 0 to 4$/.test(e.message ?? ""))).toBe(true);
});

test("old replica sets beyond the history limit are deleted", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 1, revisionHistoryLimit: 1 }));
  for (const version of [2, 3, 4]) {
    await c.until(async () => isRolledOut(await get(c)), `rollout before ${version}`);
    await deploy(c, `web:${version}`);
    await c.advance(100);
  }
  await c.until(async () => isRolledOut(await get(c)), "last rollout");
  await c.until(async () => (await c.list(replicaSets, "default")).length === 2, "history is trimmed");
});

test("a rollout that does not progress says so after its deadline, and goes on when it can", async () => {
  cluster = await InMemoryCluster.start({
    behaviour: (pod) => ({ neverReady: pod.spec.containers[0]?.image === "web:bad" }),
  });
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 2, progressDeadlineSeconds: 30 }));
  await c.until(async () => isRolledOut(await get(c)), "first rollout");
  await deploy(c, "web:bad");
  await c.until(async () => at(await get(c), "Progressing")?.reason === "ProgressDeadlineExceeded", "deadline");
  const stuck = await get(c);
  expect(at(stuck, "Progressing")?.message).toMatch(/^ReplicaSet "web-\S+" has timed out progressing\.$/);
  expect(stuck?.status?.availableReplicas).toBe(2);
  await deploy(c, "web:3");
  await c.until(async () => isRolledOut(await get(c)), "recovery");
  expect(at(await get(c), "Progressing")?.status).toBe("True");
});

test("Recreate lets no two versions run side by side", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 3, strategy: "Recreate" }));
  await c.until(async () => isRolledOut(await get(c)), "first rollout");
  const mixed: string[] = [];
  const store = c.informers.informer(pods);
  const look = () => {
    const images = new Set(store.list("default").map((p) => p.spec.containers[0]?.image));
    if (images.size > 1) mixed.push([...images].join());
  };
  store.addHandler({ add: look, update: look });
  await deploy(c, "web:2");
  await c.until(async () => isRolledOut(await get(c)), "second rollout");
  expect(mixed).toEqual([]);
});

test("a paused deployment keeps its pods, scales, and rolls when resumed", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 2 }));
  await c.until(async () => isRolledOut(await get(c)), "first rollout");
  const target = { name: "web", namespace: "default" };
  await c.client.patch(deployments, target, { spec: { paused: true } });
  await deploy(c, "web:2");
  await c.client.patch(deployments, target, { spec: { replicas: 3 } });
  await c.until(async () => (await get(c))?.status?.availableReplicas === 3, "scaled while paused");
  expect(at(await get(c), "Progressing")?.reason).toBe("DeploymentPaused");
  const images = (await c.list(pods, "default")).map((p) => p.spec.containers[0]?.image);
  expect(images).toEqual(["web:1", "web:1", "web:1"]);
  await c.client.patch(deployments, target, { spec: { paused: false } });
  await c.until(async () => isRolledOut(await get(c)), "rollout after resume");
});
