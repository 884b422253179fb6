// Which endpoints a service has, and how they are laid out in EndpointSlices and in the older Endpoints object. Pure.
// Upstream counterpart: staging/src/k8s.io/endpointslice and pkg/controller/endpoint.
import type { Container, EndpointSubset, Endpoints, Pod, Service } from "#model/gen/core-v1.ts";
import type { Endpoint, EndpointPort, EndpointSlice } from "#model/gen/discovery-v1.ts";
import { isDeleting, nameOf, namespaceOf, uidOf } from "#model/object.ts";
import { canonicalJson, isEqual } from "../runtime/equal.ts";
import { isPodFinished, isPodReady } from "../runtime/pods.ts";
import { planHints, wantsTopologyHints, type ZoneShares } from "./hints.ts";

export const serviceNameLabel = "kubernetes.io/service-name";
export const managedByLabel = "endpointslice.kubernetes.io/managed-by";
export const managedBy = "endpointslice-controller.k8s.io";
const headlessLabel = "service.kubernetes.io/headless";
export const lastChangeAnnotation = "endpoints.kubernetes.io/last-change-trigger-time";
/** Upstream's default for --max-endpoints-per-slice. */
export const maxPerSlice = 100;
/** Addresses in one Endpoints object; what is beyond is only in the slices. */
const maxPerEndpoints = 1000;

export type Family = "IPv4" | "IPv6";
const familyOf = (address: string): Family => (address.includes(":") ? "IPv6" : "IPv4");
export const isHeadless = (service: Service): boolean => service.spec.clusterIP === "None";
/** Without selector somebody else writes the endpoints; ExternalName has none. */
export const isManaged = (service: Service): boolean =>
  service.spec.type !== "ExternalName" && Object.keys(service.spec.selector ?? {}).length > 0;

export function familiesOf(service: Service): readonly Family[] {
  const named = service.spec.ipFamilies as readonly Family[] | undefined;
  if (named && named.length > 0) return named;
  const address = service.spec.clusterIP;
  return [address && address !== "None" ? familyOf(address) : "IPv4"];
}

function addressOf(pod: Pod, family: Family): string | undefined {
  const all = pod.status?.podIPs?.map((p) => p.ip ?? "") ?? [];
  return [...all, pod.status?.podIP ?? ""].find((ip) => ip !== "" && familyOf(ip) === family);
}

/** The number behind a service port in this pod; undefined where the pod has no port of that name. */
function targetPort(pod: Pod, port: NonNullable<Service["spec"]["ports"]>[number]): number | undefined {
  const target = port.targetPort ?? port.port;
  if (typeof target === "number") return target === 0 ? port.port : target;
  const restartable = (pod.spec.initContainers ?? []).filter((c: Container) => c.restartPolicy === "Always");
  for (const container of [...pod.spec.containers, ...restartable]) {
    for (const p of container.ports ?? []) {
      if (p.name === target && (p.protocol ?? "TCP") === (port.protocol ?? "TCP")) return p.containerPort;
    }
  }
  return undefined;
}

function portsOf(service: Service, pod: Pod): EndpointPort[] {
  const out: EndpointPort[] = [];
  for (const port of service.spec.ports ?? []) {
    const number = targetPort(pod, port);
    if (number === undefined) continue;
    out.push({
      name: port.name ?? "",
      port: number,
      protocol: port.protocol ?? "TCP",
      ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
    });
  }
  return out;
}

/** A pod's own DNS name under a headless service. */
const hostNameOf = (service: Service, pod: Pod): string | undefined =>
  pod.spec.hostname && pod.spec.subdomain === nameOf(service) ? pod.spec.hostname : undefined;

/** Desired endpoints that share address family and ports. */
export interface Group {
  readonly addressType: Family;
  readonly ports: readonly EndpointPort[];
  readonly endpoints: readonly Endpoint[];
}

export function desiredGroups(
  service: Service,
  pods: readonly Pod[],
  zoneOf: (nodeName: string) => string | undefined,
): Group[] {
  const publishesAll = service.spec.publishNotReadyAddresses === true;
  const isClose = service.spec.trafficDistribution === "PreferClose" && !wantsTopologyHints(service);
  const groups = new Map<string, { addressType: Family; ports: EndpointPort[]; endpoints: Endpoint[] }>();
  for (const addressType of familiesOf(service)) {
    let hasAny = false;
    for (const pod of pods) {
      const address = addressOf(pod, addressType);
      if (address === undefined || isPodFinished(pod)) continue;
      const ports = portsOf(service, pod);
      const isReady = isPodReady(pod);
      const nodeName = pod.spec.nodeName;
      const zone = nodeName ? zoneOf(nodeName) : undefined;
      const hostname = hostNameOf(service, pod);
      const endpoint: Endpoint = {
        addresses: [address],
        conditions: {
          ready: publishesAll || (isReady && !isDeleting(pod)),
          serving: isReady,
          terminating: isDeleting(pod),
        },
        ...(hostname ? { hostname } : {}),
        targetRef: { kind: "Pod", name: nameOf(pod), namespace: namespaceOf(pod), uid: uidOf(pod) },
        ...(nodeName ? { nodeName } : {}),
        ...(zone ? { zone } : {}),
        // What is close is the zone; who is asked from elsewhere, or knows no zone, takes any.
        ...(zone && isClose ? { hints: { forZones: [{ name: zone }] } } : {}),
      };
      const key = addressType + canonicalJson(ports);
      const group = groups.get(key) ?? { addressType, ports, endpoints: [] };
      groups.set(key, group);
      group.endpoints.push(endpoint);
      hasAny = true;
    }
    // One empty slice says "nobody is there", which is different from "nobody has looked yet".
    if (!hasAny) groups.set(addressType, { addressType, ports: [], endpoints: [] });
  }
  return [...groups.values()];
}

/** What became of the hints of one address family. */
export interface HintNews {
  readonly addressType: Family;
  readonly had: boolean;
  /** Why there are none. */
  readonly problem: string | undefined;
}

/** `groups` with hints by the shares of the zones; what `existing` slices say stays where it is still fair. */
export function withTopologyHints(
  groups: readonly Group[],
  existing: readonly EndpointSlice[],
  shares: ZoneShares | undefined,
): { readonly groups: readonly Group[]; readonly news: readonly HintNews[] } {
  const before = new Map<string, string>();
  for (const slice of existing) {
    for (const endpoint of slice.endpoints ?? []) {
      const zone = endpoint.hints?.forZones?.[0]?.name;
      if (zone !== undefined) before.set(identityOf(endpoint), zone);
    }
  }
  const news: HintNews[] = [];
  const hinted = new Map<Endpoint, Endpoint>();
  for (const addressType of new Set(groups.map((group) => group.addressType))) {
    const all = groups.filter((group) => group.addressType === addressType).flatMap((group) => group.endpoints);
    const known = all.map((endpoint) => before.get(identityOf(endpoint)));
    const plan = planHints(all, known, shares);
    news.push({ addressType, had: known.some((zone) => zone !== undefined), problem: plan.problem });
    if (plan.problem !== undefined) continue;
    for (const [i, endpoint] of all.entries()) {
      const zone = plan.zones[i];
      if (zone !== undefined) hinted.set(endpoint, { ...endpoint, hints: { forZones: [{ name: zone }] } });
    }
  }
  return {
    groups: groups.map((group) => ({ ...group, endpoints: group.endpoints.map((one) => hinted.get(one) ?? one) })),
    news,
  };
}

/** Labels of a slice: the service's own and ours. */
export function sliceLabels(service: Service): Readonly<Record<string, string>> {
  const { [headlessLabel]: _, ...labels } = service.metadata.labels ?? {};
  return {
    ...labels,
    ...(isHeadless(service) ? { [headlessLabel]: "" } : {}),
    [serviceNameLabel]: nameOf(service),
    [managedByLabel]: managedBy,
  };
}

export type SliceContent = Pick<EndpointSlice, "addressType" | "ports" | "endpoints">;
export interface SlicePlan {
  readonly create: readonly SliceContent[];
  readonly update: readonly EndpointSlice[];
  readonly remove: readonly EndpointSlice[];
}

/**
 * Keeps endpoints in the slice where they are, fills what has room before making new slices, and drops slices that
 * became empty, so that one changed pod rewrites one slice.
 */
export function planSlices(
  existing: readonly EndpointSlice[],
  groups: readonly Group[],
  labels: Readonly<Record<string, string>>,
): SlicePlan {
  const create: SliceContent[] = [];
  const update: EndpointSlice[] = [];
  const remove: EndpointSlice[] = [];
  const free = new Set(existing);
  for (const group of groups) {
    const mine = [...free].filter((s) => s.addressType === group.addressType && isEqual(s.ports ?? [], group.ports));
    for (const slice of mine) free.delete(slice);
    const wanted = new Map(group.endpoints.map((e) => [identityOf(e), e]));
    const kept = mine.map((slice) => {
      const endpoints: Endpoint[] = [];
      for (const old of slice.endpoints ?? []) {
        const now = wanted.get(identityOf(old));
        if (!now) continue;
        endpoints.push(now);
        wanted.delete(identityOf(old));
      }
      return { slice, endpoints };
    });
    // Changed slices take new endpoints first: they are written anyway.
    const rest = [...wanted.values()];
    const isTouched = (k: { slice: EndpointSlice; endpoints: Endpoint[] }) =>
      !isEqual(k.slice.endpoints ?? [], k.endpoints);
    for (const k of [...kept].sort((a, b) => Number(isTouched(b)) - Number(isTouched(a)))) {
      if (rest.length === 0) break;
      k.endpoints.push(...rest.splice(0, Math.max(0, maxPerSlice - k.endpoints.length)));
    }
    while (rest.length > 0) create.push({ ...shapeOf(group), endpoints: rest.splice(0, maxPerSlice) });
    const full = kept.filter((k) => k.endpoints.length > 0);
    const isPlaceholderNeeded = group.endpoints.length === 0;
    const placeholder = isPlaceholderNeeded ? kept[0] : undefined;
    for (const k of kept) {
      if (!full.includes(k) && k !== placeholder) remove.push(k.slice);
      else if (isTouched(k) || !isEqual(k.slice.metadata.labels ?? {}, labels)) {
        const metadata = { ...k.slice.metadata, labels: { ...labels } };
        update.push({ ...k.slice, metadata, endpoints: k.endpoints });
      }
    }
    if (isPlaceholderNeeded && kept.length === 0) create.push({ ...shapeOf(group), endpoints: [] });
  }
  remove.push(...free);
  return { create, update, remove };
}

const shapeOf = (group: Group) => ({ addressType: group.addressType, ports: [...group.ports] });
/** The same pod at the same address is the same endpoint. */
const identityOf = (endpoint: Endpoint): string => `${endpoint.addresses[0]}|${endpoint.targetRef?.uid ?? ""}`;

/** The subsets of the Endpoints object: one per set of ports, ready and unready addresses apart, both sorted. */
export function desiredSubsets(
  service: Service,
  pods: readonly Pod[],
): { readonly subsets: EndpointSubset[]; readonly isTruncated: boolean } {
  const publishesAll = service.spec.publishNotReadyAddresses === true;
  const family = familiesOf(service)[0] ?? "IPv4";
  const found = new Map<string, { ports: EndpointPort[]; ready: Pod[]; notReady: Pod[] }>();
  for (const pod of pods) {
    if (addressOf(pod, family) === undefined || isPodFinished(pod)) continue;
    if (isDeleting(pod) && !publishesAll) continue;
    const ports = portsOf(service, pod);
    if (ports.length === 0 && !isHeadless(service)) continue;
    const key = canonicalJson(ports);
    const group = found.get(key) ?? { ports, ready: [], notReady: [] };
    found.set(key, group);
    (publishesAll || isPodReady(pod) ? group.ready : group.notReady).push(pod);
  }
  let room = maxPerEndpoints;
  let isTruncated = false;
  const take = (list: readonly Pod[]) => {
    const addresses = list.map((pod) => {
      const hostname = hostNameOf(service, pod);
      return {
        ip: addressOf(pod, family)!,
        ...(hostname ? { hostname } : {}),
        ...(pod.spec.nodeName ? { nodeName: pod.spec.nodeName } : {}),
        targetRef: { kind: "Pod", namespace: namespaceOf(pod), name: nameOf(pod), uid: uidOf(pod) },
      };
    });
    addresses.sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.targetRef.uid < b.targetRef.uid ? -1 : 1));
    if (addresses.length > room) isTruncated = true;
    const taken = addresses.slice(0, room);
    room -= taken.length;
    return taken;
  };
  const keys = [...found.keys()].sort();
  const ready = new Map(keys.map((key) => [key, take(found.get(key)!.ready)]));
  const subsets = keys.map((key): EndpointSubset => {
    const addresses = ready.get(key)!;
    const notReadyAddresses = take(found.get(key)!.notReady);
    const ports = [...found.get(key)!.ports].sort((a, b) => (canonicalJson(a) < canonicalJson(b) ? -1 : 1));
    return {
      ...(addresses.length > 0 ? { addresses } : {}),
      ...(notReadyAddresses.length > 0 ? { notReadyAddresses } : {}),
      ...(ports.length > 0
        ? { ports: ports.map((p) => ({ ...p, ...(p.name === "" ? { name: undefined } : {}) })) }
        : {}),
    } as EndpointSubset;
  });
  return { subsets: subsets.filter((s) => s.addresses || s.notReadyAddresses), isTruncated };
}

/** Labels of the Endpoints object: the service's and the headless mark. */
export function endpointsLabels(service: Service): Readonly<Record<string, string>> {
  const { [headlessLabel]: _, ...labels } = service.metadata.labels ?? {};
  return isHeadless(service) ? { ...labels, [headlessLabel]: "" } : labels;
}

export const isSameEndpoints = (a: Endpoints, b: Endpoints): boolean =>
  isEqual(a.subsets ?? [], b.subsets ?? []) && isEqual(a.metadata.labels ?? {}, b.metadata.labels ?? {});
