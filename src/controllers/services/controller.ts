// Endpoints and EndpointSlices of services that select pods: two controllers over the same stores, since readers of the
// old object should not wait for writers of the new ones, and the other way round. The layout is in plan.ts.
// Upstream counterpart: pkg/controller/{endpoint,endpointslice}. Not here: hints by topology-mode.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service as RunningService } from "#base/service.ts";
import type { Endpoints, Pod, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { isDeleting, keyOf, nameOf, namespaceOf, splitKey } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { endpointSlices, endpoints, nodes, pods, services } from "#model/resources.ts";
import { isNotFound } from "#model/status.ts";
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
import { leaderAnnotation } from "./mirror.ts";
import {
  desiredGroups,
  desiredSubsets,
  endpointsLabels,
  isManaged,
  isSameEndpoints,
  lastChangeAnnotation,
  managedBy,
  managedByLabel,
  planSlices,
  type SliceContent,
  serviceNameLabel,
  sliceLabels,
} from "./plan.ts";

const sliceIndex = "service";

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
  /** Nobody answers for a pod whose node is not there. */
  const hasNode = ({ spec: { nodeName } }: Pod) => !nodeName || nodeStore.get(nodeName) !== undefined;
  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const service = serviceStore.get(key);
    if (!service || isDeleting(service)) {
      // Slices go with their owner, by garbage collection.
      expectations.forget(key);
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
    const plan = planSlices(existing, desiredGroups(service, reachable, zoneOf), labels);
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
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      const message = `Error updating Endpoint Slices for Service ${key}: ${messageOf(error)}`;
      const reason = "FailedToUpdateEndpointSlices";
      events.record({ resource: services as ResourceInfo, object: service, type: "Warning", reason, message });
      throw error;
    }
  }

  const slicesOf = on(sliceStore, (slice) => [serviceKeyOf(slice)]);
  const ofNode = on(nodeStore, function* (node, how) {
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
