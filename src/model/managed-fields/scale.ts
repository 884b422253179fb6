// Ownership of replicas as the scale subresource sees it, and back: whoever owns the parent's replicas owns those of the
// Scale, and what a write to the Scale does to that is done to the parent. Upstream counterpart: managedfields.ScaleHandler.
import type { ManagedFieldsEntry } from "../gen/meta-v1.ts";
import { difference, type FieldSet, fieldElement, hasPath, inOrder, isEmptySet, setOfPaths } from "./field-set.ts";
import { decodeStored, encodeManagers, type Manager, type Managers, managerId } from "./managers.ts";

/** Where replicas are: in a Scale, and in all built-in parents. */
const replicas: readonly string[] = ["spec", "replicas"];
const replicasSet = setOf(replicas);
function setOf(names: readonly string[]): FieldSet {
  return setOfPaths([pathOf(names)]);
}
function pathOf(names: readonly string[]): string[] {
  return names.map(fieldElement);
}
const scaleVersion = "autoscaling/v1";

type Entries = readonly ManagedFieldsEntry[] | undefined;

/** Whoever it is, whatever the version. */
const whoOf = ({ manager, operation, subresource }: Manager): string =>
  JSON.stringify([manager, operation, subresource]);

/** managedFields of the Scale of an object with these; `from` names the parent's field. */
export function scaleEntries(parent: Entries, from: readonly string[] = replicas): ManagedFieldsEntry[] | undefined {
  const managers: Managers = new Map();
  for (const manager of decodeStored(parent).values()) {
    if (!hasPath(manager.fields, pathOf(from))) continue;
    const made: Manager = { ...manager, apiVersion: scaleVersion, fields: replicasSet };
    managers.set(managerId(made), made);
  }
  return encodeManagers(managers);
}

/** managedFields of the parent after its Scale got `scale`; new owners own in `apiVersion`, the parent's. */
export function parentEntries(
  parent: Entries,
  scale: Entries,
  apiVersion: string,
  to: readonly string[] = replicas,
): ManagedFieldsEntry[] | undefined {
  const path = pathOf(to);
  const set = setOf(to);
  const owners = new Map([...decodeStored(scale).values()].map((manager) => [whoOf(manager), manager]));
  const managers: Managers = new Map();
  for (const manager of decodeStored(parent).values()) {
    const who = whoOf(manager);
    if (!hasPath(manager.fields, path)) managers.set(managerId(manager), manager);
    else if (owners.has(who)) {
      // The write may have been its own.
      managers.set(managerId(manager), { ...manager, time: owners.get(who)!.time });
      owners.delete(who);
    } else {
      const fields = difference(manager.fields, set);
      if (!isEmptySet(fields)) managers.set(managerId(manager), { ...manager, fields: inOrder(fields) });
    }
  }
  for (const owner of owners.values()) {
    if (!hasPath(owner.fields, pathOf(replicas))) continue;
    const made: Manager = { ...owner, apiVersion, fields: set };
    managers.set(managerId(made), made);
  }
  return encodeManagers(managers);
}
