import { describe, expect, test } from "vitest";
import type { Pod } from "#model/gen/core-v1.ts";
import { byAverage, byUtilization, byValue, byValuePerPod, groupPods, type PodMetric } from "./replicas.ts";

const nowMs = Date.parse("2026-01-01T01:00:00Z");
const at = (secondsAgo: number) => new Date(nowMs - secondsAgo * 1000).toISOString();

interface Some {
  readonly phase?: string;
  readonly ready?: "True" | "False";
  readonly deleting?: boolean;
  /** Seconds ago. */
  readonly started?: number;
  readonly changed?: number;
  readonly request?: string | undefined;
  /** Thousandths of a core. */
  readonly uses?: number;
  readonly window?: number;
}
const podOf = (name: string, some: Some): Pod =>
  ({
    metadata: { name, namespace: "n", ...(some.deleting ? { deletionTimestamp: at(1) } : {}) },
    spec: {
      containers: [{ name: "c", resources: { requests: { cpu: "request" in some ? some.request : "1" } } }],
    },
    status: {
      phase: some.phase ?? "Running",
      startTime: at(some.started ?? 3600),
      conditions: [
        { type: "Ready", status: some.ready ?? "True", lastTransitionTime: at(some.changed ?? some.started ?? 3600) },
      ],
    },
  }) as never;
function build(list: readonly Some[]) {
  const pods = list.map((some, i) => podOf(`p${i}`, some));
  const metrics = new Map<string, PodMetric>();
  for (const [i, { uses, window = 60 }] of list.entries()) {
    if (uses !== undefined) metrics.set(`p${i}`, { value: uses, atMs: nowMs, windowMs: window * 1000 });
  }
  return { pods, metrics };
}

describe("share of the request", () => {
  const cases: [string, readonly Some[], target: number, replicas: number, utilization: number, current?: number][] = [
    ["up", [{ uses: 300 }, { uses: 500 }, { uses: 700 }], 30, 5, 50],
    ["down", [{ uses: 100 }, { uses: 300 }, { uses: 500 }, { uses: 250 }, { uses: 250 }], 50, 3, 28],
    ["within the tolerance above", [{ uses: 1000 }, { uses: 1010 }, { uses: 1020 }], 92, 3, 101],
    ["within the tolerance below", [{ uses: 910 }, { uses: 910 }], 100, 2, 91],
    ["just outside of it", [{ uses: 890 }, { uses: 890 }, { uses: 890 }, { uses: 890 }, { uses: 890 }], 100, 5, 89, 6],
    ["29 percent stays 29", [{ uses: 290 }], 29, 1, 29],
    ["pods that are not heard of use nothing on the way up", [{ uses: 1000 }, {}], 30, 4, 100, 2],
    ["and all of their request on the way down", [{ uses: 100 }, { uses: 100 }, {}], 50, 3, 10],
    ["never past where they began", [{ uses: 400 }, {}, {}], 30, 3, 40],
    ["unready pods dampen going up", [{ uses: 600 }, { uses: 600 }, { phase: "Pending" }], 30, 4, 60],
    ["and are left out going down", [{ uses: 100 }, { uses: 100 }, { phase: "Pending" }], 50, 1, 10, 3],
    [
      "failed and ending pods do not count",
      [{ uses: 600 }, { phase: "Failed" }, { deleting: true, uses: 1 }],
      30,
      2,
      60,
    ],
    ["a target above 100 is what missing pods use", [{ uses: 100 }, { uses: 100 }, {}], 200, 2, 10],
  ];
  test.each(cases)("%s", (_, list, target, replicas, utilization, current) => {
    const { pods, metrics } = build(list);
    const input = { pods, metrics, resource: "cpu", container: undefined, target, nowMs };
    const proposal = byUtilization({ ...input, currentReplicas: current ?? list.length });
    expect([proposal.replicas, proposal.utilization]).toEqual([replicas, utilization]);
  });
  test.each([
    ["no pods", [], "no pods returned by selector while calculating replica count"],
    ["nothing measured", [{}], "did not receive metrics for targeted pods (pods might be unready)"],
    [
      "only unready ones",
      [{ phase: "Pending", uses: 5 }],
      "did not receive metrics for targeted pods (pods might be unready)",
    ],
    ["no request", [{ uses: 5, request: undefined }], "missing request for cpu in container c of Pod p0"],
    ["nothing requested", [{ uses: 5, request: "0" }], "no metrics returned matched known pods"],
  ] as [string, Some[], string][])("%s: refused in upstream's words", (_, list, message) => {
    const { pods, metrics } = build(list);
    const input = { pods, metrics, resource: "cpu", container: undefined, target: 50, nowMs };
    expect(() => byUtilization({ ...input, currentReplicas: 1 })).toThrow(message);
  });
  test("one container of several, and sidecars as containers", () => {
    const pod = {
      ...podOf("p0", {}),
      spec: {
        initContainers: [{ name: "side", restartPolicy: "Always", resources: { requests: { cpu: "500m" } } }],
        containers: [{ name: "c", resources: { requests: { cpu: "100m" } } }],
      },
    } as never as Pod;
    const metrics = new Map([["p0", { value: 300, atMs: nowMs, windowMs: 1000 }]]);
    const input = { pods: [pod], metrics, resource: "cpu", currentReplicas: 1, target: 100, nowMs };
    expect(byUtilization({ ...input, container: undefined }).utilization).toBe(50);
    expect(byUtilization({ ...input, container: "c" }).utilization).toBe(300);
  });
});

test.each([
  ["old and ready", { started: 3600 }, "ready"],
  ["old, unready since long after its start", { started: 3600, changed: 60, ready: "False" }, "ready"],
  ["old, never ready", { started: 3600, changed: 3590, ready: "False" }, "unready"],
  ["young, ready, measured since", { started: 200, changed: 100, window: 60 }, "ready"],
  ["young, ready, measured over before it was", { started: 200, changed: 30, window: 60 }, "unready"],
  ["young and unready", { started: 200, changed: 100, ready: "False" }, "unready"],
] as [string, Some, string][])("CPU of a pod that is %s", (_, some, wanted) => {
  const { pods, metrics } = build([{ ...some, uses: 1 }]);
  const groups = groupPods(pods, metrics, true, nowMs);
  expect(groups.readyCount === 1 ? "ready" : groups.unready.size === 1 ? "unready" : "else").toBe(wanted);
  // Memory is what it is from the start.
  expect(groupPods(pods, metrics, false, nowMs).readyCount).toBe(1);
});

test.each([
  ["up", [{ uses: 20_000 }, { uses: 10_000 }, { uses: 30_000 }], 15_000, 4, 20_000],
  ["down", [{ uses: 12_000 }, { uses: 12_000 }, { uses: 12_000 }, { uses: 12_000 }], 20_000, 3, 12_000],
  ["missing pods use the target on the way down", [{ uses: 5000 }, { uses: 5000 }, {}], 10_000, 2, 5000],
  ["and nothing on the way up", [{ uses: 50_000 }, {}, {}], 10_000, 5, 50_000],
] as [string, Some[], number, number, number][])("average of pods: %s", (_, list, target, replicas, usage) => {
  const { pods, metrics } = build(list);
  expect(byAverage({ pods, metrics, isCpu: false, currentReplicas: list.length, target, nowMs })).toEqual({
    replicas,
    usage,
  });
});

test("one value for all", () => {
  const { pods } = build([{}, {}, { ready: "False" }]);
  const input = { pods, target: 10_000, currentReplicas: 3 };
  expect(byValue({ ...input, value: 20_000 }).replicas).toBe(4);
  expect(byValue({ ...input, value: 10_900 }).replicas).toBe(3);
  expect(byValue({ ...input, value: 25_000, currentReplicas: 0 }).replicas).toBe(3);
  expect(byValuePerPod({ value: 50_000, target: 10_000, replicas: 3 })).toEqual({ replicas: 5, usage: 16_667 });
  expect(byValuePerPod({ value: 31_000, target: 10_000, replicas: 3 }).replicas).toBe(3);
  expect(byValuePerPod({ value: 31_000, target: 10_000, replicas: 0 })).toEqual({ replicas: 4, usage: 0 });
});
