// What a default object becomes where one is already there: nothing that an administrator added goes, and nothing that
// is needed stays missing. Pure. Upstream counterpart: pkg/registry/rbac/reconciliation.
import type { ClusterRole, PolicyRule, Role, RoleBinding, Subject } from "#model/gen/rbac-v1.ts";
import type { ApiObject } from "#model/object.ts";
import { uncoveredRules } from "../authz/rbac.ts";
import { autoUpdateAnnotation } from "./rbac-policy.ts";

/** What to do with the object that is there: leave it, write another, or (bindings of another role) replace it. */
export type Step<T> = { readonly do: "keep" } | { readonly do: "update" | "replace"; readonly object: T };

export function reconcileRole<T extends Role | ClusterRole>(wanted: T, found: T): Step<T> {
  if (isProtected(found)) return { do: "keep" };
  const missing = uncoveredRules(found.rules ?? [], wanted.rules ?? []);
  const merged = mergeMetadata(wanted, found);
  const aggregation = "aggregationRule" in wanted && !("aggregationRule" in found && found.aggregationRule);
  if (missing.length === 0 && merged === undefined && !aggregation) return { do: "keep" };
  // The rules as written, not the single grants they were broken into: those that lack something.
  const added = (wanted.rules ?? []).filter((rule: PolicyRule) => uncoveredRules(found.rules ?? [], [rule]).length > 0);
  return {
    do: "update",
    object: {
      ...found,
      metadata: merged ?? found.metadata,
      rules: [...(found.rules ?? []), ...added],
      ...("aggregationRule" in wanted ? { aggregationRule: wanted.aggregationRule } : {}),
    },
  };
}

/** Cluster role bindings too. */
export function reconcileBinding<T extends RoleBinding>(wanted: T, found: T): Step<T> {
  if (isProtected(found)) return { do: "keep" };
  if (found.roleRef.kind !== wanted.roleRef.kind || found.roleRef.name !== wanted.roleRef.name) {
    return { do: "replace", object: wanted };
  }
  const has = (subject: Subject) =>
    found.subjects?.some(
      (s) => s.kind === subject.kind && s.name === subject.name && (s.namespace ?? "") === (subject.namespace ?? ""),
    );
  const missing = (wanted.subjects ?? []).filter((subject) => !has(subject));
  const kept = (found.subjects ?? []).filter((subject) => !isWithdrawn(wanted, subject));
  const merged = mergeMetadata(wanted, found);
  const isSame = missing.length === 0 && kept.length === (found.subjects ?? []).length;
  if (isSame && merged === undefined) return { do: "keep" };
  return { do: "update", object: { ...found, metadata: merged ?? found.metadata, subjects: [...kept, ...missing] } };
}

/** Given once, before there was a node authorizer; it would let every node read every secret. */
const isWithdrawn = (binding: RoleBinding, subject: Subject): boolean =>
  binding.metadata.name === "system:node" && subject.kind === "Group" && subject.name === "system:nodes";

const isProtected = (object: ApiObject): boolean => object.metadata.annotations?.[autoUpdateAnnotation] === "false";

/** Undefined when nothing is missing. Values that are there win. */
function mergeMetadata(wanted: ApiObject, found: ApiObject): ApiObject["metadata"] | undefined {
  const labels = { ...wanted.metadata.labels, ...found.metadata.labels };
  const annotations = { ...wanted.metadata.annotations, ...found.metadata.annotations };
  const same = (a: object, b: object | undefined) => Object.keys(a).length === Object.keys(b ?? {}).length;
  if (same(labels, found.metadata.labels) && same(annotations, found.metadata.annotations)) return undefined;
  return { ...found.metadata, labels, annotations };
}
