// Volumes, claims and storage classes: the basics. Upstream: pkg/apis/core/validation, pkg/apis/storage/validation.
import type { PersistentVolume, PersistentVolumeClaim } from "../gen/core-v1.ts";
import type { StorageClass } from "../gen/storage-v1.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
  fieldTooLong,
} from "../status.ts";
import { volumeAnnotations } from "../volumes.ts";
import { validateNodeTerm } from "./affinity.ts";
import { nanoOf } from "./amount.ts";
import { checked, labelSelector, oneOf, quantity, requiredOneOf, same } from "./checks.ts";
import { validateNoBackSteps } from "./container.ts";
import { eachOf, findings } from "./findings.ts";
import { dns1123Subdomain, qualifiedName } from "./names.ts";

const accessModes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const volumeModes = ["Block", "Filesystem"];
/** Of a storage class: entries, and bytes of all keys and values. */
const maxParameters = 512;
const maxParameterBytes = 256 * 1024;
/** Fields of a volume's spec that are no source. */
const plainFields = new Set([
  "accessModes",
  "capacity",
  "claimRef",
  "mountOptions",
  "nodeAffinity",
  "persistentVolumeReclaimPolicy",
  "storageClassName",
  "volumeAttributesClassName",
  "volumeMode",
]);

function validateAccessModes(path: string, modes: readonly string[] | undefined, sentence: string): FieldError[] {
  if (!modes || modes.length === 0) return [sentence === "" ? fieldRequired(path) : fieldRequired(path, sentence)];
  const errors = eachOf(modes, (mode) =>
    accessModes.includes(mode) ? [] : [fieldNotSupported(path, mode, accessModes)],
  );
  if (modes.includes("ReadWriteOncePod") && modes.length > 1) {
    errors.push(fieldForbidden(path, "may not use ReadWriteOncePod with other access modes"));
  }
  return errors;
}

export const validateClaim = ({ spec }: PersistentVolumeClaim): FieldError[] => validateClaimSpec("spec", spec);

export function validateClaimSpec(at: string, spec: PersistentVolumeClaim["spec"] | undefined): FieldError[] {
  if (!spec) return [fieldRequired(`${at}.accessModes`, "at least 1 access mode is required")];
  const errors = findings([
    ...validateAccessModes(`${at}.accessModes`, spec.accessModes, "at least 1 access mode is required"),
    ...labelSelector(`${at}.selector`, spec.selector),
    ...oneOf(`${at}.volumeMode`, spec.volumeMode, volumeModes),
  ]);
  const storage = spec.resources?.requests?.["storage"];
  const path = `${at}.resources[storage]`;
  if (storage === undefined) errors.push(fieldRequired(path));
  else if ((nanoOf(storage) ?? 0n) <= 0n) {
    const wrong = quantity(path, storage);
    errors.push(...(wrong.length > 0 ? wrong : [fieldInvalid(path, String(storage), "must be greater than zero")]));
  }
  for (const field of ["storageClassName", "volumeAttributesClassName"] as const) {
    if (spec[field]) errors.push(...checked(`${at}.${field}`, spec[field], dns1123Subdomain));
  }
  return errors;
}

export function validateClaimUpdate(claim: PersistentVolumeClaim, old: PersistentVolumeClaim): FieldError[] {
  const errors = findings();
  const next = { ...claim.spec };
  const before = { ...old.spec };
  // Binding writes the volume's name, once.
  if (!before.volumeName && next.volumeName) delete next.volumeName;
  const isBound = old.status?.phase === "Bound";
  // The default class may come later, to a claim that named none and has no volume yet.
  const hadClass =
    before.storageClassName !== undefined || old.metadata.annotations?.[volumeAnnotations.oldClass] !== undefined;
  if (!hadClass && next.storageClassName && !before.volumeName) delete next.storageClassName;
  if (isBound) {
    const asked = nanoOf(claim.spec?.resources?.requests?.["storage"]);
    const had = nanoOf(old.spec?.resources?.requests?.["storage"]);
    const has = nanoOf(old.status?.capacity?.["storage"]);
    // A growth that has not come about may be taken back, down to what there is.
    if (asked !== undefined && had !== undefined && asked < had && (has === undefined || asked <= has)) {
      errors.push(fieldForbidden("spec.resources.requests.storage", "field can not be less than status.capacity"));
    }
    for (const spec of [next, before]) {
      delete spec.resources;
      delete spec.volumeAttributesClassName;
    }
  }
  if (!same(next, before)) {
    const why =
      "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    errors.push(fieldForbidden("spec", why));
  }
  return errors;
}

export function validateVolume({ spec }: PersistentVolume): FieldError[] {
  if (!spec) return [fieldRequired("spec.accessModes")];
  const errors = findings(validateAccessModes("spec.accessModes", spec.accessModes, ""));
  if (Object.keys(spec.capacity ?? {}).length === 0) errors.push(fieldRequired("spec.capacity"));
  for (const [name, amount] of Object.entries(spec.capacity ?? {})) {
    if (name !== "storage") errors.push(fieldNotSupported("spec.capacity", name, ["storage"]));
    errors.push(...quantity(`spec.capacity[${name}]`, amount));
  }
  const policies = ["Delete", "Recycle", "Retain"];
  errors.push(...oneOf("spec.persistentVolumeReclaimPolicy", spec.persistentVolumeReclaimPolicy, policies));
  errors.push(...oneOf("spec.volumeMode", spec.volumeMode, volumeModes));
  for (const [i, term] of (spec.nodeAffinity?.required?.nodeSelectorTerms ?? []).entries()) {
    errors.push(...validateNodeTerm(`spec.nodeAffinity.required.nodeSelectorTerms[${i}]`, term));
  }
  const sources = Object.entries(spec).filter(([field, value]) => !plainFields.has(field) && value != null);
  if (sources.length === 0) errors.push(fieldRequired("spec", "must specify a volume type"));
  for (const [field] of sources.slice(1)) {
    errors.push(fieldForbidden(`spec.${field}`, "may not specify more than 1 volume type"));
  }
  if (spec.hostPath) {
    if (!spec.hostPath.path) errors.push(fieldRequired("spec.hostPath.path"));
    else errors.push(...validateNoBackSteps("spec.hostPath.path", spec.hostPath.path));
  }
  if (spec.hostPath?.path === "/" && spec.persistentVolumeReclaimPolicy === "Recycle") {
    errors.push(
      fieldForbidden("spec.persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'"),
    );
  }
  if (spec.local?.path) errors.push(...validateNoBackSteps("spec.local.path", spec.local.path));
  if (spec.csi && !spec.csi.driver) errors.push(fieldRequired("spec.csi.driver"));
  if (spec.csi && !spec.csi.volumeHandle) errors.push(fieldRequired("spec.csi.volumeHandle"));
  if (spec.local && !spec.local.path) errors.push(fieldRequired("spec.local.path"));
  if (spec.local && !spec.nodeAffinity)
    errors.push(fieldRequired("spec.nodeAffinity", "Local volume requires node affinity"));
  if (spec.storageClassName) errors.push(...checked("spec.storageClassName", spec.storageClassName, dns1123Subdomain));
  return errors;
}

export function validateVolumeUpdate(volume: PersistentVolume, old: PersistentVolume): FieldError[] {
  const source = (spec: object | undefined) =>
    Object.fromEntries(Object.entries(spec ?? {}).filter(([field]) => !plainFields.has(field)));
  const next = structuredClone(source(volume.spec)) as Partial<PersistentVolume["spec"]>;
  // Volumes of before there were these secrets may get them.
  for (const field of ["controllerExpandSecretRef", "nodeExpandSecretRef"] as const) {
    if (next.csi && old.spec?.csi && !old.spec.csi[field]) delete next.csi[field];
  }
  const errors = findings();
  if (!same(next, source(old.spec))) {
    errors.push(
      fieldForbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation"),
    );
  }
  if (!same(volume.spec?.volumeMode, old.spec?.volumeMode)) {
    errors.push(fieldInvalid("spec.volumeMode", volume.spec?.volumeMode, "field is immutable"));
  }
  if (old.spec?.nodeAffinity && !same(volume.spec?.nodeAffinity, old.spec.nodeAffinity)) {
    errors.push(fieldInvalid("spec.nodeAffinity", volume.spec?.nodeAffinity, "field is immutable"));
  }
  return errors;
}

export function validateStorageClass(entry: StorageClass): FieldError[] {
  const errors = findings();
  if (!entry.provisioner) errors.push(fieldRequired("provisioner"));
  else errors.push(...checked("provisioner", entry.provisioner.toLowerCase(), qualifiedName));
  errors.push(...requiredOneOf("reclaimPolicy", entry.reclaimPolicy, ["Delete", "Retain"]));
  const parameters = Object.entries(entry.parameters ?? {});
  if (parameters.length > maxParameters) errors.push(fieldTooLong("Provisioner Parameters Length", maxParameters));
  if (parameters.some(([key]) => key === "")) {
    errors.push(fieldInvalid("parameters", "", "field can not be empty."));
  }
  if (parameters.reduce((sum, [key, value]) => sum + key.length + value.length, 0) > maxParameterBytes) {
    errors.push(fieldTooLong("parameters", maxParameterBytes));
  }
  for (const [i, term] of (entry.allowedTopologies ?? []).entries()) {
    for (const [n, { key, values }] of (term.matchLabelExpressions ?? []).entries()) {
      const path = `allowedTopologies[${i}].matchLabelExpressions[${n}]`;
      errors.push(...checked(`${path}.key`, key, qualifiedName));
      if ((values ?? []).length === 0) errors.push(fieldRequired(`${path}.values`));
      const seen = new Set<string>();
      const twice = (values ?? []).find((value) => seen.size === seen.add(value).size);
      if (twice !== undefined) errors.push(fieldDuplicate(`${path}.values[${values.lastIndexOf(twice)}]`, twice));
    }
  }
  return [
    ...errors,
    ...requiredOneOf("volumeBindingMode", entry.volumeBindingMode, ["Immediate", "WaitForFirstConsumer"]),
  ];
}

export function validateStorageClassUpdate(entry: StorageClass, old: StorageClass): FieldError[] {
  const errors = findings();
  if (!same(entry.parameters, old.parameters)) {
    errors.push(fieldForbidden("parameters", "updates to parameters are forbidden."));
  }
  if (entry.provisioner !== old.provisioner) {
    errors.push(fieldForbidden("provisioner", "updates to provisioner are forbidden."));
  }
  if (entry.reclaimPolicy !== old.reclaimPolicy) {
    errors.push(fieldForbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."));
  }
  if (entry.volumeBindingMode !== old.volumeBindingMode) {
    errors.push(fieldInvalid("volumeBindingMode", entry.volumeBindingMode, "field is immutable"));
  }
  return errors;
}
