// Patches and selectors made up from a seed: they do what they say or are refused as the client's mistake, and never touch
// what they are given. (CEL has a file of its own: cel/fuzz.test.ts; whole requests: apiserver/fuzz.test.ts.)
import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { checkFields, matchesFields, parseFieldSelector } from "./field-selector.ts";
import { formatRequirements, type Labels, matchesRequirements, parseLabelSelector } from "./label-selector.ts";
import { applyJsonPatch, type JsonPatchOperation } from "./patch/json-patch.ts";
import { equalJson, isObject, type JsonObject } from "./patch/json-value.ts";
import { applyMergePatch } from "./patch/merge-patch.ts";
import { applyStrategicMerge } from "./patch/strategic-merge.ts";
import { pods } from "./resources.ts";
import { isApiError } from "./status.ts";

const seeds = [1, 2, 3, 4];
type Random = ReturnType<typeof makers>;
function makers(seed: number) {
  const { float } = seededRandom(seed);
  const below = (count: number) => Math.floor(float() * count);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
  const many = <T>(most: number, make: () => T): T[] => Array.from({ length: below(most + 1) }, make);
  return { below, pick, many };
}

/** The same, so that any write into it throws. */
function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const member of Object.values(value)) frozen(member);
    Object.freeze(value);
  }
  return value;
}

/** A result, or undefined where the client was refused; anything else is thrown on. */
function answer<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (isApiError(error) && error.code < 500) return undefined;
    throw error;
  }
}

const names = ["a", "b", "c", "", "x/y", "~", "0", "1", "-", "__proto__", "constructor"];
function json({ below, pick, many }: Random, depth: number): unknown {
  const random = { below, pick, many };
  switch (below(depth > 0 ? 5 : 3)) {
    case 3:
      return many(3, () => json(random, depth - 1));
    case 4:
      return object(random, depth);
    default:
      return pick([null, true, 0, 1, "x", "", "0"]);
  }
}
const object = (random: Random, depth: number): JsonObject => {
  const entries = random.many(4, () => [random.pick(names), json(random, depth - 1)] as const);
  const made: JsonObject = Object.create(null) as JsonObject;
  for (const [name, value] of entries) made[name] = value;
  return JSON.parse(JSON.stringify(made)) as JsonObject;
};

/** The merge patch that leads from one to the other; there is one as long as no member is null. */
function difference(from: unknown, to: unknown): unknown {
  if (!isObject(from) || !isObject(to)) return to;
  const patch: [string, unknown][] = [];
  for (const name of Object.keys(from)) if (!Object.hasOwn(to, name)) patch.push([name, null]);
  for (const name of Object.keys(to)) {
    if (!Object.hasOwn(from, name)) patch.push([name, to[name]]);
    else if (!equalJson(from[name], to[name])) patch.push([name, difference(from[name], to[name])]);
  }
  return Object.fromEntries(patch);
}
const withoutNulls = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_name, member: unknown) => (member === null ? "null" : member)));

test.each(seeds)("a merge patch leads where it was made to lead (seed %i)", (seed) => {
  const random = makers(seed);
  for (let i = 0; i < 2000; i++) {
    const from = frozen(withoutNulls(object(random, 4)));
    const to = frozen(withoutNulls(object(random, 4)));
    expect(equalJson(applyMergePatch(from, frozen(difference(from, to))), to)).toBe(true);
    applyMergePatch(from, frozen(json(random, 4)));
  }
});

test.each(seeds)("JSON patches are carried out or refused, and what was there stays (seed %i)", (seed) => {
  const random = makers(seed);
  const { pick, many } = random;
  const path = () =>
    many(3, () => `/${pick([...names.map((n) => n.replaceAll("~", "~0").replaceAll("/", "~1")), "9", "~2"])}`).join("");
  let done = 0;
  for (let i = 0; i < 3000; i++) {
    const document = frozen(object(random, 3));
    const operation = () =>
      ({
        op: pick(["add", "remove", "replace", "move", "copy", "test", "nothing"]),
        path: path(),
        ...(random.below(4) > 0 ? { value: json(random, 2) } : {}),
        ...(random.below(2) > 0 ? { from: path() } : {}),
      }) as JsonPatchOperation;
    const operations = frozen(many(3, operation));
    const result = answer(() => applyJsonPatch(document, operations));
    if (result !== undefined) done++;
    // An added value is there, and taking it away again leads back.
    const added = applyJsonPatch(document, [{ op: "add", path: "/fresh", value: 1 }]) as JsonObject;
    expect(added["fresh"]).toBe(1);
    expect(equalJson(applyJsonPatch(added, [{ op: "remove", path: "/fresh" }]), document)).toBe(true);
  }
  expect(done).toBeGreaterThan(300);
  expect(({} as { x?: unknown }).x).toBeUndefined();
});

test.each(seeds)("strategic patches: once is as good as twice, and elements keep their keys (seed %i)", (seed) => {
  const random = makers(seed);
  const { pick, many, below } = random;
  const element = () => ({
    name: pick(["a", "b", "c"]),
    ...(below(2) > 0 ? { image: pick(["i", "j"]) } : {}),
    ...(below(3) > 0 ? { env: unique(many(2, () => ({ name: pick(["E", "F"]), value: pick(["1", "2"]) }))) } : {}),
  });
  const unique = <T extends { name: string }>(list: T[]): T[] => [
    ...new Map(list.map((one) => [one.name, one])).values(),
  ];
  const pod = () => ({
    metadata: {
      labels: Object.fromEntries(many(2, () => [pick(["l", "m"]), "x"])),
      finalizers: [...new Set(many(2, () => pick(["f", "g"])))],
    },
    spec: { containers: unique(many(3, element)), nodeSelector: { d: pick(["1", "2"]) } },
  });
  for (let i = 0; i < 800; i++) {
    const document = frozen(pod());
    const patch = frozen(pod());
    const once = applyStrategicMerge("core/v1.Pod", document, patch) as ReturnType<typeof pod>;
    expect(applyStrategicMerge("core/v1.Pod", once, patch)).toEqual(once);
    const keys = once.spec.containers.map(({ name }) => name);
    expect(new Set(keys).size).toBe(keys.length);
    const both = [...document.spec.containers, ...patch.spec.containers].map(({ name }) => name);
    expect(new Set(keys)).toEqual(new Set(both));
    // Directives in every place, sensible or not.
    const directive = {
      $patch: pick(["delete", "replace", "merge", "x"]),
      name: pick(["a", "z"]),
      $retainKeys: pick([["name"], "x"]),
    };
    const odd = {
      ...(below(2) > 0 ? directive : {}),
      spec: pick<unknown>([
        { containers: [directive, json(random, 2)] },
        directive,
        null,
        { "$setElementOrder/containers": pick<unknown>([[{ name: "b" }], ["a"], 1]) },
      ]),
      metadata: pick<unknown>([{ "$deleteFromPrimitiveList/finalizers": pick<unknown>([["f"], {}]) }, {}]),
    };
    answer(() => applyStrategicMerge("core/v1.Pod", document, frozen(odd)));
  }
});

test.each(seeds)("selectors: what parses prints as something that selects the same (seed %i)", (seed) => {
  const { pick, many } = makers(seed);
  const words = [
    "a",
    "b.c/d",
    "in",
    "notin",
    "=",
    "==",
    "!=",
    "!",
    ",",
    "(",
    ")",
    ">",
    "<",
    "1",
    "x",
    " ",
    "",
    "é",
    "-",
    "__proto__",
  ];
  const labels = (): Labels =>
    Object.fromEntries(many(3, () => [pick(["a", "b.c/d", "x"]), pick(["1", "x", "", "-5"])]));
  let parsed = 0;
  for (let i = 0; i < 4000; i++) {
    const text = many(7, () => pick(words)).join(pick(["", " "]));
    const requirements = answer(() => parseLabelSelector(text));
    if (requirements) {
      parsed++;
      const again = parseLabelSelector(formatRequirements(requirements));
      const some = labels();
      expect(matchesRequirements(again, some), text).toBe(matchesRequirements(requirements, some));
    }
    const fields = many(5, () =>
      pick(["metadata.name", "spec.nodeName", "status.x", "=", "!=", "==", ",", "\\", "a", "__proto__", ""]),
    ).join("");
    const wanted = answer(() => {
      const found = parseFieldSelector(fields);
      checkFields(pods, found);
      return found;
    });
    if (wanted) matchesFields(wanted, { metadata: { name: "a" } });
  }
  expect(parsed).toBeGreaterThan(100);
});
