// Node selectors and tolerations: the two matching rules that only nodes know. Pure.
// Upstream counterpart: component-helpers scheduling/corev1 (nodeaffinity, helpers).
import type { Pod, Taint, Toleration } from "#model/gen/core-v1.ts";
import { matchesNodeTerm, type NodeFeatures } from "#model/node-selector.ts";
import { tolerates } from "#model/taints.ts";

/** spec.nodeSelector and the required node affinity together. */
export function matchesNodeAffinity(pod: Pod, node: NodeFeatures): boolean {
  for (const [key, value] of Object.entries(pod.spec.nodeSelector ?? {})) {
    if (!Object.hasOwn(node.labels, key) || node.labels[key] !== value) return false;
  }
  const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  if (!required) return true;
  return (required.nodeSelectorTerms ?? []).some((term) => matchesNodeTerm(term, node));
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
