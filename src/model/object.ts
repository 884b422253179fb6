// What every API object has, and small helpers over it. Typed kinds are generated: model/gen/<group>-<version>.ts
// (core-v1.ts: Pod, Service, …; apps-v1.ts: Deployment, …; meta-v1.ts: ObjectMeta, LabelSelector, …).
import type { ObjectMeta } from "./gen/meta-v1.ts";

/** Any API object. Typed kinds (Pod, …) are assignable to it. */
export interface ApiObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
}
/** An object of a kind that is not known at compile time. */
export type UnknownObject = ApiObject & { [field: string]: unknown };

export interface ApiList<T extends ApiObject = ApiObject> {
  apiVersion: string;
  kind: string;
  metadata: { resourceVersion?: string; continue?: string; remainingItemCount?: number };
  items: T[];
}

export const nameOf = (object: ApiObject): string => object.metadata.name ?? "";
export const namespaceOf = (object: ApiObject): string => object.metadata.namespace ?? "";
export const uidOf = (object: ApiObject): string => object.metadata.uid ?? "";
/** `namespace/name`, or `name` for cluster-scoped objects: the key of caches and queues. */
export const keyOf = (object: ApiObject): string =>
  object.metadata.namespace ? `${object.metadata.namespace}/${nameOf(object)}` : nameOf(object);
export function splitKey(key: string): { namespace: string; name: string } {
  const slash = key.indexOf("/");
  return slash < 0 ? { namespace: "", name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
/** The owner that controls `object`, if any. */
export const controllerOf = (object: ApiObject) => object.metadata.ownerReferences?.find((r) => r.controller === true);
export const isDeleting = (object: ApiObject): boolean => object.metadata.deletionTimestamp !== undefined;
