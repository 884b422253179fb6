// Services and EndpointSlices reduced to what forwarding needs: one record per service port, with the endpoints that take
// its traffic. One family at a time: a service with both is two records in two tables. Every address is spelled as the
// kernel does, and text that is none never gets here. Pure.
// Upstream counterpart: pkg/proxy servicePort and endpoint types, and CategorizeEndpoints in topology.go.
import { canonicalIp, familyOfIp, type IpFamily, ipAt, parseIpRange } from "#base/ip-range.ts";
import type { ServicePort as ApiServicePort, Service } from "#model/gen/core-v1.ts";
import type { Endpoint as ApiEndpoint, EndpointSlice } from "#model/gen/discovery-v1.ts";
import { keyOf, nameOf, namespaceOf } from "#model/object.ts";

export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  readonly isLocal: boolean;
}

export interface ServicePort {
  /** `namespace/service/protocol/port-name-or-number`: unique, and fit for an nftables name. */
  readonly id: string;
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly port: number;
  readonly clusterIp: string;
  readonly nodePort: number | undefined;
  /** External IPs and the load balancer's. */
  readonly externalIps: readonly string[];
  readonly loadBalancerIps: readonly string[];
  readonly sourceRanges: readonly string[];
  readonly affinitySeconds: number | undefined;
  readonly isInternalLocal: boolean;
  readonly isExternalLocal: boolean;
  /** Those that clients here are sent to: of the whole cluster, or of this node's zone where hints say so. */
  readonly endpoints: readonly Endpoint[];
  /** Those on this node, for where the policy is Local: they may be ending while others elsewhere are ready. */
  readonly localEndpoints: readonly Endpoint[];
}

export const serviceNameLabel = "kubernetes.io/service-name";

const protocols: Readonly<Record<string, ServicePort["protocol"]>> = { TCP: "tcp", UDP: "udp", SCTP: "sctp" };

export interface ServicePortOptions {
  readonly family: IpFamily;
  readonly nodeName: string;
  /** Cluster addresses that this node serves itself (DNS); left alone. */
  readonly localServiceIps: ReadonlySet<string>;
  /** topology.kubernetes.io/zone of this node; without one hints are passed over. */
  readonly zone?: string | undefined;
}

export function servicePortsOf(
  services: readonly Service[],
  slices: readonly EndpointSlice[],
  options: ServicePortOptions,
): ServicePort[] {
  const byService = new Map<string, EndpointSlice[]>();
  for (const slice of slices) {
    const service = slice.metadata.labels?.[serviceNameLabel];
    if (!service || slice.addressType !== options.family) continue;
    const key = `${namespaceOf(slice)}/${service}`;
    const list = byService.get(key);
    if (list) list.push(slice);
    else byService.set(key, [slice]);
  }
  const out: ServicePort[] = [];
  for (const service of [...services].sort((a, b) => compare(keyOf(a), keyOf(b)))) {
    if (!isForwarded(service, options)) continue;
    for (const port of service.spec.ports ?? []) {
      const reduced = reduce(service, port, byService.get(keyOf(service)) ?? [], options);
      if (reduced) out.push(reduced);
    }
  }
  return out;
}

export function isForwarded(service: Service, options: ServicePortOptions): boolean {
  if (service.spec.type === "ExternalName") return false;
  if (service.metadata.labels?.["service.kubernetes.io/service-proxy-name"] !== undefined) return false;
  const clusterIp = clusterIpOf(service.spec, options.family);
  return clusterIp !== undefined && !options.localServiceIps.has(clusterIp);
}

/** Of a service with two families either may be the first. */
const clusterIpOf = ({ clusterIP = "", clusterIPs = [] }: Service["spec"], family: IpFamily): string | undefined =>
  ofFamily([clusterIP, ...clusterIPs], family)[0];

function reduce(
  service: Service,
  port: ApiServicePort,
  slices: readonly EndpointSlice[],
  options: ServicePortOptions,
): ServicePort | undefined {
  const protocol = protocols[port.protocol ?? "TCP"];
  if (!protocol) return undefined;
  const { spec, status } = service;
  const ingress = status?.loadBalancer?.ingress ?? [];
  const affinity = spec.sessionAffinity === "ClientIP";
  const { family } = options;
  return {
    id: `${namespaceOf(service)}/${nameOf(service)}/${protocol}/${port.name || port.port}`,
    protocol,
    port: port.port,
    clusterIp: clusterIpOf(spec, family) ?? "",
    nodePort: port.nodePort || undefined,
    externalIps: ofFamily(spec.externalIPs ?? [], family),
    loadBalancerIps: ofFamily(
      ingress.flatMap(({ ip, ipMode }) => (ipMode === "Proxy" ? [] : (ip ?? ""))),
      family,
    ),
    sourceRanges: rangesOf(spec.loadBalancerSourceRanges ?? [], family),
    affinitySeconds: affinity ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 10_800) : undefined,
    isInternalLocal: spec.internalTrafficPolicy === "Local",
    isExternalLocal: spec.externalTrafficPolicy === "Local",
    ...endpointsOf(port, slices, options),
  };
}

interface Candidate {
  readonly endpoint: Endpoint;
  readonly zones: readonly string[];
}

/**
 * Ready endpoints; while none is, those that still serve although they are ending. Each list decides for itself. Sorted,
 * so that equal input gives equal rules.
 */
function endpointsOf(
  port: ApiServicePort,
  slices: readonly EndpointSlice[],
  options: ServicePortOptions,
): Pick<ServicePort, "endpoints" | "localEndpoints"> {
  const ready = new Map<string, Candidate>();
  const ending = new Map<string, Candidate>();
  for (const slice of slices) {
    for (const slicePort of slice.ports ?? []) {
      if ((slicePort.name ?? "") !== (port.name ?? "") || (slicePort.protocol ?? "TCP") !== (port.protocol ?? "TCP"))
        continue;
      if (!slicePort.port) continue;
      for (const endpoint of slice.endpoints ?? []) {
        const [ip] = ofFamily(endpoint.addresses?.slice(0, 1) ?? [], options.family);
        if (ip === undefined) continue;
        const isLocal = endpoint.nodeName === options.nodeName;
        const zones = (endpoint.hints?.forZones ?? []).map(({ name }) => name);
        const candidate = { endpoint: { ip, port: slicePort.port, isLocal }, zones };
        const key = `${ip}:${slicePort.port}`;
        if (isReady(endpoint)) ready.set(key, candidate);
        else if (endpoint.conditions?.serving && endpoint.conditions.terminating) ending.set(key, candidate);
      }
    }
  }
  const inOrder = (of: ReadonlyMap<string, Candidate>) =>
    [...of].sort(([a], [b]) => compare(a, b)).map(([, candidate]) => candidate);
  const localOf = (of: readonly Candidate[]) => of.map(({ endpoint }) => endpoint).filter(({ isLocal }) => isLocal);
  const [allReady, allEnding] = [inOrder(ready), inOrder(ending)];
  const localReady = localOf(allReady);
  const chosen = allReady.length > 0 ? nearby(allReady, options.zone) : allEnding;
  return {
    endpoints: chosen.map(({ endpoint }) => endpoint),
    localEndpoints: localReady.length > 0 ? localReady : localOf(allEnding),
  };
}

/** Those for clients in this zone, where every one says which zones it is for and one of them is for this. */
function nearby(ready: readonly Candidate[], zone: string | undefined): readonly Candidate[] {
  if (zone === undefined || ready.some(({ zones }) => zones.length === 0)) return ready;
  const near = ready.filter(({ zones }) => zones.includes(zone));
  return near.length > 0 ? near : ready;
}

/** An unknown condition counts as ready, as the API says. */
export const isReady = (endpoint: ApiEndpoint): boolean => endpoint.conditions?.ready ?? true;

/** Those of the family, as the kernel spells them. Keeps text out of the nft script that is no address. */
const ofFamily = (addresses: readonly string[], family: IpFamily): string[] =>
  addresses.flatMap((text) => (familyOfIp(text) === family ? (canonicalIp(text) ?? []) : []));

function rangesOf(texts: readonly string[], family: IpFamily): string[] {
  return texts.flatMap((text) => {
    const range = parseIpRange(text.trim());
    return range?.family === family ? `${ipAt(range, 0)}${range.cidr.slice(range.cidr.indexOf("/"))}` : [];
  });
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
