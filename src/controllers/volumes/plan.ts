// What is to be done next about one claim, or one volume. Pure; binder.ts does it.
//
//   claim   Pending ──a volume fits, or is made──▶ Bound ──its volume vanishes──▶ Lost
//   volume  Available ──▶ Bound ──claim deleted──▶ Released ──Retain: stays; Delete: its provisioner removes it
//
// Both sides name each other (volume.spec.claimRef with uid, claim.spec.volumeName), the volume's side first: whoever is
// interrupted in between finds at the next look which half is missing. What a user wrote by hand is never taken back;
// what the binder wrote is (annotation bound-by-controller).
// Upstream counterpart: pkg/controller/volume/persistentvolume (syncClaim, syncVolume).
import type { PersistentVolume, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { StorageClass } from "#model/gen/storage-v1.ts";
import { isDeleting, nameOf, uidOf } from "#model/object.ts";
import {
  bestVolume,
  classOfClaim,
  isBindCompleted,
  mismatch,
  namesClaim,
  noProvisioner,
  volumeAnnotations,
  waitsForConsumer,
  wantsDefaultClass,
} from "#model/volumes.ts";

export interface Said {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
}

export type ClaimStep =
  | { readonly do: "nothing" }
  | { readonly do: "assign-class"; readonly className: string }
  | { readonly do: "bind"; readonly volume: PersistentVolume }
  | { readonly do: "wait"; readonly say: Said | undefined }
  | { readonly do: "provision"; readonly provisioner: string }
  | { readonly do: "lose"; readonly say: Said };

export interface ClaimWorld {
  readonly volume: (name: string) => PersistentVolume | undefined;
  readonly volumes: () => Iterable<PersistentVolume>;
  readonly storageClass: (name: string) => StorageClass | undefined;
  readonly defaultClass: () => StorageClass | undefined;
  /** Pods that use the claim and have no node yet. */
  readonly waitingPods: () => readonly Pod[];
}

const wait = (type: Said["type"], reason: string, message: string): ClaimStep => ({
  do: "wait",
  say: { type, reason, message },
});
const lose = (reason: string, message: string): ClaimStep => ({
  do: "lose",
  say: { type: "Warning", reason, message },
});

export function planClaim(claim: PersistentVolumeClaim, world: ClaimWorld): ClaimStep {
  if (isBindCompleted(claim)) return planBound(claim, world);
  return isDeleting(claim) ? { do: "nothing" } : planUnbound(claim, world);
}

function planUnbound(claim: PersistentVolumeClaim, world: ClaimWorld): ClaimStep {
  const wanted = claim.spec.volumeName ?? "";
  if (wanted !== "") return planRequested(claim, wanted, world);
  if (wantsDefaultClass(claim)) {
    const chosen = world.defaultClass();
    if (chosen) return { do: "assign-class", className: nameOf(chosen) };
  }
  const className = classOfClaim(claim);
  const entry = world.storageClass(className);
  const isDelayed = waitsForConsumer(claim, entry);
  const volume = bestVolume(claim, world.volumes(), { isDelayed });
  if (volume) return { do: "bind", volume };
  if (isDelayed) return { do: "wait", say: whyDelayed(world.waitingPods()) };
  if (className === "") {
    return wait(
      "Normal",
      "FailedBinding",
      "no persistent volumes available for this claim and no storage class is set",
    );
  }
  if (!entry) {
    return wait("Warning", "ProvisioningFailed", `storageclass.storage.k8s.io "${className}" not found`);
  }
  if (entry.provisioner === noProvisioner) {
    return wait(
      "Normal",
      "FailedBinding",
      "no persistent volumes available for this claim and no storage class is set",
    );
  }
  return { do: "provision", provisioner: entry.provisioner };
}

function whyDelayed(pods: readonly Pod[]): Said {
  const reason = pods.length === 0 ? "WaitForFirstConsumer" : "WaitForPodScheduled";
  const names = pods.map(nameOf);
  const message =
    names.length === 0
      ? "waiting for first consumer to be created before binding"
      : names.length === 1
        ? `waiting for pod ${names[0]} to be scheduled`
        : `waiting for at least one of pods [${names.join(", ")}] to be scheduled`;
  return { type: "Normal", reason, message };
}

/** The user, the scheduler or an interrupted binding has named a volume. */
function planRequested(claim: PersistentVolumeClaim, wanted: string, world: ClaimWorld): ClaimStep {
  const volume = world.volume(wanted);
  if (!volume) return { do: "wait", say: undefined };
  if (!volume.spec.claimRef) {
    const why = mismatch(volume, claim);
    if (why === undefined) return { do: "bind", volume };
    return wait("Warning", "VolumeMismatch", `Cannot bind to requested volume "${wanted}": ${why}`);
  }
  if (namesClaim(volume, claim)) return { do: "bind", volume };
  return wait("Warning", "FailedBinding", `volume "${wanted}" already bound to a different claim.`);
}

function planBound(claim: PersistentVolumeClaim, world: ClaimWorld): ClaimStep {
  const name = claim.spec.volumeName ?? "";
  if (name === "") {
    return lose("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
  }
  const volume = world.volume(name);
  if (!volume) return lose("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
  const reference = volume.spec.claimRef;
  if (!reference || reference.uid === uidOf(claim)) return { do: "bind", volume };
  return lose("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly");
}

export type VolumeStep =
  | { readonly do: "nothing" }
  | { readonly do: "phase"; readonly phase: "Available" | "Bound" }
  /** Nobody has it any more: Released, then what the reclaim policy says. */
  | { readonly do: "release" }
  | { readonly do: "unbind" }
  | { readonly do: "look-at-claim"; readonly say?: Said };

/** `claim`: the one under the name in claimRef, undefined when the API has none. */
export function planVolume(volume: PersistentVolume, claim: PersistentVolumeClaim | undefined): VolumeStep {
  const reference = volume.spec.claimRef;
  // Bound by hand to a claim that has not come yet.
  if (!reference?.uid) return { do: "phase", phase: "Available" };
  if (!claim || uidOf(claim) !== reference.uid) return { do: "release" };
  const named = claim.spec.volumeName ?? "";
  if (named === "") {
    if ((claim.spec.volumeMode ?? "Filesystem") !== (volume.spec.volumeMode ?? "Filesystem")) {
      const message = `Cannot bind PersistentVolume to requested PersistentVolumeClaim "${nameOf(claim)}" due to incompatible volumeMode.`;
      return { do: "look-at-claim", say: { type: "Warning", reason: "VolumeMismatch", message } };
    }
    return { do: "look-at-claim" };
  }
  if (named === nameOf(volume)) return { do: "phase", phase: "Bound" };
  const { annotations } = volume.metadata;
  const isProvisioned = annotations?.[volumeAnnotations.provisionedBy] !== undefined;
  // Made for a claim that took another one meanwhile: nobody will ever want it.
  if (isProvisioned && volume.spec.persistentVolumeReclaimPolicy === "Delete") return { do: "release" };
  return { do: "unbind" };
}

/** The claim with the volume in it; the same object when nothing is to be written. */
export function boundClaim(claim: PersistentVolumeClaim, volume: PersistentVolume): PersistentVolumeClaim {
  if (claim.spec.volumeName === nameOf(volume) && isBindCompleted(claim)) return claim;
  const annotations: Record<string, string> = {
    ...claim.metadata.annotations,
    [volumeAnnotations.bindCompleted]: "yes",
  };
  if (claim.spec.volumeName !== nameOf(volume)) annotations[volumeAnnotations.boundByController] = "yes";
  return {
    ...claim,
    metadata: { ...claim.metadata, annotations },
    spec: { ...claim.spec, volumeName: nameOf(volume) },
  };
}

/** The volume without the claim: of a binding made by hand only the uid goes. */
export function unboundVolume(volume: PersistentVolume): PersistentVolume {
  const annotations = { ...volume.metadata.annotations };
  const { claimRef, ...spec } = volume.spec;
  if (annotations[volumeAnnotations.boundByController] !== undefined || !claimRef) {
    delete annotations[volumeAnnotations.boundByController];
    return { ...volume, metadata: { ...volume.metadata, annotations }, spec };
  }
  const { uid: _uid, resourceVersion: _revision, ...byHand } = claimRef;
  return { ...volume, spec: { ...spec, claimRef: byHand } };
}
