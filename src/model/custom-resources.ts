// The kind that makes kinds: CustomResourceDefinition, its schema language, and the resource rows that an accepted
// definition stands for. Whoever works on all resources (garbage collection, namespace deletion, the API server's
// routes) gets the rows of custom ones from here. Upstream counterpart: apiextensions/v1/types.go.
import type { ApiObject } from "./object.ts";
import type { ResourceInfo, SubresourceInfo, Verb } from "./resource-info.ts";

export interface ValidationRule {
  rule: string;
  message?: string;
  messageExpression?: string;
  reason?: string;
  fieldPath?: string;
  optionalOldSelf?: boolean;
}

/** JSONSchemaProps: OpenAPI v3 as definitions may use it. */
export interface JsonSchema {
  id?: string;
  $schema?: string;
  $ref?: string;
  description?: string;
  type?: string;
  format?: string;
  title?: string;
  default?: unknown;
  maximum?: number;
  exclusiveMaximum?: boolean;
  minimum?: number;
  exclusiveMinimum?: boolean;
  maxLength?: number;
  minLength?: number;
  pattern?: string;
  maxItems?: number;
  minItems?: number;
  uniqueItems?: boolean;
  multipleOf?: number;
  enum?: unknown[];
  maxProperties?: number;
  minProperties?: number;
  required?: string[];
  items?: JsonSchema;
  allOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  anyOf?: JsonSchema[];
  not?: JsonSchema;
  properties?: Record<string, JsonSchema>;
  additionalProperties?: JsonSchema | boolean;
  patternProperties?: Record<string, JsonSchema>;
  dependencies?: Record<string, unknown>;
  additionalItems?: JsonSchema | boolean;
  definitions?: Record<string, JsonSchema>;
  externalDocs?: object;
  example?: unknown;
  nullable?: boolean;
  "x-kubernetes-preserve-unknown-fields"?: boolean;
  "x-kubernetes-embedded-resource"?: boolean;
  "x-kubernetes-int-or-string"?: boolean;
  "x-kubernetes-list-map-keys"?: string[];
  "x-kubernetes-list-type"?: string;
  "x-kubernetes-map-type"?: string;
  "x-kubernetes-validations"?: ValidationRule[];
}

export interface DefinitionNames {
  plural: string;
  singular?: string;
  shortNames?: string[];
  kind: string;
  listKind?: string;
  categories?: string[];
}

export interface PrinterColumn {
  name: string;
  type: string;
  format?: string;
  description?: string;
  priority?: number;
  jsonPath: string;
}

export interface ScalePaths {
  specReplicasPath: string;
  statusReplicasPath: string;
  labelSelectorPath?: string;
}

export interface DefinitionVersion {
  name: string;
  served: boolean;
  storage: boolean;
  schema?: { openAPIV3Schema?: JsonSchema };
  subresources?: { status?: object; scale?: ScalePaths };
  additionalPrinterColumns?: PrinterColumn[];
  deprecated?: boolean;
  deprecationWarning?: string;
  selectableFields?: { jsonPath: string }[];
}

export interface WebhookClientConfig {
  url?: string;
  caBundle?: string;
  service?: { namespace: string; name: string; path?: string; port?: number };
}

export interface DefinitionConversion {
  strategy: string;
  webhook?: { clientConfig?: WebhookClientConfig; conversionReviewVersions: string[] };
}

export interface DefinitionCondition {
  type: string;
  status: string;
  lastTransitionTime?: string;
  reason?: string;
  message?: string;
}

export interface CustomResourceDefinition extends ApiObject {
  spec: {
    group: string;
    names: DefinitionNames;
    scope: string;
    versions: DefinitionVersion[];
    conversion?: DefinitionConversion;
    preserveUnknownFields?: boolean;
  };
  status?: {
    conditions?: DefinitionCondition[];
    acceptedNames?: DefinitionNames;
    storedVersions?: string[];
  };
}

export const cleanupFinalizer = "customresourcecleanup.apiextensions.k8s.io";

const verbs: readonly Verb[] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const partVerbs: readonly Verb[] = ["get", "patch", "update"];

export const hasCondition = (definition: CustomResourceDefinition, type: string): boolean =>
  definition.status?.conditions?.some((condition) => condition.type === type && condition.status === "True") ?? false;

export const storageVersionOf = (definition: CustomResourceDefinition): DefinitionVersion | undefined =>
  definition.spec.versions.find((version) => version.storage);

/** One row for each version that is served; none before the names are accepted. */
export function resourcesOf(definition: CustomResourceDefinition): ResourceInfo[] {
  if (!hasCondition(definition, "Established")) return [];
  return definition.spec.versions.filter((version) => version.served).map((version) => rowOf(definition, version));
}

/** The row by which every object of the definition can be found, whatever version it was made in. */
export function walkableResourceOf(definition: CustomResourceDefinition): ResourceInfo | undefined {
  const rows = resourcesOf(definition);
  return rows.find((row) => row.version === storageVersionOf(definition)?.name) ?? rows[0];
}

export function rowOf(definition: CustomResourceDefinition, version: DefinitionVersion): ResourceInfo {
  const { group, scope } = definition.spec;
  const accepted = definition.status?.acceptedNames;
  const names = accepted && accepted.plural !== "" ? accepted : definition.spec.names;
  const subresources: Record<string, SubresourceInfo> = {};
  if (version.subresources?.scale) {
    subresources["scale"] = { group: "autoscaling", version: "v1", kind: "Scale", verbs: partVerbs };
  }
  if (version.subresources?.status) subresources["status"] = { verbs: partVerbs };
  return {
    group,
    version: version.name,
    kind: names.kind,
    plural: names.plural,
    singular: names.singular ?? names.kind.toLowerCase(),
    shortNames: names.shortNames ?? [],
    categories: names.categories ?? [],
    namespaced: scope === "Namespaced",
    verbs,
    subresources,
    storageVersion: `${group}/${storageVersionOf(definition)?.name ?? version.name}`,
    storageGroup: group,
    type: "",
  };
}
