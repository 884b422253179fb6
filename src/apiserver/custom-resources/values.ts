// Pruning and defaulting of custom resources by a structural schema, in place on objects that are ours to change.
// Both say whether they changed anything, so that what is stored right can be served as it is stored.
// Upstream counterpart: apiextensions structural-schema/{pruning,defaulting,objectmeta}.
import type { JsonSchema } from "#model/custom-resources.ts";
import { DecodeError, decodeMetadata } from "#model/decode.ts";
import { cloneJson, equalJson, isObject, type JsonObject, set } from "#model/patch/json-value.ts";

/** Called with the path of each field that the schema does not know. */
type Report = (path: string) => void;

const objectFields: ReadonlySet<string> = new Set(["apiVersion", "kind", "metadata"]);
const join = (path: string, name: string): string => (path === "" ? name : `${path}.${name}`);

/** Drops what the schema does not specify. */
export function prune(object: JsonObject, schema: JsonSchema, report?: Report): boolean {
  return pruneValue(object, schema, "", true, report);
}

function pruneValue(
  value: unknown,
  schema: JsonSchema,
  path: string,
  isRoot: boolean,
  report: Report | undefined,
): boolean {
  let changed = false;
  if (Array.isArray(value)) {
    const { items } = schema;
    if (!items) return false;
    value.forEach((item, index) => {
      if (pruneValue(item, items, `${path}[${index}]`, false, report)) changed = true;
    });
    return changed;
  }
  if (!isObject(value)) return false;
  const isResource = isRoot || schema["x-kubernetes-embedded-resource"] === true;
  const keepsUnknown = schema["x-kubernetes-preserve-unknown-fields"] === true;
  const { additionalProperties } = schema;
  for (const name of Object.keys(value)) {
    if (isResource && objectFields.has(name)) continue;
    const property = propertyOf(schema, name);
    if (property) {
      if (pruneValue(value[name], property, join(path, name), false, report)) changed = true;
    } else if (isObject(additionalProperties)) {
      const element = additionalProperties as JsonSchema;
      if (pruneValue(value[name], element, join(path, name), false, report)) changed = true;
    } else if (additionalProperties !== true && !keepsUnknown) {
      delete value[name];
      report?.(join(path, name));
      changed = true;
    }
  }
  return changed;
}

export function propertyOf(schema: JsonSchema, name: string): JsonSchema | undefined {
  const { properties } = schema;
  return properties && Object.hasOwn(properties, name) ? properties[name] : undefined;
}

/**
 * Metadata of objects inside the object in the form that metadata has. `strict` texts name unknown fields. Where it
 * cannot be read: DecodeError, or with `drops` it goes.
 */
export function coerceEmbedded(
  value: unknown,
  schema: JsonSchema,
  report?: (text: string) => void,
  drops = false,
  path = "",
): boolean {
  let changed = false;
  if (Array.isArray(value)) {
    const { items } = schema;
    if (!items) return false;
    value.forEach((item, index) => {
      if (coerceEmbedded(item, items, report, drops, `${path}[${index}]`)) changed = true;
    });
    return changed;
  }
  if (!isObject(value)) return false;
  if (path !== "" && schema["x-kubernetes-embedded-resource"] === true && Object.hasOwn(value, "metadata")) {
    const old = value["metadata"];
    try {
      const metadata = decodeMetadata(old, `${path}.metadata`, report);
      if (!equalJson(metadata, old)) {
        value["metadata"] = metadata;
        changed = true;
      }
    } catch (error) {
      if (!drops || !(error instanceof DecodeError)) throw error;
      delete value["metadata"];
      changed = true;
    }
  }
  for (const name of Object.keys(value)) {
    const element = propertyOf(schema, name) ?? elementOf(schema);
    if (element && coerceEmbedded(value[name], element, report, drops, join(path, name))) changed = true;
  }
  return changed;
}

export const elementOf = (schema: JsonSchema): JsonSchema | undefined =>
  isObject(schema.additionalProperties) ? (schema.additionalProperties as JsonSchema) : undefined;

/** Whether there is anything for `coerceEmbedded` to do. */
export function hasEmbedded(schema: JsonSchema | undefined): boolean {
  if (!schema) return false;
  return (
    schema["x-kubernetes-embedded-resource"] === true ||
    Object.values(schema.properties ?? {}).some(hasEmbedded) ||
    hasEmbedded(elementOf(schema)) ||
    hasEmbedded(schema.items)
  );
}

const isUnwantedNull = (value: unknown, schema: JsonSchema): boolean => value === null && schema.nullable !== true;

/** Fills in what is absent, or null where null may not be. */
export function applySchemaDefaults(value: unknown, schema: JsonSchema): boolean {
  let changed = false;
  if (Array.isArray(value)) {
    const { items } = schema;
    if (!items) return false;
    for (let i = 0; i < value.length; i++) {
      if (isUnwantedNull(value[i], items) && items.default !== undefined) {
        value[i] = cloneJson(items.default);
        changed = true;
      }
      if (applySchemaDefaults(value[i], items)) changed = true;
    }
    return changed;
  }
  if (!isObject(value)) return false;
  const { properties } = schema;
  if (properties) {
    for (const name of Object.keys(properties)) {
      const property = properties[name]!;
      if (property.default === undefined) continue;
      if (Object.hasOwn(value, name) && !isUnwantedNull(value[name], property)) continue;
      set(value, name, cloneJson(property.default));
      changed = true;
    }
  }
  const element = elementOf(schema);
  for (const name of Object.keys(value)) {
    const property = propertyOf(schema, name);
    if (property) {
      if (applySchemaDefaults(value[name], property)) changed = true;
    } else if (element) {
      if (isUnwantedNull(value[name], element) && element.default !== undefined) {
        set(value, name, cloneJson(element.default));
        changed = true;
      }
      if (applySchemaDefaults(value[name], element)) changed = true;
    }
  }
  return changed;
}

/** Nulls where the schema allows none and has nothing better go, as if they had not been said. */
export function dropUnwantedNulls(value: unknown, schema: JsonSchema): boolean {
  let changed = false;
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items) for (const item of value) if (dropUnwantedNulls(item, items)) changed = true;
    return changed;
  }
  if (!isObject(value)) return false;
  for (const name of Object.keys(value)) {
    const member = propertyOf(schema, name) ?? elementOf(schema);
    if (!member) continue;
    if (isUnwantedNull(value[name], member) && member.default === undefined) {
      delete value[name];
      changed = true;
    } else if (dropUnwantedNulls(value[name], member)) changed = true;
  }
  return changed;
}
