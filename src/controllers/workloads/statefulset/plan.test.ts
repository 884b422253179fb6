import { describe, expect, test } from "vitest";
import type { StatefulSet } from "#model/gen/apps-v1.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { planSet, planStatus } from "./plan.ts";

const nowMs = Date.parse("2026-01-01T01:00:00Z");
interface SetOptions {
  readonly replicas: number;
  readonly parallel?: boolean;
  readonly partition?: number;
  readonly onDelete?: boolean;
  readonly current?: string;
  readonly minReadySeconds?: number;
  readonly start?: number;
}
const set = (o: SetOptions): StatefulSet =>
  ({
    metadata: { name: "x", namespace: "ns" },
    spec: {
      replicas: o.replicas,
      podManagementPolicy: o.parallel ? "Parallel" : "OrderedReady",
      updateStrategy: o.onDelete
        ? { type: "OnDelete" }
        : { type: "RollingUpdate", rollingUpdate: { partition: o.partition ?? 0 } },
      ...(o.minReadySeconds ? { minReadySeconds: o.minReadySeconds } : {}),
      ...(o.start ? { ordinals: { start: o.start } } : {}),
    },
    status: { replicas: 0, availableReplicas: 0, currentRevision: o.current ?? "new", updateRevision: "new" },
  }) as unknown as StatefulSet;
/**
 * "2" ready and new; "2o" of the old revision; "2-" not ready; "2x" deleting; "2f" failed; "2p" pending; "2y" ready
 * just now.
 */
const pod = (text: string): Pod => {
  const is = (mark: string) => text.includes(mark);
  const since = is("y") ? "2026-01-01T00:59:59Z" : "2026-01-01T00:00:00Z";
  return {
    metadata: {
      name: `x-${Number.parseInt(text, 10)}`,
      labels: { "controller-revision-hash": is("o") ? "old" : "new" },
      ...(is("x") ? { deletionTimestamp: "2026-01-01T00:59:00Z" } : {}),
    },
    spec: { containers: [] },
    status: {
      phase: is("f") ? "Failed" : is("p") ? "Pending" : "Running",
      conditions: [
        { type: "Ready", status: is("-") || is("f") || is("p") ? "False" : "True", lastTransitionTime: since },
      ],
    },
  } as unknown as Pod;
};
const plan = (options: SetOptions, pods: string) => {
  const input = { set: set(options), pods: pods.split(" ").filter(Boolean).map(pod), updateRevision: "new", nowMs };
  const { create, remove, pending, isWaitingForAge } = planSet(input);
  return [
    ...create.map((c) => `+${c.ordinal}${c.isUpdated ? "" : "o"}`),
    ...remove.map((p) => `-${p.metadata.name?.slice(2)}`),
    ...pending.map((p) => `claims of ${p.metadata.name?.slice(2)}`),
    ...(isWaitingForAge ? ["wait"] : []),
  ].join(" ");
};

describe.each<[string, SetOptions, readonly (readonly [pods: string, step: string])[]]>([
  [
    "growing in order",
    { replicas: 3 },
    [
      ["", "+0"],
      ["0-", ""],
      ["0", "+1"],
      ["0 1", "+2"],
      ["0 1 2", ""],
      ["0 2", "+1"],
      ["0x", ""],
      ["0p", "claims of 0"],
    ],
  ],
  [
    "growing at once",
    { replicas: 3, parallel: true },
    [
      ["", "+0 +1 +2"],
      ["1-", "+0 +2"],
      ["0p 1x 2p", "claims of 0 claims of 2"],
    ],
  ],
  [
    "shrinking from the end",
    { replicas: 1 },
    [
      ["0 1 2", "-2"],
      ["0 1 2x", ""],
      ["0 1", "-1"],
      ["0- 1", ""],
      ["0 1 2-", "-2"],
      ["0 1- 2", "-2"],
      ["0 1- 2-", ""],
      ["0 1x 2-", ""],
    ],
  ],
  [
    "shrinking to none stops where none works",
    { replicas: 0 },
    [
      ["0- 1- 2-", ""],
      ["0- 1 2", "-2"],
      ["0-", "-0"],
    ],
  ],
  ["shrinking at once", { replicas: 1, parallel: true }, [["0 1 2", "-2 -1"]]],
  [
    "replacing what failed",
    { replicas: 2 },
    [
      ["0f 1", "-0"],
      ["0x 1", ""],
    ],
  ],
  [
    "rolling from the end",
    { replicas: 3, current: "old" },
    [
      ["0o 1o 2o", "-2"],
      ["0o 1o 2ox", ""],
      ["0o 1o", "+2"],
      ["0o 1o 2-", ""],
      ["0o 1o 2", "-1"],
      ["0o 2", "+1"],
      ["1o 2", "+0o"],
    ],
  ],
  [
    "holding at the partition",
    { replicas: 3, current: "old", partition: 2 },
    [
      ["0o 1o 2", ""],
      ["0o 2", "+1o"],
      ["0o 1o 2o", "-2"],
    ],
  ],
  [
    "rolling only what is deleted",
    { replicas: 2, current: "old", onDelete: true },
    [
      ["0o 1o", ""],
      ["0o", "+1"],
    ],
  ],
  [
    "waiting for age",
    { replicas: 2, minReadySeconds: 10 },
    [
      ["0y", "wait"],
      ["0", "+1"],
      ["0 1 2y", "wait"],
    ],
  ],
  [
    "counting from five",
    { replicas: 2, start: 5 },
    [
      ["", "+5"],
      ["5", "+6"],
      ["0 5 6", "-0"],
    ],
  ],
  [
    "holding at the partition, counting from five",
    { replicas: 3, start: 5, current: "old", partition: 1 },
    [
      ["5o 6o 7o", "-7"],
      ["5o 6 7", ""],
      ["6 7", "+5o"],
    ],
  ],
])("%s", (_, options, steps) => {
  test.each(steps)("[%s] -> [%s]", (pods, step) => {
    expect(plan(options, pods)).toBe(step);
  });
});

test("pods that have lost the labels of their place are named", () => {
  const labelled = (ordinal: number, more: Record<string, string>) => {
    const one = pod(String(ordinal));
    return { ...one, metadata: { ...one.metadata, labels: { ...one.metadata.labels, ...more } } };
  };
  const place = (ordinal: number) => ({
    "statefulset.kubernetes.io/pod-name": `x-${ordinal}`,
    "apps.kubernetes.io/pod-index": String(ordinal),
  });
  const pods = [
    labelled(0, place(0)),
    labelled(1, { ...place(1), "statefulset.kubernetes.io/pod-name": "x-0" }),
    labelled(2, { "statefulset.kubernetes.io/pod-name": "x-2" }),
    pod("3x"),
  ];
  const { nameless } = planSet({ set: set({ replicas: 4 }), pods, updateRevision: "new", nowMs });
  expect(nameless.map((one) => one.metadata.name)).toEqual(["x-1", "x-2"]);
});

test.each([
  [false, "new"],
  [true, "old"],
])("when all pods are new the roll is over, unless it is by hand (%s): %s", (onDelete, expected) => {
  const input = { set: set({ replicas: 2, current: "old", onDelete }), pods: [pod("0"), pod("1")] };
  const status = planStatus({ ...input, updateRevision: "new", currentRevision: "old", nowMs });
  expect(status.currentRevision).toBe(expected);
});
