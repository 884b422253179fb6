// The facts table against a second witness: the structured-merge schema that client-go carries. Both come from the same
// Go sources by different generators, so a disagreement is a fault of ours. With CI=true missing packages fail.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type FieldFacts, facts } from "#model/facts.ts";
import { createBuiltInSchemas } from "#model/managed-fields/schema.ts";
import { schemaName } from "#model/openapi.ts";
import { parseYaml } from "#wire/yaml.ts";
import { sourceFolder } from "./packages.ts";

interface TypeRef {
  readonly namedType?: string;
  readonly scalar?: string;
  readonly list?: { readonly elementType: TypeRef; readonly elementRelationship?: string; readonly keys?: string[] };
  readonly map?: { readonly elementType?: TypeRef; readonly elementRelationship?: string };
}
interface NamedType {
  readonly name: string;
  readonly map?: {
    readonly fields?: { name: string; type: TypeRef; default?: unknown }[];
    elementRelationship?: string;
  };
}

async function load(): Promise<NamedType[] | undefined> {
  try {
    const folder = await sourceFolder("golang-k8s-client-go-dev");
    const go = readFileSync(join(folder, "k8s.io/client-go/applyconfigurations/internal/internal.go"), "utf8");
    const text = /YAMLObject\(`([^`]*)`\)/.exec(go)?.[1] ?? "";
    return (parseYaml(text) as { types: NamedType[] }).types;
  } catch (error) {
    if (process.env["CI"] === "true") throw error;
    return undefined;
  }
}
const types = await load();
const byName = new Map((types ?? []).map((type) => [type.name, type]));
const messages = facts.packageNames
  .flatMap((name) => [...facts.package(name).messages.values()])
  .filter((message) => byName.get(schemaName(message.name))?.map?.fields);

const mapRelation = (field: FieldFacts): string => (field.mapType === "granular" ? "separable" : field.mapType);

describe.skipIf(!types)("client-go's merge schema agrees", () => {
  test("on enough types to mean something", () => expect(messages.length).toBeGreaterThan(370));

  test.each(messages.map((message) => [message.name, message] as const))("about %s", (_, message) => {
    const schema = byName.get(schemaName(message.name))!.map!;
    const relations = (schema.fields ?? []).map(({ name, type }) => {
      const relation = type.list?.elementRelationship ?? type.map?.elementRelationship ?? "";
      return [name, relation, (type.list?.keys ?? []).join(",")].join(" ").trim();
    });
    const own = [...message.members.values()].map((field) => {
      const list = field.repeated || (field.type === "strings" && !field.map);
      // A list without a marker, or with one that says so, is atomic; maps are separable unless marked.
      const kind = field.listType || "atomic";
      const relation = list ? (kind === "atomic" ? "atomic" : "associative") : field.map ? mapRelation(field) : "";
      return [field.name, relation, kind === "map" ? field.listMapKeys.join(",") : ""].join(" ").trim();
    });
    if (message.isKind) own.push("apiVersion", "kind");
    expect(own.sort()).toEqual(relations.sort());
    expect(message.structType === "atomic" ? "atomic" : undefined).toBe(schema.elementRelationship);
  });

  test("about keys that may be left out of items", () => {
    const schemas = createBuiltInSchemas(facts);
    const found = new Set<string>();
    for (const message of messages) {
      for (const [name, { schema }] of schemas(message.name).fields) {
        if (schema.kind !== "list" || schema.type !== "map" || schema.element.kind !== "map") continue;
        const element = byName.get(elementName(byName.get(schemaName(message.name))!, name))!;
        for (const key of schema.keys) {
          const theirs = element.map?.fields?.find((field) => field.name === key)?.default;
          expect([message.name, name, key, schema.element.fields.get(key)?.default]).toEqual([
            message.name,
            name,
            key,
            theirs,
          ]);
          found.add(String(theirs));
        }
      }
    }
    expect([...found].sort()).toEqual(["", "0", "TCP", "undefined"]);
  });
});

const elementName = (type: NamedType, field: string): string =>
  type.map?.fields?.find(({ name }) => name === field)?.type.list?.elementType.namedType ?? "";
