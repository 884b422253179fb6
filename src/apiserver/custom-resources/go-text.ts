// Values as Go prints them, for messages that clients compare: `%v` of numbers, `%#v` of decoded JSON, and field errors
// about values that may be anything. Upstream counterpart: field.Error.ErrorBody over fmt.
import { isObject } from "#model/patch/json-value.ts";
import type { FieldError } from "#model/status.ts";

/** `%v` of what upstream decodes as int64 where it is whole, as float64 elsewhere. */
export const goNumber = (value: number): string =>
  Number.isInteger(value) && Math.abs(value) < 2 ** 63 ? String(value) : goFloat(value);

/** `%v` of a float64: with an exponent from a million on. */
export function goFloat(value: number): string {
  if (value === 0) return "0";
  const exponent = Number(value.toExponential().split("e")[1]);
  return exponent < -4 || exponent >= 6 ? exponential(value) : String(value);
}

function exponential(value: number): string {
  const [mantissa, exponent = "+0"] = value.toExponential().split("e");
  const sign = exponent.startsWith("-") ? "-" : "+";
  return `${mantissa}e${sign}${exponent.replace(/^[+-]/, "").padStart(2, "0")}`;
}

/** `%#v`. */
export function goSyntax(value: unknown): string {
  if (value === null || value === undefined) return "interface {}(nil)";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return goNumber(value);
  if (Array.isArray(value)) return `[]interface {}{${value.map(goSyntax).join(", ")}}`;
  if (!isObject(value)) return String(value);
  const members = Object.keys(value).sort();
  return `map[string]interface {}{${members.map((name) => `${JSON.stringify(name)}:${goSyntax(value[name])}`).join(", ")}}`;
}

/** What stands behind "Invalid value: ". */
export function shownValue(value: unknown): string {
  if (value === null || value === undefined) return '"null"';
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return goNumber(value);
  if (typeof value === "boolean") return String(value);
  return goSyntax(value);
}

export const invalidValue = (field: string, value: unknown, detail: string): FieldError => ({
  reason: "FieldValueInvalid",
  field,
  message: `Invalid value: ${shownValue(value)}: ${detail}`,
});
export const wrongType = (field: string, value: unknown, detail: string): FieldError => ({
  ...invalidValue(field, value, detail),
  reason: "FieldValueTypeInvalid",
});
export const duplicateValue = (field: string, value: unknown): FieldError => ({
  reason: "FieldValueDuplicate",
  field,
  message: `Duplicate value: ${shownValue(value)}`,
});
/** In the order in which the schema lists them. */
export const unsupportedValue = (field: string, value: unknown, supported: readonly unknown[]): FieldError => ({
  reason: "FieldValueNotSupported",
  field,
  message: `Unsupported value: ${shownValue(value)}: supported values: ${supported
    .map((item) => JSON.stringify(typeof item === "string" ? item : JSON.stringify(item)))
    .join(", ")}`,
});
