import { expect, test } from "vitest";
import { compileExpression, type Program } from "./expression.ts";
import { tableOf } from "./overloads.ts";
import { boolType, type CelType, dynType, intType, listOf, mapOf, objectType, stringType } from "./types.ts";
import {
  Bytes,
  Double,
  Duration,
  ListValue,
  MapValue,
  Opaque,
  Optional,
  Timestamp,
  TypeValue,
  Uint,
  type Value,
} from "./values.ts";

const variables = new Map<string, CelType>([
  ["b", boolType],
  ["d", dynType],
  ["i", intType],
  ["s", stringType],
  ["l", listOf(intType)],
  ["m", mapOf(stringType, intType)],
]);
const values = {
  b: true,
  d: { name: "x", list: [1, "a"], nothing: null, half: 0.5, deep: { a: [{ k: 1 }] } },
  i: 3,
  s: "h\u00e9llo \u{1f600}",
  l: [3, 1, 2],
  m: { a: 1, b: 2 },
};

function program(text: string): Program {
  const compiled = compileExpression({ text, variables });
  if ("problem" in compiled) throw new Error(`${text}: ${compiled.problem}`);
  return compiled.program;
}
/** What an expression gives, as JSON would have it; failures as `! text`. */
function run(text: string): unknown {
  const outcome = program(text).evaluate(values);
  return outcome.error === undefined ? plain(outcome.value) : `! ${outcome.error}`;
}
function plain(value: unknown): unknown {
  if (value instanceof Double) return `double ${value.value}`;
  if (value instanceof Uint) return `uint ${value.value}`;
  if (value instanceof Bytes) return `bytes ${[...value.data]}`;
  if (value instanceof ListValue) return Array.from({ length: value.size }, (_, at) => plain(value.at(at)));
  if (value instanceof MapValue) {
    return Object.fromEntries(value.keys().map((key) => [String(plain(key)), plain(value.find(key))]));
  }
  if (value instanceof Optional) return value.value === undefined ? "none" : ["some", plain(value.value)];
  if (value instanceof Timestamp) return `timestamp ${value.nanos}`;
  if (value instanceof Duration) return `duration ${value.nanos}`;
  if (value instanceof TypeValue) return `type ${value.name}`;
  return value instanceof Opaque ? value.typeName : value;
}
const bad = (text: string): string => {
  const compiled = compileExpression({ text, variables });
  return "problem" in compiled ? compiled.problem : "compiles";
};
type Cases = readonly (readonly [text: string, result: unknown])[];

const literals: Cases = [
  ["1", 1],
  ["-1", -1],
  ["0x1F", 31],
  ["-0x10", -16],
  ["7u", "uint 7"],
  ["1.5", "double 1.5"],
  ["-2e3", "double -2000"],
  [".5", "double 0.5"],
  ["9223372036854775807", 9223372036854775807n],
  ["-9223372036854775808", -9223372036854775808n],
  ["18446744073709551615u", "uint 18446744073709551615"],
  ["'a' + \"b\"", "ab"],
  ["'''a\n'b'''", "a\n'b"],
  ["r'a\\n'", "a\\n"],
  ["'\\x41\\u0042\\U00000043\\104\\n\\\"'", 'ABCD\n"'],
  ["b'\\xff\\377a'", "bytes 255,255,97"],
  ["b'\u00e9'", "bytes 195,169"],
  ["null", null],
  ["true && !false", true],
  ["[1, 2, ]", [1, 2]],
  ["{'a': 1, 2 > 1 ? 'b' : 'c': 2}", { a: 1, b: 2 }],
  ["1 // a comment\n + 2", 3],
  ["[?optional.of(1), ?optional.none()]", [1]],
  ["{?'a': optional.none(), ?'b': optional.of(1)}", { b: 1 }],
];
test.each(literals)("literal %s", (text, result) => expect(run(text)).toEqual(result));

const numbers: Cases = [
  ["2 + 3 * 4 - 6 / 4 % 2", 13],
  ["-7 / 2", -3],
  ["-7 % 2", -1],
  ["9007199254740993 + 0", 9007199254740993n],
  ["9007199254740992 * 4", 36028797018963968n],
  ["9007199254740992 - 1", 9007199254740991],
  ["9223372036854775807 + 1", "! integer overflow"],
  ["-9223372036854775808 - 1", "! integer overflow"],
  ["-(-9223372036854775808 + 0)", "! integer overflow"],
  ["4611686018427387904 * 2", "! integer overflow"],
  ["-9223372036854775808 / -1", "! integer overflow"],
  ["1 / 0", "! division by zero"],
  ["1 % 0", "! modulus by zero"],
  ["1u - 2u", "! unsigned integer overflow"],
  ["18446744073709551615u + 1u", "! unsigned integer overflow"],
  ["1u / 0u", "! division by zero"],
  ["1.0 / 0.0", "double Infinity"],
  ["0.0 / 0.0 == 0.0 / 0.0", false],
  ["1 < 1.5 && 2u > 1 && 1.0 <= 1u", true],
  ["9007199254740993 > 9007199254740992.0", true],
  ["dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1) != 'a'", true],
  ["int(3.9) + int(-3.9) + int('-4') + int(5u)", 1],
  ["int(1e19)", "! integer overflow"],
  ["int('x')", '! strconv.ParseInt: parsing "x": invalid syntax'],
  ["uint(-1)", "! unsigned integer overflow"],
  ["uint('12')", "uint 12"],
  ["double('1e3')", "double 1000"],
  ["string(1.0) + string(1e6) + string(0.1) + string(123456.7)", "11e+060.1123456.7"],
  ["string(-5) + string(7u) + string(true)", "-57true"],
  ["bool('True')", true],
];
test.each(numbers)("number %s", (text, result) => expect(run(text)).toEqual(result));

const logic: Cases = [
  ["false && 1 / 0 == 1", false],
  ["1 / 0 == 1 && false", false],
  ["1 / 0 == 1 && true", "! division by zero"],
  ["true || 1 / 0 == 1", true],
  ["1 / 0 == 1 || true", true],
  ["1 / 0 == 1 || false", "! division by zero"],
  ["b ? 1 : 1 / 0", 1],
  ["dyn(1) ? 1 : 2", "! no such overload: _?_:_(int)"],
  ["dyn('a') && false", false],
  ["d.list.all(x, x > 0)", "! no such overload: _>_(string, int)"],
  ["d.list.exists(x, x == 1)", true],
  ["[1, 2].exists(x, 1 / (x - 1) > 0)", true],
  ["[1, 2].all(x, 1 / (x - 1) > 0)", "! division by zero"],
  ["[1, 2].all(x, 1 / (x - 1) < 0)", false],
  ["[].all(x, x) && ![].exists(x, x)", true],
];
test.each(logic)("logic %s", (text, result) => expect(run(text)).toEqual(result));

const collections: Cases = [
  ["l[0] + m['a'] + m.b", 6],
  ["l[3]", "! index out of bounds: 3"],
  ["l[-1]", "! index out of bounds: -1"],
  ["m['z']", "! no such key: z"],
  ["m.z", "! no such key: z"],
  ["has(m.a) && !has(m.z) && has(d.deep.a)", true],
  ["d.deep.a[0].k", 1],
  ["d.nothing == null", true],
  ["'a' in m && !('z' in m) && 2 in l && !(9 in l)", true],
  ["'b' in ['a', 'b'] && 1.0 in [1.0, 2.0]", true],
  ["l + [4]", [3, 1, 2, 4]],
  ["[1, 2] == [1, 2] && {'a': 1} == {'a': 1} && [1] != [2]", true],
  ["dyn([1]) == [1.0]", true],
  ["{1: 'a'}[1] + {1: 'b'}[dyn(1.0)]", "ab"],
  ["{'a': 1, 'a': 2}", "! Failed with repeated key a"],
  ["size(l) + l.size() + size(m) + 'abc'.size() + size(b'\u00e9')", 13],
  ["s.size()", 7],
  ["l.map(x, x * 2)", [6, 2, 4]],
  ["l.map(x, x > 1, string(x))", ["3", "2"]],
  ["l.filter(x, x > 1)", [3, 2]],
  ["m.map(k, k)", ["a", "b"]],
  ["m.filter(k, m[k] > 1)", ["b"]],
  ["l.exists_one(x, x > 2) && !l.exists_one(x, x > 1)", true],
  ["l.map(x, l.filter(y, y < x).size())", [2, 0, 1]],
  ["l.all(index, x, index < 3 && x > 0)", true],
  ["m.exists(k, v, k == 'b' && v == 2)", true],
  ["l.existsOne(index, x, index == x)", false],
  ["l.transformList(index, x, index * x)", [0, 1, 4]],
  ["l.transformList(index, x, index > 0, x)", [1, 2]],
  ["l.transformMap(index, x, x > 1, x)", { 0: 3, 2: 2 }],
  ["m.transformMap(k, v, v + 1)", { a: 2, b: 3 }],
  ["m.transformMapEntry(k, v, {string(v): k})", { 1: "a", 2: "b" }],
  ["l.transformMapEntry(index, v, {'same': v})", "! insert failed: key same already exists"],
];
test.each(collections)("collection %s", (text, result) => expect(run(text)).toEqual(result));

const optionals: Cases = [
  ["optional.of(1).value()", 1],
  ["optional.none().value()", "! optional.none() dereference"],
  ["optional.ofNonZeroValue('').hasValue()", false],
  ["d.?name", ["some", "x"]],
  ["d.?zip.?zap", "none"],
  ["d.?deep.a[0].k.orValue(9)", 1],
  ["m[?'z'].orValue(1 / 1)", 1],
  ["m[?'a'].orValue(1 / 0)", 1],
  ["l[?7].or(l[?0]).value()", 3],
  ["m.?a.optMap(v, v * 10).orValue(0) + m.?z.optMap(v, v * 10).orValue(5)", 15],
  ["m.?a.optFlatMap(v, optional.none())", "none"],
  ["optional.of(1) == optional.of(1) && optional.of(1) != optional.none()", true],
  ["has(d.?deep.a)", true],
];
test.each(optionals)("optional %s", (text, result) => expect(run(text)).toEqual(result));

const texts: Cases = [
  ["s.contains('llo') && s.startsWith('h\u00e9') && s.endsWith('\u{1f600}')", true],
  ["s.charAt(1) + s.charAt(6) + s.charAt(7)", "\u00e9\u{1f600}"],
  ["s.charAt(8)", "! index out of range: 8"],
  ["s.indexOf('l') * 100 + s.lastIndexOf('l') * 10 + s.indexOf('l', 3)", 233],
  ["s.indexOf('\u{1f600}')", 6],
  ["'abcabc'.lastIndexOf('abc', 2) + 'abc'.indexOf('z')", -1],
  ["''.indexOf('', 0) + 'ab'.lastIndexOf('')", 2],
  ["['a', 'b'].join('-') + ['a', 'b'].join()", "a-bab"],
  ["'A\u00c9b'.lowerAscii() + 'a\u00e9b'.upperAscii()", "a\u00c9bA\u00e9B"],
  ["'hello hello'.replace('he', 'we') + 'aaa'.replace('a', 'b', 2) + 'ab'.replace('', '-')", "wello wellobba-a-b-"],
  ["'a,b,c'.split(',')", ["a", "b", "c"]],
  ["'a,b,c'.split(',', 2)", ["a", "b,c"]],
  ["'a,b'.split(',', 0)", []],
  ["'ab'.split('')", ["a", "b"]],
  ["s.substring(1, 3) + s.substring(6)", "\u00e9l\u{1f600}"],
  ["'ab'.substring(2, 1)", "! invalid substring range. start: 2, end: 1"],
  ["'ab'.substring(3)", "! index out of range: 3"],
  ["' \\t a b\\n'.trim()", "a b"],
  ["strings.quote('a\"b\\n')", '"a\\"b\\n"'],
  ["'%s is %d%%'.format(['x', dyn(5)].map(v, dyn(v)))", "x is 5%"],
  ["'%s %s'.format([[1, 2], [3]])", "[1, 2] [3]"],
  ["'%.2f|%x|%X|%o|%b'.format([dyn(1234.5), dyn(255), dyn('hi'), dyn(8), dyn(5)])", "1,234.50|ff|6869|10|101"],
  ["'%s'.format([{'b': 1.5, 'a': 2.0}])", '{"a":2.000000, "b":1.500000}'],
  ["'%s'.format([])", "! index 0 out of range"],
  ["'abc123'.find('[0-9]+') + 'abc'.find('[0-9]+')", "123"],
  ["'a1b22'.findAll('[0-9]+')", ["1", "22"]],
  ["'a1b22'.findAll('[0-9]+', 1)", ["1"]],
  ["'foobar'.matches('^fo+') && matches('foobar', 'b.r$')", true],
  ["'x'.matches(string(d.name))", true],
  ["'x'.matches('(' + s)", expect.stringContaining("! error parsing regexp")],
  ["'b' > 'a' && '\u{1f600}' > '\uffff' && b'b' > b'a'", true],
  ["string(b'ab') + string(bytes('c'))", "abc"],
  ["string(b'\\xff')", "! invalid UTF-8 in bytes, cannot convert to string"],
];
test.each(texts)("text %s", (text, result) => expect(run(text)).toEqual(result));

const times: Cases = [
  ["duration('1h30m') - duration('90s')", "duration 5310000000000"],
  ["duration('1.5s') == duration('1500ms')", true],
  ["string(duration('1h1.5s'))", "3601.5s"],
  ["duration('1h30m').getMinutes() + duration('90s').getSeconds()", 180],
  ["timestamp('2024-02-29T12:30:45.5Z').getMilliseconds()", 500],
  ["timestamp('2024-02-29T23:30:00Z').getDayOfMonth('+01:00')", 0],
  ["timestamp('2024-02-29T12:00:00Z').getDayOfYear()", 59],
  ["timestamp('2024-07-01T12:00:00Z').getHours('America/New_York')", 8],
  ["timestamp('2024-02-29T12:00:00Z').getDayOfWeek()", 4],
  ["timestamp('2024-03-01T00:00:00Z') - timestamp('2024-02-29T00:00:00Z') == duration('24h')", true],
  ["string(timestamp('2024-02-29T00:00:00+01:00') + duration('1ms'))", "2024-02-28T23:00:00.001Z"],
  ["int(timestamp('1970-01-01T00:01:00Z'))", 60],
  ["timestamp('9999-12-31T23:59:59Z') + duration('1s')", "! timestamp overflow"],
  ["duration('9223372036s') + duration('9223372036s')", "! duration overflow"],
  ["timestamp(string(d.name))", expect.stringContaining('! parsing time "x"')],
];
test.each(times)("time %s", (text, result) => expect(run(text)).toEqual(result));

const libraries: Cases = [
  ["l.isSorted() || [1, 2, 2].isSorted()", true],
  ["l.sum() + l.min() + l.max()", 10],
  ["[1.5, 2.5].sum()", "double 4"],
  ["l.filter(x, false).sum()", 0],
  ["l.filter(x, false).min()", "! min called on empty list"],
  ["l.indexOf(2) * 10 + [1, 2, 1].lastIndexOf(1)", 22],
  ["sets.contains(l, [1, 2]) && sets.equivalent([1, 1, 2], [2, 1]) && !sets.intersects(l, [9])", true],
  ["url('https://user@h.example:8443/a%20b?x=1&x=2&y').getHost()", "h.example:8443"],
  ["url('https://[::1]:80/').getHostname() + url('https://[::1]:80/').getPort()", "::180"],
  ["url('https://h/a b?x=1&x=2&y').getQuery()", { x: ["1", "2"], y: [""] }],
  ["url('https://h/a b').getEscapedPath() + url('/x').getScheme()", "/a%20b"],
  ["isURL('https://h:99a/') || isURL('relative') || isURL('')", false],
  ["url('relative')", '! URL parse error during conversion from string: parse "relative": invalid URI for request'],
  ["url('https://h/a') == url('https://h/a')", true],
  [
    "[ip('127.0.0.1').isLoopback(), ip('::1').isLoopback(), ip('fe80::1').isLinkLocalUnicast(), ip('ff02::1').isLinkLocalMulticast(), ip('0.0.0.0').isUnspecified()].all(x, x)",
    true,
  ],
  ["[ip('255.255.255.255'), ip('127.0.0.1'), ip('ff00::1')].exists(x, x.isGlobalUnicast())", false],
  ["ip('10.0.0.1').family() + ip('::').family()", 10],
  ["string(ip('2001:DB8:0:0::1'))", "2001:db8::1"],
  ["ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')", true],
  ["isIP('127.0.0.256') || isIP('::ffff:1.2.3.4') || isIP('fe80::1%eth0') || isIP('01.2.3.4') || isIP(':::1')", false],
  ["ip('1.2.3')", expect.stringContaining('! IP Address "1.2.3" parse error')],
  ["cidr('192.168.1.7/16').masked() == cidr('192.168.0.0/16') && cidr('10.0.0.1/8').ip() == ip('10.0.0.1')", true],
  ["cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('::1'))", true],
  ["cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR('10.0.0.0/8')", true],
  ["string(cidr('::1/128')) + string(cidr('10.0.0.0/8').prefixLength())", "::1/1288"],
  ["isCIDR('10.0.0.0/33') || isCIDR('10.0.0.0/08') || isCIDR('::ffff:1.2.3.0/120')", false],
  ["quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('200M').compareTo(quantity('0.2G')) == 0", true],
  ["quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').sub(20000).asInteger() == 30000", true],
  ["quantity('50k').add(20).sub(quantity('100k')).sub(-50000) == quantity('20')", true],
  ["quantity('1.5').isInteger() || quantity('9999999999999999999999999999999999999G').isInteger()", false],
  ["quantity('1.5').asApproximateFloat()", "double 1.5"],
  ["quantity('100m').asInteger()", "! cannot convert value to integer"],
  ["isQuantity('200K') || isQuantity('Mi') || isQuantity('1,3G')", false],
  ["quantity('Three')", expect.stringContaining("! quantities must match")],
  ["quantity('-1').sign()", -1],
  ["format.dns1123Label().validate('a-b').hasValue() || format.dns1123LabelPrefix().validate('a-').hasValue()", false],
  ["format.named('uuid').value().validate('x').value()", ["does not match the UUID format"]],
  ["format.named('nothing').hasValue()", false],
];
test.each(libraries)("library %s", (text, result) => expect(run(text)).toEqual(result));

const typeNames: Cases = [
  ["type(i) == int && type(s) == string && type(d.half) == double && type(null) == null_type", true],
  ["type(type(1)) == type && type(l) == list && type(m) == map && type(d) == map", true],
  ["type(timestamp('2024-01-01T00:00:00Z')) == google.protobuf.Timestamp", true],
  ["type(ip('::1')) == net.IP && type(quantity('1')) == kubernetes.Quantity", true],
  ["type(d.name) == string ? 'text' : 'other'", "text"],
];
test.each(typeNames)("type %s", (text, result) => expect(run(text)).toEqual(result));

test.each([
  ["s.foo", "ERROR: <input>:1:2: type 'string' does not support field selection\n | s.foo\n | .^"],
  ["i == s", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'\n | i == s\n | ..^"],
  ["nope + 1", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope + 1\n | ^"],
  ["i.nope()", "ERROR: <input>:1:7: undeclared reference to 'nope' (in container '')\n | i.nope()\n | ......^"],
  [
    "\n  s.startsWith(i)",
    "ERROR: <input>:2:15: found no matching overload for 'startsWith' applied to 'string.(int)'\n |   s.startsWith(i)\n | ..............^",
  ],
  ["[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"],
  [
    "l.all(x, x)",
    "ERROR: <input>:1:6: found no matching overload for '_&&_' applied to '(bool, int)'\n | l.all(x, x)\n | .....^",
  ],
  [
    "i.all(x, true)",
    "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | i.all(x, true)\n | ^",
  ],
  ["l.all(x.y, true)", "ERROR: <input>:1:8: argument must be a simple name\n | l.all(x.y, true)\n | .......^"],
  ["has(i)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(i)\n | ....^"],
  ["s.matches('[')", "ERROR: <input>:1:11: invalid matches argument\n | s.matches('[')\n | ..........^"],
  [
    "duration('1x') > duration('1s')",
    "ERROR: <input>:1:10: invalid duration argument\n | duration('1x') > duration('1s')\n | .........^",
  ],
  ["for", "ERROR: <input>:1:1: reserved identifier: for\n | for\n | ^"],
])("%j does not compile", (text, problem) => {
  expect(bad(text)).toBe(problem);
});

test.each([
  "1 +",
  "(1",
  "[1",
  "{1}",
  "a b",
  "'abc",
  "1 ? 2",
  "i.in",
  "'\\q'",
  "'\\ud800'",
  "@",
  "9223372036854775808",
  "1.e",
  "i = 2",
])("%s is no expression", (text) => {
  expect(bad(text)).toContain("ERROR: <input>:");
});

test("all that is wrong is said, in the order of the text", () => {
  expect(bad("a + b1 == s.c")).toBe(
    "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a + b1 == s.c\n | ^\n" +
      "ERROR: <input>:1:5: undeclared reference to 'b1' (in container '')\n | a + b1 == s.c\n | ....^\n" +
      "ERROR: <input>:1:12: type 'string' does not support field selection\n | a + b1 == s.c\n | ...........^",
  );
});

test("nesting, height and length of expressions are bounded", () => {
  const limit = "ERROR: <input>:-1:0: expression recursion limit exceeded: 250";
  expect(bad(`${"(".repeat(300)}1${")".repeat(300)}`)).toBe(limit);
  expect(bad(`1${" + 1".repeat(5000)}`)).toBe(limit);
  expect(bad(`d${".a".repeat(5000)}`)).toBe(limit);
  expect(bad("!".repeat(50_000))).toContain("Syntax error");
  expect(bad("1".repeat(100_001))).toContain("expression code point size exceeds limit: size: 100001, limit 100000");
  expect(run(`b${" && b".repeat(3000)}`)).toBe(true);
});

test("types are bounded: each step here doubles one", () => {
  const step = (count: number): string => `[1]${".map(x, {x: x})".repeat(count)} == []`;
  expect(bad(step(5))).toBe("compiles");
  expect(bad(step(60))).toBe("ERROR: <input>:-1:0: types of the expression are too large");
  const optional = `optional.of([])${".optMap(x, {x: x})".repeat(60)}.hasValue()`;
  expect(bad(optional)).toContain("too large");
});

test("walks of shared values are bounded", () => {
  const tower = (count: number): string => `[['']]${".map(x, [x, x])".repeat(count)}`;
  expect(run(`${tower(10)} == ${tower(10)}`)).toBe(true);
  expect(run(`${tower(40)} == ${tower(40)}`)).toBe("! comparison too large");
  expect(run(`${tower(40)}.indexOf(dyn([]))`)).toBe("! operation cancelled: actual cost limit exceeded");
  expect(run(`'%s'.format(${tower(40)})`)).toBe("! result too large");
});

test("memory is bounded, whatever the cost says", () => {
  const hundred = `'${"a".repeat(100)}'`;
  const grown = Array.from({ length: 5 }).reduce<string>((inner) => `${inner}.replace('', ${hundred})`, "'a'");
  expect(run(grown)).toBe("! result too large");
});

test("an evaluation ends at its limit, and nothing absorbs that", () => {
  const loop = program("l.all(a, l.all(b, l.all(c, true))) || true");
  const { cost } = loop.evaluate(values);
  expect(loop.evaluate(values, cost).error).toBeUndefined();
  expect(loop.evaluate(values, cost - 1)).toMatchObject({
    error: "operation cancelled: actual cost limit exceeded",
    isOverLimit: true,
  });
});

test("variables are asked for only where they are read, and may be absent", () => {
  let asked = 0;
  const given = {
    i: () => {
      asked++;
      return 1;
    },
  };
  expect(program("i + i").evaluate(given).value).toBe(2);
  expect(program("s == ''").evaluate(given).error).toBe("no such attribute(s): s");
  expect(asked).toBe(1);
});

test("keys cannot reach prototypes", () => {
  expect(run("has(d.constructor) || has(m.__proto__) || 'toString' in m")).toBe(false);
  expect(run("d.constructor")).toBe("! no such key: constructor");
  expect(run("{'__proto__': 1}['__proto__']")).toBe(1);
});

test("an environment of policies: objects without a schema, variables on demand, functions of their own", () => {
  const evaluated: string[] = [];
  class Lazy extends MapValue {
    readonly size = 1;
    find(key: Value): Value | undefined {
      evaluated.push(String(key));
      return key === "replicas" ? 3 : undefined;
    }
    keys(): Value[] {
      return ["replicas"];
    }
  }
  const given = {
    object: {
      metadata: { name: "a", labels: { "x/y": "z" } },
      spec: { replicas: 3, containers: [{ image: "r/i:1" }] },
    },
    oldObject: null,
    request: { operation: "CREATE", userInfo: { groups: ["a", "b"] } },
    params: { max: 5 },
    variables: new Lazy(),
  };
  const environment = new Map<string, CelType>([
    ...["object", "oldObject", "request", "params"].map((name) => [name, dynType] as const),
    ["variables", objectType("variables", new Map([["replicas", intType]]))],
  ]);
  const own = tableOf([["allowed", "is_allowed: (string) -> bool", (_run, a) => a === "get"]]);
  const evaluate = (text: string): unknown => {
    const compiled = compileExpression({ text, variables: environment, functions: own });
    if ("problem" in compiled) return compiled.problem;
    const outcome = compiled.program.evaluate(given);
    return outcome.error ?? outcome.value;
  };
  expect(evaluate("object.spec.replicas <= params.max && oldObject == null")).toBe(true);
  expect(evaluate("object.metadata.labels['x/y'] == 'z' && !has(object.metadata.annotations)")).toBe(true);
  expect(evaluate("object.spec.containers.all(c, c.image.startsWith('r/')) && 'b' in request.userInfo.groups")).toBe(
    true,
  );
  expect(evaluate("oldObject.spec.replicas > 1")).toContain("no such overload");
  expect(evaluate("request.operation != 'CREATE' || variables.replicas == 3")).toBe(true);
  expect(evaluate("request.operation == 'CREATE' || variables.replicas == 3")).toBe(true);
  expect(evaluated).toEqual(["replicas"]);
  expect(evaluate("variables.other")).toContain("undefined field 'other'");
  expect(evaluate("allowed('get') && !allowed('put')")).toBe(true);
});
