import { expect, test } from "vitest";
import { facts } from "../facts.ts";
import type { UnknownObject } from "../object.ts";
import { emptySet, pathsOf } from "./field-set.ts";
import { schemaOfKind } from "./openapi-schema.ts";
import { createBuiltInSchemas } from "./schema.ts";
import { type Target, trackApply } from "./tracking.ts";

const metadata = createBuiltInSchemas(facts)("meta/v1.ObjectMeta");
const text = { type: "string" };
const openapi = {
  type: "object",
  properties: {
    spec: {
      type: "object",
      properties: {
        size: { type: "integer" },
        port: { "x-kubernetes-int-or-string": true },
        tags: { type: "array", items: text, "x-kubernetes-list-type": "set" },
        plain: { type: "array", items: text },
        whole: { type: "object", properties: { a: text }, "x-kubernetes-map-type": "atomic" },
        labels: { type: "object", additionalProperties: text },
        open: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
        parts: {
          type: "array",
          "x-kubernetes-list-type": "map",
          "x-kubernetes-list-map-keys": ["name", "zone"],
          items: { type: "object", properties: { name: text, zone: { ...text, default: "a" }, value: text } },
        },
      },
    },
  },
};
const target: Target = {
  apiVersion: "example.com/v1",
  kind: "Widget",
  schema: schemaOfKind(openapi, metadata),
  subresource: "",
  resets: emptySet,
  other: () => undefined,
};
const config = (spec: object) => ({
  apiVersion: "example.com/v1",
  kind: "Widget",
  metadata: { name: "w", labels: { x: "1" } },
  spec,
});
const apply = (live: UnknownObject | undefined, spec: object, manager: string) =>
  trackApply(target, live, config(spec), { manager, force: false, now: "2026-01-01T00:00:00Z" });

test.each<[string, object, string[]]>([
  ["scalars", { size: 1, port: "http" }, [".spec.port", ".spec.size"]],
  ["sets by value", { tags: ["a"] }, ['.spec.tags[="a"]']],
  ["other lists whole", { plain: ["a"] }, [".spec.plain"]],
  ["atomic maps whole", { whole: { a: "1" } }, [".spec.whole"]],
  ["maps by key", { labels: { a: "1" } }, [".spec.labels.a"]],
  ["what is open by field", { open: { a: { b: [1], c: {} } } }, [".spec.open.a", ".spec.open.a.b", ".spec.open.a.c"]],
  [
    "keyed lists by key, defaults filled in",
    { parts: [{ name: "p", value: "1" }] },
    ['.spec.parts[name="p",zone="a"]', '.spec.parts[name="p",zone="a"].name', '.spec.parts[name="p",zone="a"].value'],
  ],
])("a custom resource is owned: %s", (_name, spec, paths) => {
  const made = apply(undefined, spec, "a");
  expect(pathsOf(made.metadata.managedFields?.[0]?.fieldsV1 as never)).toEqual([".metadata.labels.x", ...paths]);
  // And let go of again.
  const both = apply(made, {}, "b");
  expect(apply(both, {}, "a")["spec"]).toBeUndefined();
});

test("what a structural schema does not declare is refused, what is deeper than it is not", () => {
  expect(() => apply(undefined, { sizes: 1 }, "a")).toThrow(".spec.sizes: field not declared in schema");
  expect(() => apply(undefined, { open: { anything: [{}] } }, "a")).not.toThrow();
});

test("without a schema everything is deduced", () => {
  const open: Target = { ...target, schema: schemaOfKind(undefined, metadata) };
  const write = { manager: "a", force: false, now: "2026-01-01T00:00:00Z" };
  const made = trackApply(open, undefined, config({ a: { b: 1 }, list: [{ name: "x" }] }), write);
  expect(pathsOf(made.metadata.managedFields?.[0]?.fieldsV1 as never)).toContain(".spec.a.b");
});
