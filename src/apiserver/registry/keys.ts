// Where each resource lives in the datastore: the layout of upstream kube-apiserver under /registry, so that tools that
// read an etcd snapshot find what they know.
import type { Key } from "#datastore/backend.ts";
import type { ResourceInfo } from "#model/resource-info.ts";

/** Resources whose folder is not their plural. */
const folders: Readonly<Record<string, string>> = {
  replicationcontrollers: "controllers",
  endpoints: "services/endpoints",
  nodes: "minions",
  services: "services/specs",
  "ingresses.networking.k8s.io": "ingress",
};

/** Groups that upstream keeps in a folder of their own; other built-in groups share the root. */
const ownFolder = new Set(["apiregistration.k8s.io", "apiextensions.k8s.io"]);

type Row = Pick<ResourceInfo, "storageGroup" | "plural"> & { readonly type?: string };

/** Custom resources, which have no type of ours, keep to folders of their group. Ends with a slash; every object of the resource starts with it and nothing else does. */
export function resourcePrefix(row: Row): Key {
  const qualified = row.storageGroup === "" ? row.plural : `${row.plural}.${row.storageGroup}`;
  const folder = folders[qualified] ?? row.plural;
  const group = row.type !== "" && !ownFolder.has(row.storageGroup) ? "" : `${row.storageGroup}/`;
  return `/registry/${group}${folder}/`;
}

/** The prefix of a namespace's objects, or of all; `prefix` is that of the resource. */
export function collectionPrefix(
  row: Row & Pick<ResourceInfo, "namespaced">,
  namespace: string,
  prefix: Key = resourcePrefix(row),
): Key {
  return row.namespaced && namespace !== "" ? `${prefix}${namespace}/` : prefix;
}

export function objectKey(
  row: Row & Pick<ResourceInfo, "namespaced">,
  namespace: string,
  name: string,
  prefix: Key = resourcePrefix(row),
): Key {
  return `${row.namespaced ? collectionPrefix(row, namespace, prefix) : prefix}${name}`;
}
