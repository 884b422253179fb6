import { describe, expect, test } from "vitest";
import { clusterRangesOf, firstPodCidrs, nodeIpsIn, nodeIpsOf } from "./cluster-addresses.ts";

const maskSizes = { IPv4: 24, IPv6: 64 };
const rangesOf = (clusterCidr: string, serviceCidr: string, clusterDns?: string) =>
  clusterRangesOf({ clusterCidr, serviceCidr, clusterDns, maskSizes });

describe("ranges", () => {
  test.each([
    ["IPv4", "10.42.0.0/16", "10.43.0.0/16", "10.43.0.1", ["10.43.0.10"]],
    ["both", "10.42.0.0/16, fd00:42::/56", "10.43.0.0/16,fd00:43::/112", "10.43.0.1", ["10.43.0.10", "fd00:43::a"]],
    [
      "IPv6 first",
      "fd00:42::/56,10.42.0.0/16",
      "fd00:43::/112,10.43.0.0/16",
      "fd00:43::1",
      ["fd00:43::a", "10.43.0.10"],
    ],
    ["IPv6 alone", "fd00:42::/56", "fd00:43::/112", "fd00:43::1", ["fd00:43::a"]],
  ])("%s", (_, pods, services, apiServiceIp, clusterDns) => {
    expect(rangesOf(pods, services)).toEqual({
      ...{ clusterCidr: pods.replace(" ", ""), serviceCidr: services, apiServiceIp, clusterDns, warnings: [] },
    });
  });
  test("spelled as the kernel does", () => {
    expect(rangesOf("10.42.7.0/16", "10.43.0.1/16,FD00:43:0::0/112", "10.43.0.99")).toMatchObject({
      ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16,fd00:43::/112", clusterDns: ["10.43.0.99"] },
      warnings: [expect.stringContaining("one IP family only")],
    });
  });
  test.each([
    ["no range", "10.42.0.0", "10.43.0.0/16", /^cluster-cidr: "10.42.0.0" is not allowed/],
    ["two of a family", "10.42.0.0/16", "10.43.0.0/16,10.44.0.0/16", /^service-cidr: .* of different IP families$/],
    ["three", "10.42.0.0/16", "10.43.0.0/16,fd00:43::/112,fd00:44::/112", /at most two ranges/],
    ["families crossed", "10.42.0.0/16", "fd00:43::/112,10.43.0.0/16", /first ranges must be of the same IP family$/],
    ["less than a node's", "10.42.0.0/25", "10.43.0.0/16", /use an IPv4 range from \/8 to \/24 such as/],
    ["more than nodes can have", "10.42.0.0/16,fd00:42::/47", "10.43.0.0/16", /use an IPv6 range from \/48 to \/64/],
    ["services too wide", "10.42.0.0/16", "10.43.0.0/16,fd00:43::/107", /use an IPv6 range from \/108 to \/124/],
    ["services too few", "10.42.0.0/16", "10.43.0.0/29", /use an IPv4 range from \/8 to \/28/],
  ])("refuses %s", (_, pods, services, message) => {
    expect(() => rangesOf(pods, services)).toThrow(message);
  });
  test.each(["10.43.0", "10.43.0.10,10.43.0.11"])("refuses DNS at %s", (dns) => {
    expect(() => rangesOf("10.42.0.0/16", "10.43.0.0/16", dns)).toThrow(/^cluster-dns: .* use an IP address/);
  });
});

describe("addresses of a node", () => {
  test.each([
    ["one", "10.42.0.0/16", "192.0.2.1", ["192.0.2.1"]],
    ["both", "10.42.0.0/16,fd00:42::/56", "192.0.2.1, 2001:DB8::1", ["192.0.2.1", "2001:db8::1"]],
    [
      "the cluster's first family first",
      "10.42.0.0/16,fd00:42::/56",
      "2001:db8::1,192.0.2.1",
      ["192.0.2.1", "2001:db8::1"],
    ],
    ["IPv6 first", "fd00:42::/56,10.42.0.0/16", "192.0.2.1,2001:db8::1", ["2001:db8::1", "192.0.2.1"]],
    ["more than the cluster has", "10.42.0.0/16", "192.0.2.1,2001:db8::1", ["192.0.2.1", "2001:db8::1"]],
  ])("%s", (_, clusterCidr, flag, expected) => {
    expect(nodeIpsIn(clusterCidr, nodeIpsOf(flag))).toEqual(expected);
  });
  test("the machine's own, where none is named", () => {
    expect(nodeIpsIn("10.42.0.0/16", nodeIpsOf(undefined))).toEqual([expect.stringMatching(/^\d+(\.\d+){3}$/)]);
  });
  test.each([
    ["of the cluster's first family is wanted", "10.42.0.0/16", "2001:db8::1", /the cluster wants an IPv4 address$/],
    ["of the other as well", "fd00:42::/56", "192.0.2.1", /the cluster wants an IPv6 address$/],
    ["not a link's own", "fd00:42::/56", "fe80::1%eth0", /^node-ip: "fe80::1%eth0" is not allowed/],
    ["not two of one", "10.42.0.0/16", "192.0.2.1,192.0.2.2", /one of each IP family$/],
  ])("%s", (_, clusterCidr, flag, message) => {
    expect(() => nodeIpsIn(clusterCidr, nodeIpsOf(flag))).toThrow(message);
  });
});

test("a first node's ranges", () => {
  expect(firstPodCidrs("10.42.0.0/16,fd00:42::/56", maskSizes)).toEqual(["10.42.0.0/24", "fd00:42::/64"]);
});
