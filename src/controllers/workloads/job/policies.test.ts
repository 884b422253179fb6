import { expect, test } from "vitest";
import type { Job, PodFailurePolicyRule } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { failureCounts, hasFailed, judgeFailure, metSuccessRule } from "./policies.ts";

const job = (spec: Partial<Job["spec"]>): Job =>
  ({
    metadata: { name: "work", namespace: "ns" },
    spec: { completions: 5, completionMode: "Indexed", ...spec },
  }) as Job;
function pod(exitCodes: Record<string, number>, conditions: string[] = [], phase = "Failed"): Pod {
  return {
    metadata: { name: "p", namespace: "ns" },
    status: {
      phase,
      conditions: conditions.map((type) => ({ type, status: "True" })),
      containerStatuses: Object.entries(exitCodes).map(([name, exitCode]) => ({
        name,
        state: { terminated: { exitCode } },
      })),
    },
  } as unknown as Pod;
}
const onExitCodes = (action: string, operator: string, values: number[], containerName?: string) =>
  ({ action, onExitCodes: { operator, values, ...(containerName ? { containerName } : {}) } }) as PodFailurePolicyRule;
const disrupted = { action: "Ignore", onPodConditions: [{ type: "DisruptionTarget", status: "True" }] };

test.each([
  [
    "the first rule that matches",
    [onExitCodes("FailJob", "In", [42]), onExitCodes("Ignore", "In", [42])],
    pod({ a: 42 }),
    "FailJob",
  ],
  ["not in", [onExitCodes("FailJob", "NotIn", [1, 2])], pod({ a: 3 }), "FailJob"],
  ["not in, but it is", [onExitCodes("FailJob", "NotIn", [1, 2])], pod({ a: 2 }), "Count"],
  ["zero is no failure to any rule", [onExitCodes("FailJob", "NotIn", [1])], pod({ a: 0 }), "Count"],
  ["another container", [onExitCodes("FailJob", "In", [1], "b")], pod({ a: 1, b: 2 }), "Count"],
  ["that container", [onExitCodes("FailIndex", "In", [2], "b")], pod({ a: 1, b: 2 }), "FailIndex"],
  ["a condition", [disrupted], pod({ a: 137 }, ["DisruptionTarget"]), "Ignore"],
  ["no condition", [disrupted], pod({ a: 137 }), "Count"],
])("failure policy: %s", (_, rules, failed, action) => {
  expect(judgeFailure(job({ podFailurePolicy: { rules } }), failed).action).toBe(action);
});
test("the words name container, pod, code and rule", () => {
  const rules = [disrupted, onExitCodes("FailJob", "In", [42])];
  expect(judgeFailure(job({ podFailurePolicy: { rules } }), pod({ main: 42 })).message).toBe(
    "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1",
  );
  expect(judgeFailure(job({ podFailurePolicy: { rules } }), pod({}, ["DisruptionTarget"])).message).toBe(
    "Pod ns/p has condition DisruptionTarget matching Ignore rule at index 0",
  );
});
test("what is ignored is not counted", () => {
  const ignoring = job({ podFailurePolicy: { rules: [disrupted] } });
  expect(failureCounts(ignoring, pod({ a: 1 }, ["DisruptionTarget"]))).toBe(false);
  expect(failureCounts(ignoring, pod({ a: 1 }))).toBe(true);
});
test("a pod being deleted has failed only where it is replaced at once", () => {
  const going = pod({}, [], "Running");
  going.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
  expect(hasFailed(job({}), going)).toBe(true);
  expect(hasFailed(job({ podReplacementPolicy: "Failed" }), going)).toBe(false);
  expect(hasFailed(job({ podReplacementPolicy: "Failed" }), pod({ a: 1 }))).toBe(true);
});
test.each([
  ["all of some indexes", [{ succeededIndexes: "0,2-3" }], [0, 2], undefined],
  ["all of some indexes", [{ succeededIndexes: "0,2-3" }], [0, 2, 3], "Matched rules at index 0"],
  ["any two", [{ succeededCount: 2 }], [1, 4], "Matched rules at index 0"],
  ["any two", [{ succeededCount: 2 }], [1], undefined],
  ["one of some", [{ succeededIndexes: "1-3", succeededCount: 1 }], [0, 4], undefined],
  ["the second rule", [{ succeededIndexes: "4" }, { succeededCount: 1 }], [0], "Matched rules at index 1"],
])("success policy: %s %j with %j done: %s", (_, rules, done, message) => {
  expect(metSuccessRule(job({ successPolicy: { rules } }), done)).toBe(message);
});
