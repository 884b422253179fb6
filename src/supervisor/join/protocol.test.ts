// A cluster's settings as they travel: what a server of mote writes, and what one of k3s does.
import { expect, test } from "vitest";
import { formatSettings, parseSettings, type ServerSettings } from "./protocol.ts";

const settings: ServerSettings = {
  ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16", clusterDns: ["10.43.0.10"] },
  ...{ clusterDomain: "cluster.local", egressMode: "agent", hasServiceProxy: true, flannelBackend: "vxlan" },
  ...{ flannelExternalIp: false, flannelIpv6Masq: true, nodePorts: { first: 30_000, last: 32_767 }, port: 6443 },
};
const both = {
  clusterCidr: "fd00:42::/56,10.42.0.0/16",
  serviceCidr: "fd00:43::/112,10.43.0.0/16",
  clusterDns: ["fd00:43::a", "10.43.0.10"],
};

test.each([
  ["one family", {}],
  ["both", both],
])("there and back: %s", (_, more) => {
  const { nodePorts: _ports, port: _port, ...expected } = { ...settings, ...more };
  const text = JSON.stringify(formatSettings({ ...settings, ...more }));
  expect(parseSettings(text)).toEqual({ ...expected, isMote: true });
});

test("in Go's form, the first family where there is room for one", () => {
  expect(formatSettings({ ...settings, ...both })).toMatchObject({
    ClusterIPRange: { IP: "fd00:42::", Mask: "/////////wAAAAAAAAAAAA==" },
    ClusterIPRanges: [{ IP: "fd00:42::" }, { IP: "10.42.0.0", Mask: "//8AAA==" }],
    ServiceIPRanges: [{ IP: "fd00:43::" }, { IP: "10.43.0.0" }],
    ...{ ClusterDNS: "fd00:43::a", ClusterDNSs: ["fd00:43::a", "10.43.0.10"], FlannelIPv6Masq: true },
  });
});

test.each<[string, Record<string, unknown>]>([
  ["ClusterIPRange", { ClusterIPRanges: [{ IP: "10.42.0.0", Mask: "/w8AAA==" }] }],
  ["ClusterIPRange", { ClusterIPRanges: [{ IP: "fd00:42::", Mask: "//8AAA==" }] }],
  ["ClusterIPRange", { ClusterIPRanges: [{ IP: "10.42.0.0; x", Mask: "//8AAA==" }] }],
  ["ClusterIPRange", { ClusterIPRanges: null, ClusterIPRange: null }],
  ["ServiceIPRange", { ServiceIPRanges: "10.43.0.0/16", ServiceIPRange: undefined }],
  ["ClusterDNS", { ClusterDNSs: ["10.43.0.10", "dns.example.org"] }],
  ["ClusterDNS", { ClusterDNSs: ["10.43.0.10", "10.43.0.11", "10.43.0.12"] }],
])("no usable %s: %o", (field, more) => {
  const text = JSON.stringify({ ...formatSettings(settings), ...more });
  expect(() => parseSettings(text)).toThrow(`have no usable ${field}:`);
});

test("a server that knows no lists", () => {
  const { ClusterIPRanges: _, ServiceIPRanges: __, ClusterDNSs: ___, ...old } = formatSettings(settings);
  expect(parseSettings(JSON.stringify(old))).toMatchObject({
    ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16", clusterDns: ["10.43.0.10"] },
  });
});
