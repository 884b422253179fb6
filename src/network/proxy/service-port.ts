// Services and EndpointSlices reduced to what forwarding needs: one record per service port, with the endpoints that take
// its traffic. IPv4 for now; an IPv6 family is the same function over the other addresses. Pure.
// Upstream counterpart: pkg/proxy servicePort and endpoint types, and CategorizeEndpoints in topology.go.
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
  readonly endpoints: readonly Endpoint[];
}

export const serviceNameLabel = "kubernetes.io/service-name";

const protocols: Readonly<Record<string, ServicePort["protocol"]>> = { TCP: "tcp", UDP: "udp", SCTP: "sctp" };

export interface ServicePortOptions {
  readonly nodeName: string;
  /** Cluster addresses that this node serves itself (DNS); left alone. */
  readonly localServiceIps: ReadonlySet<string>;
}

export function servicePortsOf(
  services: readonly Service[],
  slices: readonly EndpointSlice[],
  options: ServicePortOptions,
): ServicePort[] {
  const byService = new Map<string, EndpointSlice[]>();
  for (const slice of slices) {
    const service = slice.metadata.labels?.[serviceNameLabel];
    if (!service || slice.addressType !== "IPv4") continue;
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
  const { clusterIP, type } = service.spec;
  if (!clusterIP || clusterIP === "None" || type === "ExternalName") return false;
  if (service.metadata.labels?.["service.kubernetes.io/service-proxy-name"] !== undefined) return false;
  return isIpv4(clusterIP) && !options.localServiceIps.has(clusterIP);
}

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
  return {
    id: `${namespaceOf(service)}/${nameOf(service)}/${protocol}/${port.name || port.port}`,
    protocol,
    port: port.port,
    clusterIp: spec.clusterIP ?? "",
    nodePort: port.nodePort || undefined,
    externalIps: (spec.externalIPs ?? []).filter(isIpv4),
    loadBalancerIps: ingress.filter((i) => i.ipMode !== "Proxy" && isIpv4(i.ip ?? "")).map((i) => i.ip ?? ""),
    sourceRanges: (spec.loadBalancerSourceRanges ?? []).map((r) => r.trim()).filter(isIpv4Range),
    affinitySeconds: affinity ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 10_800) : undefined,
    isInternalLocal: spec.internalTrafficPolicy === "Local",
    isExternalLocal: spec.externalTrafficPolicy === "Local",
    endpoints: endpointsOf(port, slices, options.nodeName),
  };
}

/** Ready endpoints; while none is, those that still serve although they are ending. Sorted, so that equal input gives equal rules. */
function endpointsOf(port: ApiServicePort, slices: readonly EndpointSlice[], nodeName: string): Endpoint[] {
  const ready = new Map<string, Endpoint>();
  const ending = new Map<string, Endpoint>();
  for (const slice of slices) {
    for (const slicePort of slice.ports ?? []) {
      if ((slicePort.name ?? "") !== (port.name ?? "") || (slicePort.protocol ?? "TCP") !== (port.protocol ?? "TCP"))
        continue;
      if (!slicePort.port) continue;
      for (const endpoint of slice.endpoints ?? []) {
        const ip = endpoint.addresses?.[0] ?? "";
        if (!isIpv4(ip)) continue;
        const value = { ip, port: slicePort.port, isLocal: endpoint.nodeName === nodeName };
        const key = `${ip}:${slicePort.port}`;
        if (isReady(endpoint)) ready.set(key, value);
        else if (endpoint.conditions?.serving && endpoint.conditions.terminating) ending.set(key, value);
      }
    }
  }
  const chosen = ready.size > 0 ? ready : ending;
  return [...chosen].sort(([a], [b]) => compare(a, b)).map(([, endpoint]) => endpoint);
}

/** An unknown condition counts as ready, as the API says. */
export const isReady = (endpoint: ApiEndpoint): boolean => endpoint.conditions?.ready ?? true;

const octet = "(?:25[0-5]|2[0-4]\\d|1?\\d?\\d)";
const ipv4 = new RegExp(`^(?:${octet}\\.){3}${octet}$`);
const ipv4Range = new RegExp(`^(?:${octet}\\.){3}${octet}/(?:[12]?\\d|3[0-2])$`);

/** Also keeps text out of the nft script that is not an address. */
export const isIpv4 = (text: string): boolean => ipv4.test(text);
const isIpv4Range = (text: string): boolean => ipv4Range.test(text);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
