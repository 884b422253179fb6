// What one object costs a quota, and whether a quota is about it at all. Shared by admission, which charges, and by the
// controller, which counts again; both must come to the same numbers. Pure. Upstream counterpart:
// pkg/quota/v1/evaluator/core.
import type { PersistentVolumeClaim, Pod, ResourceQuota, Service } from "../gen/core-v1.ts";
import type { ApiObject } from "../object.ts";
import { podAmounts } from "../pod-resources.ts";
import { addQuantities, compareQuantities, parseQuantity, type Quantity, subtractQuantities } from "../quantity.ts";
import {
  type Countable,
  countName,
  countsTowards,
  isExtended,
  isHugePages,
  legacyCountName,
  ofStorageClass,
} from "./resources.ts";

export type Usage = Map<string, Quantity>;
type Amounts = Readonly<Record<string, string | number>>;

const one = parseQuantity(1);

/** Everything `object` could be charged for; a quota takes what it names. */
export function usageOf(about: Countable, object: ApiObject, nowMs: number): Usage {
  const usage: Usage = new Map([[countName(about), one]]);
  if (about.group === "" && about.plural === "pods") {
    if (countsAsRunning(object as Pod, nowMs)) chargePod(usage, object as Pod);
    return usage;
  }
  const legacy = legacyCountName(about);
  if (legacy !== undefined) usage.set(legacy, one);
  if (about.group === "" && about.plural === "services") chargeService(usage, object as Service);
  if (about.group === "" && about.plural === "persistentvolumeclaims")
    chargeClaim(usage, object as PersistentVolumeClaim);
  return usage;
}

/** Not ended, and not past the time by which it should have ended. */
export function countsAsRunning(pod: Pod, nowMs: number): boolean {
  const phase = pod.status?.phase;
  if (phase === "Failed" || phase === "Succeeded") return false;
  const { deletionTimestamp, deletionGracePeriodSeconds } = pod.metadata;
  if (deletionTimestamp === undefined || deletionGracePeriodSeconds === undefined) return true;
  return nowMs <= Date.parse(String(deletionTimestamp)) + deletionGracePeriodSeconds * 1000;
}

function chargePod(usage: Usage, pod: Pod): void {
  usage.set("pods", one);
  computeUsage(usage, podAmounts(pod, "requests"), podAmounts(pod, "limits"));
}

const native = ["cpu", "memory", "ephemeral-storage"];

function computeUsage(
  usage: Usage,
  requests: ReadonlyMap<string, Quantity>,
  limits: ReadonlyMap<string, Quantity>,
): void {
  for (const [name, amount] of requests) {
    if (native.includes(name) || isHugePages(name)) usage.set(name, amount).set(`requests.${name}`, amount);
    else if (isExtended(name)) usage.set(`requests.${name}`, amount);
  }
  for (const name of native) if (limits.has(name)) usage.set(`limits.${name}`, limits.get(name)!);
}

function chargeService(usage: Usage, { spec }: Service): void {
  const ports = spec?.ports ?? [];
  const all = parseQuantity(ports.length);
  const isBalanced = spec?.type === "LoadBalancer";
  const named = () => parseQuantity(ports.filter((port) => port.nodePort).length);
  const nodePorts =
    spec?.type === "NodePort"
      ? all
      : isBalanced
        ? spec.allocateLoadBalancerNodePorts === false
          ? named()
          : all
        : parseQuantity(0);
  usage.set("services.nodeports", nodePorts);
  usage.set("services.loadbalancers", parseQuantity(isBalanced ? 1 : 0));
}

function chargeClaim(usage: Usage, claim: PersistentVolumeClaim): void {
  const storageClass =
    claim.metadata.annotations?.["volume.beta.kubernetes.io/storage-class"] ?? claim.spec?.storageClassName ?? "";
  const ofClass = storageClass === "" ? undefined : ofStorageClass(storageClass);
  if (ofClass) usage.set(ofClass.claims, one);
  const asked = claim.spec?.resources?.requests?.["storage"];
  if (asked === undefined) return;
  // An expansion that could not be done keeps what was already set aside for it.
  const allocated = claim.status?.allocatedResources?.["storage"];
  const storage = parseQuantity(allocated !== undefined && compareQuantities(allocated, asked) > 0 ? allocated : asked);
  usage.set("requests.storage", storage);
  if (ofClass) usage.set(ofClass.storage, storage);
}

/** Is the quota about this object: does it limit something the object counts towards, and do all its scopes fit? */
export function quotaCovers(quota: ResourceQuota, hard: Amounts, about: Countable, object: ApiObject): boolean {
  if (!Object.keys(hard).some((name) => countsTowards(about, name))) return false;
  return scopesOf(quota).every((scope) => {
    // Only pods have scopes: a quota with scopes is about nothing else.
    return about.group === "" && about.plural === "pods" && podFits(object as Pod, scope);
  });
}

interface Scope {
  readonly scopeName: string;
  readonly operator: string;
  readonly values?: readonly string[];
}

const scopesOf = ({ spec }: ResourceQuota): Scope[] => [
  ...(spec?.scopes ?? []).map((scopeName) => ({ scopeName, operator: "Exists" })),
  ...((spec?.scopeSelector?.matchExpressions ?? []) as Scope[]),
];

function podFits(pod: Pod, scope: Scope): boolean {
  switch (scope.scopeName) {
    case "Terminating":
      return isTerminating(pod);
    case "NotTerminating":
      return !isTerminating(pod);
    case "BestEffort":
      return pod.status?.qosClass === "BestEffort";
    case "NotBestEffort":
      return pod.status?.qosClass !== "BestEffort";
    case "PriorityClass":
      return priorityFits(pod.spec.priorityClassName ?? "", scope);
    case "CrossNamespacePodAffinity":
      return reachesOtherNamespaces(pod);
    default:
      return false;
  }
}

const isTerminating = (pod: Pod): boolean =>
  pod.spec.activeDeadlineSeconds != null && pod.spec.activeDeadlineSeconds >= 0;

function priorityFits(name: string, { operator, values = [] }: Scope): boolean {
  switch (operator) {
    case "In":
      return name !== "" && values.includes(name);
    case "NotIn":
      return !values.includes(name);
    case "DoesNotExist":
      return name === "";
    default:
      return name !== "";
  }
}

interface AffinityTerm {
  readonly namespaces?: readonly string[];
  readonly namespaceSelector?: object;
}

function reachesOtherNamespaces({ spec }: Pod): boolean {
  const reaches = (term: AffinityTerm | undefined) =>
    (term?.namespaces?.length ?? 0) > 0 || term?.namespaceSelector !== undefined;
  return [spec.affinity?.podAffinity, spec.affinity?.podAntiAffinity].some(
    (side) =>
      side?.requiredDuringSchedulingIgnoredDuringExecution?.some(reaches) ||
      side?.preferredDuringSchedulingIgnoredDuringExecution?.some((term) => reaches(term.podAffinityTerm)),
  );
}

const mustBeSaid = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/** Where cpu or memory are limited every container must say what it takes; the sentence that says who does not. */
export function missingAmounts(pod: Pod, limited: readonly string[]): string | undefined {
  const required = mustBeSaid.filter((name) => limited.includes(name));
  const missing = new Map<string, Set<string>>();
  for (const container of [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? [])]) {
    const said: Usage = new Map();
    computeUsage(said, quantities(container.resources?.requests), quantities(container.resources?.limits));
    for (const name of required) {
      if (!said.has(name)) missing.set(name, (missing.get(name) ?? new Set()).add(container.name));
    }
  }
  if (missing.size === 0) return undefined;
  const parts = [...missing].sort(byName).map(([name, who]) => `${name} for: ${[...who].sort().join(",")}`);
  return `must specify ${parts.join("; ")}`;
}

const quantities = (amounts: Amounts | undefined): Usage =>
  new Map(Object.entries(amounts ?? {}).map(([name, amount]) => [name, parseQuantity(amount)]));

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

/** `usage` less `before`; names only one of them has count as zero in the other. */
export function usageChange(usage: Usage, before: Usage): Usage {
  const change: Usage = new Map();
  for (const name of new Set([...usage.keys(), ...before.keys()])) {
    change.set(name, subtractQuantities(usage.get(name) ?? "0", before.get(name) ?? "0"));
  }
  return change;
}

export function addUsage(into: Usage, usage: Usage, names: Amounts): void {
  for (const [name, amount] of usage) {
    if (Object.hasOwn(names, name)) into.set(name, addQuantities(into.get(name) ?? "0", amount));
  }
}

/** As messages list amounts: `cpu=1,memory=2Gi`. */
export const listAmounts = (amounts: Iterable<readonly [string, { toString(): string }]>): string =>
  [...amounts]
    .sort(byName)
    .map(([name, amount]) => `${name}=${amount.toString()}`)
    .join(",");
