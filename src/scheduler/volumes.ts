// What a pod's volumes mean for one node: which claims are bound and where their volumes can be reached, which free
// volumes would be taken, which would have to be made there. Pure; asked once per node by the VolumeBinding plugin, and
// once more for the chosen node to learn what has to be written. Upstream counterpart: plugins/volumebinding/binder.go.
import type { PersistentVolume, PersistentVolumeClaim, Pod, TopologySelectorTerm } from "#model/gen/core-v1.ts";
import type { CSIDriver, CSINode, CSIStorageCapacity, StorageClass } from "#model/gen/storage-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import { matchesNodeTerm, type NodeFeatures } from "#model/node-selector.ts";
import { isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { compareQuantities } from "#model/quantity.ts";
import {
  bestVolume,
  claimNameOf,
  classOfClaim,
  classOfVolume,
  isFullyBound,
  isOwnedByPod,
  namesClaim,
  noProvisioner,
  sizeOfClaim,
  volumeAnnotations,
} from "#model/volumes.ts";

/** Storage as the scheduler sees it: the informers, and what it has promised but not seen written yet. */
export interface VolumeView {
  claim(key: string): PersistentVolumeClaim | undefined;
  volume(name: string): PersistentVolume | undefined;
  volumes(): readonly PersistentVolume[];
  storageClass(name: string): StorageClass | undefined;
  csiNode(name: string): CSINode | undefined;
  csiDriver(name: string): CSIDriver | undefined;
  capacities(): readonly CSIStorageCapacity[];
}

export interface PodClaims {
  readonly bound: readonly PersistentVolumeClaim[];
  /** To be bound when the pod has a node. */
  readonly delayed: readonly DelayedClaim[];
}

/** With all that may come into question on whatever node, so that all volumes are looked through once per pod. */
export interface DelayedClaim {
  readonly claim: PersistentVolumeClaim;
  /** Of the claim's class and free, or the claim's already. */
  readonly candidates: readonly PersistentVolume[];
  /** Promised to it for another pod that shares it: it has to be where that is. */
  readonly promised: PersistentVolume | undefined;
}

/** The claims of a pod, or why no node will do, in upstream's words. */
export function claimsOf(pod: Pod, view: VolumeView): PodClaims | { readonly refusal: string } {
  const bound: PersistentVolumeClaim[] = [];
  const delayed: DelayedClaim[] = [];
  for (const volume of pod.spec.volumes ?? []) {
    const name = claimNameOf(pod, volume);
    if (name === undefined) continue;
    const claim = view.claim(`${namespaceOf(pod)}/${name}`);
    if (!claim) {
      if (volume.ephemeral) {
        return { refusal: `waiting for ephemeral volume controller to create the persistentvolumeclaim "${name}"` };
      }
      return { refusal: `persistentvolumeclaim "${name}" not found` };
    }
    if (volume.ephemeral && !isOwnedByPod(claim, pod)) {
      return {
        refusal: `PVC ${namespaceOf(pod)}/${name} was not created for pod ${namespaceOf(pod)}/${nameOf(pod)} (pod is not owner)`,
      };
    }
    if (claim.status?.phase === "Lost") {
      return {
        refusal: `persistentvolumeclaim "${name}" bound to non-existent persistentvolume "${claim.spec.volumeName ?? ""}"`,
      };
    }
    if (isDeleting(claim)) return { refusal: `persistentvolumeclaim "${name}" is being deleted` };
    if (isFullyBound(claim)) {
      bound.push(claim);
      continue;
    }
    const isDelayed = view.storageClass(classOfClaim(claim))?.volumeBindingMode === "WaitForFirstConsumer";
    if (!isDelayed || claim.spec.volumeName) return { refusal: "pod has unbound immediate PersistentVolumeClaims" };
    const candidates = view
      .volumes()
      .filter((one) => (one.spec.claimRef ? namesClaim(one, claim) : classOfVolume(one) === classOfClaim(claim)));
    const promised = candidates.find((one) => one.spec.claimRef?.uid === uidOf(claim));
    delayed.push({ claim, candidates, promised });
  }
  return { bound, delayed };
}

export interface VolumePlan {
  /** Volumes to take, each for its claim. */
  readonly bindings: readonly { readonly claim: PersistentVolumeClaim; readonly volume: PersistentVolume }[];
  /** Claims whose volume is to be made for the node. */
  readonly provisions: readonly PersistentVolumeClaim[];
}

export const reasons = {
  nodeAffinity: "node(s) had volume node affinity conflict",
  noVolume: "node(s) didn't find available persistent volumes to bind",
  noSpace: "node(s) did not have enough free storage",
  missing: "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
} as const;

/** What is to be done so that the pod has its volumes on this node, or why it cannot have them there. */
export function planVolumes(
  { bound, delayed }: PodClaims,
  node: NodeFeatures,
  view: VolumeView,
): VolumePlan | { readonly refusals: readonly string[] } {
  const refusals = new Set<string>();
  for (const claim of bound) {
    const volume = view.volume(claim.spec.volumeName ?? "");
    if (!volume) refusals.add(reasons.missing);
    else if (!reachesNode(volume, node)) refusals.add(reasons.nodeAffinity);
  }
  const bindings: { claim: PersistentVolumeClaim; volume: PersistentVolume }[] = [];
  const provisions: PersistentVolumeClaim[] = [];
  const taken = new Set<string>();
  const bySize = [...delayed].sort((a, b) => compareQuantities(sizeOfClaim(a.claim), sizeOfClaim(b.claim)));
  for (const { claim, candidates, promised } of bySize) {
    const selected = claim.metadata.annotations?.[volumeAnnotations.selectedNode];
    if ((selected !== undefined && selected !== node.name) || (promised && !reachesNode(promised, node))) {
      refusals.add(reasons.noVolume);
      continue;
    }
    const volume =
      selected === undefined
        ? bestVolume(claim, candidates, { fits: (one) => !taken.has(nameOf(one)) && reachesNode(one, node) })
        : undefined;
    if (volume) {
      taken.add(nameOf(volume));
      bindings.push({ claim, volume });
      continue;
    }
    const refusal = whyNotMade(claim, node, view);
    if (refusal === undefined) provisions.push(claim);
    else refusals.add(refusal);
  }
  return refusals.size > 0 ? { refusals: [...refusals] } : { bindings, provisions };
}

export function reachesNode(volume: PersistentVolume, node: NodeFeatures): boolean {
  const required = volume.spec.nodeAffinity?.required;
  return !required || (required.nodeSelectorTerms ?? []).some((term) => matchesNodeTerm(term, node));
}

function whyNotMade(claim: PersistentVolumeClaim, node: NodeFeatures, view: VolumeView): string | undefined {
  const entry = view.storageClass(classOfClaim(claim));
  if (!entry || entry.provisioner === noProvisioner) return reasons.noVolume;
  if (!fitsTopology(entry.allowedTopologies, node)) return reasons.noVolume;
  if (view.csiDriver(entry.provisioner)?.spec.storageCapacity !== true) return undefined;
  const hasRoom = view.capacities().some((one) => {
    const limit = one.maximumVolumeSize ?? one.capacity;
    return (
      one.storageClassName === nameOf(entry) &&
      limit !== undefined &&
      compareQuantities(limit, sizeOfClaim(claim)) >= 0 &&
      one.nodeTopology !== undefined &&
      matchesLabelSelector(one.nodeTopology, node.labels)
    );
  });
  return hasRoom ? undefined : reasons.noSpace;
}

/** No terms: anywhere. Terms are alternatives; the expressions of one must all hold. */
function fitsTopology(terms: readonly TopologySelectorTerm[] | undefined, node: NodeFeatures): boolean {
  if (!terms || terms.length === 0) return true;
  return terms.some((term) =>
    (term.matchLabelExpressions ?? []).every(
      ({ key, values }) => Object.hasOwn(node.labels, key) && values.includes(node.labels[key] ?? ""),
    ),
  );
}
