import { describe, expect, test } from "vitest";
import type { Deployment, ReplicaSet } from "#model/gen/apps-v1.ts";
import {
  annotationsOf,
  desiredReplicasAnnotation,
  fenceposts,
  isScaling,
  maxReplicasAnnotation,
  nextRevision,
  planCleanup,
  planCurrent,
  planOld,
  planProportional,
  planRolloutStatus,
  revisionAnnotation,
  revisionHistoryAnnotation,
  splitSets,
  templateHash,
} from "./plan.ts";

interface DeploymentInput {
  readonly replicas: number;
  readonly maxSurge?: number | string;
  readonly maxUnavailable?: number | string;
  readonly type?: "RollingUpdate" | "Recreate";
  readonly annotations?: Record<string, string>;
  readonly historyLimit?: number;
  readonly status?: Deployment["status"];
  readonly deadline?: number;
}
function deployment(input: DeploymentInput): Deployment {
  const { maxSurge = "25%", maxUnavailable = "25%" } = input;
  return {
    metadata: { name: "web", namespace: "ns", generation: 2, annotations: input.annotations ?? {} },
    spec: {
      replicas: input.replicas,
      selector: { matchLabels: { app: "web" } },
      strategy: { type: input.type ?? "RollingUpdate", rollingUpdate: { maxSurge, maxUnavailable } },
      ...(input.historyLimit === undefined ? {} : { revisionHistoryLimit: input.historyLimit }),
      ...(input.deadline === undefined ? {} : { progressDeadlineSeconds: input.deadline }),
      template: { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "web", image: "v2" }] } },
    },
    ...(input.status ? { status: input.status } : {}),
  } as Deployment;
}

interface SetInput {
  readonly name: string;
  readonly replicas: number;
  readonly available?: number;
  readonly actual?: number;
  readonly image?: string;
  readonly annotations?: Record<string, string>;
  readonly createdAt?: string;
}
function set(input: SetInput): ReplicaSet {
  return {
    metadata: {
      name: input.name,
      namespace: "ns",
      generation: 1,
      annotations: input.annotations ?? {},
      creationTimestamp: input.createdAt ?? "2026-01-01T00:00:00Z",
    },
    spec: {
      replicas: input.replicas,
      selector: { matchLabels: { app: "web" } },
      template: {
        metadata: { labels: { app: "web", "pod-template-hash": input.name } },
        spec: { containers: [{ name: "web", image: input.image ?? "v1" }] },
      },
    },
    status: {
      replicas: input.actual ?? input.replicas,
      availableReplicas: input.available ?? input.replicas,
      observedGeneration: 1,
    },
  } as ReplicaSet;
}

describe("bounds of a rollout", () => {
  test.each([
    ["percentages: surge up, unavailable down", 10, "25%", "25%", 3, 2],
    ["both round to zero: one may be unavailable", 1, 0, "25%", 0, 1],
    ["numbers", 3, 2, 1, 2, 1],
    ["whole", 4, "100%", "0%", 4, 0],
  ] as const)("%s", (_, replicas, maxSurge, maxUnavailable, surge, unavailable) => {
    expect(fenceposts(deployment({ replicas, maxSurge, maxUnavailable }))).toEqual({
      maxSurge: surge,
      maxUnavailable: unavailable,
    });
  });
});

describe("size of the current replica set", () => {
  test.each([
    // upstream's TestDeploymentController_reconcileNewReplicaSet
    ["already there", 10, 0, 0, 10, 10],
    ["surge allows growth", 10, 2, 10, 0, 2],
    ["partial growth", 10, 2, 5, 0, 7],
    ["no room", 10, 2, 10, 2, 2],
    ["too large: shrinks to the wanted size", 10, 2, 2, 11, 10],
  ])("%s", (_, replicas, maxSurge, old, current, expected) => {
    const d = deployment({ replicas, maxSurge, maxUnavailable: 0 });
    const sets = [set({ name: "old", replicas: old }), set({ name: "new", replicas: current, image: "v2" })];
    expect(planCurrent(d, sets, current)).toBe(expected);
  });
});

describe("shrinking old replica sets", () => {
  const sizes = (d: Deployment, current: ReplicaSet, old: ReplicaSet[]) =>
    Object.fromEntries(planOld(d, current, old).map((s) => [s.set.metadata.name, s.replicas]));
  test("all available, nothing may be missing: as much as the new one has available", () => {
    const d = deployment({ replicas: 10, maxSurge: 2, maxUnavailable: 0 });
    expect(sizes(d, set({ name: "new", replicas: 2, available: 2 }), [set({ name: "old", replicas: 10 })])).toEqual({
      old: 8,
    });
  });
  test("new pods that are not available yet hold the old ones", () => {
    const d = deployment({ replicas: 10, maxSurge: 2, maxUnavailable: 0 });
    expect(sizes(d, set({ name: "new", replicas: 2, available: 0 }), [set({ name: "old", replicas: 10 })])).toEqual({});
  });
  test("unhealthy old pods go first, also from a younger set", () => {
    const d = deployment({ replicas: 10, maxSurge: 0, maxUnavailable: 2 });
    const old = [
      set({ name: "a", replicas: 6, available: 6, createdAt: "2026-01-01T00:00:00Z" }),
      set({ name: "b", replicas: 4, available: 2, createdAt: "2026-01-02T00:00:00Z" }),
    ];
    expect(sizes(d, set({ name: "new", replicas: 0 }), old)).toEqual({ b: 2 });
  });
  test("never below the floor", () => {
    const d = deployment({ replicas: 10, maxSurge: 0, maxUnavailable: 2 });
    expect(sizes(d, set({ name: "new", replicas: 2, available: 0 }), [set({ name: "old", replicas: 8 })])).toEqual({});
  });
});

describe("scaling in the middle of a rollout", () => {
  const noted = (replicas: number, max: number) => ({
    [desiredReplicasAnnotation]: String(replicas),
    [maxReplicasAnnotation]: String(max),
  });
  const sizes = (d: Deployment, current: ReplicaSet | undefined, old: ReplicaSet[]) =>
    Object.fromEntries(planProportional(d, current, old).map((s) => [s.set.metadata.name, s.replicas]));
  test("it is noticed by the size annotation", () => {
    const d = deployment({ replicas: 5 });
    expect(isScaling(d, [set({ name: "a", replicas: 3, annotations: noted(3, 4) })])).toBe(true);
    expect(isScaling(d, [set({ name: "a", replicas: 3, annotations: noted(5, 7) })])).toBe(false);
    expect(isScaling(d, [set({ name: "a", replicas: 0, annotations: noted(3, 4) })])).toBe(false);
  });
  test("one live set takes the whole size", () => {
    expect(
      sizes(deployment({ replicas: 5 }), set({ name: "new", replicas: 0 }), [set({ name: "old", replicas: 3 })]),
    ).toEqual({ old: 5 });
  });
  test("growth is shared in proportion and sums up exactly", () => {
    const d = deployment({ replicas: 20, maxSurge: 0, maxUnavailable: 1 });
    const current = set({ name: "new", replicas: 4, annotations: noted(10, 10), createdAt: "2026-01-02T00:00:00Z" });
    const got = sizes(d, current, [set({ name: "old", replicas: 6, annotations: noted(10, 10) })]);
    expect(got).toEqual({ old: 12, new: 8 });
  });
  test("leftovers of rounding go to the largest", () => {
    const d = deployment({ replicas: 7, maxSurge: 0, maxUnavailable: 1 });
    const old = ["a", "b", "c"].map((name, i) =>
      set({
        name,
        replicas: 2 - (i === 2 ? 1 : 0),
        annotations: noted(5, 5),
        createdAt: `2026-01-0${i + 1}T00:00:00Z`,
      }),
    );
    const got = sizes(d, undefined, old);
    expect(Object.values(got).reduce<number>((a, b) => a + Number(b), 0)).toBe(7);
  });
  test("a saturated new set lets all others go", () => {
    const d = deployment({ replicas: 3 });
    const current = set({ name: "new", replicas: 3, available: 3, annotations: noted(3, 4) });
    expect(sizes(d, current, [set({ name: "old", replicas: 2 })])).toEqual({ old: 0 });
  });
});

test("history: lowest revisions go, but only what is empty and observed", () => {
  const old = [
    set({ name: "r1", replicas: 0, annotations: { [revisionAnnotation]: "1" } }),
    set({ name: "r2", replicas: 0, actual: 1, annotations: { [revisionAnnotation]: "2" } }),
    set({ name: "r3", replicas: 0, annotations: { [revisionAnnotation]: "3" } }),
    set({ name: "r10", replicas: 0, annotations: { [revisionAnnotation]: "10" } }),
  ];
  const names = (limit: number) =>
    planCleanup(deployment({ replicas: 1, historyLimit: limit }), old).map((s) => s.metadata.name);
  expect(names(1)).toEqual(["r1", "r3"]);
  expect(names(0)).toEqual(["r1", "r3", "r10"]);
  expect(names(4)).toEqual([]);
});

test.each([
  [[], 1n],
  [["2", "10", "9"], 11n],
  [["3546343826724305832", "1"], 3546343826724305833n],
  [["none", "-4", "99999999999999999999"], 1n],
])("after revisions %j comes %s", (revisions, next) => {
  const old = revisions.map((revision, i) =>
    set({ name: `r${i}`, replicas: 0, annotations: { [revisionAnnotation]: revision } }),
  );
  expect(nextRevision(old)).toBe(next);
});

test("annotations: the deployment's but its own bookkeeping; a rolled-back set remembers its earlier revisions", () => {
  const d = deployment({
    replicas: 4,
    annotations: { note: "x", [revisionAnnotation]: "5", "kubectl.kubernetes.io/last-applied-configuration": "{}" },
  });
  expect(annotationsOf(d, undefined, 3n)).toEqual({
    note: "x",
    [revisionAnnotation]: "3",
    [desiredReplicasAnnotation]: "4",
    [maxReplicasAnnotation]: "5",
  });
  const back = set({ name: "old", replicas: 0, annotations: { [revisionAnnotation]: "1" } });
  expect(annotationsOf(d, back, 3n)).toMatchObject({ [revisionAnnotation]: "3", [revisionHistoryAnnotation]: "1" });
  const newest = set({ name: "new", replicas: 0, annotations: { note: "x", [revisionAnnotation]: "3" } });
  expect(annotationsOf(d, newest, 3n)).toEqual({ note: "x", [revisionAnnotation]: "3" });
});

test("templates are compared without the hash label, and hashed without regard to the order of fields", () => {
  const d = deployment({ replicas: 1 });
  const { current, old } = splitSets(d, [
    set({ name: "a", replicas: 1 }),
    set({ name: "b", replicas: 1, image: "v2" }),
  ]);
  expect([current?.metadata.name, old.map((s) => s.metadata.name)]).toEqual(["b", ["a"]]);
  const hash = templateHash(d.spec.template, undefined);
  const { spec, metadata } = d.spec.template;
  expect(templateHash({ spec: spec!, metadata: metadata! }, undefined)).toBe(hash);
  expect(templateHash(d.spec.template, 1)).not.toBe(hash);
  expect(hash).toMatch(/^[bcdfghjklmnpqrstvwxz2456789]{5,10}$/);
});

describe("the Progressing condition", () => {
  const now = "2026-01-01T01:00:00Z";
  const time = { now, nowMs: Date.parse(now) };
  const progressing = (reason: string, lastUpdateTime: string) => ({
    type: "Progressing",
    status: "True",
    reason,
    message: "",
    lastUpdateTime,
    lastTransitionTime: lastUpdateTime,
  });
  const reasonOf = (d: Deployment, current: ReplicaSet) =>
    planRolloutStatus(d, current, [], time).conditions?.find((c) => c.type === "Progressing")?.reason;
  test.each([
    ["complete", 2, 2, "NewReplicaSetCreated", "2026-01-01T00:59:00Z", "NewReplicaSetAvailable"],
    ["one more available", 2, 1, "NewReplicaSetCreated", "2026-01-01T00:59:00Z", "ReplicaSetUpdated"],
    ["stuck for too long", 2, 0, "ReplicaSetUpdated", "2026-01-01T00:40:00Z", "ProgressDeadlineExceeded"],
    ["stuck, but not yet too long", 2, 0, "ReplicaSetUpdated", "2026-01-01T00:59:00Z", "ReplicaSetUpdated"],
    [
      "available before, pods lost since",
      2,
      0,
      "NewReplicaSetAvailable",
      "2026-01-01T00:00:00Z",
      "NewReplicaSetAvailable",
    ],
  ])("%s", (_, replicas, available, reason, since, expected) => {
    const status = { replicas: 2, updatedReplicas: 2, conditions: [progressing(reason, since)] };
    const d = deployment({ replicas, deadline: 600, status });
    expect(reasonOf(d, set({ name: "new", replicas: 2, available, image: "v2" }))).toBe(expected);
  });
});

test("a failure of an old replica set shows where the new one has none", () => {
  const now = "2026-01-01T01:00:00Z";
  const failing = (name: string, message: string): ReplicaSet => {
    const one = set({ name, replicas: 1 });
    const condition = {
      type: "ReplicaFailure",
      status: "True",
      reason: "FailedCreate",
      message,
      lastTransitionTime: now,
    };
    return { ...one, status: { ...one.status!, conditions: [condition] } };
  };
  const d = deployment({ replicas: 1 });
  const messageOf = (current: ReplicaSet, old: ReplicaSet) =>
    planRolloutStatus(d, current, [old], { now, nowMs: Date.parse(now) }).conditions?.find(
      (c) => c.type === "ReplicaFailure",
    )?.message;
  expect(messageOf(set({ name: "new", replicas: 1 }), failing("old", "quota"))).toBe("quota");
  expect(messageOf(failing("new", "first"), failing("old", "quota"))).toBe("first");
  expect(messageOf(set({ name: "new", replicas: 1 }), set({ name: "old", replicas: 1 }))).toBeUndefined();
});
