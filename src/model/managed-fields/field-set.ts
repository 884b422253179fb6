// Sets of field paths, in the form they have on the wire (fieldsV1): an object whose members are path elements, `f:name`
// for a field, `k:{"name":"x"}` for an item of a keyed list, `v:"x"` for an item of a set, `i:0` for a place in a list.
// A node with no elements is in the set itself; a node with elements is in it when it also has `.`. The root is never
// in its own set, so `{}` as a root is the empty set. Working on the wire form means that stored sets are never parsed.
// Sets are shared and never changed. Upstream counterpart: fieldpath.Set of structured-merge-diff.
import { isObject } from "../patch/json-value.ts";

export interface FieldSet {
  readonly [element: string]: FieldSet;
}
type Node = { [element: string]: FieldSet };

export const emptySet: FieldSet = Object.freeze({});
/** A node that is in the set and has nothing below. */
export const leaf: FieldSet = Object.freeze({});
const self = ".";

export const isEmptySet = (set: FieldSet): boolean => {
  for (const _ in set) return false;
  return true;
};
/** Whether the node itself is in the set; not for roots. */
export const isMember = (node: FieldSet): boolean => isEmptySet(node) || Object.hasOwn(node, self);
/** A field may be called `__proto__`, its element may not: all elements have a prefix. */
export const fieldElement = (name: string): string => `f:${name}`;

/** A node out of what is below it. Undefined: nothing of it is in the set. */
export function nodeOf(children: FieldSet | undefined, member: boolean): FieldSet | undefined {
  if (children === undefined || isEmptySet(children)) return member ? leaf : undefined;
  const has = Object.hasOwn(children, self);
  if (has === member) return children;
  if (member) return { ".": leaf, ...children };
  const { ".": _self, ...rest } = children;
  return isEmptySet(rest) ? undefined : rest;
}

/** A set of the given paths, each a list of elements. */
export function setOfPaths(paths: readonly (readonly string[])[]): FieldSet {
  return paths.reduce<FieldSet>((set, path) => {
    const one = path.reduceRight<FieldSet>((below, element) => ({ [element]: below }), leaf);
    return union(set, one);
  }, emptySet);
}

export function hasPath(set: FieldSet, path: readonly string[]): boolean {
  let node: FieldSet | undefined = set;
  for (const element of path) node = node && Object.hasOwn(node, element) ? node[element] : undefined;
  return node !== undefined && isMember(node);
}

export function union(a: FieldSet, b: FieldSet): FieldSet {
  if (a === b || isEmptySet(b)) return a;
  return isEmptySet(a) ? b : unionNodes(a, b);
}

function unionNodes(a: FieldSet, b: FieldSet): FieldSet {
  if (a === b) return a;
  const member = isMember(a) || isMember(b);
  let out: Node | undefined;
  for (const element of Object.keys(b)) {
    if (element === self) continue;
    const below = b[element]!;
    const mine = Object.hasOwn(a, element) ? a[element] : undefined;
    const joined = mine ? unionNodes(mine, below) : below;
    if (joined === mine) continue;
    out ??= { ...a };
    out[element] = joined;
  }
  return nodeOf(out ?? a, member) ?? leaf;
}

/** What is in `a` and not in `b`; only exact paths count, what is below a path of `b` stays. */
export function difference(a: FieldSet, b: FieldSet): FieldSet {
  if (isEmptySet(a) || isEmptySet(b)) return a;
  return differenceOfNodes(a, b) ?? emptySet;
}

function differenceOfNodes(a: FieldSet, b: FieldSet): FieldSet | undefined {
  const member = isMember(a) && !isMember(b);
  let out: Node | undefined;
  for (const element of Object.keys(b)) {
    if (element === self || !Object.hasOwn(a, element)) continue;
    const mine = a[element]!;
    const rest = differenceOfNodes(mine, b[element]!);
    if (rest === mine) continue;
    out ??= { ...a };
    if (rest) out[element] = rest;
    else delete out[element];
  }
  if (!out && member === isMember(a)) return a;
  return nodeOf(out ?? a, member);
}

/** What is in `a` and neither in `b` nor below a path of `b`. */
export function differenceBelow(a: FieldSet, b: FieldSet): FieldSet {
  if (isEmptySet(a) || isEmptySet(b)) return a;
  return without(a, b) ?? emptySet;
}

function without(a: FieldSet, b: FieldSet): FieldSet | undefined {
  let out: Node | undefined;
  for (const element of Object.keys(b)) {
    if (element === self || !Object.hasOwn(a, element)) continue;
    const mine = a[element]!;
    const other = b[element]!;
    const rest = isMember(other) ? undefined : without(mine, other);
    if (rest === mine) continue;
    out ??= { ...a };
    if (rest) out[element] = rest;
    else delete out[element];
  }
  return out ? nodeOf(out, Object.hasOwn(a, self)) : a;
}

export function intersection(a: FieldSet, b: FieldSet): FieldSet {
  if (isEmptySet(a) || isEmptySet(b)) return emptySet;
  return intersectionOfNodes(a, b) ?? emptySet;
}

function intersectionOfNodes(a: FieldSet, b: FieldSet): FieldSet | undefined {
  if (a === b) return a;
  const out: Node = {};
  for (const element of Object.keys(a)) {
    if (element === self || !Object.hasOwn(b, element)) continue;
    const common = intersectionOfNodes(a[element]!, b[element]!);
    if (common) out[element] = common;
  }
  return nodeOf(out, isMember(a) && isMember(b));
}

export function equalSets(a: FieldSet, b: FieldSet): boolean {
  if (a === b) return true;
  const elements = Object.keys(a);
  if (elements.length !== Object.keys(b).length) return false;
  for (const element of elements) {
    if (!Object.hasOwn(b, element) || !equalSets(a[element]!, b[element]!)) return false;
  }
  return true;
}

/** Paths in the set, as `.spec.containers[name="x"].image`; at each level what is there before what is below. */
export function pathsOf(set: FieldSet): string[] {
  const out: string[] = [];
  const walk = (node: FieldSet, path: string): void => {
    const elements = sortElements(Object.keys(node).filter((element) => element !== self));
    for (const element of elements) if (isMember(node[element]!)) out.push(path + elementText(element));
    for (const element of elements) walk(node[element]!, path + elementText(element));
  };
  walk(set, "");
  return out;
}

/** An element as messages show it. */
export function elementText(element: string): string {
  const rest = element.slice(2);
  switch (element[0]) {
    case "f":
      return `.${rest}`;
    case "k": {
      const keys = Object.entries(JSON.parse(rest) as object);
      return `[${keys.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(",")}]`;
    }
    case "v":
      return `[=${rest}]`;
    default:
      return `[${rest}]`;
  }
}

/** Fields, then keys, then values, then places; each by its text: the order of texts but for places. */
function sortElements(elements: string[]): string[] {
  elements.sort();
  if (!elements.some((element) => element.startsWith("i:"))) return elements;
  return [...elements.filter((element) => !element.startsWith("i:")), ...elements.filter((e) => e.startsWith("i:"))];
}

/** The same set with elements in upstream's order, which is what gets stored. */
export function inOrder(set: FieldSet): FieldSet {
  const given = Object.keys(set);
  if (given.length === 0) return leaf;
  const elements = sortElements([...given]);
  let isSame = true;
  const out: Node = {};
  for (let index = 0; index < elements.length; index++) {
    const element = elements[index]!;
    const below = inOrder(set[element]!);
    if (element !== given[index] || below !== set[element]) isSame = false;
    out[element] = below;
  }
  return isSame ? set : out;
}

/** Nesting of sets that clients send; objects are not nested deeper. */
const maxDepth = 500;

/** Checks and canonicalises a set that came from outside; rejects with FieldSetError. */
export function parseFieldSet(value: unknown): FieldSet {
  const root = parseNode(value, 0);
  const { ".": _self, ...rest } = root;
  return rest;
}

export class FieldSetError extends Error {}

function parseNode(value: unknown, depth: number): FieldSet {
  if (!isObject(value)) throw invalidSet("a set of fields must be an object");
  if (depth > maxDepth) throw invalidSet("a set of fields is nested too deep");
  const out: Node = {};
  for (const element of Object.keys(value)) {
    const below = parseNode(value[element], depth + 1);
    out[element === self ? element : canonicalElement(element)] = below;
  }
  return out;
}

function canonicalElement(element: string): string {
  const rest = element.slice(2);
  switch (element.slice(0, 2)) {
    case "f:":
      return element;
    case "i:":
      if (!/^\d{1,9}$/.test(rest)) break;
      return element;
    case "v:":
      return `v:${JSON.stringify(parseScalar(rest))}`;
    case "k:": {
      const keys = parseScalar(rest);
      if (!isObject(keys)) break;
      return keyElement(Object.keys(keys).map((name) => [name, keys[name]]));
    }
  }
  throw invalidSet(`${JSON.stringify(element.slice(0, 100))} is no path element`);
}

function parseScalar(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new FieldSetError("a path element is no JSON", { cause });
  }
}

/** The element of an item of a keyed list; keys are sorted by name. */
export function keyElement(keys: [name: string, value: unknown][]): string {
  if (keys.length > 1) keys.sort(([a], [b]) => (a < b ? -1 : 1));
  const members = keys.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  return `k:{${members.join(",")}}`;
}

const invalidSet = (why: string): FieldSetError => new FieldSetError(why);
