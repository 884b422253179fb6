import { describe, expect, test } from "vitest";
import { ApiError } from "../status.ts";
import { applyJsonPatch, type JsonPatchOperation } from "./json-patch.ts";
import { applyMergePatch } from "./merge-patch.ts";
import { applyStrategicMerge } from "./strategic-merge.ts";

/** Fails when a patch touches its input. */
function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const member of Object.values(value)) frozen(member);
    Object.freeze(value);
  }
  return value;
}

describe("JSON patch", () => {
  const doc = frozen({ a: { b: [1, 2, 3] }, "c/d": 1, n: null });
  const op = (o: string, path: string, rest: object = {}): JsonPatchOperation => ({ op: o, path, ...rest });
  const good: [string, JsonPatchOperation[], unknown][] = [
    ["add to object", [op("add", "/x", { value: 1 })], { ...doc, x: 1 }],
    ["insert", [op("add", "/a/b/1", { value: 9 })], { ...doc, a: { b: [1, 9, 2, 3] } }],
    ["append", [op("add", "/a/b/-", { value: 9 })], { ...doc, a: { b: [1, 2, 3, 9] } }],
    ["remove", [op("remove", "/a/b/0")], { ...doc, a: { b: [2, 3] } }],
    ["replace with escapes", [op("replace", "/c~1d", { value: 2 })], { ...doc, "c/d": 2 }],
    ["move", [op("move", "/m", { from: "/a/b" })], { a: {}, "c/d": 1, n: null, m: [1, 2, 3] }],
    ["copy", [op("copy", "/m", { from: "/a" })], { ...doc, m: { b: [1, 2, 3] } }],
    ["test then add", [op("test", "/a/b/2", { value: 3 }), op("add", "/x", { value: null })], { ...doc, x: null }],
    ["test null of an absent member", [op("test", "/zzz", { value: null })], doc],
    ["replace all", [op("replace", "", { value: { q: 1 } })], { q: 1 }],
  ];
  test.each(good)("%s", (_, operations, expected) => expect(applyJsonPatch(doc, operations)).toEqual(expected));

  test.each([
    ["missing path", op("remove", "/zzz")],
    ["missing parent", op("add", "/x/y", { value: 1 })],
    ["replace of nothing", op("replace", "/zzz", { value: 1 })],
    ["index out of range", op("add", "/a/b/4", { value: 1 })],
    ["negative index", op("remove", "/a/b/-1")],
    ["failed test", op("test", "/a/b/0", { value: 2 })],
    ["no value", op("add", "/x")],
    ["unknown operation", op("merge", "/x", { value: 1 })],
  ])("%s is 422", (_, operation) => {
    expect(() => applyJsonPatch(doc, [operation])).toThrowError(
      expect.objectContaining({ status: expect.objectContaining({ code: 422, reason: "Invalid" }) }),
    );
  });
  test("operations are bounded", () => {
    const many = Array.from({ length: 10_001 }, () => op("test", "/n", { value: null }));
    expect(() => applyJsonPatch(doc, many)).toThrowError(
      "The allowed maximum operations in a JSON patch is 10000, got 10001",
    );
  });
  test("operations on the same containers do not touch what they came from", () => {
    const value = frozen({ in: [1] });
    const operations = [
      op("add", "/x", { value }),
      op("add", "/x/in/-", { value: 2 }),
      op("copy", "/y", { from: "/x" }),
      op("add", "/y/in/-", { value: 3 }),
      op("move", "/z", { from: "/x" }),
      op("add", "/z/in/0", { value: 0 }),
      op("remove", "/a/b/0"),
      op("remove", "/a/b/0"),
    ];
    expect(applyJsonPatch(doc, frozen(operations))).toEqual({
      ...doc,
      a: { b: [3] },
      y: { in: [1, 2, 3] },
      z: { in: [0, 1, 2] },
    });
  });
  test("many operations on a large map copy it once", () => {
    const data = frozen(Object.fromEntries(Array.from({ length: 50_000 }, (_, at) => [`k${at}`, "v"])));
    const many = Array.from({ length: 10_000 }, (_, at) => op("replace", `/data/k${at}`, { value: "w" }));
    const result = applyJsonPatch({ data }, many) as { data: Record<string, string> };
    expect([result.data["k0"], result.data["k9999"], result.data["k10000"]]).toEqual(["w", "w", "v"]);
  });
  test("__proto__ is a member", () => {
    const result = applyJsonPatch({}, [op("add", "/__proto__", { value: { bad: 1 } })]) as object;
    expect(Object.getPrototypeOf(result)).toBe(Object.prototype);
    expect(Object.keys(result)).toEqual(["__proto__"]);
  });
});

test("merge patch as in RFC 7386", () => {
  const doc = frozen({
    title: "Goodbye!",
    author: { givenName: "John", familyName: "Doe" },
    tags: ["a", "b"],
    content: "x",
  });
  const patch = frozen({ title: "Hello!", phone: "1", author: { familyName: null }, tags: ["a"] });
  expect(applyMergePatch(doc, patch)).toEqual({
    title: "Hello!",
    author: { givenName: "John" },
    tags: ["a"],
    content: "x",
    phone: "1",
  });
  expect(applyMergePatch([1], { a: { b: null } })).toEqual({ a: {} });
  const polluted = applyMergePatch({}, JSON.parse('{"__proto__":{"x":1}}')) as { x?: number };
  expect(polluted.x).toBeUndefined();
});

describe("strategic merge", () => {
  const doc = frozen({
    metadata: { labels: { a: "1", b: "2" }, finalizers: ["x", "y"] },
    spec: {
      containers: [
        { name: "one", image: "i1", ports: [{ containerPort: 80, name: "http" }], command: ["a", "b"] },
        { name: "two", image: "i2" },
      ],
      tolerations: [{ key: "t" }],
      volumes: [{ name: "v", emptyDir: {} }],
    },
  });
  const containers = (value: unknown) => (value as { spec: { containers: unknown[] } }).spec.containers;
  const apply = (patch: object) => applyStrategicMerge("core/v1.Pod", doc, frozen(patch));

  test("maps merge, null deletes", () => {
    expect(apply({ metadata: { labels: { a: null, c: "3" } } })).toMatchObject({
      metadata: { labels: { b: "2", c: "3" } },
    });
    expect((apply({ metadata: { labels: { a: null } } }) as typeof doc).metadata.labels).toEqual({ b: "2" });
  });
  test("keyed lists merge by their key, other lists are replaced", () => {
    const result = apply({
      spec: { containers: [{ name: "one", image: "new", command: ["c"] }, { name: "three" }], tolerations: [] },
    });
    expect(containers(result)).toEqual([
      { name: "one", image: "new", ports: [{ containerPort: 80, name: "http" }], command: ["c"] },
      { name: "two", image: "i2" },
      { name: "three" },
    ]);
    expect(result).toMatchObject({ spec: { tolerations: [] } });
  });
  test("nested keyed lists", () => {
    const result = apply({
      spec: { containers: [{ name: "one", ports: [{ containerPort: 80, hostPort: 1 }, { containerPort: 81 }] }] },
    });
    expect(containers(result)[0]).toMatchObject({
      ports: [{ containerPort: 80, name: "http", hostPort: 1 }, { containerPort: 81 }],
    });
  });
  test("$patch delete and replace on elements, lists and maps", () => {
    expect(containers(apply({ spec: { containers: [{ name: "one", $patch: "delete" }] } }))).toEqual([
      { name: "two", image: "i2" },
    ]);
    expect(containers(apply({ spec: { containers: [{ name: "n" }, { $patch: "replace" }] } }))).toEqual([
      { name: "n" },
    ]);
    expect(apply({ metadata: { $patch: "replace", name: "z" } })).toMatchObject({ metadata: { name: "z" } });
    expect((apply({ metadata: { $patch: "replace", name: "z" } }) as { metadata: object }).metadata).toEqual({
      name: "z",
    });
    expect((apply({ metadata: { labels: { $patch: "delete" } } }) as typeof doc).metadata.labels).toEqual({});
  });
  test("primitive lists", () => {
    const finalizers = (patch: object) => (apply({ metadata: patch }) as typeof doc).metadata.finalizers;
    expect(finalizers({ finalizers: ["y", "z"] })).toEqual(["x", "y", "z"]);
    expect(finalizers({ "$deleteFromPrimitiveList/finalizers": ["x"] })).toEqual(["y"]);
    expect(finalizers({ "$deleteFromPrimitiveList/finalizers": ["x"], finalizers: ["z"] })).toEqual(["y", "z"]);
    expect(finalizers({ "$setElementOrder/finalizers": ["y", "x"] })).toEqual(["y", "x"]);
  });
  test("$setElementOrder orders merged lists and keeps what only the server has", () => {
    const patch = {
      "$setElementOrder/containers": [{ name: "three" }, { name: "two" }],
      containers: [{ name: "three" }],
    };
    expect(containers(apply({ spec: patch })).map((c) => (c as { name: string }).name)).toEqual([
      "three",
      "one",
      "two",
    ]);
  });
  test("$retainKeys drops the rest", () => {
    const patch = { spec: { volumes: [{ name: "v", $retainKeys: ["name", "hostPath"], hostPath: { path: "/" } }] } };
    expect((apply(patch) as typeof doc).spec.volumes).toEqual([{ name: "v", hostPath: { path: "/" } }]);
    const strategy = applyStrategicMerge(
      "apps/v1.Deployment",
      { spec: { strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1 } } } },
      { spec: { strategy: { $retainKeys: ["type"], type: "Recreate" } } },
    );
    expect(strategy).toEqual({ spec: { strategy: { type: "Recreate" } } });
  });
  test("long lists take no time that grows with their square", () => {
    const names = Array.from({ length: 50_000 }, (_, at) => `f${at}`);
    const backwards = [...names].reverse();
    const doc = { metadata: { finalizers: names.slice(0, 40_000) } };
    const metadata = { finalizers: names, "$setElementOrder/finalizers": backwards };
    expect(applyStrategicMerge("core/v1.Pod", doc, { metadata })).toEqual({ metadata: { finalizers: backwards } });
    const gone = { "$deleteFromPrimitiveList/finalizers": names.slice(1, 40_000) };
    expect(applyStrategicMerge("core/v1.Pod", doc, { metadata: gone })).toEqual({ metadata: { finalizers: ["f0"] } });
    const keyed = (image: string) => names.map((name) => ({ name, image }));
    const containers = [...keyed("new").reverse(), { name: "f0", $patch: "delete" }];
    const merged = applyStrategicMerge("core/v1.Pod", { spec: { containers: keyed("old") } }, { spec: { containers } });
    // The deleted one comes back at the end: it is in the patch too.
    const expected = [...keyed("new").slice(1), { name: "f0", image: "new" }];
    expect(merged).toEqual({ spec: { containers: expected } });
  });
  test("bad directives are 400", () => {
    for (const patch of [
      { spec: { containers: [{ image: "x" }] } },
      { metadata: { $patch: "erase" } },
      { spec: { volumes: [{ name: "v", $retainKeys: ["name"], emptyDir: {} }] } },
    ]) {
      expect(() => apply(patch)).toThrowError(ApiError);
    }
  });
});
