// The datastore's table of storage classes, asked by qualified resource.
import type { StorageClass } from "#datastore/backend.ts";
import { storageClassOf } from "#datastore/classes.ts";

export function storageClass(qualified: string, namespace: string, name: string): StorageClass {
  const dot = qualified.indexOf(".");
  const resource = dot < 0 ? qualified : qualified.slice(0, dot);
  const group = dot < 0 ? "" : qualified.slice(dot + 1);
  return storageClassOf(group, resource, namespace === "" ? undefined : namespace, name);
}
