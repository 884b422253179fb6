import { describe, expect, test } from "vitest";
import type { JsonSchema, ValidationRule } from "../custom-resources.ts";
import { checkSchemaRules } from "./schema-check.ts";
import { compileSchemaRules } from "./schema-rules.ts";
import { escapeName } from "./schema-types.ts";

const string: JsonSchema = { type: "string", maxLength: 20 };
const integer: JsonSchema = { type: "integer" };
const keyed = { "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"] };
const object = (properties: Record<string, JsonSchema>, rest: JsonSchema = {}): JsonSchema => ({
  type: "object",
  properties,
  ...rest,
});
const rules = (...given: (string | ValidationRule)[]): JsonSchema => ({
  "x-kubernetes-validations": given.map((rule) => (typeof rule === "string" ? { rule } : rule)),
});
/** A whole object with `schema` as its spec. */
const root = (schema: JsonSchema, own: JsonSchema = {}): JsonSchema => object({ spec: schema }, own);

/** With all of its turns. */
function finish<T>(work: Generator<void, T>): T {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}
const lines = (errors: readonly { field: string; message: string }[]): string[] =>
  errors.map(({ field, message }) => `${field}: ${message}`);
function validate(schema: JsonSchema, value: unknown, old?: unknown): string[] {
  expect(lines(checkSchemaRules(schema, "schema"))).toEqual([]);
  return lines(finish(compileSchemaRules(schema)!.validate(value, old)));
}
const failed = (rule: string, type = "object"): string => `Invalid value: "${type}": failed rule: ${rule}`;

describe("rules of objects", () => {
  test("stand at every level, and name it", () => {
    const schema = root(
      object(
        {
          name: { ...string, ...rules("self != 'n'") },
          list: { type: "array", maxItems: 5, items: { ...integer, ...rules("self > 0") }, ...rules("size(self) < 3") },
          map: { type: "object", maxProperties: 5, additionalProperties: { ...string, ...rules("self != 'm'") } },
        },
        rules("!has(self.name) || self.name != 'spec'"),
      ),
      rules("self.metadata.name != 'root' && self.kind == 'Thing'"),
    );
    const thing = (spec: object, name = "x") => ({ apiVersion: "a/v1", kind: "Thing", metadata: { name }, spec });
    expect(validate(schema, thing({ name: "ok", list: [1], map: { a: "b" } }))).toEqual([]);
    expect(validate(schema, thing({}, "root"))).toEqual([
      `<nil>: ${failed("self.metadata.name != 'root' && self.kind == 'Thing'")}`,
    ]);
    expect(validate(schema, thing({ name: "spec" }))).toEqual([
      `spec: ${failed("!has(self.name) || self.name != 'spec'")}`,
    ]);
    expect(validate(schema, thing({ name: "n", list: [0, 1, -1], map: { "a.b": "m" } }))).toEqual([
      `spec.name: ${failed("self != 'n'", "string")}`,
      `spec.list: ${failed("size(self) < 3", "array")}`,
      `spec.list[0]: ${failed("self > 0", "integer")}`,
      `spec.list[2]: ${failed("self > 0", "integer")}`,
      `spec.map[a.b]: ${failed("self != 'm'", "string")}`,
    ]);
  });

  test("say their message, reason and path", () => {
    const wrong = { rule: "self.a == 1" };
    const schema = root(
      object(
        { a: integer, m: { type: "object", additionalProperties: integer } },
        rules(
          { ...wrong, message: " a must be 1 " },
          { ...wrong, messageExpression: "'a is ' + string(self.a).substring(0, 1)", message: "unused" },
          { ...wrong, messageExpression: "string(1 / (self.a - 2))", message: "fallback" },
          { ...wrong, messageExpression: "'two\\nlines'" },
          { ...wrong, reason: "FieldValueForbidden", fieldPath: ".a", message: "no" },
          { ...wrong, reason: "FieldValueRequired", fieldPath: ".m['x.y']", message: "yes" },
          { ...wrong, reason: "FieldValueDuplicate" },
        ),
      ),
    );
    // The estimate of string() is unbounded upstream too; the check of the definition is another test's.
    expect(lines(finish(compileSchemaRules(schema)!.validate({ spec: { a: 2 } }, undefined)))).toEqual([
      'spec: Invalid value: "object": a must be 1',
      'spec: Invalid value: "object": a is 2',
      'spec: Invalid value: "object": fallback',
      `spec: ${failed("self.a == 1")}`,
      "spec.a: Forbidden: no",
      "spec.m[x.y]: Required value: yes",
      'spec: Duplicate value: "object"',
    ]);
  });

  test("that fail to evaluate say why", () => {
    const schema = root(
      object(
        { a: integer, either: { "x-kubernetes-int-or-string": true } },
        rules("self.a > 0", "1 / self.a > 0", "self.either > 1"),
      ),
    );
    expect(validate(schema, { spec: { either: "x" } })).toEqual([
      'spec: Invalid value: "object": no such key: a evaluating rule: self.a > 0',
      'spec: Invalid value: "object": no such key: a evaluating rule: 1 / self.a > 0',
      "spec: Invalid value: \"object\": 'no such overload: _>_(string, int)': call arguments did not match a supported operator, function or macro signature for rule: self.either > 1",
    ]);
  });

  test("see data as its schema says", () => {
    const schema = root(
      object(
        {
          either: { "x-kubernetes-int-or-string": true },
          whole: { type: "number" },
          when: { type: "string", format: "date-time" },
          long: { type: "string", format: "duration" },
          bytes: { type: "string", format: "byte", maxLength: 8 },
          "a-b.c/d": integer,
          namespace: string,
          under__score: integer,
          gone: { ...string, nullable: true },
          pod: object({ spec: object({ x: integer }) }, { "x-kubernetes-embedded-resource": true }),
          any: { "x-kubernetes-preserve-unknown-fields": true },
          free: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
          tags: { type: "array", maxItems: 4, items: string, "x-kubernetes-list-type": "set" },
        },
        rules(
          "type(self.either) == int ? self.either == 5 : self.either == '5%'",
          "self.whole == 3.0",
          "self.when < timestamp('2030-01-01T00:00:00Z') && self.when.getFullYear() == 2024",
          "self.long == duration('1m') * 1 || self.long == duration('60s')",
          "size(self.bytes) == 2",
          "self.a__dash__b__dot__c__slash__d == 1",
          "self.__namespace__ == 'x' && self.under__underscores__score == 2",
          "!has(self.gone)",
          "self.pod.kind == 'Pod' && self.pod.metadata.name == 'p' && self.pod.spec.x == 1",
          "has(self.free)",
          "self.tags == ['b', 'a']",
        ),
      ),
    );
    const checked = lines(checkSchemaRules(schema, "schema"));
    expect(checked).toHaveLength(1);
    expect(checked[0]).toContain("found no matching overload for '_*_' applied to '(duration, int)'");
    const spec = schema.properties!["spec"]!;
    spec["x-kubernetes-validations"]![3]!.rule = "self.long == duration('60s')";
    const value = {
      either: "5%",
      whole: 3,
      when: "2024-05-01T00:00:00Z",
      long: "60s",
      bytes: "QUI=",
      "a-b.c/d": 1,
      namespace: "x",
      under__score: 2,
      gone: null,
      pod: { apiVersion: "v1", kind: "Pod", metadata: { name: "p", labels: {} }, spec: { x: 1 } },
      any: 5,
      free: { what: "ever" },
      tags: ["a", "b"],
    };
    expect(validate(schema, { spec: value })).toEqual([]);
    expect(validate(schema, { spec: { ...value, either: 5 } })).toEqual([]);
    expect(validate(schema, { spec: { ...value, tags: ["a", "c"] } })).toHaveLength(1);
  });
});

describe("rules of changes", () => {
  test("run only where there is something to compare with", () => {
    const same = "self == oldSelf";
    const schema = root(
      object({
        name: { ...string, ...rules({ rule: same, message: "is immutable" }) },
        keyed: {
          type: "array",
          maxItems: 5,
          ...keyed,
          items: object({ k: string, v: { ...string, ...rules(same) } }, { required: ["k"] }),
        },
        byName: { type: "object", maxProperties: 5, additionalProperties: { ...string, ...rules(same) } },
      }),
    );
    expect(validate(schema, { spec: { name: "a" } })).toEqual([]);
    expect(validate(schema, { spec: { name: "a" } }, { spec: {} })).toEqual([]);
    expect(validate(schema, { spec: { name: "a" } }, { spec: { name: "b" } })).toEqual([
      'spec.name: Invalid value: "string": is immutable',
    ]);
    const items = (...pairs: [string, string][]) => ({ spec: { keyed: pairs.map(([k, v]) => ({ k, v })) } });
    expect(validate(schema, items(["b", "2"], ["c", "3"]), items(["a", "1"], ["b", "9"]))).toEqual([
      `spec.keyed[0].v: ${failed(same, "string")}`,
    ]);
    expect(validate(schema, { spec: { byName: { a: "1", b: "2" } } }, { spec: { byName: { b: "3" } } })).toEqual([
      `spec.byName[b]: ${failed(same, "string")}`,
    ]);
  });

  test("see an optional where they ask for one", () => {
    const rule = "oldSelf.hasValue() ? oldSelf.value() <= self : self == 1";
    const schema = root(object({ n: { ...integer, ...rules({ rule, optionalOldSelf: true }) } }));
    expect(validate(schema, { spec: { n: 1 } })).toEqual([]);
    expect(validate(schema, { spec: { n: 2 } })).toEqual([`spec.n: ${failed(rule, "integer")}`]);
    expect(validate(schema, { spec: { n: 2 } }, { spec: { n: 1 } })).toEqual([]);
    expect(validate(schema, { spec: { n: 2 } }, { spec: { n: 3 } })).toHaveLength(1);
  });

  test("what failed before and did not change is forgiven", () => {
    const schema = root(object({ a: { ...integer, ...rules("self > 0") }, b: integer }, rules("self.b > 0")));
    const compiled = compileSchemaRules(schema)!;
    const warnings: string[] = [];
    const warn = (text: string) => warnings.push(text);
    const old = { spec: { a: -1, b: 1 } };
    expect(lines(finish(compiled.validate({ spec: { a: -1, b: 2 } }, old, { warn })))).toEqual([]);
    expect(warnings).toEqual([`spec.a: ${failed("self > 0", "integer")}`]);
    expect(lines(finish(compiled.validate({ spec: { a: -2, b: 2 } }, old)))).toHaveLength(1);
    expect(lines(finish(compiled.validate({ spec: { a: -1, b: -1 } }, old)))).toEqual([
      `spec: ${failed("self.b > 0")}`,
    ]);
  });
});

describe("budgets", () => {
  const many = { spec: { list: Array.from({ length: 2000 }, (_, at) => at) } };
  const schema = root(
    object({ list: { type: "array", items: integer, ...rules("self.all(a, self.all(b, a + b >= 0))", "true") } }),
  );
  test("end a rule that costs too much, and those after it", () => {
    expect(lines(finish(compileSchemaRules(schema)!.validate(many, undefined)))).toEqual([
      "spec.list: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(a, self.all(b, a + b >= 0))",
    ]);
  });
  test("are one for all rules of an object", () => {
    const small = root(object({ list: { type: "array", items: { ...integer, ...rules("self >= 0") } } }));
    const budget = { remaining: 100 };
    const errors = finish(compileSchemaRules(small)!.validate(many, undefined, { budget }));
    expect(lines(errors)).toEqual([
      'spec.list[50]: Invalid value: "integer": validation failed due to running out of cost budget, no further validation rules will be run',
    ]);
  });
});

test("errors have an end", () => {
  const small = root(object({ list: { type: "array", items: { ...integer, ...rules("self < 0") } } }));
  const list = Array.from({ length: 5000 }, (_, at) => at);
  expect(finish(compileSchemaRules(small)!.validate({ spec: { list } }, undefined))).toHaveLength(1000);
});

describe("turns", () => {
  const turnsOf = (work: Generator<void, unknown>): number => {
    for (let turns = 0; ; turns++) if (work.next().done) return turns;
  };
  const list = (count: number) => ({ spec: { list: Array.from({ length: count }, (_, at) => at) } });
  test("others have theirs while many rules or costly ones are asked", () => {
    const each = root(object({ list: { type: "array", items: { ...integer, ...rules("self >= 0") } } }));
    const whole = root(object({ list: { type: "array", items: integer, ...rules(...pairwise) } }));
    expect(turnsOf(compileSchemaRules(each)!.validate(list(10), undefined))).toBe(0);
    expect(turnsOf(compileSchemaRules(each)!.validate(list(50_000), undefined))).toBeGreaterThan(10);
    // Within the costly ones too, each of which costs some eight turns, and between them.
    const turns = turnsOf(compileSchemaRules(whole)!.validate(list(150), undefined));
    expect(turns).toBeGreaterThanOrEqual(7 * pairwise.length + pairwise.length - 1);
    expect(turns).toBeLessThan(40);
  });
  const pairwise = ["1", "2", "3"].map((bound) => `self.all(a, self.all(b, a + b > -${bound}))`);
  test("patterns share what they may take", () => {
    const text = "aaaab".repeat(8_000);
    const schema = root(
      object({ list: { type: "array", items: { ...string, ...rules("self.find('(a|b)*?(aaaa|bbbb)[xy]') == ''") } } }),
    );
    const [line, ...others] = lines(
      finish(compileSchemaRules(schema)!.validate({ spec: { list: [text, text] } }, undefined)),
    );
    expect(line).toContain(
      "'pattern takes too long on a text of this length': no further validation rules will be run",
    );
    expect(others).toEqual([]);
  });
});

describe("definitions", () => {
  const check = (schema: JsonSchema): string[] => lines(checkSchemaRules(schema, "s"));
  const at = "s.properties[spec].x-kubernetes-validations[0]";
  const one = (rule: ValidationRule | string, properties: Record<string, JsonSchema> = { a: integer }): string[] =>
    check(root(object(properties, rules(rule))));

  test.each<[ValidationRule | string, string]>([
    [" ", `${at}.rule: Required value: rule is not specified`],
    [{ rule: "true", message: " " }, `${at}.message: Invalid value: " ": message must be non-empty if specified`],
    [{ rule: "true", message: "a\nb" }, `${at}.message: Invalid value: "a\\nb": message must not contain line breaks`],
    ["true\n&& true", `${at}.message: Required value: message must be specified if rule contains line breaks`],
    [
      { rule: "true", messageExpression: " " },
      `${at}.messageExpression: Required value: messageExpression must be non-empty if specified`,
    ],
    [
      { rule: "true", reason: "Other" },
      `${at}.reason: Unsupported value: "Other": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"`,
    ],
    [{ rule: "true", fieldPath: ".z" }, `${at}.fieldPath: Invalid value: ".z": fieldPath must be a valid path`],
    [{ rule: "true", fieldPath: "a" }, `${at}.fieldPath: Invalid value: "a": fieldPath must be a valid path`],
    [
      "self.foo == 1",
      `${at}.rule: Invalid value: apiextensions.ValidationRule{Rule:"self.foo == 1", Message:"", MessageExpression:"", Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:"", OptionalOldSelf:(*bool)(nil)}: compilation failed: ERROR: <input>:1:5: undefined field 'foo'\n | self.foo == 1\n | ....^`,
    ],
    [
      { rule: "true", optionalOldSelf: true },
      `${at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule`,
    ],
  ])("%j is refused", (rule, error) => {
    expect(one(rule)).toEqual([error]);
  });
  test.each([
    ["self.a", "cel expression must evaluate to a bool"],
    ["self.a ==", "compilation failed: ERROR: <input>:1:10: Syntax error: mismatched input '<EOF>' expecting"],
    ["has(self.b)", "ERROR: <input>:1:4: undefined field 'b'"],
    ["self.a == 'x'", "found no matching overload for '_==_' applied to '(int, string)'"],
    ["self == 1", "found no matching overload for '_==_' applied to '(selfType, int)'"],
    ["self.metadata.name == 'x'", "undefined field 'metadata'"],
  ])("%s does not compile", (rule, text) => {
    expect(one(rule)).toEqual([expect.stringContaining(text)]);
  });
  test("a message must be a string", () => {
    expect(one({ rule: "true", messageExpression: "1" })[0]).toContain("messageExpression must evaluate to a string");
    expect(one({ rule: "true", messageExpression: "self.z" })[0]).toContain("messageExpression compilation failed");
  });

  test("old and new elements must be the same for sure", () => {
    const items = { ...integer, ...rules("self == oldSelf") };
    expect(check(root({ type: "array", maxItems: 3, items }))).toEqual([
      's.properties[spec].items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]',
    ]);
    expect(check(root(object({ a: items }, { "x-kubernetes-map-type": "atomic" })))).toHaveLength(1);
    expect(check(root({ type: "array", maxItems: 3, ...keyed, items: object({ k: items }) }))).toEqual([]);
  });

  test("an enumeration may be as long as a request", () => {
    const values = Array.from({ length: 300_000 }, String);
    expect(check(root(object({ a: { ...string, enum: values, ...rules("self != ''") } })))).toEqual([]);
  });

  test("what may cost too much is refused with the factor", () => {
    const text = "exceeds budget by factor of";
    const advice =
      "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    const loop = "self.all(x, self.all(y, x == y))";
    const list = (maxItems?: number): JsonSchema =>
      root({ type: "array", items: integer, ...(maxItems === undefined ? {} : { maxItems }), ...rules(loop) });
    expect(check(list(100))).toEqual([]);
    expect(check(list(1500))).toEqual([`${at}.rule: Forbidden: estimated rule cost ${text} 1.125750x ${advice}`]);
    expect(check(list(2000))).toEqual([`${at}.rule: Forbidden: estimated rule cost ${text} 2.0x ${advice}`]);
    expect(check(list())).toEqual([
      `${at}.rule: Forbidden: estimated rule cost ${text} more than 100x ${advice}`,
      `${at}.rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema`,
      `s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema ${text} more than 100x ${advice}`,
    ]);
  });
  test("a rule counts as often as its data may stand", () => {
    const item = object({ a: { ...string, ...rules("self.contains('abc')") } });
    const nested = (outer: JsonSchema, inner: JsonSchema): JsonSchema =>
      root({ type: "array", ...outer, items: { type: "array", ...inner, items: item } });
    expect(check(nested({ maxItems: 10 }, { maxItems: 10 }))).toEqual([]);
    expect(check(nested({ maxItems: 5000 }, { maxItems: 5000 }))).toHaveLength(3);
    // Without a limit only the size of a request bounds it, which here is better than the limits are.
    expect(check(nested({ maxItems: 5000 }, {}))).toEqual([]);
  });

  test("rules where rules see nothing are refused", () => {
    const schema = root(object({ any: { "x-kubernetes-preserve-unknown-fields": true, ...rules("true") } }));
    expect(check(schema)).toEqual([
      "s.properties[spec].properties[any].x-kubernetes-validations: Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations",
    ]);
  });
});

test.each([
  ["a", "a"],
  ["a.b-c/d", "a__dot__b__dash__c__slash__d"],
  ["a__b", "a__underscores__b"],
  ["namespace", "__namespace__"],
  ["in", "__in__"],
  ["_x1", "_x1"],
  ["1x", undefined],
  ["a b", undefined],
  ["\u00e9", undefined],
])("the name %s is written %s", (name, escaped) => {
  expect(escapeName(name)).toBe(escaped);
});
