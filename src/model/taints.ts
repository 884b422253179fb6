// Taints of nodes and what of them a pod tolerates: the one rule that scheduler, daemon sets and eviction share. Pure.
// Upstream counterpart: component-helpers scheduling/corev1/helpers.
import type { Taint, Toleration } from "./gen/core-v1.ts";

export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  if (toleration.operator === "Exists") return true;
  if (toleration.operator && toleration.operator !== "Equal") return false;
  // An empty key with Equal matches nothing but an empty taint key; validation refuses it anyway.
  return (toleration.key ?? "") === taint.key && (toleration.value ?? "") === (taint.value ?? "");
}
