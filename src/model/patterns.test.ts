// Patterns: the automaton and the search for matches say the same, and neither holds its caller for long.
import { describe, expect, test } from "vitest";
import { compilePattern, Effort, PatternTooCostly, patternSize } from "./patterns.ts";

const finds = (source: string, text: string): boolean => compilePattern(source)!.finds(text, new Effort());
const all = (source: string, text: string, limit = Number.POSITIVE_INFINITY): string[] =>
  compilePattern(source)!.all(text, limit, new Effort());

test.each([
  ["^[a-z]+$", "abc", true],
  ["^[a-z]+$", "abC", false],
  ["b", "abc", true],
  ["^$", "", true],
  ["x*", "", true],
  ["(?i)ABC", "xabcx", true],
  ["\\bfoo\\b", "a foo b", true],
  ["\\bfoo\\b", "afoo b", false],
  ["(?m)^b$", "a\nb\nc", true],
  ["^.$", "\u{1f600}", true],
  ["^..$", "\u{1f600}", false],
  ["a|b.*c$", "xb---c", true],
  ["(foo|bar|baz)qux", "foobarqux", true],
])("%s in %j: %s", (source, text, wanted) => {
  expect([finds(source, text), all(source, text, 1).length > 0]).toEqual([wanted, wanted]);
});
test.each(["(", "[", "(?<=a)b", "a{1001}", "\\1"])("%s is none", (source) => {
  expect(compilePattern(source)).toBeUndefined();
});
test("matches do not overlap", () => {
  expect([
    all("a+", "aabaaa"),
    all("a+", "aabaaa", 1),
    all("", "\u{1f600}b"),
    all("[\u{1f600}b]", "\u{1f600}b"),
  ]).toEqual([["aa", "aaa"], ["aa"], ["", "", ""], ["\u{1f600}", "b"]]);
});

test("both engines agree, on any pattern and text", () => {
  let seed = 1;
  const below = (count: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % count;
  };
  const pick = (parts: readonly string[]): string => parts[below(parts.length)]!;
  const pattern = (depth: number): string => {
    if (depth === 0) return pick(["a", "b", ".", "[ab]", "[^a]", "^", "$", "\\b", "ab", "\\n"]);
    const inner = pattern(depth - 1);
    return pick([
      `(${inner})${pick(["*", "+", "?", "{2}", "{1,3}"])}`,
      `${inner}${pattern(depth - 1)}`,
      `${inner}|${pattern(depth - 1)}`,
    ]);
  };
  const found = { yes: 0, no: 0 };
  for (let round = 0; round < 3000; round++) {
    const source = pattern(1 + below(3));
    const text = Array.from({ length: below(12) }, () => pick(["a", "b", "c", "\n", " "])).join("");
    const compiled = compilePattern(source)!;
    const isThere = compiled.finds(text, new Effort());
    expect([source, text, isThere]).toEqual([source, text, compiled.all(text, 1, new Effort()).length > 0]);
    found[isThere ? "yes" : "no"]++;
  }
  expect(Math.min(found.yes, found.no)).toBeGreaterThan(300);
});

describe("long texts", () => {
  const long = "ab".repeat(500_000);
  test.each([
    ["^[a-z]*$", true],
    ["(foo|bar)[0-9]{3,40}", false],
    ["^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", true],
    ["(a|b)*c", false],
  ])("%s is looked for in a megabyte", (source, wanted) => {
    expect(finds(source, long)).toBe(wanted);
  });
  const random = Array.from({ length: 300_000 }, (_, at) => (((at * at * 7919) >> 7) & 1 ? "a" : "b")).join("");
  test.each<[string, string, (source: string, text: string) => unknown]>([
    [
      "a pattern with few letters and many instructions",
      "((.?){30}){30}[xy]",
      (source, text) => finds(source, text) || all(source, text),
    ],
    ["states without end", "a(a|b){400}[cd]", finds],
    ["the place of a match", "(a|b)*?(aaaa|bbbb)[xy]", (source, text) => all(source, text)],
    ["matches that look ahead to the end", "a.*[xy]|a|b", (source, text) => all(source, text)],
  ])("%s: it ends", (_what, source, ask) => {
    expect(ask(source, random.slice(0, 20))).toBeDefined();
    expect(() => ask(source, random)).toThrow(PatternTooCostly);
  });
  test("and so do many texts that share one effort", () => {
    const effort = new Effort();
    const pattern = compilePattern("(a|b)*?(aaaa|bbbb)[xy]")!;
    const ask = (count: number) => {
      for (let i = 0; i < count; i++) pattern.all(random.slice(i, i + 200), 1, effort);
    };
    ask(10);
    expect(() => ask(100_000)).toThrow(PatternTooCostly);
  });
});

test.each([
  ["a{1000}".repeat(3), 3000],
  ["((a{10}){10}){10}", 1110],
  ["(?:[a-z]{2,30}|\\d{3}){4}", 136],
  ["[]a{9}]{3}", 3],
  ["\\{9}", 9],
  ["a{,9}", 5],
  ["\\Q{9}\\E", 7],
])("%s is about as large as it will be", (source, size) => {
  // Parentheses count once, what stands for nothing a little.
  expect(Math.abs(patternSize(source) - size)).toBeLessThan(20);
});
test("what takes seconds to make is none", () => {
  for (const source of [
    "a{1000}".repeat(1000),
    "(a{1000}|b{1000})".repeat(100),
    "((a{10}){10}){10}".repeat(10),
    "a".repeat(100_000),
  ]) {
    expect([source.slice(0, 20), compilePattern(source)]).toEqual([source.slice(0, 20), undefined]);
  }
  expect(compilePattern("((a{10}){10}){10}")).toBeDefined();
});
