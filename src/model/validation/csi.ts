// CSI drivers, what nodes say of them, attachments and capacities. Upstream: pkg/apis/storage/validation.
import type { CSIVolumeSource, PersistentVolumeClaimTemplate } from "../gen/core-v1.ts";
import type { CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment } from "../gen/storage-v1.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
} from "../status.ts";
import { checked, labelSelector, noDuplicates, oneOf, quantity, same, unchanged } from "./checks.ts";
import { eachOf, findings } from "./findings.ts";
import { dns1123Subdomain, qualifiedName } from "./names.ts";
import { validateClaimSpec } from "./storage.ts";

const maxDriverName = 63;
const maxNodeId = 192;
const lifecycleModes = ["Ephemeral", "Persistent"];
const groupPolicies = ["File", "None", "ReadWriteOnceWithFSType"];
const minTokenSeconds = 600;

export function driverName(path: string, name: string | undefined): FieldError[] {
  if (!name) return [fieldRequired(path)];
  if (name.length > maxDriverName) {
    return [{ ...fieldInvalid(path, name, `must have at most ${maxDriverName} characters`) }];
  }
  return checked(path, name.toLowerCase(), dns1123Subdomain);
}

export function validateCsiDriver({ metadata, spec }: CSIDriver): FieldError[] {
  const errors = findings(driverName("metadata.name", metadata.name));
  for (const field of ["attachRequired", "podInfoOnMount", "storageCapacity"] as const) {
    if (spec?.[field] == null) errors.push(fieldRequired(`spec.${field}`));
  }
  for (const mode of spec?.volumeLifecycleModes ?? []) {
    if (!lifecycleModes.includes(mode)) {
      errors.push(fieldNotSupported("spec.volumeLifecycleModes", mode, lifecycleModes));
    }
  }
  errors.push(...oneOf("spec.fsGroupPolicy", spec?.fsGroupPolicy, groupPolicies));
  const audiences = new Set<string>();
  for (const [i, request] of (spec?.tokenRequests ?? []).entries()) {
    const at = `spec.tokenRequests[${i}]`;
    if (audiences.has(request.audience)) errors.push(fieldDuplicate(`${at}.audience`, request.audience));
    audiences.add(request.audience);
    const seconds = request.expirationSeconds;
    if (seconds == null) continue;
    if (seconds < minTokenSeconds) {
      errors.push(fieldInvalid(`${at}.expirationSeconds`, seconds, "may not specify a duration less than 10 minutes"));
    }
    if (seconds > 2 ** 32) {
      errors.push(
        fieldInvalid(`${at}.expirationSeconds`, seconds, "may not specify a duration larger than 2^32 seconds"),
      );
    }
  }
  return errors;
}

export function validateCsiDriverUpdate({ spec }: CSIDriver, { spec: old }: CSIDriver): FieldError[] {
  return [
    ...unchanged("spec.attachedRequired", spec.attachRequired, old.attachRequired),
    ...unchanged("spec.volumeLifecycleModes", spec.volumeLifecycleModes, old.volumeLifecycleModes),
  ];
}

export function validateCsiNode({ spec }: CSINode): FieldError[] {
  const drivers = spec?.drivers ?? [];
  const errors = eachOf(drivers, (driver, i) => {
    const at = `spec.drivers[${i}]`;
    const found = driverName(`${at}.name`, driver.name);
    if (!driver.nodeID) found.push(fieldRequired(`${at}.nodeID`));
    else if (driver.nodeID.length > maxNodeId) {
      found.push(fieldInvalid(`${at}.nodeID`, driver.nodeID, `must be ${maxNodeId} characters or less`));
    }
    for (const key of driver.topologyKeys ?? []) found.push(...checked(`${at}.topologyKeys`, key, qualifiedName));
    const count = driver.allocatable?.count;
    if (count != null && count < 0) {
      found.push(fieldInvalid(`${at}.allocatable.count`, count, "must be greater than or equal to 0"));
    }
    return found;
  });
  return [
    ...errors,
    ...noDuplicates(
      drivers,
      (driver) => driver.name,
      (i) => `spec.drivers[${i}].name`,
    ),
  ];
}

/** A driver that stays keeps what it said, except how many volumes it takes. */
export function validateCsiNodeUpdate({ spec }: CSINode, { spec: old }: CSINode): FieldError[] {
  return eachOf(old?.drivers ?? [], (before) => {
    const after = spec?.drivers?.find((driver) => driver.name === before.name);
    return after && !same(after, before) ? [fieldInvalid("spec.drivers", after.name, "field is immutable")] : [];
  });
}

export function validateVolumeAttachment({ spec, status }: VolumeAttachment): FieldError[] {
  const errors = findings(driverName("spec.attacher", spec?.attacher));
  const { persistentVolumeName, inlineVolumeSpec } = spec?.source ?? {};
  if (!persistentVolumeName && !inlineVolumeSpec) {
    errors.push(fieldRequired("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"));
  } else if (persistentVolumeName && inlineVolumeSpec) {
    errors.push(fieldForbidden("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"));
  }
  if (persistentVolumeName === "") errors.push(fieldRequired("spec.source.persistentVolumeName"));
  if (!spec?.nodeName) errors.push(fieldRequired("spec.nodeName"));
  else errors.push(...checked("spec.nodeName", spec.nodeName, dns1123Subdomain));
  for (const key of Object.keys(status?.attachmentMetadata ?? {})) {
    if (key.length > 128)
      errors.push(fieldInvalid("status.attachmentMetadata", key, "must have at most 128 characters"));
  }
  return errors;
}

export const validateVolumeAttachmentUpdate = ({ spec }: VolumeAttachment, old: VolumeAttachment): FieldError[] =>
  unchanged("spec", spec, old.spec);

export function validateStorageCapacity(entry: CSIStorageCapacity): FieldError[] {
  const errors = entry.storageClassName
    ? checked("storageClassName", entry.storageClassName, dns1123Subdomain)
    : [fieldRequired("storageClassName")];
  errors.push(...labelSelector("nodeTopology", entry.nodeTopology));
  if (entry.capacity !== undefined) errors.push(...quantity("capacity", entry.capacity));
  if (entry.maximumVolumeSize !== undefined) errors.push(...quantity("maximumVolumeSize", entry.maximumVolumeSize));
  return errors;
}

export const validateStorageCapacityUpdate = (entry: CSIStorageCapacity, old: CSIStorageCapacity): FieldError[] => [
  ...unchanged("nodeTopology", entry.nodeTopology, old.nodeTopology),
  ...unchanged("storageClassName", entry.storageClassName, old.storageClassName),
];

export const validateInlineCsi = (path: string, source: CSIVolumeSource): FieldError[] => [
  ...driverName(`${path}.driver`, source.driver),
  ...(source.nodePublishSecretRef && !source.nodePublishSecretRef.name
    ? [fieldRequired(`${path}.nodePublishSecretRef.name`)]
    : []),
];

export function validateClaimTemplate(path: string, template: PersistentVolumeClaimTemplate | undefined): FieldError[] {
  if (!template) return [fieldRequired(`${path}.volumeClaimTemplate`)];
  return validateClaimSpec(`${path}.volumeClaimTemplate.spec`, template.spec);
}
