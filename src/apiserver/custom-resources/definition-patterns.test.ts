// A definition may have many patterns and large ones, but not many large ones: making them would hold everybody up.
import { expect, test } from "vitest";
import type { CustomResourceDefinition } from "#model/custom-resources.ts";
import { validateDefinition, validateDefinitionUpdate } from "./definition-validation.ts";

/** In order, so many to each version. */
function withPatterns(...versions: readonly (readonly string[])[]): CustomResourceDefinition {
  const made = versions.map((patterns, at) => ({
    name: `v${at + 1}`,
    served: true,
    storage: at === 0,
    schema: {
      openAPIV3Schema: {
        type: "object",
        properties: Object.fromEntries(patterns.map((pattern, i) => [`p${i}`, { type: "string", pattern }])),
      },
    },
  }));
  return {
    metadata: { name: "things.example.com" },
    spec: {
      group: "example.com",
      scope: "Namespaced",
      names: { plural: "things", singular: "thing", kind: "Thing", listKind: "ThingList" },
      versions: made,
    },
    status: { storedVersions: ["v1"] },
  } as unknown as CustomResourceDefinition;
}
const large = (count: number, mark: string): string[] =>
  Array.from({ length: count }, (_, at) => `[a-z]{1000}[0-9]{1000}${mark}${at}`);
const fieldsOf = (errors: readonly { field: string; message: string }[]) => errors.map(({ field }) => field);

test("hundreds of small ones, and a large one as often as one likes", () => {
  const small = Array.from({ length: 1000 }, (_, at) => `^[a-z]{1,9}-${at}$`);
  expect(validateDefinition(withPatterns(small))).toEqual([]);
  expect(validateDefinition(withPatterns(Array.from({ length: 500 }, () => "[a-z]{1000}[0-9]{1000}")))).toEqual([]);
});

test("those of all versions count together, and the first that is too much is named", () => {
  const errors = validateDefinition(withPatterns(large(20, "a"), large(300, "b")));
  expect(fieldsOf(errors).slice(0, 2)).toEqual([
    "spec.versions[1].schema.openAPIV3Schema.properties[p4].pattern",
    "spec.versions[1].schema.openAPIV3Schema.properties[p5].pattern",
  ]);
  expect(errors).toHaveLength(296);
  expect(errors[0]?.message).toMatch(/^Forbidden: contributed to patterns of together more than 50000 instructions/);
});

test("it takes no longer than those that are let in", () => {
  // A second on the slowest board; all of them would be twenty, which is more than the runner allows.
  expect(validateDefinition(withPatterns(large(900, "c"))).length).toBeGreaterThan(800);
});

test("what was accepted stays so", () => {
  const old = withPatterns(large(30, "d"));
  expect(validateDefinition(old)).not.toEqual([]);
  expect(validateDefinitionUpdate({ ...old }, old)).toEqual([]);
});
