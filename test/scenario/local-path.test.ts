// A stateful set with claims on a cluster as it comes: volumes are made on the node of each pod, stay with their pod, and
// go when claims go, by hand or by the set's retention policy.
import { afterEach, expect, test } from "vitest";
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import {
  nodes,
  persistentVolumeClaims,
  persistentVolumes,
  pods,
  statefulSets,
  storageClasses,
} from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  await cluster?.stop();
  cluster = undefined;
});

const target = { name: "db", namespace: "default" };
const database = (replicas: number, retention?: { whenDeleted: string; whenScaled: string }): StatefulSet =>
  ({
    metadata: target,
    spec: {
      replicas,
      serviceName: "db",
      selector: { matchLabels: { app: "db" } },
      ...(retention ? { persistentVolumeClaimRetentionPolicy: retention } : {}),
      template: {
        metadata: { labels: { app: "db" } },
        spec: { containers: [{ name: "db", image: "db", volumeMounts: [{ name: "data", mountPath: "/data" }] }] },
      },
      volumeClaimTemplates: [
        {
          metadata: { name: "data" },
          spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } },
        },
      ],
    },
  }) as StatefulSet;

async function begin(replicas: number, retention?: { whenDeleted: string; whenScaled: string }) {
  const c = await InMemoryCluster.start({ nodeCount: 2, localPath: "/data/storage" });
  cluster = c;
  await c.until(async () => (await c.find(storageClasses, "local-path")) !== undefined, "the class is there");
  await c.client.create(statefulSets, database(replicas, retention));
  const ready = async () => (await c.find(statefulSets, "db", "default"))?.status?.readyReplicas ?? 0;
  const claims = async () => (await c.list(persistentVolumeClaims)).map((one) => one.metadata.name).sort();
  await c.until(async () => (await ready()) === replicas, "all are ready");
  return { c, ready, claims };
}

test("each pod has a volume on its node and finds it again", async () => {
  const { c, ready, claims } = await begin(2);
  expect(await claims()).toEqual(["data-db-0", "data-db-1"]);
  const volumeOf = async (pod: string) => {
    const claim = await c.find(persistentVolumeClaims, `data-${pod}`, "default");
    const volume = await c.find(persistentVolumes, claim?.spec.volumeName ?? "");
    return { claim, volume };
  };
  const { claim, volume } = await volumeOf("db-0");
  expect(volume).toMatchObject({
    metadata: {
      name: `pvc-${claim?.metadata.uid}`,
      annotations: { "pv.kubernetes.io/provisioned-by": "rancher.io/local-path" },
    },
    spec: {
      capacity: { storage: "1Gi" },
      local: { path: `/data/storage/pvc-${claim?.metadata.uid}_default_data-db-0` },
      persistentVolumeReclaimPolicy: "Delete",
    },
    status: { phase: "Bound" },
  });
  const node = (await c.find(pods, "db-0", "default"))?.spec.nodeName;
  expect(volume?.spec.nodeAffinity?.required?.nodeSelectorTerms?.[0]?.matchExpressions?.[0]?.values).toEqual([node]);

  const uid = (await c.find(pods, "db-0", "default"))?.metadata.uid;
  await c.client.delete(pods, { name: "db-0", namespace: "default" });
  const isBack = async () => {
    const pod = await c.find(pods, "db-0", "default");
    return pod !== undefined && pod.metadata.uid !== uid && (await ready()) === 2;
  };
  await c.until(isBack, "it is back");
  expect((await c.find(pods, "db-0", "default"))?.spec.nodeName).toBe(node);
  expect((await volumeOf("db-0")).volume?.metadata.uid).toBe(volume?.metadata.uid);

  // Retain is the default: claims outlive the set, volumes go with the claims.
  await c.client.delete(statefulSets, target);
  await c.until(async () => (await c.list(pods, "default")).length === 0, "pods are gone");
  await c.advance(10_000);
  expect(await claims()).toEqual(["data-db-0", "data-db-1"]);
  await c.client.delete(persistentVolumeClaims, { name: "data-db-0", namespace: "default" });
  await c.until(async () => (await c.list(persistentVolumes)).length === 1, "its volume is gone");
});

test("claims go with what is scaled away, and with the set, where it says so", async () => {
  const { c, ready, claims } = await begin(3, { whenDeleted: "Delete", whenScaled: "Delete" });
  await c.client.patch(statefulSets, target, { spec: { replicas: 1 } });
  await c.until(async () => (await claims()).length === 1, "two claims are gone");
  await c.until(async () => (await c.list(persistentVolumes)).length === 1, "two volumes are gone");
  await c.client.patch(statefulSets, target, { spec: { replicas: 2 } });
  await c.until(async () => (await ready()) === 2, "grown again");
  expect(await claims()).toEqual(["data-db-0", "data-db-1"]);
  await c.client.delete(statefulSets, target);
  await c.until(async () => (await c.list(persistentVolumes)).length === 0, "everything is gone");
  expect(await claims()).toEqual([]);
});

test("the volume of a node that is no more does not wait for it", async () => {
  const { c } = await begin(1);
  const node = (await c.find(pods, "db-0", "default"))?.spec.nodeName ?? "";
  const kubelet = c.kubelets.get(node);
  if (kubelet) kubelet.isCut = true;
  await c.client.delete(statefulSets, target);
  await c.client.delete(persistentVolumeClaims, { name: "data-db-0", namespace: "default" });
  await c.client.delete(pods, { name: "db-0", namespace: "default" }, { gracePeriodSeconds: 0 });
  await c.advance(30_000);
  expect((await c.list(persistentVolumes)).map((one) => one.status?.phase)).toEqual(["Released"]);
  await c.client.delete(nodes, { name: node });
  await c.until(async () => (await c.list(persistentVolumes)).length === 0, "let go");
});

test("it comes out right although a tenth of all requests is lost", async () => {
  const c = await InMemoryCluster.start({ nodeCount: 3, localPath: "/data/storage", seed: 7 });
  cluster = c;
  c.faultRate = 0.1;
  const parallel = database(6, { whenDeleted: "Delete", whenScaled: "Retain" });
  parallel.spec.podManagementPolicy = "Parallel";
  await c.until(async () => (await c.find(storageClasses, "local-path")) !== undefined, "the class is there", 300_000);
  await c.client.create(statefulSets, parallel);
  const ready = async () => (await c.find(statefulSets, "db", "default"))?.status?.readyReplicas ?? 0;
  await c.until(async () => (await ready()) === 6, "all are ready", 20 * 60_000);
  const volumes = await c.list(persistentVolumes);
  const claims = await c.list(persistentVolumeClaims);
  expect(volumes.length).toBe(6);
  for (const claim of claims) {
    const volume = volumes.find((one) => one.metadata.name === claim.spec.volumeName);
    expect(volume?.spec.claimRef?.uid).toBe(claim.metadata.uid);
    const pod = await c.find(pods, claim.metadata.name?.replace("data-", "") ?? "", "default");
    expect(volume?.spec.nodeAffinity?.required?.nodeSelectorTerms?.[0]?.matchExpressions?.[0]?.values).toEqual([
      pod?.spec.nodeName,
    ]);
  }
  await c.client.delete(statefulSets, target);
  await c.until(async () => (await c.list(persistentVolumes)).length === 0, "everything is gone", 30 * 60_000);
  c.faultRate = 0;
});
