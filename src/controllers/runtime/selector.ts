// Label selectors as controllers use them.
import type { LabelSelector } from "#model/gen/meta-v1.ts";

export type Labels = Readonly<Record<string, string>>;
export type LabelMatcher = (labels: Labels) => boolean;

/** An absent selector matches nothing, an empty one everything (as metav1.LabelSelectorAsSelector). */
export function matcherOf(selector: LabelSelector | undefined): LabelMatcher {
  if (!selector) return () => false;
  const exact = Object.entries(selector.matchLabels ?? {});
  const expressions = selector.matchExpressions ?? [];
  return (labels) => {
    for (const [key, value] of exact) if (labels[key] !== value) return false;
    for (const { key, operator, values = [] } of expressions) {
      const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
      const isIn = value !== undefined && values.includes(value);
      if (operator === "In" && !isIn) return false;
      if (operator === "NotIn" && isIn) return false;
      if (operator === "Exists" && value === undefined) return false;
      if (operator === "DoesNotExist" && value !== undefined) return false;
    }
    return true;
  };
}

export const isEmptySelector = (selector: LabelSelector | undefined): boolean =>
  Object.keys(selector?.matchLabels ?? {}).length === 0 && (selector?.matchExpressions ?? []).length === 0;
