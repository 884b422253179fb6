// The functions of the CEL specification, optional values included. Operators that do not evaluate all of their
// operands (&& || ?: and macros) are the compiler's. Upstream counterpart: cel-go common/stdlib, cel/library.go.

import {
  type Declaration,
  type Implementation,
  regexCost,
  scan,
  scanBoth,
  scanProduct,
  scanShorter,
} from "./overloads.ts";
import { durationOf, parseDuration, parseTimestamp, splitTime, timestampOf, toText } from "./text.ts";
import {
  addInts,
  Bytes,
  codePoints,
  compare,
  Double,
  Duration,
  divideInts,
  equals,
  Failure,
  type Int,
  intOf,
  isInt,
  ListValue,
  MapValue,
  moduloInts,
  multiplyInts,
  Optional,
  printKey,
  subtractInts,
  Timestamp,
  TypeValue,
  typeNameOf,
  Uint,
  uintOf,
  type Value,
} from "./values.ts";

// Arithmetic

const arithmetic = (
  ints: (a: Int, b: Int) => Int,
  doubles: (a: number, b: number) => number,
  uints: (a: bigint, b: bigint) => bigint,
): Implementation => {
  return (_run, a, b) => {
    if (isInt(a)) return ints(a, b as Int);
    if (a instanceof Double) return new Double(doubles(a.value, (b as Double).value));
    return uintOf(uints((a as Uint).value, (b as Uint).value));
  };
};
const notZero = (value: bigint, what: string): bigint => {
  if (value === 0n) throw new Failure(`${what} by zero`);
  return value;
};
const numbers = (name: string, isModulo = false): string[] =>
  (isModulo ? ["int", "uint"] : ["int", "double", "uint"]).map(
    (type) => `${name}_${type}: (${type}, ${type}) -> ${type}`,
  );

const addTime: Implementation = (_run, a, b) => {
  if (a instanceof Duration && b instanceof Duration) return durationOf(a.nanos + b.nanos);
  return timestampOf((a as Timestamp | Duration).nanos + (b as Timestamp | Duration).nanos);
};
const subtractTime: Implementation = (_run, a, b) => {
  if (a instanceof Timestamp && b instanceof Duration) return timestampOf(a.nanos - b.nanos);
  return durationOf((a as Timestamp | Duration).nanos - (b as Timestamp | Duration).nanos);
};

const ordered = ["bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration"];
const crossed = ["int, uint", "int, double", "uint, int", "uint, double", "double, int", "double, uint"];
const comparison = (name: string, symbol: string, holds: (order: number) => boolean): Declaration[] => {
  const call: Implementation = (_run, a, b) => {
    const order = compare(a, b);
    return order !== undefined && holds(order);
  };
  const of = (types: string): string => `${name}_${types.replace(", ", "_")}: (${types}) -> bool`;
  const isText = (type: string): boolean => type === "string" || type === "bytes";
  return [
    [
      symbol,
      [...ordered.filter((type) => !isText(type)).map((type) => of(`${type}, ${type}`)), ...crossed.map(of)],
      call,
    ],
    [symbol, ordered.filter(isText).map((type) => of(`${type}, ${type}`)), call, scanShorter],
  ];
};

const operators: readonly Declaration[] = [
  [
    "_+_",
    numbers("add"),
    arithmetic(
      addInts,
      (a, b) => a + b,
      (a, b) => a + b,
    ),
  ],
  [
    "_-_",
    numbers("subtract"),
    arithmetic(
      subtractInts,
      (a, b) => a - b,
      (a, b) => a - b,
    ),
  ],
  [
    "_*_",
    numbers("multiply"),
    arithmetic(
      multiplyInts,
      (a, b) => a * b,
      (a, b) => a * b,
    ),
  ],
  [
    "_/_",
    numbers("divide"),
    arithmetic(
      divideInts,
      (a, b) => a / b,
      (a, b) => a / notZero(b, "division"),
    ),
  ],
  [
    "_%_",
    numbers("modulo", true),
    arithmetic(
      moduloInts,
      (a, b) => a % b,
      (a, b) => a % notZero(b, "modulus"),
    ),
  ],
  [
    "_+_",
    "add_string: (string, string) -> string",
    (run, a, b) => {
      run.allocate((a as string).length + (b as string).length);
      return (a as string) + (b as string);
    },
    scanBoth,
  ],
  [
    "_+_",
    "add_bytes: (bytes, bytes) -> bytes",
    (run, a, b) => {
      const [left, right] = [(a as Bytes).data, (b as Bytes).data];
      run.allocate(left.length + right.length);
      const joined = new Uint8Array(left.length + right.length);
      joined.set(left);
      joined.set(right, left.length);
      return new Bytes(joined);
    },
    scanBoth,
  ],
  [
    "_+_",
    "add_list: (list(A), list(A)) -> list(A)",
    (run, a, b) => {
      run.allocate((a as ListValue).size + (b as ListValue).size);
      return (a as ListValue).concat(b as ListValue);
    },
  ],
  [
    "_+_",
    [
      "add_duration_duration: (duration, duration) -> duration",
      "add_duration_timestamp: (duration, timestamp) -> timestamp",
      "add_timestamp_duration: (timestamp, duration) -> timestamp",
    ],
    addTime,
  ],
  [
    "_-_",
    [
      "subtract_duration_duration: (duration, duration) -> duration",
      "subtract_timestamp_duration: (timestamp, duration) -> timestamp",
      "subtract_timestamp_timestamp: (timestamp, timestamp) -> duration",
    ],
    subtractTime,
  ],
  [
    "-_",
    ["negate_int: (int) -> int", "negate_double: (double) -> double"],
    (_run, a) => (a instanceof Double ? new Double(-a.value) : subtractInts(0, a as Int)),
  ],
  ["!_", "logical_not: (bool) -> bool", (_run, a) => !a],
  ["_==_", "equals: (A, A) -> bool", (run, a, b) => equals(a, b, run), scanShorter],
  ["_!=_", "not_equals: (A, A) -> bool", (run, a, b) => !equals(a, b, run), scanShorter],
  ...comparison("less", "_<_", (order) => order < 0),
  ...comparison("less_equals", "_<=_", (order) => order <= 0),
  ...comparison("greater", "_>_", (order) => order > 0),
  ...comparison("greater_equals", "_>=_", (order) => order >= 0),
  [
    "@in",
    "in_list: (A, list(A)) -> bool",
    (run, a, b) => {
      const list = b as ListValue;
      for (let i = 0; i < list.size; i++) if (equals(list.at(i), a, run)) return true;
      return false;
    },
    (_a, b) => (b as ListValue).size,
  ],
  ["@in", "in_map: (A, map(A, B)) -> bool", (_run, a, b) => (b as MapValue).has(a)],
  [
    "_[_]",
    ["index_list: (list(A), int) -> A", "index_map: (map(A, B), A) -> B"],
    (_run, a, b) => indexed(a as ListValue | MapValue, b),
  ],
  [
    "_[_]",
    [
      "optional_list_index_int: (optional(list(V)), int) -> optional(V)",
      "optional_map_index_value: (optional(map(K, V)), K) -> optional(V)",
    ],
    (_run, a, b) => optionalIndex((a as Optional).value, b),
  ],
  [
    "_[?_]",
    [
      "list_optindex_optional_int: (list(V), int) -> optional(V)",
      "map_optindex_optional_value: (map(K, V), K) -> optional(V)",
    ],
    (_run, a, b) => optionalIndex(a, b),
  ],
  [
    "_[?_]",
    [
      "optional_list_optindex_optional_int: (optional(list(V)), int) -> optional(V)",
      "optional_map_optindex_optional_value: (optional(map(K, V)), K) -> optional(V)",
    ],
    (_run, a, b) => optionalIndex((a as Optional).value, b),
  ],
];

function indexed(container: ListValue | MapValue, key: Value): Value {
  if (container instanceof MapValue) {
    const found = container.find(key);
    if (found === undefined) throw new Failure(`no such key: ${printKey(key)}`);
    return found;
  }
  const index = listIndex(key);
  if (index < 0 || index >= container.size) throw new Failure(`index out of bounds: ${printKey(key)}`);
  return container.at(index);
}
function listIndex(key: Value): number {
  if (isInt(key)) return Number(key);
  if (key instanceof Uint) return Number(key.value);
  if (key instanceof Double && Number.isInteger(key.value)) return key.value;
  throw new Failure(`unsupported index type '${typeNameOf(key)}' in list`);
}
function optionalIndex(container: Value | undefined, key: Value): Optional {
  if (container instanceof MapValue) return optional(container.find(key));
  if (!(container instanceof ListValue)) return Optional.none;
  const index = listIndex(key);
  return index >= 0 && index < container.size ? optional(container.at(index)) : Optional.none;
}
const optional = (value: Value | undefined): Optional => (value === undefined ? Optional.none : new Optional(value));

// Texts

const size: Implementation = (_run, a) => {
  if (typeof a === "string") return codePoints(a);
  return a instanceof Bytes ? a.data.length : (a as ListValue | MapValue).size;
};
const texts: readonly Declaration[] = [
  [
    "size",
    [
      "size_string: (string) -> int",
      "size_bytes: (bytes) -> int",
      "size_list: (list(A)) -> int",
      "size_map: (map(A, B)) -> int",
      "string_size: string.() -> int",
      "bytes_size: bytes.() -> int",
      "list_size: list(A).() -> int",
      "map_size: map(A, B).() -> int",
    ],
    size,
  ],
  [
    "contains",
    "contains_string: string.(string) -> bool",
    (_run, a, b) => (a as string).includes(b as string),
    scanProduct,
  ],
  [
    "startsWith",
    "starts_with_string: string.(string) -> bool",
    (_run, a, b) => (a as string).startsWith(b as string),
    scan,
  ],
  ["endsWith", "ends_with_string: string.(string) -> bool", (_run, a, b) => (a as string).endsWith(b as string), scan],
  [
    "matches",
    ["matches: (string, string) -> bool", "matches_string: string.(string) -> bool"],
    (run, a, b) => run.pattern(b as string).finds(a as string, run.effort),
    regexCost,
  ],
];

// Conversions

function toInt(value: Value): Int {
  if (isInt(value)) return value;
  if (value instanceof Uint) return intOf(value.value);
  if (value instanceof Double) {
    // Doubles at the very ends are out: what they were before rounding is not known.
    if (!(value.value > -(2 ** 63) && value.value < 2 ** 63)) throw new Failure("integer overflow");
    return intOf(BigInt(Math.trunc(value.value)));
  }
  if (value instanceof Timestamp) return splitTime(value.nanos).seconds;
  if (value instanceof Duration) return intOf(value.nanos);
  const text = value as string;
  if (!/^[+-]?\d{1,30}$/.test(text))
    throw new Failure(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  try {
    return intOf(BigInt(text.replace(/^\+/, "")));
  } catch {
    throw new Failure(`strconv.ParseInt: parsing ${JSON.stringify(text)}: value out of range`);
  }
}
function toUint(value: Value): Uint {
  if (value instanceof Uint) return value;
  if (isInt(value)) return uintOf(BigInt(value));
  if (value instanceof Double) {
    if (!(value.value >= 0 && value.value < 2 ** 64)) throw new Failure("unsigned integer overflow");
    return uintOf(BigInt(Math.trunc(value.value)));
  }
  const text = value as string;
  if (!/^\d{1,30}$/.test(text)) throw new Failure(`strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
  return uintOf(BigInt(text));
}
function toDouble(value: Value): Double {
  if (value instanceof Double) return value;
  if (isInt(value)) return new Double(Number(value));
  if (value instanceof Uint) return new Double(Number(value.value));
  const text = value as string;
  const special = /^([+-]?)(?:inf|infinity)$/i.exec(text);
  if (special) return new Double(special[1] === "-" ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY);
  if (/^nan$/i.test(text)) return new Double(Number.NaN);
  if (text.length > 400 || !/^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(text)) {
    throw new Failure(`strconv.ParseFloat: parsing ${JSON.stringify(text)}: invalid syntax`);
  }
  return new Double(Number(text));
}
const booleans: Readonly<Record<string, boolean>> = {
  "1": true,
  t: true,
  T: true,
  true: true,
  TRUE: true,
  True: true,
  "0": false,
  f: false,
  F: false,
  false: false,
  FALSE: false,
  False: false,
};
const encoder = new TextEncoder();
const from = (to: string, types: readonly string[]): string[] =>
  types.map((type) => `${type}_to_${to}: (${type}) -> ${to}`);

const conversions: readonly Declaration[] = [
  ["int", from("int", ["int", "uint", "double", "string", "timestamp", "duration"]), (_run, a) => toInt(a)],
  ["uint", from("uint", ["uint", "int", "double", "string"]), (_run, a) => toUint(a)],
  ["double", from("double", ["double", "int", "uint", "string"]), (_run, a) => toDouble(a)],
  [
    "bool",
    from("bool", ["bool", "string"]),
    (_run, a) => {
      if (typeof a === "boolean") return a;
      const found = Object.hasOwn(booleans, a as string) ? booleans[a as string] : undefined;
      if (found === undefined) throw new Failure(`strconv.ParseBool: parsing ${JSON.stringify(a)}: invalid syntax`);
      return found;
    },
  ],
  [
    "string",
    from("string", ["string", "bool", "int", "uint", "double", "timestamp", "duration"]),
    (_run, a) => toText(a) ?? null,
  ],
  ["string", "bytes_to_string: (bytes) -> string", (_run, a) => toText(a) ?? null, scan],
  ["bytes", "bytes_to_bytes: (bytes) -> bytes", (_run, a) => a],
  ["bytes", "string_to_bytes: (string) -> bytes", (_run, a) => new Bytes(encoder.encode(a as string)), scan],
  [
    "timestamp",
    from("timestamp", ["timestamp", "string", "int"]),
    (_run, a) => {
      if (a instanceof Timestamp) return a;
      if (isInt(a)) return timestampOf(BigInt(a) * 1_000_000_000n);
      const found = parseTimestamp(a as string);
      if (found === undefined) {
        const text = JSON.stringify(a);
        throw new Failure(`parsing time ${text} as "2006-01-02T15:04:05Z07:00": cannot parse ${text} as "2006"`);
      }
      return found;
    },
  ],
  [
    "duration",
    from("duration", ["duration", "string", "int"]),
    (_run, a) => {
      if (a instanceof Duration) return a;
      if (isInt(a)) return durationOf(BigInt(a));
      const found = parseDuration(a as string);
      if (found === undefined) throw new Failure(`time: invalid duration ${JSON.stringify(a)}`);
      return found;
    },
  ],
  ["dyn", "to_dyn: (A) -> dyn", (_run, a) => a],
  ["type", "type: (A) -> type(A)", (_run, a) => new TypeValue(typeNameOf(a))],
];

// Times

interface Clock {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly weekday: number;
  readonly yearDay: number;
  readonly hours: number;
  readonly minutes: number;
  readonly seconds: number;
}
/** In UTC, at a fixed offset, or in a zone by name. */
function clockOf({ nanos }: Timestamp, zone: string): Clock {
  const { seconds } = splitTime(nanos);
  const date = new Date((seconds + offsetOf(seconds, zone)) * 1000);
  const start = new Date(date.getTime());
  start.setUTCMonth(0, 1);
  start.setUTCHours(0, 0, 0, 0);
  return {
    year: date.getUTCFullYear(),
    month: date.getUTCMonth(),
    day: date.getUTCDate(),
    weekday: date.getUTCDay(),
    yearDay: Math.floor((date.getTime() - start.getTime()) / 86_400_000),
    hours: date.getUTCHours(),
    minutes: date.getUTCMinutes(),
    seconds: date.getUTCSeconds(),
  };
}
function offsetOf(seconds: number, zone: string): number {
  if (zone === "" || zone === "UTC" || zone === "Z") return 0;
  const fixed = /^([+-]?)(\d{2}):(\d{2})$/.exec(zone);
  if (fixed) return (fixed[1] === "-" ? -1 : 1) * (Number(fixed[2]) * 3600 + Number(fixed[3]) * 60);
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
      era: "short",
    });
  } catch {
    throw new Failure(`unknown time zone ${zone}`);
  }
  const parts = new Map(format.formatToParts(seconds * 1000).map(({ type, value }) => [type, value]));
  const part = (type: Intl.DateTimeFormatPartTypes): number => Number(parts.get(type));
  const local = Date.UTC(part("year"), part("month") - 1, part("day"), part("hour"), part("minute"), part("second"));
  return local / 1000 - seconds;
}
const timePart = (name: string, read: (clock: Clock) => number): Declaration => [
  name,
  [`timestamp_to_${name}: timestamp.() -> int`, `timestamp_to_${name}_tz: timestamp.(string) -> int`],
  (_run, a, b) => read(clockOf(a as Timestamp, typeof b === "string" ? b : "")),
];
const durationPart = (name: string, unit: bigint): Declaration => [
  name,
  `duration_to_${name}: duration.() -> int`,
  (_run, a) => intOf((a as Duration).nanos / unit),
];
const times: readonly Declaration[] = [
  timePart("getFullYear", (clock) => clock.year),
  timePart("getMonth", (clock) => clock.month),
  timePart("getDayOfYear", (clock) => clock.yearDay),
  timePart("getDayOfMonth", (clock) => clock.day - 1),
  timePart("getDate", (clock) => clock.day),
  timePart("getDayOfWeek", (clock) => clock.weekday),
  timePart("getHours", (clock) => clock.hours),
  timePart("getMinutes", (clock) => clock.minutes),
  timePart("getSeconds", (clock) => clock.seconds),
  [
    "getMilliseconds",
    ["timestamp_to_getMilliseconds: timestamp.() -> int", "timestamp_to_getMilliseconds_tz: timestamp.(string) -> int"],
    (_run, a) => Math.floor(splitTime((a as Timestamp).nanos).nanos / 1_000_000),
  ],
  durationPart("getHours", 3_600_000_000_000n),
  durationPart("getMinutes", 60_000_000_000n),
  durationPart("getSeconds", 1_000_000_000n),
  durationPart("getMilliseconds", 1_000_000n),
];

// Optional values

const isZero = (value: Value): boolean => {
  if (value === null || value === false || value === 0 || value === "") return true;
  if (value instanceof Double) return value.value === 0;
  if (value instanceof Uint) return value.value === 0n;
  if (value instanceof Bytes) return value.data.length === 0;
  if (value instanceof ListValue || value instanceof MapValue) return value.size === 0;
  if (value instanceof Duration) return value.nanos === 0n;
  if (value instanceof Optional) return value.value === undefined;
  return false;
};
const optionals: readonly Declaration[] = [
  ["optional.of", "optional_of: (V) -> optional(V)", (_run, a) => new Optional(a)],
  [
    "optional.ofNonZeroValue",
    "optional_ofNonZeroValue: (V) -> optional(V)",
    (_run, a) => (isZero(a) ? Optional.none : new Optional(a)),
  ],
  ["optional.none", "optional_none: () -> optional(V)", () => Optional.none],
  ["hasValue", "optional_hasValue: optional(V).() -> bool", (_run, a) => (a as Optional).value !== undefined],
  [
    "value",
    "optional_value: optional(V).() -> V",
    (_run, a) => {
      const { value } = a as Optional;
      if (value === undefined) throw new Failure("optional.none() dereference");
      return value;
    },
  ],
  // Which of both is wanted is known before the second is evaluated: the compiler sees to that.
  [
    "or",
    "optional_or_optional: optional(V).(optional(V)) -> optional(V)",
    (_run, a, b) => ((a as Optional).value === undefined ? b : a),
  ],
  ["orValue", "optional_orValue_value: optional(V).(V) -> V", (_run, a, b) => (a as Optional).value ?? b],
];

export const standardLibrary: readonly Declaration[] = [...operators, ...texts, ...conversions, ...times, ...optionals];
