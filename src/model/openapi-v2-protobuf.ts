// The v2 document in gnostic's protobuf form, the only one that kubectl asks for. Maps become lists of named values,
// unions become oneofs, and extensions carry their value as YAML text (JSON is YAML).
import { createWireCodec } from "#wire/protobuf.ts";
import { openapiV2Table } from "./gen/openapi-v2.ts";
import type { Json } from "./openapi.ts";

/** Parts of a document may be encoded apart: put behind one another they are read as one. */
export function encodeOpenApiV2(document: Json): Uint8Array {
  const info = document["info"] as Json | undefined;
  const security = document["securityDefinitions"] as Record<string, Json> | undefined;
  return createWireCodec(openapiV2Table).encode("Document", {
    swagger: document["swagger"],
    ...(info ? { info: { title: info["title"], version: info["version"] } } : {}),
    paths: { path: named(document["paths"], pathItem) },
    definitions: { additionalProperties: named(document["definitions"], schema) },
    ...(security
      ? { securityDefinitions: { additionalProperties: named(security, (value) => ({ apiKeySecurity: value })) } }
      : {}),
    security: ((document["security"] ?? []) as Json[]).map((item) => ({
      additionalProperties: named(item, (value) => ({ value: value as unknown as string[] })),
    })),
  });
}

function named(object: unknown, convert: (value: Json) => Json): Json[] {
  return Object.entries((object ?? {}) as Record<string, Json>).map(([name, value]) => ({
    name,
    value: convert(value),
  }));
}
const any = (value: unknown): Json => ({ yaml: `${JSON.stringify(value)}\n` });
const extensions = (object: Json): Json[] =>
  Object.keys(object)
    .filter((name) => name.startsWith("x-"))
    .map((name) => ({ name, value: any(object[name]) }));

function schema(value: Json): Json {
  const { $ref, type, items, properties, additionalProperties, default: fallback, enum: values } = value;
  return {
    ref: $ref,
    format: value["format"],
    description: value["description"],
    required: value["required"],
    ...(fallback === undefined ? {} : { default: any(fallback) }),
    ...(values ? { enum: (values as unknown[]).map(any) } : {}),
    ...(type ? { type: { value: [type] } } : {}),
    ...(items ? { items: { schema: [schema(items as Json)] } } : {}),
    ...(properties ? { properties: { additionalProperties: named(properties, schema) } } : {}),
    ...(additionalProperties === undefined
      ? {}
      : {
          additionalProperties:
            typeof additionalProperties === "boolean"
              ? { boolean: additionalProperties }
              : { schema: schema(additionalProperties as Json) },
        }),
    vendorExtension: extensions(value),
  };
}

function pathItem(item: Json): Json {
  const result: Json = { parameters: ((item["parameters"] ?? []) as Json[]).map(parameter) };
  for (const method of ["get", "put", "post", "delete", "patch"]) {
    if (item[method]) result[method] = operation(item[method] as Json);
  }
  return result;
}

function operation(value: Json): Json {
  return {
    tags: value["tags"],
    description: value["description"],
    operationId: value["operationId"],
    produces: value["produces"],
    consumes: value["consumes"],
    schemes: value["schemes"],
    parameters: ((value["parameters"] ?? []) as Json[]).map(parameter),
    responses: { responseCode: named(value["responses"], response) },
    vendorExtension: extensions(value),
  };
}

function response(value: Json): Json {
  const { description, schema: body } = value;
  return { response: { description, ...(body ? { schema: { schema: schema(body as Json) } } : {}) } };
}

function parameter(value: Json): Json {
  if (value["in"] === "body") {
    const body = {
      name: value["name"],
      in: "body",
      required: value["required"],
      schema: schema(value["schema"] as Json),
    };
    return { parameter: { bodyParameter: body } };
  }
  const { name, description, required, type, uniqueItems } = value;
  const plain = { name, in: value["in"], description, required, type, uniqueItems };
  return {
    parameter: {
      nonBodyParameter: value["in"] === "path" ? { pathParameterSubSchema: plain } : { queryParameterSubSchema: plain },
    },
  };
}
