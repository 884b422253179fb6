// What holds for metadata and status of every kind, whoever writes: which fields are the server's, what a status write
// leaves alone, what counts as a change. Pure: decided about the object that is there and the one that came.
// Upstream counterpart: rest.BeforeCreate / BeforeUpdate and the metadata checks of apimachinery's validation.
import { sameButTimes } from "#model/managed-fields/managers.ts";
import type { UnknownObject } from "#model/object.ts";
import { qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import { badRequest, type FieldError, fieldForbidden } from "#model/status.ts";
import { equalJson } from "./equal.ts";

/** Metadata that PUT .../status may change beside annotations; other kinds keep what they have. */
export const labelledByStatus: ReadonlySet<string> = new Set([
  "pods",
  "nodes",
  "namespaces",
  "services",
  "persistentvolumes",
  "persistentvolumeclaims",
]);
/** What no client may set. */
export const serverFields = [
  "resourceVersion",
  "deletionTimestamp",
  "deletionGracePeriodSeconds",
  "selfLink",
  "generation",
] as const;

export function keepServerFields(object: UnknownObject, current: UnknownObject): void {
  const meta = object.metadata;
  const old = current.metadata;
  const kept = {
    name: old.name,
    namespace: old.namespace,
    uid: old.uid,
    creationTimestamp: old.creationTimestamp,
    deletionTimestamp: old.deletionTimestamp,
    deletionGracePeriodSeconds: old.deletionGracePeriodSeconds,
    generation: old.generation,
    generateName: old.generateName,
  };
  for (const [field, value] of Object.entries(kept)) {
    if (value === undefined) delete (meta as Record<string, unknown>)[field];
    else (meta as Record<string, unknown>)[field] = value;
  }
  delete meta.selfLink;
}

/** Whether nothing differs but the times at which managers wrote. */
export function isSameButTimes(object: UnknownObject, current: UnknownObject): boolean {
  const { managedFields } = object.metadata;
  const old = current.metadata.managedFields;
  if (!sameButTimes(managedFields, old)) return false;
  const { managedFields: _managedFields, ...metadata } = object.metadata;
  const { managedFields: _old, ...oldMetadata } = current.metadata;
  return equalJson({ ...object, metadata }, { ...current, metadata: oldMetadata });
}

/** The old object with the new status, and the metadata a status update may change. */
export function statusUpdate(info: ResourceInfo, current: UnknownObject, next: UnknownObject): UnknownObject {
  const metadata = { ...current.metadata };
  const labels = labelledByStatus.has(qualifiedResource(info)) ? ["labels"] : [];
  const fields = info.type === "" ? ["managedFields"] : ["annotations", "finalizers", "managedFields", ...labels];
  for (const field of fields as ("annotations" | "finalizers" | "labels" | "managedFields")[]) {
    const value = next.metadata[field];
    if (value === undefined) delete metadata[field];
    else (metadata as Record<string, unknown>)[field] = value;
  }
  const out: UnknownObject = { ...current, metadata };
  if (next["status"] === undefined) delete out["status"];
  else out["status"] = next["status"];
  return out;
}

export function matchNamespace(info: ResourceInfo, meta: UnknownObject["metadata"], namespace: string): void {
  const named = meta.namespace ?? "";
  if (named !== "" && named !== namespace) {
    throw badRequest("the namespace of the provided object does not match the namespace sent on the request");
  }
  if (info.namespaced) meta.namespace = namespace;
  else delete meta.namespace;
}

export function checkFinalizers(object: UnknownObject, current: UnknownObject): FieldError[] {
  if (current.metadata.deletionTimestamp === undefined) return [];
  const old = new Set(current.metadata.finalizers ?? []);
  const added = (object.metadata.finalizers ?? []).filter((f) => !old.has(f));
  if (added.length === 0) return [];
  const shown = added.map((f) => JSON.stringify(f)).join(", ");
  return [
    fieldForbidden(
      "metadata.finalizers",
      `no new finalizers can be added if the object is being deleted, found new finalizers []string{${shown}}`,
    ),
  ];
}

export function specChanged(object: UnknownObject, current: UnknownObject): boolean {
  const { metadata: _m, status: _s, apiVersion: _a, kind: _k, ...next } = object;
  const { metadata: _om, status: _os, apiVersion: _oa, kind: _ok, ...old } = current;
  return !equalJson(next, old);
}

/** The storage sets resourceVersion on what it is given; shared objects must not see that. */
export const cloneTop = (object: UnknownObject): UnknownObject => ({ ...object, metadata: { ...object.metadata } });
