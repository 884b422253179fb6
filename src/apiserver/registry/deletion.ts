// What a DELETE does to an object: remove it, mark it and wait for finalizers or grace, or nothing new. Pure.
// Upstream counterpart: rest.BeforeDelete and the garbage collection finalizers of the generic registry.
import { rfc3339 } from "#base/clock.ts";
import type { UnknownObject } from "#model/object.ts";
import { type About, conflict, fieldInvalid, fieldNotSupported, invalid } from "#model/status.ts";

export interface DeleteOptions {
  readonly gracePeriodSeconds?: number | undefined;
  readonly propagationPolicy?: string | undefined;
  readonly orphanDependents?: boolean | undefined;
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string } | undefined;
  readonly dryRun?: readonly string[] | undefined;
}

export interface DeletionFacts {
  readonly about: About;
  /** Grace of a kind that has one; 0 deletes at once. Absent: the kind knows no grace. */
  readonly graceSeconds?: ((object: UnknownObject, asked: number | undefined) => number) | undefined;
  readonly nowMs: number;
}

export type DeletionPlan =
  | { readonly action: "remove" }
  | { readonly action: "mark"; readonly object: UnknownObject }
  | { readonly action: "none" };

const orphan = "orphan";
const foreground = "foregroundDeletion";
/** Kinds whose dependents are orphaned where the client says nothing, for the sake of old clients. */
const orphanByDefault = new Set(["jobs.batch", "replicationcontrollers"]);

export function validateDeleteOptions(options: DeleteOptions): void {
  const errors = [];
  const policies = ["Background", "Foreground", "Orphan"];
  if (options.propagationPolicy !== undefined && !policies.includes(options.propagationPolicy)) {
    errors.push(fieldNotSupported("propagationPolicy", options.propagationPolicy, policies));
  }
  if (options.propagationPolicy !== undefined && options.orphanDependents !== undefined) {
    errors.push(
      fieldInvalid(
        "propagationPolicy",
        options.propagationPolicy,
        "orphanDependents and deletionPropagation cannot be both set",
      ),
    );
  }
  for (const value of options.dryRun ?? []) {
    if (value !== "All") errors.push(fieldNotSupported("dryRun", options.dryRun, ["All"]));
  }
  if (errors.length > 0) throw invalid("meta.k8s.io", "DeleteOptions", "", errors);
}

export function checkPreconditions(
  about: About,
  name: string,
  object: UnknownObject,
  preconditions: DeleteOptions["preconditions"],
): void {
  if (!preconditions) return;
  const { uid, resourceVersion } = object.metadata;
  if (preconditions.uid !== undefined && preconditions.uid !== uid) {
    throw conflict(
      about,
      name,
      `the UID in the precondition (${preconditions.uid}) does not match the UID in record (${uid}). The object might have been deleted and then recreated`,
    );
  }
  if (preconditions.resourceVersion !== undefined && preconditions.resourceVersion !== resourceVersion) {
    throw conflict(
      about,
      name,
      `the ResourceVersion in the precondition (${preconditions.resourceVersion}) does not match the ResourceVersion in record (${resourceVersion}). The object might have been modified`,
    );
  }
}

export function planDeletion(object: UnknownObject, options: DeleteOptions, facts: DeletionFacts): DeletionPlan {
  const name = object.metadata.name ?? "";
  checkPreconditions(facts.about, name, object, options.preconditions);
  const asked = options.gracePeriodSeconds;
  const meta = { ...object.metadata };
  let changed = false;
  let pending = false;
  if (facts.graceSeconds) {
    if (meta.deletionTimestamp === undefined) {
      const grace = Math.max(0, facts.graceSeconds(object, asked));
      if (grace > 0) {
        mark(meta, facts.nowMs, grace);
        changed = true;
        pending = true;
      }
    } else {
      const left = meta.deletionGracePeriodSeconds ?? 0;
      if (left > 0 && (asked === undefined || asked >= left)) pending = true;
      else if (left > 0 && asked !== undefined) {
        // A grace that runs may only be shortened.
        const shorter = Math.max(0, asked);
        meta.deletionTimestamp = rfc3339(Date.parse(String(meta.deletionTimestamp)) - (left - shorter) * 1000);
        meta.deletionGracePeriodSeconds = shorter;
        changed = true;
        pending = shorter > 0;
      }
    }
  }
  const finalizers = finalizersFor(meta.finalizers ?? [], options, facts.about);
  if (finalizers.length !== (meta.finalizers ?? []).length || finalizers.some((f, i) => f !== meta.finalizers?.[i])) {
    changed = true;
    if (finalizers.length > 0) meta.finalizers = finalizers;
    else delete meta.finalizers;
  }
  if (!pending && finalizers.length === 0 && !holdsNamespace(facts.about, object)) return { action: "remove" };
  if (meta.deletionTimestamp === undefined) {
    mark(meta, facts.nowMs, 0);
    changed = true;
  }
  if (!changed) {
    if (isNamespace(facts.about)) {
      throw conflict(
        facts.about,
        name,
        "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system.",
      );
    }
    return { action: "none" };
  }
  const next: UnknownObject = { ...object, metadata: meta };
  if (isNamespace(facts.about)) {
    next["status"] = { ...(object["status"] as object | undefined), phase: "Terminating" };
  }
  return { action: "mark", object: next };
}

/** True when an update left nothing that the pending deletion waits for. */
export function deletionIsDue(about: About, next: UnknownObject): boolean {
  const meta = next.metadata;
  return (
    meta.deletionTimestamp !== undefined &&
    (meta.finalizers?.length ?? 0) === 0 &&
    (meta.deletionGracePeriodSeconds ?? 0) === 0 &&
    !holdsNamespace(about, next)
  );
}

function mark(meta: UnknownObject["metadata"], nowMs: number, graceSeconds: number): void {
  meta.deletionTimestamp = rfc3339(nowMs + graceSeconds * 1000);
  meta.deletionGracePeriodSeconds = graceSeconds;
  if (typeof meta.generation === "number" && meta.generation > 0) meta.generation += 1;
}

function finalizersFor(current: readonly string[], options: DeleteOptions, about: About): string[] {
  let wanted: "orphan" | "foregroundDeletion" | "none";
  if (options.propagationPolicy === "Orphan" || options.orphanDependents === true) wanted = orphan;
  else if (options.propagationPolicy === "Foreground") wanted = foreground;
  else if (options.propagationPolicy === "Background" || options.orphanDependents === false) wanted = "none";
  else if (current.includes(orphan)) wanted = orphan;
  else if (current.includes(foreground)) wanted = foreground;
  else
    wanted = orphanByDefault.has(about.group === "" ? about.resource : `${about.resource}.${about.group}`)
      ? orphan
      : "none";
  const rest = current.filter((f) => f !== orphan && f !== foreground);
  if (wanted === "none") return rest;
  return current.includes(wanted) ? current.filter((f) => f === wanted || rest.includes(f)) : [...rest, wanted];
}

const isNamespace = (about: About): boolean => about.group === "" && about.resource === "namespaces";

/** A namespace stays until its spec.finalizers are gone, which only the finalize subresource removes. */
function holdsNamespace(about: About, object: UnknownObject): boolean {
  if (!isNamespace(about)) return false;
  return ((object["spec"] as { finalizers?: string[] } | undefined)?.finalizers?.length ?? 0) > 0;
}
