// The string extensions (version 2: with format and quote), the lists library, sets and regular expressions.
// Positions in strings are code points. Upstream counterpart: cel-go ext/{strings,formatting,sets}.go,
// apiserver/pkg/cel/library/{lists,regex}.go.

import type { Evaluation } from "./evaluation.ts";
import { type CallCost, type Declaration, type Implementation, regexCost, scan, scanTwice } from "./overloads.ts";
import {
  bytesToString,
  durationOf,
  formatDouble,
  formatDuration,
  formatTimestamp,
  isPlainText,
  pointsOf,
  quote,
  toText,
} from "./text.ts";
import {
  addInts,
  Bytes,
  codePoints,
  compare,
  costSize,
  Double,
  Duration,
  equals,
  Failure,
  type Int,
  isInt,
  ListValue,
  MapValue,
  NativeList,
  Timestamp,
  TypeValue,
  typeNameOf,
  Uint,
  uintOf,
  type Value,
} from "./values.ts";

const outOfRange = (index: Int): Failure => new Failure(`index out of range: ${index}`);
const position = (value: Value): number => Number(value as Int);
/** Of every element, and of every character where they are texts. */
const traversal: CallCost = (a) => {
  const walk = { left: maxTraversal, cost: 0 };
  weigh(a, walk);
  return walk.left < 0 ? Number.POSITIVE_INFINITY : walk.cost;
};
/** Values share their parts: what seems small may take forever to walk. More elements than this cost more than any limit. */
const maxTraversal = 5_000_000;
function weigh(value: Value, walk: { left: number; cost: number }): void {
  if (--walk.left < 0) return;
  if (typeof value === "string" || value instanceof Bytes) walk.cost += Math.floor(costSize(value) * 0.1);
  else if (value instanceof ListValue) {
    for (let i = 0; i < value.size && walk.left >= 0; i++) weigh(value.at(i), walk);
  } else if (value instanceof MapValue) {
    for (const key of value.keys()) {
      weigh(key, walk);
      weigh(value.find(key) ?? null, walk);
    }
  } else walk.cost += 1;
}

// Strings

function textsOf(run: Evaluation, list: ListValue, separator: string): string[] {
  const parts: string[] = [];
  for (let i = 0; i < list.size; i++) {
    const part = list.at(i);
    if (typeof part !== "string") throw new Failure("no such overload: join(list)");
    run.allocate(part.length + separator.length + 1);
    parts.push(part);
  }
  return parts;
}

function replace(run: Evaluation, text: string, from: string, to: string, limit: number): string {
  if (limit === 0 || from === to) return text;
  const pieces = from === "" ? [...text] : undefined;
  if (pieces) {
    // Between all characters, and at both ends.
    const count = limit < 0 ? pieces.length + 1 : Math.min(limit, pieces.length + 1);
    run.allocate(text.length + count * to.length);
    let out = "";
    for (let i = 0; i <= pieces.length; i++) out += (i < count ? to : "") + (pieces[i] ?? "");
    return out;
  }
  const parts: string[] = [];
  let start = 0;
  let grown = 0;
  while (limit < 0 || parts.length < limit) {
    const found = text.indexOf(from, start);
    if (found < 0) break;
    grown += to.length + (found - start);
    if (grown > 65_536) {
      run.allocate(grown);
      grown = 0;
    }
    parts.push(text.slice(start, found));
    start = found + from.length;
  }
  run.allocate(grown + text.length - start);
  parts.push(text.slice(start));
  return parts.join(to);
}

function split(run: Evaluation, text: string, separator: string, limit: number): ListValue {
  if (limit === 0) return new NativeList([]);
  if (limit === 1) return new NativeList([text]);
  run.allocate(text.length);
  const all = separator === "" && !isPlainText(text) ? [...text] : text.split(separator);
  if (limit < 0 || all.length <= limit) return new NativeList(all);
  return new NativeList([...all.slice(0, limit - 1), all.slice(limit - 1).join(separator)]);
}

const asciiCase = (form: RegExp, shift: (text: string) => string): Implementation => {
  return (run, a) => {
    run.allocate((a as string).length);
    return (a as string).replace(form, shift);
  };
};
// White space as Unicode has it, without the byte order mark that JavaScript adds.
const isSpace = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;
/** By hand from the end: a regular expression with `+$` tries every run of blanks inside. */
function trim(text: string): string {
  let end = text.length;
  while (end > 0 && isSpace.test(text[end - 1]!)) end--;
  let start = 0;
  while (start < end && isSpace.test(text[start]!)) start++;
  return text.slice(start, end);
}

const strings: readonly Declaration[] = [
  [
    "charAt",
    "string_char_at_int: string.(int) -> string",
    (_run, a, b) => {
      const points = pointsOf(a as string);
      const index = position(b);
      if (index < 0 || index > points.length) throw outOfRange(b as Int);
      return points.slice(index, index + 1);
    },
  ],
  [
    "indexOf",
    ["string_index_of_string: string.(string) -> int", "string_index_of_string_int: string.(string, int) -> int"],
    (_run, a, b, c) => {
      const from = isInt(c) ? position(c) : 0;
      if (b === "") {
        if (from < 0) throw outOfRange(c as Int);
        return from;
      }
      const points = pointsOf(a as string);
      if (from < 0) throw outOfRange(c as Int);
      return from >= points.length ? -1 : points.indexOf(b as string, from);
    },
    traversal,
  ],
  [
    "lastIndexOf",
    [
      "string_last_index_of_string: string.(string) -> int",
      "string_last_index_of_string_int: string.(string, int) -> int",
    ],
    (_run, a, b, c) => {
      const points = pointsOf(a as string);
      const last = points.length - codePoints(b as string);
      const from = isInt(c) ? position(c) : last;
      if (isInt(c) && from < 0) throw outOfRange(c);
      if (b === "") return isInt(c) ? Math.min(from, points.length) : points.length;
      if (last < 0) return -1;
      return points.lastIndexOf(b as string, Math.min(from, last));
    },
    traversal,
  ],
  [
    "join",
    ["list_join: list(string).() -> string", "list_join_string: list(string).(string) -> string"],
    (run, a, b) => {
      const separator = typeof b === "string" ? b : "";
      return textsOf(run, a as ListValue, separator).join(separator);
    },
    (_a, _b, result) => Math.ceil(costSize(result) * 0.2),
  ],
  ["lowerAscii", "string_lower_ascii: string.() -> string", asciiCase(/[A-Z]+/g, (text) => text.toLowerCase()), scan],
  ["upperAscii", "string_upper_ascii: string.() -> string", asciiCase(/[a-z]+/g, (text) => text.toUpperCase()), scan],
  [
    "replace",
    [
      "string_replace_string_string: string.(string, string) -> string",
      "string_replace_string_string_int: string.(string, string, int) -> string",
    ],
    (run, a, b, c, d) => replace(run, a as string, b as string, c as string, isInt(d) ? position(d) : -1),
    scanTwice,
  ],
  [
    "split",
    [
      "string_split_string: string.(string) -> list(string)",
      "string_split_string_int: string.(string, int) -> list(string)",
    ],
    (run, a, b, c) => split(run, a as string, b as string, isInt(c) ? position(c) : -1),
    scanTwice,
  ],
  [
    "substring",
    ["string_substring_int: string.(int) -> string", "string_substring_int_int: string.(int, int) -> string"],
    (_run, a, b, c) => {
      const points = pointsOf(a as string);
      const start = position(b);
      if (!isInt(c)) {
        if (start < 0 || start > points.length) throw outOfRange(b as Int);
        return points.slice(start, points.length);
      }
      const end = position(c);
      if (start > end) throw new Failure(`invalid substring range. start: ${start}, end: ${end}`);
      if (start < 0 || start > points.length) throw outOfRange(start);
      if (end < 0 || end > points.length) throw outOfRange(end);
      return points.slice(start, end);
    },
    scan,
  ],
  ["trim", "string_trim: string.() -> string", (_run, a) => trim(a as string), scan],
  [
    "strings.quote",
    "strings_quote: (string) -> string",
    (run, a) => {
      run.allocate(2 * (a as string).length + 2);
      return quoteForCel(a as string);
    },
    scan,
  ],
  [
    "format",
    "string_format: string.(list(dyn)) -> string",
    (run, a, b) => format(run, a as string, b as ListValue),
    scan,
  ],
];

/** strings.quote escapes less than %q: what can be printed, and what cannot, stays. */
function quoteForCel(text: string): string {
  return `"${text.replace(/[\p{Cc}\\"]/gu, (point) => quote(point).slice(1, -1))}"`;
}

// format

const maxPrecision = 1000;
function format(run: Evaluation, pattern: string, args: ListValue): string {
  let out = "";
  let next = 0;
  const add = (text: string): void => {
    run.allocate(text.length);
    out += text;
  };
  for (let at = 0; at < pattern.length; ) {
    const percent = pattern.indexOf("%", at);
    if (percent < 0) {
      add(pattern.slice(at));
      break;
    }
    add(pattern.slice(at, percent));
    if (pattern[percent + 1] === "%") {
      add("%");
      at = percent + 2;
      continue;
    }
    const clause = /^(?:\.(\d{1,9}))?([a-zA-Z])?/.exec(pattern.slice(percent + 1, percent + 12));
    const verb = clause?.[2];
    if (percent + 1 >= pattern.length) throw new Failure("could not parse formatting clause: unexpected end of string");
    if (verb === undefined) {
      throw new Failure(`could not parse formatting clause: unrecognized formatting clause "${pattern[percent + 1]}"`);
    }
    if (next >= args.size) throw new Failure(`index ${next} out of range`);
    const precision = clause?.[1] === undefined ? undefined : Number(clause[1]);
    if (precision !== undefined && precision > maxPrecision)
      throw new Failure("error during formatting: precision is too large");
    add(formatOne(run, args.at(next), verb, precision));
    next++;
    at = percent + 1 + clause![0].length;
  }
  return out;
}

const noClause = (verb: string, value: Value, takes: string): Failure =>
  new Failure(`error during formatting: ${verb} clause can only be used on ${takes}, was given ${typeNameOf(value)}`);

function formatOne(run: Evaluation, value: Value, verb: string, precision: number | undefined): string {
  switch (verb) {
    case "s":
      return formatValue(run, value);
    case "d":
      if (isInt(value)) return String(value);
      if (value instanceof Uint) return String(value.value);
      throw noClause("decimal", value, "integers");
    case "f":
      return formatFixed(floatOf(value, "fixed-point"), precision ?? 6);
    case "e":
      return formatScientific(floatOf(value, "scientific"), precision ?? 6);
    case "b":
      if (typeof value === "boolean") return value ? "1" : "0";
      return radix(value, 2, "only integers and bools can be formatted as binary");
    case "o":
      return radix(value, 8, "octal clause can only be used on integers");
    case "x":
    case "X": {
      const text =
        typeof value === "string"
          ? hex(new TextEncoder().encode(value))
          : value instanceof Bytes
            ? hex(value.data)
            : radix(value, 16, "only integers, byte buffers, and strings can be formatted as hex");
      return verb === "X" ? text.toUpperCase() : text;
    }
    default:
      throw new Failure(`could not parse formatting clause: unrecognized formatting clause "${verb}"`);
  }
}
function floatOf(value: Value, what: string): number {
  if (value instanceof Double) return value.value;
  if (value === "NaN") return Number.NaN;
  if (value === "Infinity") return Number.POSITIVE_INFINITY;
  if (value === "-Infinity") return Number.NEGATIVE_INFINITY;
  throw noClause(what, value, "doubles");
}
/** Infinity has the sign that the message printer of Go's text library gives it. */
const special = (value: number): string | undefined =>
  Number.isNaN(value) ? "NaN" : Number.isFinite(value) ? undefined : value > 0 ? "\u221e" : "-\u221e";
function formatFixed(value: number, precision: number): string {
  return special(value) ?? grouped(value.toFixed(Math.min(precision, 100)).padEnd(0));
}
/** The printer of en-US groups digits. */
function grouped(text: string): string {
  const [whole = "", fraction] = text.split(".");
  const digits = whole.replace(/\B(?=(?:\d{3})+$)/g, ",");
  return fraction === undefined ? digits : `${digits}.${fraction}`;
}
function formatScientific(value: number, precision: number): string {
  const exact = special(value);
  if (exact !== undefined) return exact;
  const [mantissa, exponent = "+0"] = value.toExponential(Math.min(precision, 100)).split("e");
  const power = Number(exponent);
  return `${mantissa}\u202f\u00d7\u202f10${superscript(power)}`;
}
const superscript = (power: number): string =>
  (power < 0 ? "\u207b" : "") +
  String(Math.abs(power))
    .padStart(2, "0")
    .replace(/\d/g, (digit) => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[Number(digit)]!);
function radix(value: Value, base: number, why: string): string {
  if (isInt(value)) return value.toString(base);
  if (value instanceof Uint) return value.value.toString(base);
  throw new Failure(`error during formatting: ${why}, was given ${typeNameOf(value)}`);
}
const hex = (data: Uint8Array): string => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

function formatValue(run: Evaluation, value: Value): string {
  if (value === null) return "null";
  if (value instanceof ListValue) return formatList(run, value);
  if (value instanceof MapValue) return formatMap(run, value);
  const text = toText(value);
  if (text !== undefined) return text;
  throw new Failure(
    `error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given ${typeNameOf(value)}`,
  );
}
function formatList(run: Evaluation, list: ListValue): string {
  const parts: string[] = [];
  for (let i = 0; i < list.size; i++) parts.push(formatMember(run, list.at(i)));
  return `[${parts.join(", ")}]`;
}
function formatMap(run: Evaluation, map: MapValue): string {
  const pairs = map.keys().map((key) => [formatMember(run, key), formatMember(run, map.find(key) ?? null)] as const);
  pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return `{${pairs.map(([key, value]) => `${key}:${value}`).join(", ")}}`;
}
/** Inside of lists and maps values look like literals. */
function formatMember(run: Evaluation, value: Value): string {
  const text = literalOf(run, value);
  run.allocate(text.length);
  return text;
}
function literalOf(run: Evaluation, value: Value): string {
  if (typeof value === "string") return quote(value);
  if (value instanceof Bytes) return `b${quote(bytesToString(value.data))}`;
  if (value instanceof Double)
    return Number.isFinite(value.value) ? value.value.toFixed(6) : quote(formatDouble(value.value));
  if (value instanceof Timestamp) return `timestamp(${quote(formatTimestamp(value))})`;
  if (value instanceof Duration) return `duration(${quote(formatDuration(value))})`;
  if (value instanceof TypeValue) return value.name;
  return formatValue(run, value);
}

// Lists

const extreme = (name: string, isBetter: (order: number) => boolean): Implementation => {
  return (_run, a) => {
    const list = a as ListValue;
    if (list.size === 0) throw new Failure(`${name} called on empty list`);
    let best = list.at(0);
    for (let i = 1; i < list.size; i++) {
      const order = compare(list.at(i), best);
      if (order !== undefined && isBetter(order)) best = list.at(i);
    }
    return best;
  };
};
const comparable = ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];
const overEach = (name: string, types: readonly string[], result: (type: string) => string): string[] =>
  types.map((type) => `list_${type}_${name}: list(${type}).() -> ${result(type)}`);
/** What an empty list sums up to depends on its type, which only the overload knows. */
const sumOf = (type: string, zero: Value): Declaration => [
  "sum",
  `list_${type}_sum: list(${type}).() -> ${type}`,
  (_run, a) => {
    const list = a as ListValue;
    if (list.size === 0) return zero;
    let sum = list.at(0);
    for (let i = 1; i < list.size; i++) sum = plus(sum, list.at(i));
    return sum;
  },
  traversal,
];
function plus(a: Value, b: Value): Value {
  if (isInt(a) && isInt(b)) return addInts(a, b);
  if (a instanceof Double && b instanceof Double) return new Double(a.value + b.value);
  if (a instanceof Uint && b instanceof Uint) return uintOf(a.value + b.value);
  if (a instanceof Duration && b instanceof Duration) return durationOf(a.nanos + b.nanos);
  throw new Failure(`no such overload: _+_(${typeNameOf(a)}, ${typeNameOf(b)})`);
}

const lists: readonly Declaration[] = [
  [
    "isSorted",
    overEach("is_sorted", comparable, () => "bool"),
    (_run, a) => {
      const list = a as ListValue;
      for (let i = 1; i < list.size; i++) if (compare(list.at(i - 1), list.at(i)) === 1) return false;
      return true;
    },
    traversal,
  ],
  sumOf("int", 0),
  sumOf("uint", new Uint(0n)),
  sumOf("double", new Double(0)),
  sumOf("duration", new Duration(0n)),
  ["min", overEach("min", comparable, (type) => type), extreme("min", (order) => order < 0), traversal],
  ["max", overEach("max", comparable, (type) => type), extreme("max", (order) => order > 0), traversal],
  [
    "indexOf",
    "list_a_index_of_int: list(A).(A) -> int",
    (run, a, b) => {
      const list = a as ListValue;
      for (let i = 0; i < list.size; i++) if (equals(list.at(i), b, run)) return i;
      return -1;
    },
    traversal,
  ],
  [
    "lastIndexOf",
    "list_a_last_index_of_int: list(A).(A) -> int",
    (run, a, b) => {
      const list = a as ListValue;
      for (let i = list.size - 1; i >= 0; i--) if (equals(list.at(i), b, run)) return i;
      return -1;
    },
    traversal,
  ],
];

// Sets

function contains(run: Evaluation, list: ListValue, value: Value): boolean {
  for (let i = 0; i < list.size; i++) if (equals(list.at(i), value, run)) return true;
  return false;
}
function containsAll(run: Evaluation, list: ListValue, part: ListValue): boolean {
  for (let i = 0; i < part.size; i++) if (!contains(run, list, part.at(i))) return false;
  return true;
}
const setCost =
  (factor: number): CallCost =>
  (a, b) =>
    1 + Math.ceil(costSize(a) * costSize(b) * factor);
const sets: readonly Declaration[] = [
  [
    "sets.contains",
    "list_sets_contains_list: (list(T), list(T)) -> bool",
    (run, a, b) => containsAll(run, a as ListValue, b as ListValue),
    setCost(1),
  ],
  [
    "sets.equivalent",
    "list_sets_equivalent_list: (list(T), list(T)) -> bool",
    (run, a, b) => containsAll(run, a as ListValue, b as ListValue) && containsAll(run, b as ListValue, a as ListValue),
    setCost(2),
  ],
  [
    "sets.intersects",
    "list_sets_intersects_list: (list(T), list(T)) -> bool",
    (run, a, b) => {
      const list = a as ListValue;
      for (let i = 0; i < list.size; i++) if (contains(run, b as ListValue, list.at(i))) return true;
      return false;
    },
    setCost(1),
  ],
];

// Regular expressions

const regexes: readonly Declaration[] = [
  [
    "find",
    "string_find_string: string.(string) -> string",
    (run, a, b) => run.pattern(b as string).all(a as string, 1, run.effort)[0] ?? "",
    regexCost,
  ],
  [
    "findAll",
    [
      "string_find_all_string: string.(string) -> list(string)",
      "string_find_all_string_int: string.(string, int) -> list(string)",
    ],
    (run, a, b, c) => {
      run.allocate((a as string).length);
      const limit = isInt(c) ? position(c) : -1;
      const found = run.pattern(b as string).all(a as string, limit < 0 ? Number.POSITIVE_INFINITY : limit, run.effort);
      return new NativeList(found);
    },
    regexCost,
  ],
];

export const stringLibrary: readonly Declaration[] = [...strings, ...lists, ...sets, ...regexes];
