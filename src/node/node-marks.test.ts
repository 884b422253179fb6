// What a Node carries is there however the Node came to be, and comes back where it was lost.
import { expect, test } from "vitest";
import { createLogger } from "#base/log.ts";
import { Client } from "#client/client.ts";
import type { Node } from "#model/gen/core-v1.ts";
import { nodes } from "#model/resources.ts";
import { forbidden } from "#model/status.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { FakeTransport } from "#test/harness/fake-transport.ts";
import { nodeMarks, planMarks } from "./node-marks.ts";
import { NodeObject, type NodeObjectDeps, type NodeObjectOptions } from "./node-object.ts";

const tunnelLabel = "egress.k3s.io/cluster";
const attachAnnotation = "volumes.kubernetes.io/controller-managed-attach-detach";
const taint = { key: "only", effect: "NoSchedule" };
const options: NodeObjectOptions = {
  ...{ nodeName: "n1", nodeIps: ["192.0.2.1"], podCidrs: [], port: 10250, version: "v1.32.3", taints: [taint] },
  labels: { rack: "7" },
  ownLabels: { [tunnelLabel]: "true" },
};

function setup(own: Partial<NodeObjectOptions> = {}) {
  const transport = new FakeTransport();
  const client = new Client(transport);
  const warnings: string[] = [];
  const clock = new FakeClock();
  const deps = {
    ...{ client, clock, events: { record() {} } },
    log: createLogger((_, message) => warnings.push(message), "warn"),
    cri: {
      version: async () => ({ runtimeName: "containerd", runtimeVersion: "1" }),
      status: async () => [],
      listImages: async () => [],
    },
    runtime: { lastRelistMs: 0 },
    machine: { architecture: "arm64" },
    resources: () => ({ capacity: {}, allocatable: {}, pressure: new Set(), isShuttingDown: false }),
    onNode() {},
  } as unknown as NodeObjectDeps;
  const object = new NodeObject({ ...options, ...own }, deps);
  const read = () => client.get(nodes, "n1");
  const patch = (metadata: object) => client.patch(nodes, { name: "n1" }, { metadata });
  return { transport, client, clock, object, read, patch, warnings };
}
const whole = {
  labels: { rack: "7", [tunnelLabel]: "true", "kubernetes.io/hostname": "n1", "kubernetes.io/arch": "arm64" },
  annotations: { [attachAnnotation]: "true" },
};
const signal = new AbortController().signal;

test("a Node that is deleted under the agent has all of it again, taints too", async () => {
  const { client, object, read } = setup();
  expect(await object.register(signal)).toBe(true);
  expect(await read()).toMatchObject({ metadata: whole, spec: { taints: [taint] } });
  const { uid } = (await read()).metadata;
  await client.delete(nodes, { name: "n1" });
  await object.report();
  const again = await read();
  expect(again).toMatchObject({ metadata: whole, spec: { taints: [taint] } });
  expect(again.metadata.uid).not.toBe(uid);
});

test("one that was there before, or that somebody else has made, has it once it is seen", async () => {
  const { client, object, read } = setup();
  const bare = { metadata: { name: "n1", labels: { other: "x" } }, spec: {}, status: {} } as Node;
  await client.create(nodes, bare);
  expect(await object.register(signal)).toBe(false);
  expect((await read()).metadata).toMatchObject({ ...whole, labels: { ...whole.labels, other: "x" } });
  await client.delete(nodes, { name: "n1" });
  await client.create(nodes, bare);
  await object.report();
  expect((await read()).metadata).toMatchObject(whole);
});

test("what only the node knows comes back; what an admin takes away of the rest stays away until the next start", async () => {
  const { clock, object, patch, read, transport } = setup();
  await clock.advance(1000);
  await object.register(signal);
  await patch({ labels: { [tunnelLabel]: null, rack: null }, annotations: { [attachAnnotation]: null } });
  await object.report();
  const { metadata } = await read();
  expect([metadata.labels?.[tunnelLabel], metadata.annotations?.[attachAnnotation]]).toEqual(["true", "true"]);
  expect(metadata.labels).not.toHaveProperty("rack");
  transport.log.length = 0;
  for (let n = 0; n < 3; n++) await object.report();
  expect(transport.log.filter((line) => line === "PATCH /api/v1/nodes/n1")).toEqual([]);
});

test("a label that is not this node's any more is taken away", async () => {
  const { client, object, read } = setup({ ownLabels: { [tunnelLabel]: null } });
  await client.create(nodes, { metadata: { name: "n1", labels: { [tunnelLabel]: "true" } }, spec: {} } as Node);
  await object.register(signal);
  expect((await read()).metadata.labels).not.toHaveProperty(tunnelLabel);
});

test("a server that does not take it keeps no status from being told, and is complained of once", async () => {
  const { client, object, patch, read, transport, warnings } = setup();
  await object.register(signal);
  await patch({ labels: { [tunnelLabel]: null } });
  transport.fail = ({ method, path }) =>
    method === "PATCH" && !path.endsWith("/status")
      ? forbidden({ group: "", resource: "nodes" }, "n1", "no")
      : undefined;
  await client.patch(nodes, { name: "n1" }, { status: { conditions: [] } }, { subresource: "status" });
  for (let n = 0; n < 3; n++) await object.report();
  expect((await read()).status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True")).toBe(
    true,
  );
  expect(warnings).toHaveLength(1);
  transport.fail = () => undefined;
  await object.report();
  expect((await read()).metadata.labels).toHaveProperty(tunnelLabel);
});

test("a label that was asked for is given over the one that would be there", () => {
  const marks = nodeMarks({
    nodeName: "n1",
    architecture: "amd64",
    labels: { "kubernetes.io/hostname": "h" },
    ownLabels: {},
  });
  const node: Node = { metadata: { name: "n1", labels: { "kubernetes.io/hostname": "n1" } }, spec: {} };
  expect(planMarks(marks, node, true)?.["labels"]).toHaveProperty("kubernetes.io/hostname", "h");
  expect(planMarks(marks, node, false)?.["labels"]).not.toHaveProperty("kubernetes.io/hostname");
});
