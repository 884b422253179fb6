// An idle cluster is idle: an hour in which nothing happens writes nothing but heartbeats. Flash wears and batteries
// drain by what loops do when there is nothing to do.
import { afterEach, expect, test } from "vitest";
import { allResources, deployments, jobs, leases, services } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { batchJob, webDeployment, webService } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

async function versions(c: InMemoryCluster): Promise<Map<string, string>> {
  const out = new Map<string, string>();
  for (const resource of allResources) {
    if (resource.plural === leases.plural || !resource.verbs.includes("list") || !resource.verbs.includes("create"))
      continue;
    for (const object of await c.list(resource)) {
      const { namespace = "", name = "", resourceVersion = "" } = object.metadata;
      out.set(`${resource.plural}.${resource.group}/${namespace}/${name}`, resourceVersion);
    }
  }
  return out;
}

test("an hour with a deployment, a service, and a finished job changes nothing", async () => {
  cluster = await InMemoryCluster.start({
    behaviour: (pod) => (pod.spec.containers[0]?.name === "work" ? { exitAfterMs: 100 } : {}),
  });
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 3, progressDeadlineSeconds: 60 }));
  await c.client.create(services, webService());
  await c.client.create(jobs, batchJob());
  await c.until(
    async () => (await c.find(deployments, "web", "default"))?.status?.availableReplicas === 3,
    "available",
  );
  await c.advance(120_000);
  const before = await versions(c);
  expect(before.size).toBeGreaterThan(15);
  const revision = c.datastore.revision();
  await c.advance(3_600_000);
  expect(await versions(c)).toEqual(before);
  // One node renews its lease every ten seconds.
  expect(c.datastore.revision() - revision).toBeLessThanOrEqual(361);
});
