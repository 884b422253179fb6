import { expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import { disruptedOf, needsScale, planFailure, planStatus, wantedOf } from "./plan.ts";

const nowMs = Date.parse("2026-01-01T00:10:00Z");
const budget = (spec: PodDisruptionBudget["spec"], disruptedPods: Record<string, string> = {}): PodDisruptionBudget =>
  ({ metadata: { name: "b", namespace: "ns", generation: 3 }, spec, status: { disruptedPods } }) as never;
const pod = (name: string, ready = true, deletionTimestamp?: string): Pod =>
  ({
    metadata: { name, namespace: "ns", ...(deletionTimestamp ? { deletionTimestamp } : {}) },
    status: { conditions: [{ type: "Ready", status: ready ? "True" : "False" }] },
  }) as never;
const allowed = (b: PodDisruptionBudget, pods: Pod[], scale: number) =>
  planStatus(b, pods, wantedOf(b, pods.length, scale), disruptedOf(b, pods, nowMs), nowMs).disruptionsAllowed;

test.each([
  [{ minAvailable: 2 }, 3, 3, { expected: 3, healthy: 2 }],
  [{ minAvailable: "50%" }, 3, 3, { expected: 3, healthy: 2 }],
  [{ minAvailable: "28%" }, 7, 7, { expected: 7, healthy: 2 }],
  [{ maxUnavailable: 1 }, 3, 3, { expected: 3, healthy: 2 }],
  [{ maxUnavailable: "34%" }, 3, 3, { expected: 3, healthy: 1 }],
  [{ maxUnavailable: "100%" }, 3, 3, { expected: 3, healthy: 0 }],
  [{ maxUnavailable: 9 }, 3, 3, { expected: 3, healthy: 0 }],
  // Controllers want more than there are.
  [{ maxUnavailable: 1 }, 1, 5, { expected: 5, healthy: 4 }],
])("%j of %i pods, %i wanted", (spec, podCount, scale, wanted) => {
  expect(wantedOf(budget(spec), podCount, scale)).toEqual(wanted);
});
test("numbers need no controller, shares do", () => {
  expect(needsScale(budget({ minAvailable: 1 }))).toBe(false);
  expect(needsScale(budget({ minAvailable: "1%" }))).toBe(true);
  expect(needsScale(budget({ maxUnavailable: 1 }))).toBe(true);
});
test("only ready pods count, and none that is going", () => {
  const b = budget({ minAvailable: 1 });
  expect(allowed(b, [pod("a"), pod("b"), pod("c")], 0)).toBe(2);
  expect(allowed(b, [pod("a"), pod("b", false), pod("c", true, "2026-01-01T00:00:00Z")], 0)).toBe(0);
  expect(allowed(b, [], 0)).toBe(0);
});
test("a granted eviction counts until it is too old", () => {
  const recent = budget({ minAvailable: 1 }, { a: "2026-01-01T00:09:00Z", gone: "2026-01-01T00:09:00Z" });
  expect(allowed(recent, [pod("a"), pod("b")], 0)).toBe(0);
  expect(disruptedOf(recent, [pod("a")], nowMs)).toMatchObject({
    pending: { a: "2026-01-01T00:09:00Z" },
    againMs: 60_000,
  });
  const old = budget({ minAvailable: 1 }, { a: "2026-01-01T00:08:00Z" });
  expect(allowed(old, [pod("a"), pod("b")], 0)).toBe(1);
  expect(disruptedOf(old, [pod("a")], nowMs)).toMatchObject({ pending: {}, stayed: [{ metadata: { name: "a" } }] });
});
test("where it cannot be told, nothing is allowed", () => {
  expect(planFailure(budget({ maxUnavailable: 1 }), "why", nowMs)).toMatchObject({
    disruptionsAllowed: 0,
    observedGeneration: 3,
    conditions: [{ type: "DisruptionAllowed", status: "False", reason: "SyncFailed", message: "why" }],
  });
});
