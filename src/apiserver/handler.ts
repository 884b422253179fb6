// One request that is authenticated, from its path to its answer: authorisation, then routing to discovery, system
// paths, reviews, verbs on resources or streams. HTTP and the transport inside the process meet here.
// Upstream counterpart: the handler chain behind authentication, and the API installer's routes.

import type { Service } from "#base/service.ts";
import type { Service as ServiceObject } from "#model/gen/core-v1.ts";
import { qualifiedResource, type ResourceInfo } from "#model/resource-info.ts";
import { pods, resourcesWith } from "#model/resources.ts";
import { ApiError, forbidden, methodNotAllowed, pathNotFound, serviceUnavailable } from "#model/status.ts";
import { validateObject, validateObjectUpdate } from "#model/validate.ts";
import { auditPath } from "./audit/auditor.ts";
import type { AuditRecord } from "./audit/record.ts";
import type { UserInfo } from "./authn/user.ts";
import type { Attributes, Authorizer } from "./authz/authorizer.ts";
import { DefinitionController } from "./custom-resources/controller.ts";
import { createCustomOpenApi } from "./custom-resources/openapi.ts";
import { CustomResourceTable } from "./custom-resources/table.ts";
import { actionOf } from "./endpoints/actions.ts";
import { createBodies } from "./endpoints/bodies.ts";
import { answerComponentStatuses } from "./endpoints/component-statuses.ts";
import { createDiscovery, type Discovery } from "./endpoints/discovery.ts";
import { FieldTracking } from "./endpoints/field-tracking.ts";
import { parseRequest, type RequestInfo } from "./endpoints/request-info.ts";
import { ResourceEndpoints } from "./endpoints/resources.ts";
import { type HandlerRequest, noSuchPath, type Result } from "./endpoints/result.ts";
import { handleReview, reviews } from "./endpoints/reviews.ts";
import type { ServedResource } from "./endpoints/served.ts";
import { answerSystem, type HealthCheck } from "./endpoints/system.ts";
import { createOpenApi } from "./openapi/serve.ts";
import type { ApiServerDeps, ApiServerOptions } from "./options.ts";
import type { Column } from "./printers/columns.ts";
import { DecodeCache } from "./registry/codec.ts";
import { Registry, type Resource } from "./registry/registry.ts";
import { ResourceStorage } from "./registry/storage.ts";
import { storageClass } from "./registry/storage-class.ts";
import { versionInfo } from "./version.ts";
import type { VirtualGroup } from "./virtual-group.ts";

export interface Handler {
  /** Rejects with ApiError, or with what toApiError understands. */
  handle(request: HandlerRequest): Promise<Result>;
  /** By qualified resource. */
  readonly resources: ReadonlyMap<string, Resource>;
  readonly registry: Registry;
  /** Serves custom resources while it runs. */
  readonly definitions: Service;
  /** Of custom resources. */
  columnsOf(info: ResourceInfo): readonly Column[] | undefined;
}

/** Everybody may know that the server lives and which version it is; a check alone (`/readyz/etcd`) says more. */
const openPaths = new Set(["/healthz", "/livez", "/readyz", "/version", "/version/"]);
export const isOpenPath = (path: string): boolean => openPaths.has(path);

/** Streams by parent. */
const streams: Readonly<Record<string, ReadonlySet<string>>> = {
  pods: new Set(["log", "exec", "attach", "portforward", "proxy"]),
  nodes: new Set(["proxy"]),
  services: new Set(["proxy"]),
};

export function isStream(info: RequestInfo): boolean {
  return (
    info.isResource &&
    info.group === "" &&
    Object.hasOwn(streams, info.resource) &&
    streams[info.resource]!.has(info.subresource)
  );
}

/** Requests that may last: no deadline, and not counted as in flight. */
export const isLongRunning = (info: RequestInfo): boolean => info.verb === "watch" || isStream(info);

export function createHandler(
  options: ApiServerOptions,
  deps: ApiServerDeps,
  checks: readonly HealthCheck[],
  serverAddress: string,
): Handler {
  const cache = new DecodeCache(options.freezeShared ?? false);
  const rows = resourcesWith(options.optionalApis);
  const resources = createResources(rows, deps, cache);
  const registry = new Registry({
    clock: deps.clock,
    random: deps.random,
    admission: deps.admission,
    resources,
    validateObject,
    validateObjectUpdate,
  });
  const authorizer = withSuperuser(deps);
  const table = new CustomResourceTable({
    backend: deps.backend,
    random: deps.random,
    log: deps.log,
    cache,
    classOf: storageClass,
    encryption: deps.encryption,
    resources,
    serviceAddress: (namespace, name, port) => serviceAddress(resources, namespace, name, port),
  });
  const definitions = new DefinitionController({
    backend: deps.backend,
    clock: deps.clock,
    log: deps.log,
    registry,
    table,
    definitions: resources.get("customresourcedefinitions.apiextensions.k8s.io")!,
  });
  const formats = { cbor: options.cbor ?? false };
  const builtIn = options.podResize ? rows.map(withResize) : rows;
  const bodies = createBodies(formats, (info) => table.normalizeOf(info));
  const endpoints = new ResourceEndpoints({
    backend: deps.backend,
    clock: deps.clock,
    random: deps.random,
    registry,
    bodies,
    formats,
    tracking: new FieldTracking({
      clock: deps.clock,
      infos: rows,
      openapiOf: (info) => table.schemaOf(info),
      versionOf: (info, apiVersion) => table.versionOf(info, apiVersion),
      converterOf: (info) => table.converterOf(info),
    }),
    authorizeCreate: (request, info) => authorize(authorizer, request.user, { ...info, verb: "create" }),
  });
  // Made anew when somebody asks after a change, and not before: definitions come in bunches.
  const discover = () => {
    const { virtualGroups } = deps;
    const stored = [...builtIn, ...table.versions().map(({ row }) => row)];
    const others = virtualGroups?.filter(({ rows: [row] }) => row && !table.serves(row.group, row.version));
    const all = [...stored, ...(others ?? []).flatMap((group) => group.rows)];
    return { generation: table.generation, virtualGroups, discovery: createDiscovery(all, serverAddress) };
  };
  let discovered = discover();
  const currentDiscovery = (): Discovery => {
    const isStale = discovered.generation !== table.generation || discovered.virtualGroups !== deps.virtualGroups;
    if (isStale) discovered = discover();
    return discovered.discovery;
  };
  const openapi = createOpenApi(deps.openapi, createCustomOpenApi(table, deps.openapi));
  const served = new Map<string, ServedResource | ResourceInfo>();
  for (const info of builtIn) {
    const resource = resources.get(storedName(info));
    served.set(`${info.group}/${info.version}/${info.plural}`, resource ? { info, resource } : info);
  }
  const groupVersions = new Set(rows.map((info) => `${info.group}/${info.version}`));
  const paths = (): string[] =>
    [
      ...currentDiscovery().paths,
      ...openapi.paths,
      "/.well-known/openid-configuration",
      ...(deps.audit ? [auditPath] : []),
      "/healthz",
      "/livez",
      "/metrics",
      "/openid/v1/jwks",
      "/readyz",
      "/version",
      ...checks.flatMap((check) => [`/livez/${check.name}`, `/readyz/${check.name}`]),
    ].sort();

  const handleResource = async (info: RequestInfo, request: HandlerRequest): Promise<Result> => {
    if (!groupVersions.has(`${info.group}/${info.version}`) && !table.serves(info.group, info.version)) {
      const virtual = deps.virtualGroups?.find(
        ({ rows: [row] }) => row?.group === info.group && row.version === info.version,
      );
      if (virtual) return answerVirtual(virtual, info, request);
      if (definitions.isLoading) throw serviceUnavailable("custom resources are not known yet");
      return noSuchPath();
    }
    const builtIn = served.get(`${info.group}/${info.version}/${info.resource}`);
    const custom = builtIn ? undefined : table.find(info.group, info.version, info.resource);
    const found = builtIn ?? custom?.served;
    if (!found) throw pathNotFound();
    const row = "resource" in found ? found.info : found;
    if (!fitsScope(row, info)) throw pathNotFound();
    if (isStream(info)) {
      if (!deps.connector) throw pathNotFound();
      return { type: "connect", connector: deps.connector, info };
    }
    if (custom) {
      if (custom.warning !== "") {
        request.warn(custom.warning);
        request.audit?.annotate("k8s.io/deprecated", "true");
      }
      if (info.verb === "create" && table.isTerminating(info.group, info.resource)) {
        throw methodNotAllowed("create not allowed while custom resource definition is terminating");
      }
    }
    const action = custom ? undefined : actionOf(info);
    if (action) {
      return action({ clock: deps.clock, registry, bodies, resources, tokenIssuer: deps.tokenIssuer }, info, request);
    }
    if ("resource" in found) {
      if (info.subresource !== "" && !Object.hasOwn(row.subresources, info.subresource)) throw pathNotFound();
      return endpoints.handle(found, info, request);
    }
    const review = Object.hasOwn(reviews, qualifiedResource(row)) ? reviews[qualifiedResource(row)] : undefined;
    if (review) {
      if (info.verb !== "create")
        throw methodNotAllowed("the server does not allow this method on the requested resource");
      const { reviewToken, rulesFor } = deps;
      return handleReview({ bodies, authorizer, reviewToken, rulesFor }, review, row, info, request);
    }
    if (row.kind === "ComponentStatus" && (info.verb === "list" || info.verb === "get") && info.subresource === "") {
      return answerComponentStatuses(row, info, request, checks);
    }
    throw pathNotFound();
  };

  return {
    resources,
    registry,
    definitions,
    columnsOf: (info) => table.columnsOf(info),
    async handle(request) {
      const info = parseRequest(request.method, request.path, request.query);
      if (!info) return noSuchPath();
      await authorize(authorizer, request.user, info, request.audit);
      if (info.isResource) return handleResource(info, request);
      const known = currentDiscovery().answer(request, info.path) ?? openapi.answer(request, info.path);
      const answer =
        known ??
        (await answerSystem(
          {
            log: deps.log,
            metrics: deps.metrics,
            audit: deps.audit,
            version: versionInfo(),
            checks,
            tokenIssuer: deps.tokenIssuer,
            jwksUri: options.jwksUri ?? `https://${serverAddress}/openid/v1/jwks`,
            paths,
          },
          request,
          info.path,
        ));
      if (!answer) return noSuchPath();
      if (request.method !== "GET" && request.method !== "HEAD") {
        throw methodNotAllowed("the server does not allow this method on the requested resource");
      }
      return answer;
    },
  };
}

function answerVirtual(group: VirtualGroup, info: RequestInfo, request: HandlerRequest): Promise<Result> {
  const row = group.rows.find(({ plural }) => plural === info.resource);
  if (!row || info.subresource !== "" || !fitsScope(row, info)) throw pathNotFound();
  return group.handle(row, info, request.query);
}

/** With what the feature gate InPlacePodVerticalScaling adds. */
function withResize(info: ResourceInfo): ResourceInfo {
  if (info !== pods) return info;
  return { ...info, subresources: { ...info.subresources, resize: { verbs: ["get", "patch", "update"] } } };
}

/** One per folder of the datastore, by the qualified name in the storage group. */
function createResources(
  rows: readonly ResourceInfo[],
  deps: ApiServerDeps,
  cache: DecodeCache,
): Map<string, Resource> {
  const out = new Map<string, Resource>();
  const { backend } = deps;
  for (const info of rows) {
    const isStored = info.verbs.includes("get") && info.verbs.includes("create");
    const isHome = info.group === info.storageGroup && storedIn(info) === info.version;
    if (!isStored || !isHome) continue;
    const name = qualifiedResource(info);
    out.set(name, {
      info,
      about: { group: info.group, resource: info.plural },
      storage: new ResourceStorage(info, { backend, cache, classOf: storageClass, encryption: deps.encryption }),
      strategy: deps.strategies.get(name) ?? {},
    });
  }
  return out;
}

/** Where the API server reaches a service: its cluster address, which every node routes. */
async function serviceAddress(
  resources: ReadonlyMap<string, Resource>,
  namespace: string,
  name: string,
  port: number,
): Promise<{ host: string; port: number }> {
  const services = resources.get("services");
  const item = await services?.storage.get(namespace, name);
  const service = item && (services!.storage.decode(item) as unknown as ServiceObject);
  if (!service) throw new Error(`service ${JSON.stringify(name)} not found`);
  if (!service.spec.ports?.some((candidate) => candidate.port === port)) {
    throw new Error(`no service port ${port} found for service ${JSON.stringify(name)}`);
  }
  const host = service.spec.type === "ExternalName" ? service.spec.externalName : service.spec.clusterIP;
  if (!host || host === "None") throw new Error(`service ${JSON.stringify(name)} has no cluster address`);
  return { host, port };
}

const storedIn = (info: ResourceInfo): string => info.storageVersion.slice(info.storageVersion.indexOf("/") + 1);
const storedName = (info: ResourceInfo): string => qualifiedResource({ group: info.storageGroup, plural: info.plural });

/** A namespaced path never reaches a cluster object, and an object in a namespace is never named without it. */
function fitsScope(row: ResourceInfo, info: RequestInfo): boolean {
  if (!row.namespaced) {
    // /namespaces/x is the object itself.
    return info.namespace === "" || (row.plural === "namespaces" && row.group === "" && info.namespace === info.name);
  }
  if (info.namespace !== "") return true;
  return info.subresource === "" && (info.verb === "list" || info.verb === "watch" || info.verb === "create");
}

export function attributesOf(user: UserInfo, info: RequestInfo): Attributes {
  return {
    user,
    verb: info.verb,
    resourceRequest: info.isResource,
    group: info.group,
    version: info.version,
    resource: info.resource,
    subresource: info.subresource,
    namespace: info.namespace,
    name: info.name,
    path: info.isResource ? "" : info.path,
  };
}

/** system:masters may do anything, so that a broken policy can be mended; everybody else is asked about. */
export const withSuperuser = (deps: Pick<ApiServerDeps, "authorizer">): Authorizer => ({
  authorize: (attributes) =>
    attributes.user.groups.includes("system:masters")
      ? { verdict: "allow", reason: "" }
      : deps.authorizer.authorize(attributes),
});

async function authorize(
  authorizer: Authorizer,
  user: UserInfo,
  info: RequestInfo,
  audit?: AuditRecord,
): Promise<void> {
  if (!info.isResource && isOpenPath(info.path) && (info.verb === "get" || info.verb === "head")) {
    audit?.decided("allow", "");
    return;
  }
  const { verdict, reason } = await authorizer.authorize(attributesOf(user, info));
  audit?.decided(verdict === "allow" ? "allow" : "forbid", reason);
  if (verdict !== "allow") throw refusal(user, info, reason);
}

function refusal(user: UserInfo, info: RequestInfo, reason: string): ApiError {
  const who = `User ${JSON.stringify(user.name)}`;
  const because = reason === "" ? "" : `: ${reason}`;
  if (!info.isResource) {
    const message = `forbidden: ${who} cannot ${info.verb} path ${JSON.stringify(info.path)}${because}`;
    return new ApiError(403, "Forbidden", message, {});
  }
  const resource = info.subresource === "" ? info.resource : `${info.resource}/${info.subresource}`;
  const where = info.namespace === "" ? "at the cluster scope" : `in the namespace ${JSON.stringify(info.namespace)}`;
  return forbidden(
    { group: info.group, resource: info.resource },
    info.name,
    `${who} cannot ${info.verb} resource ${JSON.stringify(resource)} in API group ${JSON.stringify(info.group)} ${where}${because}`,
  );
}
