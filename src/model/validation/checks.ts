// Small checks that most kinds are made of. Each takes the path and the value and returns what is wrong.
import type { LabelSelector } from "../gen/meta-v1.ts";
import { quantityError } from "../quantity.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
} from "../status.ts";
import { nanoOf } from "./amount.ts";
import { eachOf, findings } from "./findings.ts";
import { type Check, labelValue, qualifiedName } from "./names.ts";

/** One "Invalid value" per problem that `check` finds. Required texts can be absent in JSON: they count as empty. */
export const checked = (path: string, text: string | undefined, check: Check): FieldError[] =>
  check(text ?? "").map((problem) => fieldInvalid(path, text ?? "", problem));

/** Required, then `check`. */
export function requiredName(path: string, text: string | undefined, check: Check): FieldError[] {
  return text ? checked(path, text, check) : [fieldRequired(path)];
}

/** Absent, or one of `allowed`. */
export function oneOf(path: string, value: string | undefined | null, allowed: readonly string[]): FieldError[] {
  return value == null || allowed.includes(value) ? [] : [fieldNotSupported(path, value, allowed)];
}

/** One of `allowed`; absent is an error of its own. */
export function requiredOneOf(path: string, value: string | undefined, allowed: readonly string[]): FieldError[] {
  return value ? oneOf(path, value, allowed) : [fieldRequired(path)];
}

export const notNegative = (path: string, value: number | undefined | null): FieldError[] =>
  value != null && value < 0 ? [fieldInvalid(path, value, "must be greater than or equal to 0")] : [];

export const portNumber = (path: string, value: unknown): FieldError[] =>
  typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 65535
    ? []
    : [fieldInvalid(path, value, "must be between 1 and 65535, inclusive")];

const immutable = "field is immutable";
export function unchanged(path: string, value: unknown, old: unknown): FieldError[] {
  return same(value, old) ? [] : [fieldInvalid(path, value, immutable)];
}

/** Deep equality of JSON values; absent, null, empty lists and empty maps are the same, as upstream's Semantic.DeepEqual. */
export function same(a: unknown, b: unknown): boolean {
  if (a === b || (isEmpty(a) && isEmpty(b))) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  for (const key of Object.keys(left))
    if (!same(left[key], Object.hasOwn(right, key) ? right[key] : undefined)) return false;
  for (const key of Object.keys(right)) if (!Object.hasOwn(left, key) && !same(undefined, right[key])) return false;
  return true;
}

const isEmpty = (value: unknown): boolean =>
  value == null || (typeof value === "object" && Object.keys(value).length === 0);

/** Two entries of a list with the same key. */
export function noDuplicates<T>(
  items: readonly T[],
  keyOf: (item: T) => string | undefined,
  pathOf: (index: number) => string,
): FieldError[] {
  const seen = new Set<string>();
  const errors = findings();
  for (const [index, item] of items.entries()) {
    const key = keyOf(item);
    if (key === undefined || key === "") continue;
    if (seen.has(key)) errors.push(fieldDuplicate(pathOf(index), key));
    seen.add(key);
  }
  return errors;
}

export function labels(path: string, map: Readonly<Record<string, string>> | undefined): FieldError[] {
  return eachOf(Object.entries(map ?? {}), ([key, value]) => [
    ...checked(path, key, qualifiedName),
    ...checked(path, value, labelValue),
  ]);
}

/** What is wrong with the values of a requirement; undefined for an operator that not all selectors have. */
export function valuesOfOperator(at: string, operator: string, values: readonly string[]): FieldError[] | undefined {
  switch (operator) {
    case "In":
    case "NotIn":
      return values.length > 0
        ? []
        : [fieldRequired(`${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'")];
    case "Exists":
    case "DoesNotExist":
      return values.length === 0
        ? []
        : [fieldForbidden(`${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")];
    default:
      return undefined;
  }
}

export function labelSelector(path: string, selector: LabelSelector | undefined): FieldError[] {
  const errors = findings();
  for (const [key, value] of Object.entries(selector?.matchLabels ?? {})) {
    errors.push(...checked(`${path}.matchLabels`, key, qualifiedName));
    errors.push(...checked(`${path}.matchLabels`, value, labelValue));
  }
  for (const [index, requirement] of (selector?.matchExpressions ?? []).entries()) {
    const at = `${path}.matchExpressions[${index}]`;
    const { operator, values = [] } = requirement;
    errors.push(
      ...(valuesOfOperator(at, operator, values) ?? [
        fieldInvalid(`${at}.operator`, operator, "not a valid selector operator"),
      ]),
    );
    errors.push(...checked(`${at}.key`, requirement.key, qualifiedName));
    for (const [i, value] of values.entries()) errors.push(...checked(`${at}.values[${i}]`, value, labelValue));
  }
  return errors;
}

export const selectorIsEmpty = (selector: LabelSelector | undefined): boolean =>
  Object.keys(selector?.matchLabels ?? {}).length === 0 && (selector?.matchExpressions ?? []).length === 0;

/** A quantity that is not negative. */
export function quantity(path: string, value: string | number, amount = nanoOf(value)): FieldError[] {
  if (amount === undefined) return [fieldInvalid(path, value, quantityError)];
  return amount < 0n ? [fieldInvalid(path, String(value), "must be greater than or equal to 0")] : [];
}

/** An int or a percentage, as in maxSurge. */
export function intOrPercent(path: string, value: number | string | undefined): FieldError[] {
  if (value === undefined) return [];
  if (typeof value === "number") return notNegative(path, value);
  return /^[0-9]+%$/.test(value)
    ? []
    : [
        fieldInvalid(
          path,
          value,
          "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
      ];
}
