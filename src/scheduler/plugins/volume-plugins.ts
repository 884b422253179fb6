// Plugins about storage: VolumeBinding (bound volumes within reach, claims that wait for a node), VolumeRestrictions
// (ReadWriteOncePod), VolumeZone, NodeVolumeLimits. Names and messages are upstream's. They say nothing where the
// snapshot knows nothing of storage, and cost nothing for pods without claims.
import type { PersistentVolume, PersistentVolumeClaim, Pod, Volume } from "#model/gen/core-v1.ts";
import type { CSIDriver, CSIStorageCapacity, StorageClass } from "#model/gen/storage-v1.ts";
import { namespaceOf } from "#model/object.ts";
import { compareQuantities } from "#model/quantity.ts";
import { claimNameOf, claimNamesOf } from "#model/volumes.ts";
import { isDisk, type PodInfo } from "../pod-info.ts";
import type { NodeInfo } from "../snapshot.ts";
import { claimsOf, planVolumes, type VolumeView } from "../volumes.ts";
import { type Change, type Interest, type Plugin, unresolvable, unschedulable } from "./framework.ts";

/** A claim of the pod's has come or changed. */
const ownClaims: Interest = {
  events: ["PersistentVolumeClaimAdd", "PersistentVolumeClaimUpdate"],
  hint({ pod, namespace }, { next }) {
    const claim = next as PersistentVolumeClaim;
    return namespaceOf(claim) === namespace && claimNamesOf(pod).includes(claim.metadata.name ?? "");
  },
};

const sameJson = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** The pool is new, or larger than it was. */
function hasMoreRoom(_: PodInfo, { old, next }: Change): boolean {
  if (!old) return true;
  const [before, now] = [old as CSIStorageCapacity, next as CSIStorageCapacity];
  return (["capacity", "maximumVolumeSize"] as const).some(
    (field) => compareQuantities(now[field] ?? "0", before[field] ?? "0") > 0,
  );
}

export const volumeBinding: Plugin = {
  name: "VolumeBinding",
  points: ["preFilter", "filter", "reserve", "preBind", "preScore", "score"],
  interests: [
    {
      events: ["StorageClassAdd", "StorageClassUpdate"],
      hint: (_, { old, next }) =>
        !old || !sameJson((old as StorageClass).allowedTopologies, (next as StorageClass).allowedTopologies),
    },
    ownClaims,
    { events: ["PersistentVolumeAdd", "PersistentVolumeUpdate"] },
    { events: ["NodeAdd", "NodeUpdateNodeLabel"] },
    { events: ["CSINodeAdd", "CSINodeUpdate"] },
    {
      events: ["CSIDriverAdd", "CSIDriverUpdate"],
      // Who counts its room no longer is not in the way any more.
      hint: (_, { old, next }) =>
        !old || ((old as CSIDriver).spec.storageCapacity === true && (next as CSIDriver).spec.storageCapacity !== true),
    },
    { events: ["CSIStorageCapacityAdd", "CSIStorageCapacityUpdate"], hint: hasMoreRoom },
  ],
  filter({ pod, hasClaims }, { volumes: view }) {
    if (!view || !hasClaims) return {};
    const claims = claimsOf(pod, view);
    if ("refusal" in claims) return { reject: unresolvable(claims.refusal) };
    return {
      check(node) {
        const plan = planVolumes(claims, node, view);
        return "refusals" in plan ? unresolvable(...plan.refusals) : undefined;
      },
    };
  },
};

const takenAlone = unschedulable(
  "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
);
const diskTaken = unschedulable("node(s) had no available disk");

/** A claim for one pod only is taken wherever that pod runs; some disks only be used by one pod of a node. */
export const volumeRestrictions: Plugin = {
  name: "VolumeRestrictions",
  points: ["preFilter", "filter"],
  interests: [
    {
      events: ["AssignedPodDelete"],
      hint({ pod, namespace }, { old }) {
        const other = old as Pod;
        const shared = namespaceOf(other) === namespace ? claimNamesOf(other) : [];
        return claimNamesOf(pod).some((name) => shared.includes(name)) || sharesDisk(pod, other);
      },
    },
    { events: ["NodeAdd"] },
    ownClaims,
  ],
  filter(info, snapshot) {
    const { pod, namespace } = info;
    if (!info.hasClaims) return {};
    const { volumes: view } = snapshot;
    const alone = new Set(
      claimNamesOf(pod).filter((name) =>
        view?.claim(`${namespace}/${name}`)?.spec.accessModes?.includes("ReadWriteOncePod"),
      ),
    );
    const uses = (other: PodInfo): boolean =>
      alone.size > 0 && other.namespace === namespace && claimNamesOf(other.pod).some((name) => alone.has(name));
    let users = 0;
    if (alone.size > 0) {
      for (const node of snapshot.nodes) for (const other of node.podsWithClaims.values()) if (uses(other)) users++;
    }
    const hasDisks = (pod.spec.volumes ?? []).some(isDisk);
    return {
      check(node) {
        if (hasDisks) {
          for (const other of node.podsWithClaims.values()) if (sharesDisk(pod, other.pod)) return diskTaken;
        }
        return users > 0 ? takenAlone : undefined;
      },
      moved(other, _, by) {
        if (uses(other)) users += by;
      },
    };
  },
};

const sharesDisk = (pod: Pod, other: Pod): boolean =>
  (pod.spec.volumes ?? []).some((a) => isDisk(a) && (other.spec.volumes ?? []).some((b) => isSameDisk(a, b)));

function isSameDisk(a: Volume, b: Volume): boolean {
  const bothRead = (x: { readOnly?: boolean }, y: { readOnly?: boolean }) => x.readOnly === true && y.readOnly === true;
  if (a.gcePersistentDisk && b.gcePersistentDisk) {
    const [x, y] = [a.gcePersistentDisk, b.gcePersistentDisk];
    return x.pdName === y.pdName && !bothRead(x, y);
  }
  if (a.awsElasticBlockStore && b.awsElasticBlockStore) {
    return a.awsElasticBlockStore.volumeID === b.awsElasticBlockStore.volumeID;
  }
  if (a.iscsi && b.iscsi) return a.iscsi.iqn === b.iscsi.iqn && !bothRead(a.iscsi, b.iscsi);
  if (!a.rbd || !b.rbd) return false;
  const monitors = b.rbd.monitors;
  return (
    a.rbd.monitors.some((one) => monitors.includes(one)) &&
    (a.rbd.pool ?? "rbd") === (b.rbd.pool ?? "rbd") &&
    a.rbd.image === b.rbd.image &&
    !bothRead(a.rbd, b.rbd)
  );
}

const zoneLabels = [
  "topology.kubernetes.io/zone",
  "topology.kubernetes.io/region",
  "failure-domain.beta.kubernetes.io/zone",
  "failure-domain.beta.kubernetes.io/region",
];
/** Several zones in one label are joined so. */
const zoneSeparator = "__";

/** Volumes with a zone or region label are good for nodes of that zone or region. */
export const volumeZone: Plugin = {
  name: "VolumeZone",
  points: ["preFilter", "filter"],
  interests: [
    { events: ["StorageClassAdd"] },
    { events: ["NodeAdd", "NodeUpdateNodeLabel"] },
    ownClaims,
    {
      events: ["PersistentVolumeAdd", "PersistentVolumeUpdate"],
      hint(_, { old, next }) {
        const zones = (volume: unknown) =>
          zoneLabels.map((label) => (volume as PersistentVolume | undefined)?.metadata.labels?.[label] ?? null);
        return !sameJson(zones(old), zones(next));
      },
    },
  ],
  filter({ pod, hasClaims }, { volumes: view }) {
    if (!view || !hasClaims) return {};
    const wanted = volumesOf(pod, view).flatMap((volume) =>
      Object.entries(volume.metadata.labels ?? {})
        .filter(([label]) => zoneLabels.includes(label))
        .map(([label, value]) => ({ label, zones: value.split(zoneSeparator) })),
    );
    if (wanted.length === 0) return {};
    return {
      check({ labels }) {
        // A node of a cluster without zones takes everything.
        if (!zoneLabels.some((label) => Object.hasOwn(labels, label))) return undefined;
        const fits = wanted.every(({ label, zones }) => zones.includes(labels[label] ?? ""));
        return fits ? undefined : noZone;
      },
    };
  },
};
const noZone = unresolvable("node(s) had no available volume zone");

/** A node takes as many volumes of a driver as its CSINode says. */
export const nodeVolumeLimits: Plugin = {
  name: "NodeVolumeLimits",
  points: ["preFilter", "filter"],
  interests: [
    { events: ["CSINodeAdd", "CSINodeUpdate"] },
    { events: ["AssignedPodDelete"], hint: (_, { old }) => claimNamesOf(old as Pod).length > 0 },
    { ...ownClaims, events: ["PersistentVolumeClaimAdd"] },
    { events: ["VolumeAttachmentDelete"] },
  ],
  filter({ pod, hasClaims }, { volumes: view }) {
    if (!view || !hasClaims) return {};
    const wanted = handlesOf(pod, view);
    if (wanted.size === 0) return {};
    return { check: (node) => overLimit(wanted, node, view) };
  },
};

function overLimit(wanted: ReadonlyMap<string, string>, node: NodeInfo, view: VolumeView) {
  const drivers = view.csiNode(node.name)?.spec.drivers ?? [];
  const limits = new Map(drivers.map((driver) => [driver.name, driver.allocatable?.count]));
  const present = new Map<string, string>();
  for (const other of node.podsWithClaims.values()) {
    for (const [handle, driver] of handlesOf(other.pod, view)) present.set(handle, driver);
  }
  for (const driver of new Set(wanted.values())) {
    const limit = limits.get(driver);
    if (limit === undefined) continue;
    const isOfDriver = ([, of]: readonly [string, string]) => of === driver;
    const added = [...wanted].filter((entry) => isOfDriver(entry) && !present.has(entry[0])).length;
    if (added === 0) continue;
    if ([...present].filter(isOfDriver).length + added > limit) return unschedulable("node(s) exceed max volume count");
  }
  return undefined;
}

/** Volumes of the bound claims of a pod. */
function volumesOf(pod: Pod, view: VolumeView): PersistentVolume[] {
  return claimNamesOf(pod).flatMap((name) => {
    const volumeName = view.claim(`${namespaceOf(pod)}/${name}`)?.spec.volumeName;
    const volume = volumeName ? view.volume(volumeName) : undefined;
    return volume ? [volume] : [];
  });
}

/** Driver by what identifies each CSI volume of a pod: its handle, or the claim where none is made yet. */
function handlesOf(pod: Pod, view: VolumeView): Map<string, string> {
  const found = new Map<string, string>();
  for (const volume of pod.spec.volumes ?? []) {
    const name = claimNameOf(pod, volume);
    if (name === undefined) continue;
    const key = `${namespaceOf(pod)}/${name}`;
    const claim = view.claim(key);
    if (!claim) continue;
    const bound = claim.spec.volumeName ? view.volume(claim.spec.volumeName) : undefined;
    if (bound?.spec.csi) found.set(`${bound.spec.csi.driver}/${bound.spec.csi.volumeHandle}`, bound.spec.csi.driver);
    if (bound) continue;
    const provisioner = view.storageClass(claim.spec.storageClassName ?? "")?.provisioner;
    if (provisioner !== undefined && view.csiDriver(provisioner)) found.set(`claim ${key}`, provisioner);
  }
  return found;
}
