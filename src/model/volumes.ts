// What volumes and claims mean to each other, for everybody who has to agree on it: the binder, the scheduler, the node.
// Names of annotations and finalizers, the class of a claim, which volume fits it best. Pure.
// Upstream counterpart: component-helpers/storage/volume, pkg/volume/util.
import type { PersistentVolume, PersistentVolumeClaim, Pod, Volume } from "./gen/core-v1.ts";
import type { StorageClass } from "./gen/storage-v1.ts";
import { matchesLabelSelector } from "./label-selector.ts";
import { controllerOf, isDeleting, nameOf, namespaceOf, uidOf } from "./object.ts";
import { compareQuantities } from "./quantity.ts";

export const volumeAnnotations = {
  bindCompleted: "pv.kubernetes.io/bind-completed",
  boundByController: "pv.kubernetes.io/bound-by-controller",
  provisionedBy: "pv.kubernetes.io/provisioned-by",
  storageProvisioner: "volume.kubernetes.io/storage-provisioner",
  oldStorageProvisioner: "volume.beta.kubernetes.io/storage-provisioner",
  selectedNode: "volume.kubernetes.io/selected-node",
  storageResizer: "volume.kubernetes.io/storage-resizer",
  oldClass: "volume.beta.kubernetes.io/storage-class",
} as const;

export const volumeFinalizers = {
  claimProtection: "kubernetes.io/pvc-protection",
  volumeProtection: "kubernetes.io/pv-protection",
  /** Kept until the storage behind a provisioned volume is gone. */
  provisioner: "external-provisioner.volume.kubernetes.io/finalizer",
} as const;

/** The provisioner that makes nothing: its volumes are made by hand. */
export const noProvisioner = "kubernetes.io/no-provisioner";
export const localPathProvisioner = "rancher.io/local-path";

const defaultClassMarks = [
  "storageclass.kubernetes.io/is-default-class",
  "storageclass.beta.kubernetes.io/is-default-class",
];

export const isDefaultClass = (entry: StorageClass): boolean =>
  defaultClassMarks.some((mark) => entry.metadata.annotations?.[mark] === "true");

/** The class for claims that name none: the youngest of those marked, by name where they are of the same age. */
export function defaultClassOf(classes: readonly StorageClass[]): StorageClass | undefined {
  const age = (entry: StorageClass) => entry.metadata.creationTimestamp ?? "";
  return classes
    .filter(isDefaultClass)
    .sort((a, b) => age(b).localeCompare(age(a)) || nameOf(a).localeCompare(nameOf(b)))[0];
}

/** "" is a class too: none. The claim says it in its old annotation or its field. */
export const classOfClaim = (claim: PersistentVolumeClaim): string =>
  claim.metadata.annotations?.[volumeAnnotations.oldClass] ?? claim.spec.storageClassName ?? "";
export const classOfVolume = (volume: PersistentVolume): string =>
  volume.metadata.annotations?.[volumeAnnotations.oldClass] ?? volume.spec.storageClassName ?? "";
/** Says nothing about its class at all, so that a default may be given to it. */
export const wantsDefaultClass = (claim: PersistentVolumeClaim): boolean =>
  claim.spec.storageClassName === undefined && claim.metadata.annotations?.[volumeAnnotations.oldClass] === undefined;

/** Waits for a pod to be scheduled, and no node has been chosen for it yet. */
export function waitsForConsumer(claim: PersistentVolumeClaim, entry: StorageClass | undefined): boolean {
  if (claim.metadata.annotations?.[volumeAnnotations.selectedNode] !== undefined) return false;
  return entry?.volumeBindingMode === "WaitForFirstConsumer";
}

/** Both sides agree and the binder has said so. */
export const isBindCompleted = (claim: PersistentVolumeClaim): boolean =>
  claim.metadata.annotations?.[volumeAnnotations.bindCompleted] !== undefined;
export const isFullyBound = (claim: PersistentVolumeClaim): boolean =>
  (claim.spec.volumeName ?? "") !== "" && isBindCompleted(claim);

/** The volume names this very claim, or one of its name before it had a uid. */
export function namesClaim(volume: PersistentVolume, claim: PersistentVolumeClaim): boolean {
  const reference = volume.spec.claimRef;
  if (!reference || reference.name !== nameOf(claim) || reference.namespace !== namespaceOf(claim)) return false;
  return !reference.uid || reference.uid === uidOf(claim);
}

/** claimRef as a binding writes it. */
export const claimReference = (claim: PersistentVolumeClaim) => ({
  kind: "PersistentVolumeClaim",
  namespace: namespaceOf(claim),
  name: nameOf(claim),
  uid: uidOf(claim),
  apiVersion: "v1",
  resourceVersion: claim.metadata.resourceVersion ?? "",
});

/** The volume with the claim in it; the same object when nothing is to be written. */
export function boundVolume(volume: PersistentVolume, claim: PersistentVolumeClaim): PersistentVolume {
  const reference = volume.spec.claimRef;
  if (reference?.uid === uidOf(claim) && namesClaim(volume, claim)) return volume;
  const annotations = { ...volume.metadata.annotations };
  if (!reference) annotations[volumeAnnotations.boundByController] = "yes";
  return {
    ...volume,
    metadata: { ...volume.metadata, annotations },
    spec: { ...volume.spec, claimRef: claimReference(claim) },
  };
}

const modeOf = (spec: { readonly volumeMode?: string | undefined }): string => spec.volumeMode ?? "Filesystem";
export const sizeOfVolume = (volume: PersistentVolume): string | number => volume.spec.capacity?.["storage"] ?? "0";
export const sizeOfClaim = (claim: PersistentVolumeClaim): string | number =>
  claim.spec.resources?.requests?.["storage"] ?? "0";

/** Why a claim that asks for this volume by name cannot have it; undefined when it can. */
export function mismatch(volume: PersistentVolume, claim: PersistentVolumeClaim): string | undefined {
  if (compareQuantities(sizeOfVolume(volume), sizeOfClaim(claim)) < 0) return "requested PV is too small";
  if (classOfVolume(volume) !== classOfClaim(claim)) return "storageClassName does not match";
  if ((volume.spec.volumeAttributesClassName ?? "") !== (claim.spec.volumeAttributesClassName ?? "")) {
    return "volumeAttributesClassName does not match";
  }
  if (modeOf(volume.spec) !== modeOf(claim.spec)) return "incompatible volumeMode";
  return hasModes(volume, claim) ? undefined : "incompatible accessMode";
}

const hasModes = (volume: PersistentVolume, claim: PersistentVolumeClaim): boolean =>
  (claim.spec.accessModes ?? []).every((mode) => volume.spec.accessModes?.includes(mode));

export interface MatchOptions {
  /** Only volumes that were bound to the claim by hand count: the scheduler has the say. */
  readonly isDelayed?: boolean;
  /** What else a volume must do: node affinity when a node is looked at, not being taken by another claim. */
  readonly fits?: (volume: PersistentVolume) => boolean;
}

/** The volume made for the claim by hand, or the smallest free one that does. */
export function bestVolume(
  claim: PersistentVolumeClaim,
  volumes: Iterable<PersistentVolume>,
  options: MatchOptions = {},
): PersistentVolume | undefined {
  let best: PersistentVolume | undefined;
  for (const volume of volumes) {
    if (volume.spec.claimRef && !namesClaim(volume, claim)) continue;
    if (isDeleting(volume) || modeOf(volume.spec) !== modeOf(claim.spec)) continue;
    if (compareQuantities(sizeOfVolume(volume), sizeOfClaim(claim)) < 0) continue;
    if ((volume.spec.volumeAttributesClassName ?? "") !== (claim.spec.volumeAttributesClassName ?? "")) continue;
    const isFitting = !options.fits || options.fits(volume);
    // What is promised to the claim is all that it gets.
    if (volume.spec.claimRef) return isFitting ? volume : undefined;
    if (!isFitting) continue;
    if (options.isDelayed || volume.status?.phase !== "Available") continue;
    if (claim.spec.selector && !matchesLabelSelector(claim.spec.selector, volume.metadata.labels ?? {})) continue;
    if (classOfVolume(volume) !== classOfClaim(claim) || !hasModes(volume, claim)) continue;
    if (!best || isSmaller(volume, best)) best = volume;
  }
  return best;
}

/** By size, then by name, so that the choice does not hang on the order of a list. */
function isSmaller(a: PersistentVolume, b: PersistentVolume): boolean {
  const order = compareQuantities(sizeOfVolume(a), sizeOfVolume(b));
  return order < 0 || (order === 0 && nameOf(a) < nameOf(b));
}

/** The claim behind a volume of a pod: named, or made for the pod. */
export function claimNameOf(pod: Pod, volume: Volume): string | undefined {
  if (volume.persistentVolumeClaim) return volume.persistentVolumeClaim.claimName;
  return volume.ephemeral ? `${nameOf(pod)}-${volume.name}` : undefined;
}

/** A claim of an ephemeral volume is good for its own pod only. */
export const isOwnedByPod = (claim: PersistentVolumeClaim, pod: Pod): boolean =>
  namespaceOf(claim) === namespaceOf(pod) && controllerOf(claim)?.uid === uidOf(pod);

/** Names of all claims a pod uses, in its namespace. */
export const claimNamesOf = (pod: Pod): string[] =>
  (pod.spec.volumes ?? []).map((volume) => claimNameOf(pod, volume)).filter((name) => name !== undefined);

/** How Node.status names an attachable CSI volume. */
export const uniqueVolumeName = (driver: string, handle: string): string => `kubernetes.io/csi/${driver}^${handle}`;
