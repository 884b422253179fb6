import { expect, test } from "vitest";
import type { Node, Service } from "#model/gen/core-v1.ts";
import { checkServiceRange, rangeWarnings } from "./kept-ranges.ts";

const service = (name: string, ...clusterIPs: string[]): Service =>
  ({ metadata: { name, namespace: "default" }, spec: { clusterIP: clusterIPs[0], clusterIPs } }) as Service;
const node = (name: string, ...podCIDRs: string[]): Node =>
  ({ metadata: { name }, spec: podCIDRs.length > 0 ? { podCIDR: podCIDRs[0], podCIDRs } : {} }) as Node;
const both = { clusterCidr: "10.42.0.0/16,fd00:42::/56", serviceCidr: "10.43.0.0/16,fd00:43::/112" };
const one = { clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16" };

test.each<[string, string, string, Service | undefined, RegExp | undefined]>([
  ["a new cluster", "10.44.0.0/16", "10.44.0.1", undefined, undefined],
  ["the same", "10.43.0.0/16", "10.43.0.1", service("kubernetes", "10.43.0.1"), undefined],
  [
    "a wider one that begins there",
    "10.43.0.0/15",
    "10.42.0.1",
    service("kubernetes", "10.43.0.1"),
    /10\.43\.0\.0\/16/,
  ],
  ["a second family", both.serviceCidr, "10.43.0.1", service("kubernetes", "10.43.0.1"), undefined],
  [
    "another",
    "10.44.0.0/16",
    "10.44.0.1",
    service("kubernetes", "10.43.0.1"),
    /^service-cidr: "10\.44\.0\.0\/16" is not/,
  ],
  [
    "the other family first",
    "fd00:43::/112",
    "fd00:43::1",
    service("kubernetes", "10.43.0.1"),
    /such as 10\.43\.0\.0\/16/,
  ],
  ["of IPv6, spelt otherwise", "fd00:43::/112", "fd00:43::1", service("kubernetes", "fd00:43:0::0001"), undefined],
  ["another of IPv6", "fd00:44::/112", "fd00:44::1", service("kubernetes", "fd00:43::1"), /such as fd00:43::\/112/],
])("--service-cidr: %s", (_, serviceCidr, apiServiceIp, kubernetes, wanted) => {
  const check = () => checkServiceRange({ clusterCidr: "10.42.0.0/16", serviceCidr, apiServiceIp }, kubernetes);
  if (wanted) expect(check).toThrow(wanted);
  else check();
});

test.each<[string, typeof one, Node[], Service[], unknown[]]>([
  ["nothing", both, [node("a", "10.42.0.0/24", "fd00:42::/64"), node("new")], [service("x", "10.43.0.7")], []],
  [
    "ranges of before",
    one,
    [node("a", "10.44.1.0/24"), node("b", "10.42.1.0/24")],
    [],
    [{ "cluster-cidr": "10.42.0.0/16", nodes: "a 10.44.1.0/24" }],
  ],
  [
    "a family that came later",
    both,
    [node("a", "10.42.1.0/24")],
    [service("x", "10.43.0.7")],
    [{ "cluster-cidr": both.clusterCidr, nodes: "a" }],
  ],
  [
    "a family that was taken away",
    one,
    [node("a", "10.42.1.0/24", "fd00:42::/64")],
    [service("x", "10.43.0.7", "fd00:43::7"), service("headless", "None"), service("y", "10.43.0.8")],
    [
      { "cluster-cidr": "10.42.0.0/16", nodes: "a fd00:42::/64" },
      { "service-cidr": "10.43.0.0/16", services: "default/x fd00:43::7" },
    ],
  ],
  [
    "no end of them",
    one,
    Array.from({ length: 8 }, (_, i) => node(`n${i}`, `10.44.${i}.0/24`)),
    [],
    [expect.objectContaining({ nodes: expect.stringMatching(/^n0 10\.44\.0\.0\/24; .* and 3 more$/) })],
  ],
])("told of: %s", (_, ranges, nodes, services, wanted) => {
  const warnings = rangeWarnings({ ...ranges, apiServiceIp: "10.43.0.1" }, { nodes, services, isFixed: true });
  expect(warnings.map(({ fields }) => fields)).toEqual(wanted);
});

test("addresses of ServiceCIDRs are nobody's fault", () => {
  const services = [service("x", "10.45.0.7")];
  expect(rangeWarnings({ ...one, apiServiceIp: "10.43.0.1" }, { nodes: [], services, isFixed: false })).toEqual([]);
});
