import { expect, test } from "vitest";
import { validateAutoscaler } from "./autoscaling.ts";

const good = {
  scaleTargetRef: { kind: "Deployment", name: "d" },
  minReplicas: 1,
  maxReplicas: 3,
  metrics: [{ type: "Resource", resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 50 } } }],
};
const policies = [{ type: "Pods", value: 1, periodSeconds: 15 }];
const resource = (target: object) => ({ metrics: [{ type: "Resource", resource: { name: "cpu", target } }] });
const external = (target: object) => ({
  metrics: [{ type: "External", external: { metric: { name: "m" }, target } }],
});

test.each([
  [{}, []],
  [{ minReplicas: 0 }, ["spec.minReplicas must be greater than or equal to 1"]],
  [{ maxReplicas: 0, minReplicas: undefined }, ["spec.maxReplicas must be greater than 0"]],
  [{ minReplicas: 4 }, ["spec.maxReplicas must be greater than or equal to `minReplicas`"]],
  [
    { scaleTargetRef: { kind: "a/b", name: "" } },
    ["spec.scaleTargetRef.kind may not contain '/'", "spec.scaleTargetRef.name Required value"],
  ],
  [
    { metrics: [{ type: "Nonsense" }] },
    ['spec.metrics[0].type supported values: "ContainerResource", "External", "Object", "Pods", "Resource"'],
  ],
  [
    { metrics: [{ type: "Pods" }] },
    ["spec.metrics[0].pods Required value: must populate information for the given metric source"],
  ],
  [
    {
      metrics: [
        { ...good.metrics[0], pods: { metric: { name: "m" }, target: { type: "AverageValue", averageValue: "1" } } },
      ],
    },
    ["spec.metrics[0].pods Forbidden: must populate the given metric source only"],
  ],
  [
    resource({ type: "Utilization" }),
    [
      "spec.metrics[0].resource.target.averageUtilization Required value: must set either a target raw value or a target utilization",
    ],
  ],
  [
    resource({ type: "Utilization", averageUtilization: 0, averageValue: "0" }),
    [
      "spec.metrics[0].resource.target.averageValue must be positive",
      "spec.metrics[0].resource.target.averageUtilization must be greater than 0",
      "spec.metrics[0].resource.target.averageValue Forbidden: may not set both a target raw value and a target utilization",
    ],
  ],
  [
    external({ type: "Value", value: "1", averageValue: "1" }),
    [
      "spec.metrics[0].external.target.value Forbidden: may not set both a target value for metric and a per-pod target",
    ],
  ],
  [
    external({ type: "Worth", value: "1" }),
    ["spec.metrics[0].external.target.type must be either Utilization, Value, or AverageValue"],
  ],
  [
    { behavior: { scaleUp: { stabilizationWindowSeconds: 3601, selectPolicy: "Best", policies: [] } } },
    [
      "spec.behavior.scaleUp.stabilizationWindowSeconds must be less than or equal to 3600",
      'spec.behavior.scaleUp.selectPolicy supported values: "Disabled", "Max", "Min"',
      "spec.behavior.scaleUp.policies Required value: must specify at least one Policy",
    ],
  ],
  [{ behavior: { scaleDown: { policies } } }, []],
  [
    { behavior: { scaleDown: { policies: [{ type: "Cores", value: 0, periodSeconds: 1801 }] } } },
    [
      'spec.behavior.scaleDown.policies[0].type supported values: "Percent", "Pods"',
      "spec.behavior.scaleDown.policies[0].value must be greater than zero",
      "spec.behavior.scaleDown.policies[0].periodSeconds must be less than or equal to 1800",
    ],
  ],
])("%j", (change, wanted) => {
  const errors = validateAutoscaler({ metadata: {}, spec: { ...good, ...change } } as never);
  expect(
    errors.map(({ field, message }) => `${field} ${message.replace(/^(Invalid|Unsupported) value: \S+: /, "")}`),
  ).toEqual(wanted);
});
