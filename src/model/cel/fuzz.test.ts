import { expect, test } from "vitest";
import type { JsonSchema } from "../custom-resources.ts";
import { compileExpression, inStretches } from "./expression.ts";
import { declare, sizesOf } from "./schema-types.ts";
import { adapterOf } from "./schema-values.ts";
import { dynType } from "./types.ts";

// Made-up expressions from pieces of real ones: whatever they are, they compile or say why not, and evaluate or say why
// not; and what they cost is never more than was estimated.

const string: JsonSchema = { type: "string", maxLength: 30 };
const schema: JsonSchema = {
  type: "object",
  properties: {
    i: { type: "integer" },
    s: string,
    l: { type: "array", maxItems: 6, items: { type: "integer" } },
    t: { type: "array", maxItems: 6, items: string },
    m: { type: "object", maxProperties: 6, additionalProperties: string },
    u: { "x-kubernetes-int-or-string": true, maxLength: 10 },
    o: { type: "object", properties: { a: string, b: { type: "integer" } } },
  },
};
const data = { i: 7, s: "some text", l: [3, 1, 2], t: ["a", "bb"], m: { a: "x", b: "y" }, u: "5%", o: { b: 1 } };

/** Numbers from a seed (mulberry32), so that a failure can be seen again. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

type Maker = (depth: number) => string;
function makers(random: (below: number) => number) {
  const pick = (choices: readonly (() => string)[]): string => choices[random(choices.length)]!();
  const leaf = (depth: number, leaves: readonly string[], more: readonly (() => string)[]): string =>
    depth <= 0 || random(4) === 0 ? leaves[random(leaves.length)]! : pick(more);
  const bool: Maker = (d) =>
    leaf(
      d,
      ["true", "false", "has(self.s)", "has(self.o.a)"],
      [
        () => `(${bool(d - 1)} && ${bool(d - 1)})`,
        () => `(${bool(d - 1)} || ${bool(d - 1)})`,
        () => `!${bool(d - 1)}`,
        () => `(${int(d - 1)} < ${int(d - 1)})`,
        () => `(${text(d - 1)} == ${text(d - 1)})`,
        () => `${text(d - 1)}.contains(${text(d - 1)})`,
        () => `${text(d - 1)}.matches('^[a-z]+')`,
        () => `${list(d - 1)}.all(x, x > ${int(d - 1)})`,
        () => `${texts(d - 1)}.exists(y, y == ${text(d - 1)})`,
        () => `(${int(d - 1)} in ${list(d - 1)})`,
        () => `(${list(d - 1)} == ${list(d - 1)})`,
        () => `(${text(d - 1)} in self.m)`,
        () => `sets.contains(${list(d - 1)}, ${list(d - 1)})`,
        () => `isQuantity(${text(d - 1)})`,
        () => `(type(self.u) == string)`,
        () => `(self.u == ${int(d - 1)})`,
      ],
    );
  const int: Maker = (d) =>
    leaf(
      d,
      ["1", "0", "-3", "self.i", "self.o.b", "9223372036854775807"],
      [
        () => `(${int(d - 1)} + ${int(d - 1)})`,
        () => `(${int(d - 1)} * ${int(d - 1)})`,
        () => `(${int(d - 1)} / ${int(d - 1)})`,
        () => `(${int(d - 1)} % ${int(d - 1)})`,
        () => `size(${text(d - 1)})`,
        () => `${list(d - 1)}.size()`,
        () => `${list(d - 1)}[${int(d - 1)}]`,
        () => `${list(d - 1)}.sum()`,
        () => `${list(d - 1)}.max()`,
        () => `(${bool(d - 1)} ? ${int(d - 1)} : ${int(d - 1)})`,
        () => `${text(d - 1)}.indexOf(${text(d - 1)})`,
        () => `${list(d - 1)}[?${int(d - 1)}].orValue(${int(d - 1)})`,
      ],
    );
  const text: Maker = (d) =>
    leaf(
      d,
      ["'a'", "''", "'long text'", "self.s", "self.o.a", "self.m.a", "'1Gi'"],
      [
        () => `(${text(d - 1)} + ${text(d - 1)})`,
        () => `${text(d - 1)}.upperAscii()`,
        () => `${text(d - 1)}.replace('a', 'bc')`,
        () => `${text(d - 1)}.substring(${int(d - 1)})`,
        () => `${texts(d - 1)}.join(${text(d - 1)})`,
        () => `${texts(d - 1)}[0]`,
        () => `(${bool(d - 1)} ? ${text(d - 1)} : ${text(d - 1)})`,
        () => `self.m[${text(d - 1)}]`,
        () => `self.?o.a.orValue(${text(d - 1)})`,
      ],
    );
  const list: Maker = (d) =>
    leaf(
      d,
      ["self.l", "[1, 2]"],
      [
        () => `[${int(d - 1)}, ${int(d - 1)}]`,
        () => `(${list(d - 1)} + ${list(d - 1)})`,
        () => `${list(d - 1)}.map(z, z + ${int(d - 1)})`,
        () => `${list(d - 1)}.filter(z, ${bool(d - 1)})`,
        () => `${list(d - 1)}.transformList(k, v, k * v)`,
      ],
    );
  const texts: Maker = (d) =>
    leaf(
      d,
      ["self.t", "['a']"],
      [
        () => `[${text(d - 1)}]`,
        () => `${text(d - 1)}.split(',')`,
        () => `${texts(d - 1)}.map(w, w + ${text(d - 1)})`,
        () => `self.m.map(key, self.m[key])`,
      ],
    );
  return { bool, int, text, list, texts };
}

const declaration = declare(schema, false, "selfType")!;
const variables = new Map([["self", declaration.type]]);
const self = adapterOf(schema)(data);
const compile = (text: string) => compileExpression({ text, variables, sizeOf: sizesOf(declaration) });

test("well-typed expressions compile, evaluate, and cost no more than estimated", () => {
  const random = randomOf(20261121);
  const make = makers(random);
  const seen = { values: 0, failures: 0 };
  for (let i = 0; i < 1500; i++) {
    const text = make.bool(1 + random(5));
    const compiled = compile(text);
    if ("problem" in compiled) throw new Error(`${text}: ${compiled.problem}`);
    const { error, value, cost } = compiled.program.evaluate({ self });
    if (error === undefined) {
      seen.values++;
      expect(typeof value, text).toBe("boolean");
    } else {
      seen.failures++;
      expect(error, text).toMatch(/overflow|by zero|no such key|out of|empty list|substring range/);
    }
    // Conditions of loops and comparisons of scalars are rounded differently before and after.
    expect(cost, text).toBeLessThanOrEqual(compiled.program.maxCost * 2 + 20);
  }
  // Both must happen for this to mean anything.
  expect(seen.values).toBeGreaterThan(500);
  expect(seen.failures).toBeGreaterThan(50);
});

test("an evaluation in stretches comes to the same", () => {
  const random = randomOf(72);
  const make = makers(random);
  let pauses = 0;
  for (let i = 0; i < 1500; i++) {
    const text = make.bool(1 + random(5));
    const compiled = compile(text);
    if ("problem" in compiled) throw new Error(`${text}: ${compiled.problem}`);
    const { program } = compiled;
    const outcome = program.evaluate({ self });
    for (const [stretch, limit] of [
      [1, 1_000_000],
      [10, 1_000_000],
      [5, Math.ceil(outcome.cost / 2)],
    ] as const) {
      const work = inStretches(program.begin({ self }, limit, undefined, stretch));
      let step = work.next();
      for (; !step.done; step = work.next()) pauses++;
      expect(step.value, `${text} in stretches of ${stretch}`).toEqual(program.evaluate({ self }, limit));
    }
  }
  expect(pauses).toBeGreaterThan(1000);
});

test("what stands before a loop is not done again for every few of its elements", () => {
  const compiled = compileExpression({
    text: "!text.contains('b') && list.all(a, a >= 0)",
    variables: new Map(["text", "list"].map((name) => [name, dynType])),
  });
  if ("problem" in compiled) throw new Error(compiled.problem);
  const values = { text: "a".repeat(100_000), list: Array.from({ length: 2000 }, (_, at) => at) };
  // Before the loop some 10,000, in it some more.
  const work = inStretches(compiled.program.begin(values, undefined, undefined, 100));
  let pauses = 0;
  let step = work.next();
  for (; !step.done; step = work.next()) pauses++;
  expect(step.value).toEqual(compiled.program.evaluate(values));
  expect(step.value).toMatchObject({ value: true });
  expect(pauses).toBeGreaterThan(0);
  expect(pauses).toBeLessThan(5);
});

test("mangled expressions compile or say why not", () => {
  const random = randomOf(7);
  const make = makers(random);
  const scraps = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    ".",
    "?",
    ":",
    "&&",
    "||",
    "!",
    "-",
    "self",
    "x",
    "1u",
    "null",
    "in",
    "\\",
    "\n",
    "\u{1f600}",
    ".all(x, ",
    "b'\\x",
    "0x",
    "1e",
    "//",
  ];
  let compiledCount = 0;
  for (let i = 0; i < 1500; i++) {
    let text = make.bool(1 + random(4));
    for (let edits = 1 + random(3); edits > 0; edits--) {
      const at = random(text.length + 1);
      const cut = random(3);
      text = text.slice(0, at) + (random(2) === 0 ? scraps[random(scraps.length)]! : "") + text.slice(at + cut);
    }
    const compiled = compile(text);
    if ("problem" in compiled) expect(compiled.problem).toMatch(/^ERROR: <input>:/);
    else {
      compiledCount++;
      compiled.program.evaluate({ self });
    }
  }
  expect(compiledCount).toBeGreaterThan(20);
});
