// Garbage collection: what has owners goes when the last of them has gone. The graph is not kept apart: informers of all
// resources (metadata only, where nobody else in the process wants more) with an index by owner are the graph, and a
// table from uid to informer finds its nodes.
//
//   change of an object ──► mark its uid        deletion of an object ──► mark its dependents and its owners
//                                  │
//                                  ▼
//   owners all gone: delete │ some gone: unlink those │ deleting with "orphan": free dependents │ "foregroundDeletion":
//                                                        delete dependents first, then let go
//
// An owner that no informer shows is looked up in the API before it is believed absent, since informers of different
// resources are not in step. Upstream counterpart: pkg/controller/garbagecollector.
import type { Service } from "#base/service.ts";
import type { Informer } from "#client/informer.ts";
import { type CustomResourceDefinition, resourcesOf, walkableResourceOf } from "#model/custom-resources.ts";
import type { OwnerReference } from "#model/gen/meta-v1.ts";
import { type ApiObject, isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { customResourceDefinitions, events, leases, resourceOfKind } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
import { type ControllerDeps, createController, on, type Trigger } from "../runtime/controller.ts";
import { dropFinalizer } from "../runtime/writes.ts";
import { foregroundFinalizer, isBlocking, isWaiting, type OwnerState, orphanFinalizer, planObject } from "./plan.ts";

const name = "garbage-collector-controller";
const ownerIndex = "owner";
/** Owners that the API said are gone; saves the question for each of many dependents. Upstream keeps 500. */
const maxAbsent = 500;

interface Node {
  readonly informer: Informer<ApiObject>;
  readonly key: string;
}

/** `served`: what is built in and on. */
export function createGarbageCollector(deps: ControllerDeps, served: readonly ResourceInfo[]): Service {
  const { client } = deps;
  const recorder = deps.events.as(name);
  const nodes = new Map<string, Node>();
  const absent = new Set<string>();
  const informers: Informer<ApiObject>[] = [];
  const follow = (resource: ResourceInfo): Informer<ApiObject> => {
    const informer = deps.informers.informer(resource, { metadataOnly: true });
    informers.push(informer);
    informer.addIndex(ownerIndex, (object) => object.metadata.ownerReferences?.map((r) => r.uid) ?? []);
    const note = (object: ApiObject) => nodes.set(uidOf(object), { informer, key: keyOf(object) });
    informer.addHandler({ add: note, update: note, delete: (object) => nodes.delete(uidOf(object)) });
    return informer;
  };
  for (const resource of collectable(served)) follow(resource);
  const definitions = deps.informers.informer(customResourceDefinitions);

  const find = (uid: string): ApiObject | undefined => {
    const node = nodes.get(uid);
    const object = node?.informer.get(node.key);
    return object && uidOf(object) === uid ? object : undefined;
  };
  const dependentsOf = (uid: string): ApiObject[] => informers.flatMap((i) => i.byIndex(ownerIndex, uid));

  const customOfKind = (group: string, version: string, kind: string): ResourceInfo | undefined =>
    definitions
      .list()
      .filter(({ spec }) => spec.group === group)
      .flatMap(resourcesOf)
      .find((row) => row.version === version && row.kind === kind);

  async function stateOf(reference: OwnerReference, namespace: string): Promise<OwnerState> {
    const known = find(reference.uid);
    if (known) {
      const isReachable = namespaceOf(known) === "" || namespaceOf(known) === namespace;
      if (isReachable) return isWaiting(known) ? "waiting" : "solid";
      // A namespaced owner owns only in its own namespace; elsewhere the reference points at nothing. One outside of all
      // namespaces cannot say where its owner is, so nothing is known of that.
      return namespace === "" ? "solid" : "absent";
    }
    // With all that the question would be asked by: what is not there under one name may be there under another.
    const { apiVersion, kind, name: ownerName, uid } = reference;
    const key = [namespace, apiVersion, kind, ownerName, uid].join("|");
    if (absent.has(key)) return "absent";
    const slash = apiVersion.indexOf("/");
    const group = slash < 0 ? "" : apiVersion.slice(0, slash);
    const version = apiVersion.slice(slash + 1);
    const builtIn = resourceOfKind(group, version, kind);
    const resource = builtIn && served.includes(builtIn) ? builtIn : customOfKind(group, version, kind);
    // Nothing can be said about kinds that this server does not serve: keeping is the safe side.
    if (!resource || (resource.namespaced && namespace === "")) return "solid";
    try {
      const owner = await client.get(resource, ownerName, resource.namespaced ? namespace : undefined);
      if (uidOf(owner) === uid) return isWaiting(owner) ? "waiting" : "solid";
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    if (absent.size >= maxAbsent) absent.delete(absent.values().next().value!);
    absent.add(key);
    return "absent";
  }

  const target = (object: ApiObject) => ({ name: nameOf(object), namespace: namespaceOf(object) || undefined });

  async function writeOwners(
    resource: ResourceInfo,
    object: ApiObject,
    ownerReferences: readonly OwnerReference[],
  ): Promise<ApiObject> {
    const { uid, resourceVersion } = object.metadata;
    return client.patch(resource, target(object), { metadata: { uid, resourceVersion, ownerReferences } });
  }

  async function unlink(resource: ResourceInfo, object: ApiObject, uids: readonly string[]): Promise<void> {
    const rest = object.metadata.ownerReferences?.filter((r) => !uids.includes(r.uid)) ?? [];
    await writeOwners(resource, object, rest);
  }

  /** Its owners no longer wait for it. */
  const unblock = (resource: ResourceInfo, object: ApiObject): Promise<ApiObject> => {
    const all = object.metadata.ownerReferences ?? [];
    return writeOwners(
      resource,
      object,
      all.map((r) => (r.blockOwnerDeletion ? { ...r, blockOwnerDeletion: false } : r)),
    );
  };

  function checkNamespaces(object: ApiObject, resource: ResourceInfo): void {
    for (const reference of object.metadata.ownerReferences ?? []) {
      const owner = find(reference.uid);
      if (!owner || namespaceOf(owner) === "" || namespaceOf(owner) === namespaceOf(object)) continue;
      const { apiVersion, kind, name: ownerName, uid } = reference;
      const inside = namespaceOf(object) === "" ? "cluster-scoped" : `namespace "${namespaceOf(object)}"`;
      const message = `ownerRef [${apiVersion}/${kind}, namespace: ${namespaceOf(object)}, name: ${ownerName}, uid: ${uid}] does not exist in ${inside}`;
      recorder.record({ resource, object, type: "Warning", reason: "OwnerRefInvalidNamespace", message });
    }
  }

  let mark: (uid: string) => void = () => {};

  async function process(uid: string): Promise<void> {
    const object = find(uid);
    const informer = nodes.get(uid)?.informer;
    if (!object || !informer) return;
    const { resource } = informer;
    const references = object.metadata.ownerReferences ?? [];
    const owners = [];
    if (!isDeleting(object)) {
      for (const reference of references) {
        owners.push({ reference, state: await stateOf(reference, namespaceOf(object)) });
      }
    }
    // To find them takes a look at every resource.
    const isForDependents = isDeleting(object) || owners.some(({ state }) => state === "waiting");
    const dependents = isForDependents ? dependentsOf(uid) : [];
    checkNamespaces(object, resource);
    const action = planObject(object, owners, dependents);
    if (action.do === "nothing") return;
    if (action.do === "unlink") await unlink(resource, object, action.uids);
    else if (action.do === "delete") {
      const judged = action.isUnblocked ? await unblock(resource, object) : object;
      const preconditions = { uid, resourceVersion: judged.metadata.resourceVersion ?? "" };
      await client.delete(resource, target(object), { propagationPolicy: action.policy, preconditions });
    } else if (action.do === "orphan-dependents") {
      for (const dependent of dependents) {
        const kind = nodes.get(uidOf(dependent))?.informer.resource;
        if (kind) await tolerateGone(unlink(kind, dependent, [uid]));
      }
      await dropFinalizer(client, resource, object, orphanFinalizer);
    } else {
      const blocking = dependents.filter((d) => isBlocking(d, uid));
      if (blocking.length === 0) await dropFinalizer(client, resource, object, foregroundFinalizer);
      // Those that do not block go too, at their own pace.
      for (const dependent of dependents) if (!isDeleting(dependent)) mark(uidOf(dependent));
    }
  }

  const triggerOf = (informer: Informer<ApiObject>): Trigger => {
    const marks = function* (object: ApiObject, how: "add" | "update" | "delete") {
      if (how === "delete") {
        for (const dependent of dependentsOf(uidOf(object))) yield uidOf(dependent);
        for (const reference of object.metadata.ownerReferences ?? []) yield reference.uid;
        return;
      }
      if (object.metadata.ownerReferences?.length || isDeleting(object)) yield uidOf(object);
      // What no longer stands in the way of an owner, or no longer belongs to it, may have been the last.
      for (const { uid } of object.metadata.ownerReferences ?? []) {
        const owner = find(uid);
        if (owner && isWaiting(owner)) yield uid;
      }
    };
    const trigger = on(informer, marks, informer.resource.plural === leases.plural ? isRenewal : undefined);
    return {
      ...trigger,
      connect(add: (key: string) => void) {
        mark = add;
        trigger.connect(add);
      },
    };
  };
  const triggers = informers.map(triggerOf);
  // Custom resources come and go while this runs; each is followed under its newest row.
  const custom = new Map<string, { readonly row: ResourceInfo; readonly informer: Informer<ApiObject> }>();
  const leave = (name: string) => {
    const old = custom.get(name);
    if (!old) return;
    custom.delete(name);
    informers.splice(informers.indexOf(old.informer), 1);
    // Dependents of what was there are looked at again: their owners are gone.
    const gone = old.informer.list();
    for (const object of gone) nodes.delete(uidOf(object));
    deps.informers.stop(old.informer);
    for (const object of gone) for (const dependent of dependentsOf(uidOf(object))) mark(uidOf(dependent));
  };
  const enter = (definition: CustomResourceDefinition) => {
    const name = nameOf(definition);
    const row = walkableResourceOf(definition);
    const old = custom.get(name);
    if (old && row && groupVersion(old.row) === groupVersion(row) && old.row.kind === row.kind) return;
    leave(name);
    if (!row) return;
    const informer = follow(row);
    custom.set(name, { row, informer });
    triggerOf(informer).connect(mark);
  };
  const definitionTrigger: Trigger = {
    informer: definitions as unknown as Trigger["informer"],
    connect(add) {
      mark = add;
      definitions.addHandler({ add: enter, update: enter, delete: (definition) => leave(nameOf(definition)) });
    },
  };
  return createController(
    {
      name,
      workers: 8,
      triggers: [...triggers, definitionTrigger],
      async sync(uid) {
        try {
          await process(uid);
        } catch (error) {
          // Gone is what was wanted.
          if (!isNotFound(error)) throw error;
        }
      },
    },
    deps,
  );
}

/** Of a lease: a thousand nodes make a hundred a second, and nothing about owners is new in them. */
function isRenewal({ metadata }: ApiObject, { metadata: old }: ApiObject): boolean {
  if (metadata.uid !== old.uid || metadata.deletionTimestamp !== old.deletionTimestamp) return false;
  const { ownerReferences: now = [], finalizers = [] } = metadata;
  const { ownerReferences: before = [], finalizers: beforeFinalizers = [] } = old;
  if (now.length !== before.length || finalizers.length !== beforeFinalizers.length) return false;
  return now.every(({ uid, blockOwnerDeletion }, i) => {
    return uid === before[i]!.uid && blockOwnerDeletion === before[i]!.blockOwnerDeletion;
  });
}

async function tolerateGone(step: Promise<void>): Promise<void> {
  try {
    await step;
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

/** Resources whose objects can be listed, watched and deleted; one version of each; not events, which expire. */
function collectable(served: readonly ResourceInfo[]): ResourceInfo[] {
  const needed = ["list", "watch", "delete"] as const;
  return served.filter(
    (resource) =>
      needed.every((verb) => resource.verbs.includes(verb)) &&
      resource.storageGroup === resource.group &&
      resource.storageVersion === groupVersion(resource) &&
      !(resource.group === events.group && resource.plural === events.plural),
  );
}
