// ServiceCIDR and IPAddress as both who gives addresses out (the API server) and who looks after them (controllers) see
// them. Upstream counterpart: pkg/api/servicecidr and the constants of networking/v1beta1.
import { canonicalIp, familyOfIp, type IpRange, parseIpRange } from "#base/ip-range.ts";
import type { Service } from "./gen/core-v1.ts";
import type { Condition } from "./gen/meta-v1.ts";
import type { IPAddress, ServiceCIDR } from "./gen/networking-v1beta1.ts";
import { isDeleting, nameOf, namespaceOf } from "./object.ts";

/** Made from the server's flags. */
export const defaultServiceCidrName = "kubernetes";
const familyLabel = "ipaddress.kubernetes.io/ip-family";
export const managedByLabel = "ipaddress.kubernetes.io/managed-by";
export const managedBy = "ipallocator.k8s.io";

export const defaultServiceCidr = (cidrs: readonly string[]): ServiceCIDR => ({
  apiVersion: "networking.k8s.io/v1beta1",
  kind: "ServiceCIDR",
  metadata: { name: defaultServiceCidrName },
  spec: { cidrs: [...cidrs] },
});

/** The address of a service; `ip` in any form. */
export const addressFor = (ip: string, service: Service): IPAddress => ({
  apiVersion: "networking.k8s.io/v1beta1",
  kind: "IPAddress",
  metadata: {
    name: canonicalIp(ip) ?? ip,
    labels: { [familyLabel]: familyOfIp(ip), [managedByLabel]: managedBy },
  },
  spec: { parentRef: { group: "", resource: "services", namespace: namespaceOf(service), name: nameOf(service) } },
});

export const isOurs = ({ metadata }: IPAddress): boolean => metadata.labels?.[managedByLabel] === managedBy;
export const hasRightLabels = (address: IPAddress): boolean =>
  isOurs(address) && address.metadata.labels?.[familyLabel] === familyOfIp(nameOf(address));

/** `namespace/name` of the service that holds the address; undefined where no service does. */
export function serviceKeyOf({ spec }: IPAddress): string | undefined {
  const parent = spec?.parentRef;
  if (!parent || (parent.group ?? "") !== "" || parent.resource !== "services") return undefined;
  return `${parent.namespace ?? ""}/${parent.name ?? ""}`;
}

/** Without those of headless services and of names. */
export function clusterIpsOf({ spec }: Service): readonly string[] {
  if (!spec || spec.type === "ExternalName") return [];
  const ips = spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : []);
  return ips.filter((ip) => ip !== "" && ip !== "None");
}

export const rangesOf = ({ spec }: ServiceCIDR): IpRange[] =>
  (spec?.cidrs ?? []).flatMap((cidr) => parseIpRange(cidr) ?? []);

export const readyOf = ({ status }: ServiceCIDR): Condition | undefined =>
  status?.conditions?.find(({ type }) => type === "Ready");

/** Whether addresses may be taken from it; one that nobody has judged yet counts as ready, as upstream. */
export const isReady = (object: ServiceCIDR): boolean =>
  !isDeleting(object) && (readyOf(object)?.status ?? "True") === "True";
