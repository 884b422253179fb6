import { expect, test } from "vitest";
import type { JsonSchema } from "../custom-resources.ts";
import { compileExpression } from "./expression.ts";
import { declare, sizesOf } from "./schema-types.ts";
import { adapterOf } from "./schema-values.ts";

// The numbers of both tables are upstream's: definitions are refused by the first, objects by the second.

const string = (rest: JsonSchema = {}): JsonSchema => ({ type: "string", ...rest });
const integer: JsonSchema = { type: "integer" };
const number: JsonSchema = { type: "number" };
const list = (items: JsonSchema, rest: JsonSchema = {}): JsonSchema => ({ type: "array", items, ...rest });
const map = (additionalProperties: JsonSchema, rest: JsonSchema = {}): JsonSchema => ({
  type: "object",
  additionalProperties,
  ...rest,
});
const object = (properties: Record<string, JsonSchema>, rest: JsonSchema = {}): JsonSchema => ({
  type: "object",
  properties,
  ...rest,
});
const intOrString: JsonSchema = { "x-kubernetes-int-or-string": true };
const keyed = { "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"] };

function compile(schema: JsonSchema, text: string, isResource = false) {
  const declaration = declare(schema, isResource, "selfType");
  if (!declaration) throw new Error("no declaration");
  const variables = new Map([
    ["self", declaration.type],
    ["oldSelf", declaration.type],
  ]);
  const compiled = compileExpression({ text, variables, sizeOf: sizesOf(declaration) });
  if ("problem" in compiled) throw new Error(compiled.problem);
  return compiled.program;
}

const pair = object({ required: string(), optional: string() }, { required: ["required"] });
const estimates: readonly (readonly [text: string, cost: number, schema: JsonSchema])[] = [
  ["self.all(x, true)", 4_718_591, list(number)],
  ["self.all(x, true)", 32, list(number, { maxItems: 10 })],
  ["self.all(x, true)", 3_145_727, list(string())],
  ["self.all(x, true)", 1_887_437, list({ type: "boolean" })],
  ["self.all(x, true)", 3_145_727, list(list(number))],
  ["self.all(x, true)", 4_718_591, list(intOrString)],
  ["self.all(x, true)", 2_359_295, list(string({ format: "duration" }))],
  ["self.all(x, true)", 725_936, list(string({ format: "date" }))],
  ["self.all(x, true)", 428_963, list(string({ format: "date-time" }))],
  ["self.all(x, true)", 1_348_169, map(number)],
  ["self.all(x, true)", 47, map(intOrString, { maxProperties: 15 })],
  ["self.all(x, true)", 1_179_647, map(string())],
  ["self.all(x, true)", 943_718, map({ type: "boolean" })],
  ["self.all(x, true)", 428_963, map(pair)],
  ["self.all(x, true)", 1_179_647, map(list(number))],
  ["self.all(x, self.all(y, true))", 352, list(number, { maxItems: 10 })],
  ["self.all(x, self.all(y, self.all(z, true)))", 3552, list(number, { maxItems: 10 })],
  ["self.contains('test')", 314_574, string()],
  ["self.contains('test')", 5, string({ maxLength: 10 })],
  ["self.contains('A')", 2, string({ enum: ["A", "LongValue"] })],
  ["self.startsWith('test')", 2, string()],
  ["self.endsWith('test')", 2, string({ maxLength: 30 })],
  ['size(self + "hello") > size("hello")', 314_578, string()],
  ['size(self + "hello") > size("hello")', 7, string({ maxLength: 4 })],
  ["self[1] == 0.0", 2, list(number)],
  ["self[1] == self[1]", 314_577, list(string())],
  ["self[0] == 5", 3, list(intOrString)],
  ["self[0][0] == -1.0", 3, list(list(number))],
  ["self[0].x > 2.0", 4, list(map(number))],
  ['self.matches("x")', 314_574, string()],
  ['self.matches("x")', 22, string({ maxLength: 50 })],
  ['self.matches("")', 1, string()],
  ['"".matches("(((((((((())))))))))[0-9]")', 7, string()],
  ["self.all(x, x.contains(self[x]))", 72, map(string({ maxLength: 10 }), { maxProperties: 10 })],
  ['self == "x"', 2, string()],
  ['self == "x"', 1, string({ maxLength: 0 })],
  ['self.all(x, x["y"].required == "z")', 72, list(map(pair, { maxProperties: 10 }), { maxItems: 10 })],
  ['self.all(x, x["y"].required == "z")', 7_340_027, list(map(pair, { maxProperties: 10 }))],
  ["self[0].getHours() == 2", 4, list(string({ format: "duration" }))],
  ["self.find('[0-9]+') == ''", 629_147, string()],
  ["self.find('[0-9]+') == ''", 11, string({ maxLength: 10 })],
  ["self.join(' ') == 'aa bb'", 329_853_068_905, list(string())],
  ["self.join(' ') == 'aa bb'", 43, list(string({ maxLength: 10 }), { maxItems: 10 })],
  ["self.isSorted() == true", 329_854_432_052, list(string())],
  ["self.isSorted() == true", 52, list(string({ maxLength: 10 }), { maxItems: 10 })],
  [
    "self.str.replace(self.before, self.after) == 'does not matter'",
    629_154,
    object({ str: string(), before: string({ maxLength: 2 }), after: string({ maxLength: 4 }) }),
  ],
  [
    "self.str.split(self.separator) == []",
    22,
    object({ str: string({ maxLength: 10 }), separator: string({ maxLength: 10 }) }),
  ],
  ["self.lowerAscii() == 'lower!'", 314_575, string()],
  ["oldSelf.size() == self.size()", 5, map(integer)],
  ['self["a"] == self["b"]', 8, map(string({ format: "date-time" }))],
];
test.each(estimates)("%s is estimated at %d", (text, cost, schema) => {
  expect(compile(schema, text).maxCost).toBe(cost);
});

const listMap = [
  { k: "a1", v: "b1" },
  { k: "a2", v: "b2" },
  { k: "a3", v: "b3", v2: "z" },
];
const runs: readonly (readonly [schema: JsonSchema, data: object, rules: Record<string, number>])[] = [
  [
    object({ a: integer, b: integer, d: number }),
    { a: 5, b: 5, d: 10 },
    {
      "self.a == self.b": 5,
      "type(self.a) == int": 4,
      "self.a + 1 == 5 + 1": 5,
      "double(self.a) < self.d": 6,
      "double(5) < 10.0": 1,
      "double(self.a) < 10.0": 4,
      "type(self.d) == double": 4,
    },
  ],
  [
    object({ s: string(), p: string({ enum: ["Pending", "Bound"] }), b: string({ format: "byte" }) }),
    { s: "Rook takes x", p: "Pending", b: "QUI=" },
    {
      "self.s.startsWith('Rook')": 4,
      "!self.s.startsWith('knight')": 5,
      "self.s.matches('^[^0-9]*$')": 8,
      "!self.s.matches('^[0-9]*$')": 7,
      "size(self.s) == 12": 4,
      "self.s.charAt(3) == 'k'": 4,
      "self.s.indexOf('o') == 1": 4,
      "self.s.replace(' ', 'x') == 'Rookxtakesxx'": 7,
      "self.s.split(' ') == ['Rook', 'takes', 'x']": 6,
      "self.s.substring(0, 4) == 'Rook'": 5,
      "self.s.substring(4, 10).trim() == 'takes'": 6,
      "self.s.upperAscii() == 'ROOK TAKES X'": 6,
      "self.p in ['Pending', 'Available']": 2,
      "self.b == b'AB'": 3,
    },
  ],
  [
    object({ d: string({ format: "duration" }), t: string({ format: "date" }) }),
    { d: "1h2m3s4ms", t: "1997-07-16" },
    {
      "self.d == duration('1h2m') + duration('3s4ms')": 4,
      "self.d.getHours() == 1": 4,
      "self.t.getDate() == 16": 4,
      "type(self.t) == google.protobuf.Timestamp": 4,
    },
  ],
  [
    object({ array: list(integer) }),
    { array: [1, 1, 2, 2, 3, 3, 4, 5] },
    {
      "2 in self.array": 10,
      "self.array.all(e, e > 0)": 43,
      "self.array.exists(e, e > 2)": 36,
      "self.array.exists_one(e, e > 4)": 22,
      "!self.array.all(e, e < 2)": 21,
      "!self.array.exists(e, e < 0)": 52,
      "!self.array.exists_one(e, e == 2)": 25,
      "size(self.array.filter(e, e%2 == 0)) == 3": 68,
      "self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)": 194,
    },
  ],
  [
    object({ listMap: list(object({ k: string(), v: string(), v2: string() }), keyed) }),
    { listMap },
    {
      "has(self.listMap[0].v)": 3,
      "self.listMap.all(m, m.k.startsWith('a'))": 21,
      "self.listMap.all(m, !has(m.v2) || m.v2 == 'z')": 21,
      "self.listMap.exists(m, m.k.endsWith('1'))": 13,
      "self.listMap.exists_one(m, m.k == 'a3')": 15,
      "self.listMap.map(m, m.v).exists(v, v == 'b1')": 55,
      "self.listMap.filter(m, has(m.v2) && m.v2 == 'z').size() == 1": 24,
      "self.listMap.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1": 25,
    },
  ],
  [
    object({ val: map(integer) }),
    { val: { b: 1, d: 2 } },
    {
      "!('a' in self.val)": 4,
      "!has(self.val.a)": 3,
      "self.val.all(k, self.val[k] > 0)": 17,
      "self.val.exists_one(k, self.val[k] == 2)": 14,
      "size(self.val.filter(k, self.val[k] > 1)) == 1": 26,
      "self.val == {'b': 1, 'd': 2}": 3,
    },
  ],
  [
    object({ objs: list(list(object({ k: string(), v: string() }), keyed)) }),
    {
      objs: [
        [
          { k: "a", v: "1" },
          { k: "b", v: "2" },
        ],
        [
          { k: "b", v: "2" },
          { k: "a", v: "1" },
        ],
        [
          { k: "b", v: "3" },
          { k: "a", v: "1" },
        ],
        [{ k: "c", v: "4" }],
      ],
    },
    {
      "self.objs[0] == self.objs[1]": 7,
      "self.objs[0] + self.objs[2] == self.objs[2]": 11,
      "self.objs[2] + self.objs[0] == self.objs[0]": 11,
      "self.objs[0] == [self.objs[0][1], self.objs[0][0]]": 22,
      "size(self.objs[0] + [self.objs[3][0]]) == 3": 20,
    },
  ],
  [
    object({ set: list(string(), { "x-kubernetes-list-type": "set" }) }),
    { set: ["a", "b", "c"] },
    {
      "self.set == ['c', 'b', 'a']": 3,
      "self.set + ['c', 'd'] == ['a', 'b', 'c', 'd']": 4,
    },
  ],
  [
    object({ min: intOrString, current: integer, available: integer }),
    { min: "50%", current: 5, available: 10 },
    {
      "self.min != 1": 3,
      "type(self.min) == string && self.min == '50%'": 7,
      "type(self.min) == int ? self.current <= self.min : double(self.current) / double(self.available) >= double(self.min.replace('%', '')) / 100.0": 17,
    },
  ],
  [
    object({ obj: object({ field: string(), absentField: string() }), m: map(string()), l: list(string()) }),
    { obj: { field: "a" }, m: { k: "v" }, l: ["a"] },
    {
      "optional.of('a') != optional.none()": 3,
      "optional.of('a').or(optional.of('a')).hasValue()": 2,
      "optional.none().or(optional.of('a')).hasValue()": 3,
      "optional.of('a').optMap(v, v == 'value').hasValue()": 8,
      "self.obj.?field == optional.of('a')": 5,
      "self.obj.?absentField == optional.none()": 4,
      "self.obj.?field.orValue('v') == 'a'": 4,
      "self.m[?'k'] == optional.of('v')": 5,
      "type(self) == type(self)": 5,
      "self.kind == 'Thing' || self.metadata.name == 'x'": 4 + 3,
    },
  ],
];
test.each(
  runs.flatMap(([schema, data, rules]) => Object.entries(rules).map(([text, cost]) => ({ text, cost, schema, data }))),
)("$text costs $cost", ({ text, cost, schema, data }) => {
  const program = compile(schema, text, true);
  const self = adapterOf(schema, true)({ kind: "Other", apiVersion: "v1", metadata: { name: "x" }, ...data });
  expect(program.evaluate({ self })).toEqual({ value: true, cost });
  expect(program.maxCost).toBeGreaterThanOrEqual(cost - 3);
});
