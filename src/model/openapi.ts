// OpenAPI v2 and v3 documents of the built-in API, derived from the facts table and the resource rows. Sentences are not
// part of mote: a Describe function hands them in at build time (scripts/build/openapi.ts).
// What clients rely on: x-kubernetes-group-version-kind (explain, apply), x-kubernetes-patch-* and list types (apply),
// the PATCH media types and its fieldValidation parameter (kubectl's server-side validation), property descriptions.
// Upstream counterpart: kube-openapi's builders.
import { type FieldFacts, facts, type MessageFacts } from "./facts.ts";
import type { ResourceInfo, SubresourceInfo } from "./resource-info.ts";
import { allResources } from "./resources.ts";

export type Json = { [name: string]: unknown };
/** Sentence of a type (`field` empty) or of one of its members; empty when there is none. */
export type Describe = (type: string, field: string) => string;
export interface OpenApiOptions {
  /** As in /version: `v1.32.3`. */
  readonly version: string;
  readonly describe: Describe;
}

export type Dialect = "v2" | "v3";
interface Gvk {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

/** Documents by path under /openapi/v3: `api/v1`, `apis/apps/v1`, … */
export function buildOpenApiV3(
  options: OpenApiOptions,
  resources: readonly ResourceInfo[] = allResources,
): Map<string, Json> {
  const documents = new Map<string, Json>();
  const paths = new Map<string, ResourceInfo[]>();
  for (const info of resources) {
    const path = groupPath(info).slice(1);
    paths.set(path, [...(paths.get(path) ?? []), info]);
  }
  for (const [path, infos] of paths) {
    const schemas = new SchemaSet("v3", options.describe);
    const routes: Json = {};
    for (const info of infos) Object.assign(routes, routesOf(info, "v3", schemas));
    documents.set(path, {
      openapi: "3.0.0",
      info: { title: "Kubernetes", version: options.version },
      paths: routes,
      components: {
        schemas: schemas.finish(),
        securitySchemes: {
          BearerToken: {
            type: "apiKey",
            description: "Bearer Token authentication",
            name: "authorization",
            in: "header",
          },
        },
      },
    });
  }
  return documents;
}

/** A custom resource; its schema is of the dialect, without what all objects have. */
export interface CustomKind {
  readonly info: ResourceInfo;
  readonly schema: (dialect: Dialect, reference: (type: string) => Json) => Json;
}

/** Paths and schemas of custom resources, and of what they refer to. */
export function buildCustomOpenApi(
  kinds: readonly CustomKind[],
  dialect: Dialect,
  describe: Describe,
): { readonly paths: Json; readonly schemas: Json } {
  const custom = new Map<string, CustomSchema>();
  const rows: ResourceInfo[] = [];
  for (const { info, schema } of kinds) {
    const word = info.group.replace(/[^a-zA-Z0-9]+(.)/g, (_, letter: string) => letter.toUpperCase());
    const type = `${word}/${info.version}.${info.kind}`;
    const name = `${info.group.split(".").reverse().join(".")}.${info.version}.${info.kind}`;
    const { group, version } = info;
    custom.set(type, { name, kind: { group, kind: info.kind, version }, schema });
    custom.set(`${type}List`, {
      name: `${name}List`,
      kind: { group, kind: `${info.kind}List`, version },
      schema: (_dialect, reference) => ({
        description: `${info.kind}List is a list of ${info.kind}`,
        type: "object",
        required: ["items"],
        properties: {
          apiVersion: { type: "string" },
          items: { type: "array", items: reference(type) },
          kind: { type: "string" },
          metadata: reference("meta/v1.ListMeta"),
        },
      }),
    });
    rows.push({ ...info, type });
  }
  const schemas = new SchemaSet(dialect, describe, custom);
  const paths: Json = {};
  for (const row of rows) Object.assign(paths, routesOf(row, dialect, schemas));
  return { paths, schemas: schemas.finish() };
}

interface CustomSchema {
  readonly name: string;
  readonly kind: Gvk;
  readonly schema: CustomKind["schema"];
}

export function buildOpenApiV2(options: OpenApiOptions, resources: readonly ResourceInfo[] = allResources): Json {
  const schemas = new SchemaSet("v2", options.describe);
  const routes: Json = {};
  for (const info of resources) Object.assign(routes, routesOf(info, "v2", schemas));
  return {
    swagger: "2.0",
    info: { title: "Kubernetes", version: options.version },
    paths: routes,
    definitions: schemas.finish(),
    securityDefinitions: {
      BearerToken: { description: "Bearer Token authentication", type: "apiKey", name: "authorization", in: "header" },
    },
    security: [{ BearerToken: [] }],
  };
}

/** What the v2 document gets where these are served too: paths, and definitions that `base` lacks. */
export function buildOpenApiV2Addition(options: OpenApiOptions, resources: readonly ResourceInfo[], base: Json): Json {
  const { paths, definitions } = buildOpenApiV2(options, resources);
  const known = base["definitions"] as Json;
  const own = Object.entries(definitions as Json).filter(([name]) => !Object.hasOwn(known, name));
  return { paths, definitions: Object.fromEntries(own) };
}

/** `core/v1.Pod` to `io.k8s.api.core.v1.Pod`. */
export function schemaName(type: string): string {
  const [, group = "", version = "", kind = ""] = /^([^/]+)\/([^.]+)\.(.+)$/.exec(type) ?? [];
  if (group === "meta") return `io.k8s.apimachinery.pkg.apis.meta.${version}.${kind}`;
  if (group === "apiregistration") return `io.k8s.kube-aggregator.pkg.apis.apiregistration.${version}.${kind}`;
  if (group === "apiextensions") return `io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.${version}.${kind}`;
  return `io.k8s.api.${group}.${version}.${kind}`;
}

// Schemas

const specialNames: Readonly<Record<string, string>> = {
  time: "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
  microtime: "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
  duration: "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
  fields: "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
  patch: "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
  quantity: "io.k8s.apimachinery.pkg.api.resource.Quantity",
  intstr: "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
  raw: "io.k8s.apimachinery.pkg.runtime.RawExtension",
};
const specialTypes: Readonly<Record<string, string>> = {
  time: "meta/v1.Time",
  microtime: "meta/v1.MicroTime",
  duration: "meta/v1.Duration",
  fields: "meta/v1.FieldsV1",
  patch: "meta/v1.Patch",
  quantity: "resource.Quantity",
  intstr: "intstr.IntOrString",
  raw: "runtime.RawExtension",
};
function specialSchema(type: string, dialect: Dialect): Json {
  switch (type) {
    case "time":
    case "microtime":
      return { type: "string", format: "date-time" };
    case "duration":
      return { type: "string" };
    case "quantity":
      return dialect === "v2" ? { type: "string" } : { oneOf: [{ type: "string" }, { type: "number" }] };
    case "intstr":
      return dialect === "v2"
        ? { type: "string", format: "int-or-string" }
        : { format: "int-or-string", oneOf: [{ type: "integer" }, { type: "string" }] };
    default:
      return { type: "object" };
  }
}
const scalarSchemas: Readonly<Record<string, Json>> = {
  string: { type: "string" },
  bool: { type: "boolean" },
  int32: { type: "integer", format: "int32" },
  int64: { type: "integer", format: "int64" },
  uint32: { type: "integer", format: "int64" },
  uint64: { type: "integer", format: "int64" },
  double: { type: "number", format: "double" },
  bytes: { type: "string", format: "byte" },
};
const zeroValues: Readonly<Record<string, unknown>> = {
  string: "",
  bool: false,
  int32: 0,
  int64: 0,
  uint32: 0,
  uint64: 0,
  double: 0,
};

/** The schemas a document refers to, made on demand. */
class SchemaSet {
  readonly #dialect: Dialect;
  readonly #describe: Describe;
  readonly #schemas = new Map<string, Json>();
  readonly #kinds = new Map<string, Gvk[]>();
  readonly #custom: ReadonlyMap<string, CustomSchema>;
  constructor(dialect: Dialect, describe: Describe, custom: ReadonlyMap<string, CustomSchema> = new Map()) {
    this.#dialect = dialect;
    this.#describe = describe;
    this.#custom = custom;
  }

  isCustom(type: string): boolean {
    return this.#custom.has(type);
  }

  has(type: string): boolean {
    return this.#custom.has(type) || facts.find(type) !== undefined;
  }

  /** A reference to the schema; `gvk` is added to its x-kubernetes-group-version-kind. */
  reference(type: string, gvk?: Gvk): Json {
    const special = Object.hasOwn(specialNames, type) ? specialNames[type] : undefined;
    const own = this.#custom.get(type);
    const name = own?.name ?? special ?? schemaName(type);
    if (own && !this.#schemas.has(name)) {
      this.#schemas.set(name, {});
      this.#kinds.set(name, [own.kind]);
      this.#schemas.set(
        name,
        own.schema(this.#dialect, (other) => this.reference(other)),
      );
    } else if (!this.#schemas.has(name)) {
      this.#schemas.set(name, {});
      const schema = special
        ? { ...this.#described(specialTypes[type]!, ""), ...specialSchema(type, this.#dialect) }
        : this.#message(facts.message(type));
      this.#schemas.set(name, schema);
    }
    if (gvk) {
      const known = this.#kinds.get(name) ?? [];
      if (!known.some((k) => k.group === gvk.group && k.version === gvk.version && k.kind === gvk.kind))
        known.push(gvk);
      this.#kinds.set(name, known);
    }
    return { $ref: `${this.#dialect === "v2" ? "#/definitions/" : "#/components/schemas/"}${name}` };
  }

  finish(): Json {
    const result: Json = {};
    for (const [name, schema] of [...this.#schemas].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const kinds = this.#kinds.get(name);
      result[name] = kinds ? { ...schema, "x-kubernetes-group-version-kind": kinds } : schema;
    }
    return result;
  }

  #described(type: string, field: string): Json {
    const description = this.#describe(type, field);
    return description === "" ? {} : { description };
  }

  #message(message: MessageFacts): Json {
    const properties: Json = {};
    const required: string[] = [];
    if (message.isKind) {
      const text = this.#describe("meta/v1.TypeMeta", "apiVersion");
      properties["apiVersion"] = { ...(text ? { description: text } : {}), type: "string" };
      const kindText = this.#describe("meta/v1.TypeMeta", "kind");
      properties["kind"] = { ...(kindText ? { description: kindText } : {}), type: "string" };
    }
    for (const { field, owner } of membersWithOwners(message)) {
      properties[field.name] = this.#property(field, owner);
      if (field.required) required.push(field.name);
    }
    if (message.isKind && !this.#kinds.has(schemaName(message.name))) {
      const pkg = facts.package(message.package);
      // Kinds of meta/v1 belong to every group; those that matter are named by the routes.
      if (message.package !== "meta/v1") {
        this.#kinds.set(schemaName(message.name), [
          { group: pkg.group, kind: message.shortName, version: pkg.version },
        ]);
      }
    }
    return {
      ...this.#described(message.name, ""),
      type: "object",
      ...(required.length > 0 ? { required: required.sort() } : {}),
      ...(Object.keys(properties).length > 0
        ? { properties: Object.fromEntries(Object.entries(properties).sort(([a], [b]) => (a < b ? -1 : 1))) }
        : {}),
      ...(message.structType === "atomic" ? { "x-kubernetes-map-type": "atomic" } : {}),
    };
  }

  #property(field: FieldFacts, owner: MessageFacts): Json {
    const value = this.#value(field, owner, field.repeated || field.map);
    let schema: Json;
    if (field.repeated) schema = { type: "array", items: value };
    else if (field.map) schema = { type: "object", additionalProperties: value };
    else schema = value;
    const description = this.#describe(owner.name, field.name);
    // A $ref allows no neighbours in OpenAPI 3.0.
    if (this.#dialect === "v3" && "$ref" in schema) schema = { allOf: [schema] };
    return {
      ...(description === "" ? {} : { description }),
      ...schema,
      ...this.#default(field),
      ...(field.listType ? { "x-kubernetes-list-type": field.listType } : {}),
      ...(field.listMapKeys.length > 0 ? { "x-kubernetes-list-map-keys": field.listMapKeys } : {}),
      ...(field.mapType || field.structType ? { "x-kubernetes-map-type": field.mapType || field.structType } : {}),
      ...(field.mergeKey ? { "x-kubernetes-patch-merge-key": field.mergeKey } : {}),
      ...(field.patchStrategies.length > 0 ? { "x-kubernetes-patch-strategy": field.patchStrategies.join(",") } : {}),
    };
  }

  #default(field: FieldFacts): Json {
    if (field.default !== undefined) return { default: field.default };
    if (field.repeated || field.map || field.pointer || this.#dialect === "v2") return {};
    if (field.isMessage || ["time", "microtime", "quantity"].includes(field.type)) return { default: {} };
    return !field.omitEmpty && Object.hasOwn(zeroValues, field.type) ? { default: zeroValues[field.type] } : {};
  }

  #value(field: FieldFacts, owner: MessageFacts, isElement: boolean): Json {
    if (field.union) return {};
    if (field.isMessage || Object.hasOwn(specialNames, field.type)) {
      const reference = this.reference(field.type);
      return isElement && this.#dialect === "v3" && field.type !== "raw"
        ? { allOf: [reference], default: {} }
        : reference;
    }
    if (field.type === "strings") {
      const inner = { type: "array", items: { type: "string", ...(this.#dialect === "v3" ? { default: "" } : {}) } };
      return inner;
    }
    const values = field.type === "string" ? facts.enumValues(field, owner.package) : undefined;
    return {
      ...scalarSchemas[field.type],
      ...(values ? { enum: values } : {}),
      ...(isElement && this.#dialect === "v3" && Object.hasOwn(zeroValues, field.type)
        ? { default: zeroValues[field.type] }
        : {}),
    };
  }
}

/** Members with the message that declares them: descriptions of inlined members belong to the inner type. */
function membersWithOwners(message: MessageFacts): { field: FieldFacts; owner: MessageFacts }[] {
  return message.fields.flatMap((field) =>
    field.inline ? membersWithOwners(facts.message(field.type)) : [{ field, owner: message }],
  );
}

// Routes

const jsonTypes = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const watchTypes = [...jsonTypes, "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const patchTypes = [
  "application/json-patch+json",
  "application/merge-patch+json",
  "application/strategic-merge-patch+json",
  "application/apply-patch+yaml",
];

interface Parameter {
  readonly name: string;
  readonly type: "string" | "boolean" | "integer";
  readonly text: string;
}
const parameter = (name: string, type: Parameter["type"], text: string): Parameter => ({ name, type, text });
const pretty = parameter("pretty", "string", "If 'true', the output is indented.");
const dryRun = parameter("dryRun", "string", "With 'All' nothing is stored; the answer is what would have been.");
const fieldManager = parameter(
  "fieldManager",
  "string",
  "Name of the actor that makes the change, at most 128 characters.",
);
const fieldValidation = parameter(
  "fieldValidation",
  "string",
  "What happens with unknown or duplicate fields: 'Ignore', 'Warn' (the default) or 'Strict'.",
);
const force = parameter("force", "boolean", "Takes over fields of other managers; for apply patches only.");
const listParameters: readonly Parameter[] = [
  parameter("allowWatchBookmarks", "boolean", "Asks for BOOKMARK events in a watch."),
  parameter("continue", "string", "Token of an earlier, limited list that asks for its next page."),
  parameter("fieldSelector", "string", "Restricts the objects by their fields."),
  parameter("labelSelector", "string", "Restricts the objects by their labels."),
  parameter("limit", "integer", "Largest number of objects to answer with."),
  parameter("resourceVersion", "string", "State that the answer must be at least as new as."),
  parameter("resourceVersionMatch", "string", "How resourceVersion is applied to a list."),
  parameter("sendInitialEvents", "boolean", "Starts a watch with an event for each existing object."),
  parameter("timeoutSeconds", "integer", "Ends the call after this time."),
  parameter("watch", "boolean", "Streams changes instead of listing."),
];
const deleteParameters: readonly Parameter[] = [
  dryRun,
  parameter("gracePeriodSeconds", "integer", "Time before the object is removed; zero means at once."),
  parameter("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
  parameter("propagationPolicy", "string", "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'."),
];
const writeParameters = [dryRun, fieldManager, fieldValidation];

interface Operation {
  readonly method: "get" | "post" | "put" | "patch" | "delete";
  readonly action: string;
  readonly verb: string;
  readonly text: string;
  readonly parameters: readonly Parameter[];
  /** Type of the body; `patch` for patches. */
  readonly body?: string;
  readonly answer: string;
  readonly status?: readonly number[];
}

const groupPath = (info: { group: string; version: string }): string =>
  info.group === "" ? `/api/${info.version}` : `/apis/${info.group}/${info.version}`;

function routesOf(info: ResourceInfo, dialect: Dialect, schemas: SchemaSet): Json {
  const routes: Json = {};
  const base = groupPath(info);
  const collection = info.namespaced ? `${base}/namespaces/{namespace}/${info.plural}` : `${base}/${info.plural}`;
  const scope = info.namespaced ? "Namespaced" : "";
  const listType = `${info.type}List`;
  const has = (verb: ResourceInfo["verbs"][number]) => info.verbs.includes(verb);
  const own: Gvk = { group: info.group, kind: info.kind, version: info.version };
  const add = (path: string, operations: readonly Operation[], gvk: Gvk, suffix: string, namedPath: boolean) => {
    if (operations.length === 0) return;
    const item: Json = {
      parameters: [
        ...(namedPath ? [pathParameter("name", `name of the ${info.kind}`, dialect)] : []),
        ...(path.includes("{namespace}")
          ? [pathParameter("namespace", "object name and auth scope, such as for teams and projects", dialect)]
          : []),
        ...(path.endsWith("{path}") ? [pathParameter("path", "path to the resource", dialect)] : []),
        queryParameter(pretty, dialect),
      ],
    };
    for (const operation of operations)
      item[operation.method] = printOperation(operation, info, gvk, suffix, dialect, schemas);
    routes[path] = item;
  };

  const many: Operation[] = [];
  if (has("list")) {
    many.push({
      method: "get",
      action: "list",
      verb: "list",
      text: `list or watch objects of kind ${info.kind}`,
      parameters: listParameters,
      answer: schemas.has(listType) ? listType : info.type,
    });
  }
  if (has("create")) {
    many.push({
      method: "post",
      action: "post",
      verb: "create",
      text: `create a ${info.kind}`,
      parameters: writeParameters,
      body: info.type,
      answer: info.type,
      status: [200, 201, 202],
    });
  }
  if (has("deletecollection")) {
    many.push({
      method: "delete",
      action: "deletecollection",
      verb: "deletecollection",
      text: `delete collection of ${info.kind}`,
      parameters: [
        ...deleteParameters,
        ...listParameters.filter((p) => p.name !== "watch" && p.name !== "allowWatchBookmarks"),
      ],
      body: "meta/v1.DeleteOptions",
      answer: "meta/v1.Status",
    });
  }
  add(collection, many, own, `${scope}${info.kind}`, false);
  if (info.namespaced && has("list")) {
    add(
      `${base}/${info.plural}`,
      [{ ...many[0]!, text: `list or watch objects of kind ${info.kind}` }],
      own,
      `${info.kind}ForAllNamespaces`,
      false,
    );
  }
  add(`${collection}/{name}`, itemOperations(info), own, `${scope}${info.kind}`, true);
  for (const [name, subresource] of Object.entries(info.subresources)) {
    const gvk: Gvk = {
      group: subresource.group ?? info.group,
      kind: subresource.kind ?? info.kind,
      version: subresource.version ?? info.version,
    };
    const suffix = `${scope}${info.kind}${name[0]!.toUpperCase()}${name.slice(1)}`;
    add(`${collection}/{name}/${name}`, subresourceOperations(info, name, subresource), gvk, suffix, true);
  }
  return routes;
}

function itemOperations(info: ResourceInfo): Operation[] {
  const has = (verb: ResourceInfo["verbs"][number]) => info.verbs.includes(verb);
  const operations: Operation[] = [];
  if (has("get")) operations.push(readOperation(info.type, `read the specified ${info.kind}`));
  if (has("update")) operations.push(replaceOperation(info.type, `replace the specified ${info.kind}`));
  if (has("patch")) operations.push(patchOperation(info.type, `partially update the specified ${info.kind}`));
  if (has("delete")) {
    operations.push({
      method: "delete",
      action: "delete",
      verb: "delete",
      text: `delete a ${info.kind}`,
      parameters: deleteParameters,
      body: "meta/v1.DeleteOptions",
      answer: info.type === "core/v1.Pod" || info.type === "core/v1.Service" ? info.type : "meta/v1.Status",
      status: [200, 202],
    });
  }
  return operations;
}

function subresourceOperations(info: ResourceInfo, name: string, subresource: SubresourceInfo): Operation[] {
  const isConnect = subresource.kind?.endsWith("Options") === true;
  const methods = { create: "post", get: "get", update: "put", patch: "patch", delete: "delete" } as const;
  if (isConnect) {
    return subresource.verbs.flatMap((verb) => {
      if (!(verb in methods)) return [];
      const method = methods[verb as keyof typeof methods];
      const text = `connect ${method.toUpperCase()} requests to ${name} of ${info.kind}`;
      return [{ method, action: "connect", verb: `connect${method}`, text, parameters: [], answer: "string" }];
    });
  }
  const type = subresource.kind ? typeOfSubresource(info, subresource) : info.type;
  const text = `${name} of the specified ${info.kind}`;
  const operations: Operation[] = [];
  for (const verb of subresource.verbs) {
    if (verb === "get") {
      operations.push(readOperation(name === "log" ? "string" : type, `read ${text}`));
    } else if (verb === "update") operations.push(replaceOperation(type, `replace ${text}`));
    else if (verb === "patch") operations.push(patchOperation(type, `partially update ${text}`));
    else if (verb === "create") {
      operations.push({
        method: "post",
        action: "post",
        verb: "create",
        text: `create ${text}`,
        parameters: writeParameters,
        body: type,
        answer: type,
        status: [200, 201, 202],
      });
    }
  }
  return operations;
}

function typeOfSubresource(info: ResourceInfo, subresource: SubresourceInfo): string {
  const group = subresource.group ?? info.group;
  const version = subresource.version ?? info.version;
  for (const name of facts.packageNames) {
    const pkg = name === "meta/v1" ? undefined : facts.package(name);
    if (pkg?.group === group && pkg.version === version && pkg.messages.has(subresource.kind!))
      return `${name}.${subresource.kind}`;
  }
  return info.type;
}

const readOperation = (type: string, text: string): Operation => ({
  method: "get",
  action: "get",
  verb: "read",
  text,
  parameters: [],
  answer: type,
});
const replaceOperation = (type: string, text: string): Operation => ({
  method: "put",
  action: "put",
  verb: "replace",
  text,
  parameters: writeParameters,
  body: type,
  answer: type,
  status: [200, 201],
});
const patchOperation = (type: string, text: string): Operation => ({
  method: "patch",
  action: "patch",
  verb: "patch",
  text,
  parameters: [...writeParameters, force],
  body: "patch",
  answer: type,
  status: [200, 201],
});

function printOperation(
  operation: Operation,
  info: ResourceInfo,
  gvk: Gvk,
  suffix: string,
  dialect: Dialect,
  schemas: SchemaSet,
): Json {
  const groupWord = info.type.slice(0, info.type.indexOf("/"));
  const tag = `${groupWord}_${info.version}`;
  const prefix = `${upper(groupWord)}${upper(info.version)}`;
  const operationId =
    operation.verb === "deletecollection"
      ? `delete${prefix}Collection${suffix}`
      : operation.verb.startsWith("connect")
        ? `connect${prefix}${upper(operation.method)}${suffix}`
        : `${operation.verb}${prefix}${suffix}`;
  const isText = operation.answer === "string";
  const answer = isText ? { type: "string" } : schemas.reference(operation.answer);
  const body =
    operation.body === undefined
      ? undefined
      : operation.body === "patch"
        ? schemas.reference("patch")
        : operation.body === "meta/v1.DeleteOptions"
          ? schemas.reference(operation.body, {
              group: gvk.group === info.group ? gvk.group : info.group,
              kind: "DeleteOptions",
              version: info.version,
            })
          : schemas.reference(operation.body);
  const isCustom = schemas.isCustom(info.type);
  const ownPatchTypes = isCustom ? patchTypes.filter((type) => !type.includes("strategic")) : patchTypes;
  const accepts = operation.body === "patch" ? ownPatchTypes : ["*/*"];
  const listTypes = operation.action === "list" ? watchTypes : jsonTypes;
  const ownTypes = isCustom ? listTypes.slice(0, 2) : listTypes;
  const produces = isText ? ["*/*"] : ownTypes;
  const texts: Readonly<Record<number, string>> = { 200: "OK", 201: "Created", 202: "Accepted" };
  const responses: Json = {};
  const content = (types: readonly string[], schema: Json): Json =>
    Object.fromEntries(types.map((type) => [type, { schema }]));
  for (const code of operation.status ?? [200]) {
    responses[code] =
      dialect === "v2"
        ? { description: texts[code], schema: answer }
        : { description: texts[code], content: content(produces, answer) };
  }
  responses[401] = { description: "Unauthorized" };
  const parameters: Json[] = operation.parameters.map((p) => queryParameter(p, dialect));
  const common: Json = { description: operation.text, operationId, tags: [tag], responses };
  if (dialect === "v2") {
    if (body)
      parameters.unshift({
        name: "body",
        in: "body",
        ...(operation.body === "meta/v1.DeleteOptions" ? {} : { required: true }),
        schema: body,
      });
    Object.assign(common, { consumes: accepts, produces, schemes: ["https"] });
  } else if (body) common["requestBody"] = { content: content(accepts, body) };
  if (parameters.length > 0) common["parameters"] = parameters;
  return { ...common, "x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": gvk };
}

function queryParameter(p: Parameter, dialect: Dialect): Json {
  const type = { type: p.type, uniqueItems: true };
  return { name: p.name, in: "query", description: p.text, ...(dialect === "v2" ? type : { schema: type }) };
}
function pathParameter(name: string, description: string, dialect: Dialect): Json {
  const type = { type: "string", uniqueItems: true };
  return { name, in: "path", description, required: true, ...(dialect === "v2" ? type : { schema: type }) };
}
const upper = (word: string): string => `${word[0]!.toUpperCase()}${word.slice(1)}`;
