// Plugins about storage: VolumeBinding (bound volumes within reach, claims that wait for a node), VolumeRestrictions
// (ReadWriteOncePod), VolumeZone, NodeVolumeLimits. Names and messages are upstream's. They say nothing where the
// snapshot knows nothing of storage, and cost nothing for pods without claims.
import type { PersistentVolume, Pod } from "#model/gen/core-v1.ts";
import { namespaceOf } from "#model/object.ts";
import { claimNameOf, claimNamesOf } from "#model/volumes.ts";
import type { NodeInfo } from "../snapshot.ts";
import { claimsOf, planVolumes, type VolumeView } from "../volumes.ts";
import { type ClusterEvent, type Plugin, type Prepared, unresolvable, unschedulable } from "./framework.ts";

const storageEvents: readonly ClusterEvent[] = ["claimChanged", "volumeChanged", "storageClassChanged"];

export const volumeBinding: Plugin = {
  name: "VolumeBinding",
  weight: 0,
  events: ["nodeAdded", "nodeLabelsChanged", "assignedPodRemoved", "csiChanged", ...storageEvents],
  prepare(pod, { volumes: view }): Prepared {
    if (!view || claimNamesOf(pod).length === 0) return {};
    const claims = claimsOf(pod, view);
    if ("refusal" in claims) return { reject: unresolvable(claims.refusal) };
    return {
      filter(node) {
        const plan = planVolumes(claims, node, view);
        return "refusals" in plan ? unresolvable(...plan.refusals) : undefined;
      },
    };
  },
};

/** A volume for one pod only is taken wherever that pod runs. */
export const volumeRestrictions: Plugin = {
  name: "VolumeRestrictions",
  weight: 0,
  events: ["assignedPodRemoved", "assignedPodAdded", "claimChanged"],
  prepare(pod, snapshot): Prepared {
    const { volumes: view } = snapshot;
    if (!view) return {};
    const alone = new Set(
      claimNamesOf(pod).filter((name) =>
        view.claim(`${namespaceOf(pod)}/${name}`)?.spec.accessModes?.includes("ReadWriteOncePod"),
      ),
    );
    if (alone.size === 0) return {};
    const uses = (other: Pod) =>
      namespaceOf(other) === namespaceOf(pod) && claimNamesOf(other).some((name) => alone.has(name));
    const isTaken = snapshot.nodes.some((node) => [...node.pods.values()].some(uses));
    if (!isTaken) return {};
    return {
      filter: () =>
        unschedulable("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"),
    };
  },
};

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
  weight: 0,
  events: ["nodeAdded", "nodeLabelsChanged", ...storageEvents],
  prepare(pod, { volumes: view }): Prepared {
    if (!view) return {};
    const wanted = volumesOf(pod, view).flatMap((volume) =>
      Object.entries(volume.metadata.labels ?? {})
        .filter(([label]) => zoneLabels.includes(label))
        .map(([label, value]) => ({ label, zones: value.split(zoneSeparator) })),
    );
    if (wanted.length === 0) return {};
    return {
      filter({ labels }) {
        // A node of a cluster without zones takes everything.
        if (!zoneLabels.some((label) => Object.hasOwn(labels, label))) return undefined;
        const fits = wanted.every(({ label, zones }) => zones.includes(labels[label] ?? ""));
        return fits ? undefined : unresolvable("node(s) had no available volume zone");
      },
    };
  },
};

/** A node takes as many volumes of a driver as its CSINode says. */
export const nodeVolumeLimits: Plugin = {
  name: "NodeVolumeLimits",
  weight: 0,
  events: ["nodeAdded", "assignedPodRemoved", "csiChanged", "claimChanged"],
  prepare(pod, { volumes: view }): Prepared {
    if (!view || (pod.spec.volumes ?? []).length === 0) return {};
    const wanted = handlesOf(pod, view);
    if (wanted.size === 0) return {};
    return { filter: (node) => overLimit(wanted, node, view) };
  },
};

function overLimit(wanted: ReadonlyMap<string, string>, node: NodeInfo, view: VolumeView) {
  const drivers = view.csiNode(node.name)?.spec.drivers ?? [];
  const limits = new Map(drivers.map((driver) => [driver.name, driver.allocatable?.count]));
  const present = new Map<string, string>();
  for (const other of node.pods.values()) {
    for (const [handle, driver] of handlesOf(other, view)) present.set(handle, driver);
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
