// LimitRanger: what a namespace's limit ranges say of the size of pods, containers and claims. Defaults are filled in
// where a container says nothing; what is too small, too large or too far apart is refused, all reasons at once.
// Upstream: plugin/pkg/admission/limitranger.
import type { Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod } from "#model/gen/core-v1.ts";
import { addQuantities, compareQuantities, parseQuantity, type Quantity } from "#model/quantity.ts";
import { forbidden } from "#model/status.ts";
import type { AdmissionPlugin } from "./plugin.ts";

const annotation = "kubernetes.io/limit-ranger";
type Amounts = Readonly<Record<string, string>>;

export function createLimitRanger(): AdmissionPlugin {
  return {
    name: "LimitRanger",
    handles({ operation, resource: { group, plural }, subresource, oldObject }) {
      if (group !== "" || oldObject?.metadata.deletionTimestamp) return false;
      const [creates, updates] = [operation === "CREATE", operation === "UPDATE"];
      // Sizes of a pod do not change on its main resource: an update is not judged by limits that are newer than it.
      if (plural === "pods") return (creates && subresource === "") || (updates && subresource === "resize");
      return plural === "persistentvolumeclaims" && subresource === "" && (creates || updates);
    },
    async mutate(request, context) {
      if (request.resource.plural !== "pods") return;
      const pod = request.object as Pod;
      for (const range of await context.list<LimitRange>("limitranges", request.namespace)) {
        const said = fillDefaults(range, pod);
        // A resize does not change metadata.
        if (said.length === 0 || request.operation !== "CREATE") continue;
        const text = `LimitRanger plugin set: ${said.join("; ")}`;
        pod.metadata.annotations = { ...pod.metadata.annotations, [annotation]: text };
      }
    },
    async validate(request, context) {
      const problems: string[] = [];
      for (const { spec } of await context.list<LimitRange>("limitranges", request.namespace)) {
        for (const item of spec?.limits ?? []) {
          if (request.resource.plural === "pods") problems.push(...podProblems(item, request.object as Pod));
          else if (item.type === "PersistentVolumeClaim") {
            const { resources } = (request.object as PersistentVolumeClaim).spec;
            problems.push(...minMaxProblems(item, resources?.requests ?? {}, {}, "requestsOnly"));
          }
        }
      }
      if (problems.length === 0) return;
      const why = problems.length === 1 ? problems[0]! : `[${problems.join(", ")}]`;
      throw forbidden({ group: "", resource: request.resource.plural }, request.name, why);
    },
  };
}

/** What was filled in, in words. */
function fillDefaults(range: LimitRange, pod: Pod): string[] {
  const defaults: Record<string, string> = {};
  const requests: Record<string, string> = {};
  for (const item of range.spec?.limits ?? []) {
    if (item.type !== "Container") continue;
    Object.assign(defaults, item.default);
    Object.assign(requests, item.defaultRequest);
  }
  return [
    ...fillAll(pod.spec?.initContainers ?? [], "init container", defaults, requests),
    ...fillAll(pod.spec?.containers ?? [], "container", defaults, requests),
  ];
}

function fillAll(containers: readonly Container[], what: string, limits: Amounts, requests: Amounts): string[] {
  const said: string[] = [];
  for (const container of containers) {
    container.resources ??= {};
    const { resources } = container;
    const requested = fillMissing(requests, resources.requests);
    const limited = fillMissing(limits, resources.limits);
    if (requested.names.length > 0) resources.requests = requested.all;
    if (limited.names.length > 0) resources.limits = limited.all;
    if (requested.names.length > 0) said.push(`${requested.names.join(", ")} request for ${what} ${container.name}`);
    if (limited.names.length > 0) said.push(`${limited.names.join(", ")} limit for ${what} ${container.name}`);
  }
  return said;
}

function fillMissing(defaults: Amounts, given: Amounts = {}) {
  const names = Object.keys(defaults)
    .filter((name) => given[name] === undefined)
    .sort();
  return { names, all: { ...given, ...Object.fromEntries(names.map((name) => [name, defaults[name]!])) } };
}

function podProblems(item: LimitRangeItem, pod: Pod): string[] {
  const containers = pod.spec?.containers ?? [];
  const initial = pod.spec?.initContainers ?? [];
  if (item.type === "Container") {
    return [...initial, ...containers].flatMap(({ resources }) => [
      ...minMaxProblems(item, resources?.requests ?? {}, resources?.limits ?? {}),
      ...ratioProblems(item, resources?.requests ?? {}, resources?.limits ?? {}),
    ]);
  }
  if (item.type !== "Pod") return [];
  const requests = total(pod, "requests");
  const limits = total(pod, "limits");
  return [...minMaxProblems(item, requests, limits), ...ratioProblems(item, requests, limits)];
}

/** Containers together; an init container counts where it alone asks for more. Sidecars add to all. */
function total(pod: Pod, which: "requests" | "limits"): Amounts {
  const sum = new Map<string, Quantity>();
  const plus = (amounts: Amounts = {}): void => {
    for (const [name, amount] of Object.entries(amounts)) sum.set(name, addQuantities(sum.get(name) ?? "0", amount));
  };
  for (const { resources } of pod.spec?.containers ?? []) plus(resources?.[which]);
  const initial = pod.spec?.initContainers ?? [];
  for (const { restartPolicy, resources } of initial) if (restartPolicy === "Always") plus(resources?.[which]);
  for (const { restartPolicy, resources } of initial) {
    if (restartPolicy === "Always") continue;
    for (const [name, amount] of Object.entries(resources?.[which] ?? {})) {
      if (compareQuantities(amount, sum.get(name) ?? "0") > 0) sum.set(name, parseQuantity(amount));
    }
  }
  return Object.fromEntries([...sum].map(([name, amount]) => [name, amount.toString()]));
}

function minMaxProblems(item: LimitRangeItem, requests: Amounts, limits: Amounts, how?: "requestsOnly"): string[] {
  const problems: string[] = [];
  for (const [name, minimum] of sorted(item.min)) {
    const request = requests[name];
    const limit = limits[name];
    const least = `minimum ${name} usage per ${item.type} is ${minimum}`;
    if (request === undefined) problems.push(`${least}.  No request is specified`);
    else if (compareQuantities(request, minimum) < 0) problems.push(`${least}, but request is ${request}`);
    else if (limit !== undefined && compareQuantities(limit, minimum) < 0) {
      problems.push(`${least}, but limit is ${limit}`);
    }
  }
  for (const [name, maximum] of sorted(item.max)) {
    const request = requests[name];
    const limit = limits[name];
    const most = `maximum ${name} usage per ${item.type} is ${maximum}`;
    const judged = how === "requestsOnly" ? request : limit;
    if (how !== undefined && request === undefined) problems.push(`${most}.  No request is specified`);
    else if (judged === undefined) problems.push(`${most}.  No limit is specified`);
    else if (compareQuantities(judged, maximum) > 0) {
      problems.push(`${most}, but ${how === undefined ? "limit" : "request"} is ${judged}`);
    } else if (request !== undefined && compareQuantities(request, maximum) > 0) {
      problems.push(`${most}, but request is ${request}`);
    }
  }
  return problems;
}

function ratioProblems(item: LimitRangeItem, requests: Amounts, limits: Amounts): string[] {
  return sorted(item.maxLimitRequestRatio).flatMap(([name, most]) => {
    const at = `${name} max limit to request ratio per ${item.type} is ${most}`;
    const request = requests[name];
    const limit = limits[name];
    if (request === undefined || compareQuantities(request, "0") === 0) {
      return [`${at}, but no request is specified or request is 0`];
    }
    if (limit === undefined || compareQuantities(limit, "0") === 0) {
      return [`${at}, but no limit is specified or limit is 0`];
    }
    const ratio = Number(parseQuantity(limit).nano) / Number(parseQuantity(request).nano);
    const allowed = Number(parseQuantity(most).nano) / 1e9;
    return ratio > allowed ? [`${at}, but provided ratio is ${ratio.toFixed(6)}`] : [];
  });
}

const sorted = (amounts: Amounts = {}): [string, string][] =>
  Object.entries(amounts).sort(([a], [b]) => (a < b ? -1 : 1));
