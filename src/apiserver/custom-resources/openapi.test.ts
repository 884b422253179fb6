import { afterAll, beforeAll, expect, test } from "vitest";
import type { JsonSchema } from "#model/custom-resources.ts";
import { openapiV2Table } from "#model/gen/openapi-v2.ts";
import { buildOpenApiV2, type Json } from "#model/openapi.ts";
import { encodeOpenApiV2 } from "#model/openapi-v2-protobuf.ts";
import { customResourceDefinitions } from "#model/resources.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import type { OpenApiAssets } from "../openapi/serve.ts";
import { type CustomServer, definition, openCustomServer, version } from "./custom-resources.fixture.ts";

const built = buildOpenApiV2({ version: "v1.32.3", describe: () => "" });
const files = new Map<string, Uint8Array>([
  ["v2.json", Buffer.from(JSON.stringify(built))],
  ["v2.pb", encodeOpenApiV2(built)],
]);
const assets: OpenApiAssets = {
  hashes: new Map([...files.keys()].map((name) => [name, name])),
  read: (n) => files.get(n),
};
const spec: JsonSchema = {
  description: "What it is like.",
  type: "object",
  properties: {
    size: { type: "integer", default: 1 },
    port: { "x-kubernetes-int-or-string": true },
    note: { type: "string", nullable: true },
    template: { type: "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true },
    any: {
      type: "object",
      "x-kubernetes-preserve-unknown-fields": true,
      required: ["a", "b"],
      properties: { a: { type: "string", nullable: true }, b: { type: "string" } },
    },
    either: { type: "object", properties: { a: { type: "string" } }, oneOf: [{ required: ["a"] }] },
  },
};

let server: CustomServer;
beforeAll(async () => {
  server = await openCustomServer({ openapi: assets });
  const open = { root: { "x-kubernetes-preserve-unknown-fields": true } };
  await server.define(definition("Bag", [version("v1", spec, open)]));
  await server.define(definition("Paper", [version("v1", spec), version("v2", spec, { storage: false })]));
});
afterAll(() => server.close());

const at = (value: unknown, ...path: string[]): Json =>
  path.reduce((current, key) => current?.[key] as Json, value as Json);

test("each served version has a v3 document, whose hash changes with the schema", async () => {
  const index = async () => at(await server.request("GET", "/openapi/v3"), "paths");
  const before = await index();
  expect(Object.keys(before)).toEqual(["apis/example.com/v1", "apis/example.com/v2"]);
  const document = await server.request("GET", "/openapi/v3/apis/example.com/v1");
  const schema = at(document, "components", "schemas", "com.example.v1.Paper");
  expect(schema["x-kubernetes-group-version-kind"]).toEqual([{ group: "example.com", kind: "Paper", version: "v1" }]);
  expect(at(schema, "properties", "spec", "properties", "port")["anyOf"]).toEqual([
    { type: "integer" },
    { type: "string" },
  ]);
  expect(at(schema, "properties", "spec", "properties", "template", "properties", "metadata")["allOf"]).toEqual([
    { $ref: "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" },
  ]);
  const schemas = at(document, "components", "schemas");
  for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
    expect(schemas[name!], name).toBeDefined();
  }
  const patch = at(document, "paths", "/apis/example.com/v1/namespaces/{namespace}/papers/{name}", "patch");
  expect(Object.keys(at(patch, "requestBody", "content"))).toEqual([
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
  ]);
  const current = structuredClone(await server.client.get(customResourceDefinitions, "papers.example.com"));
  current.spec.versions[1]!.served = false;
  current.spec.versions[0]!.schema!.openAPIV3Schema!.description = "changed";
  await server.update(current);
  const after = await index();
  expect(Object.keys(after)).toEqual(["apis/example.com/v1"]);
  expect(after["apis/example.com/v1"]).not.toEqual(before["apis/example.com/v1"]);
});

test("v2 says less, in JSON and in protobuf the same", async () => {
  const document = await server.request("GET", "/openapi/v2");
  const paper = at(document, "definitions", "com.example.v1.Paper");
  const properties = at(paper, "properties", "spec", "properties");
  expect(properties["note"]).toEqual({});
  expect(at(properties, "either")["oneOf"]).toBeUndefined();
  expect(properties["size"]).toEqual({ type: "integer", default: 1 });
  // What may hold anything: kubectl takes properties that are said for the only ones.
  const open = { "x-kubernetes-preserve-unknown-fields": true };
  expect(properties["any"]).toEqual({ ...open, required: ["b"] });
  expect(properties["template"]).toEqual({ ...open, "x-kubernetes-embedded-resource": true });
  expect(at(document, "definitions", "com.example.v1.Bag")).toEqual({
    type: "object",
    "x-kubernetes-group-version-kind": [{ group: "example.com", kind: "Bag", version: "v1" }],
  });
  expect(at(document, "definitions", "io.k8s.api.core.v1.Pod")["type"]).toBe("object");
  expect(at(document, "paths", "/apis/example.com/v1/papers", "get")["operationId"]).toBe(
    "listExampleComV1PaperForAllNamespaces",
  );
  const decoded = createWireCodec(openapiV2Table).decode<{
    definitions: { additionalProperties: { name: string }[] };
    paths: { path: { name: string }[] };
  }>("Document", await server.raw("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"));
  expect(decoded.definitions.additionalProperties.map(({ name }) => name).sort()).toEqual(
    Object.keys(at(document, "definitions")).sort(),
  );
  expect(decoded.paths.path.map(({ name }) => name).sort()).toEqual(Object.keys(at(document, "paths")).sort());
});
