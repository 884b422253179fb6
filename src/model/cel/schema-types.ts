// Schemas as the types that rules see: what has a name, what is left out, and how large data of a schema can become,
// by its own limits or by those of a request. Upstream counterpart: apiserver/pkg/cel/{common/schemas,escaping,limits}.go.
import type { JsonSchema } from "../custom-resources.ts";
import {
  boolType,
  bytesType,
  type CelType,
  doubleType,
  durationType,
  dynType,
  intType,
  listOf,
  mapOf,
  objectType,
  stringType,
  timestampType,
} from "./types.ts";

/** A schema's type, with what the cost of rules needs to know of its data. */
export interface Declaration {
  readonly type: CelType;
  /** Of characters or entries. */
  readonly maxElements: number;
  /** Bytes of its shortest JSON. */
  readonly minSize: number;
  /** Of objects, by escaped names. */
  readonly fields?: ReadonlyMap<string, Declaration>;
  /** Of lists and maps. */
  readonly item?: Declaration;
}

/** Longer requests are refused before any rule sees them. */
export const maxRequestBytes = 3 * 1024 * 1024;
/** Of "" around a text. */
const quotes = 2;
const maxTextLength = maxRequestBytes - quotes;

// Names

const keywords: ReadonlySet<string> = new Set(
  "true false null in as break const continue else for function if import let loop package namespace return".split(" "),
);
const escapes: Readonly<Record<string, string>> = {
  __: "__underscores__",
  ".": "__dot__",
  "-": "__dash__",
  "/": "__slash__",
};

/** The name as expressions write it; undefined where none can be written. */
export function escapeName(name: string): string | undefined {
  if (!/^[A-Za-z_][A-Za-z0-9_./-]*$/.test(name)) return undefined;
  if (keywords.has(name)) return `__${name}__`;
  return name.replace(/__|[./-]/g, (part) => escapes[part]!);
}

// Types

const text = (type: CelType, maxElements: number, minSize: number): Declaration => ({ type, maxElements, minSize });
const scalar = (type: CelType, minSize: number): Declaration => ({ type, maxElements: 0, minSize });
const anyString: Declaration = text(stringType, maxTextLength, 2);
const atLeastZero = (value: number): number => Math.max(value, 0);

/** Metadata of which only names can be read, whatever else it holds. */
const metadata: JsonSchema = {
  type: "object",
  properties: { name: { type: "string" }, generateName: { type: "string" } },
};
/** Every resource has these, whether its schema says so or not. */
export const withTypeAndMetadata = (schema: JsonSchema): JsonSchema => ({
  ...schema,
  properties: { ...schema.properties, kind: { type: "string" }, apiVersion: { type: "string" }, metadata },
});

/** `name` is what object types are called in messages. Undefined for what rules cannot see. */
export function declare(schema: JsonSchema, isResource: boolean, name: string): Declaration | undefined {
  if (schema["x-kubernetes-int-or-string"] === true) {
    const { maxLength } = schema;
    return text(dynType, maxLength === undefined ? maxTextLength : 4 * atLeastZero(maxLength), 1);
  }
  const isEmbedded = (part: JsonSchema): boolean => part["x-kubernetes-embedded-resource"] === true;
  switch (schema.type) {
    case "array": {
      const { items, maxItems } = schema;
      const item = items && declare(items, isEmbedded(items), `${name}.@idx`);
      if (!item) return undefined;
      const count =
        maxItems === undefined ? Math.floor((maxRequestBytes - 2) / (item.minSize + 1)) : atLeastZero(maxItems);
      return { type: listOf(item.type), maxElements: count, minSize: 2, item };
    }
    case "object": {
      const { additionalProperties, maxProperties } = isResource ? withTypeAndMetadata(schema) : schema;
      if (typeof additionalProperties === "object" && additionalProperties !== null) {
        const item = declare(additionalProperties, isEmbedded(additionalProperties), `${name}.@elem`);
        if (!item) return undefined;
        // A key, its quotes, a colon and a comma.
        const count =
          maxProperties === undefined
            ? Math.floor((maxRequestBytes - 2) / (item.minSize + 6))
            : atLeastZero(maxProperties);
        return { type: mapOf(stringType, item.type), maxElements: count, minSize: 2, item };
      }
      return declareObject(isResource ? withTypeAndMetadata(schema) : schema, name);
    }
    case "string":
      return declareString(schema);
    case "boolean":
      return scalar(boolType, 4);
    case "number":
      return scalar(doubleType, 1);
    case "integer":
      return scalar(intType, 1);
    default:
      return undefined;
  }
}

function declareObject(schema: JsonSchema, name: string): Declaration {
  const fields = new Map<string, Declaration>();
  const required = new Set(schema.required);
  let minSize = 2;
  for (const [property, part] of Object.entries(schema.properties ?? {})) {
    const escaped = escapeName(property);
    const field = declare(part, part["x-kubernetes-embedded-resource"] === true, `${name}.${escaped ?? property}`);
    if (!field) continue;
    if (escaped !== undefined) fields.set(escaped, field);
    if (required.has(property) && part.default === undefined) minSize += property.length + field.minSize + 4;
  }
  const types = new Map([...fields].map(([field, { type }]) => [field, type] as const));
  return { type: objectType(name, types), maxElements: 0, minSize, fields };
}

function declareString(schema: JsonSchema): Declaration {
  const { maxLength, enum: values } = schema;
  switch (schema.format) {
    case "byte":
      return text(bytesType, maxLength === undefined ? maxTextLength : atLeastZero(maxLength), 2);
    case "duration":
      return text(durationType, 32, 3);
    case "date":
      return text(timestampType, 12, 12);
    case "date-time":
      return text(timestampType, 32, 21);
    default:
  }
  // A character may be four bytes.
  if (maxLength !== undefined) return text(stringType, 4 * atLeastZero(maxLength), 2);
  if (values && values.length > 0) {
    // One by one: an enumeration may have more values than a call may have arguments.
    const longest = values.reduce<number>(
      (most, value) => Math.max(most, typeof value === "string" ? value.length : 0),
      0,
    );
    return text(stringType, longest, 2);
  }
  return anyString;
}

/** Sizes by paths that start at a variable of the declaration's type. */
export function sizesOf(root: Declaration): (path: readonly string[]) => number | undefined {
  return (path) => {
    let at: Declaration | undefined = root;
    for (const step of path.slice(1)) {
      if (step === "@items" || step === "@values") at = at.item;
      else if (step === "@keys") at = at.item && at.type.kind === "map" ? anyKey : undefined;
      else at = at.fields?.get(step);
      if (!at) return undefined;
    }
    return at.maxElements;
  };
}
/** Upstream's keys have no limit of their own, which counts as none at all. */
const anyKey: Declaration = { type: stringType, maxElements: 0, minSize: 2 };
