// metrics.k8s.io/v1beta1: nodes and pods as metrics-server answers for them, made when asked and never stored. A pod is told of
// once all of its running containers can be. Authorisation, discovery and tables are the chain's.
// Upstream counterpart: metrics-server's pkg/api.
import type { Clock } from "#base/clock.ts";
import { rfc3339 } from "#base/clock.ts";
import type { Store } from "#client/informer.ts";
import { formatDurationNanoseconds } from "#model/duration.ts";
import { matchesFields, parseFieldSelector } from "#model/field-selector.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { matchesRequirements, parseLabelSelector } from "#model/label-selector.ts";
import { type NodeMetrics, nodeMetrics, type PodMetrics, podMetrics } from "#model/metrics.ts";
import { type ApiObject, nameOf, namespaceOf, type UnknownObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { methodNotAllowed, notFound } from "#model/status.ts";
import type { RequestInfo } from "../endpoints/request-info.ts";
import type { VirtualGroup } from "../virtual-group.ts";
import type { MetricsCollector } from "./collector.ts";
import type { Measured } from "./samples.ts";

export interface MetricsGroupDeps {
  readonly clock: Clock;
  readonly collector: Pick<MetricsCollector, "usage">;
  readonly nodes: Pick<Store<Node>, "get" | "list">;
  readonly pods: Pick<Store<Pod>, "get" | "list">;
}

export function createMetricsGroup(deps: MetricsGroupDeps): VirtualGroup {
  return {
    rows: [nodeMetrics, podMetrics] as readonly ResourceInfo[],
    async handle(row, info, query) {
      if (info.verb !== "get" && info.verb !== "list") throw methodNotAllowed(notAllowed);
      const isNodes = row.plural === nodeMetrics.plural;
      if (info.verb === "get") {
        const object = isNodes ? await oneNode(deps, info) : await onePod(deps, info);
        return { type: "objects", info: row, objects: [object as unknown as UnknownObject], isList: false };
      }
      const labels = parseLabelSelector(query.get("labelSelector") ?? "");
      const fields = parseFieldSelector(query.get("fieldSelector") ?? "");
      const matches = (object: ApiObject) =>
        matchesRequirements(labels, object.metadata.labels) &&
        (fields.length === 0 || matchesFields(fields, object as UnknownObject));
      const namespace = info.namespace === "" ? undefined : info.namespace;
      const objects: readonly ApiObject[] = isNodes
        ? await metricsOfNodes(deps, deps.nodes.list().filter(matches))
        : await metricsOfPods(deps, deps.pods.list(namespace).filter(matches));
      const sorted = [...objects].sort((a, b) => (sortKey(a) < sortKey(b) ? -1 : 1));
      return { type: "objects", info: row, objects: sorted as UnknownObject[], isList: true };
    },
  };
}

const notAllowed = "the server does not allow this method on the requested resource";
const sortKey = (object: ApiObject): string => `${namespaceOf(object)}\0${nameOf(object)}`;

async function oneNode(deps: MetricsGroupDeps, { name }: RequestInfo): Promise<NodeMetrics> {
  const node = deps.nodes.get(name);
  if (!node) throw notFound({ group: "", resource: "nodes" }, name);
  const [found] = await metricsOfNodes(deps, [node]);
  if (!found) throw notFound({ group: nodeMetrics.group, resource: "nodemetrics" }, name);
  return found;
}

async function onePod(deps: MetricsGroupDeps, { namespace, name }: RequestInfo): Promise<PodMetrics> {
  const key = `${namespace}/${name}`;
  const pod = deps.pods.get(key);
  if (!pod) throw notFound({ group: "", resource: "pods" }, key);
  const [found] = await metricsOfPods(deps, [pod]);
  if (!found) throw notFound({ group: podMetrics.group, resource: "podmetrics" }, key);
  return found;
}

const nodeNames = (deps: MetricsGroupDeps): ReadonlySet<string> => new Set(deps.nodes.list().map(nameOf));

async function metricsOfNodes(deps: MetricsGroupDeps, nodes: readonly Node[]): Promise<NodeMetrics[]> {
  const usage = await deps.collector.usage(nodes.map(nameOf), nodeNames(deps));
  return nodes.flatMap((node) => {
    const measured = usage.get(nameOf(node))?.node;
    return measured ? [{ ...head(deps, nodeMetrics, node, measured), usage: measured.usage }] : [];
  });
}

async function metricsOfPods(deps: MetricsGroupDeps, pods: readonly Pod[]): Promise<PodMetrics[]> {
  const all = nodeNames(deps);
  const running = pods.filter((pod) => pod.status?.phase === "Running" && all.has(pod.spec.nodeName ?? ""));
  const usage = await deps.collector.usage(
    running.map((pod) => pod.spec.nodeName ?? ""),
    all,
  );
  return running.flatMap((pod) => {
    const known = usage.get(pod.spec.nodeName ?? "")?.containers;
    const containers = containersOf(pod).map((name) => ({
      name,
      measured: known?.get(`${namespaceOf(pod)}/${nameOf(pod)}/${name}`),
    }));
    if (containers.length === 0 || containers.some(({ measured }) => !measured)) return [];
    const told = containers.map(({ name, measured }) => ({ name, measured: measured! }));
    // The container that was looked at for the shortest time says how far the whole can be trusted.
    const shortest = told.reduce((a, b) => (b.measured.windowMs < a.measured.windowMs ? b : a)).measured;
    return [
      {
        ...head(deps, podMetrics, pod, shortest),
        containers: told.map(({ name, measured }) => ({ name, usage: measured.usage })),
      },
    ];
  });
}

/** Containers that run: of those that ended there is nothing to tell. Before statuses are known, all. */
function containersOf(pod: Pod): string[] {
  const sidecars = (pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === "Always");
  const states = new Map(
    [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])].map((s) => [s.name, s]),
  );
  return [...sidecars, ...(pod.spec.containers ?? [])]
    .map((c) => c.name)
    .filter((name) => states.get(name)?.state?.running !== undefined || !states.has(name));
}

function head(deps: MetricsGroupDeps, row: ResourceInfo<never> | ResourceInfo, object: ApiObject, measured: Measured) {
  const { labels } = object.metadata;
  return {
    kind: row.kind,
    apiVersion: groupVersion(row),
    metadata: {
      name: nameOf(object),
      ...(row.namespaced ? { namespace: namespaceOf(object) } : {}),
      creationTimestamp: rfc3339(deps.clock.now()),
      ...(labels && Object.keys(labels).length > 0 ? { labels } : {}),
    },
    timestamp: rfc3339(measured.atMs),
    window: formatDurationNanoseconds(BigInt(Math.round(measured.windowMs)) * 1_000_000n),
  };
}
