import { expect, test } from "vitest";
import { lookAgainMs, planConditions } from "./plan.ts";

const sweep = (remaining: Record<string, number>, finalizers: Record<string, number> = {}, errors: string[] = []) => ({
  remaining: new Map(Object.entries(remaining)),
  finalizers: new Map(Object.entries(finalizers)),
  errors,
});
const at = (conditions: ReturnType<typeof planConditions>, type: string) => conditions.find((c) => c.type === type);

test("what remains is named, sorted, and the time moves only with the status", () => {
  const first = planConditions([], sweep({ "pods.": 2, "deployments.apps": 1 }, { "a/b": 1 }), "t1");
  expect(first).toHaveLength(5);
  expect(at(first, "NamespaceContentRemaining")).toEqual({
    type: "NamespaceContentRemaining",
    status: "True",
    reason: "SomeResourcesRemain",
    message: "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
    lastTransitionTime: "t1",
  });
  const second = planConditions(first, sweep({ "pods.": 1 }), "t2");
  expect(at(second, "NamespaceContentRemaining")?.lastTransitionTime).toBe("t1");
  expect(at(second, "NamespaceFinalizersRemaining")).toMatchObject({ status: "False", lastTransitionTime: "t2" });
  expect(planConditions(second, sweep({ "pods.": 1 }), "t3")).toBe(second);
});

test("errors are told", () => {
  const conditions = planConditions([], sweep({}, {}, ["boom"]), "t");
  expect(at(conditions, "NamespaceDeletionContentFailure")).toMatchObject({
    status: "True",
    reason: "ContentDeletionFailed",
    message: "Failed to delete all resource types, 1 remaining: boom",
  });
});

test("looks again after half the grace", () => {
  expect([0, 1, 30].map(lookAgainMs)).toEqual([1000, 1000, 16_000]);
});
