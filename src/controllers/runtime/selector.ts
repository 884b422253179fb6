// Label selectors as controllers use them: made once, asked often.
import type { LabelSelector } from "#model/gen/meta-v1.ts";
import { type Labels, matchesRequirements, requirementsOf } from "#model/label-selector.ts";

export type { Labels } from "#model/label-selector.ts";
export type LabelMatcher = (labels: Labels) => boolean;

/** An absent selector matches nothing, an empty one everything (as metav1.LabelSelectorAsSelector). */
export function matcherOf(selector: LabelSelector | undefined): LabelMatcher {
  const requirements = requirementsOf(selector);
  return requirements ? (labels) => matchesRequirements(requirements, labels) : () => false;
}

export const isEmptySelector = (selector: LabelSelector | undefined): boolean =>
  Object.keys(selector?.matchLabels ?? {}).length === 0 && (selector?.matchExpressions ?? []).length === 0;

/** As Go prints a pointer to one, which is how upstream shows selectors in what it says. */
export function selectorText(selector: LabelSelector | undefined): string {
  if (!selector) return "nil";
  const labels = Object.keys(selector.matchLabels ?? {})
    .sort()
    .map((key) => `${key}: ${selector.matchLabels?.[key]},`);
  const expressions = (selector.matchExpressions ?? []).map(
    ({ key, operator, values }) =>
      `LabelSelectorRequirement{Key:${key},Operator:${operator},Values:[${(values ?? []).join(" ")}],},`,
  );
  return `&LabelSelector{MatchLabels:map[string]string{${labels.join("")}},MatchExpressions:[]LabelSelectorRequirement{${expressions.join("")}},}`;
}
