// The cluster as the zone sees it, read from informers at the moment of the question: nothing is copied or precomputed.
import { canonicalIp } from "#base/ip-range.ts";
import type { InformerFactory } from "#client/informer.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import { nameOf, namespaceOf } from "#model/object.ts";
import { endpointSlices, namespaces, nodes, services } from "#model/resources.ts";
import type { ClusterView, ZoneEndpoint, ZonePort, ZoneService } from "./cluster-zone.ts";
import { hostLabel } from "./cluster-zone.ts";

const serviceNameLabel = "kubernetes.io/service-name";
const byService = "dns-service";
const byAddress = "dns-address";

export interface InformerView extends ClusterView {
  whenSynced(signal: AbortSignal): Promise<void>;
  /** Calls `onChange` for whatever may change an answer; returns the way out. */
  watch(onChange: () => void): () => void;
}

export function createInformerView(informers: InformerFactory): InformerView {
  const serviceInformer = informers.informer(services);
  const sliceInformer = informers.informer(endpointSlices);
  const namespaceInformer = informers.informer(namespaces);
  const nodeInformer = informers.informer(nodes);
  const canonical = (addresses: readonly string[]) => [...new Set(addresses.map((one) => canonicalIp(one) ?? one))];
  serviceInformer.addIndex(byAddress, (service) => canonical(clusterIpsOf(service)));
  sliceInformer.addIndex(byService, (slice) => {
    const service = slice.metadata.labels?.[serviceNameLabel];
    return service ? [`${namespaceOf(slice)}/${service}`] : [];
  });
  sliceInformer.addIndex(byAddress, (slice) => canonical((slice.endpoints ?? []).flatMap((e) => e.addresses ?? [])));

  const endpointsOf = (key: string): ZoneEndpoint[] => {
    const out = new Map<string, ZoneEndpoint>();
    for (const slice of sliceInformer.byIndex(byService, key)) {
      for (const endpoint of endpointsOfSlice(slice)) {
        const known = out.get(endpoint.address);
        out.set(endpoint.address, known ? { ...known, ports: [...known.ports, ...endpoint.ports] } : endpoint);
      }
    }
    return [...out.values()];
  };

  return {
    hasNamespace: (namespace) => namespaceInformer.get(namespace) !== undefined,
    service(namespace, name): ZoneService | undefined {
      const service = serviceInformer.get(`${namespace}/${name}`);
      if (!service) return undefined;
      const { spec } = service;
      if (spec.type === "ExternalName")
        return { kind: "external", target: (spec.externalName ?? "").replace(/\.$/, "") };
      if (spec.clusterIP === "None") return { kind: "headless", endpoints: endpointsOf(`${namespace}/${name}`) };
      const ports = (spec.ports ?? []).map((p) => zonePort(p.name, p.protocol, p.port));
      return { kind: "clusterIp", addresses: clusterIpsOf(service), ports };
    },
    namesOf(address) {
      const names = serviceInformer
        .byIndex(byAddress, address)
        .map((service) => `${nameOf(service)}.${namespaceOf(service)}.svc`);
      if (names.length > 0) return names;
      const out = new Set<string>();
      for (const slice of sliceInformer.byIndex(byAddress, address)) {
        const service = slice.metadata.labels?.[serviceNameLabel];
        if (!service) continue;
        for (const endpoint of endpointsOfSlice(slice)) {
          if ((canonicalIp(endpoint.address) ?? endpoint.address) !== address) continue;
          // Without a host name the dashed address only exists below headless services; upstream names it all the same.
          out.add(`${hostLabel(endpoint)}.${service}.${namespaceOf(slice)}.svc`);
        }
      }
      return [...out];
    },
    nodeAddresses(name) {
      const node = nodeInformer.get(name);
      return (node?.status?.addresses ?? []).filter((a) => a.type === "InternalIP").map((a) => a.address);
    },
    async whenSynced(signal) {
      const all = [serviceInformer, sliceInformer, namespaceInformer, nodeInformer];
      await Promise.all(all.map((informer) => informer.whenSynced(signal)));
    },
    watch(onChange) {
      const handler = { add: onChange, update: onChange, delete: onChange };
      const removers = [serviceInformer.addHandler(handler), sliceInformer.addHandler(handler)];
      return () => {
        for (const remove of removers) remove();
      };
    },
  };
}

function clusterIpsOf({ spec }: Service): string[] {
  const all = spec.clusterIPs && spec.clusterIPs.length > 0 ? spec.clusterIPs : [spec.clusterIP ?? ""];
  return all.filter((ip) => ip !== "" && ip !== "None");
}

function endpointsOfSlice(slice: EndpointSlice): ZoneEndpoint[] {
  if (slice.addressType === "FQDN") return [];
  const ports = (slice.ports ?? []).flatMap((p) => (p.port ? [zonePort(p.name, p.protocol, p.port)] : []));
  return (slice.endpoints ?? []).flatMap((endpoint): ZoneEndpoint[] => {
    const address = endpoint.addresses?.[0];
    if (!address || endpoint.conditions?.ready === false) return [];
    return [{ address, hostname: endpoint.hostname || undefined, ports }];
  });
}

const zonePort = (name: string | undefined, protocol: string | undefined, port: number): ZonePort => ({
  name: name ?? "",
  protocol: (protocol ?? "TCP").toLowerCase(),
  port,
});
