// Which resource names a quota may speak of, and which of them a kind of object counts towards. Upstream counterpart:
// the evaluators of pkg/quota/v1/evaluator/core and the helpers of pkg/apis/core/helper.
import { qualifiedResource } from "../resource-info.ts";

export interface Countable {
  readonly group: string;
  readonly plural: string;
}

/** Kinds that are counted under their own name too, for the sake of quotas older than `count/`. */
const countedByName = new Set([
  "configmaps",
  "persistentvolumeclaims",
  "pods",
  "replicationcontrollers",
  "resourcequotas",
  "secrets",
  "services",
]);

export const podComputeResources: ReadonlySet<string> = new Set([
  "cpu",
  "ephemeral-storage",
  "limits.cpu",
  "limits.ephemeral-storage",
  "limits.memory",
  "memory",
  "pods",
  "requests.cpu",
  "requests.ephemeral-storage",
  "requests.memory",
]);
const serviceResources = new Set(["services.loadbalancers", "services.nodeports"]);
const claimsOfClass = ".storageclass.storage.k8s.io/persistentvolumeclaims";
const storageOfClass = ".storageclass.storage.k8s.io/requests.storage";

export const countName = (about: Countable): string => `count/${qualifiedResource(about)}`;
export const legacyCountName = (about: Countable): string | undefined =>
  about.group === "" && countedByName.has(about.plural) ? about.plural : undefined;

/** Does an object of this kind count towards the resource `name` of a quota? */
export function countsTowards(about: Countable, name: string): boolean {
  if (name === countName(about) || name === legacyCountName(about)) return true;
  if (about.group !== "") return false;
  switch (about.plural) {
    case "pods":
      return podComputeResources.has(name) || isHugePages(name) || isExtendedRequest(name);
    case "services":
      return serviceResources.has(name);
    case "persistentvolumeclaims":
      return name === "requests.storage" || isOfStorageClass(name);
    default:
      return false;
  }
}

const isOfStorageClass = (name: string): boolean => name.endsWith(claimsOfClass) || name.endsWith(storageOfClass);
export const ofStorageClass = (storageClass: string): { readonly claims: string; readonly storage: string } => ({
  claims: storageClass + claimsOfClass,
  storage: storageClass + storageOfClass,
});

export const isHugePages = (name: string): boolean =>
  name.startsWith("hugepages-") || name.startsWith("requests.hugepages-");

/** `requests.example.com/gpu`: only requests of extended resources are counted, which cannot be overcommitted. */
function isExtendedRequest(name: string): boolean {
  return name.startsWith("requests.") && isExtended(name.slice("requests.".length));
}

/** A resource of somebody's own domain. */
export function isExtended(name: string): boolean {
  const slash = name.indexOf("/");
  if (slash < 0) return false;
  const domain = name.slice(0, slash);
  return domain !== "kubernetes.io" && !domain.endsWith(".kubernetes.io") && !name.startsWith("requests.");
}

const standard = new Set([...podComputeResources, ...countedByName, ...serviceResources, "requests.storage"]);
/** A name without a domain must be one of these. */
export const isStandardQuotaResource = (name: string): boolean => standard.has(name) || isHugePages(name);
/** What can only be had in whole. */
export const isWholeQuotaResource = (name: string): boolean =>
  countedByName.has(name) || serviceResources.has(name) || name.startsWith("count/") || isExtendedRequest(name);
