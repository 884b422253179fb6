// Kinds as types of expressions, so that what a policy says of an object can be held against what the object can have:
// built-in kinds from the facts table, custom ones from their schemas. Where a value may be of several types nothing is
// known of it. Upstream counterpart: apiserver/pkg/cel/openapi and its schema resolvers.
import { authorizerFunctions, authorizerVariable } from "#model/cel/library-authorizer.ts";
import { declare, escapeName } from "#model/cel/schema-types.ts";
import {
  boolType,
  bytesType,
  type CelType,
  doubleType,
  dynType,
  intType,
  listOf,
  mapOf,
  objectType,
  stringType,
  timestampType,
} from "#model/cel/types.ts";
import { type CustomResourceDefinition, rowOf } from "#model/custom-resources.ts";
import { type FieldFacts, facts } from "#model/facts.ts";
import { allResources } from "#model/resources.ts";

export interface Kind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

/** What policies may be about. */
export interface KindSource {
  kindsOf(group: string, version: string, plural: string): readonly Kind[];
  /** Undefined: this server does not know it. */
  typeOf(kind: Kind): CelType | undefined;
}

const scalars: Readonly<Record<string, CelType>> = {
  string: stringType,
  duration: stringType,
  bool: boolType,
  int32: intType,
  int64: intType,
  uint32: intType,
  uint64: intType,
  double: doubleType,
  bytes: bytesType,
  time: timestampType,
  microtime: timestampType,
  strings: listOf(stringType),
};

/** Types by message; kinds that hold themselves are one type whose fields lead back to it. */
class Messages {
  readonly #known = new Map<string, CelType>();

  of(name: string): CelType {
    const known = this.#known.get(name);
    if (known) return known;
    const fields = new Map<string, CelType>();
    const type = objectType(name, fields);
    this.#known.set(name, type);
    const message = facts.message(name);
    if (message.isKind) fields.set("apiVersion", stringType).set("kind", stringType);
    for (const [member, field] of message.members) {
      const escaped = escapeName(member);
      if (escaped !== undefined) fields.set(escaped, this.#field(field));
    }
    return type;
  }

  #field(field: FieldFacts): CelType {
    const value = this.#value(field);
    if (field.repeated) return listOf(value);
    return field.map ? mapOf(stringType, value) : value;
  }

  #value({ type, isMessage, union }: FieldFacts): CelType {
    if (union) return dynType;
    if (isMessage) return this.of(type);
    return Object.hasOwn(scalars, type) ? scalars[type]! : dynType;
  }
}

/** `definitions`: as they are at the moment of the question. */
export function createKindSource(definitions: () => readonly CustomResourceDefinition[]): KindSource {
  const messages = new Messages();
  const customRows = (group: string) =>
    definitions()
      .filter(({ spec }) => spec.group === group)
      .flatMap((definition) =>
        definition.spec.versions
          .filter(({ served }) => served)
          .map((version) => ({ row: rowOf(definition, version), schema: version.schema?.openAPIV3Schema })),
      );
  return {
    kindsOf(group, version, plural) {
      const rows = [...allResources, ...customRows(group).map(({ row }) => row)];
      return rows
        .filter((row) => row.group === group && row.version === version && row.plural === plural)
        .map(({ kind }) => ({ group, version, kind }));
    },
    typeOf({ group, version, kind }) {
      const isIt = (row: Kind) => row.group === group && row.version === version && row.kind === kind;
      const builtIn = allResources.find(isIt);
      if (builtIn) return facts.find(builtIn.type) ? messages.of(builtIn.type) : undefined;
      const schema = customRows(group).find(({ row }) => isIt(row))?.schema;
      const declared = schema && declare(schema, false, kind)?.type;
      if (!declared?.fields) return undefined;
      const common = [
        ["apiVersion", stringType],
        ["kind", stringType],
        ["metadata", messages.of("meta/v1.ObjectMeta")],
      ] as const;
      return objectType(kind, new Map([...declared.fields, ...common]));
    },
  };
}

const record = (name: string, fields: Readonly<Record<string, CelType>>): CelType =>
  objectType(name, new Map(Object.entries(fields)));

const ofMeta = {
  name: stringType,
  generateName: stringType,
  __namespace__: stringType,
  labels: mapOf(stringType, stringType),
  annotations: mapOf(stringType, stringType),
  UID: stringType,
  creationTimestamp: timestampType,
  deletionGracePeriodSeconds: intType,
  deletionTimestamp: timestampType,
  generation: intType,
  resourceVersion: stringType,
  finalizers: listOf(stringType),
};
const groupVersionKind = record("kubernetes.GroupVersionKind", {
  group: stringType,
  version: stringType,
  kind: stringType,
});
const groupVersionResource = record("kubernetes.GroupVersionResource", {
  group: stringType,
  version: stringType,
  resource: stringType,
});

/** Variables whose types do not depend on the policy. */
const commonVariables: readonly (readonly [string, CelType])[] = [
  [
    "namespaceObject",
    record("kubernetes.Namespace", {
      metadata: record("kubernetes.NamespaceMetadata", ofMeta),
      spec: record("kubernetes.NamespaceSpec", { finalizers: listOf(stringType) }),
      status: record("kubernetes.NamespaceStatus", { phase: stringType }),
    }),
  ],
  [
    "request",
    record("kubernetes.AdmissionRequest", {
      kind: groupVersionKind,
      resource: groupVersionResource,
      subResource: stringType,
      requestKind: groupVersionKind,
      requestResource: groupVersionResource,
      requestSubResource: stringType,
      name: stringType,
      __namespace__: stringType,
      operation: stringType,
      userInfo: record("kubernetes.UserInfo", {
        username: stringType,
        uid: stringType,
        groups: listOf(stringType),
        extra: mapOf(stringType, listOf(stringType)),
      }),
      dryRun: boolType,
      options: dynType,
    }),
  ],
  authorizerVariable,
];

/** What expressions of a policy see when it is about `object`. `params`: undefined where there is no such variable. */
export const typedEnvironment = (
  object: CelType,
  params: CelType | undefined,
  variables: ReadonlyMap<string, CelType>,
) => ({
  variables: new Map<string, CelType>([
    ...commonVariables,
    ["object", object],
    ["oldObject", object],
    ...(params ? [["params", params] as const] : []),
    ["variables", objectType("kubernetes.variables", variables)],
  ]),
  functions: authorizerFunctions,
});
