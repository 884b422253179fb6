// Who owns the claims of a stateful set's pod, which decides when the garbage collector takes them. Pure.
//
//   whenDeleted  whenScaled   pod of the set       pod to be scaled away
//   Retain       Retain       nobody               nobody
//   Delete       Retain       the set              the set
//   Retain       Delete       nobody               the pod
//   Delete       Delete       the set              the pod
//
// Upstream counterpart: pkg/controller/statefulset/stateful_set_utils.go (updateClaimOwnerRefForSetAndPod).
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import type { PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import type { OwnerReference } from "#model/gen/meta-v1.ts";
import { uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { pods, statefulSets } from "#model/resources.ts";
import { controllerReference } from "../../runtime/owners.ts";

/** References that the claim should have; undefined when it has them. `pod`: undefined while it is not there yet. */
export function claimOwners(
  set: StatefulSet,
  pod: Pod | undefined,
  isScaledAway: boolean,
  claim: PersistentVolumeClaim,
): OwnerReference[] | undefined {
  const { whenDeleted = "Retain", whenScaled = "Retain" } = set.spec.persistentVolumeClaimRetentionPolicy ?? {};
  const isForPod = whenScaled === "Delete" && isScaledAway && pod !== undefined;
  const isForSet = whenDeleted === "Delete" && !isForPod;
  const now = claim.metadata.ownerReferences ?? [];
  const others = now.filter((one) => one.uid !== uidOf(set) && one.uid !== (pod && uidOf(pod)));
  // Somebody else decides over this claim.
  if (others.some((one) => one.controller)) return undefined;
  const wanted = [
    ...others,
    ...(isForSet ? [controllerReference(statefulSets as ResourceInfo, set)] : []),
    ...(isForPod ? [controllerReference(pods as ResourceInfo, pod)] : []),
  ];
  const same = wanted.length === now.length && wanted.every((one) => now.some((other) => other.uid === one.uid));
  return same ? undefined : wanted;
}

/** Left of a pod of the same name that was scaled away: it will be deleted, and must not be given to a new pod. */
export const isStaleClaim = (claim: PersistentVolumeClaim, podName: string): boolean =>
  claim.metadata.deletionTimestamp !== undefined ||
  (claim.metadata.ownerReferences ?? []).some((one) => one.kind === "Pod" && one.name === podName);
