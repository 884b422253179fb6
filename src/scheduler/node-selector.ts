// Node selectors and tolerations: the two matching rules that only nodes know. Pure.
// Upstream counterpart: component-helpers scheduling/corev1 (nodeaffinity, helpers).
import type { NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration } from "#model/gen/core-v1.ts";
import type { NodeInfo } from "./snapshot.ts";

/** spec.nodeSelector and the required node affinity together. */
export function matchesNodeAffinity(pod: Pod, node: NodeInfo): boolean {
  for (const [key, value] of Object.entries(pod.spec.nodeSelector ?? {})) {
    if (!Object.hasOwn(node.labels, key) || node.labels[key] !== value) return false;
  }
  const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  if (!required) return true;
  return (required.nodeSelectorTerms ?? []).some((term) => matchesTerm(term, node));
}

/** All requirements of one term; a term without any matches no node. */
export function matchesTerm(term: NodeSelectorTerm, node: NodeInfo): boolean {
  const expressions = term.matchExpressions ?? [];
  const fields = term.matchFields ?? [];
  if (expressions.length === 0 && fields.length === 0) return false;
  return (
    expressions.every((e) => matchesRequirement(e, node.labels)) &&
    fields.every((e) => matchesRequirement(e, { "metadata.name": node.name }))
  );
}

function matchesRequirement(requirement: NodeSelectorRequirement, labels: Readonly<Record<string, string>>): boolean {
  const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
  const values = requirement.values ?? [];
  switch (requirement.operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
    case "Lt": {
      const have = integer(value);
      const than = integer(values[0]);
      if (have === undefined || than === undefined || values.length !== 1) return false;
      return requirement.operator === "Gt" ? have > than : have < than;
    }
    default:
      return false;
  }
}

function integer(text: string | undefined): bigint | undefined {
  // BigInt: label values may be any int64.
  return text !== undefined && /^[+-]?\d{1,19}$/.test(text) ? BigInt(text.replace(/^\+/, "")) : undefined;
}

export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  if (toleration.operator === "Exists") return true;
  if (toleration.operator && toleration.operator !== "Equal") return false;
  // An empty key with Equal matches nothing but an empty taint key; validation refuses it anyway.
  return (toleration.key ?? "") === taint.key && (toleration.value ?? "") === (taint.value ?? "");
}

/** The first taint of the given effects that no toleration covers. */
export function untoleratedTaint(
  taints: readonly Taint[] | undefined,
  tolerations: readonly Toleration[] | undefined,
  effects: readonly string[],
): Taint | undefined {
  return taints?.find(
    (taint) => effects.includes(taint.effect) && !(tolerations ?? []).some((t) => tolerates(t, taint)),
  );
}
