// The datastore's table of storage classes, asked by qualified resource.
import type { StorageClass } from "#datastore/backend.ts";
import { storageClassOf } from "#datastore/classes.ts";

export function storageClass(qualified: string, namespace: string): StorageClass {
  const dot = qualified.indexOf(".");
  const resource = dot < 0 ? qualified : qualified.slice(0, dot);
  return storageClassOf(dot < 0 ? "" : qualified.slice(dot + 1), resource, namespace === "" ? undefined : namespace);
}
