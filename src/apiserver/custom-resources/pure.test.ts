// The small pure parts: JSON paths, formats, Go's way to print.
import { describe, expect, test } from "vitest";
import { isKnownFormat, matchesFormat } from "./formats.ts";
import { goFloat, goSyntax, shownValue } from "./go-text.ts";
import { compileJsonPath } from "./json-path.ts";

describe("JSON paths", () => {
  const object = {
    metadata: { labels: { "app.kubernetes.io/name": "web" } },
    spec: {
      ports: [
        { name: "a", port: 1 },
        { name: "b", port: 2 },
      ],
      deep: { name: "c" },
    },
    status: {
      conditions: [
        { type: "Ready", status: "True" },
        { type: "Live", status: "False" },
      ],
    },
  };
  test.each([
    [".spec.ports[0].port", [1]],
    [".spec.ports[-1].name", ["b"]],
    [".spec.ports[*].name", ["a", "b"]],
    [".spec.ports[0:1].name", ["a"]],
    [".metadata.labels.app\\.kubernetes\\.io/name", ["web"]],
    [".metadata.labels['app\\.kubernetes\\.io/name']", ["web"]],
    ['.status.conditions[?(@.type=="Ready")].status', ["True"]],
    [".status.conditions[?(@.type == 'Live')].status", ["False"]],
    [".spec.ports[?(@.port>1)].name", ["b"]],
    [".spec..name", ["a", "b", "c"]],
    [".spec.nothing.there", []],
    [".spec.ports[7]", []],
    [".spec.__proto__", []],
  ])("%s", (path, found) => {
    expect(compileJsonPath(path).find(object)).toEqual(found);
  });
  test.each([".spec.", ".spec[", ".spec[?(@.a==)]", ".spec[x]", "spec", ".a b"])("%s is none", (path) => {
    expect(() => compileJsonPath(path)).toThrow();
  });
  test.each([".list[*]", ".list[0:]", ".map.*", ".list..x"])(
    "%s of a large object finds no more than it may",
    (path) => {
      const list = Array.from({ length: 300_000 }, (_, at) => ({ x: at }));
      const found = compileJsonPath(path).find({ list, map: { ...list } });
      expect([found.length > 9_000, found.length < 11_000]).toEqual([true, true]);
    },
  );
  test("names are told from the rest", () => {
    expect(compileJsonPath(".spec.replicas").names).toEqual(["spec", "replicas"]);
    expect(compileJsonPath(".spec.a[0]").names).toBeUndefined();
  });
});

test.each([
  [
    "date-time",
    ["2024-02-29T12:00:00Z", "2024-01-01T00:00:00.123+01:00"],
    ["2023-02-29T12:00:00Z", "2024-01-01", "now"],
  ],
  ["date", ["2024-02-29"], ["2023-02-29", "24-1-1"]],
  ["ipv4", ["10.0.0.1"], ["10.0.0.256", "::1"]],
  ["ipv6", ["::1", "fe80::1"], ["10.0.0.1", ":::"]],
  ["cidr", ["10.0.0.0/8", "fd00::/64"], ["10.0.0.0", "10.0.0.0/33"]],
  ["uri", ["https://a.example/b?c", "/path"], ["no uri", "a"]],
  ["email", ["a@b.example"], ["a", "a@", "@b"]],
  ["hostname", ["a.example.com", "a"], ["-a", `${"a".repeat(64)}.b`]],
  ["uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]],
  ["uuid4", ["123e4567-e89b-42d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-426614174000"]],
  ["byte", ["aGk=", ""], ["aGk", "a!=="]],
  ["duration", ["1h30m", "5s", "2 days"], ["soon", "1x"]],
  ["mac", ["00:11:22:33:44:55"], ["00:11:22:33:44"]],
  ["isbn", ["978-3-16-148410-0", "0-306-40615-2"], ["978-3-16-148410-1"]],
  ["creditcard", ["4111 1111 1111 1111"], ["4111 1111 1111 1112"]],
  ["hexcolor", ["#fff", "#a0b1c2"], ["#ffff"]],
  ["nobody-knows", ["anything"], []],
])("format %s", (format, good, bad) => {
  for (const text of good) expect([text, matchesFormat(format, text)]).toEqual([text, true]);
  for (const text of bad) expect([text, matchesFormat(format, text)]).toEqual([text, false]);
  expect(isKnownFormat(format)).toBe(format !== "nobody-knows");
});

test("values print as Go's do", () => {
  expect([10, 0.5, 1_000_000, 123_456_789, 1e-5, -2].map(goFloat)).toEqual([
    "10",
    "0.5",
    "1e+06",
    "1.23456789e+08",
    "1e-05",
    "-2",
  ]);
  expect(goSyntax({ b: [1, "x", null], a: { c: true } })).toBe(
    'map[string]interface {}{"a":map[string]interface {}{"c":true}, "b":[]interface {}{1, "x", interface {}(nil)}}',
  );
  expect([null, "x", 1_000_000, 1.5, true].map(shownValue)).toEqual(['"null"', '"x"', "1000000", "1.5", "true"]);
});
