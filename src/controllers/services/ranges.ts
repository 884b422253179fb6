// Looks after the addresses and ports that services hold: whatever is held twice or lies outside of its range is told to
// the service's owner, who alone can mend it. What is held is read from the services themselves wherever numbers are given
// out, so there is no table to repair. Upstream counterpart: pkg/registry/core/service/{ip,port}allocator/controller.
import type { Service as RunningService } from "#base/service.ts";
import type { Service } from "#model/gen/core-v1.ts";
import { isDeleting, keyOf } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { services } from "#model/resources.ts";
import { type ControllerDeps, waitFor } from "../runtime/controller.ts";
import { createPeriodicController } from "../runtime/periodic-controller.ts";

export interface ServiceRanges {
  /** IPv4. */
  readonly cidr: string;
  readonly nodePorts: { readonly first: number; readonly last: number };
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
export function findRangeFaults(all: readonly Service[], { cidr, nodePorts }: ServiceRanges): RangeFinding[] {
  const inOrder = [...all].sort((a, b) => (ageOf(a) < ageOf(b) ? -1 : 1));
  const findings: RangeFinding[] = [];
  const ips = new Set<string>();
  const ports = new Set<number>();
  const isInside = insideOf(cidr);
  for (const service of inOrder) {
    const { spec } = service;
    const addresses = spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : []);
    for (const ip of spec.type === "ExternalName" ? [] : addresses) {
      if (ip === "" || ip === "None" || ip.includes(":")) continue;
      const say = (reason: string, message: string) => findings.push({ service, about: "ip", reason, message });
      if (Number.isNaN(numberOf(ip))) {
        say("ClusterIPNotValid", `Cluster IP ${ip} is not a valid IP; please recreate service`);
      } else if (!isInside(ip)) {
        const text = `Cluster IP [IPv4]:${ip} is not within the service CIDR ${cidr}; please recreate service`;
        say("ClusterIPOutOfRange", text);
      } else if (ips.has(ip)) {
        const text = `Cluster IP [IPv4]:${ip} was assigned to multiple services; please recreate service`;
        say("ClusterIPAlreadyAllocated", text);
      }
      ips.add(ip);
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

const octet = /^(?:0|[1-9]\d{0,2})$/;
/** NaN where it is no dotted quad. */
function numberOf(address: string): number {
  const parts = address.split(".");
  if (parts.length !== 4 || !parts.every((part) => octet.test(part) && Number(part) <= 255)) return Number.NaN;
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}

function insideOf(cidr: string): (address: string) => boolean {
  const [base = "", bits = "32"] = cidr.split("/");
  const size = 2 ** (32 - Number(bits));
  const network = Math.floor(numberOf(base) / size);
  return (address) => Math.floor(numberOf(address) / size) === network;
}

export function createServiceRangeController(deps: ControllerDeps, ranges: ServiceRanges): RunningService {
  const store = deps.informers.informer(services);
  const events = {
    ip: deps.events.as("ipallocator-repair-controller"),
    port: deps.events.as("portallocator-repair-controller"),
  };
  return createPeriodicController(
    {
      name: "service-range-controller",
      periodMs,
      triggers: [waitFor(store)],
      async round() {
        const all = store.list().filter((service) => !isDeleting(service));
        for (const { service, about, reason, message } of findRangeFaults(all, ranges)) {
          const resource = services as ResourceInfo;
          events[about].record({ resource, object: service, type: "Warning", reason, message });
        }
      },
    },
    deps,
  );
}
