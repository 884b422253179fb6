import { expect, test } from "vitest";
import { parseYaml, parseYamlDocuments, stringifyYaml } from "./yaml.ts";

test("scalars read as Go's YAML 1.1 does", () => {
  const text = "a: yes\nb: 0777\nc: 1_000\nd: 2024-01-01\ne: 0x1F\nf: 9007199254740993\ng: 'no'\nh: ~\n1: x\ntrue: w\n";
  expect(parseYaml(text)).toEqual({
    a: true,
    b: 511,
    c: 1000,
    d: "2024-01-01",
    e: 31,
    f: 9007199254740993n,
    g: "no",
    h: null,
    "1": "x",
    true: "w",
  });
});

test("merge keys, anchors and several documents", () => {
  const text = "base: &b {x: 1}\nuse:\n  <<: *b\n  z: 2\n---\n---\nsecond: 1\n";
  expect(parseYamlDocuments(text)).toEqual([{ base: { x: 1 }, use: { x: 1, z: 2 } }, { second: 1 }]);
});

test("syntax errors, duplicate keys and alias bombs are refused", () => {
  const bomb = ["a: &a [x,x,x,x,x,x,x,x,x]"];
  for (const [from, to] of ["ab", "bc", "cd", "de", "ef"]) bomb.push(`${to}: &${to} [${`*${from},`.repeat(9)}]`);
  for (const text of ["a: [", "a: 1\na: 2", "a: 1\n---\nb: 2", bomb.join("\n"), "? {a: 1}\n: x"])
    expect(() => parseYaml(text)).toThrowError(expect.objectContaining({ code: "YAML_SYNTAX" }));
});

test("prints like kubectl and quotes what 1.1 would read otherwise", () => {
  expect(
    stringifyYaml({
      list: [{ a: "yes", b: 1 }],
      text: "0777",
      date: "2024-01-01",
      time: "2024-01-01T00:00:00Z",
      ports: "22:22",
      multi: "x\ny\n",
    }),
  ).toBe(
    'list:\n- a: "yes"\n  b: 1\ntext: "0777"\ndate: "2024-01-01"\ntime: "2024-01-01T00:00:00Z"\nports: "22:22"\nmulti: |\n  x\n  y\n',
  );
});

test("__proto__ is an ordinary key", () => {
  expect(Object.keys(parseYaml("__proto__: {a: 1}") as object)).toEqual(["__proto__"]);
});

test("hardware addresses and ports are strings, not base-60 numbers", () => {
  expect(parseYaml("mac: 52:54:00:12:34:56\nports: 22:22\nratio: 10:20.5\nyes: 1_0")).toEqual({
    mac: "52:54:00:12:34:56",
    ports: "22:22",
    ratio: "10:20.5",
    true: 10,
  });
});

test("keys that are there twice are told of with the line of their value", () => {
  const seen: string[] = [];
  const text = "a: 1\nb:\n  c: 1\n  c: 2\na:\n  # where it begins\n  d: 1\n'e': 1\n\"e\": {f: 1, f: 2}\n";
  const value = parseYaml(text, { onDuplicate: (problem) => seen.push(problem) });
  expect(value).toEqual({ a: { d: 1 }, b: { c: 2 }, e: { f: 2 } });
  expect(seen).toEqual([
    'line 4: key "c" already set in map',
    'line 7: key "a" already set in map',
    'line 9: key "e" already set in map',
    'line 9: key "f" already set in map',
  ]);
  expect(() => parseYaml(text)).toThrow("Map keys must be unique at line 4, column 3");
  // Each once, however often the key was there before.
  const thrice: string[] = [];
  const merged = "- a: 1\n  <<: {b: 1}\n  <<: {c: 1}\n  a: 2\n  a: 3\n- 7: old\n  7: new\n";
  const found = parseYaml(merged, { onDuplicate: (problem) => thrice.push(problem) });
  expect(found).toEqual([{ a: 3, b: 1, c: 1 }, { "7": "new" }]);
  expect(thrice).toEqual([
    'line 4: key "a" already set in map',
    'line 5: key "a" already set in map',
    "line 7: key 7 already set in map",
  ]);
});

test("maps of very many keys take time by their length, not by its square", () => {
  const cpuMsOf = (count: number, more = "") => {
    const text = Array.from({ length: count }, (_, i) => `k${i}: 1`).join("\n") + more;
    const before = process.cpuUsage();
    let told = 0;
    const value = parseYaml(text, { onDuplicate: () => told++ }) as object;
    const { user } = process.cpuUsage(before);
    expect([Object.keys(value).length, told]).toEqual([count, more === "" ? 0 : 1]);
    return user / 1000;
  };
  for (let i = 0; i < 5; i++) cpuMsOf(500);
  const few = Math.max(1, Math.min(...[1, 2, 3].map(() => cpuMsOf(1000))));
  // Ten times as many; a hundred times as long, if each were held against all before it.
  const many = Math.min(...[1, 2, 3].map(() => cpuMsOf(10_000, "\nk7: 2")));
  expect(many / few).toBeLessThan(50);
});
