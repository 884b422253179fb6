import { describe, expect, test } from "vitest";
import type { Job } from "#model/gen/batch-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { formatIndexes, parseIndexes } from "./index-text.ts";
import { completionIndexKey, trackingFinalizer } from "./indexes.ts";
import { countEnded, failurePauseMs, planFailure, planPods, planSuccess } from "./plan.ts";

const nowMs = Date.parse("2026-01-01T01:00:00Z");
const job = (spec: Partial<Job["spec"]> = {}, status: Job["status"] = {}): Job =>
  ({
    metadata: { name: "work", namespace: "ns" },
    spec: { parallelism: 2, completions: 5, template: { spec: { restartPolicy: "Never", containers: [] } }, ...spec },
    status,
  }) as Job;
let uid = 0;
function pod(
  phase: string,
  options: { index?: number; untracked?: boolean; deleting?: boolean; restarts?: number } = {},
): Pod {
  const { index, untracked, deleting, restarts = 0 } = options;
  return {
    metadata: {
      name: `p${++uid}`,
      uid: `u${uid}`,
      finalizers: untracked ? [] : [trackingFinalizer],
      ...(deleting ? { deletionTimestamp: "2026-01-01T00:59:00Z" } : {}),
      ...(index === undefined ? {} : { annotations: { [completionIndexKey]: String(index) } }),
    },
    spec: { containers: [] },
    status: { phase, containerStatuses: [{ name: "c", restartCount: restarts }] },
  } as unknown as Pod;
}

test.each([
  [[], ""],
  [[3], "3"],
  [[0, 1], "0,1"],
  [[0, 1, 2, 4, 6, 7, 8], "0-2,4,6-8"],
])("indexes %j are written %j and read back", (indexes, text) => {
  expect(formatIndexes(indexes)).toBe(text);
  expect(parseIndexes(text, 100)).toEqual(indexes);
});
test("indexes beyond the completions are dropped, nonsense too", () => {
  expect(parseIndexes("0-9,x,12", 4)).toEqual([0, 1, 2, 3]);
});

describe("counting", () => {
  test("each pod once: in the status, noted there by uid, or new", () => {
    const noted = pod("Succeeded");
    const pods = [noted, pod("Succeeded"), pod("Failed"), pod("Running"), pod("Succeeded", { untracked: true })];
    const status = { succeeded: 2, failed: 1, uncountedTerminatedPods: { succeeded: [noted.metadata.uid!] } };
    expect(countEnded(job({}, status), pods)).toMatchObject({ succeeded: 4, failed: 2 });
  });
  test("a pod being deleted has failed, unless it has succeeded", () => {
    const pods = [pod("Running", { deleting: true }), pod("Succeeded", { deleting: true })];
    expect(countEnded(job(), pods)).toMatchObject({ succeeded: 1, failed: 1 });
  });
});

describe("failing", () => {
  const reason = (j: Job, pods: Pod[]) => planFailure(j, pods, countEnded(j, pods), nowMs)?.reason;
  test("more failures than the limit", () => {
    expect(reason(job({ backoffLimit: 1 }), [pod("Failed"), pod("Failed")])).toBe("BackoffLimitExceeded");
    expect(reason(job({ backoffLimit: 2 }), [pod("Failed"), pod("Failed")])).toBeUndefined();
  });
  test("a limit that was lowered counts for what has failed before", () => {
    expect(reason(job({ backoffLimit: 1 }, { failed: 3 }), [])).toBe("BackoffLimitExceeded");
    expect(reason(job({ backoffLimit: 3 }, { failed: 3 }), [])).toBeUndefined();
  });
  test("restarts count where containers are restarted in place", () => {
    const template = { spec: { restartPolicy: "OnFailure", containers: [] } };
    expect(reason(job({ backoffLimit: 3, template }), [pod("Running", { restarts: 3 })])).toBe("BackoffLimitExceeded");
    expect(reason(job({ backoffLimit: 3, template }), [pod("Running", { restarts: 2 })])).toBeUndefined();
  });
  test("past the deadline", () => {
    const status = { startTime: "2026-01-01T00:59:50Z" };
    expect(reason(job({ activeDeadlineSeconds: 10 }, status), [])).toBe("DeadlineExceeded");
    expect(reason(job({ activeDeadlineSeconds: 11 }, status), [])).toBeUndefined();
    expect(reason(job({ activeDeadlineSeconds: 10, suspend: true }, status), [])).toBeUndefined();
  });
});

test.each([
  ["enough", 5, 5, 0, true],
  ["not enough", 5, 4, 0, false],
  ["enough, but some still run", 5, 5, 1, false],
  ["work queue: one success is enough", undefined, 1, 0, true],
  ["work queue: none yet", undefined, 0, 0, false],
])("success: %s", (_, completions, succeeded, active, expected) => {
  const j = job();
  if (completions === undefined) delete j.spec.completions;
  else j.spec.completions = completions;
  expect(planSuccess(j, succeeded, active) !== undefined).toBe(expected);
});

describe("pods to create and delete", () => {
  const plan = (j: Job, pods: Pod[], succeeded = 0) => {
    const { create, indexes, remove } = planPods(j, pods, succeeded, nowMs);
    return { create, indexes, remove: remove.length };
  };
  test.each([
    ["nothing runs", {}, 0, 0, { create: 2, indexes: [], remove: 0 }],
    ["one missing", {}, 1, 0, { create: 1, indexes: [], remove: 0 }],
    ["near the end", {}, 0, 4, { create: 1, indexes: [], remove: 0 }],
    ["too many", { parallelism: 1 }, 3, 0, { create: 0, indexes: [], remove: 2 }],
    ["suspended", { suspend: true }, 2, 0, { create: 0, indexes: [], remove: 2 }],
  ])("%s", (_, spec, running, succeeded, expected) => {
    const pods = Array.from({ length: running }, () => pod("Running"));
    expect(plan(job(spec), pods, succeeded)).toEqual(expected);
  });
  test("indexed: the lowest free ones", () => {
    const j = job({ completionMode: "Indexed", completions: 5, parallelism: 3 }, { completedIndexes: "0,2" });
    expect(plan(j, [pod("Running", { index: 1 })], 2)).toEqual({ create: 2, indexes: [3, 4], remove: 0 });
  });
  test("indexed: a second pod of an index goes", () => {
    const j = job({ completionMode: "Indexed", completions: 3, parallelism: 3 });
    expect(plan(j, [pod("Running", { index: 1 }), pod("Running", { index: 1 })])).toEqual({
      create: 0,
      indexes: [],
      remove: 1,
    });
  });
});

test("pauses after failures double from 10 s to 10 min", () => {
  expect([0, 1, 2, 3, 7, 50].map(failurePauseMs)).toEqual([0, 10_000, 20_000, 40_000, 600_000, 600_000]);
});
