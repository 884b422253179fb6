// CEL values in JavaScript. Integers are the common case of rules, so an int is a number while it is safe and a bigint
// beyond (never a bigint for what a number can hold: `===` is then equality); doubles are boxed. Lists and maps are
// views, so that data of objects is wrapped and never copied. Failures are thrown as Failure, which has no stack.
// Upstream counterpart: cel-go common/types.

export type Int = number | bigint;
export type Value =
  | null
  | boolean
  | Int
  | string
  | Double
  | Uint
  | Bytes
  | ListValue
  | MapValue
  | Timestamp
  | Duration
  | TypeValue
  | Optional
  | Opaque;

/** What an expression failed with; `message` has upstream's words. */
export class Failure {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }
}
/** Ends an evaluation; no operator absorbs it. */
export class CostExceeded {
  readonly message = "operation cancelled: actual cost limit exceeded";
}

export class Double {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}
export class Uint {
  readonly value: bigint;
  constructor(value: bigint) {
    this.value = value;
  }
}
export class Bytes {
  readonly data: Uint8Array;
  constructor(data: Uint8Array) {
    this.data = data;
  }
}
/** Nanoseconds since the epoch. */
export class Timestamp {
  readonly kind = "timestamp";
  readonly nanos: bigint;
  constructor(nanos: bigint) {
    this.nanos = nanos;
  }
}
export class Duration {
  readonly kind = "duration";
  readonly nanos: bigint;
  constructor(nanos: bigint) {
    this.nanos = nanos;
  }
}
export class TypeValue {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}
export class Optional {
  readonly value: Value | undefined;
  constructor(value: Value | undefined) {
    this.value = value;
  }
  static readonly none = new Optional(undefined);
}
/** Counts what is compared. Values share their parts, and no cost counts how deep they go. */
export interface Meter {
  step(): void;
}

/** A value of a library's own type. */
export abstract class Opaque {
  abstract readonly typeName: string;
  abstract equals(other: Opaque): boolean;
}

export abstract class ListValue {
  abstract readonly size: number;
  /** `index` is within bounds. */
  abstract at(index: number): Value;
  /** What `+` makes of it and `other`. */
  concat(other: ListValue): ListValue {
    const items: Value[] = [];
    for (let i = 0; i < this.size; i++) items.push(this.at(i));
    for (let i = 0; i < other.size; i++) items.push(other.at(i));
    return new NativeList(items);
  }
  equalsList(other: ListValue, meter: Meter): boolean {
    if (this.size !== other.size) return false;
    for (let i = 0; i < this.size; i++) if (!equals(this.at(i), other.at(i), meter)) return false;
    return true;
  }
}
export class NativeList extends ListValue {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    super();
    this.items = items;
  }
  get size(): number {
    return this.items.length;
  }
  at(index: number): Value {
    return this.items[index]!;
  }
}

export abstract class MapValue {
  abstract readonly size: number;
  abstract find(key: Value): Value | undefined;
  /** Field of a name known when the expression was compiled. */
  field(name: string): Value | undefined {
    return this.find(name);
  }
  has(key: Value): boolean {
    return this.find(key) !== undefined;
  }
  abstract keys(): Value[];
  equalsMap(other: MapValue, meter: Meter): boolean {
    if (this === other) return true;
    if (this.size !== other.size) return false;
    for (const key of this.keys()) {
      const mine = this.find(key);
      const theirs = other.find(key);
      if (mine === undefined || theirs === undefined || !equals(mine, theirs, meter)) return false;
    }
    return true;
  }
}
export class NativeMap extends MapValue {
  readonly #entries = new Map<string, readonly [Value, Value]>();
  constructor(entries: Iterable<readonly [Value, Value]>) {
    super();
    for (const [key, value] of entries) {
      const id = keyId(key);
      if (id === undefined) throw new Failure(`unsupported key type: ${typeNameOf(key)}`);
      if (this.#entries.has(id)) throw new Failure(`Failed with repeated key ${printKey(key)}`);
      this.#entries.set(id, [key, value]);
    }
  }
  get size(): number {
    return this.#entries.size;
  }
  find(key: Value): Value | undefined {
    const id = keyId(key);
    return id === undefined ? undefined : this.#entries.get(id)?.[1];
  }
  keys(): Value[] {
    return [...this.#entries.values()].map(([key]) => key);
  }
}

/** The same for keys that are equal, whatever kind of number they are. */
export function keyId(key: Value): string | undefined {
  if (typeof key === "string") return `s${key}`;
  if (typeof key === "number" || typeof key === "bigint") return `n${key}`;
  if (typeof key === "boolean") return `b${key}`;
  if (key instanceof Uint) return `n${key.value}`;
  if (key instanceof Double) return Number.isInteger(key.value) ? `n${BigInt(key.value)}` : undefined;
  return undefined;
}
export const printKey = (key: Value): string =>
  typeof key === "string" ? key : key instanceof Uint || key instanceof Double ? String(key.value) : String(key);

// Integers

const maxSafe = BigInt(Number.MAX_SAFE_INTEGER);
const minInt = -(2n ** 63n);
const maxInt = 2n ** 63n - 1n;
const maxUint = 2n ** 64n - 1n;

/** Of an int64, in the form that ints have. */
export function intOf(value: bigint): Int {
  if (value < minInt || value > maxInt) throw new Failure("integer overflow");
  return value <= maxSafe && value >= -maxSafe ? Number(value) : value;
}
export function uintOf(value: bigint): Uint {
  if (value < 0n || value > maxUint) throw new Failure("unsigned integer overflow");
  return new Uint(value);
}
export const isInt = (value: unknown): value is Int => typeof value === "number" || typeof value === "bigint";

export function addInts(a: Int, b: Int): Int {
  if (typeof a === "number" && typeof b === "number") {
    const sum = a + b;
    if (Number.isSafeInteger(sum)) return sum;
  }
  return intOf(BigInt(a) + BigInt(b));
}
export function subtractInts(a: Int, b: Int): Int {
  if (typeof a === "number" && typeof b === "number") {
    const difference = a - b;
    if (Number.isSafeInteger(difference)) return difference;
  }
  return intOf(BigInt(a) - BigInt(b));
}
export function multiplyInts(a: Int, b: Int): Int {
  if (typeof a === "number" && typeof b === "number") {
    const product = a * b;
    if (Number.isSafeInteger(product)) return product + 0;
  }
  return intOf(BigInt(a) * BigInt(b));
}
export function divideInts(a: Int, b: Int): Int {
  if (b === 0) throw new Failure("division by zero");
  if (typeof a === "number" && typeof b === "number") return (a - (a % b)) / b + 0;
  return intOf(BigInt(a) / BigInt(b));
}
export function moduloInts(a: Int, b: Int): Int {
  if (b === 0) throw new Failure("modulus by zero");
  if (typeof a === "number" && typeof b === "number") return (a % b) + 0;
  return intOf(BigInt(a) % BigInt(b));
}

/** Of a JSON number: whole ones are ints, as upstream decodes them. */
export const numberOf = (value: number): Int | Double => {
  if (Number.isSafeInteger(value)) return value + 0;
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 63) return BigInt(value);
  return new Double(value);
};

// Equality and order

const isNumeric = (value: Value): value is Int | Uint | Double =>
  typeof value === "number" || typeof value === "bigint" || value instanceof Double || value instanceof Uint;

/** Of any two values; kinds that differ are not equal, numbers are compared as numbers. */
export function equals(a: Value, b: Value, meter: Meter): boolean {
  meter.step();
  if (a === b) return !(a instanceof Double) || !Number.isNaN(a.value);
  if (typeof a === "string" || typeof a === "boolean" || a === null) return false;
  if (isNumeric(a)) return isNumeric(b) && compareNumbers(a, b) === 0;
  if (b === null || typeof b !== "object") return false;
  if (a instanceof ListValue) return b instanceof ListValue && a.equalsList(b, meter);
  if (a instanceof MapValue) return b instanceof MapValue && a.equalsMap(b, meter);
  if (a instanceof Bytes) return b instanceof Bytes && compareBytes(a.data, b.data) === 0;
  if (a instanceof Timestamp) return b instanceof Timestamp && a.nanos === b.nanos;
  if (a instanceof Duration) return b instanceof Duration && a.nanos === b.nanos;
  if (a instanceof TypeValue) return b instanceof TypeValue && a.name === b.name;
  if (a instanceof Optional) {
    if (!(b instanceof Optional)) return false;
    return a.value === undefined || b.value === undefined ? a.value === b.value : equals(a.value, b.value, meter);
  }
  return b instanceof Opaque && a.typeName === b.typeName && a.equals(b);
}

/** Undefined where one is NaN. */
function compareNumbers(a: Int | Uint | Double, b: Int | Uint | Double): -1 | 0 | 1 | undefined {
  const left = a instanceof Double || a instanceof Uint ? a.value : a;
  const right = b instanceof Double || b instanceof Uint ? b.value : b;
  // JavaScript compares bigints with numbers by their mathematical values.
  if (left < right) return -1;
  if (left > right) return 1;
  return left <= right ? 0 : undefined;
}

export function compareBytes(a: Uint8Array, b: Uint8Array): -1 | 0 | 1 {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return a[i]! < b[i]! ? -1 : 1;
  return a.length === b.length ? 0 : a.length < b.length ? -1 : 1;
}

/** In the order of code points, which UTF-16 units are not. */
export function compareStrings(a: string, b: string): -1 | 0 | 1 {
  if (a === b) return 0;
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) {
    let left = a.charCodeAt(i);
    let right = b.charCodeAt(i);
    if (left === right) continue;
    // Surrogates stand for what lies above everything else.
    if (left >= 0xd800 && right >= 0xd800) {
      left = left >= 0xe000 ? left - 0x2000 : left + 0x2000;
      right = right >= 0xe000 ? right - 0x2000 : right + 0x2000;
    }
    return left < right ? -1 : 1;
  }
  return a.length < b.length ? -1 : 1;
}

/** Of two values that have an order; undefined where they have none. */
export function compare(a: Value, b: Value): -1 | 0 | 1 | undefined {
  if (isNumeric(a)) return isNumeric(b) ? compareNumbers(a, b) : noOrder(a, b);
  if (typeof a === "string" && typeof b === "string") return compareStrings(a, b);
  if (typeof a === "boolean" && typeof b === "boolean") return a === b ? 0 : b ? -1 : 1;
  if (a instanceof Bytes && b instanceof Bytes) return compareBytes(a.data, b.data);
  if ((a instanceof Timestamp && b instanceof Timestamp) || (a instanceof Duration && b instanceof Duration)) {
    return a.nanos < b.nanos ? -1 : a.nanos > b.nanos ? 1 : 0;
  }
  return noOrder(a, b);
}
function noOrder(a: Value, b: Value): never {
  throw new Failure(`no such overload: compare(${typeNameOf(a)}, ${typeNameOf(b)})`);
}

// Types of values

/** As `type()` names it. */
export function typeNameOf(value: Value): string {
  switch (typeof value) {
    case "boolean":
      return "bool";
    case "number":
    case "bigint":
      return "int";
    case "string":
      return "string";
    default:
      return typeNameOfObject(value);
  }
}
function typeNameOfObject(value: Exclude<Value, boolean | number | bigint | string>): string {
  if (value === null) return "null_type";
  if (value instanceof MapValue) return "map";
  if (value instanceof ListValue) return "list";
  if (value instanceof Double) return "double";
  if (value instanceof Uint) return "uint";
  if (value instanceof Bytes) return "bytes";
  if (value instanceof Timestamp) return "google.protobuf.Timestamp";
  if (value instanceof Duration) return "google.protobuf.Duration";
  if (value instanceof TypeValue) return "type";
  if (value instanceof Optional) return "optional_type";
  return value.typeName;
}

/** Characters are code points. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0xd800 && code <= 0xdbff && i + 1 < text.length) {
      const low = text.charCodeAt(i + 1);
      if (low >= 0xdc00 && low <= 0xdfff) {
        count--;
        i++;
      }
    }
  }
  return count;
}

/** What the cost of an operation grows with. Strings count in UTF-16 units: near enough, and known without a walk. */
export function costSize(value: Value): number {
  if (typeof value === "string") return value.length;
  if (value === null || typeof value !== "object") return 1;
  if (value instanceof ListValue || value instanceof MapValue) return value.size;
  if (value instanceof Bytes) return value.data.length;
  return 1;
}

/** Any JSON, as data without a schema is seen; values of CEL pass through. */
export function adaptJson(raw: unknown): Value {
  switch (typeof raw) {
    case "string":
    case "boolean":
      return raw;
    case "number":
      return numberOf(raw);
    case "bigint":
      return intOf(raw);
    default:
  }
  if (raw === null || raw === undefined) return null;
  if (Array.isArray(raw)) return new JsonList(raw);
  if (isCelObject(raw)) return raw;
  return new JsonMap(raw as Record<string, unknown>);
}
const isCelObject = (raw: unknown): raw is Value & object =>
  raw instanceof MapValue ||
  raw instanceof ListValue ||
  raw instanceof Opaque ||
  raw instanceof Double ||
  raw instanceof Uint ||
  raw instanceof Bytes ||
  raw instanceof Timestamp ||
  raw instanceof Duration ||
  raw instanceof Optional ||
  raw instanceof TypeValue;

class JsonList extends ListValue {
  readonly #raw: readonly unknown[];
  constructor(raw: readonly unknown[]) {
    super();
    this.#raw = raw;
  }
  get size(): number {
    return this.#raw.length;
  }
  at(index: number): Value {
    return adaptJson(this.#raw[index]);
  }
}
class JsonMap extends MapValue {
  readonly #raw: Readonly<Record<string, unknown>>;
  constructor(raw: Readonly<Record<string, unknown>>) {
    super();
    this.#raw = raw;
  }
  get size(): number {
    return Object.keys(this.#raw).length;
  }
  find(key: Value): Value | undefined {
    return typeof key === "string" && Object.hasOwn(this.#raw, key) ? adaptJson(this.#raw[key]) : undefined;
  }
  keys(): Value[] {
    return Object.keys(this.#raw);
  }
}
