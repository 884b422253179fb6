// Walks of values along their schema: the fields of a value, what differs between two values, one value merged into
// another, fields taken out of a value. Values are shared and never changed; results share what they did not touch.
// Upstream counterpart: typed of structured-merge-diff (ToFieldSet, Compare, Merge, RemoveItems).
import { equalJson, get, isObject, type JsonObject, set as setMember } from "../patch/json-value.ts";
import {
  elementText,
  emptySet,
  type FieldSet,
  fieldElement,
  isEmptySet,
  isMember,
  keyElement,
  leaf,
  nodeOf,
} from "./field-set.ts";
import { deducedList, deducedMap, type ListSchema, type MapSchema, type ScalarSchema, type Schema } from "./schema.ts";

type Node = { [element: string]: FieldSet };
const none: JsonObject = Object.freeze({});

/** Where a value has no schema, its form says what it is. */
function resolve(schema: Schema, value: unknown): ScalarSchema | MapSchema | ListSchema {
  if (schema.kind !== "deduced") return schema;
  if (isObject(value)) return deducedMap;
  return Array.isArray(value) ? deducedList : { kind: "scalar", scalar: "untyped" };
}

export const memberSchema = (schema: MapSchema, name: string): Schema | undefined =>
  schema.fields.get(name)?.schema ?? schema.element;

// Items of lists

class KeyError extends Error {}

/** The path element of an item; rejects with KeyError where it has none. */
function itemElement(schema: ListSchema, item: unknown): string {
  if (schema.type === "set") {
    if (typeof item === "object")
      throw new KeyError("associative list without keys has an element that's a list/map/null");
    return `v:${JSON.stringify(item)}`;
  }
  if (item === null) throw new KeyError("associative list with keys may not have a null element");
  if (!isObject(item)) throw new KeyError("associative list with keys may not have non-map elements");
  return keyElement(
    schema.keys.map((key) => {
      const value = get(item, key);
      if (value !== undefined) return [key, value];
      const element = schema.element;
      const fallback = element.kind === "map" ? element.fields.get(key)?.default : undefined;
      if (fallback !== undefined) return [key, fallback];
      throw new KeyError(
        `associative list with keys has an element that omits key field ${JSON.stringify(key)} (and doesn't have default value)`,
      );
    }),
  );
}

/** Items by path element, in order. Items without an element are left out: only stored objects may have such. */
function itemsByElement(schema: ListSchema, items: readonly unknown[]): Map<string, unknown[]> {
  const out = new Map<string, unknown[]>();
  for (const item of items) {
    const element = elementOrNone(schema, item);
    if (element === undefined) continue;
    const same = out.get(element);
    if (same) same.push(item);
    else out.set(element, [item]);
  }
  return out;
}

function elementOrNone(schema: ListSchema, item: unknown): string | undefined {
  try {
    return itemElement(schema, item);
  } catch (error) {
    if (error instanceof KeyError) return undefined;
    throw error;
  }
}

// Fields of a value

/** The fields that a value names: leaves, items of lists, and members of maps. */
export function fieldsOf(schema: MapSchema, value: JsonObject): FieldSet {
  return mapFields(schema, value) ?? emptySet;
}

/** What is below a node; undefined: the node is nothing by itself. */
function fieldNode(schema: Schema, value: unknown): FieldSet | undefined {
  const type = resolve(schema, value);
  if (type.kind === "scalar") return leaf;
  if (type.kind === "map") {
    if (type.atomic) return leaf;
    return isObject(value) ? mapFields(type, value) : undefined;
  }
  if (type.type === "atomic") return leaf;
  if (!Array.isArray(value)) return undefined;
  const out: Node = {};
  for (const [element, items] of itemsByElement(type, value)) {
    // Items that share a key are owned together and whole.
    out[element] = items.length > 1 ? leaf : (nodeOf(fieldNode(type.element, items[0]), true) ?? leaf);
  }
  return nodeOf(out, false);
}

function mapFields(schema: MapSchema, value: JsonObject): FieldSet | undefined {
  const out: Node = {};
  for (const name of Object.keys(value)) {
    const member = value[name];
    if (member === undefined) continue;
    const declared = schema.fields.get(name);
    const type = declared?.schema ?? schema.element;
    if (!type) continue;
    const isBare = member === null || (isObject(member) && Object.keys(member).length === 0);
    const node = fieldNode(type, member);
    const whole = nodeOf(node, isBare || declared === undefined || (node !== undefined && isMember(node)));
    if (whole) out[declared?.path ?? fieldElement(name)] = whole;
  }
  return nodeOf(out, false);
}

// Validation of what is applied

/** Errors that a list of them ends at. */
const maxErrors = 100;

/** What does not fit the schema, as `.path: why`. */
export function schemaErrors(schema: MapSchema, value: unknown): string[] {
  const errors: string[] = [];
  /** To where the walk is; texts are made only where something is wrong. */
  const path: (() => string)[] = [];
  const report = (why: string): void => {
    const where = path.map((text) => text()).join("");
    if (errors.length < maxErrors) errors.push(where === "" ? why : `${where}: ${why}`);
  };
  const below = (text: () => string, look: () => void): void => {
    path.push(text);
    look();
    path.pop();
  };
  const walk = (at: Schema, current: unknown): void => {
    if (current === null || current === undefined) return;
    const type = resolve(at, current);
    if (type.kind === "scalar") {
      const problem = scalarProblem(type, current);
      if (problem) report(problem);
    } else if (type.kind === "map") {
      if (isObject(current)) walkMap(type, current);
      else report(`expected map, got ${goValue(current)}`);
    } else if (Array.isArray(current)) walkList(type, current);
    else report(`expected list, got ${goValue(current)}`);
  };
  const walkMap = (type: MapSchema, current: JsonObject): void => {
    for (const name of Object.keys(current)) {
      const member = memberSchema(type, name);
      below(
        () => `.${name}`,
        () => (member ? walk(member, current[name]) : report("field not declared in schema")),
      );
    }
  };
  const walkList = (type: ListSchema, current: readonly unknown[]): void => {
    const seen = new Set<string>();
    for (const [index, item] of current.entries()) {
      let element = `i:${index}`;
      if (type.type !== "atomic") {
        try {
          element = itemElement(type, item);
        } catch (error) {
          if (!(error instanceof KeyError)) throw error;
          report(`element ${index}: ${error.message}`);
          continue;
        }
        if (seen.has(element)) report(`duplicate entries for key ${elementText(element)}`);
        seen.add(element);
      }
      below(
        () => elementText(element),
        () => walk(type.element, item),
      );
    }
  };
  walk(schema, value);
  return errors;
}

function scalarProblem(schema: ScalarSchema, value: unknown): string | undefined {
  const isNumber = typeof value === "number" || typeof value === "bigint";
  switch (schema.scalar) {
    case "string":
      return typeof value === "string" ? undefined : `expected string, got ${goValue(value)}`;
    case "number":
      return isNumber ? undefined : `expected numeric (int or float), got ${goTypeName(value)}`;
    case "boolean":
      return typeof value === "boolean" ? undefined : `expected boolean, got ${goValue(value)}`;
    case "untyped":
      return typeof value === "object" ? `expected scalar, got ${goTypeName(value)}` : undefined;
  }
}

const goTypeName = (value: unknown): string =>
  Array.isArray(value) ? "list" : isObject(value) ? "map" : typeof value === "boolean" ? "bool" : typeof value;
function goValue(value: unknown): string {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return `&{${text.slice(0, 200)}}`;
}

// What differs

export interface Differences {
  /** Added or modified. */
  readonly changed: FieldSet;
  readonly removed: FieldSet;
}
export const noDifferences: Differences = { changed: emptySet, removed: emptySet };

interface Found {
  changed: FieldSet | undefined;
  removed: FieldSet | undefined;
}

/** From `old` to `next`. Parts that are the same object are not looked at. */
export function compareValues(schema: MapSchema, old: JsonObject, next: JsonObject): Differences {
  const found = compareMaps(schema, old, next);
  return found ? { changed: found.changed ?? emptySet, removed: found.removed ?? emptySet } : noDifferences;
}

const changedLeaf: Found = { changed: leaf, removed: undefined };

/** Both are there; undefined: no difference. */
function compareNodes(schema: Schema, old: unknown, next: unknown): Found | undefined {
  if (old === next) return undefined;
  const type = resolve(schema, next);
  if (type.kind === "scalar") return equalJson(old, next) ? undefined : changedLeaf;
  if (type.kind === "map") {
    const left = isObject(old) ? old : undefined;
    const right = isObject(next) ? next : undefined;
    if (type.atomic || (left === undefined && old !== null) || (right === undefined && next !== null)) {
      return equalJson(old, next) ? undefined : changedLeaf;
    }
    return compareMaps(type, left ?? none, right ?? none);
  }
  const left = Array.isArray(old) ? old : undefined;
  const right = Array.isArray(next) ? next : undefined;
  if (type.type === "atomic" || (left === undefined && old !== null) || (right === undefined && next !== null)) {
    return equalJson(old, next) ? undefined : changedLeaf;
  }
  return compareLists(type, left ?? [], right ?? []);
}

/** Collects what is below a node. */
class Collector {
  #changed: Node | undefined;
  #removed: Node | undefined;
  added(element: string, node: FieldSet): void {
    this.#changed ??= {};
    this.#changed[element] = node;
  }
  removed(element: string, node: FieldSet): void {
    this.#removed ??= {};
    this.#removed[element] = node;
  }
  both(element: string, found: Found | undefined): void {
    if (found?.changed) this.added(element, found.changed);
    if (found?.removed) this.removed(element, found.removed);
  }
  get found(): Found | undefined {
    return this.#changed || this.#removed ? { changed: this.#changed, removed: this.#removed } : undefined;
  }
}

function compareMaps(schema: MapSchema, old: JsonObject, next: JsonObject): Found | undefined {
  const out = new Collector();
  const compareMember = (name: string, inOld: boolean, inNext: boolean): void => {
    const field = schema.fields.get(name);
    const type = field?.schema ?? schema.element;
    if (!type) return;
    let left = inOld ? old[name] : undefined;
    let right = inNext ? next[name] : undefined;
    if (field?.absent) {
      left ??= field.absent;
      right ??= field.absent;
    } else if (field && left === undefined && right !== undefined && isZero(type, right, field.default)) return;
    else if (field && right === undefined && left !== undefined && isZero(type, left, field.default)) return;
    if (left === right) return;
    const element = field?.path ?? fieldElement(name);
    if (left === undefined) out.added(element, everything(type, right));
    else if (right === undefined) out.removed(element, everything(type, left));
    else out.both(element, compareNodes(type, left, right));
  };
  for (const name of Object.keys(next)) compareMember(name, Object.hasOwn(old, name), true);
  for (const name of Object.keys(old)) if (!Object.hasOwn(next, name)) compareMember(name, true, false);
  return out.found;
}

/** What a Go struct has anyway: left out and this are the same. */
function isZero(schema: Schema, value: unknown, zero: unknown): boolean {
  if (value === null) return true;
  if (schema.kind === "list") return Array.isArray(value) && value.length === 0;
  return schema.kind === "scalar" && (value === "" || value === 0 || value === false) && value === zero;
}

function hasSameKey(schema: ListSchema, old: unknown, next: unknown): boolean {
  if (schema.type === "set" || !isObject(old) || !isObject(next)) return equalJson(old, next);
  return schema.keys.every((key) => get(old, key) === get(next, key));
}

function compareLists(schema: ListSchema, old: readonly unknown[], next: readonly unknown[]): Found | undefined {
  // Most lists keep their order and most of these do not change: to tell that takes no path elements. What was found is
  // used below, for looking twice at each level would be exponential in their number.
  const isAligned = old.length === next.length && old.every((item, index) => hasSameKey(schema, item, next[index]));
  const aligned = isAligned
    ? new Map(next.map((item, index) => [item, compareNodes(schema.element, old[index], item)]))
    : undefined;
  if (aligned && [...aligned.values()].every((found) => found === undefined)) return undefined;
  const out = new Collector();
  const left = itemsByElement(schema, old);
  const right = itemsByElement(schema, next);
  for (const [element, items] of right) {
    const before = left.get(element);
    if (!before) out.added(element, items.length > 1 ? leaf : everything(schema.element, items[0]));
    else if (before.length === 1 && items.length === 1) {
      const found = aligned ? aligned.get(items[0]) : compareNodes(schema.element, before[0], items[0]);
      out.both(element, found);
    } else if (!equalJson(before, items)) out.added(element, leaf);
  }
  for (const [element, items] of left) {
    if (!right.has(element)) out.removed(element, items.length > 1 ? leaf : everything(schema.element, items[0]));
  }
  return out.found;
}

/** A value that was not there, or is not any more: it and all that is below. */
function everything(schema: Schema, value: unknown): FieldSet {
  const type = resolve(schema, value);
  if (type.kind === "scalar" || value === null) return leaf;
  if (type.kind === "map") {
    if (type.atomic || !isObject(value)) return leaf;
    const out: Node = { ".": leaf };
    let isBare = true;
    for (const name of Object.keys(value)) {
      const field = type.fields.get(name);
      const member = field?.schema ?? type.element;
      if (member && value[name] !== undefined) {
        out[field?.path ?? fieldElement(name)] = everything(member, value[name]);
        isBare = false;
      }
    }
    for (const name of type.values) {
      const { schema: member, absent, path } = type.fields.get(name)!;
      if (get(value, name) !== undefined) continue;
      out[path] = everything(member, absent);
      isBare = false;
    }
    return isBare ? leaf : out;
  }
  if (type.type === "atomic" || !Array.isArray(value)) return leaf;
  const out: Node = { ".": leaf };
  const byElement = itemsByElement(type, value);
  for (const [element, items] of byElement) {
    out[element] = items.length > 1 ? leaf : everything(type.element, items[0]);
  }
  return byElement.size > 0 ? out : leaf;
}

// Merging

/** `live` with what `config` says; `config` has no two items with one key. */
export function mergeValues(schema: MapSchema, live: JsonObject, config: JsonObject): JsonObject {
  return mergeMaps(schema, live, config);
}

function mergeNodes(schema: Schema, live: unknown, config: unknown): unknown {
  if (config === undefined) return live;
  const type = resolve(schema, config === null ? live : config);
  if (type.kind === "scalar") return config;
  if (type.kind === "map") {
    if (type.atomic) return config;
    const left = isObject(live) ? live : none;
    if (!isObject(config)) return Object.keys(left).length > 0 ? left : config;
    return mergeMaps(type, left, config);
  }
  if (type.type === "atomic") return config;
  const left: readonly unknown[] = Array.isArray(live) ? live : [];
  if (!Array.isArray(config)) return left.length > 0 ? left : config;
  return mergeLists(type, left, config);
}

function mergeMaps(schema: MapSchema, live: JsonObject, config: JsonObject): JsonObject {
  const out: JsonObject = {};
  for (const name of Object.keys(live)) setMember(out, name, live[name]);
  for (const name of Object.keys(config)) {
    const type = memberSchema(schema, name);
    if (type) setMember(out, name, mergeNodes(type, get(live, name), config[name]));
  }
  return out;
}

/**
 * Items of both, in the order of `config` for those it names; items that only `live` has keep their place after the
 * items they follow there.
 */
function mergeLists(schema: ListSchema, live: readonly unknown[], config: readonly unknown[]): unknown[] {
  const wanted = new Map<string, unknown>();
  for (const item of config) wanted.set(itemElement(schema, item), item);
  const known = itemsByElement(schema, live);
  const merged = (element: string): unknown => {
    const before = known.get(element);
    // Of items that share a key none can be told to be the one.
    return mergeNodes(schema.element, before?.length === 1 ? before[0] : undefined, wanted.get(element));
  };
  const out: unknown[] = [];
  const order = [...wanted.keys()];
  const shared = order.filter((element) => known.has(element));
  const placed = new Set<string>();
  let next = 0;
  const place = (element: string): void => {
    out.push(merged(element));
    placed.add(element);
  };
  let nextShared = 0;
  for (const item of live) {
    const element = elementOrNone(schema, item);
    if (element === undefined || !wanted.has(element)) {
      out.push(item);
      continue;
    }
    // A shared item holds the place of whichever shared item `config` has next; new ones go before it.
    if (element !== shared[nextShared] || placed.has(element)) continue;
    while (next < order.length && order[next] !== element) place(order[next++]!);
    place(element);
    next++;
    nextShared++;
  }
  while (next < order.length) place(order[next++]!);
  return out;
}

// Taking out

/** `value` without the fields of `fields`. What is empty then is gone too. */
export function removeFields(schema: MapSchema, value: JsonObject, fields: FieldSet): JsonObject {
  return (removeFromMap(schema, value, fields) as JsonObject | undefined) ?? {};
}

function removeBelow(schema: Schema, value: unknown, fields: FieldSet): unknown {
  const type = resolve(schema, value);
  if (type.kind === "scalar") return value;
  if (type.kind === "map") {
    if (type.atomic || !isObject(value)) return value;
    return removeFromMap(type, value, fields);
  }
  if (type.type === "atomic" || !Array.isArray(value)) return value;
  const kept: unknown[] = [];
  for (const item of value) {
    const element = elementOrNone(type, item);
    const node = element !== undefined && Object.hasOwn(fields, element) ? fields[element] : undefined;
    if (node && isMember(node)) continue;
    kept.push(node ? (removeBelow(type.element, item, node) ?? null) : item);
  }
  return kept.length > 0 ? kept : undefined;
}

/** Undefined: nothing is left. */
function removeFromMap(schema: MapSchema, value: JsonObject, fields: FieldSet): unknown {
  const out: JsonObject = {};
  let isEmpty = true;
  for (const name of Object.keys(value)) {
    const element = fieldElement(name);
    const node = Object.hasOwn(fields, element) ? fields[element] : undefined;
    if (node && isMember(node)) continue;
    const type = memberSchema(schema, name);
    const member = node && type ? removeBelow(type, value[name], node) : value[name];
    if (member === undefined) continue;
    setMember(out, name, member);
    isEmpty = false;
  }
  return isEmpty ? undefined : out;
}

/** The set with declared fields that something below is in as members of their own. */
export function withNamedFields(schema: Schema | undefined, set: FieldSet): FieldSet {
  return namedBelow(schema, set) ?? emptySet;
}

function namedBelow(schema: Schema | undefined, node: FieldSet): FieldSet | undefined {
  const out: Node = {};
  for (const element of Object.keys(node)) {
    const below = node[element]!;
    if (element === ".") continue;
    let type: Schema | undefined;
    let declared = false;
    if (element.startsWith("f:") && schema?.kind === "map") {
      const name = element.slice(2);
      declared = schema.fields.has(name);
      type = memberSchema(schema, name);
    } else if (element.startsWith("f:") && schema?.kind === "deduced") type = schema;
    else if (element.startsWith("k:") && schema?.kind === "list") type = schema.element;
    const inner = isEmptySet(below) ? undefined : namedBelow(type, below);
    const whole = nodeOf(inner, declared || isMember(below));
    if (whole) out[element] = whole;
  }
  return nodeOf(out, false);
}
