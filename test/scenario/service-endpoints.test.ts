// A service follows its pods: endpoints appear when pods are ready, leave when they end, and go with the service.
import { afterEach, expect, test } from "vitest";
import { deployments, endpointSlices, endpoints, services } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment, webService } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

const target = { name: "web", namespace: "default" };
const readyIn = async (c: InMemoryCluster) =>
  (await c.list(endpointSlices, "default")).flatMap((s) => s.endpoints ?? []).filter((e) => e.conditions?.ready).length;

test("endpoints and slices follow readiness, scale and deletion", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(services, webService());
  await c.until(async () => (await c.list(endpointSlices, "default")).length === 1, "an empty slice says: nobody");
  await c.client.create(deployments, webDeployment({ replicas: 3 }));
  await c.until(async () => (await readyIn(c)) === 3, "three ready");
  const slices = await c.list(endpointSlices, "default");
  const filled = slices.filter((s) => (s.endpoints ?? []).length > 0);
  expect(filled).toHaveLength(1);
  expect(filled[0]).toMatchObject({
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080, protocol: "TCP" }],
    metadata: {
      labels: {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
      },
    },
  });
  await c.until(async () => {
    const old = await c.find(endpoints, "web", "default");
    return old?.subsets?.[0]?.addresses?.length === 3 && old.subsets[0].ports?.[0]?.port === 8080;
  }, "endpoints object");
  await c.client.patch(deployments, target, { spec: { replicas: 1 } });
  await c.until(async () => (await readyIn(c)) === 1, "one ready");
  await c.until(
    async () => (await c.find(endpoints, "web", "default"))?.subsets?.[0]?.addresses?.length === 1,
    "endpoints object follows",
  );
  await c.client.delete(services, target);
  await c.until(async () => (await c.list(endpointSlices, "default")).length === 0, "slices go with the service");
  await c.until(async () => (await c.find(endpoints, "web", "default")) === undefined, "endpoints go with the service");
});
