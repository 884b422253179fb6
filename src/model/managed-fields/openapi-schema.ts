// The tracking schema of a type that is described by OpenAPI: custom resources, whose structural schemas say in
// extensions what is owned whole and what has keys. What a schema leaves open is deduced from values, never refused: to
// prune and validate is the business of others. Recursive references do not exist in structural schemas.
// Upstream counterpart: kube-openapi's schemaconv and its use for custom resources.
import { get, isObject, type JsonObject } from "../patch/json-value.ts";
import { deduced, type FieldSchema, fieldSchema, type ListSchema, type MapSchema, type Schema } from "./schema.ts";

/** The schema of a whole object; `metadata` is the same for all kinds. */
export function schemaOfKind(openapi: unknown, metadata: MapSchema): MapSchema {
  const root = isObject(openapi) ? openapi : {};
  const fields = new Map(propertiesOf(root));
  for (const name of ["apiVersion", "kind"]) {
    fields.set(name, fieldSchema(name, { kind: "scalar", scalar: "string" }));
  }
  fields.set("metadata", fieldSchema("metadata", metadata, {}));
  return { kind: "map", atomic: false, fields, element: openElement(root, fields.size > 3), values: ["metadata"] };
}

function schemaOf(openapi: unknown): Schema {
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
      return listSchema(openapi);
    case "object":
      return mapSchema(openapi);
    default:
      return deduced;
  }
}

function mapSchema(openapi: JsonObject): Schema {
  const fields = new Map(propertiesOf(openapi));
  const atomic = openapi["x-kubernetes-map-type"] === "atomic";
  const additional = get(openapi, "additionalProperties");
  const element = isObject(additional) ? schemaOf(additional) : openElement(openapi, fields.size > 0);
  if (!atomic && fields.size === 0 && element?.kind === "deduced") return deduced;
  return { kind: "map", atomic, fields, element, values: [] };
}

/** Undefined: only what is declared may be there. */
function openElement(openapi: JsonObject, hasFields: boolean): Schema | undefined {
  const isOpen =
    !hasFields ||
    openapi["x-kubernetes-preserve-unknown-fields"] === true ||
    get(openapi, "additionalProperties") === true;
  return isOpen ? deduced : undefined;
}

function* propertiesOf(openapi: JsonObject): Generator<[string, FieldSchema]> {
  const properties = get(openapi, "properties");
  if (!isObject(properties)) return;
  for (const name of Object.keys(properties)) {
    const property = properties[name];
    const fallback = isObject(property) ? get(property, "default") : undefined;
    yield [name, fieldSchema(name, schemaOf(property), undefined, fallback)];
  }
}

function listSchema(openapi: JsonObject): ListSchema {
  const element = schemaOf(get(openapi, "items"));
  const keys = get(openapi, "x-kubernetes-list-map-keys");
  const type = openapi["x-kubernetes-list-type"];
  if (type === "map" && Array.isArray(keys) && element.kind === "map") {
    return { kind: "list", type: "map", keys: keys.map(String), element };
  }
  return { kind: "list", type: type === "set" && element.kind === "scalar" ? "set" : "atomic", keys: [], element };
}
