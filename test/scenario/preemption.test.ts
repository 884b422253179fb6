// A full node and a pod that matters more: room is made for it, and only for it.
import { afterEach, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import type { PriorityClass } from "#model/gen/scheduling-v1.ts";
import { events, pods, priorityClasses } from "#model/resources.ts";
import { InMemoryCluster } from "#test/harness/in-memory-cluster.ts";

let cluster: InMemoryCluster | undefined;
afterEach(async () => {
  const old = cluster;
  cluster = undefined;
  await old?.stop();
});
async function start(): Promise<InMemoryCluster> {
  cluster = await InMemoryCluster.start({ behaviour: () => ({ stopMs: 2000 }) });
  for (const [name, value] of [
    ["high", 1000],
    ["middle", 500],
  ] as const) {
    await cluster.client.create(priorityClasses, { metadata: { name }, value } as PriorityClass);
  }
  return cluster;
}
/** A share of the node's processors, in percent. */
const create = (c: InMemoryCluster, name: string, cpuShare: number, priorityClassName?: string) =>
  c.client.create(pods, {
    metadata: { name, namespace: "default" },
    spec: {
      containers: [{ name: "c", image: "c:1", resources: { requests: { cpu: `${cpuShare * 40}m` } } }],
      ...(priorityClassName ? { priorityClassName } : {}),
    },
  } as Pod);
const find = (c: InMemoryCluster, name: string) => c.find(pods, name, "default");
const isRunning = async (c: InMemoryCluster, name: string) => (await find(c, name))?.status?.phase === "Running";

test("the least important pod goes, the new one takes its room", async () => {
  const c = await start();
  await create(c, "low", 60);
  await create(c, "middle", 30, "middle");
  await c.until(async () => (await isRunning(c, "low")) && (await isRunning(c, "middle")), "the node is full");
  await create(c, "vip", 60, "high");
  await c.until(async () => (await find(c, "vip"))?.status?.nominatedNodeName === "node-1", "room is promised");
  await c.until(async () => (await find(c, "low"))?.metadata.deletionTimestamp !== undefined, "the victim is told");
  const condition = (await find(c, "low"))?.status?.conditions?.find((one) => one.type === "DisruptionTarget");
  expect(condition).toMatchObject({ status: "True", reason: "PreemptionByScheduler" });
  // Someone less important who comes now does not get the room.
  await create(c, "late", 60);
  await c.until(() => isRunning(c, "vip"), "the important one runs");
  expect(await isRunning(c, "middle")).toBe(true);
  expect(await find(c, "low")).toBeUndefined();
  expect((await find(c, "late"))?.spec.nodeName).toBeUndefined();
  const said = (await c.list(events, "default")).filter((e) => e.reason === "Preempted");
  expect(said.map((e) => e.involvedObject.name)).toEqual(["low"]);
});

test("nobody goes for a pod that would not fit anyway, or must not push", async () => {
  const c = await start();
  await create(c, "low", 60);
  await c.until(() => isRunning(c, "low"), "one runs");
  await create(c, "giant", 200, "high");
  await c.advance(30_000);
  expect(await isRunning(c, "low")).toBe(true);
  expect((await find(c, "giant"))?.status?.nominatedNodeName).toBeUndefined();
});
