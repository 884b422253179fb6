// Endpoints and EndpointSlices of services that select pods: two controllers over the same stores, since readers of the
// old object should not wait for writers of the new ones, and the other way round. The layout is in plan.ts.
// Upstream counterpart: pkg/controller/{endpoint,endpointslice}.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service as RunningService } from "#base/service.ts";
import type { Endpoints, Pod, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, splitKey } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { endpointSlices, endpoints, nodes, pods, services } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import {
  type ControllerDeps,
  createController,
  isNamespaceTerminating,
  on,
  type Trigger,
} from "../runtime/controller.ts";
import { Expectations, lookAgainMs } from "../runtime/expectations.ts";
import { controllerReference } from "../runtime/owners.ts";
import { deleteIfThere } from "../runtime/writes.ts";
import { hintMessages, wantsTopologyHints, zoneShares } from "./hints.ts";
import { leaderAnnotation } from "./mirror.ts";
import {
  desiredGroups,
  desiredSubsets,
  endpointsLabels,
  type HintNews,
  isManaged,
  isSameEndpoints,
  lastChangeAnnotation,
  managedBy,
  managedByLabel,
  planSlices,
  type SliceContent,
  type SlicePlan,
  serviceNameLabel,
  sliceLabels,
  withTopologyHints,
} from "./plan.ts";

const sliceIndex = "service";
/** Upstream's: from 2, doubling, to 32768. */
const perSyncBuckets = Array.from({ length: 15 }, (_, i) => 2 ** (i + 1));

const isSelected = (service: Service, pod: Pod): boolean =>
  isManaged(service) && Object.entries(service.spec.selector ?? {}).every(([k, v]) => pod.metadata.labels?.[k] === v);

/** Keys of the services that select a pod. */
function* servicesOf(deps: ControllerDeps, pod: Pod): Iterable<string> {
  for (const service of deps.informers.informer(services).list(namespaceOf(pod))) {
    if (isSelected(service, pod)) yield keyOf(service);
  }
}

/** What both controllers look at: a service, and the pods that it selects or has ceased to select. */
const triggersOf = (deps: ControllerDeps): Trigger[] => [
  on(deps.informers.informer(services)),
  on(deps.informers.informer(pods), (pod) => servicesOf(deps, pod)),
];

function selectedPods(deps: ControllerDeps, service: Service): Pod[] {
  return deps.informers
    .informer(pods)
    .list(namespaceOf(service))
    .filter((pod) => isSelected(service, pod));
}

export function createEndpointSliceController(deps: ControllerDeps): RunningService {
  const { client, clock } = deps;
  const serviceStore = deps.informers.informer(services);
  const nodeStore = deps.informers.informer(nodes);
  const podStore = deps.informers.informer(pods);
  const sliceStore = deps.informers.informer(endpointSlices);
  const events = deps.events.as("endpoint-slice-controller");
  const expectations = new Expectations(clock, sliceStore);
  const serviceKeyOf = (slice: EndpointSlice): string | undefined => {
    const { [serviceNameLabel]: service, [managedByLabel]: manager } = slice.metadata.labels ?? {};
    return service && manager === managedBy ? `${namespaceOf(slice)}/${service}` : undefined;
  };
  sliceStore.addIndex(sliceIndex, (slice) => [serviceKeyOf(slice) ?? ""]);
  /** What was last said about the hints of a service; no more than there are services that want them. */
  const told = new Map<string, string>();
  const metrics = {
    changes: deps.metrics.counter("endpoint_slice_controller_changes", "Slices written, by operation."),
    syncs: deps.metrics.counter("endpoint_slice_controller_syncs", "Looks at the slices of a service, by result."),
    added: deps.metrics.histogram(
      "endpoint_slice_controller_endpoints_added_per_sync",
      "Endpoints that came in one look.",
      perSyncBuckets,
    ),
    removed: deps.metrics.histogram(
      "endpoint_slice_controller_endpoints_removed_per_sync",
      "Endpoints that went in one look.",
      perSyncBuckets,
    ),
  };
  const isOurs = (slice: EndpointSlice) => slice.metadata.labels?.[managedByLabel] === managedBy;
  deps.metrics.gaugeOf(
    "endpoint_slice_controller_num_endpoint_slices",
    "Slices of services.",
    () => sliceStore.list().filter(isOurs).length,
  );

  /** Says once what became of the hints that a service asked for. */
  function tellHints(key: string, service: Service, news: readonly HintNews[] | undefined, had: boolean): void {
    const say = (type: "Normal" | "Warning", reason: string, text: string, family: string) => {
      const message = `${text}, addressType: ${family}`;
      if (told.get(`${key} ${family}`) === message) return;
      told.set(`${key} ${family}`, message);
      events.record({ resource: services as ResourceInfo, object: service, type, reason, message });
    };
    if (!news) {
      for (const family of ["IPv4", "IPv6"]) {
        const isEnd = had && told.get(`${key} ${family}`)?.startsWith(hintMessages.disabled) === false;
        if (isEnd) say("Warning", "TopologyAwareHintsDisabled", hintMessages.disabled, family);
        told.delete(`${key} ${family}`);
      }
      return;
    }
    for (const { addressType, had: hadHints, problem } of news) {
      if (problem !== undefined) say("Warning", "TopologyAwareHintsDisabled", problem, addressType);
      // After a restart hints that are there already are no news.
      else if (hadHints) told.set(`${key} ${addressType}`, `${hintMessages.enabled}, addressType: ${addressType}`);
      else say("Normal", "TopologyAwareHintsEnabled", hintMessages.enabled, addressType);
    }
  }

  /** Nobody answers for a pod whose node is not there. */
  const hasNode = ({ spec: { nodeName } }: Pod) => !nodeName || nodeStore.get(nodeName) !== undefined;
  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const service = serviceStore.get(key);
    if (!service || isDeleting(service)) {
      // Slices go with their owner, by garbage collection.
      expectations.forget(key);
      for (const family of ["IPv4", "IPv6"]) told.delete(`${key} ${family}`);
      return;
    }
    if (!isManaged(service)) return;
    // Slices just created that the store does not show would be made once more.
    if (!expectations.satisfied(key)) {
      again(lookAgainMs);
      return;
    }
    const zoneOf = (node: string) => nodeStore.get(node)?.metadata.labels?.["topology.kubernetes.io/zone"];
    const existing = sliceStore.byIndex(sliceIndex, key).filter((slice) => !isDeleting(slice));
    const labels = sliceLabels(service);
    const selected = selectedPods(deps, service);
    const reachable = service.spec.publishNotReadyAddresses ? selected : selected.filter(hasNode);
    // The pod goes in time, or the node is about to be seen.
    if (reachable.length < selected.length) again(lookAgainMs);
    const desired = desiredGroups(service, reachable, zoneOf);
    const hints = wantsTopologyHints(service)
      ? withTopologyHints(desired, existing, zoneShares(nodeStore.list()))
      : undefined;
    const hadHints = existing.some((slice) => slice.endpoints?.some((one) => one.hints !== undefined));
    const plan = planSlices(existing, hints?.groups ?? desired, labels);
    const annotations = { [lastChangeAnnotation]: rfc3339(clock.now()) };
    try {
      for (const content of plan.create) {
        const made = sliceOf(service, content, labels, annotations);
        expectations.created(key, await client.create(endpointSlices, made));
      }
      for (const slice of plan.update) {
        const metadata = { ...slice.metadata, annotations: { ...slice.metadata.annotations, ...annotations } };
        await client.update(endpointSlices, { ...slice, metadata });
      }
      for (const slice of plan.remove) await deleteIfThere(client, endpointSlices, slice);
      if (!expectations.satisfied(key)) again(lookAgainMs);
      tellHints(key, service, hints?.news, hadHints);
      count(existing, plan);
      metrics.syncs.add(1, { result: "success" });
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      metrics.syncs.add(1, { result: isConflict(error) ? "stale" : "error" });
      const message = `Error updating Endpoint Slices for Service ${key}: ${messageOf(error)}`;
      const reason = "FailedToUpdateEndpointSlices";
      events.record({ resource: services as ResourceInfo, object: service, type: "Warning", reason, message });
      throw error;
    }
  }

  function count(existing: readonly EndpointSlice[], plan: SlicePlan): void {
    const writes = { create: plan.create.length, update: plan.update.length, delete: plan.remove.length };
    for (const [operation, times] of Object.entries(writes)) if (times > 0) metrics.changes.add(times, { operation });
    if (writes.create + writes.update + writes.delete === 0) return;
    const namesIn = (slices: readonly SliceContent[]) =>
      new Set(slices.flatMap(({ endpoints: all }) => (all ?? []).map(({ addresses }) => addresses[0])));
    const touched = new Set([...plan.update.map(nameOf), ...plan.remove.map(nameOf)]);
    const before = namesIn(existing.filter((slice) => touched.has(nameOf(slice))));
    const after = namesIn([...plan.create, ...plan.update]);
    metrics.added.observe([...after].filter((one) => !before.has(one)).length);
    metrics.removed.observe([...before].filter((one) => !after.has(one)).length);
  }

  const slicesOf = on(sliceStore, (slice) => [serviceKeyOf(slice)]);
  let shares = "";
  const ofNode = on(nodeStore, function* (node, how) {
    const now = JSON.stringify([...(zoneShares(nodeStore.list()) ?? [])]);
    if (now !== shares) {
      shares = now;
      for (const service of serviceStore.list()) if (wantsTopologyHints(service)) yield keyOf(service);
    }
    if (how !== "delete") return;
    for (const pod of podStore.list()) if (pod.spec.nodeName === nameOf(node)) yield* servicesOf(deps, pod);
  });
  const triggers = [...triggersOf(deps), slicesOf, ofNode];
  return createController({ name: "endpoint-slice-controller", workers: 5, triggers, sync }, deps);
}

function sliceOf(
  service: Service,
  content: SliceContent,
  labels: Readonly<Record<string, string>>,
  annotations: Readonly<Record<string, string>>,
): EndpointSlice {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      generateName: `${nameOf(service)}-`,
      namespace: namespaceOf(service),
      labels: { ...labels },
      annotations: { ...annotations },
      ownerReferences: [controllerReference(services as ResourceInfo, service)],
    },
    ...content,
  };
}

export function createEndpointsController(deps: ControllerDeps): RunningService {
  const { client, clock } = deps;
  const serviceStore = deps.informers.informer(services);
  const endpointsStore = deps.informers.informer(endpoints);
  const events = deps.events.as("endpoint-controller");

  async function sync(key: string): Promise<void> {
    const service = serviceStore.get(key);
    const { namespace, name } = splitKey(key);
    if (!service) {
      // Endpoints have no owner reference: whoever deletes the service relies on this.
      try {
        await client.delete(endpoints, { name, namespace });
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
      return;
    }
    if (!isManaged(service)) return;
    const { subsets, isTruncated } = desiredSubsets(service, selectedPods(deps, service));
    const old = endpointsStore.get(key);
    const { ["endpoints.kubernetes.io/over-capacity"]: _, ...kept } = old?.metadata.annotations ?? {};
    const next: Endpoints = {
      apiVersion: "v1",
      kind: "Endpoints",
      metadata: {
        ...(old?.metadata ?? { name, namespace }),
        labels: { ...endpointsLabels(service) },
        annotations: {
          ...kept,
          ...(isTruncated ? { "endpoints.kubernetes.io/over-capacity": "truncated" } : {}),
          [lastChangeAnnotation]: rfc3339(clock.now()),
        },
      },
      ...(subsets.length > 0 ? { subsets } : {}),
    };
    try {
      if (!old) await client.create(endpoints, next);
      else if (!isSameEndpoints(old, next)) await client.update(endpoints, next);
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      const [reason, what] = old
        ? ["FailedToUpdateEndpoint", `Failed to update endpoint ${key}`]
        : ["FailedToCreateEndpoint", `Failed to create endpoint for service ${key}`];
      const message = `${what}: ${messageOf(error)}`;
      events.record({ resource: endpoints as ResourceInfo, object: next, type: "Warning", reason, message });
      throw error;
    }
  }

  /**
   * Endpoints that somebody makes before their service, or without one, are theirs. Only what is left over from before
   * the start has lost its service while nobody looked.
   */
  const marked = (object: Endpoints, how: "add" | "update" | "delete") => {
    const isLeftOver = !endpointsStore.hasSynced && object.metadata.annotations?.[leaderAnnotation] === undefined;
    return how === "delete" || isLeftOver || serviceStore.get(keyOf(object)) ? [keyOf(object)] : [];
  };
  const triggers = [...triggersOf(deps), on(endpointsStore, marked)];
  return createController({ name: "endpoint-controller", workers: 5, triggers, sync }, deps);
}
