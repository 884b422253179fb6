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
