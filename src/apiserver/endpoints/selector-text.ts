// The selector of a workload as the string a Scale shows: `app=web,tier in (a,b)`.
import type { LabelSelector } from "#model/gen/meta-v1.ts";
import { formatRequirements, requirementsOf } from "#model/label-selector.ts";

/** `selector` is a LabelSelector or, of a ReplicationController, a map. */
export function formatSelector(selector: unknown): string {
  if (typeof selector !== "object" || selector === null) return "";
  const isMap = !("matchLabels" in selector) && !("matchExpressions" in selector);
  const asSelector = (isMap ? { matchLabels: selector } : selector) as LabelSelector;
  return formatRequirements(requirementsOf(asSelector) ?? []);
}
