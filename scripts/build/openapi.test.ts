// The build's documents as clients read them: gnostic's protobuf says the same as the JSON, and sentences arrive.
import { expect, test } from "vitest";
import { openapiV2Table } from "#model/gen/openapi-v2.ts";
import { buildOpenApiV2, type Json } from "#model/openapi.ts";
import { encodeOpenApiV2 } from "#model/openapi-v2-protobuf.ts";
import { createWireCodec } from "#wire/protobuf.ts";
import { readSentences } from "./openapi.ts";

interface Named {
  readonly name: string;
  readonly value: Json;
}
const document = buildOpenApiV2({ version: "v1.32.3", describe: (type, field) => `${type} ${field}` });
const decoded = createWireCodec(openapiV2Table).decode<{
  swagger: string;
  definitions: { additionalProperties: Named[] };
  paths: { path: Named[] };
}>("Document", encodeOpenApiV2(document));

test("v2 protobuf has every definition and path of the JSON", () => {
  expect(decoded.swagger).toBe("2.0");
  expect(decoded.definitions.additionalProperties.map((d) => d.name)).toEqual(
    Object.keys(document["definitions"] as Json),
  );
  expect(decoded.paths.path.map((p) => p.name)).toEqual(Object.keys(document["paths"] as Json));
});

test("a definition keeps type, description, references and extensions", () => {
  const find = (name: string) => decoded.definitions.additionalProperties.find((d) => d.name === name)!.value;
  const pod = find("io.k8s.api.core.v1.Pod");
  expect(pod["description"]).toBe("core/v1.Pod ");
  expect(pod["type"]).toEqual({ value: ["object"] });
  const [extension] = pod["vendorExtension"] as { name: string; value: { yaml: string } }[];
  expect(extension!.name).toBe("x-kubernetes-group-version-kind");
  expect(JSON.parse(extension!.value.yaml)).toEqual([{ group: "", kind: "Pod", version: "v1" }]);
  const spec = (pod["properties"] as { additionalProperties: Named[] }).additionalProperties.find(
    (p) => p.name === "spec",
  )!;
  expect(spec.value["ref"]).toBe("#/definitions/io.k8s.api.core.v1.PodSpec");
});

test("sentences cover the served types", async () => {
  const sentences = await readSentences();
  expect(sentences.get("core/v1.Pod")).toMatch(/^Pod is a collection of containers/);
  expect(sentences.get("core/v1.ContainerPort.containerPort")).toMatch(/^Number of port to expose/);
  expect(sentences.size).toBeGreaterThan(2000);
});
