// The objects that are there before anybody asks, other than access control.
import type { ConfigMap, Endpoints, Namespace, Service } from "#model/gen/core-v1.ts";
import type { EndpointSlice } from "#model/gen/discovery-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";

export const systemNamespaces = (): Namespace[] =>
  ["kube-system", "kube-public", "kube-node-lease", "default"].map(
    (name): Namespace => ({ apiVersion: "v1", kind: "Namespace", metadata: { name }, spec: {} }),
  );

export const priorityClasses = (): PriorityClass[] =>
  [
    {
      name: "system-cluster-critical",
      value: 2_000_000_000,
      what: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    },
    {
      name: "system-node-critical",
      value: 2_000_001_000,
      what: "Used for system critical pods that must not be moved from their current node.",
    },
  ].map(({ name, value, what }) => ({
    apiVersion: "scheduling.k8s.io/v1",
    kind: "PriorityClass",
    metadata: { name },
    value,
    description: what,
  }));

export interface ApiAddress {
  /** Of all servers, at least one. */
  readonly addresses: readonly string[];
  readonly apiPort: number;
  readonly serviceIp: string;
}

/** How pods find the API: the service `kubernetes`, its endpoints and their slice. */
export function kubernetesService(api: ApiAddress): { service: Service; endpoints: Endpoints; slice: EndpointSlice } {
  const name = "kubernetes";
  const namespace = "default";
  // No endpoint may be one; a server that has nothing else is reached by nobody's pods.
  const reachable = api.addresses.filter((address) => address !== "::1" && !address.startsWith("127."));
  const port = { name: "https", port: api.apiPort, protocol: "TCP" };
  const service: Service = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace, labels: { component: "apiserver", provider: "kubernetes" } },
    spec: {
      type: "ClusterIP",
      clusterIP: api.serviceIp,
      clusterIPs: [api.serviceIp],
      ports: [{ name: "https", port: 443, protocol: "TCP", targetPort: api.apiPort }],
      sessionAffinity: "None",
    },
  };
  const endpoints: Endpoints = {
    apiVersion: "v1",
    kind: "Endpoints",
    // Written by the server, together with the slice: nobody else should mirror one into the other.
    metadata: { name, namespace, labels: { "endpointslice.kubernetes.io/skip-mirror": "true" } },
    subsets: reachable.length > 0 ? [{ addresses: reachable.map((ip) => ({ ip })), ports: [port] }] : [],
  };
  const slice: EndpointSlice = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace, labels: { "kubernetes.io/service-name": name } },
    addressType: api.addresses[0]?.includes(":") ? "IPv6" : "IPv4",
    endpoints: reachable.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ports: [port],
  };
  return { service, endpoints, slice };
}

/** What extension servers need to know whom to trust; undefined when nothing is known. */
export function authenticationConfig(options: {
  readonly clientCa?: string;
  readonly requestHeaderCa?: string;
}): ConfigMap | undefined {
  const data: Record<string, string> = {};
  if (options.clientCa) data["client-ca-file"] = options.clientCa;
  if (options.requestHeaderCa) {
    data["requestheader-client-ca-file"] = options.requestHeaderCa;
    data["requestheader-allowed-names"] = '["system:auth-proxy"]';
    data["requestheader-extra-headers-prefix"] = '["X-Remote-Extra-"]';
    data["requestheader-group-headers"] = '["X-Remote-Group"]';
    data["requestheader-username-headers"] = '["X-Remote-User"]';
  }
  if (Object.keys(data).length === 0) return undefined;
  const metadata = { name: "extension-apiserver-authentication", namespace: "kube-system" };
  return { apiVersion: "v1", kind: "ConfigMap", metadata, data };
}
