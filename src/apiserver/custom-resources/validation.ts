// Is a custom resource what its schema says? Every failure with the path and the words that upstream has for it. On an
// update what did not change is not looked at again: an object that was let in once may stay as it is (ratcheting).
// Patterns are RE2, so no pattern takes more than linear time. Upstream counterpart: apiextensions
// apiserver/validation over kube-openapi/pkg/validation/validate, and structural-schema/listtype.
import type { JsonSchema } from "#model/custom-resources.ts";
import { canonicalText, equalJson, isObject, type JsonObject } from "#model/patch/json-value.ts";
import { compilePattern, Effort, type Pattern, PatternTooCostly } from "#model/patterns.ts";
import { type FieldError, fieldRequired, fieldTooLong, fieldTooMany } from "#model/status.ts";
import { validateMetadata } from "#model/validation/metadata.ts";
import { nameRules } from "#model/validation/names.ts";
import { matchesFormat } from "./formats.ts";
import { duplicateValue, goFloat, invalidValue, unsupportedValue, wrongType } from "./go-text.ts";
import { elementOf, propertyOf } from "./values.ts";

/** Enough to see what is wrong; upstream has no bound here, and a list of a million items may be wrong in each. */
const maxErrors = 1000;

interface Walk {
  readonly errors: FieldError[];
  readonly patterns: Map<string, Pattern | undefined>;
  readonly effort: Effort;
}

export class SchemaValidator {
  readonly #schema: JsonSchema;
  readonly #patterns = new Map<string, Pattern | undefined>();
  constructor(schema: JsonSchema) {
    this.#schema = schema;
  }

  /** `old`: what it was before, for updates. */
  validate(object: JsonObject, old?: JsonObject): FieldError[] {
    const walk: Walk = { errors: [], patterns: this.#patterns, effort: new Effort() };
    validateValue(walk, object, this.#schema, "", old === undefined ? absent : old);
    validateLists(walk, object, this.#schema, "");
    validateEmbedded(walk, object, this.#schema, "", true);
    return walk.errors;
  }
}

/** No value to compare with. */
const absent = Symbol("absent");

const at = (path: string, name: string): string => (path === "" ? name : `${path}.${name}`);
/** Of the root: upstream prints a nil path. */
const shownPath = (path: string): string => (path === "" ? "<nil>" : path);
const add = (walk: Walk, error: FieldError): void => {
  if (walk.errors.length < maxErrors) walk.errors.push(error);
};

function validateValue(walk: Walk, value: unknown, schema: JsonSchema, path: string, old: unknown): void {
  if (old !== absent && equalJson(value, old)) return;
  checkType(walk, value, schema, path);
  if (value === null) {
    checkEnum(walk, value, schema, path);
    return;
  }
  checkJunctors(walk, value, schema, path, old);
  if (typeof value === "string") checkString(walk, value, schema, path);
  else if (typeof value === "number") checkNumber(walk, value, schema, path);
  else if (Array.isArray(value)) checkArray(walk, value, schema, path, old);
  checkEnum(walk, value, schema, path);
  if (isObject(value)) checkObject(walk, value, schema, path, old);
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value;
}

function checkType(walk: Walk, value: unknown, schema: JsonSchema, path: string): void {
  const { type } = schema;
  const isUnion = schema["x-kubernetes-int-or-string"] === true;
  if ((type === undefined || type === "") && !isUnion) return;
  if (value === null && schema.nullable === true) return;
  const found = typeOf(value);
  const wanted = isUnion ? ["integer", "string"] : [type!];
  if (wanted.includes(found) || (found === "integer" && wanted.includes("number"))) return;
  const expected = wanted.join(",");
  add(walk, wrongType(shownPath(path), found, `${path} in body must be of type ${expected}: ${JSON.stringify(found)}`));
}

function checkString(walk: Walk, value: string, schema: JsonSchema, path: string): void {
  const { maxLength, minLength, pattern, format } = schema;
  if (maxLength !== undefined || minLength !== undefined) {
    // Code points, of which there are never more than UTF-16 units.
    const length =
      maxLength !== undefined && value.length <= maxLength && !minLength ? value.length : codePoints(value);
    if (maxLength !== undefined && length > maxLength) add(walk, fieldTooLong(shownPath(path), maxLength));
    if (minLength !== undefined && length < minLength) {
      add(walk, invalidValue(shownPath(path), value, `${path} in body should be at least ${minLength} chars long`));
    }
  }
  if (pattern) {
    let compiled = walk.patterns.get(pattern);
    if (!walk.patterns.has(pattern)) {
      compiled = compilePattern(pattern);
      walk.patterns.set(pattern, compiled);
    }
    const problem = compiled && mismatch(compiled, pattern, value, walk.effort);
    if (problem !== undefined) add(walk, invalidValue(shownPath(path), value, `${path} in body ${problem}`));
  }
  if (format && !matchesFormat(format, value)) {
    add(walk, wrongType(shownPath(path), value, `${path} in body must be of type ${format}: ${JSON.stringify(value)}`));
  }
}

function mismatch(compiled: Pattern, source: string, value: string, effort: Effort): string | undefined {
  try {
    return compiled.finds(value, effort) ? undefined : `should match '${source}'`;
  } catch (error) {
    if (error instanceof PatternTooCostly) return `cannot be matched with '${source}': ${error.message}`;
    throw error;
  }
}

function codePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0xdc00 || code > 0xdfff) count++;
  }
  return count;
}

const integerRanges: Readonly<Record<string, readonly [number, number]>> = {
  int32: [-(2 ** 31), 2 ** 31 - 1],
  int64: [-(2 ** 63), 2 ** 63],
};

function checkNumber(walk: Walk, value: number, schema: JsonSchema, path: string): void {
  const { multipleOf, maximum, minimum, format } = schema;
  const wrong = (what: string) => add(walk, invalidValue(shownPath(path), value, `${path} in body should be ${what}`));
  const range = format === undefined ? undefined : integerRanges[format];
  if (range && Number.isInteger(value) && (value < range[0] || value > range[1])) {
    const what = `Checked value must be of type ${schema.type ?? "integer"} with format ${format} in ${path}`;
    add(walk, invalidValue(shownPath(path), value, what));
  }
  if (multipleOf !== undefined && !isMultiple(value, multipleOf)) wrong(`a multiple of ${goFloat(multipleOf)}`);
  if (maximum !== undefined) {
    if (schema.exclusiveMaximum && value >= maximum) wrong(`less than ${goFloat(maximum)}`);
    else if (value > maximum) wrong(`less than or equal to ${goFloat(maximum)}`);
  }
  if (minimum !== undefined) {
    if (schema.exclusiveMinimum && value <= minimum) wrong(`greater than ${goFloat(minimum)}`);
    else if (value < minimum) wrong(`greater than or equal to ${goFloat(minimum)}`);
  }
}

function isMultiple(value: number, factor: number): boolean {
  const ratio = value / factor;
  return Math.abs(ratio - Math.round(ratio)) < 1e-9 * Math.max(1, Math.abs(ratio));
}

function checkEnum(walk: Walk, value: unknown, schema: JsonSchema, path: string): void {
  const { enum: values } = schema;
  if (!values || values.length === 0) return;
  if (value === null && schema.nullable === true && !values.includes(null)) {
    add(walk, unsupportedValue(shownPath(path), value, values));
    return;
  }
  if (!values.some((allowed) => equalJson(allowed, value))) {
    add(walk, unsupportedValue(shownPath(path), value, values));
  }
}

function checkArray(walk: Walk, value: readonly unknown[], schema: JsonSchema, path: string, old: unknown): void {
  const { minItems, maxItems, items } = schema;
  if (items) {
    const correlate = correlation(schema, old);
    for (let i = 0; i < value.length; i++) {
      validateValue(walk, value[i], items, `${path}[${i}]`, correlate(value[i]));
      if (walk.errors.length >= maxErrors) return;
    }
  }
  if (minItems !== undefined && value.length < minItems) {
    add(walk, invalidValue(shownPath(path), value.length, `${path} in body should have at least ${minItems} items`));
  }
  if (maxItems !== undefined && value.length > maxItems) {
    add(walk, fieldTooMany(shownPath(path), value.length, maxItems));
  }
}

/** Finds what an item was before: only items of a list with keys can be told apart. */
export function correlation(schema: JsonSchema, old: unknown): (item: unknown) => unknown {
  if (!Array.isArray(old) || schema["x-kubernetes-list-type"] !== "map") return () => absent;
  const keys = schema["x-kubernetes-list-map-keys"] ?? [];
  const known = new Map<string, unknown>();
  for (const item of old) known.set(keyOf(item, keys, schema.items), item);
  return (item) => {
    const key = keyOf(item, keys, schema.items);
    return known.has(key) ? known.get(key) : absent;
  };
}

function keyOf(item: unknown, keys: readonly string[], schema: JsonSchema | undefined): string {
  if (!isObject(item)) return JSON.stringify(item);
  return JSON.stringify(
    keys.map((key) => (Object.hasOwn(item, key) ? item[key] : ((schema && propertyOf(schema, key))?.default ?? null))),
  );
}

function checkObject(walk: Walk, value: JsonObject, schema: JsonSchema, path: string, old: unknown): void {
  const { minProperties, maxProperties, required, properties } = schema;
  const names = Object.keys(value);
  if (minProperties !== undefined && names.length < minProperties) {
    const detail = `${path} in body should have at least ${minProperties} properties`;
    add(walk, invalidValue(shownPath(path), value, detail));
  }
  if (maxProperties !== undefined && names.length > maxProperties) {
    add(walk, fieldTooMany(shownPath(path), names.length, maxProperties));
  }
  const before = isObject(old) ? old : undefined;
  const oldOf = (name: string): unknown => (before && Object.hasOwn(before, name) ? before[name] : absent);
  const element = elementOf(schema);
  if (properties || element) {
    for (const name of names) {
      const property = propertyOf(schema, name) ?? element;
      if (property) validateValue(walk, value[name], property, at(path, name), oldOf(name));
      if (walk.errors.length >= maxErrors) return;
    }
  }
  for (const name of required ?? []) if (!Object.hasOwn(value, name)) add(walk, fieldRequired(at(path, name)));
}

function checkJunctors(walk: Walk, value: unknown, schema: JsonSchema, path: string, old: unknown): void {
  const { allOf, anyOf, oneOf, not } = schema;
  const attempt = (part: JsonSchema): FieldError[] => {
    const inner: Walk = { ...walk, errors: [] };
    validateValue(inner, value, part, path, old);
    return inner.errors;
  };
  const name = JSON.stringify(path);
  const fail = (detail: string) => add(walk, invalidValue("<nil>", "", detail));
  if (anyOf && anyOf.length > 0) {
    const results = anyOf.map(attempt);
    if (results.every((errors) => errors.length > 0)) {
      fail(`${name} must validate at least one schema (anyOf)`);
      for (const error of fewest(results)) add(walk, error);
    }
  }
  if (oneOf && oneOf.length > 0) {
    const results = oneOf.map(attempt);
    const valid = results.filter((errors) => errors.length === 0).length;
    if (valid === 0) {
      fail(`${name} must validate one and only one schema (oneOf). Found none valid`);
      for (const error of fewest(results)) add(walk, error);
    } else if (valid > 1) {
      fail(`${name} must validate one and only one schema (oneOf). Found ${valid} valid alternatives`);
    }
  }
  if (allOf && allOf.length > 0) {
    const results = allOf.map(attempt);
    for (const error of results.flat()) add(walk, error);
    if (results.some((errors) => errors.length > 0)) fail(`${name} must validate all the schemas (allOf)`);
  }
  if (not && attempt(not).length === 0) fail(`${name} must not validate the schema (not)`);
}

/** The alternative that came nearest. */
function fewest(results: readonly FieldError[][]): readonly FieldError[] {
  let best = results[0] ?? [];
  for (const errors of results) if (errors.length < best.length) best = errors;
  return best;
}

// Sets and maps in lists

function validateLists(walk: Walk, value: unknown, schema: JsonSchema, path: string): void {
  if (Array.isArray(value)) {
    const { items } = schema;
    if (!items) return;
    const type = schema["x-kubernetes-list-type"];
    if (type === "set" || type === "map") checkUnique(walk, value, schema, path, type);
    value.forEach((item, index) => {
      validateLists(walk, item, items, `${path}[${index}]`);
    });
    return;
  }
  if (!isObject(value)) return;
  const element = elementOf(schema);
  if (!schema.properties && !element) return;
  for (const name of Object.keys(value)) {
    const property = propertyOf(schema, name);
    if (property) validateLists(walk, value[name], property, at(path, name));
    else if (element) validateLists(walk, value[name], element, `${path}[${name}]`);
  }
}

function checkUnique(
  walk: Walk,
  value: readonly unknown[],
  schema: JsonSchema,
  path: string,
  type: "set" | "map",
): void {
  const seen = new Set<string>();
  const keys = schema["x-kubernetes-list-map-keys"] ?? [];
  value.forEach((item, index) => {
    if (type === "map" && !isObject(item)) return;
    const id = type === "set" ? canonicalText(item) : keyOf(item, keys, schema.items);
    if (!seen.has(id)) {
      seen.add(id);
      return;
    }
    let shown: unknown = item;
    if (type === "map") {
      const object = item as JsonObject;
      shown = Object.fromEntries(keys.filter((key) => Object.hasOwn(object, key)).map((key) => [key, object[key]]));
    }
    add(walk, duplicateValue(`${path}[${index}]`, shown));
  });
}

// Objects inside of the object

function validateEmbedded(walk: Walk, value: unknown, schema: JsonSchema, path: string, isRoot: boolean): void {
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items)
      value.forEach((item, index) => {
        validateEmbedded(walk, item, items, `${path}[${index}]`, false);
      });
    return;
  }
  if (!isObject(value)) return;
  if (!isRoot && schema["x-kubernetes-embedded-resource"] === true) {
    for (const name of ["apiVersion", "kind"]) {
      if (typeof value[name] !== "string" || value[name] === "") {
        add(walk, fieldRequired(at(path, name), "must not be empty"));
      }
    }
    if (isObject(value["metadata"])) checkEmbeddedMetadata(walk, value["metadata"], path);
  }
  const element = elementOf(schema);
  if (!schema.properties && !element) return;
  for (const name of Object.keys(value)) {
    const property = propertyOf(schema, name) ?? element;
    if (property) validateEmbedded(walk, value[name], property, at(path, name), false);
  }
}

/** Labels, annotations and the rest; a name or namespace need not be there. */
function checkEmbeddedMetadata(walk: Walk, metadata: JsonObject, path: string): void {
  const { name: _name, generateName: _base, namespace: _namespace, ...rest } = metadata;
  for (const error of validateMetadata({ ...rest, name: "x" }, { namespaced: false }, nameRules.subdomain)) {
    add(walk, { ...error, field: `${path}.${error.field}` });
  }
}
