// A namespace with everything in it is deleted; what holds it back is named; new ones get what every namespace has.
import { afterEach, expect, test } from "vitest";
import type { ConfigMap, Namespace } from "#model/gen/core-v1.ts";
import { configMaps, deployments, namespaces, pods, serviceAccounts } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

test("a new namespace gets its service account and the CA, also after they were deleted", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(namespaces, { metadata: { name: "shop" }, spec: {} } as Namespace);
  const isThere = async () =>
    (await c.find(serviceAccounts, "default", "shop")) !== undefined &&
    (await c.find(configMaps, "kube-root-ca.crt", "shop"))?.data?.["ca.crt"]?.startsWith("-----BEGIN") === true;
  await c.until(isThere, "account and CA");
  await c.client.delete(serviceAccounts, { name: "default", namespace: "shop" });
  await c.client.delete(configMaps, { name: "kube-root-ca.crt", namespace: "shop" });
  await c.until(isThere, "account and CA are back");
  await c.client.patch(configMaps, { name: "kube-root-ca.crt", namespace: "shop" }, { data: { "ca.crt": "forged" } });
  await c.until(isThere, "CA is put right");
});

test("deleting a namespace ends its pods and takes all with it", async () => {
  cluster = await InMemoryCluster.start({ behaviour: () => ({ stopMs: 2000 }) });
  const c = cluster;
  await c.client.create(namespaces, { metadata: { name: "shop" }, spec: {} } as Namespace);
  await c.until(async () => (await c.find(serviceAccounts, "default", "shop")) !== undefined, "account");
  await c.client.create(deployments, webDeployment({ replicas: 2, namespace: "shop" }));
  await c.until(async () => (await c.find(deployments, "web", "shop"))?.status?.availableReplicas === 2, "available");
  await c.client.delete(namespaces, { name: "shop" });
  await c.until(async () => {
    const status = (await c.find(namespaces, "shop"))?.status;
    return status?.conditions?.some((x) => x.type === "NamespaceContentRemaining" && x.status === "True") === true;
  }, "says what remains");
  const held = await c.find(namespaces, "shop");
  expect(held?.status?.phase).toBe("Terminating");
  const message = held?.status?.conditions?.find((x) => x.type === "NamespaceContentRemaining")?.message;
  expect(message).toMatch(/^Some resources are remaining: .*pods\. has 2 resource instances/);
  await expect(
    c.client.create(configMaps, { metadata: { name: "late", namespace: "shop" } } as ConfigMap),
  ).rejects.toMatchObject({ code: 403 });
  await c.until(async () => (await c.find(namespaces, "shop")) === undefined, "namespace is gone", 60_000);
  expect(await c.list(pods, "shop")).toEqual([]);
  expect(await c.list(configMaps, "shop")).toEqual([]);
});

test("a finalizer on something inside holds the namespace and is named in its conditions", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(namespaces, { metadata: { name: "shop" }, spec: {} } as Namespace);
  await c.client.create(configMaps, {
    metadata: { name: "held", namespace: "shop", finalizers: ["example.com/keep"] },
  } as ConfigMap);
  await c.client.delete(namespaces, { name: "shop" });
  await c.until(async () => {
    const conditions = (await c.find(namespaces, "shop"))?.status?.conditions;
    return conditions?.find((x) => x.type === "NamespaceFinalizersRemaining")?.status === "True";
  }, "names the finalizer");
  const conditions = (await c.find(namespaces, "shop"))?.status?.conditions;
  expect(conditions?.find((x) => x.type === "NamespaceFinalizersRemaining")?.message).toBe(
    "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances",
  );
  await c.client.patch(configMaps, { name: "held", namespace: "shop" }, { metadata: { finalizers: null } });
  await c.until(async () => (await c.find(namespaces, "shop")) === undefined, "namespace is gone", 60_000);
});
