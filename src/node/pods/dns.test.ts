import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { hostsFile, parseResolvConf, podDns, podHostname } from "./dns.ts";

const podOf = (spec: Partial<Pod["spec"]> = {}): Pod =>
  ({ metadata: { name: "web-0", namespace: "shop" }, spec: { containers: [], ...spec } }) as unknown as Pod;
const context = {
  clusterDns: ["10.43.0.10"],
  clusterDomain: "cluster.local",
  nodeName: "node-a",
  host: { servers: ["192.0.2.53"], searches: ["lan"], options: ["edns0"] },
};
const cluster = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"];

test.each([
  ["ClusterFirst", {}, ["10.43.0.10"], cluster, ["ndots:5"]],
  ["host network falls back", { hostNetwork: true }, ["192.0.2.53"], ["lan"], ["edns0"]],
  ["or asks for it", { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" }, ["10.43.0.10"], cluster, ["ndots:5"]],
  ["Default", { dnsPolicy: "Default" }, ["192.0.2.53"], ["lan"], ["edns0"]],
  [
    "None takes only its own",
    {
      dnsPolicy: "None",
      dnsConfig: { nameservers: ["1.1.1.1"], searches: ["x"], options: [{ name: "ndots", value: "2" }] },
    },
    ["1.1.1.1"],
    ["x"],
    ["ndots:2"],
  ],
  [
    "own options override",
    { dnsConfig: { options: [{ name: "ndots", value: "1" }, { name: "rotate" }] } },
    ["10.43.0.10"],
    cluster,
    ["ndots:1", "rotate"],
  ],
])("%s", (_, spec, servers, searches, options) => {
  expect(podDns(podOf(spec), context)).toEqual({ servers, searches, options });
});

test("resolv.conf with comments and two search lines", () => {
  const text = "# c\nnameserver 1.1.1.1 ; x\nsearch a b\nsearch c .\noptions ndots:1 rotate\n";
  expect(parseResolvConf(text)).toEqual({ servers: ["1.1.1.1"], searches: ["c"], options: ["ndots:1", "rotate"] });
});
test.each([
  [{}, "web-0", ""],
  [{ hostname: "db", subdomain: "sets" }, "db", "sets.shop.svc.cluster.local"],
  [{ subdomain: "sets", setHostnameAsFQDN: true }, "web-0.sets.shop.svc.cluster.local", "sets.shop.svc.cluster.local"],
  [{ hostNetwork: true }, "node-a", ""],
])("host name of %o", (spec, hostname, domain) => {
  expect(podHostname(podOf(spec), context)).toEqual({ hostname, domain });
});
test("hosts file with address, domain and aliases", () => {
  const text = hostsFile(podOf({ hostAliases: [{ ip: "192.0.2.9", hostnames: ["a", "b"] }] }), {
    ips: ["10.0.0.1"],
    hostname: "web-0",
    domain: "sets.shop.svc.cluster.local",
    hostFile: "",
  });
  expect(text).toContain("\n10.0.0.1\tweb-0.sets.shop.svc.cluster.local\tweb-0\n");
  expect(text).toContain("# Entries added by HostAliases.\n192.0.2.9\ta\tb\n");
});
