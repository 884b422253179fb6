// Strategic merge patch: a merge patch that knows which lists are merged by key, from the facts table.
// Directives: `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/<list>`,
// `$setElementOrder/<list>`. Neither document nor patch is changed; failures are 400 statuses as upstream's.
// Upstream counterpart: apimachinery/pkg/util/strategicpatch (apply side).
import { type FieldFacts, facts, type MessageFacts } from "../facts.ts";
import { type ApiError, badRequest } from "../status.ts";
import { canonicalText, cloneJson, copyOf, get, isObject, type JsonObject, set } from "./json-value.ts";

const patchDirective = "$patch";
const retainKeysDirective = "$retainKeys";
const deleteFromList = "$deleteFromPrimitiveList/";
const setElementOrder = "$setElementOrder/";

/** `typeName`: message of the facts table, `core/v1.Pod`. */
export function applyStrategicMerge(typeName: string, document: unknown, patch: unknown): unknown {
  if (!isObject(patch))
    throw badRequest("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}");
  return mergeObject(facts.message(typeName), isObject(document) ? document : {}, patch);
}

/** Undefined as type: a map or a value that the table does not describe; plain merge rules. */
function mergeObject(type: MessageFacts | undefined, original: JsonObject, patch: JsonObject): JsonObject {
  if (Object.hasOwn(patch, patchDirective)) {
    const directive = patch[patchDirective];
    const rest = copyOf(patch);
    delete rest[patchDirective];
    if (directive === "replace") return stripDirectives(rest) as JsonObject;
    if (directive === "delete") return {};
    if (directive !== "merge") throw unknownDirective(directive, patch);
    return mergeObject(type, original, rest);
  }
  const result = retainKeys(original, patch);
  for (const name of Object.keys(patch)) {
    const value = patch[name];
    if (name === retainKeysDirective || name.startsWith(setElementOrder)) continue;
    if (name.startsWith(deleteFromList)) {
      applyPrimitiveDeletions(result, name.slice(deleteFromList.length), value, patch);
      continue;
    }
    if (value === null) {
      delete result[name];
      continue;
    }
    const field = type?.members.get(name);
    const old = get(result, name);
    if (isObject(value)) {
      const strategies = field?.patchStrategies ?? [];
      if (!isObject(old) || strategies.includes("replace")) set(result, name, addedValue(field, value));
      else set(result, name, mergeObject(fieldMessage(field), old, value));
    } else if (Array.isArray(value)) {
      set(result, name, mergeList(field, name, Array.isArray(old) ? old : undefined, value, patch));
    } else set(result, name, value);
  }
  applyOrders(type, result, original, patch);
  return result;
}

const fieldMessage = (field: FieldFacts | undefined): MessageFacts | undefined =>
  field?.isMessage && !field.map ? facts.find(field.type) : undefined;
const elementMessage = (field: FieldFacts | undefined): MessageFacts | undefined =>
  field?.isMessage ? facts.find(field.type) : undefined;

/** A member that was not there: directives inside still mean what they say, on nothing. */
function addedValue(field: FieldFacts | undefined, value: JsonObject): unknown {
  if (Object.hasOwn(value, patchDirective) && value[patchDirective] === "delete") return {};
  return mergeObject(fieldMessage(field), {}, value);
}

function mergeList(
  field: FieldFacts | undefined,
  name: string,
  original: readonly unknown[] | undefined,
  patch: readonly unknown[],
  holder: JsonObject,
): unknown {
  const merges = field?.patchStrategies.includes("merge") === true;
  if (!merges) return stripDirectives(patch);
  if (patch.some((item) => isObject(item)) || original?.some((item) => isObject(item))) {
    const mergeKey = field.mergeKey;
    if (mergeKey === "") throw badRequest(`map: ${name} does not contain declared merge key`);
    return mergeKeyedList(elementMessage(field), mergeKey, original ?? [], patch, holder);
  }
  const result = [...(original ?? [])];
  const known = new Set(result.map(keyText));
  for (const item of patch) {
    const text = keyText(item);
    if (!known.has(text)) result.push(item);
    known.add(text);
  }
  return result;
}

/** The same for equal values. Lists may be as long as a body: what is looked for in one must not be looked for one by one. */
const keyText = (value: unknown): string => (value === undefined ? "" : canonicalText(value));
/** Where each key stands first. */
function placesOf(keys: readonly unknown[]): Map<string, number> {
  const places = new Map<string, number>();
  for (const [index, key] of keys.entries()) {
    const text = keyText(key);
    if (!places.has(text)) places.set(text, index);
  }
  return places;
}

function mergeKeyedList(
  type: MessageFacts | undefined,
  mergeKey: string,
  original: readonly unknown[],
  patch: readonly unknown[],
  holder: JsonObject,
): unknown[] {
  const elements: JsonObject[] = [];
  const deleted = new Set<string>();
  let replace = false;
  for (const element of patch) {
    if (!isObject(element)) throw badRequest("expected a list of maps in the patch");
    const directive = get(element, patchDirective);
    if (directive === undefined) {
      elements.push(element);
    } else if (directive === "delete") {
      if (!Object.hasOwn(element, mergeKey)) throw noMergeKey(element, mergeKey);
      deleted.add(keyText(element[mergeKey]));
    } else if (directive === "replace") {
      replace = true;
      const rest = copyOf(element);
      delete rest[patchDirective];
      // `- $patch: replace` alone is the directive of the whole list; with members it is an element as well.
      if (Object.keys(rest).length > 0) elements.push(rest);
    } else if (directive === "merge") {
      const rest = copyOf(element);
      delete rest[patchDirective];
      elements.push(rest);
    } else throw unknownDirective(directive, holder);
  }
  if (replace) return elements.map(stripDirectives);
  const result = original.filter((item) => !isObject(item) || !deleted.has(keyText(get(item, mergeKey))));
  const places = new Map<string, number>();
  const note = (item: unknown, index: number) => {
    const text = isObject(item) ? keyText(get(item, mergeKey)) : undefined;
    if (text !== undefined && !places.has(text)) places.set(text, index);
  };
  result.forEach(note);
  for (const element of elements) {
    if (!Object.hasOwn(element, mergeKey)) throw noMergeKey(element, mergeKey);
    const index = places.get(keyText(element[mergeKey]));
    if (index !== undefined) result[index] = mergeObject(type, result[index] as JsonObject, element);
    else {
      const made = mergeObject(type, {}, element);
      note(made, result.length);
      result.push(made);
    }
  }
  return result;
}

/** With `$retainKeys` only the listed members of the original survive. */
function retainKeys(original: JsonObject, patch: JsonObject): JsonObject {
  const result = copyOf(original);
  const retained = get(patch, retainKeysDirective);
  if (retained === undefined) return result;
  if (!Array.isArray(retained)) throw badRequest("$retainKeys directive must be a list");
  for (const name of Object.keys(patch)) {
    if (name.startsWith("$") || patch[name] === null || retained.includes(name)) continue;
    throw badRequest("the keys in the patch are not all in the $retainKeys list");
  }
  for (const name of Object.keys(result)) if (!retained.includes(name)) delete result[name];
  return result;
}

function applyPrimitiveDeletions(result: JsonObject, name: string, values: unknown, patch: JsonObject): void {
  if (!Array.isArray(values)) throw badRequest(`${deleteFromList}${name} must be a list`);
  const list = get(result, name);
  if (!Array.isArray(list)) return;
  const gone = new Set(values.map(keyText));
  const kept = list.filter((item) => !gone.has(keyText(item)));
  // What the same patch adds is put back by the merge of the list itself, which may come before or after.
  const added = get(patch, name);
  if (Array.isArray(added)) {
    const before = new Set(list);
    const after = new Set(kept);
    for (const item of added) {
      if (before.has(item) && !after.has(item)) kept.push(item);
      after.add(item);
    }
  }
  set(result, name, kept);
}

/** Orders merged lists: items the patch names in its order, items only the server has keep their place between. */
function applyOrders(
  type: MessageFacts | undefined,
  result: JsonObject,
  original: JsonObject,
  patch: JsonObject,
): void {
  for (const directive of Object.keys(patch)) {
    if (!directive.startsWith(setElementOrder)) continue;
    const name = directive.slice(setElementOrder.length);
    const order = patch[directive];
    const list = get(result, name);
    if (!Array.isArray(order)) throw badRequest(`${directive} must be a list`);
    if (!Array.isArray(list)) continue;
    const field = type?.members.get(name);
    const mergeKey = field?.mergeKey ?? "";
    const keyOf = (item: unknown): unknown => (isObject(item) && mergeKey !== "" ? get(item, mergeKey) : item);
    const ranks = placesOf(order.map(keyOf));
    const before = Array.isArray(get(original, name)) ? (get(original, name) as unknown[]) : [];
    const places = placesOf(before.map(keyOf));
    const items = list.map((item): Ordered => {
      const key = keyText(keyOf(item));
      return { item, rank: ranks.get(key) ?? -1, place: places.get(key) ?? -1 };
    });
    const named = items.filter(({ rank }) => rank >= 0).sort((a, b) => a.rank - b.rank);
    const others = items.filter(({ rank }) => rank < 0);
    set(result, name, interleave(named, others));
  }
}

interface Ordered {
  readonly item: unknown;
  /** Where the patch wants it; -1: the server has it alone. */
  readonly rank: number;
  /** Where it stood; -1: it is new. */
  readonly place: number;
}

/** Both lists keep their own order; a server-only item goes before the first named one that followed it before. */
function interleave(named: readonly Ordered[], others: readonly Ordered[]): unknown[] {
  const merged: unknown[] = [];
  let at = 0;
  for (const { item, place } of named) {
    while (at < others.length && others[at]!.place >= 0 && others[at]!.place < place) merged.push(others[at++]!.item);
    merged.push(item);
  }
  for (const { item } of others.slice(at)) merged.push(item);
  return merged;
}

/** Values that come in whole carry no directives. */
function stripDirectives(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value
      .filter((item) => !(isObject(item) && (item[patchDirective] === "delete" || onlyDirective(item))))
      .map(stripDirectives);
  }
  if (!isObject(value)) return value;
  const result: JsonObject = {};
  for (const name of Object.keys(value)) {
    if (name === patchDirective || name === retainKeysDirective) continue;
    if (name.startsWith(deleteFromList) || name.startsWith(setElementOrder)) continue;
    if (value[name] !== null) set(result, name, stripDirectives(value[name]));
  }
  return cloneJson(result);
}
const onlyDirective = (item: JsonObject): boolean =>
  Object.hasOwn(item, patchDirective) && Object.keys(item).length === 1;

const noMergeKey = (element: JsonObject, mergeKey: string): ApiError =>
  badRequest(`map: ${goMap(element)} does not contain declared merge key: ${mergeKey}`);
const unknownDirective = (directive: unknown, patch: JsonObject): ApiError =>
  badRequest(`unknown patch directive ${JSON.stringify(directive)} in map: ${goMap(patch)}`);

/** A map as Go's %v prints it, bounded. */
function goMap(value: unknown): string {
  if (isObject(value)) {
    const parts = Object.keys(value)
      .sort()
      .map((name) => `${name}:${goMap(value[name])}`);
    return `map[${parts.join(" ")}]`.slice(0, 1000);
  }
  return Array.isArray(value) ? `[${value.map(goMap).join(" ")}]`.slice(0, 1000) : String(value);
}
