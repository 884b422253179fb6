// What garbage collection does about one object, given what is known of its owners and dependents. Pure.
// Upstream counterpart: pkg/controller/garbagecollector/garbagecollector.go, attemptToDeleteItem.
import type { OwnerReference } from "#model/gen/meta-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { isDeleting } from "#model/object.ts";

export const orphanFinalizer = "orphan";
export const foregroundFinalizer = "foregroundDeletion";

export type OwnerState = "solid" | "absent" | "waiting";

export type GcAction =
  | { readonly do: "nothing" }
  /** Take these owners off; what is left keeps the object. */
  | { readonly do: "unlink"; readonly uids: readonly string[] }
  /** `isUnblocked`: its owners must no longer wait for it, since it waits for one of them. */
  | { readonly do: "delete"; readonly policy: "Orphan" | "Foreground" | "Background"; readonly isUnblocked?: true }
  /** The object waits for its dependents: free them, then it. */
  | { readonly do: "orphan-dependents" }
  /** The object waits until no dependent that blocks it is left. */
  | { readonly do: "finish-foreground" };

/** `waiting`: an owner that is being deleted in the foreground, that is, waits for its dependents to go first. */
export const isWaiting = (object: ApiObject): boolean =>
  isDeleting(object) && object.metadata.finalizers?.includes(foregroundFinalizer) === true;

export function planObject(
  object: ApiObject,
  owners: readonly { readonly reference: OwnerReference; readonly state: OwnerState }[],
  dependents: readonly ApiObject[],
): GcAction {
  const finalizers = object.metadata.finalizers ?? [];
  if (isDeleting(object)) {
    if (finalizers.includes(orphanFinalizer)) return { do: "orphan-dependents" };
    if (finalizers.includes(foregroundFinalizer)) return { do: "finish-foreground" };
    return { do: "nothing" };
  }
  if (owners.length === 0) return { do: "nothing" };
  if (owners.some((o) => o.state === "solid")) {
    const uids = owners.filter((o) => o.state !== "solid").map((o) => o.reference.uid);
    return uids.length > 0 ? { do: "unlink", uids } : { do: "nothing" };
  }
  // An owner that waits for us waits for ours as well, so they go first.
  if (owners.some((o) => o.state === "waiting") && dependents.length > 0) {
    // Unless they are in a circle with it, which would stand for ever.
    const isCircle = dependents.some(isWaiting);
    return { do: "delete", policy: "Foreground", ...(isCircle ? { isUnblocked: true } : {}) };
  }
  if (finalizers.includes(orphanFinalizer)) return { do: "delete", policy: "Orphan" };
  if (finalizers.includes(foregroundFinalizer)) return { do: "delete", policy: "Foreground" };
  return { do: "delete", policy: "Background" };
}

/** Dependents that keep an owner in the foreground from going. */
export const isBlocking = (dependent: ApiObject, ownerUid: string): boolean =>
  dependent.metadata.ownerReferences?.some((r) => r.uid === ownerUid && r.blockOwnerDeletion === true) === true;
