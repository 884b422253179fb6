// EndpointSlices for Endpoints that somebody wrote by hand for a service without selector, so that readers of slices see
// them too. Those that a controller of ours makes, and those that say so, are left alone.
// Upstream counterpart: pkg/controller/endpointslicemirroring.
import { messageOf } from "#base/errors.ts";
import type { Service as RunningService } from "#base/service.ts";
import type { EndpointAddress, Endpoints, Service } from "#model/gen/core-v1.ts";
import type { Endpoint, EndpointSlice } from "#model/gen/discovery-v1.ts";
import { isDeleting, nameOf, namespaceOf, splitKey } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { endpointSlices, endpoints, services } from "#model/resources.ts";
import { type ControllerDeps, createController, isNamespaceTerminating, on } from "../runtime/controller.ts";
import { Expectations, lookAgainMs } from "../runtime/expectations.ts";
import { controllerReference } from "../runtime/owners.ts";
import { deleteIfThere } from "../runtime/writes.ts";
import { type Family, type Group, lastChangeAnnotation, managedByLabel, planSlices, serviceNameLabel } from "./plan.ts";

const name = "endpointslicemirroring-controller";
const managedBy = "endpointslicemirroring-controller.k8s.io";
const skipLabel = "endpointslice.kubernetes.io/skip-mirror";
export const leaderAnnotation = "control-plane.alpha.kubernetes.io/leader";
const notCopied = new Set([lastChangeAnnotation, "kubectl.kubernetes.io/last-applied-configuration"]);
/** Addresses of one subset that are mirrored; upstream's --mirroring-max-endpoints-per-subset. */
const maxPerSubset = 1000;
const sliceIndex = "mirrored";

/** Addresses that are beyond what is mirrored of one subset, of all subsets together. */
export const skippedCount = (object: Endpoints): number =>
  (object.subsets ?? []).reduce((sum, { addresses = [], notReadyAddresses = [] }) => {
    return sum + Math.max(0, addresses.length + notReadyAddresses.length - maxPerSubset);
  }, 0);

/** Does this object want to be mirrored, and is there a service that nobody else makes slices for? */
export const isMirrored = (object: Endpoints, service: Service | undefined): boolean =>
  object.metadata.labels?.[skipLabel] !== "true" &&
  object.metadata.annotations?.[leaderAnnotation] === undefined &&
  service !== undefined &&
  service.spec.type !== "ExternalName" &&
  Object.keys(service.spec.selector ?? {}).length === 0;

/** What the slices are to hold: one group per subset and address family, unready addresses among them. */
export function mirroredGroups(object: Endpoints): Group[] {
  const groups: Group[] = [];
  for (const subset of object.subsets ?? []) {
    const ports = (subset.ports ?? []).map((port) => ({
      name: port.name ?? "",
      port: port.port,
      protocol: port.protocol ?? "TCP",
      ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
    }));
    const all = [
      ...(subset.addresses ?? []).map((address) => endpointOf(address, true)),
      ...(subset.notReadyAddresses ?? []).map((address) => endpointOf(address, false)),
    ].slice(0, maxPerSubset);
    for (const addressType of ["IPv4", "IPv6"] as const satisfies readonly Family[]) {
      const mine = all.filter(({ addresses }) => addresses[0]!.includes(":") === (addressType === "IPv6"));
      if (mine.length > 0) groups.push({ addressType, ports, endpoints: mine });
    }
  }
  return groups;
}

const endpointOf = ({ ip, hostname, nodeName, targetRef }: EndpointAddress, ready: boolean): Endpoint => ({
  addresses: [ip],
  conditions: { ready },
  ...(hostname ? { hostname } : {}),
  ...(nodeName ? { nodeName } : {}),
  ...(targetRef ? { targetRef } : {}),
});

export function createEndpointSliceMirroring(deps: ControllerDeps): RunningService {
  const { client, clock } = deps;
  const serviceStore = deps.informers.informer(services);
  const store = deps.informers.informer(endpoints);
  const sliceStore = deps.informers.informer(endpointSlices);
  const expectations = new Expectations(clock, sliceStore);
  const events = deps.events.as(name);
  const changes = deps.metrics.counter(
    "endpoint_slice_mirroring_controller_changes",
    "Slices written for endpoints made by hand, by operation.",
  );
  const keyOfSlice = (slice: EndpointSlice): string | undefined => {
    const { [serviceNameLabel]: service, [managedByLabel]: manager } = slice.metadata.labels ?? {};
    return service && manager === managedBy ? `${namespaceOf(slice)}/${service}` : undefined;
  };
  sliceStore.addIndex(sliceIndex, (slice) => [keyOfSlice(slice) ?? ""]);

  async function sync(key: string, again: (ms: number) => void): Promise<void> {
    const existing = sliceStore.byIndex(sliceIndex, key).filter((slice) => !isDeleting(slice));
    const object = store.get(key);
    if (!object || isDeleting(object) || !isMirrored(object, serviceStore.get(key))) {
      expectations.forget(key);
      for (const slice of existing) await deleteIfThere(client, endpointSlices, slice);
      return;
    }
    if (!expectations.satisfied(key)) {
      again(lookAgainMs);
      return;
    }
    const labels = { ...object.metadata.labels, [serviceNameLabel]: nameOf(object), [managedByLabel]: managedBy };
    const annotations = Object.fromEntries(
      Object.entries(object.metadata.annotations ?? {}).filter(([each]) => !notCopied.has(each)),
    );
    const plan = planSlices(existing, mirroredGroups(object), labels);
    const say = (reason: string, message: string) =>
      events.record({ resource: endpoints as ResourceInfo, object, type: "Warning", reason, message });
    const skipped = skippedCount(object);
    if (skipped > 0) {
      const rest = `${skipped} addresses were skipped.`;
      const bound = `A max of ${maxPerSubset} addresses can be mirrored to EndpointSlices per Endpoints subset.`;
      say("TooManyAddressesToMirror", `${bound} ${rest}`);
    }
    try {
      for (const content of plan.create) {
        const metadata = {
          generateName: `${splitKey(key).name}-`,
          namespace: namespaceOf(object),
          labels,
          annotations,
          ownerReferences: [controllerReference(endpoints as ResourceInfo, object)],
        };
        const made = { apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", metadata, ...content };
        expectations.created(key, await client.create(endpointSlices, made));
      }
      for (const slice of plan.update) {
        await client.update(endpointSlices, { ...slice, metadata: { ...slice.metadata, annotations } });
      }
      for (const slice of plan.remove) await deleteIfThere(client, endpointSlices, slice);
      const writes = { create: plan.create.length, update: plan.update.length, delete: plan.remove.length };
      for (const [operation, times] of Object.entries(writes)) if (times > 0) changes.add(times, { operation });
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      const message = `Error updating EndpointSlices for ${key} Endpoints: ${messageOf(error)}`;
      say("FailedToUpdateEndpointSlices", message);
      throw error;
    }
    if (!expectations.satisfied(key)) again(lookAgainMs);
  }

  const triggers = [on(store), on(serviceStore), on(sliceStore, (slice) => [keyOfSlice(slice)])];
  return createController({ name, workers: 5, triggers, sync }, deps);
}
