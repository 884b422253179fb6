// Looks after the addresses and ports that services hold: whatever is held twice or lies outside of its range is told to
// the service's owner, who alone can mend it. What is held is read from the services themselves wherever numbers are given
// out, so there is no table to repair. With the feature gate MultiCIDRServiceAllocator ServiceCIDRs say what the ranges are,
// and the IPAddresses beside the services are kept right by ip-addresses.ts. Upstream counterpart: pkg/registry/core/service/{ip,port}allocator/controller.
import { familyOfIp, type IpRange, ipToNumber, offsetIn, parseIpRanges } from "#base/ip-range.ts";
import type { Service as RunningService } from "#base/service.ts";
import type { Service } from "#model/gen/core-v1.ts";
import { isDeleting, keyOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { serviceCidrs, services } from "#model/resources.ts";
import { clusterIpsOf, rangesOf } from "#model/service-addresses.ts";
import { type ControllerDeps, waitFor } from "../runtime/controller.ts";
import { createPeriodicController } from "../runtime/periodic-controller.ts";

export interface ServiceRanges {
  /** One range, or one of each family with a comma between. */
  readonly cidr: string;
  readonly nodePorts: { readonly first: number; readonly last: number };
  /** The feature gate MultiCIDRServiceAllocator: `cidr` is the default ServiceCIDR's only. */
  readonly multiCidr?: boolean;
}

export interface RangeFinding {
  readonly service: Service;
  readonly about: "ip" | "port";
  readonly reason: string;
  readonly message: string;
}

/** Upstream's. */
const periodMs = 180_000;

/** What is wrong, in the order of age: of two that hold the same the younger has to give way. */
export function findRangeFaults(
  all: readonly Service[],
  ranges: readonly IpRange[],
  nodePorts: ServiceRanges["nodePorts"],
): RangeFinding[] {
  const inOrder = [...all].sort((a, b) => (ageOf(a) < ageOf(b) ? -1 : 1));
  const findings: RangeFinding[] = [];
  const ips = new Set<string>();
  const ports = new Set<number>();
  for (const service of inOrder) {
    const { spec } = service;
    for (const ip of clusterIpsOf(service)) {
      const say = (reason: string, what: string) =>
        findings.push({ service, about: "ip", reason, message: `Cluster IP ${what}; please recreate service` });
      const number = ipToNumber(ip);
      if (number === undefined) {
        say("ClusterIPNotValid", `${ip} is not a valid IP`);
        continue;
      }
      const family = familyOfIp(ip);
      const near = ranges.filter((one) => one.family === family);
      const shown = `[${family}]:${ip}`;
      const key = `${family} ${number}`;
      if (near.length === 0) {
        say("ClusterIPNotValid", `${shown} is of an IP family that is no longer configured on cluster`);
      } else if (near.every((range) => offsetIn(range, ip) === undefined)) {
        const where = near.length === 1 ? `the service CIDR ${near[0]!.cidr}` : "any configured Service CIDR";
        say("ClusterIPOutOfRange", `${shown} is not within ${where}`);
      } else if (ips.has(key)) say("ClusterIPAlreadyAllocated", `${shown} was assigned to multiple services`);
      ips.add(key);
    }
    // One number may stand for TCP and UDP of one service.
    const own = new Set((spec.ports ?? []).flatMap(({ nodePort }) => (nodePort ? [nodePort] : [])));
    if (spec.healthCheckNodePort) own.add(spec.healthCheckNodePort);
    for (const port of own) {
      const say = (reason: string, message: string) => findings.push({ service, about: "port", reason, message });
      if (port < nodePorts.first || port > nodePorts.last) {
        const range = `${nodePorts.first}-${nodePorts.last}`;
        say("PortOutOfRange", `Port ${port} is not within the port range ${range}; please recreate service`);
      } else if (ports.has(port)) {
        say("PortAlreadyAllocated", `Port ${port} was assigned to multiple services; please recreate service`);
      }
      ports.add(port);
    }
  }
  return findings;
}

const ageOf = (service: Service): string => `${service.metadata.creationTimestamp ?? ""} ${keyOf(service)}`;

export function createServiceRangeController(deps: ControllerDeps, options: ServiceRanges): RunningService {
  const store = deps.informers.informer(services);
  const cidrs = options.multiCidr ? deps.informers.informer(serviceCidrs) : undefined;
  const ofFlags = parseIpRanges(options.cidr);
  const events = {
    ip: deps.events.as("ipallocator-repair-controller"),
    port: deps.events.as("portallocator-repair-controller"),
  };
  return createPeriodicController(
    {
      name: "service-range-controller",
      periodMs,
      triggers: [waitFor(store), ...(cidrs ? [waitFor(cidrs)] : [])],
      async round() {
        const all = store.list().filter((service) => !isDeleting(service));
        const ranges = cidrs ? cidrs.list().flatMap(rangesOf) : ofFlags;
        for (const { service, about, reason, message } of findRangeFaults(all, ranges, options.nodePorts)) {
          const resource = services as ResourceInfo;
          events[about].record({ resource, object: service, type: "Warning", reason, message });
        }
      },
    },
    deps,
  );
}
