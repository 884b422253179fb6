// What is to be done about the addresses of a service and about an IPAddress of ours, so that in the end there is one of
// these for each of those. Two services with one address are not mended here: ranges.ts tells the younger. Pure.
// Upstream counterpart: pkg/registry/core/service/ipallocator/controller/repairip.go.
import { canonicalIp, familyOfIp } from "#base/ip-range.ts";
import type { Service } from "#model/gen/core-v1.ts";
import type { IPAddress } from "#model/gen/networking-v1beta1.ts";
import { keyOf, nameOf } from "#model/object.ts";
import { clusterIpsOf, hasRightLabels, isOurs, serviceKeyOf } from "#model/service-addresses.ts";

/** While a service is being written its address is there and it is not. Upstream's: the longest a request may take. */
export const graceMs = 60_000;

export interface Told {
  readonly reason: string;
  readonly message: string;
}

export type ClusterIpStep =
  | { readonly do: "nothing" }
  /** `instead` of the address that is there. */
  | { readonly do: "make"; readonly instead?: IPAddress; readonly told?: Told };

export const holdsIp = (service: Service, name: string): boolean =>
  clusterIpsOf(service).some((ip) => canonicalIp(ip) === name);

/** `ip`: one of the service's. `owner`: the service that the address names, if it is there. */
export function planClusterIp(
  service: Service,
  ip: string,
  address: IPAddress | undefined,
  owner: Service | undefined,
): ClusterIpStep {
  const reason = "ClusterIPNotAllocated";
  const shown = `[${familyOfIp(ip)}]: ${canonicalIp(ip) ?? ip}`;
  if (!address) return { do: "make", told: { reason, message: `Cluster IP ${shown} is not allocated; repairing` } };
  if (serviceKeyOf(address) === keyOf(service)) {
    return hasRightLabels(address) ? { do: "nothing" } : { do: "make", instead: address };
  }
  if (owner && holdsIp(owner, nameOf(address))) return { do: "nothing" };
  const message = `the ClusterIP ${shown} for Service ${keyOf(service)} has a wrong reference; repairing`;
  return { do: "make", instead: address, told: { reason, message } };
}

export type AddressStep =
  | { readonly do: "nothing" }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "remove"; readonly told: Told };

/** `owner`: the service that it names, if it is there. */
export function planAddress(address: IPAddress, owner: Service | undefined, nowMs: number): AddressStep {
  // Those of others are theirs to look after.
  if (!isOurs(address)) return { do: "nothing" };
  const name = nameOf(address);
  const ownerKey = serviceKeyOf(address);
  if (ownerKey === undefined) {
    const parent = JSON.stringify(address.spec?.parentRef ?? {});
    const message = `IPAddress ${name} appears to have been modified, not referencing a Service ${parent}: cleaning up`;
    return { do: "remove", told: { reason: "IPAddressNotAllocated", message } };
  }
  if (owner && holdsIp(owner, name)) return { do: "nothing" };
  const ms = Date.parse(address.metadata.creationTimestamp ?? "") + graceMs - nowMs;
  if (ms > 0) return { do: "wait", ms };
  const about = `IPAddress: ${name} for Service ${ownerKey}`;
  const told = owner
    ? { reason: "IPAddressWrongReference", message: `${about} has a wrong reference; cleaning up` }
    : { reason: "IPAddressNotAllocated", message: `${about} appears to have leaked: cleaning up` };
  return { do: "remove", told };
}
