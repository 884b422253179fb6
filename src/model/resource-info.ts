// What the API machinery knows of a resource before it has seen an object: one row each in resources.ts.
import type { ApiObject } from "./object.ts";

export type Verb = "create" | "delete" | "deletecollection" | "get" | "list" | "patch" | "update" | "watch";

export interface SubresourceInfo {
  /** As in discovery, e.g. Scale in autoscaling/v1; absent: the parent's own kind. */
  readonly group?: string;
  readonly version?: string;
  readonly kind?: string;
  readonly verbs: readonly (Verb | "connect")[];
}

/** `T` is the TypeScript type of the object, carried for the client's sake. */
export interface ResourceInfo<T extends ApiObject = ApiObject> {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  readonly verbs: readonly Verb[];
  readonly subresources: Readonly<Record<string, SubresourceInfo>>;
  /** `group/version` the object is stored as; versions that share storage name the same one. */
  readonly storageVersion: string;
  /** The group whose folder in the datastore holds it (events.k8s.io events live under ""). */
  readonly storageGroup: string;
  /** Name of the message in the facts table, e.g. `core/v1.Pod`. */
  readonly type: string;
  readonly __type?: T;
}

export const groupVersion = (info: { group: string; version: string }): string =>
  info.group === "" ? info.version : `${info.group}/${info.version}`;
/** `pods`, `deployments.apps`. */
export const qualifiedResource = (info: { group: string; plural: string }): string =>
  info.group === "" ? info.plural : `${info.plural}.${info.group}`;
