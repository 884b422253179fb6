// What this server serves, in the three forms clients ask for: the legacy documents, and aggregated discovery v2 and
// v2beta1 at /api and /apis. Built once from the resource rows. Upstream counterpart: endpoints/discovery.
import { createHash } from "node:crypto";
import type { ResourceInfo } from "#model/resource-info.ts";
import { parseAccept } from "./negotiation.ts";
import type { HandlerRequest, Result } from "./result.ts";

interface Group {
  readonly name: string;
  /** Preferred first. */
  readonly versions: readonly string[];
}

/** Groups in upstream's priority order; others follow by name. */
const groupOrder = [
  "",
  "apiregistration.k8s.io",
  "apps",
  "events.k8s.io",
  "authentication.k8s.io",
  "authorization.k8s.io",
  "autoscaling",
  "batch",
  "certificates.k8s.io",
  "networking.k8s.io",
  "policy",
  "rbac.authorization.k8s.io",
  "storage.k8s.io",
  "admissionregistration.k8s.io",
  "apiextensions.k8s.io",
  "scheduling.k8s.io",
  "coordination.k8s.io",
  "node.k8s.io",
  "discovery.k8s.io",
  "flowcontrol.apiserver.k8s.io",
];

export interface Discovery {
  /** Undefined: not a discovery path. */
  answer(request: HandlerRequest, path: string): Result | undefined;
  readonly paths: readonly string[];
}

export function createDiscovery(rows: readonly ResourceInfo[], serverAddress: string): Discovery {
  const groups = groupsOf(rows);
  const documents = new Map<string, object>();
  const add = (path: string, document: object) => documents.set(path, document);
  add("/api", {
    kind: "APIVersions",
    versions: ["v1"],
    serverAddressByClientCIDRs: [{ clientCIDR: "0.0.0.0/0", serverAddress }],
  });
  const apiGroups = groups.filter((group) => group.name !== "").map(apiGroup);
  add("/apis", { kind: "APIGroupList", apiVersion: "v1", groups: apiGroups });
  for (const group of groups) {
    if (group.name !== "") add(`/apis/${group.name}`, { kind: "APIGroup", apiVersion: "v1", ...apiGroup(group) });
    for (const version of group.versions) {
      const own = rows.filter((row) => row.group === group.name && row.version === version);
      const path = group.name === "" ? `/api/${version}` : `/apis/${group.name}/${version}`;
      const groupVersion = group.name === "" ? version : `${group.name}/${version}`;
      add(path, {
        kind: "APIResourceList",
        apiVersion: "v1",
        groupVersion,
        resources: own.flatMap(legacyResources).sort((a, b) => (a.name < b.name ? -1 : 1)),
      });
    }
  }
  const core = aggregated(
    rows,
    groups.filter((group) => group.name === ""),
  );
  const named = aggregated(
    rows,
    groups.filter((group) => group.name !== ""),
  );
  const aggregatedAt: Readonly<Record<string, { items: object[]; etag: string }>> = { "/api": core, "/apis": named };
  return {
    paths: [...documents.keys()],
    answer(request, path) {
      const document = documents.get(path);
      if (!document) return undefined;
      const merged = Object.hasOwn(aggregatedAt, path) ? aggregatedAt[path] : undefined;
      const version = merged && aggregatedVersion(request.header("accept"));
      if (!merged || !version) {
        return { type: "object", status: 200, object: document as never };
      }
      const contentType = `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`;
      const headers = { etag: merged.etag, vary: "Accept", "cache-control": "public" };
      if (request.header("if-none-match") === merged.etag) {
        return { type: "raw", status: 304, contentType, body: "", headers };
      }
      const list = {
        kind: "APIGroupDiscoveryList",
        apiVersion: `apidiscovery.k8s.io/${version}`,
        metadata: {},
        items: merged.items,
      };
      return { type: "raw", status: 200, contentType, body: JSON.stringify(list), headers };
    },
  };
}

function groupsOf(rows: readonly ResourceInfo[]): Group[] {
  const versions = new Map<string, Set<string>>();
  for (const row of rows) {
    const known = versions.get(row.group);
    if (known) known.add(row.version);
    else versions.set(row.group, new Set([row.version]));
  }
  const rank = (name: string) => (groupOrder.includes(name) ? groupOrder.indexOf(name) : groupOrder.length);
  return [...versions]
    .map(([name, set]) => ({ name, versions: [...set].sort((a, b) => versionRank(b) - versionRank(a)) }))
    .sort((a, b) => rank(a.name) - rank(b.name) || (a.name < b.name ? -1 : 1));
}

/** v2 before v1 before v1beta2. */
function versionRank(version: string): number {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version);
  if (!match) return 0;
  const stage = match[2] === undefined ? 2 : match[2] === "beta" ? 1 : 0;
  return stage * 1_000_000 + Number(match[1]) * 1000 + Number(match[3] ?? 0);
}

function apiGroup(group: Group) {
  const versions = group.versions.map((version) => ({ groupVersion: `${group.name}/${version}`, version }));
  return { name: group.name, versions, preferredVersion: versions[0]! };
}

function legacyResources(row: ResourceInfo) {
  const own = {
    name: row.plural,
    singularName: row.singular,
    namespaced: row.namespaced,
    kind: row.kind,
    verbs: [...row.verbs].sort(),
    ...(row.shortNames.length > 0 ? { shortNames: row.shortNames } : {}),
    ...(row.categories.length > 0 ? { categories: row.categories } : {}),
    ...(row.verbs.includes("watch") ? { storageVersionHash: hashOf(row) } : {}),
  };
  const subresources = Object.entries(row.subresources).map(([name, sub]) => ({
    name: `${row.plural}/${name}`,
    singularName: "",
    namespaced: row.namespaced,
    ...(sub.kind && (sub.group ?? row.group) !== row.group ? { group: sub.group } : {}),
    ...(sub.kind && sub.version !== undefined && (sub.version !== row.version || sub.group !== row.group)
      ? { version: sub.version }
      : {}),
    kind: sub.kind ?? row.kind,
    verbs: legacyVerbs(sub.verbs),
  }));
  return [own, ...subresources];
}

/** Streams show as create and get, as upstream's connecters do. */
const legacyVerbs = (verbs: readonly string[]): string[] =>
  [...new Set(verbs.flatMap((verb) => (verb === "connect" ? ["create", "get"] : [verb])))].sort();

/** By it clients see that a storage version has changed. Upstream's form: `apps/v1/Deployment`, `/v1/Pod`. */
function hashOf({ storageGroup, storageVersion, kind }: ResourceInfo): string {
  const version = storageVersion.slice(storageVersion.indexOf("/") + 1);
  const digest = createHash("sha256").update(`${storageGroup}/${version}/${kind}`).digest();
  return digest.subarray(0, 8).toString("base64");
}

function aggregated(rows: readonly ResourceInfo[], groups: readonly Group[]): { items: object[]; etag: string } {
  const items = groups.map((group) => ({
    metadata: group.name === "" ? { creationTimestamp: null } : { name: group.name, creationTimestamp: null },
    versions: group.versions.map((version) => ({
      version,
      resources: rows
        .filter((row) => row.group === group.name && row.version === version)
        .sort((a, b) => (a.plural < b.plural ? -1 : 1))
        .map(aggregatedResource),
      freshness: "Current",
    })),
  }));
  const etag = `"${createHash("sha512").update(JSON.stringify(items)).digest("hex").toUpperCase()}"`;
  return { items, etag };
}

function aggregatedResource(row: ResourceInfo): object {
  const subresources = Object.entries(row.subresources)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, sub]) => ({
      subresource: name,
      responseKind: {
        group: sub.kind ? (sub.group ?? row.group) : row.group,
        version: sub.kind ? (sub.version ?? row.version) : row.version,
        kind: sub.kind ?? row.kind,
      },
      verbs: legacyVerbs(sub.verbs),
    }));
  return {
    resource: row.plural,
    responseKind: { group: row.group, version: row.version, kind: row.kind },
    scope: row.namespaced ? "Namespaced" : "Cluster",
    singularResource: row.singular,
    verbs: [...row.verbs].sort(),
    ...(row.shortNames.length > 0 ? { shortNames: row.shortNames } : {}),
    ...(row.categories.length > 0 ? { categories: row.categories } : {}),
    ...(subresources.length > 0 ? { subresources } : {}),
  };
}

/** The aggregated form the client prefers over the legacy one, if any. */
function aggregatedVersion(accept: string | undefined): "v2" | "v2beta1" | undefined {
  for (const { type, parameters } of parseAccept(accept ?? "")) {
    if (type !== "application/json" && type !== "*/*") continue;
    if (parameters["as"] === undefined) return undefined;
    const version = parameters["v"];
    const fits = parameters["g"] === "apidiscovery.k8s.io" && parameters["as"] === "APIGroupDiscoveryList";
    if (fits && (version === "v2" || version === "v2beta1")) return version;
  }
  return undefined;
}
