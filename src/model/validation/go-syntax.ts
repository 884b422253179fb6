// Values as Go's %#v prints them, for the few messages where clients see lists, maps and selectors that way.
import type { LabelSelector } from "../gen/meta-v1.ts";
import type { FieldError } from "../status.ts";

export const goStrings = (list: readonly string[] | undefined): string =>
  list === undefined ? "[]string(nil)" : `[]string{${list.map((text) => JSON.stringify(text)).join(", ")}}`;

export function goMap(map: Readonly<Record<string, string>> | undefined): string {
  if (map === undefined) return "map[string]string(nil)";
  const entries = Object.keys(map)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${JSON.stringify(map[key])}`);
  return `map[string]string{${entries.join(", ")}}`;
}

export function goSelector(selector: LabelSelector | undefined): string {
  if (selector === undefined) return "nil";
  const requirements = selector.matchExpressions?.map(
    ({ key, operator, values }) =>
      `v1.LabelSelectorRequirement{Key:${JSON.stringify(key)}, Operator:${JSON.stringify(operator)}, Values:${goStrings(values)}}`,
  );
  const list = requirements
    ? `[]v1.LabelSelectorRequirement{${requirements.join(", ")}}`
    : "[]v1.LabelSelectorRequirement(nil)";
  return `v1.LabelSelector{MatchLabels:${goMap(selector.matchLabels)}, MatchExpressions:${list}}`;
}

/** "Invalid value" of something printed by one of the functions above. */
export const invalidGo = (field: string, shown: string, detail: string): FieldError => ({
  reason: "FieldValueInvalid",
  field,
  message: `Invalid value: ${shown}: ${detail}`,
});

/** "Unsupported value" with the supported ones in the order given: some lists upstream are not sorted. */
export const notSupportedInOrder = (field: string, value: string, supported: readonly string[]): FieldError => ({
  reason: "FieldValueNotSupported",
  field,
  message: `Unsupported value: ${JSON.stringify(value)}: supported values: ${supported.map((s) => JSON.stringify(s)).join(", ")}`,
});
