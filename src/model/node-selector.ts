// Does a node fit a node selector term? The matching rule that volumes (node affinity) and pods share. Pure.
// Upstream counterpart: component-helpers/scheduling/corev1/nodeaffinity.
import type { NodeSelector, NodeSelectorRequirement, NodeSelectorTerm } from "./gen/core-v1.ts";

export interface NodeFeatures {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** One of the terms; none at all fits nothing. */
export const matchesNodeSelector = (selector: NodeSelector, node: NodeFeatures): boolean =>
  (selector.nodeSelectorTerms ?? []).some((term) => matchesNodeTerm(term, node));

/** All requirements of one term; a term without any matches no node. */
export function matchesNodeTerm(term: NodeSelectorTerm, node: NodeFeatures): boolean {
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
