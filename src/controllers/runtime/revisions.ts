// ControllerRevisions: the earlier pod templates of daemon sets and stateful sets, which is what they roll between and
// what `kubectl rollout history` and `undo` read. One object per template; the newest number is the template in force.
// Upstream counterpart: pkg/controller/history.
import type { Client } from "#client/client.ts";
import type { Informer } from "#client/informer.ts";
import type { ControllerRevision } from "#model/gen/apps-v1.ts";
import type { PodTemplateSpec } from "#model/gen/core-v1.ts";
import { type ApiObject, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { controllerRevisions } from "#model/resources.ts";
import { isAlreadyExists } from "#model/status.ts";
import { canonicalJson, fnv1a, isEqual, safeEncode } from "./equal.ts";
import { controlledBy, controllerReference } from "./owners.ts";
import { deleteIfThere } from "./writes.ts";

export const revisionHashLabel = "controller-revision-hash";

interface RevisionData {
  readonly spec: { readonly template: PodTemplateSpec & { readonly $patch?: string } };
}

/** The template that a revision stands for. */
export function templateOf(revision: ControllerRevision): PodTemplateSpec | undefined {
  const data = revision.data as unknown as RevisionData | undefined;
  if (!data?.spec?.template) return undefined;
  const { $patch: _, ...template } = data.spec.template;
  return template;
}

export type RevisionSync =
  | { readonly ok: true; readonly current: ControllerRevision; readonly all: readonly ControllerRevision[] }
  /** The name is taken by something else: the owner must count the collision and try again. */
  | { readonly ok: false };

/** Finds or makes the revision of the owner's template, and sees that it has the highest number. */
export async function syncRevision(
  client: Client,
  options: {
    readonly store: Informer<ControllerRevision>;
    readonly owner: ApiObject;
    readonly resource: ResourceInfo;
    readonly template: PodTemplateSpec;
    readonly collisionCount: number | undefined;
  },
): Promise<RevisionSync> {
  const { store, owner, template } = options;
  const all = controlledBy(store, uidOf(owner)).sort((a, b) => a.revision - b.revision);
  const newest = all.at(-1);
  const found = all.findLast((revision) => isEqual(templateOf(revision), template));
  if (found) {
    if (found === newest) return { ok: true, current: found, all };
    const current = await client.update(controllerRevisions, { ...found, revision: newest!.revision + 1 });
    return { ok: true, current, all: [...all.filter((r) => r !== found), current] };
  }
  const data = { spec: { template: { ...template, $patch: "replace" } } };
  const hash = safeEncode(String(fnv1a(canonicalJson(data) + (options.collisionCount ?? ""))));
  const revision = {
    metadata: {
      name: `${nameOf(owner)}-${hash}`,
      namespace: namespaceOf(owner),
      labels: { ...template.metadata?.labels, [revisionHashLabel]: hash },
      ownerReferences: [controllerReference(options.resource, owner)],
    },
    data,
    revision: (newest?.revision ?? 0) + 1,
  } as unknown as ControllerRevision;
  try {
    const current = await client.create(controllerRevisions, revision);
    return { ok: true, current, all: [...all, current] };
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    const current = await client.get(controllerRevisions, nameOf(revision), namespaceOf(revision));
    const isOurs = current.metadata.ownerReferences?.some((r) => r.uid === uidOf(owner)) === true;
    return isOurs && isEqual(templateOf(current), template)
      ? { ok: true, current, all: [...all, current] }
      : { ok: false };
  }
}

/** Deletes the oldest revisions beyond `limit` that no pod is of; those in use do not count. */
export async function trimRevisions(
  client: Client,
  all: readonly ControllerRevision[],
  isInUse: (revision: ControllerRevision) => boolean,
  limit: number,
): Promise<void> {
  const spare = all.filter((revision) => !isInUse(revision)).sort((a, b) => a.revision - b.revision);
  for (const revision of spare.slice(0, Math.max(0, spare.length - limit))) {
    await deleteIfThere(client, controllerRevisions, revision);
  }
}
