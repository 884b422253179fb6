import { expect, test } from "vitest";
import type { HorizontalPodAutoscaler, MetricSpec } from "#model/gen/autoscaling-v2.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { selectorText } from "../runtime/selector.ts";
import { nothingRemembered } from "./behavior.ts";
import { planRound, type Reading, type Round, wantsMetrics } from "./plan.ts";

const nowMs = Date.parse("2026-01-01T01:00:00Z");
const long = "2026-01-01T00:00:00Z";
const pods = (count: number): Pod[] =>
  Array.from({ length: count }, (_, i) => ({
    metadata: { name: `p${i}`, namespace: "n" },
    spec: { containers: [{ name: "c", resources: { requests: { cpu: "100m", memory: "100Mi" } } }] },
    status: {
      phase: "Running",
      startTime: long,
      conditions: [{ type: "Ready", status: "True", lastTransitionTime: long }],
    },
  })) as never;
const each = (count: number, value: number): Reading => ({
  kind: "pods",
  metrics: new Map(Array.from({ length: count }, (_, i) => [`p${i}`, { value, atMs: nowMs, windowMs: 15_000 }])),
});
const cpu = (percent: number): MetricSpec =>
  ({
    type: "Resource",
    resource: { name: "cpu", target: { type: "Utilization", averageUtilization: percent } },
  }) as never;
const memory = (averageValue: string): MetricSpec =>
  ({ type: "Resource", resource: { name: "memory", target: { type: "AverageValue", averageValue } } }) as never;
const external = (target: object): MetricSpec =>
  ({
    type: "External",
    external: { metric: { name: "queue", selector: { matchLabels: { q: "a" } } }, target },
  }) as never;
const failure: Reading = { kind: "failure", message: "unable to get metrics for resource cpu: nobody there" };

const autoscaler = (metrics: MetricSpec[], status = {}): HorizontalPodAutoscaler =>
  ({
    metadata: { name: "h", namespace: "n" },
    spec: { scaleTargetRef: { kind: "Deployment", name: "d" }, minReplicas: 2, maxReplicas: 10, metrics },
    status,
  }) as never;
const round = (metrics: MetricSpec[], readings: Round["readings"], current = 3, status = {}) =>
  planRound({
    autoscaler: autoscaler(metrics, status),
    scale: { specReplicas: current, statusReplicas: current },
    ...{ pods: pods(current), readings, memory: nothingRemembered, nowMs, monotonicMs: nowMs, downWindowMs: 300_000 },
  });
const reasons = (decision: ReturnType<typeof planRound>) =>
  Object.fromEntries(decision.conditions.map((c) => [c.type, `${c.status} ${c.reason}`]));

test("up, with upstream's conditions and reason", () => {
  const decision = round([cpu(50)], [each(3, 100)]);
  expect(decision).toMatchObject({
    rescaleTo: 6,
    rescaleReason: "cpu resource utilization (percentage of request) above target",
    currentMetrics: [
      { type: "Resource", resource: { name: "cpu", current: { averageUtilization: 100, averageValue: "100m" } } },
    ],
    notes: [],
    failed: false,
  });
  expect(reasons(decision)).toEqual({
    AbleToScale: "True ReadyForNewScale",
    ScalingActive: "True ValidMetricFound",
    ScalingLimited: "False DesiredWithinRange",
  });
  const message = decision.conditions.find((c) => c.type === "ScalingActive")?.message;
  expect(message).toBe(
    "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)",
  );
});

test("the first round takes nothing away: what there was is remembered", () => {
  const decision = round([cpu(50)], [each(3, 10)]);
  expect(decision).toMatchObject({ rescaleTo: undefined, desiredReplicas: 3 });
  expect(reasons(decision)["AbleToScale"]).toBe("True ScaleDownStabilized");
  const later = planRound({
    autoscaler: autoscaler([cpu(50)]),
    scale: { specReplicas: 3, statusReplicas: 3 },
    ...{
      pods: pods(3),
      readings: [each(3, 10)],
      memory: decision.memory,
      nowMs,
      monotonicMs: nowMs + 301_000,
      downWindowMs: 300_000,
    },
  });
  expect(later).toMatchObject({ rescaleTo: 2, rescaleReason: "All metrics below target" });
  expect(reasons(later)["ScalingLimited"]).toBe("True TooFewReplicas");
});

test("the metric that asks for most counts", () => {
  const decision = round([cpu(50), memory("50Mi")], [each(3, 10), each(3, 100 * 2 ** 20 * 1000)]);
  expect(decision).toMatchObject({ rescaleTo: 6, rescaleReason: "memory resource above target" });
  expect(decision.currentMetrics[1]).toEqual({
    type: "Resource",
    resource: { name: "memory", current: { averageValue: "104857600" } },
  });
});

test("a metric that fails keeps from going down, and not from going up", () => {
  const up = round([cpu(50), memory("50Mi")], [failure, each(3, 100 * 2 ** 20 * 1000)]);
  expect(up).toMatchObject({ rescaleTo: 6, failed: false });
  expect(reasons(up)["ScalingActive"]).toBe("True ValidMetricFound");
  expect(up.notes.map((n) => n.reason)).toEqual(["FailedGetResourceMetric"]);
  const down = round([cpu(50), memory("500Mi")], [failure, each(3, 100 * 2 ** 20 * 1000)]);
  expect(down).toMatchObject({ rescaleTo: undefined, failed: true });
  expect(reasons(down)).toEqual({
    AbleToScale: "True SucceededGetScale",
    ScalingActive: "False FailedGetResourceMetric",
  });
  const why = "failed to get cpu utilization: unable to get metrics for resource cpu: nobody there";
  expect(down.conditions.find((c) => c.type === "ScalingActive")?.message).toBe(
    `the HPA was unable to compute the replica count: ${why}`,
  );
  expect(down.notes).toEqual([
    { type: "Warning", reason: "FailedGetResourceMetric", message: why },
    {
      type: "Warning",
      reason: "FailedComputeMetricsReplicas",
      message: `invalid metrics (1 invalid out of 2), first error is: failed to get cpu resource metric value: ${why}`,
    },
  ]);
});

test.each([
  [{ type: "Value", value: "10" }, 40_000, 10, { value: "40" }],
  [{ type: "AverageValue", averageValue: "10" }, 40_000, 4, { averageValue: "13334m" }],
])("external metric, target %j", (target, value, replicas, current) => {
  const decision = round([external(target)], [{ kind: "value", value }]);
  expect(decision).toMatchObject({ currentMetrics: [{ external: { metric: { name: "queue" }, current } }] });
  const { rescaleTo } = decision;
  // Twice as many at a time.
  expect(rescaleTo).toBe(Math.min(replicas, 6));
  const name =
    "external metric queue(&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},})";
  expect(decision.rescaleReason).toBe(`${name} above target`);
  expect(selectorText(undefined)).toBe("nil");
});

test.each([
  [
    "none on purpose",
    0,
    undefined,
    0,
    "",
    { AbleToScale: "True SucceededGetScale", ScalingActive: "False ScalingDisabled" },
  ],
  [
    "too many",
    11,
    10,
    10,
    "Current number of replicas above Spec.MaxReplicas",
    { AbleToScale: "True SucceededGetScale" },
  ],
  ["too few", 1, 2, 2, "Current number of replicas below Spec.MinReplicas", { AbleToScale: "True SucceededGetScale" }],
])("%s: metrics are not asked", (_, current, to, desired, why, wanted) => {
  expect(wantsMetrics(autoscaler([cpu(50)]), current)).toBe(false);
  const decision = round([cpu(50)], [], current);
  expect([decision.rescaleTo, decision.desiredReplicas, decision.rescaleReason]).toEqual([to, desired, why]);
  expect(reasons(decision)).toEqual(wanted);
});

test("a selector that several use", () => {
  const why = "pods by selector a=b are controlled by multiple HPAs: [{x n} {y n}]";
  const decision = round([cpu(50)], { failure: { reason: "AmbiguousSelector", message: why, error: why } });
  expect(decision.failed).toBe(true);
  expect(reasons(decision)["ScalingActive"]).toBe("False AmbiguousSelector");
  expect(decision.notes.map((n) => n.reason)).toEqual(["AmbiguousSelector", "FailedComputeMetricsReplicas"]);
});

test("the time of a condition is that of its status", () => {
  const conditions = [
    { type: "AbleToScale", status: "True", reason: "Old", message: "", lastTransitionTime: long },
    { type: "ScalingActive", status: "False", reason: "Old", message: "", lastTransitionTime: long },
  ];
  const decision = round([cpu(50)], [each(3, 50)], 3, { conditions });
  const times = Object.fromEntries(decision.conditions.map((c) => [c.type, c.lastTransitionTime]));
  expect(times).toEqual({
    AbleToScale: long,
    ScalingActive: "2026-01-01T01:00:00Z",
    ScalingLimited: "2026-01-01T01:00:00Z",
  });
});
