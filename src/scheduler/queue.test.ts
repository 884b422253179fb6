import { describe, expect, test } from "vitest";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import type { Plugin } from "./plugins/framework.ts";
import { extenderName, noNodes, parkedMaxMs, SchedulingQueue } from "./queue.ts";

const plugins: readonly Plugin[] = [
  { name: "Fit", points: [], interests: [{ events: ["AssignedPodDelete", "UnschedulablePodUpdatePodScaleDown"] }] },
  {
    name: "Taint",
    points: [],
    interests: [
      { events: ["NodeUpdateNodeTaint"], hint: (_, { next }) => next?.metadata.name === "good" },
      { events: ["UnschedulablePodUpdatePodToleration"] },
    ],
  },
];
const pod = (name: string, priority = 0, cpu = "1"): Pod => ({
  metadata: { name, uid: name },
  spec: { containers: [{ name: "c", resources: { requests: { cpu } } }], priority },
});

function start() {
  const clock = new FakeClock();
  const moves: string[] = [];
  const onMove = (place: string, event: string) => void moves.push(`${place} ${event}`);
  const queue = new SchedulingQueue(
    { initialBackoffMs: 1000, maxBackoffMs: 10_000 },
    { clock, plugins, isGated: (p) => (p.spec.schedulingGates ?? []).length > 0, onMove },
  );
  const stop = new AbortController();
  const popped: string[] = [];
  /** Takes the next pod, whenever it comes. */
  const pop = () => queue.pop(stop.signal).then((p) => void popped.push(p.pod.metadata.name ?? ""));
  const put = (...pods: Pod[]) => {
    for (const p of pods) queue.put(p, undefined);
  };
  return { clock, queue, stop, popped, moves, pop, put };
}

describe("scheduling queue", () => {
  test("the most important first, then the oldest", async () => {
    const t = start();
    t.put(pod("a"));
    await t.clock.advance(1);
    t.put(pod("b"), pod("c", 10));
    for (let i = 0; i < 3; i++) await t.pop();
    expect(t.popped).toEqual(["c", "a", "b"]);
  });

  test("a rejected pod waits for an event that may help it", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    t.queue.failed(pod("a"), new Set(["Fit"]));
    const next = t.pop();
    t.queue.moved({ event: "NodeUpdateNodeTaint" });
    await t.clock.advance(60_000);
    expect(t.popped).toEqual(["a"]);
    t.queue.moved({ event: "AssignedPodDelete" });
    await settle();
    expect(t.popped).toEqual(["a", "a"]);
    await next;
    expect(t.clock.pending).toBe(0);
  });

  test("pauses double up to ten seconds", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    const pauses: number[] = [];
    for (let i = 0; i < 6; i++) {
      t.queue.failed(pod("a"), new Set());
      const startedMs = t.clock.monotonicMs();
      const done = t.pop();
      while (t.popped.length < i + 2) await t.clock.advance(500);
      await done;
      pauses.push(t.clock.monotonicMs() - startedMs);
    }
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  test("an event during the attempt is not lost", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    t.queue.moved({ event: "AssignedPodDelete" });
    t.queue.failed(pod("a"), new Set(["Fit"]));
    const next = t.pop();
    await t.clock.advance(1000);
    expect(t.popped).toEqual(["a", "a"]);
    await next;
  });

  test("without nodes, the first node helps", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    t.queue.failed(pod("a"), new Set([noNodes]));
    const next = t.pop();
    t.queue.moved({ event: "AssignedPodDelete" });
    await t.clock.advance(5000);
    expect(t.popped).toEqual(["a"]);
    t.queue.moved({ event: "NodeAdd" });
    await settle();
    expect(t.popped).toEqual(["a", "a"]);
    await next;
  });

  test("a change of the pod helps, and a parked pod comes back by itself", async () => {
    const t = start();
    t.put(pod("a"), pod("b"));
    await t.pop();
    await t.pop();
    t.queue.failed(pod("a"), new Set(["Fit"]));
    t.queue.failed(pod("b"), new Set(["Fit"]));
    await t.clock.advance(2000);
    const first = t.pop();
    t.queue.put(pod("a"), pod("a"));
    await settle();
    expect(t.popped).toEqual(["a", "b"]);
    t.queue.put(pod("a", 0, "500m"), pod("a", 0, "1"));
    await first;
    const second = t.pop();
    await t.clock.advance(parkedMaxMs);
    await second;
    expect(t.popped).toEqual(["a", "b", "a", "b"]);
  });

  test("the end of an attempt for a pod that was replaced does not touch the new one", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    const replacement: Pod = { metadata: { name: "a", uid: "second" }, spec: { containers: [] } };
    t.put(replacement);
    await t.pop();
    t.queue.done(pod("a"));
    t.queue.failed(replacement, new Set());
    const next = t.pop();
    await t.clock.advance(1000);
    expect(t.popped).toEqual(["a", "a", "a"]);
    await next;
  });

  test("a pod that was removed in flight does not come back, and waiting ends with the signal", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    t.queue.remove("a");
    t.queue.failed(pod("a"), new Set());
    const next = t.queue.pop(t.stop.signal);
    await t.clock.advance(parkedMaxMs * 2);
    t.stop.abort(new Error("stop"));
    await expect(next).rejects.toThrow("stop");
    expect(t.clock.pending).toBe(0);
  });

  test("only hints and plugins that turned the pod down count", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    t.queue.failed(pod("a"), new Set(["Taint"]));
    await t.clock.advance(2000);
    const next = t.pop();
    const named = (name: string): Node => ({ metadata: { name }, spec: {} });
    t.queue.moved({ event: "NodeUpdateNodeTaint", next: named("bad") });
    t.queue.moved({ event: "AssignedPodDelete" });
    t.queue.put(pod("a", 0, "500m"), pod("a"));
    await settle();
    expect(t.popped).toEqual(["a"]);
    expect([...t.queue.parkedBy()]).toEqual([["Taint", 1]]);
    t.queue.moved({ event: "NodeUpdateNodeTaint", next: named("good") });
    await next;
    expect(t.popped).toEqual(["a", "a"]);
    expect(t.moves).toEqual([
      "active UnschedulablePodAdd",
      "unschedulable ScheduleAttemptFailure",
      "active NodeUpdateNodeTaint",
    ]);
  });

  test("a gated pod is held until its last gate goes", async () => {
    const t = start();
    const gated: Pod = { ...pod("a"), spec: { ...pod("a").spec, schedulingGates: [{ name: "g" }] } };
    t.put(gated);
    const next = t.pop();
    await t.clock.advance(parkedMaxMs * 2);
    expect(t.popped).toEqual([]);
    expect(t.queue.sizes).toEqual({ active: 0, backoff: 0, unschedulable: 0, gated: 1 });
    t.queue.put(pod("a"), gated);
    await next;
    expect(t.moves).toEqual(["gated UnschedulablePodAdd", "active UnschedulablePodUpdatePodSchedulingGatesEliminated"]);
  });

  test("what an extender refused may be helped by anything", async () => {
    const t = start();
    t.put(pod("a"));
    await t.pop();
    t.queue.failed(pod("a"), new Set([extenderName]));
    await t.clock.advance(2000);
    const next = t.pop();
    t.queue.moved({ event: "NamespaceUpdate" });
    await next;
    expect(t.popped).toEqual(["a", "a"]);
  });

  test("ten thousand pods come out in order", async () => {
    const t = start();
    const random = seededRandom(3);
    for (let i = 0; i < 10_000; i++) t.put(pod(`p${i}`, Math.floor(random.float() * 100)));
    for (let i = 0; i < 10_000; i += 3) t.queue.remove(`p${i}`);
    let last = Number.POSITIVE_INFINITY;
    for (let left = t.queue.sizes.active; left > 0; left--) {
      const { pod: popped } = await t.queue.pop(t.stop.signal);
      expect(popped.spec.priority).toBeLessThanOrEqual(last);
      last = popped.spec.priority!;
      t.queue.done(popped);
    }
  });
});
