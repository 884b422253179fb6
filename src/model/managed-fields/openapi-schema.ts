// The tracking schema of a type that is described by OpenAPI: custom resources, whose structural schemas say in
// extensions what is owned whole and what has keys. What a schema leaves open is deduced from values, never refused: to
// prune and validate is the business of others. Recursive references do not exist in structural schemas.
// Upstream counterpart: kube-openapi's schemaconv and its use for custom resources.
import { get, isObject, type JsonObject } from "../patch/json-value.ts";
import { deduced, type FieldSchema, fieldSchema, type ListSchema, type MapSchema, type Schema } from "./schema.ts";

/** The schema of a whole object; `metadata` is the same for all kinds, and for objects inside of it. */
export function schemaOfKind(openapi: unknown, metadata: MapSchema): MapSchema {
  const root = isObject(openapi) ? openapi : {};
  const fields = lazyFields(root, metadata, true);
  return {
    kind: "map",
    atomic: false,
    get fields() {
      return fields();
    },
    element: openElement(root, namesOf(root).length > 0),
    values: ["metadata"],
  };
}

function schemaOf(openapi: unknown, metadata: MapSchema): Schema {
  if (!isObject(openapi)) return deduced;
  if (openapi["x-kubernetes-int-or-string"] === true) return { kind: "scalar", scalar: "untyped" };
  switch (openapi["type"]) {
    case "string":
      return { kind: "scalar", scalar: "string" };
    case "integer":
    case "number":
      return { kind: "scalar", scalar: "number" };
    case "boolean":
      return { kind: "scalar", scalar: "boolean" };
    case "array":
      return listSchema(openapi, metadata);
    case "object":
      return mapSchema(openapi, metadata);
    default:
      return deduced;
  }
}

function mapSchema(openapi: JsonObject, metadata: MapSchema): Schema {
  const isResource = openapi["x-kubernetes-embedded-resource"] === true;
  const hasFields = isResource || namesOf(openapi).length > 0;
  const atomic = openapi["x-kubernetes-map-type"] === "atomic";
  const additional = get(openapi, "additionalProperties");
  const element = isObject(additional) ? schemaOf(additional, metadata) : openElement(openapi, hasFields);
  if (!atomic && !hasFields && element?.kind === "deduced") return deduced;
  const fields = lazyFields(openapi, metadata, isResource);
  return {
    kind: "map",
    atomic,
    get fields() {
      return fields();
    },
    element,
    values: [],
  };
}

/** Made when somebody looks: schemas may have thousands of fields, objects have a few of them. */
function lazyFields(openapi: JsonObject, metadata: MapSchema, isResource: boolean): () => Map<string, FieldSchema> {
  let made: Map<string, FieldSchema> | undefined;
  return () => {
    if (made) return made;
    made = new Map(propertiesOf(openapi, metadata));
    if (!isResource) return made;
    for (const name of ["apiVersion", "kind"]) made.set(name, fieldSchema(name, { kind: "scalar", scalar: "string" }));
    made.set("metadata", fieldSchema("metadata", metadata, {}));
    return made;
  };
}

const namesOf = (openapi: JsonObject): string[] => {
  const properties = get(openapi, "properties");
  return isObject(properties) ? Object.keys(properties) : [];
};

/** Undefined: only what is declared may be there. */
function openElement(openapi: JsonObject, hasFields: boolean): Schema | undefined {
  const isOpen =
    !hasFields ||
    openapi["x-kubernetes-preserve-unknown-fields"] === true ||
    get(openapi, "additionalProperties") === true;
  return isOpen ? deduced : undefined;
}

function* propertiesOf(openapi: JsonObject, metadata: MapSchema): Generator<[string, FieldSchema]> {
  const properties = get(openapi, "properties");
  if (!isObject(properties)) return;
  for (const name of Object.keys(properties)) {
    const property = properties[name];
    const fallback = isObject(property) ? get(property, "default") : undefined;
    yield [name, fieldSchema(name, schemaOf(property, metadata), undefined, fallback)];
  }
}

function listSchema(openapi: JsonObject, metadata: MapSchema): ListSchema {
  const element = schemaOf(get(openapi, "items"), metadata);
  const keys = get(openapi, "x-kubernetes-list-map-keys");
  const type = openapi["x-kubernetes-list-type"];
  if (type === "map" && Array.isArray(keys) && element.kind === "map") {
    return { kind: "list", type: "map", keys: keys.map(String), element };
  }
  return { kind: "list", type: type === "set" && element.kind === "scalar" ? "set" : "atomic", keys: [], element };
}
