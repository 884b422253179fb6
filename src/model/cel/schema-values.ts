// Data of a schema as rules see it: views that convert what is read when it is read. Lists of keys and sets compare and
// add as the sets they are. Data that does not fit its schema fails where it is read.
// Upstream counterpart: apiserver/pkg/cel/common/values.go.
import type { JsonSchema } from "../custom-resources.ts";
import { canonicalText, equalJson, isObject, type JsonObject } from "../patch/json-value.ts";
import { escapeName, withTypeAndMetadata } from "./schema-types.ts";
import { isDay, parseDuration, parseTimestamp } from "./text.ts";
import {
  Bytes,
  Double,
  equals,
  Failure,
  type Int,
  intOf,
  ListValue,
  MapValue,
  type Meter,
  numberOf,
  Opaque,
  Timestamp,
  type Value,
} from "./values.ts";

export type Adapter = (raw: unknown) => Value;

/** Built once for each schema, when data of it is seen first. */
export function adapterOf(schema: JsonSchema, isResource = false): Adapter {
  let found: Adapter | undefined;
  return (raw) => {
    if (raw === null) {
      if (schema.nullable === true) return null;
      throw new Failure("invalid data, got null for schema with nullable=false");
    }
    found ??= build(schema, isResource);
    return found(raw);
  };
}

const invalid = (expected: string): Failure => new Failure(`invalid data, expected ${expected}`);

function build(schema: JsonSchema, isResource: boolean): Adapter {
  if (schema["x-kubernetes-int-or-string"] === true) {
    return (raw) => {
      if (typeof raw === "string") return raw;
      if (typeof raw === "number" && Number.isInteger(raw)) return numberOf(raw);
      if (typeof raw === "bigint") return intOf(raw);
      throw invalid("XIntOrString value to be either a string or integer");
    };
  }
  switch (schema.type) {
    case "object":
      return objectAdapter(schema, isResource || schema["x-kubernetes-embedded-resource"] === true);
    case "array":
      return arrayAdapter(schema);
    case "string":
      return stringAdapter(schema.format);
    case "number":
      return (raw) => {
        if (typeof raw === "number" || typeof raw === "bigint") return new Double(Number(raw));
        throw invalid("float");
      };
    case "integer":
      return (raw) => {
        if (typeof raw === "bigint") return intOf(raw);
        if (typeof raw !== "number" || !Number.isInteger(raw)) throw invalid("int");
        const value = numberOf(raw);
        return value instanceof Double ? intFailure() : value;
      };
    case "boolean":
      return (raw) => {
        if (typeof raw === "boolean") return raw;
        throw invalid("bool");
      };
    default:
      return (raw) => new Preserved(raw);
  }
}
function intFailure(): Int {
  throw invalid("int, got float64");
}

/** What the schema keeps without knowing it: it can only be compared. */
class Preserved extends Opaque {
  readonly typeName = "unknown";
  readonly raw: unknown;
  constructor(raw: unknown) {
    super();
    this.raw = raw;
  }
  equals(other: Opaque): boolean {
    return other instanceof Preserved && equalJson(this.raw, other.raw);
  }
}

// Objects and maps

interface Shape {
  /** From escaped names to those of the data. */
  readonly names: ReadonlyMap<string, string>;
  readonly adapters: ReadonlyMap<string, Adapter>;
}

function objectAdapter(given: JsonSchema, isResource: boolean): Adapter {
  const schema = isResource ? withTypeAndMetadata(given) : given;
  const { properties, additionalProperties } = schema;
  if (!properties && isObject(additionalProperties)) {
    const item = adapterOf(additionalProperties as JsonSchema);
    return (raw) => {
      if (isObject(raw)) return new MapView(raw, item);
      throw invalid("a map for the provided schema with type=object");
    };
  }
  const names = new Map<string, string>();
  const adapters = new Map<string, Adapter>();
  for (const [name, part] of Object.entries(properties ?? {})) {
    adapters.set(name, adapterOf(part));
    const escaped = escapeName(name);
    if (escaped !== undefined) names.set(escaped, name);
  }
  const shape: Shape = { names, adapters };
  return (raw) => {
    if (isObject(raw)) return new ObjectView(raw, shape);
    throw invalid("a map for the provided schema with type=object");
  };
}

class ObjectView extends MapValue {
  readonly raw: JsonObject;
  readonly #shape: Shape;
  constructor(raw: JsonObject, shape: Shape) {
    super();
    this.raw = raw;
    this.#shape = shape;
  }
  get size(): number {
    return Object.keys(this.raw).length;
  }
  /** Null counts as absent in objects, though not in maps. */
  override field(escaped: string): Value | undefined {
    const name = this.#shape.names.get(escaped);
    if (name === undefined || !Object.hasOwn(this.raw, name)) return undefined;
    const raw = this.raw[name];
    return raw === null || raw === undefined ? undefined : this.#shape.adapters.get(name)!(raw);
  }
  find(key: Value): Value | undefined {
    return typeof key === "string" ? this.field(key) : undefined;
  }
  override has(key: Value): boolean {
    const name = typeof key === "string" ? this.#shape.names.get(key) : undefined;
    return name !== undefined && Object.hasOwn(this.raw, name) && (this.raw[name] ?? null) !== null;
  }
  keys(): Value[] {
    return Object.keys(this.raw).flatMap((name) => escapeName(name) ?? []);
  }
  /** All members count, also those that rules cannot name. */
  override equalsMap(other: MapValue, meter: Meter): boolean {
    if (!(other instanceof ObjectView)) return super.equalsMap(other, meter);
    const [mine, theirs] = [this.raw, other.raw];
    if (mine === theirs) return true;
    const names = Object.keys(mine);
    if (names.length !== Object.keys(theirs).length) return false;
    return names.every((name) => {
      if (!Object.hasOwn(theirs, name)) return false;
      const [left, right] = [mine[name], theirs[name]];
      if (left === right) return true;
      if (left === null || right === null) return false;
      const mineOf = this.#shape.adapters.get(name);
      const theirsOf = other.#shape.adapters.get(name);
      return mineOf && theirsOf ? equals(mineOf(left), theirsOf(right), meter) : equalJson(left, right);
    });
  }
}

class MapView extends MapValue {
  readonly #raw: JsonObject;
  readonly #item: Adapter;
  constructor(raw: JsonObject, item: Adapter) {
    super();
    this.#raw = raw;
    this.#item = item;
  }
  get size(): number {
    return Object.keys(this.#raw).length;
  }
  find(key: Value): Value | undefined {
    return typeof key === "string" && Object.hasOwn(this.#raw, key) ? this.#item(this.#raw[key]) : undefined;
  }
  override has(key: Value): boolean {
    return typeof key === "string" && Object.hasOwn(this.#raw, key);
  }
  keys(): Value[] {
    return Object.keys(this.#raw);
  }
}

// Lists

function arrayAdapter(schema: JsonSchema): Adapter {
  const { items } = schema;
  const item = items && adapterOf(items);
  const type = schema["x-kubernetes-list-type"];
  const keys = schema["x-kubernetes-list-map-keys"] ?? [];
  const idOf: IdOf | undefined =
    type === "map" ? (raw) => keyOf(raw, keys) : type === "set" ? canonicalText : undefined;
  const merge = type === "map" ? "replace" : "keep";
  return (raw) => {
    if (!Array.isArray(raw)) throw invalid("an array for the provided schema with type=array");
    if (!item) throw new Failure("invalid array type, expected Items with a non-empty Schema");
    return idOf ? new KeyedView(raw, item, idOf, merge) : new ListView(raw, item);
  };
}

/** Equal for elements that are the same one of a set, or have the same keys. */
type IdOf = (raw: unknown) => string;
/** Of list maps: what upstream sees as one element. */
export function keyOf(raw: unknown, keys: readonly string[]): string {
  const object = isObject(raw) ? raw : {};
  return keys.map((key) => JSON.stringify(Object.hasOwn(object, key) ? object[key] : null) ?? "null").join(",");
}

class ListView extends ListValue {
  readonly raw: readonly unknown[];
  readonly item: Adapter;
  constructor(raw: readonly unknown[], item: Adapter) {
    super();
    this.raw = raw;
    this.item = item;
  }
  get size(): number {
    return this.raw.length;
  }
  at(index: number): Value {
    return this.item(this.raw[index]);
  }
  override concat(other: ListValue): ListValue {
    return other instanceof ListView ? new ListView([...this.raw, ...other.raw], this.item) : super.concat(other);
  }
}

/** What stands behind an element; undefined where nothing does that could be compared. */
function rawAt(list: ListValue, index: number): unknown {
  if (list instanceof ListView) return list.raw[index];
  const value = list.at(index);
  if (value instanceof ObjectView || value instanceof ListView) return value.raw;
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? value : undefined;
}

class KeyedView extends ListView {
  readonly #idOf: IdOf;
  readonly #merge: "replace" | "keep";
  #positions: ReadonlyMap<string, number> | undefined;
  constructor(raw: readonly unknown[], item: Adapter, idOf: IdOf, merge: "replace" | "keep") {
    super(raw, item);
    this.#idOf = idOf;
    this.#merge = merge;
  }
  #byId(): ReadonlyMap<string, number> {
    this.#positions ??= new Map(this.raw.map((raw, index) => [this.#idOf(raw), index] as const));
    return this.#positions;
  }
  /** In any order. */
  override equalsList(other: ListValue, meter: Meter): boolean {
    if (this.size !== other.size) return false;
    const positions = this.#byId();
    for (let i = 0; i < other.size; i++) {
      const raw = rawAt(other, i);
      const mine = raw === undefined ? this.#find(other.at(i), meter) : positions.get(this.#idOf(raw));
      if (mine === undefined || !equals(this.at(mine), other.at(i), meter)) return false;
    }
    return true;
  }
  #find(value: Value, meter: Meter): number | undefined {
    for (let i = 0; i < this.size; i++) if (equals(this.at(i), value, meter)) return i;
    return undefined;
  }
  /** A union: elements of `other` with the same keys take the place of mine, those of sets are there already. */
  override concat(other: ListValue): ListValue {
    const raw = [...this.raw];
    const positions = new Map(this.#byId());
    for (let i = 0; i < other.size; i++) {
      const element = rawAt(other, i);
      if (element === undefined) return super.concat(other);
      const id = this.#idOf(element);
      const mine = positions.get(id);
      if (mine === undefined) {
        positions.set(id, raw.length);
        raw.push(element);
      } else if (this.#merge === "replace") raw[mine] = element;
    }
    return new KeyedView(raw, this.item, this.#idOf, this.#merge);
  }
}

// Strings with a format

function stringAdapter(format: string | undefined): Adapter {
  const parsed = format !== undefined && Object.hasOwn(formats, format) ? formats[format] : undefined;
  return (raw) => {
    if (typeof raw !== "string") throw invalid("string");
    if (!parsed) return raw;
    const value = parsed(raw);
    if (value === undefined) throw new Failure(`Invalid ${format} formatted string ${raw}`);
    return value;
  };
}
const formats: Readonly<Record<string, (text: string) => Value | undefined>> = {
  duration: parseLooseDuration,
  date: (text) => (isDay(text) ? new Timestamp(BigInt(Date.parse(`${text}T00:00:00Z`)) * 1_000_000n) : undefined),
  "date-time": parseTimestamp,
  byte: (text) => {
    if (!/^[A-Za-z0-9+/\r\n]*={0,2}$/.test(text)) return undefined;
    return new Bytes(Uint8Array.from(Buffer.from(text, "base64")));
  },
};
/** The format of schemas also knows days, weeks and words. */
function parseLooseDuration(text: string): Value | undefined {
  const exact = parseDuration(text);
  if (exact) return exact;
  const match = /^(\d+)\s*(ns|nano|us|\u00b5s|micro|ms|milli|s|sec|m|min|h|hr|hour|d|day|w|wk|week)s?$/i.exec(text);
  const unit = match && looseUnits[match[2]!.toLowerCase()];
  return unit ? parseDuration(`${BigInt(match[1]!) * unit[0]}${unit[1]}`) : undefined;
}
const looseUnits: Readonly<Record<string, readonly [bigint, string]>> = {
  ns: [1n, "ns"],
  nano: [1n, "ns"],
  us: [1n, "us"],
  "\u00b5s": [1n, "us"],
  micro: [1n, "us"],
  ms: [1n, "ms"],
  milli: [1n, "ms"],
  s: [1n, "s"],
  sec: [1n, "s"],
  m: [1n, "m"],
  min: [1n, "m"],
  h: [1n, "h"],
  hr: [1n, "h"],
  hour: [1n, "h"],
  d: [24n, "h"],
  day: [24n, "h"],
  w: [168n, "h"],
  wk: [168n, "h"],
  week: [168n, "h"],
};
