import { describe, expect, test } from "vitest";
import { buildOpenApiV2, buildOpenApiV3, type Json } from "./openapi.ts";

const options = { version: "v1.32.3", describe: (type: string, field: string) => `${type}#${field}` };
const at = (value: unknown, ...path: string[]): Json =>
  path.reduce((current, key) => current[key] as Json, value as Json);

/** Every $ref of the document. */
function references(value: unknown, found = new Set<string>()): Set<string> {
  if (Array.isArray(value)) for (const item of value) references(item, found);
  else if (typeof value === "object" && value !== null) {
    for (const [key, member] of Object.entries(value)) {
      if (key === "$ref" && typeof member === "string") found.add(member);
      else references(member, found);
    }
  }
  return found;
}

describe("v3", () => {
  const documents = buildOpenApiV3(options);
  const core = documents.get("api/v1");
  const pod = "io.k8s.api.core.v1.Pod";

  test("every document is closed: what it refers to is in it", () => {
    expect(documents.size).toBe(21);
    for (const document of documents.values()) {
      const known = new Set(Object.keys(at(document, "components", "schemas")));
      for (const reference of references(document))
        expect(known).toContain(reference.replace("#/components/schemas/", ""));
    }
  });
  test("kinds say what they are", () => {
    expect(at(core, "components", "schemas", pod, "x-kubernetes-group-version-kind")).toEqual([
      { group: "", kind: "Pod", version: "v1" },
    ]);
  });
  test("members carry descriptions, merge keys and list types", () => {
    const containers = at(core, "components", "schemas", "io.k8s.api.core.v1.PodSpec", "properties", "containers");
    expect(containers).toMatchObject({
      description: "core/v1.PodSpec#containers",
      type: "array",
      "x-kubernetes-list-type": "map",
      "x-kubernetes-list-map-keys": ["name"],
      "x-kubernetes-patch-merge-key": "name",
      "x-kubernetes-patch-strategy": "merge",
    });
    const policy = at(core, "components", "schemas", "io.k8s.api.core.v1.PodSpec", "properties", "restartPolicy");
    expect(policy["enum"]).toEqual(["Always", "Never", "OnFailure"]);
    expect(at(core, "components", "schemas", "io.k8s.api.core.v1.PodSpec", "required")).toEqual(["containers"]);
    // Members of an inlined struct are members of the holder.
    expect(Object.keys(at(core, "components", "schemas", "io.k8s.api.core.v1.Volume", "properties"))).toContain(
      "emptyDir",
    );
  });
  test("PATCH offers strategic merge and fieldValidation, which kubectl looks for", () => {
    const patch = at(core, "paths", "/api/v1/namespaces/{namespace}/pods/{name}", "patch");
    expect(Object.keys(at(patch, "requestBody", "content"))).toContain("application/strategic-merge-patch+json");
    expect((patch["parameters"] as Json[]).map((p) => p["name"])).toContain("fieldValidation");
    expect(patch["x-kubernetes-group-version-kind"]).toEqual({ group: "", kind: "Pod", version: "v1" });
    expect(patch["operationId"]).toBe("patchCoreV1NamespacedPod");
  });
  test("subresources name their own kind", () => {
    const eviction = at(core, "paths", "/api/v1/namespaces/{namespace}/pods/{name}/eviction", "post");
    expect(eviction["x-kubernetes-group-version-kind"]).toEqual({ group: "policy", kind: "Eviction", version: "v1" });
  });
});

describe("v2", () => {
  const document = buildOpenApiV2(options);
  test("is closed and has operation ids that are unique", () => {
    const known = new Set(Object.keys(at(document, "definitions")));
    for (const reference of references(document)) expect(known).toContain(reference.replace("#/definitions/", ""));
    const ids = Object.values(at(document, "paths")).flatMap((item) =>
      Object.values(item as Json).flatMap((o) => ((o as Json)["operationId"] as string | undefined) ?? []),
    );
    expect(new Set(ids).size).toBe(ids.length);
  });
});
