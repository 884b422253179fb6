// Who goes with whom: background, foreground and orphaning deletion of a deployment, and of things with several owners.
import { afterEach, expect, test } from "vitest";
import type { ConfigMap } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { configMaps, deployments, events, leases, pods, replicaSets, storageClasses } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

async function startWithWeb(): Promise<InMemoryCluster> {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 3 }));
  await c.until(
    async () => (await c.find(deployments, "web", "default"))?.status?.availableReplicas === 3,
    "available",
  );
  return c;
}
const target = { name: "web", namespace: "default" };
const counts = async (c: InMemoryCluster) => [
  (await c.list(deployments, "default")).length,
  (await c.list(replicaSets, "default")).length,
  (await c.list(pods, "default")).length,
];

test("background: the deployment goes at once, the rest follows", async () => {
  const c = await startWithWeb();
  await c.client.delete(deployments, target, { propagationPolicy: "Background" });
  expect(await c.find(deployments, "web", "default")).toBeUndefined();
  await c.until(async () => (await counts(c)).every((n) => n === 0), "all is gone");
});

test("foreground: the deployment stays until everything below it has gone", async () => {
  const c = await startWithWeb();
  const order: string[] = [];
  for (const resource of [deployments, replicaSets, pods] as const) {
    c.informers.informer(resource as typeof pods).addHandler({ delete: () => order.push(resource.kind) });
  }
  await c.client.delete(deployments, target, { propagationPolicy: "Foreground" });
  const marked = await c.find(deployments, "web", "default");
  expect(marked?.metadata.finalizers).toContain("foregroundDeletion");
  await c.until(async () => (await counts(c)).every((n) => n === 0), "all is gone");
  await c.advance(10);
  expect(order).toEqual(["Pod", "Pod", "Pod", "ReplicaSet", "Deployment"]);
});

test("orphan: the replica set stays, freed of its owner, and is adopted by a new deployment of that name", async () => {
  const c = await startWithWeb();
  await c.client.delete(deployments, target, { propagationPolicy: "Orphan" });
  await c.until(async () => (await c.find(deployments, "web", "default")) === undefined, "deployment is gone");
  await c.advance(2000);
  expect(await counts(c)).toEqual([0, 1, 3]);
  expect((await c.list(replicaSets, "default"))[0]?.metadata.ownerReferences ?? []).toEqual([]);
  const before = (await c.list(pods, "default")).map((p) => p.metadata.uid).sort();
  await c.client.create(deployments, webDeployment({ replicas: 3 }));
  await c.until(async () => (await c.find(deployments, "web", "default"))?.status?.availableReplicas === 3, "adopted");
  expect(await counts(c)).toEqual([1, 1, 3]);
  expect((await c.list(pods, "default")).map((p) => p.metadata.uid).sort()).toEqual(before);
});

test("an object with two owners stays until the second has gone; one whose owner never was goes", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const make = (name: string, owners: readonly ConfigMap[] = []) =>
    c.client.create(configMaps, {
      metadata: {
        name,
        namespace: "default",
        ownerReferences: owners.map((o) => ({
          apiVersion: "v1",
          kind: "ConfigMap",
          name: o.metadata.name!,
          uid: o.metadata.uid!,
        })),
      },
    } as ConfigMap);
  const a = await make("a");
  const b = await make("b");
  await make("both", [a, b]);
  await make("stray", [{ metadata: { name: "never", uid: "00000000-0000-4000-8000-000000000000" } } as ConfigMap]);
  await c.until(async () => (await c.find(configMaps, "stray", "default")) === undefined, "stray is gone");
  await c.client.delete(configMaps, { name: "a", namespace: "default" });
  await c.until(
    async () => (await c.find(configMaps, "both", "default"))?.metadata.ownerReferences?.length === 1,
    "one owner is taken off",
  );
  await c.client.delete(configMaps, { name: "b", namespace: "default" });
  await c.until(async () => (await c.find(configMaps, "both", "default")) === undefined, "gone with the last owner");
});

const configMap = (name: string, owners: readonly ApiObject[] = []) =>
  ({
    metadata: {
      name,
      namespace: "default",
      ownerReferences: owners.map((o) => ({
        apiVersion: "v1",
        kind: "ConfigMap",
        name: o.metadata.name!,
        uid: o.metadata.uid!,
        blockOwnerDeletion: true,
      })),
    },
  }) as ConfigMap;
const isGone = (c: InMemoryCluster, name: string) => async () =>
  (await c.find(configMaps, name, "default")) === undefined;

test("what belongs to a kind that is known but off stays: nobody can say that its owner has gone", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const own = (name: string, apiVersion: string, kind: string) => {
    const owner = { apiVersion, kind, name: "never", uid: "00000000-0000-4000-8000-000000000000" };
    return c.client.create(configMaps, {
      metadata: { name, namespace: "default", ownerReferences: [owner] },
    } as ConfigMap);
  };
  await own("kept", "networking.k8s.io/v1beta1", "ServiceCIDR");
  await own("stray", "v1", "ConfigMap");
  await c.until(isGone(c, "stray"), "stray is gone");
  expect(await c.find(configMaps, "kept", "default")).toBeDefined();
});

test("an owner in the foreground goes when the last that held it belongs to another", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const a = await c.client.create(configMaps, configMap("a"));
  const b = await c.client.create(configMaps, configMap("b"));
  await c.client.create(configMaps, configMap("both", [a, b]));
  await c.client.delete(configMaps, { name: "a", namespace: "default" }, { propagationPolicy: "Foreground" });
  await c.until(isGone(c, "a"), "a is gone");
  expect((await c.find(configMaps, "both", "default"))?.metadata.ownerReferences).toMatchObject([{ name: "b" }]);
});

test("two that own each other go together, also in the foreground", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const a = await c.client.create(configMaps, configMap("a"));
  const b = await c.client.create(configMaps, configMap("b", [a]));
  await c.client.patch(configMaps, { name: "a", namespace: "default" }, configMap("a", [b]));
  await c.advance(1000);
  await c.client.delete(configMaps, { name: "a", namespace: "default" }, { propagationPolicy: "Foreground" });
  await c.until(async () => (await isGone(c, "a")()) && (await isGone(c, "b")()), "both are gone");
});

test("what belongs to no namespace stays where its owner is said to be in one, and that is said", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const owner = await c.client.create(configMaps, configMap("owner"));
  const { ownerReferences } = configMap("x", [owner]).metadata;
  await c.client.create(storageClasses, {
    metadata: { name: "odd", ownerReferences: ownerReferences! },
    provisioner: "x",
  });
  const stray = ownerReferences!.map((one) => ({ ...one, uid: "00000000-0000-4000-8000-000000000000" }));
  await c.client.create(storageClasses, { metadata: { name: "stray", ownerReferences: stray }, provisioner: "x" });
  await c.advance(5000);
  expect((await c.list(storageClasses)).map((one) => one.metadata.name).sort()).toEqual(["odd", "stray"]);
  const said = (await c.list(events, "default")).filter((e) => e.reason === "OwnerRefInvalidNamespace");
  expect(said.map((e) => e.involvedObject.name)).toEqual(["odd"]);
});

test("a lease that is renewed is not looked at, and goes with its owner all the same", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const owner: ApiObject = await c.client.create(configMaps, { metadata: { name: "owner", namespace: "default" } });
  const ownerReferences = [{ apiVersion: "v1", kind: "ConfigMap", name: "owner", uid: owner.metadata.uid ?? "" }];
  const metadata = { name: "beat", namespace: "default" };
  await c.client.create(leases, { metadata: { ...metadata, ownerReferences }, spec: { holderIdentity: "0" } });
  const seen = c.informers.informer(leases);
  const adds = () => Number(/^workqueue_adds_total\{name="garbage_collector"\} (\d+)/m.exec(c.metrics.render())?.[1]);
  const renew = async (n: number) => {
    await c.client.patch(leases, metadata, { spec: { holderIdentity: String(n) } });
    await c.until(async () => seen.get("default/beat")?.spec?.holderIdentity === String(n), `renewal ${n} has come`);
  };
  await renew(1);
  const before = adds();
  for (let n = 2; n < 32; n++) await renew(n);
  expect(before).toBeGreaterThan(0);
  expect(adds() - before).toBeLessThan(15);
  await c.client.delete(configMaps, { name: "owner", namespace: "default" });
  await c.until(async () => (await c.find(leases, "beat", "default")) === undefined, "the lease has gone too");
});
