// Pods that change their size while they run, against real containerd and the kernel's own files: without a restart, with one
// where the container asks for it, later when there is room, never where the node is too small; and across an end of the agent.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Pod, ResourceRequirements } from "#model/gen/core-v1.ts";
import * as resources from "#model/resources.ts";
import { parseConfiguration } from "#node/configuration.ts";
import { isUnified, readCgroup } from "#node/stats/kernel.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { image, TestNode } from "./node-fixture.ts";

const node = new TestNode(27);
const configuration = parseConfiguration(["feature-gates=InPlacePodVerticalScaling=true"]);
let unified = false;
beforeAll(async () => {
  unified = await isUnified();
  await node.open({ configuration });
}, 120_000);
afterAll(() => node.close(), 60_000);

const size = (cpu: string, limitCpu: string, memory: string, limitMemory: string): ResourceRequirements => ({
  requests: { cpu, memory },
  limits: { cpu: limitCpu, memory: limitMemory },
});
const small = size("100m", "200m", "32Mi", "64Mi");
const run = (name: string, resourcesOf: ResourceRequirements, spec: object = {}, more: object = {}) =>
  node.run(name, {
    // Ends well when it is told to: a policy of OnFailure alone would not start it again.
    containers: [
      {
        name: "main",
        image,
        command: ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"],
        resources: resourcesOf,
        ...more,
      },
    ],
    ...spec,
  } as Partial<Pod["spec"]>);
const resize = (name: string, to: ResourceRequirements) =>
  node.client.patch(
    resources.pods,
    { name, namespace: "default" },
    { spec: { containers: [{ name: "main", resources: to }] } },
    { subresource: "resize", type: "application/strategic-merge-patch+json" },
  );
const main = (pod: Pod) => pod.status?.containerStatuses?.[0];
/** Once the node says that the pod has what it asks for. */
const resized = (name: string, to: ResourceRequirements) =>
  node.when(name, (pod) => {
    const status = main(pod);
    const isDone = status?.state?.running && isDeepStrictEqual(status.resources, to);
    return isDone && !pod.status?.resize ? pod : undefined;
  });

/** CPU quota and memory limit of the pod's cgroup, or of its container's. */
function kernelLimits(pod: Pod, containerId = ""): [string, string] {
  const path = `/kubepods/burstable/pod${pod.metadata.uid}${containerId && `/${containerId}`}`;
  const read = (file: string) => readFileSync(`/sys/fs/cgroup${file}`, "utf8").trim();
  return unified
    ? [read(`${path}/cpu.max`).split(" ")[0]!, read(`${path}/memory.max`)]
    : [read(`/cpu${path}/cpu.cfs_quota_us`), read(`/memory${path}/memory.limit_in_bytes`)];
}
const idOf = (pod: Pod) => main(pod)?.containerID?.replace("containerd://", "") ?? "";
const mebibytes = (count: number) => String(count * 2 ** 20);
const memoryUsed = async (pod: Pod) =>
  readCgroup(`/kubepods/burstable/pod${pod.metadata.uid}/${idOf(pod)}`, { unified }).workingSetBytes;

test("CPU and memory grow and shrink while the container runs on, and stay so when the agent starts again", async () => {
  await run("grows", small);
  const before = await node.whenReady("grows");
  expect(main(before)?.resources).toEqual(small);
  const large = size("200m", "400m", "64Mi", "128Mi");
  await resize("grows", large);
  const after = await resized("grows", large);
  expect([idOf(after), main(after)?.restartCount]).toEqual([idOf(before), 0]);
  expect(main(after)?.allocatedResources).toEqual(large.requests);
  expect(kernelLimits(after)).toEqual(["40000", mebibytes(128)]);
  expect(kernelLimits(after, idOf(after))).toEqual(["40000", mebibytes(128)]);
  await node.stop();
  // Asked for while nobody is there.
  await resize("grows", small);
  await node.start({ configuration });
  const again = await resized("grows", small);
  expect([idOf(again), main(again)?.restartCount]).toEqual([idOf(before), 0]);
  expect(kernelLimits(again)).toEqual(["20000", mebibytes(64)]);
  expect(kernelLimits(again, idOf(again))).toEqual(["20000", mebibytes(64)]);
  await node.delete("grows");
}, 90_000);

test("a container that wants a restart for its memory gets one, and only for that", async () => {
  const resizePolicy = [{ resourceName: "memory", restartPolicy: "RestartContainer" }];
  await run("restarts", small, { restartPolicy: "OnFailure" }, { resizePolicy });
  const before = await node.whenReady("restarts");
  const faster = size("100m", "400m", "32Mi", "64Mi");
  await resize("restarts", faster);
  expect(idOf(await resized("restarts", faster))).toBe(idOf(before));
  const larger = size("100m", "400m", "32Mi", "128Mi");
  await resize("restarts", larger);
  const after = await resized("restarts", larger);
  expect(main(after)?.restartCount).toBe(1);
  expect(kernelLimits(after, idOf(after))).toEqual(["40000", mebibytes(128)]);
  const events = (await node.client.list(resources.events, { namespace: "default" })).items;
  expect(events.map((e) => e.message)).toContain("Container main resize requires restart");
  await node.delete("restarts");
}, 90_000);

test("what does not fit waits for room, what never fits is refused, and neither touches the pod", async () => {
  const allocatable = (await node.client.get(resources.nodes, node.nodeName)).status?.allocatable ?? {};
  const milli = Number.parseInt(allocatable["cpu"] ?? "0", 10) * 1000;
  const most = `${milli - 400}m`;
  await run("holder", size("500m", "1", "32Mi", "64Mi"));
  await run("waits", small);
  const before = await node.whenReady("waits");
  const wanted = size(most, String(milli / 1000), "32Mi", "64Mi");
  await resize("waits", wanted);
  const waiting = await node.when("waits", (pod) => (pod.status?.resize === "Deferred" ? pod : undefined));
  expect(main(waiting)?.resources).toEqual(small);
  const never = size("999", "999", "32Mi", "64Mi");
  await resize("waits", never);
  const refused = await node.when("waits", (pod) => (pod.status?.resize === "Infeasible" ? pod : undefined));
  expect(main(refused)?.resources).toEqual(small);
  // What it asks for is not what it has, and a new agent knows.
  await node.stop();
  await node.start({ configuration });
  await resize("waits", wanted);
  await node.when("waits", (pod) => pod.status?.resize === "Deferred");
  await node.delete("holder");
  const after = await resized("waits", wanted);
  expect([idOf(after), main(after)?.restartCount]).toEqual([idOf(before), 0]);
  const reasons = (await node.client.list(resources.events, { namespace: "default" })).items.map((e) => e.reason);
  expect(reasons).toEqual(expect.arrayContaining(["ResizeDeferred", "ResizeInfeasible"]));
  await node.delete("waits");
}, 120_000);

test("memory does not fall below what is used: the limit follows when it can", async () => {
  // 12 MiB that nothing can take back.
  const holds = ["sh", "-c", "trap 'exit 0' TERM; x=$(yes | head -c 12582912); sleep 1000 & wait"];
  await run("full", small, {}, { command: holds });
  const before = await node.whenReady("full");
  await node.until("memory in use", async () => (await memoryUsed(before)) > 12 * 2 ** 20);
  await resize("full", size("100m", "200m", "4Mi", "8Mi"));
  const stuck = await node.when("full", (pod) => (pod.status?.resize === "InProgress" ? pod : undefined));
  expect(main(stuck)).toMatchObject({
    allocatedResources: { memory: "4Mi" },
    resources: { limits: { memory: "64Mi" } },
  });
  await clock.sleep(3_000);
  expect(kernelLimits(before, idOf(before))[1]).toBe(mebibytes(64));
  const enough = size("100m", "200m", "4Mi", "60Mi");
  await resize("full", enough);
  const after = await resized("full", enough);
  expect([idOf(after), main(after)?.restartCount]).toEqual([idOf(before), 0]);
  expect(kernelLimits(after, idOf(after))[1]).toBe(mebibytes(60));
  await node.delete("full");
}, 60_000);
