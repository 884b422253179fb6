// Owner references: making them, finding the objects of an owner, adopting orphans and releasing what no longer fits.
// Upstream counterpart: pkg/controller/controller_ref_manager.go.
import type { Client } from "#client/client.ts";
import type { Informer } from "#client/informer.ts";
import type { OwnerReference } from "#model/gen/meta-v1.ts";
import { type ApiObject, controllerOf, isDeleting, keyOf, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { ApiError, isNotFound } from "#model/status.ts";
import { on, type Trigger } from "./controller.ts";

const controllerIndex = "controller";

export function controllerReference(resource: ResourceInfo<never> | ResourceInfo, owner: ApiObject): OwnerReference {
  return {
    apiVersion: groupVersion(resource),
    kind: resource.kind,
    name: nameOf(owner),
    uid: uidOf(owner),
    controller: true,
    blockOwnerDeletion: true,
  };
}

/**
 * The key of the owner that controls `object`, where that is of this kind; owners share their dependents' namespace.
 * Group and kind both count: others have jobs and deployments of their own.
 */
export function controllerKey(
  object: ApiObject,
  { group, kind }: { readonly group: string; readonly kind: string },
): string | undefined {
  const owner = controllerOf(object);
  if (owner?.kind !== kind) return undefined;
  const slash = owner.apiVersion.indexOf("/");
  const ownerGroup = slash < 0 ? "" : owner.apiVersion.slice(0, slash);
  return ownerGroup === group ? `${namespaceOf(object)}/${owner.name}` : undefined;
}

/**
 * Changes of dependents mark the owner that controls them. One that nobody controls marks all that would have it, since
 * one of them is going to adopt it.
 */
export const onDependents = <O extends ApiObject, T extends ApiObject>(
  dependents: Informer<T>,
  owners: Informer<O>,
  wouldHave: (owner: O, dependent: T) => boolean,
): Trigger =>
  on(dependents, function* (dependent) {
    if (controllerOf(dependent)) {
      yield controllerKey(dependent, owners.resource);
      return;
    }
    for (const owner of owners.list(namespaceOf(dependent))) if (wouldHave(owner, dependent)) yield keyOf(owner);
  });

/** Lets `controlledBy` and `orphansIn` answer without walking all objects. */
export function indexByController<T extends ApiObject>(informer: Informer<T>): void {
  informer.addIndex(controllerIndex, (object) => [controllerOf(object)?.uid ?? `orphan:${namespaceOf(object)}`]);
}
export const controlledBy = <T extends ApiObject>(informer: Informer<T>, uid: string): T[] =>
  informer.byIndex(controllerIndex, uid);
export const orphansIn = <T extends ApiObject>(informer: Informer<T>, namespace: string): T[] =>
  informer.byIndex(controllerIndex, `orphan:${namespace}`);

export interface ClaimOptions<O extends ApiObject, T extends ApiObject> {
  readonly owner: O;
  readonly ownerResource: ResourceInfo<O>;
  readonly dependents: Informer<T>;
  readonly dependentResource: ResourceInfo<T>;
  readonly matches: (labels: Readonly<Record<string, string>>) => boolean;
  /** Added to what is adopted, taken from what is released. */
  readonly finalizer?: string;
}

/**
 * What `owner` controls and its selector matches: orphans that match are adopted, controlled ones that no longer match
 * are released. An owner that is being deleted adopts nothing, by what the API says now rather than by the store.
 */
export async function claim<O extends ApiObject, T extends ApiObject>(
  client: Client,
  options: ClaimOptions<O, T>,
): Promise<T[]> {
  const { owner, dependents, dependentResource: resource, matches } = options;
  const ownerUid = uidOf(owner);
  const claimed: T[] = [];
  for (const object of controlledBy(dependents, ownerUid)) {
    if (namespaceOf(object) !== namespaceOf(owner)) continue;
    if (matches(object.metadata.labels ?? {})) claimed.push(object);
    else if (!isDeleting(owner)) await release(client, object, options);
  }
  if (isDeleting(owner)) return claimed;
  let isChecked = false;
  for (const orphan of orphansIn(dependents, namespaceOf(owner))) {
    if (isDeleting(orphan) || !matches(orphan.metadata.labels ?? {})) continue;
    if (!isChecked) {
      const fresh = await client.get(options.ownerResource, nameOf(owner), namespaceOf(owner));
      if (uidOf(fresh) !== ownerUid) throw new ApiError(409, "Conflict", `original ${nameOf(owner)} is gone`);
      if (isDeleting(fresh)) return claimed;
      isChecked = true;
    }
    const finalizers = orphan.metadata.finalizers ?? [];
    const patch = {
      metadata: {
        uid: uidOf(orphan),
        resourceVersion: orphan.metadata.resourceVersion,
        ownerReferences: [
          ...(orphan.metadata.ownerReferences ?? []),
          controllerReference(options.ownerResource as ResourceInfo, owner),
        ],
        ...(options.finalizer && !finalizers.includes(options.finalizer)
          ? { finalizers: [...finalizers, options.finalizer] }
          : {}),
      },
    };
    try {
      claimed.push(await client.patch(resource, { name: nameOf(orphan), namespace: namespaceOf(orphan) }, patch));
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
  return claimed;
}

async function release<O extends ApiObject, T extends ApiObject>(
  client: Client,
  object: T,
  options: ClaimOptions<O, T>,
): Promise<void> {
  const { metadata } = object;
  const patch = {
    metadata: {
      uid: uidOf(object),
      resourceVersion: metadata.resourceVersion,
      ownerReferences: metadata.ownerReferences?.filter((r) => r.uid !== uidOf(options.owner)) ?? [],
      ...(options.finalizer ? { finalizers: metadata.finalizers?.filter((f) => f !== options.finalizer) ?? [] } : {}),
    },
  };
  try {
    await client.patch(options.dependentResource, { name: nameOf(object), namespace: namespaceOf(object) }, patch);
  } catch (error) {
    // Gone, or replaced by another of the same name: either way no longer ours.
    if (!isNotFound(error) && !(error instanceof ApiError && error.reason === "Invalid")) throw error;
  }
}
