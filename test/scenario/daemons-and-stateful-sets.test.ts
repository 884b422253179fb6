// One pod per node, and pods with lasting names: both are rolled, and both keep their order.
import { afterEach, expect, test } from "vitest";
import type { DaemonSet, StatefulSet } from "#model/gen/apps-v1.ts";
import {
  controllerRevisions,
  daemonSets,
  events,
  nodes,
  persistentVolumeClaims,
  pods,
  resourceQuotas,
  statefulSets,
} from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});

const template = (image: string) => ({
  metadata: { labels: { app: "x" } },
  spec: { containers: [{ name: "x", image }] },
});
const target = { name: "x", namespace: "default" };
const strategic = { type: "application/strategic-merge-patch+json" } as const;
const newImage = (image: string) => ({ spec: { template: { spec: { containers: [{ name: "x", image }] } } } });

test("a daemon set covers fitting nodes, follows them, and rolls one node at a time", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 3 });
  const c = cluster;
  const status = async () => (await c.find(daemonSets, "x", "default"))?.status;
  await c.client.create(daemonSets, {
    metadata: target,
    spec: { selector: { matchLabels: { app: "x" } }, template: template("v1") },
  } as DaemonSet);
  await c.until(async () => (await status())?.numberAvailable === 3, "on all nodes");
  const where = (await c.list(pods, "default")).map((p) => p.spec.nodeName).sort();
  expect(where).toEqual(["node-1", "node-2", "node-3"]);

  let most = 0;
  const store = c.informers.informer(pods);
  const look = () => {
    const ready = store
      .list("default")
      .filter(
        (p) =>
          !p.metadata.deletionTimestamp && p.status?.conditions?.some((x) => x.type === "Ready" && x.status === "True"),
      );
    most = Math.max(most, 3 - ready.length);
  };
  const unsubscribe = store.addHandler({ update: look, delete: look });
  await c.client.patch(daemonSets, target, newImage("v2"), strategic);
  await c.until(
    async () => (await status())?.updatedNumberScheduled === 3 && (await status())?.numberAvailable === 3,
    "rolled",
  );
  unsubscribe();
  expect(most).toBe(1);
  expect((await c.list(controllerRevisions, "default")).map((r) => r.revision).sort()).toEqual([1, 2]);

  // Cordoned nodes keep their daemon pods; nodes that no longer fit lose them.
  await c.client.patch(nodes, { name: "node-1" }, { spec: { unschedulable: true } });
  await c.client.patch(daemonSets, target, {
    spec: { template: { spec: { nodeSelector: { "kubernetes.io/hostname": "node-1" } } } },
  });
  await c.until(async () => {
    const all = await c.list(pods, "default");
    return all.length === 1 && all[0]?.spec.nodeName === "node-1" && (await status())?.numberAvailable === 1;
  }, "only where it fits");
  expect((await status())?.desiredNumberScheduled).toBe(1);
});

test("a stateful set grows in order, rolls from the end, and shrinks from the end", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 2 });
  const c = cluster;
  const order: string[] = [];
  c.informers.informer(pods).addHandler({
    add: (p) => order.push(`+${p.metadata.name}`),
    delete: (p) => order.push(`-${p.metadata.name}`),
  });
  const status = async () => (await c.find(statefulSets, "x", "default"))?.status;
  await c.client.create(statefulSets, {
    metadata: target,
    spec: { replicas: 3, serviceName: "x", selector: { matchLabels: { app: "x" } }, template: template("v1") },
  } as StatefulSet);
  await c.until(async () => (await status())?.availableReplicas === 3, "three");
  expect(order).toEqual(["+x-0", "+x-1", "+x-2"]);
  const first = await c.find(pods, "x-0", "default");
  expect([first?.spec.hostname, first?.spec.subdomain]).toEqual(["x-0", "x"]);
  expect(first?.metadata.labels?.["apps.kubernetes.io/pod-index"]).toBe("0");

  order.length = 0;
  await c.client.patch(statefulSets, target, newImage("v2"), strategic);
  await c.until(async () => {
    const s = await status();
    return s?.currentRevision === s?.updateRevision && s?.updatedReplicas === 3 && s?.readyReplicas === 3;
  }, "rolled");
  expect(order).toEqual(["-x-2", "+x-2", "-x-1", "+x-1", "-x-0", "+x-0"]);

  order.length = 0;
  await c.client.patch(statefulSets, target, { spec: { replicas: 1 } });
  await c.until(async () => (await status())?.replicas === 1, "one is left");
  expect(order).toEqual(["-x-2", "-x-1"]);
});

test("a pod of a stateful set gets the labels of its place back, and one that has ended is made anew", async () => {
  const ends = new Set<string>();
  cluster = await InMemoryCluster.start({
    behaviour: (pod) => (ends.has(pod.metadata.uid ?? "") ? { exitAfterMs: 1, exitCode: 1 } : {}),
  });
  const c = cluster;
  await c.client.create(statefulSets, {
    metadata: target,
    spec: { replicas: 1, serviceName: "x", selector: { matchLabels: { app: "x" } }, template: template("v1") },
  } as StatefulSet);
  const pod = () => c.find(pods, "x-0", "default");
  const isRunning = async () => (await pod())?.status?.phase === "Running";
  await c.until(isRunning, "runs");
  const said = async (reason: string) =>
    (await c.list(events, "default")).filter((one) => one.reason === reason).map((one) => one.message);
  const names = ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"] as const;
  const labels = { [names[0]]: "other", [names[1]]: null };
  await c.client.patch(pods, { name: "x-0", namespace: "default" }, { metadata: { labels } });
  const place = async () => names.map((one) => pod().then((is) => is?.metadata.labels?.[one]));
  await c.until(async () => (await Promise.all(await place())).join() === "x-0,0", "labels are back");
  await c.until(async () => (await said("SuccessfulUpdate")).length > 0, "told");
  expect(await said("SuccessfulUpdate")).toEqual(["update Pod x-0 in StatefulSet x successful"]);

  const uid = (await pod())?.metadata.uid ?? "";
  ends.add(uid);
  await c.client.patch(pods, { name: "x-0", namespace: "default" }, { metadata: { annotations: { look: "again" } } });
  await c.until(async () => (await pod())?.metadata.uid !== uid && (await isRunning()), "a new one");
  expect(await said("RecreatingFailedPod")).toEqual(["StatefulSet default/x is recreating failed Pod x-0"]);
});

test("a partition holds the roll, and a lost pod below it comes back as it was", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const status = async () => (await c.find(statefulSets, "x", "default"))?.status;
  const images = async () =>
    Object.fromEntries((await c.list(pods, "default")).map((p) => [p.metadata.name, p.spec.containers[0]?.image]));
  await c.client.create(statefulSets, {
    metadata: target,
    spec: {
      replicas: 3,
      serviceName: "x",
      selector: { matchLabels: { app: "x" } },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { partition: 2 } },
      template: template("v1"),
    },
  } as StatefulSet);
  await c.until(async () => (await status())?.availableReplicas === 3, "three");
  await c.client.patch(statefulSets, target, newImage("v2"), strategic);
  await c.until(
    async () => (await status())?.updatedReplicas === 1 && (await status())?.availableReplicas === 3,
    "one rolled",
  );
  await c.client.delete(pods, { name: "x-0", namespace: "default" });
  await c.advance(5000);
  await c.until(async () => (await status())?.availableReplicas === 3, "back");
  expect(await images()).toEqual({ "x-0": "v1", "x-1": "v1", "x-2": "v2" });
});

test("with a surge every node keeps a working pod while it rolls", async () => {
  cluster = await InMemoryCluster.start({ nodeCount: 3 });
  const c = cluster;
  const status = async () => (await c.find(daemonSets, "x", "default"))?.status;
  await c.client.create(daemonSets, {
    metadata: target,
    spec: {
      selector: { matchLabels: { app: "x" } },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: template("v1"),
    },
  } as DaemonSet);
  await c.until(async () => (await status())?.numberAvailable === 3, "on all nodes");
  let least = 3;
  let most = 3;
  const store = c.informers.informer(pods);
  const look = () => {
    const all = store.list("default").filter((p) => !p.metadata.deletionTimestamp);
    const ready = all.filter((p) => p.status?.conditions?.some((x) => x.type === "Ready" && x.status === "True"));
    least = Math.min(least, new Set(ready.map((p) => p.spec.nodeName)).size);
    most = Math.max(most, all.length);
  };
  const unsubscribe = store.addHandler({ add: look, update: look, delete: look });
  await c.client.patch(daemonSets, target, newImage("v2"), strategic);
  await c.until(async () => {
    const images = (await c.list(pods, "default")).map((p) => p.spec.containers[0]?.image);
    return images.length === 3 && images.every((image) => image === "v2");
  }, "rolled");
  unsubscribe();
  expect([least, most]).toEqual([3, 4]);
});

test("a stateful set that cannot have all its pods says so of the template it has", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  const hard = { pods: "1" };
  await c.client.create(resourceQuotas, { metadata: { name: "q", namespace: "default" }, spec: { hard } });
  await c.until(async () => (await c.find(resourceQuotas, "q", "default"))?.status?.used !== undefined, "counted");
  await c.client.create(statefulSets, {
    metadata: target,
    spec: {
      replicas: 2,
      serviceName: "x",
      podManagementPolicy: "Parallel",
      updateStrategy: { type: "OnDelete" },
      selector: { matchLabels: { app: "x" } },
      template: template("v1"),
    },
  } as StatefulSet);
  const status = async () => (await c.find(statefulSets, "x", "default"))?.status;
  await c.until(async () => (await status())?.readyReplicas === 1, "one of two");
  await c.client.patch(statefulSets, target, newImage("v2"), strategic);
  await c.until(async () => (await status())?.observedGeneration === 2, "the new template is seen");
});

test("a claim that is deleted before its pod has started is made again", async () => {
  cluster = await InMemoryCluster.start();
  const c = cluster;
  await c.client.create(statefulSets, {
    metadata: target,
    spec: {
      replicas: 1,
      serviceName: "x",
      selector: { matchLabels: { app: "x" } },
      template: template("v1"),
      volumeClaimTemplates: [
        {
          metadata: { name: "data" },
          spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } },
        },
      ],
    },
  } as StatefulSet);
  const claim = () => c.find(persistentVolumeClaims, "data-x-0", "default");
  await c.until(async () => (await c.find(pods, "x-0", "default")) !== undefined, "the pod waits for its volume");
  const before = (await claim())?.metadata.uid;
  expect(before).toBeDefined();
  await c.client.delete(persistentVolumeClaims, { name: "data-x-0", namespace: "default" });
  await c.until(async () => {
    const now = (await claim())?.metadata.uid;
    return now !== undefined && now !== before;
  }, "a new claim");
});
