// Volumes of a pod: a name, exactly one source, and what the common sources need. Upstream: ValidateVolumes.
import type { KeyToPath, Volume } from "../gen/core-v1.ts";
import { type FieldError, fieldForbidden, fieldInvalid, fieldRequired } from "../status.ts";
import { noDuplicates, oneOf, quantity, requiredName } from "./checks.ts";
import { validateFieldRef, validateNoBackSteps, validateRelativePath } from "./container.ts";
import { validateClaimTemplate, validateInlineCsi } from "./csi.ts";
import { eachOf, findings } from "./findings.ts";
import { dataKey, dns1123Label } from "./names.ts";

export function validateVolumes(path: string, volumes: readonly Volume[]): FieldError[] {
  return [
    ...eachOf(volumes, (volume, i) => validateVolume(`${path}[${i}]`, volume)),
    ...noDuplicates(
      volumes,
      (volume) => volume.name,
      (i) => `${path}[${i}].name`,
    ),
  ];
}

function validateVolume(path: string, volume: Volume): FieldError[] {
  const errors = findings(requiredName(`${path}.name`, volume.name, dns1123Label));
  const sources = Object.entries(volume).filter(([field, value]) => field !== "name" && value != null);
  if (sources.length === 0) errors.push(fieldRequired(path, "must specify a volume type"));
  for (const [field] of sources.slice(1)) {
    errors.push(fieldForbidden(`${path}.${field}`, "may not specify more than 1 volume type"));
  }
  const { configMap, downwardAPI, emptyDir, hostPath, nfs, persistentVolumeClaim, projected, secret } = volume;
  if (emptyDir?.sizeLimit != null) errors.push(...quantity(`${path}.emptyDir.sizeLimit`, emptyDir.sizeLimit));
  if (hostPath) {
    if (!hostPath.path) errors.push(fieldRequired(`${path}.hostPath.path`));
    else errors.push(...validateNoBackSteps(`${path}.hostPath.path`, hostPath.path));
    errors.push(...oneOf(`${path}.hostPath.type`, hostPath.type, hostPathTypes));
  }
  if (configMap) {
    if (!configMap.name) errors.push(fieldRequired(`${path}.configMap.name`));
    errors.push(...validateMode(`${path}.configMap.defaultMode`, configMap.defaultMode));
    errors.push(...validateItems(`${path}.configMap.items`, configMap.items));
  }
  if (secret) {
    if (!secret.secretName) errors.push(fieldRequired(`${path}.secret.secretName`));
    errors.push(...validateMode(`${path}.secret.defaultMode`, secret.defaultMode));
    errors.push(...validateItems(`${path}.secret.items`, secret.items));
  }
  if (persistentVolumeClaim && !persistentVolumeClaim.claimName) {
    errors.push(fieldRequired(`${path}.persistentVolumeClaim.claimName`));
  }
  if (volume.csi) errors.push(...validateInlineCsi(`${path}.csi`, volume.csi));
  if (volume.ephemeral) {
    errors.push(...validateClaimTemplate(`${path}.ephemeral`, volume.ephemeral.volumeClaimTemplate));
  }
  if (nfs) {
    if (!nfs.server) errors.push(fieldRequired(`${path}.nfs.server`));
    if (!nfs.path) errors.push(fieldRequired(`${path}.nfs.path`));
    else if (!nfs.path.startsWith("/"))
      errors.push(fieldInvalid(`${path}.nfs.path`, nfs.path, "must be an absolute path"));
  }
  if (downwardAPI) {
    errors.push(...validateMode(`${path}.downwardAPI.defaultMode`, downwardAPI.defaultMode));
    errors.push(...validateDownward(`${path}.downwardAPI`, downwardAPI.items));
  }
  if (projected) errors.push(...validateProjected(`${path}.projected`, projected));
  return errors;
}

const hostPathTypes = [
  "",
  "DirectoryOrCreate",
  "Directory",
  "FileOrCreate",
  "File",
  "Socket",
  "CharDevice",
  "BlockDevice",
];
const volumeFieldPaths = [
  "metadata.name",
  "metadata.namespace",
  "metadata.labels",
  "metadata.annotations",
  "metadata.uid",
];
/** Ten minutes, as upstream: shorter tokens would be rotated all the time. */
const minTokenSeconds = 600;

function validateProjected(path: string, projected: NonNullable<Volume["projected"]>): FieldError[] {
  const errors = findings(validateMode(`${path}.defaultMode`, projected.defaultMode));
  for (const [i, source] of (projected.sources ?? []).entries()) {
    const at = `${path}.sources[${i}]`;
    const present = Object.entries(source).filter(([, value]) => value != null);
    for (const [field] of present.slice(1)) {
      errors.push(fieldForbidden(`${at}.${field}`, "may not specify more than 1 volume type"));
    }
    const token = source.serviceAccountToken;
    if (token) {
      const seconds = token.expirationSeconds ?? minTokenSeconds;
      const field = `${at}.serviceAccountToken.expirationSeconds`;
      if (seconds < minTokenSeconds)
        errors.push(fieldInvalid(field, seconds, "may not specify a duration less than 10 minutes"));
      if (seconds > 2 ** 32)
        errors.push(fieldInvalid(field, seconds, "may not specify a duration larger than 2^32 seconds"));
      if (!token.path) errors.push(fieldRequired(`${at}.serviceAccountToken.path`));
      else errors.push(...validateRelativePath(`${at}.serviceAccountToken.path`, token.path));
    }
    if (source.secret) {
      if (!source.secret.name) errors.push(fieldRequired(`${at}.secret.name`));
      errors.push(...validateItems(`${at}.secret.items`, source.secret.items));
    }
    if (source.configMap) {
      if (!source.configMap.name) errors.push(fieldRequired(`${at}.configMap.name`));
      errors.push(...validateItems(`${at}.configMap.items`, source.configMap.items));
    }
    if (source.downwardAPI) errors.push(...validateDownward(`${at}.downwardAPI`, source.downwardAPI.items));
  }
  return errors;
}

type DownwardItems = NonNullable<Volume["downwardAPI"]>["items"];

function validateDownward(path: string, items: DownwardItems): FieldError[] {
  return eachOf(items ?? [], (item, i) => {
    // Upstream leaves the index out of these paths.
    const errors = findings(
      item.path ? validateRelativePath(`${path}.path`, item.path) : [fieldRequired(`${path}.path`)],
    );
    errors.push(...validateMode(`${path}.mode`, item.mode));
    if (item.fieldRef && item.resourceFieldRef) {
      errors.push(
        fieldInvalid(path, `items[${i}]`, "fieldRef and resourceFieldRef can not be specified simultaneously"),
      );
    } else if (item.fieldRef) {
      errors.push(...validateFieldRef(`${path}.fieldRef`, item.fieldRef, volumeFieldPaths));
    } else if (item.resourceFieldRef) {
      if (!item.resourceFieldRef.containerName) errors.push(fieldRequired(`${path}.resourceFieldRef.containerName`));
      if (!item.resourceFieldRef.resource) errors.push(fieldRequired(`${path}.resourceFieldRef.resource`));
    } else errors.push(fieldRequired(`${path}.fieldRef`, "one of fieldRef and resourceFieldRef is required"));
    return errors;
  });
}

function validateItems(path: string, items: readonly KeyToPath[] | undefined): FieldError[] {
  return eachOf(items ?? [], (item, i) => [
    ...requiredName(`${path}[${i}].key`, item.key, dataKey),
    ...(item.path ? validateRelativePath(`${path}[${i}].path`, item.path) : [fieldRequired(`${path}[${i}].path`)]),
    ...validateMode(`${path}[${i}].mode`, item.mode),
  ]);
}

function validateMode(path: string, mode: number | undefined): FieldError[] {
  return mode != null && (mode < 0 || mode > 0o777)
    ? [fieldInvalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive")]
    : [];
}
