// What may be wrong with a CustomResourceDefinition, beside its schemas. Pure; paths and words are upstream's.
// Upstream counterpart: apiextensions/validation/validation.go.

import { messageOf } from "#base/errors.ts";
import { checkSchemaRules } from "#model/cel/schema-check.ts";
import {
  type CustomResourceDefinition,
  type DefinitionConversion,
  type DefinitionNames,
  type DefinitionVersion,
  hasCondition,
  type JsonSchema,
  type PrinterColumn,
} from "#model/custom-resources.ts";
import { equalJson, isObject } from "#model/patch/json-value.ts";
import {
  type FieldError,
  fieldDuplicate,
  fieldForbidden,
  fieldInvalid,
  fieldNotSupported,
  fieldRequired,
  fieldTooMany,
} from "#model/status.ts";
import { enough, findings } from "#model/validation/findings.ts";
import { type Check, dns1035Label, dns1123Subdomain } from "#model/validation/names.ts";
import { isKnownFormat } from "./formats.ts";
import { compileJsonPath, type JsonPath } from "./json-path.ts";
import { checkSchema, DefinitionPatterns } from "./structural.ts";

export const approvalAnnotation = "api-approved.kubernetes.io";
const maxSelectableFields = 8;
/** Headers are not for reading lists. */
const maxWarnings = 20;
const columnTypes = ["boolean", "date", "integer", "number", "string"];
const columnFormats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

export function validateDefinition(definition: CustomResourceDefinition): FieldError[] {
  const { spec, metadata } = definition;
  const errors = findings();
  if (metadata.name !== `${spec.names.plural}.${spec.group}`) {
    errors.push(fieldInvalid("metadata.name", metadata.name, 'must be spec.names.plural+"."+spec.group'));
  }
  const inSpec = enough(() => checkSpec(definition, undefined));
  return [...errors, ...inSpec, ...checkStored(definition), ...checkApproval(definition)];
}

export function validateDefinitionUpdate(
  definition: CustomResourceDefinition,
  old: CustomResourceDefinition,
): FieldError[] {
  const errors = findings();
  const same = (path: string, value: unknown, before: unknown) => {
    if (value !== before) errors.push(fieldInvalid(path, value, "field is immutable"));
  };
  const { spec } = definition;
  if (hasCondition(old, "Established")) {
    same("spec.scope", spec.scope, old.spec.scope);
    same("spec.names.kind", spec.names.kind, old.spec.names.kind);
  }
  same("spec.group", spec.group, old.spec.group);
  same("spec.names.plural", spec.names.plural, old.spec.names.plural);
  const inSpec = enough(() => checkSpec(definition, old));
  return [...errors, ...inSpec, ...checkStored(definition), ...checkApproval(definition, old)];
}

export function validateDefinitionStatus(definition: CustomResourceDefinition): FieldError[] {
  return checkStored(definition);
}

/** Beside errors: formats that nobody will check. */
export function definitionWarnings(definition: CustomResourceDefinition): string[] {
  const formats = new Set<string>();
  const look = (schema: unknown): void => {
    if (!isObject(schema)) return;
    const { format, properties, items, additionalProperties } = schema as JsonSchema;
    if (format && !isKnownFormat(format)) formats.add(format);
    for (const property of Object.values(properties ?? {})) look(property);
    look(items);
    look(additionalProperties);
  };
  for (const version of definition.spec.versions) look(version.schema?.openAPIV3Schema);
  return [...formats].slice(0, maxWarnings).map((format) => `unrecognized format ${JSON.stringify(format)}`);
}

function checkSpec(definition: CustomResourceDefinition, old: CustomResourceDefinition | undefined): FieldError[] {
  const { spec } = definition;
  const errors = findings();
  if (!spec.group) errors.push(fieldRequired("spec.group"));
  else {
    const problems = dns1123Subdomain(spec.group);
    if (problems.length > 0) errors.push(fieldInvalid("spec.group", spec.group, problems.join(",")));
    else if (!spec.group.includes(".")) {
      errors.push(fieldInvalid("spec.group", spec.group, "should be a domain with at least one dot"));
    }
  }
  if (!spec.scope) errors.push(fieldRequired("spec.scope"));
  else if (spec.scope !== "Cluster" && spec.scope !== "Namespaced") {
    errors.push(fieldNotSupported("spec.scope", spec.scope, ["Cluster", "Namespaced"]));
  }
  if (spec.preserveUnknownFields) {
    const why =
      "must be false in order to use structural schemas; set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema.openAPIV3Schema instead";
    errors.push(fieldInvalid("spec.preserveUnknownFields", true, why));
  }
  const names = new Set<string>();
  let isUnique = true;
  let stored = 0;
  const places = placesOf(spec.versions);
  const patterns = new DefinitionPatterns();
  spec.versions.forEach((version, index) => {
    const path = `spec.versions[${index}]`;
    if (names.has(version.name)) isUnique = false;
    names.add(version.name);
    if (version.storage) stored++;
    const problems = dns1035Label(version.name);
    if (problems.length > 0) errors.push(fieldInvalid(`${path}.name`, version.name, problems.join(",")));
    const before = old?.spec.versions.find((candidate) => candidate.name === version.name);
    errors.push(...checkVersion(version, path, before, places(index), patterns));
  });
  if (!isUnique) errors.push(fieldInvalid("spec.versions", [...names], "must contain unique version names"));
  if (stored !== 1) {
    const shown = spec.versions.map((version) => version.name);
    errors.push(fieldInvalid("spec.versions", shown, "must have exactly one version marked as storage version"));
  }
  for (const field of ["plural", "singular", "kind", "listKind"] as const) {
    if (!spec.names[field]) errors.push(fieldRequired(`spec.names.${field}`));
  }
  errors.push(...checkNames(spec.names), ...checkConversion(spec.conversion));
  return errors;
}

function checkNames(names: DefinitionNames): FieldError[] {
  const errors = findings();
  const form = (path: string, value: string | undefined, check: Check, prefix = "") => {
    if (!value) return;
    const problems = check(value);
    if (problems.length > 0) errors.push(fieldInvalid(path, value, prefix + problems.join(",")));
  };
  const kindForm: Check = (text) => dns1035Label(text.toLowerCase());
  const mixed = "may have mixed case, but should otherwise match: ";
  form("spec.names.plural", names.plural, dns1035Label);
  form("spec.names.singular", names.singular, dns1035Label);
  form("spec.names.kind", names.kind, kindForm, mixed);
  form("spec.names.listKind", names.listKind, kindForm, mixed);
  names.shortNames?.forEach((name, index) => {
    form(`spec.names.shortNames[${index}]`, name, dns1035Label);
  });
  if (names.kind && names.kind === names.listKind) {
    errors.push(fieldInvalid("spec.names.listKind", names.listKind, "kind and listKind may not be the same"));
  }
  names.categories?.forEach((name, index) => {
    form(`spec.names.categories[${index}]`, name, dns1035Label);
  });
  return errors;
}

/** What upstream moves to the spec itself where it is the same in all versions, and its name there. */
const sharedParts = {
  schema: "validation",
  additionalPrinterColumns: "additionalPrinterColumns",
  subresources: "subresources",
  selectableFields: "selectableFields",
} as const;
type SharedPart = keyof typeof sharedParts;
/** Where errors about a part of a version are said to be; undefined where the first version's have said them already. */
type PlaceOf = (part: SharedPart) => string | undefined;

function placesOf(versions: readonly DefinitionVersion[]): (index: number) => PlaceOf {
  const isShared = (part: SharedPart): boolean =>
    versions.every((version) => equalJson(version[part] ?? null, versions[0]?.[part] ?? null));
  const shared = new Set((Object.keys(sharedParts) as SharedPart[]).filter(isShared));
  return (index) => (part) => {
    if (!shared.has(part)) return `spec.versions[${index}].${part}`;
    return index === 0 ? `spec.${sharedParts[part]}` : undefined;
  };
}

function checkVersion(
  version: DefinitionVersion,
  path: string,
  old: DefinitionVersion | undefined,
  place: PlaceOf,
  patterns: DefinitionPatterns,
): FieldError[] {
  const errors = findings();
  const { deprecationWarning: warning } = version;
  if (warning !== undefined) {
    const at = `${path}.deprecationWarning`;
    if (!version.deprecated) errors.push(fieldInvalid(at, warning, "can only be set for deprecated versions"));
    if (warning === "") errors.push(fieldInvalid(at, warning, "must not be empty if set"));
    else if (warning.length > 256) errors.push(fieldInvalid(at, warning, "must be <= 256 characters long"));
    else if (/\p{Cc}/u.test(warning)) {
      errors.push(
        fieldInvalid(at, warning, "must only contain printable UTF-8 characters; non-printable characters found"),
      );
    }
  }
  const schema = version.schema?.openAPIV3Schema;
  const schemaPlace = place("schema");
  if (!schema) errors.push(fieldRequired(`${path}.schema.openAPIV3Schema`, "schemas are required"));
  else if (schemaPlace !== undefined) {
    const schemaPath = `${schemaPlace}.openAPIV3Schema`;
    // What was accepted once stays so: limits may have become stricter since.
    const isKnown = old !== undefined && equalJson(schema, old.schema?.openAPIV3Schema);
    const counted = isKnown ? new DefinitionPatterns(Number.POSITIVE_INFINITY) : patterns;
    const problems = checkSchema(schema, schemaPath, version.subresources?.status !== undefined, counted);
    errors.push(...problems);
    if (problems.length === 0 && !isKnown) errors.push(...checkSchemaRules(schema, schemaPath));
  }
  const columns = place("additionalPrinterColumns");
  if (columns !== undefined) {
    version.additionalPrinterColumns?.forEach((column, index) => {
      errors.push(...checkColumn(column, `${columns}[${index}]`));
    });
  }
  const subresources = place("subresources");
  if (subresources !== undefined) errors.push(...checkScale(version, subresources));
  const selectable = place("selectableFields");
  if (selectable !== undefined) errors.push(...checkSelectable(version, schema, selectable));
  return errors;
}

function checkColumn(column: PrinterColumn, path: string): FieldError[] {
  const errors = findings();
  if (!column.name) errors.push(fieldRequired(`${path}.name`));
  const oneOfTypes = `must be one of ${columnTypes.join(",")}`;
  if (!column.type) errors.push(fieldRequired(`${path}.type`, oneOfTypes));
  else if (!columnTypes.includes(column.type)) errors.push(fieldInvalid(`${path}.type`, column.type, oneOfTypes));
  if (column.format && !columnFormats.includes(column.format)) {
    errors.push(fieldInvalid(`${path}.format`, column.format, `must be one of ${columnFormats.join(",")}`));
  }
  if (!column.jsonPath) errors.push(fieldRequired(`${path}.jsonPath`));
  else parsePath(errors, column.jsonPath, `${path}.jsonPath`);
  return errors;
}

function parsePath(errors: FieldError[], text: string, path: string): JsonPath | undefined {
  if (!text.startsWith(".")) {
    errors.push(fieldInvalid(path, text, "must be a simple json path starting with ."));
    return undefined;
  }
  try {
    return compileJsonPath(text);
  } catch (error) {
    errors.push(fieldInvalid(path, text, `must be a simple json path: ${messageOf(error)}`));
    return undefined;
  }
}

function checkScale(version: DefinitionVersion, path: string): FieldError[] {
  const scale = version.subresources?.scale;
  if (!scale) return [];
  const errors = findings();
  const look = (field: keyof typeof scale, roots: readonly string[], where: string, isRequired: boolean) => {
    const value = scale[field] ?? "";
    const at = `${path}.scale.${field}`;
    if (value === "") {
      if (isRequired) errors.push(fieldRequired(at));
      return;
    }
    const parsed = parsePath(errors, value, at);
    if (!parsed) return;
    if (!parsed.names) errors.push(fieldInvalid(at, value, "must be a simple json path of field names"));
    else if (!roots.some((root) => value.startsWith(`.${root}.`))) {
      errors.push(fieldInvalid(at, value, `should be a json path under ${where}`));
    }
  };
  look("specReplicasPath", ["spec"], ".spec", true);
  look("statusReplicasPath", ["status"], ".status", true);
  look("labelSelectorPath", ["spec", "status"], "either .spec or .status", false);
  return errors;
}

function checkSelectable(version: DefinitionVersion, schema: JsonSchema | undefined, path: string): FieldError[] {
  const fields = version.selectableFields ?? [];
  const errors = findings();
  if (fields.length > maxSelectableFields) errors.push(fieldTooMany(path, fields.length, maxSelectableFields));
  const seen = new Set<string>();
  fields.forEach(({ jsonPath }, index) => {
    const at = `${path}[${index}].jsonPath`;
    if (!jsonPath) {
      errors.push(fieldRequired(at));
      return;
    }
    if (seen.has(jsonPath)) {
      errors.push(fieldDuplicate(at, jsonPath));
      return;
    }
    seen.add(jsonPath);
    const parsed = parsePath(errors, jsonPath, at);
    if (!parsed) return;
    if (!parsed.names || jsonPath.includes("[")) {
      errors.push(fieldInvalid(at, jsonPath, "is an invalid path: must be a simple path of field names"));
      return;
    }
    if (parsed.names[0] === "metadata") {
      errors.push(fieldInvalid(at, jsonPath, "must not point to fields in metadata"));
      return;
    }
    let target: JsonSchema | undefined = schema;
    for (const name of parsed.names) target = target?.properties?.[name];
    if (!target) {
      errors.push(fieldInvalid(at, jsonPath, "is an invalid path: does not refer to a valid field"));
      return;
    }
    if (!["string", "boolean", "integer"].includes(target.type ?? "")) {
      const why =
        "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
      errors.push(fieldInvalid(at, jsonPath, why));
    }
  });
  return errors;
}

function checkConversion(conversion: DefinitionConversion | undefined): FieldError[] {
  if (!conversion) return [];
  const errors = findings();
  const { strategy, webhook } = conversion;
  const path = "spec.conversion";
  if (!strategy) errors.push(fieldRequired(`${path}.strategy`));
  else if (strategy !== "None" && strategy !== "Webhook") {
    errors.push(fieldNotSupported(`${path}.strategy`, strategy, ["None", "Webhook"]));
  }
  if (strategy !== "Webhook") {
    if (webhook)
      errors.push(fieldForbidden(`${path}.webhook`, "should not be set when strategy is not set to Webhook"));
    return errors;
  }
  const client = webhook?.clientConfig;
  const clientPath = `${path}.webhook.clientConfig`;
  if (!client) errors.push(fieldRequired(clientPath, "required when strategy is set to Webhook, but not specified"));
  else if ((client.url === undefined) === (client.service === undefined)) {
    errors.push(fieldRequired(clientPath, "exactly one of url or service is required"));
  } else if (client.url !== undefined) errors.push(...checkUrl(client.url, `${clientPath}.url`));
  else if (client.service) {
    const { name, namespace, path: urlPath, port } = client.service;
    if (!name) errors.push(fieldRequired(`${clientPath}.service.name`, "service name is required"));
    if (!namespace) errors.push(fieldRequired(`${clientPath}.service.namespace`, "service namespace is required"));
    if (port !== undefined && (port < 1 || port > 65535)) {
      errors.push(
        fieldInvalid(`${clientPath}.service.port`, port, "port is not valid: must be between 1 and 65535, inclusive"),
      );
    }
    if (urlPath !== undefined && !urlPath.startsWith("/")) {
      errors.push(fieldInvalid(`${clientPath}.service.path`, urlPath, "must start with a '/'"));
    }
  }
  const versions = webhook?.conversionReviewVersions ?? [];
  const versionsPath = `${path}.webhook.conversionReviewVersions`;
  if (versions.length === 0) errors.push(fieldRequired(versionsPath));
  else if (!versions.includes("v1")) {
    errors.push(fieldInvalid(versionsPath, versions, "must include at least one of v1"));
  }
  return errors;
}

function checkUrl(text: string, path: string): FieldError[] {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return [fieldRequired(path, `url must be a valid URL: ${text}; desired format: https://host[/path]`)];
  }
  const form = "; desired format: https://host[/path]";
  const errors = findings();
  if (url.protocol !== "https:") {
    errors.push(fieldInvalid(path, url.protocol.slice(0, -1), `'https' is the only allowed URL scheme${form}`));
  }
  if (url.host === "") errors.push(fieldInvalid(path, url.host, `host must be specified${form}`));
  if (url.username !== "")
    errors.push(fieldInvalid(path, url.username, `user information is not permitted in the URL${form}`));
  if (url.hash !== "") errors.push(fieldInvalid(path, url.hash, `fragments are not permitted in the URL${form}`));
  if (url.search !== "")
    errors.push(fieldInvalid(path, url.search, `query parameters are not permitted in the URL${form}`));
  return errors;
}

function checkStored(definition: CustomResourceDefinition): FieldError[] {
  const stored = definition.status?.storedVersions ?? [];
  const errors = findings();
  const { versions } = definition.spec;
  if (stored.length === 0) {
    errors.push(fieldInvalid("status.storedVersions", stored, "must have at least one stored version"));
  }
  stored.forEach((name, index) => {
    if (!versions.some((version) => version.name === name)) {
      errors.push(fieldInvalid(`status.storedVersions[${index}]`, name, "must appear in spec.versions"));
    }
  });
  const storage = versions.find((version) => version.storage)?.name;
  if (storage !== undefined && stored.length > 0 && !stored.includes(storage)) {
    errors.push(fieldInvalid("status.storedVersions", stored, `must have the storage version ${storage}`));
  }
  return errors;
}

/** Groups of the Kubernetes community say who approved them. */
export const isProtectedGroup = (group: string): boolean => /(^|\.)(k8s|kubernetes)\.io$/.test(group);

export function approvalState(annotation: string | undefined): "missing" | "approved" | "bypassed" | "invalid" {
  if (annotation === undefined || annotation === "") return "missing";
  if (annotation.startsWith("unapproved")) return "bypassed";
  try {
    return new URL(annotation).host === "" ? "invalid" : "approved";
  } catch {
    return "invalid";
  }
}

function checkApproval(definition: CustomResourceDefinition, old?: CustomResourceDefinition): FieldError[] {
  if (!isProtectedGroup(definition.spec.group)) return [];
  const annotation = definition.metadata.annotations?.[approvalAnnotation];
  const state = approvalState(annotation);
  const path = `metadata.annotations[${approvalAnnotation}]`;
  const advice = `protected groups must have approval annotation ${JSON.stringify(approvalAnnotation)}, see https://github.com/kubernetes/enhancements/pull/1111`;
  const before = old?.metadata.annotations?.[approvalAnnotation];
  if (old && approvalState(before) === state && state !== "approved") return [];
  if (state === "missing") return [fieldRequired(path, advice)];
  if (state === "invalid") return [fieldInvalid(path, annotation, advice)];
  return [];
}
