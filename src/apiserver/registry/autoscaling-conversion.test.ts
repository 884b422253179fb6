import { expect, test } from "vitest";
import { autoscalerFromV1, autoscalerToV1 } from "./autoscaling-conversion.ts";

const metric = (name: string) => ({ name, selector: { matchLabels: { a: "b" } } });
const metrics = [
  { type: "Resource", resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 50 } } },
  { type: "Resource", resource: { name: "memory", target: { type: "AverageValue", averageValue: "1Gi" } } },
  {
    type: "ContainerResource",
    containerResource: { name: "cpu", container: "c", target: { type: "Utilization", averageUtilization: 70 } },
  },
  { type: "Pods", pods: { metric: metric("qps"), target: { type: "AverageValue", averageValue: "10" } } },
  {
    type: "Object",
    object: {
      metric: metric("hits"),
      describedObject: { kind: "Service", name: "s", apiVersion: "v1" },
      target: { type: "Value", value: "2k" },
    },
  },
  { type: "External", external: { metric: metric("queue"), target: { type: "AverageValue", averageValue: "30" } } },
];
const behavior = {
  scaleUp: {
    stabilizationWindowSeconds: 0,
    selectPolicy: "Max",
    policies: [{ type: "Pods", value: 4, periodSeconds: 15 }],
  },
};
const status = {
  currentReplicas: 2,
  desiredReplicas: 3,
  currentMetrics: [
    { type: "Resource", resource: { name: "cpu", current: { averageUtilization: 44, averageValue: "88m" } } },
    { type: "Pods", pods: { metric: metric("qps"), current: { averageValue: "7" } } },
  ],
  conditions: [{ type: "AbleToScale", status: "True", reason: "ReadyForNewScale", message: "m" }],
};
const metadata = { name: "h", namespace: "n", annotations: { own: "kept" } };
const scaleTargetRef = { apiVersion: "apps/v1", kind: "Deployment", name: "d" };

test("as v1, and what that has no field for in annotations", () => {
  const spec = { scaleTargetRef, minReplicas: 1, maxReplicas: 9, metrics: metrics.slice(0, 2), behavior };
  const old = autoscalerToV1({ metadata, spec, status }) as Record<string, Record<string, unknown>>;
  expect(old["spec"]).toEqual({ scaleTargetRef, minReplicas: 1, maxReplicas: 9, targetCPUUtilizationPercentage: 50 });
  expect(old["status"]).toEqual({ currentReplicas: 2, desiredReplicas: 3, currentCPUUtilizationPercentage: 44 });
  const annotations = old["metadata"]?.["annotations"] as Record<string, string>;
  const read = (name: string): unknown => JSON.parse(annotations[`autoscaling.alpha.kubernetes.io/${name}`]!);
  expect(annotations["own"]).toBe("kept");
  expect(read("metrics")).toEqual([{ type: "Resource", resource: { name: "memory", targetAverageValue: "1Gi" } }]);
  expect(read("current-metrics")).toMatchObject([
    { type: "Resource", resource: { name: "cpu", currentAverageUtilization: 44, currentAverageValue: "88m" } },
    { type: "Pods", pods: { metricName: "qps", currentAverageValue: "7" } },
  ]);
  expect(read("behavior")).toEqual({
    ScaleUp: {
      StabilizationWindowSeconds: 0,
      SelectPolicy: "Max",
      Policies: [{ Type: "Pods", Value: 4, PeriodSeconds: 15 }],
    },
  });
  expect(read("conditions")).toEqual(status.conditions);
});

test("there and back is the same", () => {
  const object = { metadata, spec: { scaleTargetRef, maxReplicas: 9, metrics, behavior }, status };
  expect(autoscalerFromV1(autoscalerToV1(object))).toEqual(object);
});

test.each([
  [{ targetCPUUtilizationPercentage: 30 }, {}, 30],
  [{}, {}, 80],
  [{}, { "autoscaling.alpha.kubernetes.io/metrics": "no json" }, 80],
])("v1 %j %j", (spec, annotations, averageUtilization) => {
  const made = autoscalerFromV1({ metadata: { name: "h", annotations }, spec: { maxReplicas: 3, ...spec } });
  expect(made).toEqual({
    metadata: { name: "h" },
    spec: {
      maxReplicas: 3,
      metrics: [{ type: "Resource", resource: { name: "cpu", target: { type: "Utilization", averageUtilization } } }],
    },
  });
});
