// The wire between a server and its agent is cut, in both directions and in one: both ends find out, what runs through the
// tunnel goes on without losing or repeating a byte, the agent's watches go on, and nothing in pods restarts.
// Longer cuts, slow and flapping wires: `npm run test:network`, which also holds the times against their goals.
import { afterAll, beforeAll, expect, test } from "vitest";
import { bothWays, type Direction, Partition } from "./partition-fixture.ts";

const partition = new Partition();

beforeAll(() => partition.open());
afterAll(() => partition.close());

test.each<[string, readonly Direction[]]>([
  ["both ways", bothWays],
  ["towards the agent", ["to-agent"]],
])("a cut %s is noticed, bridged, and over at once", async (_, directions) => {
  const before = await partition.container();
  const streams = partition.streams();
  await streams.begun();
  // From before the cut on: on a busy machine the one end may have said it, and told the other, before the other's rules are there.
  const noticed = [
    partition.says(partition.leaf, /the other end is silent|tunnel: lost/, 60_000),
    partition.says(partition.hub, /the other end is silent|tunnel: lost/, 60_000),
  ] as const;
  const [[agentMs, serverMs]] = await Promise.all([Promise.all(noticed), partition.cut(directions)]);
  const isTakenUp = await partition.orderPod();
  await partition.heal();
  const healedMs = performance.now();
  const since = async (work: Promise<unknown>) => {
    await work;
    return Math.round(performance.now() - healedMs);
  };
  const [streamMs, watchMs] = await Promise.all([since(streams.echoMs()), since(isTakenUp())]);
  console.log(`noticed: agent ${agentMs} ms, server ${serverMs} ms; back: stream ${streamMs} ms, watch ${watchMs} ms`);
  expect(await streams.verdict()).toBe("");
  expect(await partition.container()).toBe(before);
});
