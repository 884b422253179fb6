import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import {
  difference,
  differenceBelow,
  emptySet,
  equalSets,
  type FieldSet,
  FieldSetError,
  hasPath,
  inOrder,
  intersection,
  isEmptySet,
  parseFieldSet,
  pathsOf,
  setOfPaths,
  union,
} from "./field-set.ts";

const elements = ["f:a", "f:b", "f:__proto__", 'k:{"name":"x"}', 'v:"x"', "i:0"];
const rounds = 400;

/** The same set as plain path texts: what the algebra is held against. */
type Plain = ReadonlySet<string>;
const separator = "\n";
const fromPlain = (paths: Plain): FieldSet => setOfPaths([...paths].map((path) => path.split(separator)));
const toPlain = (set: FieldSet): Plain => {
  const out = new Set<string>();
  const walk = (node: FieldSet, path: string[]): void => {
    const names = Object.keys(node).filter((element) => element !== ".");
    if (path.length > 0 && (names.length === 0 || Object.hasOwn(node, "."))) out.add(path.join(separator));
    for (const name of names) walk(node[name]!, [...path, name]);
  };
  walk(set, []);
  return out;
};

function* samples(): Generator<{ a: Plain; b: Plain }> {
  const random = seededRandom(11);
  const pick = (count: number) => Math.floor(random.float() * count);
  const some = (): Plain => {
    const path = () => Array.from({ length: 1 + pick(3) }, () => elements[pick(elements.length)]!).join(separator);
    return new Set(Array.from({ length: pick(8) }, path));
  };
  for (let round = 0; round < rounds; round++) yield { a: some(), b: some() };
}

const isBelow = (path: string, set: Plain): boolean =>
  [...set].some((other) => path === other || path.startsWith(other + separator));

test.each<[string, (a: FieldSet, b: FieldSet) => FieldSet, (path: string, a: Plain, b: Plain) => boolean]>([
  ["union", union, (path, a, b) => a.has(path) || b.has(path)],
  ["intersection", intersection, (path, a, b) => a.has(path) && b.has(path)],
  ["difference", difference, (path, a, b) => a.has(path) && !b.has(path)],
  ["difference below", differenceBelow, (path, a, b) => a.has(path) && !isBelow(path, b)],
])("%s is that of sets of paths, and changes neither side", (_name, combine, belongs) => {
  let distinct = 0;
  for (const { a, b } of samples()) {
    const left = fromPlain(a);
    const right = fromPlain(b);
    const before = JSON.stringify([left, right]);
    const result = combine(left, right);
    const wanted = new Set([...a, ...b].filter((path) => belongs(path, a, b)));
    expect(toPlain(result)).toEqual(wanted);
    expect(isEmptySet(result)).toBe(wanted.size === 0);
    expect(JSON.stringify([left, right])).toBe(before);
    if (wanted.size > 0 && wanted.size < a.size + b.size) distinct++;
  }
  // The samples do not all say the same.
  expect(distinct).toBeGreaterThan(rounds / 10);
});

test("a set on the wire is the same set when read back, in whatever order", () => {
  for (const { a } of samples()) {
    const set = fromPlain(a);
    expect(toPlain(set)).toEqual(a);
    const read = parseFieldSet(JSON.parse(JSON.stringify(set)));
    expect(equalSets(read, set)).toBe(true);
    expect(equalSets(inOrder(read), set)).toBe(true);
    expect(pathsOf(read)).toHaveLength(a.size);
  }
});

test("what is not changed is the same object, so that nothing is stored anew", () => {
  const set = setOfPaths([["f:spec", "f:a"], ["f:spec", "f:b"], ["f:metadata"]]);
  expect(union(set, setOfPaths([["f:spec", "f:a"]]))).toBe(set);
  expect(difference(set, setOfPaths([["f:spec", "f:c"], ["f:other"]]))).toBe(set);
  expect(differenceBelow(set, setOfPaths([["f:status"]]))).toBe(set);
});

test("paths and elements as messages and storage show them", () => {
  const set = parseFieldSet({
    "f:spec": {
      "f:ports": { 'k:{"protocol":"TCP","port":80}': { ".": {}, "f:port": {} } },
      "f:finalizers": { 'v:"x"': {}, ".": {} },
      "f:list": { "i:3": {} },
    },
    ".": {},
  });
  expect(pathsOf(set)).toEqual([
    ".spec.finalizers",
    '.spec.finalizers[="x"]',
    ".spec.list[3]",
    '.spec.ports[port=80,protocol="TCP"]',
    '.spec.ports[port=80,protocol="TCP"].port',
  ]);
  expect(JSON.stringify(inOrder(set))).toBe(
    '{"f:spec":{"f:finalizers":{".":{},"v:\\"x\\"":{}},"f:list":{"i:3":{}},"f:ports":{"k:{\\"port\\":80,\\"protocol\\":\\"TCP\\"}":{".":{},"f:port":{}}}}}',
  );
  expect(hasPath(set, ["f:spec"])).toBe(false);
  expect(hasPath(set, ["f:spec", "f:finalizers"])).toBe(true);
});

const deep = (levels: number): unknown => (levels === 0 ? {} : { "f:a": deep(levels - 1) });
test.each<[string, unknown]>([
  ["no object", 5],
  ["a leaf that is no object", { "f:a": null }],
  ["a list", { "f:a": [] }],
  ["an element of no kind", { spec: {} }],
  ["a key that is no object", { "k:5": {} }],
  ["a value that is no JSON", { "v:x": {} }],
  ["a place that is no number", { "i:-1": {} }],
  ["far too deep", deep(600)],
])("refuses as a set: %s", (_name, value) => {
  expect(() => parseFieldSet(value)).toThrow(FieldSetError);
});

test("the empty set is empty", () => {
  expect(isEmptySet(parseFieldSet({}))).toBe(true);
  expect(pathsOf(emptySet)).toEqual([]);
});
