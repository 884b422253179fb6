import { describe, expect, test } from "vitest";
import type { Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod } from "#model/gen/core-v1.ts";
import type { CSIDriver, CSINode, CSIStorageCapacity, StorageClass } from "#model/gen/storage-v1.ts";
import { keyOf, nameOf } from "#model/object.ts";
import { volumeAnnotations } from "#model/volumes.ts";
import { podInfoOf } from "./pod-info.ts";
import { compileProfile, defaultProfileSettings } from "./profile.ts";
import { schedule } from "./schedule.ts";
import { snapshotOf } from "./snapshot.ts";
import { claimsOf, planVolumes, type VolumeView } from "./volumes.ts";

const node = (name: string, labels: Record<string, string> = {}): Node => ({
  metadata: { name, labels: { "kubernetes.io/hostname": name, ...labels } },
  spec: {},
  status: { allocatable: { cpu: "4", memory: "4Gi", pods: "110" } },
});
const pod = (name: string, claims: string[], nodeName?: string): Pod => ({
  metadata: { name, namespace: "ns", uid: `${name}-uid` },
  spec: {
    containers: [{ name: "c" }],
    volumes: claims.map((claimName, i) => ({ name: `v${i}`, persistentVolumeClaim: { claimName } })),
    ...(nodeName ? { nodeName } : {}),
  },
});
interface ClaimOptions {
  readonly on?: string;
  readonly className?: string;
  readonly size?: string;
  readonly modes?: string[];
  readonly selected?: string;
  readonly phase?: string;
}
const claim = (name: string, o: ClaimOptions = {}): PersistentVolumeClaim => ({
  metadata: {
    name,
    namespace: "ns",
    uid: `${name}-uid`,
    annotations: {
      ...(o.on ? { [volumeAnnotations.bindCompleted]: "yes" } : {}),
      ...(o.selected ? { [volumeAnnotations.selectedNode]: o.selected } : {}),
    },
  },
  spec: {
    accessModes: o.modes ?? ["ReadWriteOnce"],
    resources: { requests: { storage: o.size ?? "1Gi" } },
    storageClassName: o.className ?? "late",
    ...(o.on ? { volumeName: o.on } : {}),
  },
  status: { phase: o.phase ?? (o.on ? "Bound" : "Pending") },
});
const onNode = (name: string): Partial<PersistentVolumeSpec> => ({
  nodeAffinity: {
    required: {
      nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: [name] }] }],
    },
  },
});
const volume = (name: string, spec: Partial<PersistentVolumeSpec> = {}, labels = {}): PersistentVolume => ({
  metadata: { name, labels },
  spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], storageClassName: "late", ...spec },
  status: { phase: "Available" },
});
const csi = (driver: string, volumeHandle: string) => ({ csi: { driver, volumeHandle } });
const classes: StorageClass[] = [
  {
    metadata: { name: "late" },
    provisioner: "kubernetes.io/no-provisioner",
    volumeBindingMode: "WaitForFirstConsumer",
  },
  { metadata: { name: "made" }, provisioner: "d.example", volumeBindingMode: "WaitForFirstConsumer" },
  { metadata: { name: "now" }, provisioner: "d.example", volumeBindingMode: "Immediate" },
  {
    metadata: { name: "east" },
    provisioner: "other.example",
    volumeBindingMode: "WaitForFirstConsumer",
    allowedTopologies: [{ matchLabelExpressions: [{ key: "zone", values: ["east"] }] }],
  },
];

interface Storage {
  readonly claims?: PersistentVolumeClaim[];
  readonly volumes?: PersistentVolume[];
  readonly csiNodes?: CSINode[];
  readonly drivers?: CSIDriver[];
  readonly capacities?: CSIStorageCapacity[];
}
const viewOf = (s: Storage): VolumeView => ({
  claim: (key) => s.claims?.find((one) => keyOf(one) === key),
  volume: (name) => s.volumes?.find((one) => nameOf(one) === name),
  volumes: () => s.volumes ?? [],
  storageClass: (name) => classes.find((one) => nameOf(one) === name),
  csiNode: (name) => s.csiNodes?.find((one) => nameOf(one) === name),
  csiDriver: (name) => s.drivers?.find((one) => nameOf(one) === name),
  capacities: () => s.capacities ?? [],
});
const decide = (incoming: Pod, storage: Storage, nodes: Node[] = [node("a"), node("b")], pods: Pod[] = []): string => {
  const snapshot = { ...snapshotOf(nodes, pods), volumes: viewOf(storage) };
  const decision = schedule(podInfoOf(incoming), snapshot, {
    profile: compileProfile(defaultProfileSettings),
    pick: () => 0,
  });
  return decision.kind === "bind" ? decision.node : decision.message.replace(/ preemption: .*/, "");
};

describe("claims that no node can help", () => {
  test.each<[string, PersistentVolumeClaim[], string]>([
    ["not there", [], 'persistentvolumeclaim "c" not found'],
    ["unbound", [claim("c", { className: "now" })], "pod has unbound immediate PersistentVolumeClaims"],
    [
      "lost",
      [claim("c", { on: "v", phase: "Lost" })],
      'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"',
    ],
    [
      "going away",
      [{ ...claim("c"), metadata: { ...claim("c").metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } }],
      'persistentvolumeclaim "c" is being deleted',
    ],
  ])("%s", (_, claims, reason) => {
    expect(decide(pod("p", ["c"]), { claims })).toBe(`0/2 nodes are available: ${reason}.`);
  });
});

test("a bound local volume draws its pod to its node", () => {
  const storage = { claims: [claim("c", { on: "v" })], volumes: [volume("v", onNode("b"))] };
  expect(decide(pod("p", ["c"]), storage)).toBe("b");
  expect(decide(pod("p", ["c"]), storage, [node("a")])).toBe(
    "0/1 nodes are available: 1 node(s) had volume node affinity conflict.",
  );
});

test("claims that wait take free volumes of the node, one each", () => {
  const storage: Storage = {
    claims: [claim("c"), claim("d", { size: "500Mi" })],
    volumes: [volume("v1", onNode("b")), volume("v2", { ...onNode("b"), capacity: { storage: "600Mi" } })],
  };
  expect(decide(pod("p", ["c", "d"]), storage)).toBe("b");
  const view = viewOf(storage);
  const claims = claimsOf(pod("p", ["c", "d"]), view);
  const info = snapshotOf([node("b")], []).nodes[0]!;
  const plan = "refusal" in claims ? undefined : planVolumes(claims, info, view);
  expect(plan && "bindings" in plan && plan.bindings.map((b) => `${nameOf(b.claim)}:${nameOf(b.volume)}`)).toEqual([
    "d:v2",
    "c:v1",
  ]);
  expect(decide(pod("p", ["c"]), { ...storage, volumes: [volume("v", onNode("x"))] })).toBe(
    "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.",
  );
});

test("pods that share a claim follow the volume that was promised to it", () => {
  const promised = volume("v1", {
    ...onNode("b"),
    claimRef: { kind: "PersistentVolumeClaim", namespace: "ns", name: "c", uid: "c-uid" },
  });
  const storage = { claims: [claim("c")], volumes: [volume("v0", onNode("a")), promised] };
  expect(decide(pod("p", ["c"]), storage)).toBe("b");
  expect(decide(pod("p", ["c"]), { ...storage, claims: [claim("c", { className: "made" })] })).toBe("b");
});

describe("claims whose volume is made", () => {
  test("anywhere", () => expect(decide(pod("p", ["c"]), { claims: [claim("c", { className: "made" })] })).toBe("a"));
  test("where it was begun", () => {
    expect(decide(pod("p", ["c"]), { claims: [claim("c", { className: "made", selected: "b" })] })).toBe("b");
  });
  test("where the class allows it", () => {
    const nodes = [node("a", { zone: "west" }), node("b", { zone: "east" })];
    expect(decide(pod("p", ["c"]), { claims: [claim("c", { className: "east" })] }, nodes)).toBe("b");
  });
  test("where there is room", () => {
    const drivers: CSIDriver[] = [{ metadata: { name: "d.example" }, spec: { storageCapacity: true } }];
    const room = (host: string, capacity: string): CSIStorageCapacity => ({
      metadata: { name: host, namespace: "ns" },
      storageClassName: "made",
      nodeTopology: { matchLabels: { "kubernetes.io/hostname": host } },
      capacity,
    });
    const storage = { claims: [claim("c", { className: "made" })], drivers };
    expect(decide(pod("p", ["c"]), { ...storage, capacities: [room("a", "1Mi"), room("b", "2Gi")] })).toBe("b");
    expect(decide(pod("p", ["c"]), storage)).toBe(
      "0/2 nodes are available: 2 node(s) did not have enough free storage.",
    );
  });
});

test("a claim for one pod only is had by one pod only", () => {
  const storage = {
    claims: [claim("c", { on: "v", modes: ["ReadWriteOncePod"] })],
    volumes: [volume("v")],
  };
  expect(decide(pod("p", ["c"]), storage)).toBe("a");
  expect(decide(pod("p", ["c"]), storage, undefined, [pod("q", ["c"], "b")])).toBe(
    "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.",
  );
});

test("a volume of a zone is for nodes of the zone", () => {
  const zone = "topology.kubernetes.io/zone";
  const storage = { claims: [claim("c", { on: "v" })], volumes: [volume("v", {}, { [zone]: "x__y" })] };
  const nodes = (z: string) => [node("a", { [zone]: "other" }), node("b", { [zone]: z })];
  expect(decide(pod("p", ["c"]), storage, nodes("y"))).toBe("b");
  expect(decide(pod("p", ["c"]), storage, nodes("z"))).toBe(
    "0/2 nodes are available: 2 node(s) had no available volume zone.",
  );
});

test("a node takes as many volumes as its driver says", () => {
  const csiNode = (name: string, count: number): CSINode => ({
    metadata: { name },
    spec: { drivers: [{ name: "d.example", nodeID: name, topologyKeys: [], allocatable: { count } }] },
  });
  const storage: Storage = {
    claims: [claim("c", { on: "v" }), claim("d", { on: "w" }), claim("e", { on: "v" })],
    volumes: [volume("v", csi("d.example", "1")), volume("w", csi("d.example", "2"))],
    csiNodes: [csiNode("a", 1), csiNode("b", 0)],
  };
  expect(decide(pod("p", ["c"]), storage)).toBe("a");
  // The same volume again costs nothing, another one is too many.
  expect(decide(pod("p", ["e"]), storage, undefined, [pod("q", ["c"], "a")])).toBe("a");
  expect(decide(pod("p", ["d"]), storage, undefined, [pod("q", ["c"], "a")])).toBe(
    "0/2 nodes are available: 2 node(s) exceed max volume count.",
  );
});

test("a disk named in the pod is used by one pod of a node, unless all only read", () => {
  const withDisk = (name: string, readOnly: boolean, nodeName?: string): Pod => ({
    ...pod(name, [], nodeName),
    spec: {
      containers: [{ name: "c" }],
      volumes: [{ name: "v", gcePersistentDisk: { pdName: "d", readOnly } }],
      ...(nodeName ? { nodeName } : {}),
    },
  });
  const one = [node("a")];
  expect(decide(withDisk("p", false), {}, one, [withDisk("q", false, "a")])).toBe(
    "0/1 nodes are available: 1 node(s) had no available disk.",
  );
  expect(decide(withDisk("p", true), {}, one, [withDisk("q", true, "a")])).toBe("a");
});
