// Which way to an address, and what a node lets be dialed: k3s's tables.
import { expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { dialPolicy, type EgressMode, type EgressView, egressLabel, planEgress } from "./egress.ts";

const node = (name: string, address: string, isOpen: boolean): Node =>
  ({
    metadata: { name, labels: isOpen ? { [egressLabel]: "true" } : {} },
    status: { addresses: [{ type: "InternalIP", address }], daemonEndpoints: { kubeletEndpoint: { Port: 10260 } } },
  }) as unknown as Node;
const nodes = [node("own", "10.0.0.1", true), node("n2", "10.0.0.2", true), node("n3", "10.0.0.3", false)];
const pod = (nodeName: string) => ({ metadata: {}, spec: { nodeName } }) as unknown as Pod;
const view: EgressView = {
  node: (name) => nodes.find(({ metadata }) => metadata.name === name),
  nodeAt: (address) => nodes.find(({ status }) => status?.addresses?.[0]?.address === address),
  podAt: (address) => ({ "10.42.2.9": pod("n2"), "10.42.3.9": pod("n3"), "10.42.1.9": pod("own") })[address],
};

test.each<[EgressMode, string, number, string | undefined]>([
  ["agent", "n2", 10260, "n2 127.0.0.1:10260"],
  ["agent", "own", 10260, undefined],
  ["agent", "nobody", 10260, undefined],
  ["agent", "10.0.0.2", 10260, "n2 127.0.0.1:10260"],
  ["agent", "10.0.0.3", 10010, "n3 127.0.0.1:10010"],
  ["agent", "10.0.0.2", 443, undefined],
  ["agent", "10.42.2.9", 80, undefined],
  ["agent", "1.2.3.4", 10250, undefined],
  ["pod", "10.42.2.9", 80, "n2 10.42.2.9:80"],
  ["pod", "10.42.3.9", 80, undefined],
  ["pod", "10.42.1.9", 80, undefined],
  ["cluster", "10.0.0.2", 443, "n2 10.0.0.2:443"],
  ["cluster", "10.0.0.3", 443, undefined],
  ["cluster", "10.0.0.1", 443, undefined],
  ["disabled", "n2", 10260, undefined],
  ["disabled", "10.0.0.2", 10260, undefined],
])("mode %s to %s:%i", (mode, host, port, wanted) => {
  const way = planEgress(mode, "own", { host, port }, view);
  expect(way && `${way.node} ${way.address}`).toBe(wanted);
});

const running = (ip: string, ports: number[] = [], hostNetwork = false): Pod =>
  ({
    metadata: {},
    spec: { hostNetwork, containers: [{ name: "c", ports: ports.map((containerPort) => ({ containerPort })) }] },
    status: { phase: "Running", podIP: ip, podIPs: [{ ip }] },
  }) as unknown as Pod;
const pods = [
  running("10.42.2.9"),
  running("10.0.0.2", [9100], true),
  { ...running("10.42.2.8"), status: { phase: "Succeeded", podIP: "10.42.2.8" } } as Pod,
];

test.each<[EgressMode, string, string, boolean]>([
  ["agent", "tcp", "127.0.0.1:10250", true],
  ["agent", "tcp", "[::1]:10250", true],
  ["agent", "tcp", "127.0.0.1:10010", true],
  ["agent", "udp", "127.0.0.1:10250", false],
  ["agent", "tcp", "127.0.0.1:22", false],
  ["agent", "tcp", "localhost:10250", false],
  ["agent", "tcp", "10.42.2.9:80", false],
  ["agent", "tcp", "10.0.0.2:10250", false],
  ["agent", "tcp", "127.0.0.1:99999", false],
  ["agent", "tcp", "127.0.0.1", false],
  ["pod", "tcp", "10.42.2.9:80", true],
  ["pod", "tcp", "10.42.2.8:80", false],
  ["pod", "tcp", "10.42.2.7:80", false],
  ["pod", "tcp", "10.0.0.2:9100", true],
  ["pod", "tcp", "10.0.0.2:22", false],
  ["cluster", "tcp", "10.42.200.1:80", true],
  ["cluster", "tcp", "[fd42::9]:80", true],
  ["cluster", "tcp", "10.0.0.2:22", true],
  ["cluster", "tcp", "10.0.0.9:22", false],
  ["cluster", "tcp", "127.0.0.1:22", false],
])("mode %s lets a server dial %s %s: %s", (mode, proto, address, isAllowed) => {
  const policy = dialPolicy({
    mode,
    nodeApiPort: 10250,
    nodeAddresses: ["10.0.0.2"],
    clusterCidrs: ["10.42.0.0/16", "fd42::/56"],
    pods: () => pods,
  });
  expect(policy(proto, address)).toBe(isAllowed);
});
