// A node falls silent: it is not known to be ready, its pods move to another node after five minutes, and what is left
// of it is cleaned up. On a cluster where every node is silent nothing is evicted.
import { afterEach, expect, test } from "vitest";
import type { Node } from "#model/gen/core-v1.ts";
import { deployments, events, nodes, pods } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";
import { webDeployment } from "./objects.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

const ready = (node: Node | undefined) => node?.status?.conditions?.find((x) => x.type === "Ready");
const taintsOf = (node: Node | undefined) => (node?.spec.taints ?? []).map((t) => `${t.key}:${t.effect}`).sort();
const running = async (c: InMemoryCluster) =>
  (await c.list(pods, "default")).filter((p) => !p.metadata.deletionTimestamp && p.status?.phase === "Running");

test("pods of a silent node move after their toleration, and are removed with the node", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2 });
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 4 }));
  await c.until(
    async () => (await c.find(deployments, "web", "default"))?.status?.availableReplicas === 4,
    "available",
  );
  const told = async () =>
    (await c.list(events)).filter((e) => e.involvedObject.name === "node-2").map((e) => e.message);
  expect(await told()).toContain("Node node-2 event: Registered Node node-2 in Controller");
  const before = (await running(c)).filter((p) => p.spec.nodeName === "node-2").length;
  expect(before).toBeGreaterThan(0);

  c.kubelets.get("node-2")!.isCut = true;
  await c.advance(45_000);
  expect(ready(await c.find(nodes, "node-2"))?.status).toBe("True");
  await c.until(async () => ready(await c.find(nodes, "node-2"))?.status === "Unknown", "node is unknown", 30_000);
  expect(ready(await c.find(nodes, "node-2"))).toMatchObject({
    reason: "NodeStatusUnknown",
    message: "Kubelet stopped posting node status.",
  });
  await c.until(async () => taintsOf(await c.find(nodes, "node-2")).length === 2, "tainted", 20_000);
  expect(taintsOf(await c.find(nodes, "node-2"))).toEqual([
    "node.kubernetes.io/unreachable:NoExecute",
    "node.kubernetes.io/unreachable:NoSchedule",
  ]);
  await c.until(async () => {
    const d = await c.find(deployments, "web", "default");
    return (d?.status?.availableReplicas ?? 0) === 4 - before;
  }, "pods there count as not ready");

  await c.advance(280_000);
  expect((await c.list(pods, "default")).filter((p) => p.metadata.deletionTimestamp)).toEqual([]);
  await c.until(
    async () => (await running(c)).filter((p) => p.spec.nodeName === "node-1").length === 4,
    "moved",
    60_000,
  );
  const evicted = (await c.list(pods, "default")).filter((p) => p.spec.nodeName === "node-2");
  expect(evicted).toHaveLength(before);
  expect(evicted[0]?.status?.conditions?.find((x) => x.type === "DisruptionTarget")?.reason).toBe(
    "DeletionByTaintManager",
  );
  expect((await c.list(events, "default")).map((e) => e.reason)).toContain("TaintManagerEviction");

  await c.client.delete(nodes, { name: "node-2" });
  await c.until(async () => (await c.list(pods, "default")).length === 4, "pods of the removed node are gone", 120_000);
  expect(await told()).toContain("Node node-2 event: Removing Node node-2 from Controller");
  expect(c.metrics.render()).toContain('node_collector_evictions_total{zone=""} 1');
});

test("a node that comes back in time keeps its pods", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2 });
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 4 }));
  await c.until(
    async () => (await c.find(deployments, "web", "default"))?.status?.availableReplicas === 4,
    "available",
  );
  const before = (await running(c)).map((p) => p.metadata.uid).sort();
  c.kubelets.get("node-2")!.isCut = true;
  await c.until(async () => taintsOf(await c.find(nodes, "node-2")).length === 2, "tainted", 90_000);
  c.kubelets.get("node-2")!.reconnect();
  await c.until(async () => taintsOf(await c.find(nodes, "node-2")).length === 0, "taints are gone", 60_000);
  await c.advance(400_000);
  expect((await running(c)).map((p) => p.metadata.uid).sort()).toEqual(before);
});

test("a zone that is down as a whole is emptied one node after the other, and not at all when all are down", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 3 });
  const c = cluster;
  const zones = { "node-1": "a", "node-2": "b", "node-3": "b" };
  for (const [name, zone] of Object.entries(zones)) {
    await c.client.patch(nodes, { name }, { metadata: { labels: { "topology.kubernetes.io/zone": zone } } });
  }
  const evicted = async () => {
    const all = await c.list(nodes);
    return all.filter((node) => taintsOf(node).includes("node.kubernetes.io/unreachable:NoExecute")).length;
  };
  await c.advance(60_000);
  for (const name of ["node-2", "node-3"]) c.kubelets.get(name)!.isCut = true;
  await c.until(async () => (await evicted()) === 1, "the first", 90_000);
  await c.advance(5000);
  expect(await evicted()).toBe(1);
  await c.until(async () => (await evicted()) === 2, "the second", 15_000);
  const text = c.metrics.render();
  expect(text).toContain('node_collector_zone_size{zone="b"} 2');
  expect(text).toContain('node_collector_zone_health{zone="b"} 0');
  expect(text).toContain('node_collector_unhealthy_nodes_in_zone{zone="a"} 0');
  c.kubelets.get("node-1")!.isCut = true;
  await c.until(async () => (await evicted()) === 0, "nobody is", 90_000);
  await c.advance(60_000);
  expect(await evicted()).toBe(0);
});

test("when every node is silent nothing is evicted", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 1 });
  const c = cluster;
  await c.client.create(deployments, webDeployment({ replicas: 2 }));
  await c.until(
    async () => (await c.find(deployments, "web", "default"))?.status?.availableReplicas === 2,
    "available",
  );
  c.kubelets.get("node-1")!.isCut = true;
  await c.advance(900_000);
  expect(taintsOf(await c.find(nodes, "node-1"))).toEqual(["node.kubernetes.io/unreachable:NoSchedule"]);
  expect((await c.list(pods, "default")).filter((p) => p.metadata.deletionTimestamp)).toEqual([]);
});

test("cordoning taints a node and uncordoning takes the taint off", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.patch(nodes, { name: "node-1" }, { spec: { unschedulable: true } });
  await c.until(async () => taintsOf(await c.find(nodes, "node-1")).length === 1, "tainted", 10_000);
  expect(taintsOf(await c.find(nodes, "node-1"))).toEqual(["node.kubernetes.io/unschedulable:NoSchedule"]);
  await c.client.patch(nodes, { name: "node-1" }, { spec: { unschedulable: null } });
  await c.until(async () => taintsOf(await c.find(nodes, "node-1")).length === 0, "untainted", 10_000);
});
