// What the server serves is listed as APIServices, its own and those of custom resources.
import { afterEach, expect, test } from "vitest";
import { localApiService } from "#model/api-services.ts";
import { allResources, apiServices } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

test("every group and version is there and available, and comes back", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const versions = new Set(
    allResources
      .filter(({ group }) => group !== "apiregistration.k8s.io")
      .map(({ group, version }) => `${version}.${group}`),
  );
  const available = async () =>
    (await c.list(apiServices))
      .filter(({ status }) => status?.conditions?.[0]?.reason === "Local")
      .map((s) => s.metadata.name);
  await c.until(async () => (await available()).length === versions.size, "all are there");
  expect(new Set(await available())).toEqual(versions);
  await c.client.delete(apiServices, { name: "v1.apps" });
  await c.until(async () => (await available()).includes("v1.apps"), "is back");
  const foreign = {
    metadata: { name: "v1.example.com" },
    spec: {
      group: "example.com",
      version: "v1",
      service: { namespace: "default", name: "s" },
      groupPriorityMinimum: 100,
      versionPriority: 100,
    },
  };
  await c.client.create(apiServices, foreign);
  await c.advance(5000);
  const found = await c.find(apiServices, "v1.example.com");
  expect(found?.spec.service?.port).toBe(443);
  expect(found?.status?.conditions ?? []).toEqual([]);
});

test("that of an API which is no longer on goes", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const of = (name: string) => c.find(apiServices, name);
  await c.client.create(apiServices, localApiService("networking.k8s.io", "v1beta1", "onstart"));
  await c.until(async () => (await of("v1beta1.networking.k8s.io")) === undefined, "it is gone");
  expect(await of("v1.networking.k8s.io")).toBeDefined();
});
