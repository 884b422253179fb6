// A service follows its pods: endpoints appear when pods are ready, leave when they end, and go with the service.
import { afterEach, expect, test } from "vitest";
import type { EndpointSubset, Endpoints, Service } from "#model/gen/core-v1.ts";
import { deployments, endpointSlices, endpoints, events, nodes, pods, services } from "#model/resources.ts";
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

test("hand-made endpoints of a service without selector are mirrored into slices", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const service = { metadata: { name: "own", namespace: "default" }, spec: { ports: [{ name: "p", port: 80 }] } };
  await c.client.create(services, service as Service);
  const subset = (ip: string, port: number): EndpointSubset => ({
    addresses: [{ ip }],
    notReadyAddresses: [{ ip: "10.9.9.9" }],
    ports: [{ name: "p", port, protocol: "TCP" }],
  });
  const made = await c.client.create(endpoints, {
    metadata: { name: "own", namespace: "default", labels: { mine: "yes" }, annotations: { note: "n" } },
    subsets: [subset("10.1.2.3", 80)],
  } as Endpoints);
  const mirrored = () => c.list(endpointSlices, "default");
  await c.until(async () => (await mirrored()).length === 1, "a slice");
  expect((await mirrored())[0]).toMatchObject({
    metadata: {
      labels: {
        mine: "yes",
        "kubernetes.io/service-name": "own",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
      },
      annotations: { note: "n" },
      ownerReferences: [{ kind: "Endpoints", name: "own" }],
    },
    addressType: "IPv4",
    ports: [{ name: "p", port: 80, protocol: "TCP" }],
    endpoints: [
      { addresses: ["10.1.2.3"], conditions: { ready: true } },
      { addresses: ["10.9.9.9"], conditions: { ready: false } },
    ],
  });
  await c.client.update(endpoints, { ...made, subsets: [subset("10.2.3.4", 9090)] });
  const changed = async () => {
    const all = await mirrored();
    return all.length === 1 && all[0]!.ports?.[0]?.port === 9090 && all[0]!.endpoints[0]?.addresses[0] === "10.2.3.4";
  };
  await c.until(changed, "the slice follows");
  await c.client.delete(endpoints, { name: "own", namespace: "default" });
  await c.until(async () => (await mirrored()).length === 0, "the slice goes");
});

test("endpoints without a service are left alone", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const subsets = [{ addresses: [{ ip: "10.0.0.25" }], ports: [{ name: "http", port: 80, protocol: "TCP" }] }];
  const object = { metadata: { name: "lonely", namespace: "default" }, subsets } as Endpoints;
  await c.client.create(endpoints, object);
  await c.client.create(endpoints, {
    ...object,
    metadata: { ...object.metadata, name: "skipped", labels: { "endpointslice.kubernetes.io/skip-mirror": "true" } },
  });
  const service = { metadata: { name: "skipped", namespace: "default" }, spec: { ports: [{ port: 80 }] } };
  await c.client.create(services, service as Service);
  await c.client.patch(endpoints, { name: "lonely", namespace: "default" }, { metadata: { labels: { a: "b" } } });
  await c.advance(5000);
  expect((await c.find(endpoints, "lonely", "default"))?.metadata.labels).toEqual({ a: "b" });
  expect(await c.list(endpointSlices, "default")).toEqual([]);
});

test("pods of a node that was removed answer for nobody, before they are cleaned up", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2 });
  const c = cluster;
  await c.client.create(services, webService());
  await c.client.create(deployments, webDeployment({ replicas: 4 }));
  await c.until(async () => (await readyIn(c)) === 4, "four ready");
  const nodesIn = async () =>
    (await c.list(endpointSlices, "default")).flatMap((s) => s.endpoints ?? []).map((e) => e.nodeName);
  expect(await nodesIn()).toContain("node-2");
  c.kubelets.get("node-2")!.isCut = true;
  await c.client.delete(nodes, { name: "node-2" });
  await c.until(async () => !(await nodesIn()).includes("node-2"), "none there", 5000);
  expect((await c.list(pods, "default")).some((pod) => pod.spec.nodeName === "node-2")).toBe(true);
});

test("topology-mode: Auto gives each zone its share, and says why where that cannot be", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2 });
  const c = cluster;
  const labels = (zone: string | null) => ({ metadata: { labels: { "topology.kubernetes.io/zone": zone } } });
  await c.client.patch(nodes, { name: "node-1" }, labels("a"));
  await c.client.create(deployments, webDeployment({ replicas: 4 }));
  const service = webService();
  service.metadata.annotations = { "service.kubernetes.io/topology-mode": "Auto" };
  await c.client.create(services, service);
  const hints = async () =>
    (await c.list(endpointSlices, "default"))
      .flatMap((slice) => slice.endpoints ?? [])
      .map((endpoint) => endpoint.hints?.forZones?.map(({ name }) => name).join() ?? "-")
      .sort()
      .join(" ");
  const said = async (text: string) => (await c.list(events, "default")).some((event) => event.message === text);
  await c.until(async () => (await readyIn(c)) === 4, "four ready");
  await c.until(
    () =>
      said(
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes, addressType: IPv4",
      ),
    "no zone, no hints",
  );
  expect(await hints()).toBe("- - - -");
  await c.client.patch(nodes, { name: "node-2" }, labels("b"));
  await c.until(async () => (await hints()) === "a a b b", "hints");
  await c.until(() => said("Topology Aware Hints has been enabled, addressType: IPv4"), "event");
  await c.client.patch(services, target, {
    metadata: { annotations: { "service.kubernetes.io/topology-mode": null } },
  });
  await c.until(async () => (await hints()) === "- - - -", "none any more");
  await c.until(() => said("Topology Aware Hints has been disabled, addressType: IPv4"), "event");
  await c.client.patch(services, target, { spec: { trafficDistribution: "PreferClose" } });
  await c.until(async () => !(await hints()).includes("-"), "the zone of each");
  expect(c.metrics.render()).toMatch(/endpoint_slice_controller_changes\{operation="update"\} \d/);
});

test("services whose addresses lie outside of a range that was changed are told, others are not", async () => {
  const said = async (cidr: string) => {
    cluster = await InMemoryCluster.start({ serviceCidr: cidr });
    await cluster.client.create(services, webService());
    await cluster.advance(200_000);
    const all = await cluster.list(events, "default");
    const found = all.filter((event) => event.reason?.startsWith("ClusterIP")).map((event) => event.message ?? "");
    await cluster.stop();
    cluster = undefined;
    return found;
  };
  expect(await said("10.43.0.0/16")).toEqual([]);
  expect(await said("10.44.0.0/16")).toEqual([
    expect.stringMatching(/^Cluster IP \[IPv4\]:10\.43\.\S+ is not within the service CIDR 10\.44\.0\.0\/16;/),
  ]);
});
