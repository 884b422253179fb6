// Who owns which field after a write. An update makes its manager own what it changed and takes that from everybody
// else; an apply makes its manager own what it says, takes out what it said before and nobody else owns, and conflicts
// with others whose fields it changes unless forced. Pure: objects are shared, results are new.
// Upstream counterpart: merge.Updater of structured-merge-diff with the chain of managers in apimachinery's managedfields.
import type { ObjectMeta } from "../gen/meta-v1.ts";
import type { UnknownObject } from "../object.ts";
import type { JsonObject } from "../patch/json-value.ts";
import { equalJson, isObject } from "../patch/json-value.ts";
import { ApiError, badRequest, type StatusCause } from "../status.ts";
import {
  difference,
  differenceBelow,
  emptySet,
  equalSets,
  type FieldSet,
  inOrder,
  intersection,
  isEmptySet,
  leaf,
  pathsOf,
  union,
} from "./field-set.ts";
import {
  capUpdaters,
  decodeForeign,
  decodeStored,
  encodeManagers,
  isReset,
  type ManagerInfo,
  type Managers,
  managerId,
  managerInfo,
  setFields,
} from "./managers.ts";
import type { MapSchema } from "./schema.ts";
import {
  compareValues,
  type Differences,
  fieldsOf,
  mergeValues,
  removeFields,
  schemaErrors,
  withNamedFields,
} from "./typed.ts";

/** A kind in another version than the one of the request. */
export interface OtherVersion {
  readonly schema: MapSchema;
  to(object: JsonObject): JsonObject;
  from(object: JsonObject): JsonObject;
}
/** What is written to. */
export interface Target {
  /** Of the request: what its manager's fields are of. */
  readonly apiVersion: string;
  readonly kind: string;
  readonly schema: MapSchema;
  readonly subresource: string;
  /** Fields that a write to this target does not take over; all that is below them too. */
  readonly resets: FieldSet;
  /** Undefined: not served (any more); who owned fields in it owns them no longer. */
  other(apiVersion: string): OtherVersion | undefined;
}
export interface Write {
  readonly manager: string;
  /** RFC 3339, seconds. */
  readonly now: string;
}

/** What nobody owns: the server's own, and what names the object. */
const stripped: FieldSet = {
  "f:apiVersion": leaf,
  "f:kind": leaf,
  "f:metadata": {
    ".": leaf,
    "f:creationTimestamp": leaf,
    "f:generation": leaf,
    "f:managedFields": leaf,
    "f:name": leaf,
    "f:namespace": leaf,
    "f:resourceVersion": leaf,
    "f:selfLink": leaf,
    "f:uid": leaf,
  },
};
const beforeFirstApply = "before-first-apply";
const kubectl = "kubectl";
const lastAppliedAnnotation = "kubectl.kubernetes.io/last-applied-configuration";
/** All annotations together; a longer last-applied text is left empty. */
const maxAnnotationBytes = 256 * 1024;

/** `next` as it is to be stored after a create (`live` undefined) or an update. */
export function trackUpdate(
  target: Target,
  live: UnknownObject | undefined,
  next: UnknownObject,
  write: Write,
): UnknownObject {
  const managers = givenManagers(target, live, next);
  // An object that nobody ever tracked, or for which a client gave tracking up, stays so until it is applied.
  if (managers.size === 0 && live) return withManagers(next, managers);
  updateManagers(target, managers, live, next, write);
  return withManagers(next, managers);
}

/** The table to begin with: a client may send one of its own, except through a subresource. */
function givenManagers(target: Target, live: UnknownObject | undefined, next: UnknownObject): Managers {
  const stored = live?.metadata.managedFields;
  const sent = next.metadata.managedFields;
  if (target.subresource !== "" || sent === undefined || sent === stored) return decodeStored(stored);
  if (isReset(sent)) return new Map();
  if (stored !== undefined && equalJson(sent, stored)) return decodeStored(stored);
  const managers = decodeForeign(sent);
  return managers && managers.size > 0 ? managers : decodeStored(stored);
}

function updateManagers(
  target: Target,
  managers: Managers,
  live: UnknownObject | undefined,
  next: UnknownObject,
  write: Write,
): void {
  const differences = new DifferencesByVersion(target, live, next);
  const info = managerInfo(write.manager, "Update", target);
  const id = managerId(info);
  takeOver(managers, differences, { id, losesRemoved: true }, true);
  const taken = difference(differences.own.changed, stripped);
  if (!isEmptySet(taken)) {
    const before = managers.get(id)?.fields ?? emptySet;
    const fields = union(before, taken);
    managers.set(id, { ...info, time: write.now, fields: fields === before ? before : inOrder(fields) });
  }
  capUpdaters(managers);
}

/** What differs, in each version that somebody owns fields in. */
class DifferencesByVersion {
  readonly #target: Target;
  readonly #live: JsonObject;
  readonly #next: JsonObject;
  readonly #known = new Map<string, Differences | undefined>();
  constructor(target: Target, live: UnknownObject | undefined, next: UnknownObject) {
    this.#target = target;
    this.#live = live ? untracked(live) : {};
    this.#next = untracked(next);
  }

  get own(): Differences {
    return this.in(this.#target.apiVersion)!;
  }

  /** Undefined: the version is not served. */
  in(apiVersion: string): Differences | undefined {
    if (!this.#known.has(apiVersion)) this.#known.set(apiVersion, this.#compare(apiVersion));
    return this.#known.get(apiVersion);
  }

  #compare(apiVersion: string): Differences | undefined {
    const { apiVersion: own, schema, resets } = this.#target;
    let found: Differences;
    if (apiVersion === own) found = compareValues(schema, this.#live, this.#next);
    else {
      const other = this.#target.other(apiVersion);
      if (!other) return undefined;
      const live = Object.keys(this.#live).length === 0 ? this.#live : other.to(this.#live);
      found = compareValues(other.schema, live, other.to(this.#next));
    }
    return {
      changed: differenceBelow(found.changed, resets),
      removed: differenceBelow(found.removed, resets),
    };
  }
}

/** managedFields itself is no field that could be owned. */
function untracked(object: UnknownObject): JsonObject {
  if (object.metadata?.managedFields === undefined) return object;
  const { managedFields: _managedFields, ...metadata } = object.metadata;
  return { ...object, metadata };
}

type Conflicts = Map<string, { readonly info: ManagerInfo; readonly fields: FieldSet }>;

interface Workflow {
  readonly id: string;
  /** An applier owns what it says, be it there or not. */
  readonly losesRemoved: boolean;
}

/** Takes what changed from all but the writer, and what is gone from all. Rejects with the conflicts unless forced. */
function takeOver(managers: Managers, differences: DifferencesByVersion, writer: Workflow, force: boolean): void {
  const conflicts: Conflicts = new Map();
  const left = new Map<string, FieldSet>();
  for (const [id, manager] of managers) {
    const isWriter = id === writer.id;
    if (isWriter && !writer.losesRemoved) continue;
    const found = differences.in(manager.apiVersion);
    if (!found) {
      left.set(id, emptySet);
      continue;
    }
    // What the writer changed it owns anyway; its set then often stays the very same.
    const lost = isWriter ? emptySet : intersection(manager.fields, found.changed);
    if (!isEmptySet(lost)) conflicts.set(id, { info: manager, fields: lost });
    left.set(id, difference(difference(manager.fields, lost), found.removed));
  }
  if (!force && conflicts.size > 0) throw new ConflictError(conflicts);
  for (const [id, fields] of left) setFields(managers, id, fields);
  for (const [id, manager] of managers) if (isEmptySet(manager.fields)) managers.delete(id);
}

class ConflictError extends Error {
  readonly conflicts: Conflicts;
  constructor(conflicts: Conflicts) {
    super("apply conflicts");
    this.conflicts = conflicts;
  }
}

export interface ApplyWrite extends Write {
  readonly force: boolean;
}

/** `live` (undefined: there is none) after an apply of `config`, which is as the client wrote it. */
export function trackApply(
  target: Target,
  live: UnknownObject | undefined,
  config: JsonObject,
  write: ApplyWrite,
): UnknownObject {
  checkConfig(target, config);
  const managers = decodeStored(live?.metadata.managedFields);
  if (managers.size === 0 && live) {
    updateManagers(target, managers, undefined, live, { ...write, manager: beforeFirstApply });
  }
  const current = live ? untracked(live) : {};
  let applied: Applied;
  try {
    applied = applyConfig(target, current, config, managers, write);
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error;
    const serious = write.manager === kubectl ? beyondLastApplied(target, current, error.conflicts) : error.conflicts;
    if (serious.size > 0) throw conflictStatus(serious);
    applied = applyConfig(target, current, config, managers, { ...write, force: true });
  }
  const result = withManagers(applied.object as UnknownObject, applied.managers);
  return write.manager === kubectl ? withLastApplied(result, config) : result;
}

function checkConfig(target: Target, config: JsonObject): void {
  const { apiVersion, kind } = config;
  if (apiVersion !== target.apiVersion || kind !== target.kind) {
    const shown = `${typeof apiVersion === "string" ? apiVersion || "/" : "/"}, Kind=${typeof kind === "string" ? kind : ""}`;
    throw badRequest(`invalid object type: ${shown}`);
  }
  const metadata = isObject(config["metadata"]) ? config["metadata"] : {};
  if ((metadata["managedFields"] ?? undefined) !== undefined) throw badRequest("metadata.managedFields must be nil");
  const errors = schemaErrors(target.schema, config);
  if (errors.length === 0) return;
  const text = (value: unknown) => (typeof value === "string" ? value : "");
  const namespace = text(metadata["namespace"]);
  const name = text(metadata["name"]);
  const where = namespace === "" ? `/${name}` : `${namespace}/${name}`;
  const why = errors.length === 1 ? errors[0]! : `errors:\n${errors.map((error) => `  ${error}`).join("\n")}`;
  throw new ApiError(500, "", `failed to create typed patch object (${where}; ${apiVersion}, Kind=${kind}): ${why}`);
}

interface Applied {
  readonly object: JsonObject;
  readonly managers: Managers;
}

function applyConfig(
  target: Target,
  live: JsonObject,
  config: JsonObject,
  before: Managers,
  write: ApplyWrite,
): Applied {
  const managers: Managers = new Map(before);
  const info = managerInfo(write.manager, "Apply", target);
  const id = managerId(info);
  const last = before.get(id);
  const fields = differenceBelow(fieldsOf(target.schema, config), target.resets);
  managers.set(id, { ...info, time: last?.time, fields });
  const merged = mergeValues(target.schema, live, config);
  // Who says all that it said before, takes nothing out.
  const drops = last && (last.apiVersion !== info.apiVersion || !isEmptySet(difference(last.fields, fields)));
  const object = drops ? prune(target, merged, managers, last.apiVersion, last.fields) : merged;
  const differences = new DifferencesByVersion(target, live as UnknownObject, object as UnknownObject);
  takeOver(managers, differences, { id, losesRemoved: false }, write.force);
  const own = managers.get(id);
  if (own) {
    const kept = difference(own.fields, stripped);
    if (isEmptySet(kept)) managers.delete(id);
    else managers.set(id, { ...own, fields: inOrder(kept) });
  }
  const isSame = isEmptySet(differences.own.changed) && isEmptySet(differences.own.removed);
  const mine = managers.get(id);
  if (mine && !(isSame && sameManagers(before, managers))) managers.set(id, { ...mine, time: write.now });
  // What was reset is not the applier's to change.
  return { object: isSame ? keepAsked(live, config) : object, managers };
}

/** Nothing changes, but a client that names a revision or uid still wants it to be that one. */
function keepAsked(live: JsonObject, config: JsonObject): JsonObject {
  const asked = isObject(config["metadata"]) ? config["metadata"] : {};
  const metadata = isObject(live["metadata"]) ? live["metadata"] : {};
  const kept: JsonObject = {};
  for (const name of ["name", "namespace", "uid", "resourceVersion"]) {
    if (typeof asked[name] === "string" && asked[name] !== "") kept[name] = asked[name];
  }
  return { ...live, metadata: { ...metadata, ...kept } };
}

function sameManagers(a: Managers, b: Managers): boolean {
  if (a.size !== b.size) return false;
  for (const [id, manager] of a) {
    const other = b.get(id);
    if (!other || other.apiVersion !== manager.apiVersion || !equalSets(manager.fields, other.fields)) return false;
  }
  return true;
}

/** Takes out of `merged` what the manager said before (`last`) and nobody says now. */
function prune(
  target: Target,
  merged: JsonObject,
  managers: Managers,
  lastVersion: string,
  last: FieldSet,
): JsonObject {
  const other = lastVersion === target.apiVersion ? undefined : target.other(lastVersion);
  // A version that is gone cannot be looked at: what was said in it stays.
  if (lastVersion !== target.apiVersion && !other) return merged;
  const schema = other?.schema ?? target.schema;
  const whole = other ? other.to(merged) : merged;
  const named = withNamedFields(schema, last);
  const all = withNamedFields(schema, fieldsOf(schema, whole));
  let pruned = removeFields(schema, whole, named);
  const owned = new Map<string, FieldSet>();
  for (const { apiVersion, fields } of managers.values()) {
    owned.set(apiVersion, union(owned.get(apiVersion) ?? emptySet, fields));
  }
  const order = [...owned.keys()].sort((a, b) => Number(b === lastVersion) - Number(a === lastVersion));
  for (const apiVersion of order) {
    pruned = addBackOwned(target, lastVersion, whole, pruned, apiVersion, owned.get(apiVersion)!);
  }
  // What was not said before was not there because of it, and stays.
  const kept = withNamedFields(schema, fieldsOf(schema, pruned));
  const result = removeFields(schema, whole, intersection(difference(all, kept), named));
  return other ? other.from(result) : result;
}

/** `pruned` with the parts of `whole` that somebody owns in `apiVersion`; both are in `version`. */
function addBackOwned(
  target: Target,
  version: string,
  whole: JsonObject,
  pruned: JsonObject,
  apiVersion: string,
  owned: FieldSet,
): JsonObject {
  const convert = conversion(target, version, apiVersion);
  if (!convert) return pruned;
  const { schema, there, back } = convert;
  const full = there(whole);
  const all = withNamedFields(schema, fieldsOf(schema, full));
  const kept = withNamedFields(schema, fieldsOf(schema, there(pruned)));
  const keep = union(kept, withNamedFields(schema, owned));
  return back(removeFields(schema, full, difference(all, keep)));
}

interface Conversion {
  readonly schema: MapSchema;
  readonly there: (object: JsonObject) => JsonObject;
  readonly back: (object: JsonObject) => JsonObject;
}
const unchanged = (object: JsonObject): JsonObject => object;

function conversion(target: Target, from: string, to: string): Conversion | undefined {
  const version = (name: string): OtherVersion | undefined =>
    name === target.apiVersion ? { schema: target.schema, to: unchanged, from: unchanged } : target.other(name);
  const source = version(from);
  const goal = version(to);
  if (!source || !goal) return undefined;
  if (from === to) return { schema: goal.schema, there: unchanged, back: unchanged };
  return {
    schema: goal.schema,
    there: (object) => goal.to(source.from(object)),
    back: (object) => source.to(goal.from(object)),
  };
}

// Conflicts

/** Conflicts about what the last client-side apply said and nobody changed since are none: kubectl takes it over. */
function beyondLastApplied(target: Target, live: JsonObject, conflicts: Conflicts): Conflicts {
  const allowed = lastAppliedFields(target, live);
  if (!allowed) return conflicts;
  const out: Conflicts = new Map();
  for (const [id, { info, fields }] of conflicts) {
    const rest = difference(fields, allowed);
    if (!isEmptySet(rest)) out.set(id, { info, fields: rest });
  }
  return out;
}

function lastAppliedFields(target: Target, live: JsonObject): FieldSet | undefined {
  const text = annotationsOf(live)?.[lastAppliedAnnotation];
  if (typeof text !== "string" || text === "") return undefined;
  let last: unknown;
  try {
    last = JSON.parse(text);
  } catch {
    // A broken annotation allows nothing.
    return undefined;
  }
  if (!isObject(last) || last["apiVersion"] !== target.apiVersion || last["kind"] !== target.kind) return undefined;
  if (schemaErrors(target.schema, last).length > 0) return undefined;
  const { changed, removed } = compareValues(target.schema, last, live);
  return difference(difference(fieldsOf(target.schema, last), changed), removed);
}

function annotationsOf(object: JsonObject): JsonObject | undefined {
  const metadata = object["metadata"];
  const annotations = isObject(metadata) ? metadata["annotations"] : undefined;
  return isObject(annotations) ? annotations : undefined;
}

/** Keeps the annotation of client-side apply in step, so that going back to it works. */
function withLastApplied(object: UnknownObject, config: JsonObject): UnknownObject {
  const annotations = annotationsOf(object);
  if (!annotations?.[lastAppliedAnnotation]) return object;
  let text = `${sortedJson(config)}\n`;
  const others = Object.entries(annotations).filter(([name]) => name !== lastAppliedAnnotation);
  const size = others.reduce((sum, [name, value]) => sum + name.length + String(value).length, text.length);
  if (size + lastAppliedAnnotation.length > maxAnnotationBytes) text = "";
  return {
    ...object,
    metadata: {
      ...object.metadata,
      annotations: { ...(annotations as Record<string, string>), [lastAppliedAnnotation]: text },
    },
  };
}

function sortedJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sortedJson).join(",")}]`;
  if (typeof value === "bigint") return String(value);
  if (!isObject(value)) return JSON.stringify(value);
  const members = Object.keys(value).sort();
  return `{${members.map((name) => `${JSON.stringify(name)}:${sortedJson(value[name])}`).join(",")}}`;
}

function conflictStatus(conflicts: Conflicts): ApiError {
  const list = [...conflicts.values()]
    .map(({ info, fields }) => ({ who: managerText(info), paths: pathsOf(fields) }))
    .sort((a, b) => (a.who < b.who ? -1 : a.who > b.who ? 1 : 0));
  const causes: StatusCause[] = list.flatMap(({ who, paths }) =>
    paths.map((field) => ({ reason: "FieldManagerConflict", message: `conflict with ${who}`, field })),
  );
  const one = causes.length === 1 ? causes[0] : undefined;
  const details = list.flatMap(({ who, paths }) => [`conflicts with ${who}:`, ...paths.map((path) => `- ${path}`)]);
  const message = one
    ? `Apply failed with 1 conflict: ${one.message}: ${one.field}`
    : `Apply failed with ${causes.length} conflicts: ${details.join("\n")}`;
  return new ApiError(409, "Conflict", message, { causes });
}

function managerText(info: ManagerInfo): string {
  const name = JSON.stringify(info.manager);
  const through = info.subresource === "" ? "" : ` with subresource ${JSON.stringify(info.subresource)}`;
  return `${name}${through}${info.operation === "Update" ? ` using ${info.apiVersion}` : ""}`;
}

function withManagers(object: UnknownObject, managers: Managers): UnknownObject {
  const { managedFields: _managedFields, ...metadata } = (object.metadata ?? {}) as ObjectMeta;
  const entries = encodeManagers(managers);
  return { ...object, metadata: entries ? { ...metadata, managedFields: entries } : metadata };
}
