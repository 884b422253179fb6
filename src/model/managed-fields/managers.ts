// metadata.managedFields as a table of managers: who owns which fields, by which kind of write, in which version and
// through which subresource. Updates of one manager in two versions are two entries; an applier is one whatever its
// version. Upstream counterpart: managedfields/internal (managedfields.go, capmanagers.go, buildmanagerinfo.go).
import type { ManagedFieldsEntry } from "../gen/meta-v1.ts";
import { equalJson, isObject } from "../patch/json-value.ts";
import { emptySet, type FieldSet, FieldSetError, inOrder, isEmptySet, parseFieldSet, union } from "./field-set.ts";

export type Operation = "Apply" | "Update";
export interface ManagerInfo {
  readonly manager: string;
  readonly operation: Operation;
  readonly apiVersion: string;
  readonly subresource: string;
}
export interface Manager extends ManagerInfo {
  /** RFC 3339 in UTC and whole seconds, so that order of texts is order in time. */
  readonly time: string | undefined;
  readonly fields: FieldSet;
}
/** By managerId. */
export type Managers = Map<string, Manager>;

/** Updaters an object remembers one by one; the oldest of more become one per version. */
const maxUpdaters = 10;
const ancientChanges = "ancient-changes";
const unknownManager = "unknown";

export const managerId = ({ operation, manager, subresource, apiVersion }: ManagerInfo): string =>
  `${operation}\0${manager}\0${subresource}\0${operation === "Update" ? apiVersion : ""}`;

export const managerInfo = (
  manager: string,
  operation: Operation,
  where: { readonly apiVersion: string; readonly subresource: string },
): ManagerInfo => ({
  manager: manager === "" ? unknownManager : manager,
  operation,
  apiVersion: where.apiVersion,
  subresource: where.subresource,
});

/** The table of a stored object, whose entries were checked when they were written. */
export function decodeStored(entries: unknown): Managers {
  return (Array.isArray(entries) && decodeEntries(entries, trusted)) || new Map();
}
/** The table of what a client sent; undefined when it is not valid. */
export function decodeForeign(entries: unknown): Managers | undefined {
  if (!Array.isArray(entries)) return undefined;
  try {
    return decodeEntries(entries, parseFieldSet);
  } catch (error) {
    // What is stored stays; upstream says nothing either.
    if (error instanceof FieldSetError) return undefined;
    throw error;
  }
}

const trusted = (fields: unknown): FieldSet => (isObject(fields) ? (fields as FieldSet) : emptySet);

function decodeEntries(entries: readonly unknown[], fieldsOf: (fields: unknown) => FieldSet): Managers | undefined {
  const managers: Managers = new Map();
  for (const given of entries) {
    if (!isObject(given)) return undefined;
    const entry: ManagedFieldsEntry = given;
    const { manager = "", operation, apiVersion = "", subresource = "", time, fieldsType, fieldsV1 } = entry;
    if ((operation !== "Apply" && operation !== "Update") || apiVersion === "" || fieldsType !== "FieldsV1") {
      return undefined;
    }
    const fields = fieldsV1 === undefined || fieldsV1 === null ? emptySet : fieldsOf(fieldsV1);
    const made: Manager = { manager, operation, apiVersion, subresource, time: time ?? undefined, fields };
    managers.set(managerId(made), made);
  }
  return managers;
}

/** `[{}]`: a client wants nobody to own anything. */
export const isReset = (entries: unknown): boolean =>
  Array.isArray(entries) && entries.length === 1 && isObject(entries[0]) && Object.values(entries[0]).every(isUnset);
const isUnset = (value: unknown): boolean => value === undefined || value === null || value === "";

/** Undefined: nobody owns anything. Appliers first, then by time, then by name. */
export function encodeManagers(managers: Managers): ManagedFieldsEntry[] | undefined {
  if (managers.size === 0) return undefined;
  const sorted = [...managers.values()].sort(
    (a, b) =>
      compareText(a.operation, b.operation) ||
      compareText(a.time ?? "", b.time ?? "") ||
      compareText(a.manager, b.manager) ||
      compareText(a.apiVersion, b.apiVersion) ||
      compareText(a.subresource, b.subresource),
  );
  return sorted.map(({ manager, operation, apiVersion, subresource, time, fields }) => ({
    manager,
    operation,
    apiVersion,
    ...(time === undefined ? {} : { time }),
    fieldsType: "FieldsV1",
    fieldsV1: fields as ManagedFieldsEntry["fieldsV1"] & object,
    ...(subresource === "" ? {} : { subresource }),
  }));
}

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Sets what a manager owns; nothing: it is no manager any more. The same set leaves the entry as it is. */
export function setFields(managers: Managers, id: string, fields: FieldSet): void {
  const manager = managers.get(id);
  if (!manager || manager.fields === fields) return;
  if (isEmptySet(fields)) managers.delete(id);
  else managers.set(id, { ...manager, fields: inOrder(fields) });
}

/** Joins the oldest updaters until there are no more than an object may have. */
export function capUpdaters(managers: Managers): void {
  const updaters = [...managers].filter(([, manager]) => manager.operation === "Update");
  let count = updaters.length;
  if (count <= maxUpdaters) return;
  updaters.sort(([idA, a], [idB, b]) => compareText(a.time ?? "", b.time ?? "") || compareText(idA, idB));
  const firstOf = new Map<string, string>();
  for (const [id, manager] of updaters) {
    if (count <= maxUpdaters) return;
    const { apiVersion, time } = manager;
    const first = firstOf.get(apiVersion);
    if (first === undefined) {
      firstOf.set(apiVersion, id);
      continue;
    }
    const bucket: ManagerInfo = { manager: ancientChanges, operation: "Update", apiVersion, subresource: "" };
    const bucketId = managerId(bucket);
    const old = managers.get(bucketId) ?? managers.get(first);
    if (id === bucketId) continue;
    if (!managers.has(bucketId)) managers.delete(first);
    managers.delete(id);
    const fields = inOrder(union(manager.fields, old?.fields ?? emptySet));
    managers.set(bucketId, { ...bucket, time, fields });
    count--;
  }
}

/** Whether two lists of entries differ in nothing but times. */
export function sameButTimes(a: readonly ManagedFieldsEntry[] = [], b: readonly ManagedFieldsEntry[] = []): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  return a.every((entry, index) => {
    const { time: _time, ...mine } = entry;
    const { time: _otherTime, ...other } = b[index]!;
    return equalJson(mine, other);
  });
}
