// metadata of every object: names by the kind's rule, labels, annotations, owners, finalizers, and what an update may
// not touch. Upstream: apimachinery/pkg/api/validation/objectmeta.go.
import type { ObjectMeta } from "../gen/meta-v1.ts";
import { type FieldError, fieldForbidden, fieldInvalid, fieldRequired, fieldTooLong } from "../status.ts";
import { checked, labels, notNegative, same } from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { dns1123Label, type NameRule, qualifiedName } from "./names.ts";

/** All annotations of one object together: 256 KiB. */
const maxAnnotationBytes = 256 * 1024;

/** `type` is that of ResourceInfo: none for custom resources and the objects inside of them. */
interface Info {
  readonly namespaced: boolean;
  readonly type?: string;
}

export function validateMetadata(meta: ObjectMeta, info: Info, rule: NameRule): FieldError[] {
  const errors = findings();
  const base = meta.generateName ?? "";
  // The suffix is letters and digits, so a trailing dash of the base is none of the name's.
  if (base !== "")
    errors.push(...checked("metadata.generateName", base, (text) => rule.check(text.replace(/-$/, "a"))));
  if (meta.name) errors.push(...checked("metadata.name", meta.name, rule.check));
  else if (base === "") errors.push(fieldRequired("metadata.name", "name or generateName is required"));
  if (info.namespaced) {
    if (!meta.namespace) errors.push(fieldRequired("metadata.namespace"));
    else errors.push(...checked("metadata.namespace", meta.namespace, dns1123Label));
  } else if (meta.namespace) {
    errors.push(fieldForbidden("metadata.namespace", "not allowed on this type"));
  }
  return [...errors, ...validateRest(meta, info)];
}

export function validateMetadataUpdate(meta: ObjectMeta, old: ObjectMeta, info: Info): FieldError[] {
  const errors = findings();
  const fixed = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
  ] as const;
  for (const field of fixed) {
    if (field === "namespace" && !info.namespaced) continue;
    if (!same(meta[field], old[field]))
      errors.push(fieldInvalid(`metadata.${field}`, meta[field], "field is immutable"));
  }
  if ((meta.generation ?? 0) < (old.generation ?? 0)) {
    errors.push(fieldInvalid("metadata.generation", meta.generation, "must not be decremented"));
  }
  return [...errors, ...validateRest(meta, info)];
}

function validateRest(meta: ObjectMeta, info: Info): FieldError[] {
  const errors = findings([
    ...notNegative("metadata.generation", meta.generation),
    ...labels("metadata.labels", meta.labels),
    ...validateAnnotations(meta.annotations),
  ]);
  let controllers = 0;
  for (const owner of meta.ownerReferences ?? []) {
    const path = "metadata.ownerReferences";
    const version = owner.apiVersion ?? "";
    if (version === "") errors.push(fieldInvalid(`${path}.apiVersion`, version, "version must not be empty"));
    if (!owner.kind) errors.push(fieldInvalid(`${path}.kind`, owner.kind ?? "", "must not be empty"));
    if (!owner.name) errors.push(fieldInvalid(`${path}.name`, owner.name ?? "", "must not be empty"));
    if (!owner.uid) errors.push(fieldInvalid(`${path}.uid`, owner.uid ?? "", "must not be empty"));
    if (version === "v1" && owner.kind === "Event") {
      errors.push(fieldInvalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
    }
    if (owner.controller) controllers++;
  }
  if (controllers > 1) {
    const names = (meta.ownerReferences ?? []).filter((owner) => owner.controller).map((owner) => owner.name);
    const problem = `Only one reference can have Controller set to true. Found "true" in references for ${names.slice(0, 2).join(" and ")}`;
    errors.push(fieldInvalid("metadata.ownerReferences", meta.ownerReferences, problem));
  }
  const finalizers = meta.finalizers ?? [];
  for (const name of finalizers) {
    errors.push(...checked("metadata.finalizers", name, qualifiedName));
    if (info.type && isUnqualifiedFinalizer(name) && qualifiedName(name).length === 0) {
      const problem = "name is neither a standard finalizer name nor is it fully qualified";
      errors.push(fieldInvalid("metadata.finalizers", name, problem));
    }
  }
  if (finalizers.includes("orphan") && finalizers.includes("foregroundDeletion")) {
    const problem = "finalizer orphan and foregroundDeletion cannot be both set";
    errors.push(fieldInvalid("metadata.finalizers", finalizers, problem));
  }
  return errors;
}

const standardFinalizers = new Set(["kubernetes", "orphan", "foregroundDeletion"]);
/** Nobody can say whose it is. Built-in kinds refuse it; custom resources, which are others' own, only warn of it. */
export const isUnqualifiedFinalizer = (name: string): boolean => !name.includes("/") && !standardFinalizers.has(name);

function validateAnnotations(annotations: Readonly<Record<string, string>> | undefined): FieldError[] {
  const errors = findings();
  let size = 0;
  for (const [key, value] of Object.entries(annotations ?? {})) {
    errors.push(...checked("metadata.annotations", key, (text) => qualifiedName(text.toLowerCase())));
    size += Buffer.byteLength(key, "utf8") + Buffer.byteLength(value, "utf8");
  }
  if (size > maxAnnotationBytes) errors.push(fieldTooLong("metadata.annotations", maxAnnotationBytes));
  return errors;
}

/** Labels and annotations of a template, which has no name of its own. */
export function validateTemplateMetadata(path: string, meta: ObjectMeta | undefined): FieldError[] {
  return [
    ...labels(`${path}.labels`, meta?.labels),
    ...eachOf(Object.keys(meta?.annotations ?? {}), (key) =>
      checked(`${path}.annotations`, key, (text) => qualifiedName(text.toLowerCase())),
    ),
  ];
}
