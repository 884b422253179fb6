// Defaults of services. Cluster IPs, node ports and IP families are allocated later, by the service's strategy.
import type { Service } from "../gen/core-v1.ts";
import { fill } from "./fill.ts";

export function defaultService(service: Service): void {
  const spec = service.spec;
  if (!spec) return;
  fill(spec, { sessionAffinity: "None", type: "ClusterIP" });
  if (spec.sessionAffinity === "None") delete spec.sessionAffinityConfig;
  if (spec.sessionAffinity === "ClientIP" && !spec.sessionAffinityConfig?.clientIP?.timeoutSeconds) {
    spec.sessionAffinityConfig = { clientIP: { timeoutSeconds: 10_800 } };
  }
  for (const port of spec.ports ?? []) {
    fill(port, { protocol: "TCP" });
    if (!port.targetPort) port.targetPort = port.port;
  }
  const type = spec.type ?? "ClusterIP";
  const isExternal =
    type === "NodePort" || type === "LoadBalancer" || (type === "ClusterIP" && (spec.externalIPs ?? []).length > 0);
  if (isExternal) fill(spec, { externalTrafficPolicy: "Cluster" });
  if (type !== "ExternalName") fill(spec, { internalTrafficPolicy: "Cluster" });
  if (type === "LoadBalancer") fill(spec, { allocateLoadBalancerNodePorts: true });
}
