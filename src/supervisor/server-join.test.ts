import { expect, test } from "vitest";
import { formatSettings, type ServerSettings } from "./join/protocol.ts";
import { differingSettings } from "./server-join.ts";

const own: ServerSettings = {
  ...{ clusterCidr: "10.42.0.0/16", serviceCidr: "10.43.0.0/16", clusterDns: ["10.43.0.10"] },
  ...{ clusterDomain: "cluster.local", egressMode: "agent", hasServiceProxy: true, flannelBackend: "vxlan" },
  ...{ flannelExternalIp: false, flannelIpv6Masq: false, port: 6443, nodePorts: { first: 30000, last: 32767 } },
};

test.each<[string, Partial<ServerSettings>, readonly string[]]>([
  ["the same", {}, []],
  ["another port is nobody's business", { port: 7443 }, []],
  ["ranges", { clusterCidr: "10.44.0.0/16", serviceCidr: "10.45.0.0/16" }, ["--cluster-cidr", "--service-cidr"]],
  [
    "the way between nodes",
    { flannelBackend: "host-gw", egressMode: "cluster" },
    ["--flannel-backend", "--egress-selector-mode"],
  ],
])("%s", (_name, change, wanted) => {
  expect(differingSettings(JSON.stringify(formatSettings({ ...own, ...change })), own)).toEqual(wanted);
});

test("what only a server of k3s has is for that one to change", () => {
  const theirs = { ...formatSettings(own), DisableCCM: false, DisableServiceLB: false, ClusterDomain: "other.local" };
  expect(differingSettings(JSON.stringify(theirs), own)).toEqual([
    "--cluster-domain",
    "with --disable-cloud-controller",
    "with --disable=servicelb",
  ]);
});

test("what the other does not say is not compared; what is no answer is refused", () => {
  expect(differingSettings("{}", own)).toEqual([]);
  expect(() => differingSettings("<html>", own)).toThrow(expect.objectContaining({ code: "JOIN_ANSWER" }));
});
