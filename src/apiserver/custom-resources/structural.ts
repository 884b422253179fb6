// Whether the schema of a definition may be one: what OpenAPI v3 allows but definitions do not, and what makes a schema
// structural, so that pruning and defaulting know every field. Pure. Paths and words are upstream's.
// Upstream counterpart: apiextensions validation.ValidateCustomResourceDefinitionOpenAPISchema and
// structural-schema ValidateStructural, ValidateDefaults.
import type { JsonSchema } from "#model/custom-resources.ts";
import { cloneJson, isObject } from "#model/patch/json-value.ts";
import { compilePattern, patternSize } from "#model/patterns.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
} from "#model/status.ts";
import { findings } from "#model/validation/findings.ts";
import { SchemaValidator } from "./validation.ts";
import { elementOf, prune } from "./values.ts";

/** Deeper schemas than people write; every walk of one is recursive. */
const maxDepth = 100;

/**
 * Of the patterns of one definition together, each counted once: making so many instructions takes half a second, and who
 * else asks waits. As many as ten of the largest patterns that there may be; the largest definitions in use have a tenth.
 */
const maxInstructions = 50_000;

/** The patterns that the versions of one definition have between them. */
export class DefinitionPatterns {
  readonly #seen = new Map<string, string | undefined>();
  #left: number;
  constructor(allowed = maxInstructions) {
    this.#left = allowed;
  }
  /** What is wrong with one, if anything is, as an error at `path`. */
  check(pattern: string, path: string): FieldError | undefined {
    if (!this.#seen.has(pattern)) {
      this.#left -= patternSize(pattern);
      if (this.#left < 0) return fieldForbidden(path, tooMuch);
      this.#seen.set(pattern, compilePattern(pattern) ? undefined : notAPattern);
    }
    const why = this.#seen.get(pattern);
    return why === undefined ? undefined : fieldInvalid(path, pattern, why);
  }
}

const notAPattern = "must be a valid regular expression, but isn't: error parsing regexp";
const tooMuch = `contributed to patterns of together more than ${maxInstructions} instructions, the limit for a CustomResourceDefinition`;

const key = (path: string, name: string): string => `${path}.properties[${name}]`;
const types: ReadonlySet<string> = new Set(["array", "boolean", "integer", "number", "object", "string"]);
const scalarTypes: ReadonlySet<string> = new Set(["boolean", "integer", "number", "string"]);

/** What is wrong with the root schema of a version at `path`. */
export function checkSchema(
  root: JsonSchema,
  path: string,
  hasStatus: boolean,
  patterns = new DefinitionPatterns(),
): FieldError[] {
  const errors = findings();
  if (depthOf(root) > maxDepth) return [fieldForbidden(path, `must not be nested deeper than ${maxDepth} levels`)];
  if (hasStatus) checkRootOfStatus(errors, root, path);
  if (root.nullable) errors.push(fieldForbidden(`${path}.nullable`, "nullable cannot be true at the root"));
  checkOpenApi(errors, root, path, true, patterns);
  if (errors.length > 0) return errors;
  checkStructure(errors, root, path, "root");
  if (errors.length > 0) return errors;
  checkDefaults(errors, root, path, true);
  return errors;
}

function depthOf(schema: JsonSchema, depth = 0): number {
  if (depth > maxDepth) return depth;
  let deepest = depth;
  for (const child of childrenOf(schema)) deepest = Math.max(deepest, depthOf(child, depth + 1));
  return deepest;
}

function* childrenOf(schema: JsonSchema): Generator<JsonSchema> {
  const { properties, items, allOf, anyOf, oneOf, not } = schema;
  yield* Object.values(properties ?? {});
  const element = elementOf(schema);
  if (element) yield element;
  if (isObject(items)) yield items as JsonSchema;
  for (const list of [allOf, anyOf, oneOf]) yield* list ?? [];
  if (not) yield not;
}

const rootFields = [
  "$ref",
  "$schema",
  "id",
  "default",
  "enum",
  "items",
  "additionalProperties",
  "patternProperties",
  "definitions",
  "dependencies",
  "additionalItems",
  "not",
  "allOf",
  "anyOf",
  "oneOf",
] as const;

/** The schema of status is taken out of the root's properties; what else speaks of status there would be lost. */
function checkRootOfStatus(errors: FieldError[], root: JsonSchema, path: string): void {
  if (root.type !== undefined && root.type !== "" && root.type !== "object") {
    const only = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled';
    errors.push(fieldInvalid(`${path}.type`, root.type, only));
  }
  const forbidden = rootFields.filter((field) => {
    const value = root[field];
    return value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0);
  });
  if (forbidden.length > 0) {
    const allowed =
      'only ["description","example","exclusiveMaximum","exclusiveMinimum","externalDocs","format","items","maxItems","maxLength","maxProperties","maximum","minItems","minLength","minProperties","minimum","multipleOf","pattern","properties","required","title","type","uniqueItems","x-kubernetes-preserve-unknown-fields"] fields are allowed at the root of the schema if the status subresource is enabled';
    errors.push(fieldInvalid(path, forbidden.join(","), allowed));
  }
}

function checkOpenApi(
  errors: FieldError[],
  schema: JsonSchema,
  path: string,
  isStructural: boolean,
  patterns: DefinitionPatterns,
): void {
  const forbid = (field: string, why: string) => errors.push(fieldForbidden(`${path}.${field}`, why));
  if (schema.uniqueItems) {
    forbid("uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
  }
  const { additionalProperties, properties, items } = schema;
  if (additionalProperties !== undefined) {
    if (additionalProperties === false) forbid("additionalProperties", "additionalProperties cannot be set to false");
    if (properties && Object.keys(properties).length > 0) {
      forbid("additionalProperties", "additionalProperties and properties are mutual exclusive");
    }
  }
  if (Array.isArray(items)) forbid("items", "items must be a schema object and not an array");
  for (const field of ["definitions", "dependencies", "patternProperties"] as const) {
    if (Object.keys(schema[field] ?? {}).length > 0) forbid(field, `${field} is not supported`);
  }
  if (schema.id) forbid("id", "id is not supported");
  if (schema.additionalItems !== undefined) forbid("additionalItems", "additionalItems is not supported");
  if (schema.$ref !== undefined) forbid("$ref", "$ref is not supported");
  if (schema.type === "null") forbid("type", "type cannot be set to null, use nullable as an alternative");
  const problem = schema.pattern ? patterns.check(schema.pattern, `${path}.pattern`) : undefined;
  if (problem) errors.push(problem);
  checkExtensions(errors, schema, path);
  if (schema.default !== undefined && !isStructural) {
    forbid("default", "must be undefined to be structural");
  }
  for (const [name, property] of Object.entries(properties ?? {})) {
    checkOpenApi(errors, property, key(path, name), isStructural, patterns);
  }
  const element = elementOf(schema);
  if (element) checkOpenApi(errors, element, `${path}.additionalProperties`, isStructural, patterns);
  if (isObject(items)) checkOpenApi(errors, items as JsonSchema, `${path}.items`, isStructural, patterns);
  for (const field of ["allOf", "oneOf", "anyOf"] as const) {
    schema[field]?.forEach((part, index) => {
      checkOpenApi(errors, part, `${path}.${field}[${index}]`, false, patterns);
    });
  }
  if (schema.not) checkOpenApi(errors, schema.not, `${path}.not`, false, patterns);
}

function checkExtensions(errors: FieldError[], schema: JsonSchema, path: string): void {
  const preserve = schema["x-kubernetes-preserve-unknown-fields"];
  if (preserve === false) {
    errors.push(fieldInvalid(`${path}.x-kubernetes-preserve-unknown-fields`, preserve, "must be true or undefined"));
  }
  const mapType = schema["x-kubernetes-map-type"];
  if (mapType !== undefined) {
    if (schema.type !== "object") {
      const why = "must be object if x-kubernetes-map-type is specified";
      errors.push(schema.type ? fieldInvalid(`${path}.type`, schema.type, why) : fieldRequired(`${path}.type`, why));
    }
    if (mapType !== "atomic" && mapType !== "granular") {
      errors.push(fieldNotSupported(`${path}.x-kubernetes-map-type`, mapType, ["atomic", "granular"]));
    }
  }
  checkListType(errors, schema, path);
}

function checkListType(errors: FieldError[], schema: JsonSchema, path: string): void {
  const listType = schema["x-kubernetes-list-type"];
  const keys = schema["x-kubernetes-list-map-keys"] ?? [];
  const { items } = schema;
  if (listType !== undefined && schema.type !== "array") {
    const why = "must be array if x-kubernetes-list-type is specified";
    errors.push(schema.type ? fieldInvalid(`${path}.type`, schema.type, why) : fieldRequired(`${path}.type`, why));
  }
  if (listType !== undefined && !["atomic", "set", "map"].includes(listType)) {
    errors.push(fieldNotSupported(`${path}.x-kubernetes-list-type`, listType, ["atomic", "set", "map"]));
  }
  if (keys.length > 0 && listType !== "map") {
    const why = "must be map if x-kubernetes-list-map-keys is non-empty";
    const field = `${path}.x-kubernetes-list-type`;
    errors.push(listType === undefined ? fieldRequired(field, why) : fieldInvalid(field, listType, why));
  }
  if (listType === "map") {
    const keysPath = `${path}.x-kubernetes-list-map-keys`;
    if (keys.length === 0) {
      errors.push(fieldRequired(keysPath, "must not be empty if x-kubernetes-list-type is map"));
    }
    if (!items) {
      errors.push(fieldRequired(`${path}.items`, "must have a schema if x-kubernetes-list-type is map"));
      return;
    }
    if (items.type !== "object") {
      const why = "must be object if parent array's x-kubernetes-list-type is map";
      errors.push(fieldInvalid(`${path}.items.type`, items.type ?? "", why));
    }
    const seen = new Set<string>();
    for (const name of keys) {
      if (seen.has(name)) {
        errors.push(fieldDuplicate(`${keysPath}[${keys.lastIndexOf(name)}]`, name));
        continue;
      }
      seen.add(name);
      const property = items.properties?.[name];
      if (!property) {
        errors.push(fieldInvalid(keysPath, keys, "entries must all be names of item properties"));
        continue;
      }
      const at = key(`${path}.items`, name);
      if (!scalarTypes.has(property.type ?? "")) {
        errors.push(
          fieldInvalid(
            `${at}.type`,
            property.type ?? "",
            "must be a scalar type if parent array's x-kubernetes-list-type is map",
          ),
        );
      }
      if (property.nullable) {
        errors.push(
          fieldForbidden(`${at}.nullable`, "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"),
        );
      }
      if (property.default === undefined && !items.required?.includes(name)) {
        errors.push(
          fieldRequired(
            `${at}.default`,
            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
          ),
        );
      }
    }
  }
  if (listType === "set" && items) {
    if (items.nullable) {
      errors.push(fieldForbidden(`${path}.items.nullable`, "cannot be nullable when x-kubernetes-list-type is set"));
    }
    if (items.type === "array" && items["x-kubernetes-list-type"] !== "atomic") {
      const found = items["x-kubernetes-list-type"];
      const why = "must be atomic as item of a list with x-kubernetes-list-type=set";
      errors.push(fieldInvalid(`${path}.items.x-kubernetes-list-type`, found ?? null, why));
    }
    if (items.type === "object" && items["x-kubernetes-map-type"] !== "atomic") {
      const found = items["x-kubernetes-map-type"];
      const why = "must be atomic as item of a list with x-kubernetes-list-type=set";
      errors.push(fieldInvalid(`${path}.items.x-kubernetes-map-type`, found ?? null, why));
    }
  }
}

type Level = "root" | "field" | "item";
const emptyType: Readonly<Record<Level, string>> = {
  root: "must not be empty at the root",
  field: "must not be empty for specified object fields",
  item: "must not be empty for specified array items",
};

function checkStructure(errors: FieldError[], schema: JsonSchema, path: string, level: Level): void {
  const type = schema.type ?? "";
  const isIntOrString = schema["x-kubernetes-int-or-string"] === true;
  const keepsUnknown = schema["x-kubernetes-preserve-unknown-fields"] === true;
  if (type === "" && !isIntOrString && !keepsUnknown) errors.push(fieldRequired(`${path}.type`, emptyType[level]));
  if (type !== "" && !types.has(type)) {
    errors.push(fieldNotSupported(`${path}.type`, type, [...types]));
  }
  if (level === "root" && type !== "object" && type !== "") {
    errors.push(fieldInvalid(`${path}.type`, type, "must be object at the root"));
  }
  if (isIntOrString && type !== "") {
    errors.push(fieldInvalid(`${path}.type`, type, "must be empty if x-kubernetes-int-or-string is true"));
  }
  if (keepsUnknown && type !== "" && type !== "object") {
    const why = "must be object if x-kubernetes-preserve-unknown-fields is true";
    errors.push(fieldInvalid(`${path}.type`, type, why));
  }
  if (schema["x-kubernetes-embedded-resource"] === true) {
    if (type !== "object") {
      const why = "must be object if x-kubernetes-embedded-resource is true";
      errors.push(type === "" ? fieldRequired(`${path}.type`, why) : fieldInvalid(`${path}.type`, type, why));
    }
    if (!keepsUnknown && Object.keys(schema.properties ?? {}).length === 0) {
      const why =
        "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
      errors.push(fieldRequired(`${path}.properties`, why));
    }
  }
  if (type === "array" && !schema.items) errors.push(fieldRequired(`${path}.items`, "must be specified"));
  if (level === "root" || schema["x-kubernetes-embedded-resource"] === true) checkTypeMeta(errors, schema, path);
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    checkStructure(errors, property, key(path, name), "field");
  }
  const element = elementOf(schema);
  if (element) checkStructure(errors, element, `${path}.additionalProperties`, "field");
  if (schema.items) checkStructure(errors, schema.items, `${path}.items`, "item");
  for (const field of ["allOf", "anyOf", "oneOf"] as const) {
    schema[field]?.forEach((part, index) => {
      // The int-or-string idiom is two alternatives that name their types.
      if (isIntOrString && field === "anyOf" && isUnionOfTypes(schema.anyOf)) return;
      if (isIntOrString && field === "allOf" && index === 0 && isUnionOfTypes(part.anyOf)) return;
      checkNested(errors, part, schema, `${path}.${field}[${index}]`);
    });
  }
  if (schema.not) checkNested(errors, schema.not, schema, `${path}.not`);
}

const isUnionOfTypes = (parts: readonly JsonSchema[] | undefined): boolean =>
  parts?.length === 2 && parts[0]?.type === "integer" && parts[1]?.type === "string";

function checkTypeMeta(errors: FieldError[], schema: JsonSchema, path: string): void {
  for (const name of ["apiVersion", "kind"]) {
    const type = schema.properties?.[name]?.type;
    if (type !== undefined && type !== "string") {
      errors.push(fieldInvalid(`${key(path, name)}.type`, type, "must be string"));
    }
  }
  const metadata = schema.properties?.["metadata"];
  if (!metadata) return;
  const at = key(path, "metadata");
  if (metadata.type !== "object") errors.push(fieldInvalid(`${at}.type`, metadata.type ?? "", "must be object"));
  const others = Object.keys(metadata.properties ?? {}).filter((name) => name !== "name" && name !== "generateName");
  if (others.length > 0 || elementOf(metadata)) {
    const why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
    errors.push(fieldForbidden(at, why));
  }
}

/** What each must be inside of allOf and its like. */
const nestedForbidden = {
  type: "empty",
  title: "empty",
  description: "empty",
  default: "undefined",
  nullable: "false",
  externalDocs: "undefined",
  additionalProperties: "undefined",
  "x-kubernetes-preserve-unknown-fields": "false",
  "x-kubernetes-embedded-resource": "false",
  "x-kubernetes-int-or-string": "false",
  "x-kubernetes-list-map-keys": "empty",
  "x-kubernetes-list-type": "undefined",
  "x-kubernetes-map-type": "undefined",
  "x-kubernetes-validations": "empty",
} as const;

/** Inside of allOf and its like only values are restricted; the structure stands outside, and completely. */
function checkNested(errors: FieldError[], nested: JsonSchema, outer: JsonSchema | undefined, path: string): void {
  for (const [field, what] of Object.entries(nestedForbidden)) {
    const value = nested[field as keyof typeof nestedForbidden];
    if (value === undefined || value === false || value === "" || (Array.isArray(value) && value.length === 0))
      continue;
    errors.push(fieldForbidden(`${path}.${field}`, `must be ${what} to be structural`));
  }
  const bare = path.replace(/(\.(?:allOf|anyOf|oneOf)\[\d+\]|\.not)/g, "");
  for (const [name, property] of Object.entries(nested.properties ?? {})) {
    const twin = outer?.properties?.[name] ?? (outer && elementOf(outer));
    if (!twin && outer?.["x-kubernetes-preserve-unknown-fields"] !== true) {
      errors.push(fieldRequired(key(bare, name), `because it is defined in ${key(path, name)}`));
    }
    checkNested(errors, property, twin, key(path, name));
  }
  if (nested.items) {
    if (outer && !outer.items) errors.push(fieldRequired(`${bare}.items`, `because it is defined in ${path}.items`));
    checkNested(errors, nested.items, outer?.items, `${path}.items`);
  }
  for (const field of ["allOf", "anyOf", "oneOf"] as const) {
    nested[field]?.forEach((part, index) => {
      checkNested(errors, part, outer, `${path}.${field}[${index}]`);
    });
  }
  if (nested.not) checkNested(errors, nested.not, outer, `${path}.not`);
}

/** Defaults must be pruned and valid themselves. */
function checkDefaults(errors: FieldError[], schema: JsonSchema, path: string, isRoot: boolean): void {
  const { default: value } = schema;
  if (value !== undefined) {
    const at = `${path}.default`;
    if (isRoot) errors.push(fieldForbidden(at, "must not be set at the root"));
    else {
      const wrapper: JsonSchema = { type: "object", properties: { default: schema } };
      const holder = { default: cloneJson(value) };
      const isEmbedded = schema["x-kubernetes-embedded-resource"] === true;
      if (!isEmbedded && prune(holder, wrapper)) {
        errors.push(fieldInvalid(at, value, "must not have unknown fields"));
      } else {
        for (const error of new SchemaValidator(wrapper).validate({ default: value })) {
          const field = error.field === "<nil>" ? at : `${path}.${error.field}`;
          errors.push({ ...error, field });
        }
      }
    }
  }
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const isMeta = (isRoot || schema["x-kubernetes-embedded-resource"] === true) && name === "metadata";
    if (isMeta && hasDefault(property))
      errors.push(fieldForbidden(`${key(path, name)}.default`, "must not be set in metadata"));
    else checkDefaults(errors, property, key(path, name), false);
  }
  const element = elementOf(schema);
  if (element) checkDefaults(errors, element, `${path}.additionalProperties`, false);
  if (schema.items) checkDefaults(errors, schema.items, `${path}.items`, false);
}

const hasDefault = (schema: JsonSchema): boolean =>
  schema.default !== undefined || Object.values(schema.properties ?? {}).some(hasDefault);
