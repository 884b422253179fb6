// Which addresses nodes and pods show, with one family and with two.
import { expect, test } from "vitest";
import type { NodeStatus } from "#model/gen/core-v1.ts";
import { type NodeFacts, nodeStatus } from "./node-object.ts";
import { podIpsInOrder } from "./runtime-cache.ts";

test.each<[string, string[], "IPv4" | "IPv6", string[]]>([
  ["one", ["10.42.0.2"], "IPv4", ["10.42.0.2"]],
  ["both", ["10.42.0.2", "fd00:42::2"], "IPv4", ["10.42.0.2", "fd00:42::2"]],
  ["the cluster's family first", ["10.42.0.2", "fd00:42::2"], "IPv6", ["fd00:42::2", "10.42.0.2"]],
  ["one of each", ["fd00:42::2", "fd00:42::3", "10.42.0.2", "10.42.0.3"], "IPv4", ["10.42.0.2", "fd00:42::2"]],
  ["the other family alone", ["fd00:42::2"], "IPv4", ["fd00:42::2"]],
  ["none", [], "IPv4", []],
])("addresses of a pod: %s", (_, ips, first, expected) => {
  expect(podIpsInOrder(ips, first)).toEqual(expected);
});

test("a node shows its own addresses, and leaves those that others have added", () => {
  const options = { ...{ nodeName: "n1", podCidrs: [], port: 10250, labels: {}, taints: [], version: "v1.32.3" } };
  const resources = { capacity: {}, allocatable: {}, pressure: new Set<never>(), isShuttingDown: false };
  const facts = { machine: {}, resources, images: [], containerRuntimeVersion: "", notReady: undefined };
  const shown = (nodeIps: string[], old?: NodeStatus, externalIps: string[] = []) =>
    nodeStatus({ ...options, nodeIps, externalIps }, facts as unknown as NodeFacts, old, 0).addresses?.map(
      ({ type, address }) => `${type} ${address}`,
    );
  expect(shown(["192.0.2.1"])).toEqual(["InternalIP 192.0.2.1", "Hostname n1"]);
  const old = {
    addresses: [
      { type: "InternalIP", address: "192.0.2.9" },
      { type: "ExternalIP", address: "203.0.113.1" },
    ],
  };
  expect(shown(["192.0.2.1", "2001:db8::1"], old)).toEqual([
    ...["InternalIP 192.0.2.1", "InternalIP 2001:db8::1", "Hostname n1", "ExternalIP 203.0.113.1"],
  ]);
  expect(shown(["192.0.2.1"], old, ["203.0.113.2", "2001:db8::2"])).toEqual([
    ...["InternalIP 192.0.2.1", "ExternalIP 203.0.113.2", "ExternalIP 2001:db8::2", "Hostname n1"],
  ]);
});
