// Whatever schema and object are sent, the answer is a Kubernetes answer: accepted or refused, never a failure of ours;
// and what was accepted can be read, applied to and listed again.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { JsonSchema } from "#model/custom-resources.ts";
import { customResourceDefinitions } from "#model/resources.ts";
import { ApiError } from "#model/status.ts";
import { settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { type CustomServer, definition, openCustomServer, version } from "./custom-resources.fixture.ts";

const seed = Number(process.env["MOTE_FUZZ_SEED"] ?? "20261121");
const rounds = 60;
const objectsPerRound = 15;
const random = seededRandom(seed);
const below = (count: number): number => Math.floor(random.float() * count);
const pick = <T>(items: readonly T[]): T => items[below(items.length)]!;
const maybe = (chance: number): boolean => random.float() < chance;

const names = ["a", "b", "c", "metadata", "kind", "x-y", "__proto__", "constructor", "0"];
const texts = ["", "a", "abc", "10Gi", "\u0000", "é😀", "2024-01-01T00:00:00Z", "[", "a".repeat(300)];

function schema(depth: number): JsonSchema {
  const type =
    depth === 0
      ? pick(["string", "integer", "boolean", "number"])
      : pick(["object", "object", "array", "string", "integer", "number"]);
  const made: JsonSchema = { type };
  if (maybe(0.15)) made.nullable = true;
  if (maybe(0.1)) made["x-kubernetes-preserve-unknown-fields"] = true;
  if (maybe(0.05)) made["x-kubernetes-embedded-resource"] = true;
  if (maybe(0.05)) {
    delete made.type;
    made["x-kubernetes-int-or-string"] = true;
  }
  if (maybe(0.2)) made.default = value(2);
  if (maybe(0.1)) made.enum = [value(1), value(1)];
  if (maybe(0.1)) made.format = pick(["date-time", "int32", "ipv4", "byte", "nonsense"]);
  if (maybe(0.1)) made.pattern = pick(["^a", "(a+)+$", "[", "\\d"]);
  if (maybe(0.1)) made.maxLength = below(5);
  if (maybe(0.1)) made.minimum = below(5) - 2;
  if (maybe(0.1)) made.anyOf = [{ required: ["a"] }, { required: ["b"] }];
  if (maybe(0.05))
    made["x-kubernetes-validations"] = [
      { rule: pick(["self == self", "self.a > 1", "size(self) < 3", "oldSelf == self", "("]) },
    ];
  if (type === "array") {
    made.items = schema(depth - 1);
    if (maybe(0.3)) made["x-kubernetes-list-type"] = pick(["set", "map", "atomic", "other"]);
    if (maybe(0.2)) made["x-kubernetes-list-map-keys"] = ["a"];
  }
  if (type === "object") {
    if (maybe(0.2)) made.additionalProperties = maybe(0.3) ? true : schema(depth - 1);
    else {
      made.properties = Object.fromEntries(
        Array.from({ length: 1 + below(3) }, () => [pick(names), schema(depth - 1)]),
      );
      if (maybe(0.2)) made.required = [pick(names)];
    }
  }
  return made;
}

function value(depth: number): unknown {
  const kind = below(depth === 0 ? 5 : 7);
  if (kind === 0) return null;
  if (kind === 1) return maybe(0.5);
  if (kind === 2) return pick([0, 1, -1, 3.5, 1e300, 2 ** 53]);
  if (kind <= 4) return pick(texts);
  if (kind === 5) return Array.from({ length: below(4) }, () => value(depth - 1));
  return Object.fromEntries(Array.from({ length: below(4) }, () => [pick(names), value(depth - 1)]));
}

/** Mostly what the schema asks for. */
function fitting(from: JsonSchema, depth = 4): unknown {
  if (depth === 0 || maybe(0.15)) return value(2);
  switch (from.type) {
    case "object": {
      const members = Object.entries(from.properties ?? {}).map(([name, part]) => [name, fitting(part, depth - 1)]);
      return Object.fromEntries(members.filter(() => maybe(0.8)));
    }
    case "array":
      return Array.from({ length: below(3) }, () => fitting(from.items ?? {}, depth - 1));
    case "string":
      return pick(texts);
    case "integer":
      return below(10) - 3;
    case "number":
      return random.float() * 10;
    default:
      return value(1);
  }
}

let server: CustomServer;
beforeAll(async () => {
  server = await openCustomServer();
});
afterAll(() => server.close());

async function codeOf(act: Promise<unknown>): Promise<number> {
  try {
    await act;
    return 200;
  } catch (error) {
    if (error instanceof ApiError) {
      // A field that an apply may not name is a 500 of upstream's.
      if (error.code === 500 && /typed patch object|typed live object/.test(error.message)) return 422;
      if (error.code >= 500) throw new Error(`seed ${seed}: ${error.message}`, { cause: error });
      return error.code;
    }
    throw error;
  }
}

test(`no schema and no object makes the server fail (seed ${seed})`, { timeout: 60_000 }, async () => {
  const seen = { accepted: 0, refused: 0, made: 0, unmade: 0 };
  const path = "/apis/example.com/v1/namespaces/default/fuzzes";
  for (let round = 0; round < rounds; round++) {
    const spec: JsonSchema = { ...schema(3), type: "object" };
    const made = definition("Fuzze", [version("v1", spec)]);
    const code = await codeOf(server.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", made));
    if (code !== 200) {
      seen.refused++;
      continue;
    }
    seen.accepted++;
    for (let i = 0; i < 4; i++) await settle();
    for (let i = 0; i < objectsPerRound; i++) {
      const body = { apiVersion: "example.com/v1", kind: "Fuzze", metadata: { name: `o${i}` }, spec: fitting(spec) };
      if ((await codeOf(server.request("POST", path, body))) !== 200) {
        seen.unmade++;
        continue;
      }
      seen.made++;
      const read = await server.request("GET", `${path}/o${i}`);
      expect(await codeOf(server.request("PUT", `${path}/o${i}`, read))).toBe(200);
      await codeOf(
        server.request(
          "PATCH",
          `${path}/o${i}`,
          { ...body, spec: fitting(spec) },
          {
            contentType: "application/apply-patch+yaml",
            query: { fieldManager: "fuzz", force: "true" },
          },
        ),
      );
    }
    await server.request("GET", path);
    await server.request("GET", "/openapi/v3/apis/example.com/v1");
    await server.client.delete(customResourceDefinitions, { name: "fuzzes.example.com" });
    for (let i = 0; i < 6; i++) await settle();
  }
  // Both sides of every gate have been seen, so the fuzz does meet them.
  for (const count of Object.values(seen)) expect(count).toBeGreaterThan(5);
});
