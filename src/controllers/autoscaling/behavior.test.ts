import { expect, test } from "vitest";
import type { HorizontalPodAutoscalerSpec, HPAScalingRules } from "#model/gen/autoscaling-v2.ts";
import { limit, type Memory, nothingRemembered, remembering, withScaleEvent } from "./behavior.ts";

const minute = 60_000;
const nowMs = 100 * minute;
const downWindowMs = 5 * minute;
type Rules = HPAScalingRules;
const specOf = (min: number, max: number, up?: Rules, down?: Rules): HorizontalPodAutoscalerSpec =>
  ({
    minReplicas: min,
    maxReplicas: max,
    ...(up || down
      ? {
          behavior: {
            scaleUp: { stabilizationWindowSeconds: 0, selectPolicy: "Max", policies: [percent(100), pods(4)], ...up },
            scaleDown: { selectPolicy: "Max", policies: [percent(100)], ...down },
          },
        }
      : {}),
  }) as never;
const percent = (value: number, periodSeconds = 15) => ({ type: "Percent", value, periodSeconds });
const pods = (value: number, periodSeconds = 15) => ({ type: "Pods", value, periodSeconds });
const recommended = (...list: [replicas: number, secondsAgo: number][]): Memory => ({
  ...nothingRemembered,
  recommendations: list.map(([replicas, ago]) => ({ replicas, atMs: nowMs - ago * 1000 })),
});
const scaled = (ups: [number, number][], downs: [number, number][]): Memory => {
  const events = (list: [number, number][]) => list.map(([change, ago]) => ({ change, atMs: nowMs - ago * 1000 }));
  return { recommendations: [], ups: events(ups), downs: events(downs) };
};

test.each([
  ["as asked", specOf(1, 10), 3, 4, nothingRemembered, 4, "ReadyForNewScale", "DesiredWithinRange"],
  ["not above the maximum", specOf(1, 5), 4, 8, nothingRemembered, 5, "ReadyForNewScale", "TooManyReplicas"],
  ["not below the minimum", specOf(2, 5), 4, 1, nothingRemembered, 2, "ReadyForNewScale", "TooFewReplicas"],
  ["at most twice as many at a time", specOf(1, 100), 3, 20, nothingRemembered, 6, "ReadyForNewScale", "ScaleUpLimit"],
  ["but four at least", specOf(1, 100), 1, 20, nothingRemembered, 4, "ReadyForNewScale", "ScaleUpLimit"],
  [
    "nothing goes that was wanted five minutes ago",
    specOf(1, 10),
    5,
    2,
    recommended([4, 299], [9, 301]),
    4,
    "ScaleDownStabilized",
    "DesiredWithinRange",
  ],
] as [string, HorizontalPodAutoscalerSpec, number, number, Memory, number, string, string][])(
  "without behaviour: %s",
  (_, spec, currentReplicas, desiredReplicas, memory, replicas, able, limited) => {
    const result = limit({ spec, currentReplicas, desiredReplicas, memory, monotonicMs: nowMs, downWindowMs });
    expect([result.replicas, result.ableToScale.reason, result.scalingLimited.reason]).toEqual([
      replicas,
      able,
      limited,
    ]);
    expect(result.scalingLimited.status).toBe(limited === "DesiredWithinRange" ? "False" : "True");
    expect(result.memory.recommendations.at(-1)).toEqual({ replicas: desiredReplicas, atMs: nowMs });
  },
);

test.each([
  ["defaults up", specOf(1, 100, {}), 10, 50, nothingRemembered, 20, "ReadyForNewScale", "ScaleUpLimit"],
  ["pods where percent is less", specOf(1, 100, {}), 2, 50, nothingRemembered, 6, "ReadyForNewScale", "ScaleUpLimit"],
  [
    "the smaller policy",
    specOf(1, 100, { selectPolicy: "Min" }),
    10,
    50,
    nothingRemembered,
    14,
    "ReadyForNewScale",
    "ScaleUpLimit",
  ],
  [
    "no way up",
    specOf(1, 100, { selectPolicy: "Disabled" }),
    10,
    50,
    nothingRemembered,
    10,
    "ReadyForNewScale",
    "ScaleUpLimit",
  ],
  ["the maximum first", specOf(1, 12, {}), 10, 50, nothingRemembered, 12, "ReadyForNewScale", "TooManyReplicas"],
  [
    "what was added in the period counts",
    specOf(1, 100, { policies: [pods(10, 60)] }),
    17,
    50,
    scaled(
      [
        [4, 61],
        [7, 30],
      ],
      [],
    ),
    20,
    "ReadyForNewScale",
    "ScaleUpLimit",
  ],
  [
    "so does what was taken",
    specOf(1, 100, { policies: [pods(10, 60)] }),
    10,
    50,
    scaled([], [[3, 30]]),
    23,
    "ReadyForNewScale",
    "ScaleUpLimit",
  ],
  [
    "a window up waits for the least",
    specOf(1, 100, { stabilizationWindowSeconds: 60 }),
    5,
    9,
    recommended([6, 30], [2, 70]),
    6,
    "ScaleUpStabilized",
    "DesiredWithinRange",
  ],
  [
    "defaults down go at once",
    specOf(1, 100, {}, {}),
    10,
    2,
    nothingRemembered,
    2,
    "ReadyForNewScale",
    "DesiredWithinRange",
  ],
  [
    "but wait five minutes",
    specOf(1, 100, {}, {}),
    10,
    2,
    recommended([8, 200]),
    8,
    "ScaleDownStabilized",
    "DesiredWithinRange",
  ],
  [
    "no window down",
    specOf(1, 100, {}, { stabilizationWindowSeconds: 0 }),
    10,
    2,
    recommended([8, 200]),
    2,
    "ReadyForNewScale",
    "DesiredWithinRange",
  ],
  [
    "down by policy",
    specOf(1, 100, {}, { policies: [percent(10, 60), pods(2, 60)] }),
    10,
    2,
    scaled([], [[1, 30]]),
    9,
    "ReadyForNewScale",
    "ScaleDownLimit",
  ],
  [
    "the smaller policy down",
    specOf(1, 100, {}, { selectPolicy: "Min", policies: [percent(50), pods(2)] }),
    10,
    2,
    nothingRemembered,
    8,
    "ReadyForNewScale",
    "ScaleDownLimit",
  ],
  [
    "no way down",
    specOf(1, 100, {}, { selectPolicy: "Disabled" }),
    10,
    2,
    nothingRemembered,
    10,
    "ReadyForNewScale",
    "ScaleDownLimit",
  ],
  ["not below the minimum", specOf(3, 100, {}, {}), 10, 2, nothingRemembered, 3, "ReadyForNewScale", "TooFewReplicas"],
] as [string, HorizontalPodAutoscalerSpec, number, number, Memory, number, string, string][])(
  "with behaviour: %s",
  (_, spec, currentReplicas, desiredReplicas, memory, replicas, able, limited) => {
    const result = limit({ spec, currentReplicas, desiredReplicas, memory, monotonicMs: nowMs, downWindowMs });
    expect([result.replicas, result.ableToScale.reason, result.scalingLimited.reason]).toEqual([
      replicas,
      able,
      limited,
    ]);
  },
);

test("what is remembered is bounded by windows and periods", () => {
  let memory = remembering(nothingRemembered, 7, 0);
  expect(remembering(memory, 9, 5).recommendations).toEqual([{ replicas: 7, atMs: 0 }]);
  const spec = specOf(1, 100, { stabilizationWindowSeconds: 600, policies: [pods(1, 1800)] }, {});
  for (let atMs = 0; atMs < 10 * 3_600_000; atMs += 15_000) {
    memory = limit({ spec, currentReplicas: 5, desiredReplicas: 6, memory, monotonicMs: atMs, downWindowMs }).memory;
    memory = withScaleEvent(memory, spec, 5, 6, atMs);
  }
  expect(memory.recommendations.length).toBeLessThanOrEqual(600 / 15 + 2);
  expect(memory.ups.length).toBeLessThanOrEqual(1800 / 15 + 2);
  expect(memory.downs).toEqual([]);
  expect(withScaleEvent(nothingRemembered, specOf(1, 2), 5, 6, 0)).toBe(nothingRemembered);
});

test.each([
  [0, 2],
  [100_000, 4],
  [400_000, 9],
])("a window of %i ms that was asked for counts where the object has none: %i", (window, expected) => {
  const memory = recommended([4, 99], [9, 301]);
  const input = { currentReplicas: 5, desiredReplicas: 2, memory, monotonicMs: nowMs, downWindowMs: window };
  expect(limit({ ...input, spec: specOf(1, 10) }).replicas).toBe(expected);
  const own = { stabilizationWindowSeconds: 0 };
  expect(limit({ ...input, spec: specOf(1, 10, undefined, own) }).replicas).toBe(2);
});
