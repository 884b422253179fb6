import { expect, test } from "vitest";
import { parseIpRanges } from "#base/ip-range.ts";
import type { Service } from "#model/gen/core-v1.ts";
import { findRangeFaults, type ServiceRanges } from "./ranges.ts";

const service = (name: string, age: number, spec: Partial<Service["spec"]>): Service =>
  ({
    metadata: { name, namespace: "ns", creationTimestamp: `2026-01-0${age}T00:00:00Z` },
    spec,
  }) as Service;
const port = (nodePort: number, protocol = "TCP") => ({ port: 80, nodePort, protocol });
const ranges = { cidr: "10.43.0.0/24", nodePorts: { first: 30_000, last: 30_010 } };
const faults = (all: readonly Service[], { cidr, nodePorts }: ServiceRanges) =>
  findRangeFaults(all, parseIpRanges(cidr), nodePorts);

test.each<[string, Service[], string[]]>([
  ["nothing", [service("a", 1, { clusterIP: "10.43.0.7" }), service("b", 2, { clusterIP: "10.43.0.8" })], []],
  [
    "the younger of two with one address",
    [service("young", 2, { clusterIP: "10.43.0.7" }), service("old", 1, { clusterIP: "10.43.0.7" })],
    ["young ClusterIPAlreadyAllocated"],
  ],
  ["an address from elsewhere", [service("a", 1, { clusterIP: "10.43.1.7" })], ["a ClusterIPOutOfRange"]],
  ["no address", [service("a", 1, { clusterIP: "10.43.0.700" })], ["a ClusterIPNotValid"]],
  [
    "what is of no family of the cluster, but not headless and external ones",
    [
      service("a", 1, { clusterIP: "None" }),
      service("b", 1, { type: "ExternalName", clusterIP: "1.2.3.4" }),
      service("c", 1, { clusterIP: "10.43.0.1", clusterIPs: ["10.43.0.1", "fd00::1"] }),
    ],
    ["c ClusterIPNotValid"],
  ],
  [
    "node ports",
    [
      service("both", 1, { ports: [port(30_001), port(30_001, "UDP")] }),
      service("same", 2, { ports: [port(30_001)] }),
      service("far", 3, { ports: [port(31_000)], healthCheckNodePort: 30_001 }),
    ],
    ["same PortAlreadyAllocated", "far PortOutOfRange", "far PortAlreadyAllocated"],
  ],
])("finds %s", (_, all, expected) => {
  expect(faults(all, ranges).map((one) => `${one.service.metadata.name} ${one.reason}`)).toEqual(expected);
});

test("finds faults of both families", () => {
  const both = (name: string, age: number, second: string) =>
    service(name, age, { clusterIP: `10.43.0.${age}`, clusterIPs: [`10.43.0.${age}`, second] });
  const all = [
    both("a", 1, "fd00:43::a"),
    both("same", 2, "fd00:43:0::000A"),
    both("far", 3, "fd00:44::1"),
    service("alone", 4, { clusterIP: "fd00:43::b", clusterIPs: ["fd00:43::b"] }),
  ];
  const cidr = "10.43.0.0/24,fd00:43::/112";
  expect(faults(all, { ...ranges, cidr }).map((one) => one.message)).toEqual([
    "Cluster IP [IPv6]:fd00:43:0::000A was assigned to multiple services; please recreate service",
    "Cluster IP [IPv6]:fd00:44::1 is not within the service CIDR fd00:43::/112; please recreate service",
  ]);
});

test("of several ranges of a family any will do", () => {
  const all = [
    service("first", 1, { clusterIP: "10.43.0.7" }),
    service("second", 2, { clusterIP: "10.44.0.7" }),
    service("far", 3, { clusterIP: "10.45.0.7" }),
  ];
  expect(faults(all, { ...ranges, cidr: "10.43.0.0/24,10.44.0.0/24" }).map((one) => one.message)).toEqual([
    "Cluster IP [IPv4]:10.45.0.7 is not within any configured Service CIDR; please recreate service",
  ]);
});
