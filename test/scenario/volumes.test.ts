// Claims and volumes through their lives: bound, protected, released, lost, made on demand for a pod.
import { afterEach, expect, test } from "vitest";
import type { Event, PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import { events, persistentVolumeClaims, persistentVolumes, pods, storageClasses } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  await cluster?.stop();
  cluster = undefined;
});

const volume = (name: string, spec: Partial<PersistentVolume["spec"]> = {}): PersistentVolume => ({
  metadata: { name },
  spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: `/mnt/${name}` }, ...spec },
});
const claim = (name: string, spec: Partial<PersistentVolumeClaim["spec"]> = {}): PersistentVolumeClaim => ({
  metadata: { name, namespace: "default" },
  spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } }, ...spec },
});
const user = (name: string, claimName: string): Pod => ({
  metadata: { name, namespace: "default" },
  spec: {
    containers: [{ name: "c", image: "x" }],
    volumes: [{ name: "v", persistentVolumeClaim: { claimName } }],
  },
});

async function begin() {
  const c = await InMemoryCluster.start();
  cluster = c;
  const claimPhase = async (name: string) => (await c.find(persistentVolumeClaims, name, "default"))?.status?.phase;
  const volumePhase = async (name: string) => (await c.find(persistentVolumes, name))?.status?.phase;
  const said = async (reason: string) =>
    (await c.list(events)).filter((e: Event) => e.reason === reason).map((e) => e.message);
  return { c, claimPhase, volumePhase, said };
}

test("a claim is bound, kept while a pod uses it, and its volume released after it", async () => {
  const { c, claimPhase, volumePhase, said } = await begin();
  await c.client.create(persistentVolumeClaims, claim("data", { storageClassName: "" }));
  await c.until(async () => (await said("FailedBinding")).length === 1, "nothing to bind to");
  await c.client.create(persistentVolumes, volume("one"));
  await c.until(async () => (await claimPhase("data")) === "Bound", "bound");
  expect((await c.find(persistentVolumeClaims, "data", "default"))?.status).toMatchObject({
    capacity: { storage: "1Gi" },
    accessModes: ["ReadWriteOnce"],
  });

  await c.client.create(pods, user("p", "data"));
  await c.until(async () => (await c.find(pods, "p", "default"))?.status?.phase === "Running", "runs");
  await c.client.delete(persistentVolumeClaims, { name: "data", namespace: "default" });
  await c.client.delete(persistentVolumes, { name: "one" });
  await c.advance(30_000);
  expect(await claimPhase("data")).toBe("Bound");
  expect(await volumePhase("one")).toBe("Bound");

  await c.client.delete(pods, { name: "p", namespace: "default" });
  await c.until(async () => (await claimPhase("data")) === undefined, "claim is gone");
  await c.until(async () => (await volumePhase("one")) === undefined, "volume is gone");
});

test("Retain keeps what was released; who takes the claim away loses it", async () => {
  const { c, claimPhase, volumePhase, said } = await begin();
  await c.client.create(persistentVolumes, volume("kept"));
  await c.client.create(persistentVolumeClaims, claim("a", { storageClassName: "" }));
  await c.until(async () => (await claimPhase("a")) === "Bound", "bound");
  await c.client.delete(persistentVolumeClaims, { name: "a", namespace: "default" });
  await c.until(async () => (await volumePhase("kept")) === "Released", "released");
  await c.client.create(persistentVolumeClaims, claim("a", { storageClassName: "" }));
  await c.advance(5_000);
  expect(await claimPhase("a")).toBe("Pending");
  // By hand, as the documentation says: forget the old claim.
  await c.client.patch(persistentVolumes, { name: "kept" }, { spec: { claimRef: null } });
  await c.until(async () => (await claimPhase("a")) === "Bound", "bound again");

  await c.client.patch(persistentVolumes, { name: "kept" }, { metadata: { finalizers: null } });
  await c.client.delete(persistentVolumes, { name: "kept" });
  await c.client.patch(persistentVolumes, { name: "kept" }, { metadata: { finalizers: null } }).catch(() => {});
  await c.until(async () => (await claimPhase("a")) === "Lost", "lost");
  expect(await said("ClaimLost")).toEqual(["Bound claim has lost its PersistentVolume. Data on the volume is lost!"]);
});

test("each of many claims gets a volume of its own, prebound ones theirs", async () => {
  const { c } = await begin();
  const reserved = { kind: "PersistentVolumeClaim", namespace: "default", name: "c3" };
  await c.client.create(persistentVolumes, volume("for-c3", { claimRef: reserved, capacity: { storage: "9Gi" } }));
  for (let i = 0; i < 4; i++) await c.client.create(persistentVolumes, volume(`v${i}`));
  for (let i = 0; i < 5; i++) {
    await c.client.create(
      persistentVolumeClaims,
      claim(`c${i}`, { storageClassName: "", ...(i === 4 ? { volumeName: "v2" } : {}) }),
    );
  }
  await c.advance(10_000);
  const bound = (await c.list(persistentVolumeClaims)).filter((one) => one.status?.phase === "Bound");
  const owners = new Map((await c.list(persistentVolumes)).map((v) => [v.metadata.name, v.spec.claimRef?.uid]));
  // Whether c4 finds v2 free is a race that it may lose; whoever is bound has its volume alone.
  expect(bound.length).toBeGreaterThanOrEqual(4);
  for (const one of bound) expect(owners.get(one.spec.volumeName)).toBe(one.metadata.uid);
  expect(bound.find((one) => one.metadata.name === "c3")?.spec.volumeName).toBe("for-c3");
});

test("a default class that comes later is given to claims that named none", async () => {
  const { c, said } = await begin();
  await c.client.create(persistentVolumeClaims, claim("late"));
  await c.until(async () => (await said("FailedBinding")).length === 1, "no class");
  const marked: StorageClass = {
    metadata: { name: "std", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
    provisioner: "example.com/p",
  };
  await c.client.create(storageClasses, marked);
  const found = async () => c.find(persistentVolumeClaims, "late", "default");
  await c.until(async () => (await found())?.spec.storageClassName === "std", "has the class");
  await c.until(
    async () => (await found())?.metadata.annotations?.["volume.kubernetes.io/storage-provisioner"] === "example.com/p",
    "the provisioner is told",
  );
});

test("an ephemeral volume has a claim that lives as long as its pod", async () => {
  const { c, claimPhase } = await begin();
  await c.client.create(persistentVolumes, volume("one"));
  await c.client.create(pods, {
    metadata: { name: "p", namespace: "default" },
    spec: {
      containers: [{ name: "c", image: "x" }],
      volumes: [
        { name: "scratch", ephemeral: { volumeClaimTemplate: { spec: claim("", { storageClassName: "" }).spec } } },
      ],
    },
  });
  await c.until(async () => (await claimPhase("p-scratch")) === "Bound", "bound");
  await c.until(async () => (await c.find(pods, "p", "default"))?.status?.phase === "Running", "runs");
  await c.client.delete(pods, { name: "p", namespace: "default" });
  await c.until(async () => (await claimPhase("p-scratch")) === undefined, "gone with its pod");
});

const onNode = (name: string) => ({
  nodeAffinity: {
    required: {
      nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: [name] }] }],
    },
  },
});

test("claims that wait are bound for the node of their pod, each to a local volume of its own", async () => {
  const c = await InMemoryCluster.start({ nodeCount: 2 });
  cluster = c;
  await c.client.create(storageClasses, {
    metadata: { name: "local" },
    provisioner: "kubernetes.io/no-provisioner",
    volumeBindingMode: "WaitForFirstConsumer",
  });
  const local = { storageClassName: "local" };
  for (const i of [1, 2])
    await c.client.create(persistentVolumes, volume(`v${i}`, { ...local, ...onNode(`node-${i}`) }));
  for (const name of ["a", "b", "extra"]) await c.client.create(persistentVolumeClaims, claim(name, local));
  await c.advance(5_000);
  expect((await c.list(persistentVolumeClaims)).map((one) => one.status?.phase)).toEqual([
    "Pending",
    "Pending",
    "Pending",
  ]);
  // At once, so that the second is decided while the first waits for its volume.
  await Promise.all(["a", "b", "extra"].map((name) => c.client.create(pods, user(`p-${name}`, name))));
  const running = async () => (await c.list(pods, "default")).filter((pod) => pod.status?.phase === "Running");
  await c.until(async () => (await running()).length === 2, "two run");
  await c.advance(10_000);
  for (const pod of await running()) {
    const name = pod.spec.volumes?.[0]?.persistentVolumeClaim?.claimName ?? "";
    const bound = await c.find(persistentVolumeClaims, name, "default");
    expect(`node-${bound?.spec.volumeName?.slice(1)}`).toBe(pod.spec.nodeName);
  }
  const waiting = (await c.list(pods, "default")).find((pod) => pod.status?.phase !== "Running");
  expect(waiting?.status?.conditions?.[0]?.message).toContain(
    "2 node(s) didn't find available persistent volumes to bind",
  );
  // Room that comes later is used.
  await c.client.create(persistentVolumes, volume("v3", { ...local, ...onNode("node-1") }));
  await c.until(async () => (await running()).length === 3, "three run");
});

test("a provisioner that gives the node back sends its pod to be scheduled again", async () => {
  const c = await InMemoryCluster.start();
  cluster = c;
  await c.client.create(storageClasses, {
    metadata: { name: "made" },
    provisioner: "d.example",
    volumeBindingMode: "WaitForFirstConsumer",
  });
  await c.client.create(persistentVolumeClaims, claim("c", { storageClassName: "made" }));
  await c.client.create(pods, user("p", "c"));
  const selected = "volume.kubernetes.io/selected-node";
  const find = () => c.find(persistentVolumeClaims, "c", "default");
  await c.until(async () => (await find())?.metadata.annotations?.[selected] === "node-1", "node chosen");
  const target = { name: "c", namespace: "default" };
  await c.client.patch(persistentVolumeClaims, target, { metadata: { annotations: { [selected]: null } } });
  await c.until(
    async () => (await c.list(events)).some((e) => e.message?.includes("selectedNode annotation reset")),
    "said",
  );
  await c.until(async () => (await find())?.metadata.annotations?.[selected] === "node-1", "chosen again");
  const made = await find();
  const claimRef = { kind: "PersistentVolumeClaim", namespace: "default", name: "c", uid: made?.metadata.uid ?? "" };
  await c.client.create(persistentVolumes, volume("made", { storageClassName: "made", claimRef }));
  await c.until(async () => (await c.find(pods, "p", "default"))?.status?.phase === "Running", "runs");
});

test("a claim grows where its class allows it, and says who has to make it so", async () => {
  const { c, claimPhase, said } = await begin();
  const made = { provisioner: "d.example", allowVolumeExpansion: true };
  await c.client.create(storageClasses, { metadata: { name: "grows" }, ...made });
  await c.client.create(storageClasses, { metadata: { name: "fixed" }, provisioner: "d.example" });
  const csi = { driver: "d.example", volumeHandle: "h" };
  const { hostPath: _, ...spec } = volume("g", { storageClassName: "grows" }).spec;
  await c.client.create(persistentVolumes, { metadata: { name: "g" }, spec: { ...spec, csi } });
  await c.client.create(persistentVolumes, volume("f", { storageClassName: "fixed" }));
  await c.client.create(persistentVolumeClaims, claim("g", { storageClassName: "grows", volumeName: "g" }));
  await c.client.create(persistentVolumeClaims, claim("f", { storageClassName: "fixed", volumeName: "f" }));
  await c.until(async () => (await claimPhase("g")) === "Bound" && (await claimPhase("f")) === "Bound", "bound");

  const grow = (name: string, storage: string) =>
    c.client.patch(
      persistentVolumeClaims,
      { name, namespace: "default" },
      { spec: { resources: { requests: { storage } } } },
    );
  await expect(grow("f", "2Gi")).rejects.toThrow("storageclass that provisions the pvc must support resize");
  await expect(grow("g", "1Mi")).rejects.toThrow("field can not be less than status.capacity");
  await grow("g", "2Gi");
  await c.until(async () => (await said("ExternalExpanding")).length === 1, "said");
  const found = await c.find(persistentVolumeClaims, "g", "default");
  expect(found?.metadata.annotations?.["volume.kubernetes.io/storage-resizer"]).toBe("d.example");
  // What has not come about may be taken back, but not below what there is.
  await grow("g", "1536Mi");
  await expect(grow("g", "512Mi")).rejects.toThrow("field can not be less than status.capacity");
  await expect(
    c.client.patch(persistentVolumeClaims, { name: "g", namespace: "default" }, { spec: { volumeName: "f" } }),
  ).rejects.toThrow("spec is immutable after creation");
});
