import { expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { SchedulerCache } from "./cache.ts";
import { podInfoOf } from "./pod-info.ts";

const node: Node = { metadata: { name: "n1" }, spec: {}, status: { allocatable: { cpu: "2" } } };
const pod = (nodeName?: string, phase?: string): Pod => ({
  metadata: { name: "p", namespace: "ns", uid: "1" },
  spec: {
    containers: [{ name: "c", resources: { requests: { cpu: "500m" } } }],
    ...(nodeName ? { nodeName } : {}),
  },
  ...(phase ? { status: { phase } } : {}),
});

function start() {
  const clock = new FakeClock();
  const cache = new SchedulerCache({ assumeTtlMs: 30_000 }, { clock });
  cache.setNode(node);
  const milliCpu = () => cache.snapshot().nodes[0]?.requestedOf("cpu") ?? 0;
  return { clock, cache, milliCpu };
}

test("an assumption holds until the informer confirms it", async () => {
  const { cache, clock, milliCpu } = start();
  expect(cache.assume(podInfoOf(pod()), "n1")).toBe(true);
  expect(cache.assume(podInfoOf(pod()), "n1")).toBe(false);
  cache.finishBinding(pod());
  // A late event from before the binding.
  cache.setPod(pod());
  expect(milliCpu()).toBe(500);
  cache.setPod(pod("n1"));
  await clock.advance(60_000);
  expect(cache.expire()).toEqual([]);
  expect(milliCpu()).toBe(500);
  cache.setPod(pod("n1", "Succeeded"));
  expect(milliCpu()).toBe(0);
});

test("an assumption that is never confirmed expires, but not before the binding is acknowledged", async () => {
  const { cache, clock, milliCpu } = start();
  cache.assume(podInfoOf(pod()), "n1");
  await clock.advance(60_000);
  expect(cache.expire()).toEqual([]);
  cache.finishBinding(pod());
  await clock.advance(29_999);
  expect(cache.expire()).toEqual([]);
  await clock.advance(1);
  expect(cache.expire()).toEqual(["ns/p"]);
  expect(milliCpu()).toBe(0);
});

test("forget undoes an assumption and nothing else", () => {
  const { cache, milliCpu } = start();
  cache.assume(podInfoOf(pod()), "n1");
  cache.forget(pod());
  expect(milliCpu()).toBe(0);
  cache.setPod(pod("n1"));
  cache.forget(pod());
  expect(milliCpu()).toBe(500);
});

test("pods seen before their node count once it appears, and again after it was replaced", () => {
  const { cache, milliCpu } = start();
  cache.removeNode("n1");
  cache.setPod(pod("n1"));
  cache.setNode(node);
  expect(milliCpu()).toBe(500);
  cache.setPod(pod("n1"));
  expect(milliCpu()).toBe(500);
});
