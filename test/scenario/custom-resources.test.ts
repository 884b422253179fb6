// Custom resources among the rest of a cluster: they own and are owned, they go with their namespace, and what a
// definition leaves behind goes too.
import { afterEach, expect, test } from "vitest";
import type { CustomResourceDefinition } from "#model/custom-resources.ts";
import { walkableResourceOf } from "#model/custom-resources.ts";
import type { ConfigMap, Namespace } from "#model/gen/core-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { configMaps, customResourceDefinitions, namespaces } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

const definition: CustomResourceDefinition = {
  metadata: { name: "boats.example.com" },
  spec: {
    group: "example.com",
    scope: "Namespaced",
    names: { plural: "boats", kind: "Boat" },
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
      },
    ],
  },
};

async function start() {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(customResourceDefinitions, structuredClone(definition));
  const established = async () => walkableResourceOf((await c.find(customResourceDefinitions, "boats.example.com"))!);
  await c.until(async () => (await established()) !== undefined, "established");
  const boats = (await established())!;
  const boat = (name: string, namespace: string): ApiObject => ({ metadata: { name, namespace } });
  const load = (name: string, owner: ApiObject): ConfigMap => ({
    metadata: {
      name,
      namespace: owner.metadata.namespace!,
      ownerReferences: [
        { apiVersion: "example.com/v1", kind: "Boat", name: owner.metadata.name!, uid: owner.metadata.uid! },
      ],
    },
  });
  return { c, boats, boat, load };
}

test("what a custom resource owns goes with it, or stays where it is orphaned", async () => {
  const { c, boats, boat, load } = await start();
  const one = await c.client.create(boats, boat("one", "default"));
  const two = await c.client.create(boats, boat("two", "default"));
  await c.client.create(configMaps, load("of-one", one));
  await c.client.create(configMaps, load("of-two", two));
  await c.advance(2000);
  expect(await c.find(configMaps, "of-one", "default")).toBeDefined();
  await c.client.delete(boats, { name: "one", namespace: "default" });
  await c.client.delete(boats, { name: "two", namespace: "default" }, { propagationPolicy: "Orphan" });
  await c.until(async () => (await c.find(configMaps, "of-one", "default")) === undefined, "owned is gone");
  await c.until(async () => (await c.find(boats, "two", "default")) === undefined, "orphaner is gone");
  await c.advance(3000);
  expect((await c.find(configMaps, "of-two", "default"))?.metadata.ownerReferences ?? []).toEqual([]);
});

test("a namespace takes its custom resources with it", async () => {
  const { c, boats, boat } = await start();
  await c.client.create(namespaces, { metadata: { name: "harbour" }, spec: {} } as Namespace);
  await c.client.create(boats, boat("moored", "harbour"));
  await c.client.create(boats, boat("elsewhere", "default"));
  await c.client.delete(namespaces, { name: "harbour" });
  await c.until(async () => (await c.find(namespaces, "harbour")) === undefined, "namespace is gone");
  expect((await c.list(boats)).map((b) => b.metadata.name)).toEqual(["elsewhere"]);
});

test("with its definition goes every instance and what those own", async () => {
  const { c, boats, boat, load } = await start();
  const one = await c.client.create(boats, boat("one", "default"));
  await c.client.create(configMaps, load("of-one", one));
  await c.advance(2000);
  await c.client.delete(customResourceDefinitions, { name: "boats.example.com" });
  await c.until(
    async () => (await c.find(customResourceDefinitions, "boats.example.com")) === undefined,
    "definition is gone",
  );
  await c.until(async () => (await c.find(configMaps, "of-one", "default")) === undefined, "owned is gone");
  await c.client.create(customResourceDefinitions, structuredClone(definition));
  await c.advance(1000);
  expect(await c.list(boats)).toEqual([]);
});
