// Validation of horizontal autoscalers: bounds, target, every kind of metric, behaviour. Upstream counterpart:
// pkg/apis/autoscaling/validation of 1.32.
import type {
  CrossVersionObjectReference,
  HorizontalPodAutoscaler,
  HorizontalPodAutoscalerBehavior,
  HPAScalingRules,
  MetricIdentifier,
  MetricSpec,
  MetricTarget,
} from "../gen/autoscaling-v2.ts";
import { type FieldError, fieldForbidden, fieldInvalid, fieldNotSupported, fieldRequired } from "../status.ts";
import { nanoOf } from "./amount.ts";
import { findings } from "./findings.ts";

const maxWindowSeconds = 3600;
const maxPeriodSeconds = 1800;
const sourceTypes = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const targetTypes = ["Utilization", "Value", "AverageValue"];
const selectPolicies = ["Disabled", "Max", "Min"];
const policyTypes = ["Percent", "Pods"];

export function validateAutoscaler({ spec }: HorizontalPodAutoscaler): FieldError[] {
  if (!spec) return [fieldRequired("spec.scaleTargetRef")];
  const { minReplicas, maxReplicas } = spec;
  const errors = findings();
  if (minReplicas !== undefined && minReplicas < 1) {
    errors.push(fieldInvalid("spec.minReplicas", minReplicas, "must be greater than or equal to 1"));
  }
  if (!(maxReplicas >= 1)) errors.push(fieldInvalid("spec.maxReplicas", maxReplicas ?? 0, "must be greater than 0"));
  if (minReplicas !== undefined && maxReplicas < minReplicas) {
    errors.push(fieldInvalid("spec.maxReplicas", maxReplicas, "must be greater than or equal to `minReplicas`"));
  }
  errors.push(...reference("spec.scaleTargetRef", spec.scaleTargetRef));
  for (const [index, metric] of (spec.metrics ?? []).entries()) {
    errors.push(...validateMetric(`spec.metrics[${index}]`, metric));
  }
  return [...errors, ...validateBehavior("spec.behavior", spec.behavior)];
}

function reference(path: string, ref: CrossVersionObjectReference | undefined): FieldError[] {
  return [...segment(`${path}.kind`, ref?.kind, ""), ...segment(`${path}.name`, ref?.name, "")];
}

/** Required, and fit to be part of a path. */
function segment(path: string, text: string | undefined, whyRequired: string): FieldError[] {
  if (!text) return [fieldRequired(path, whyRequired)];
  if (text === "." || text === "..") return [fieldInvalid(path, text, `may not be '${text}'`)];
  return ["/", "%"].filter((c) => text.includes(c)).map((c) => fieldInvalid(path, text, `may not contain '${c}'`));
}

type Sources = Pick<MetricSpec, "object" | "external" | "pods" | "resource" | "containerResource">;
type Source = keyof Sources;
const sources: Readonly<Record<Source, (path: string, metric: Required<Sources>) => FieldError[]>> = {
  object: (path, { object }) => [
    ...reference(`${path}.describedObject`, object.describedObject),
    ...identifier(`${path}.metric`, object.metric),
    ...target(`${path}.target`, object.target),
    ...valueOrPerPod(path, object.target),
  ],
  external: (path, { external }) => [
    ...identifier(`${path}.metric`, external.metric),
    ...target(`${path}.target`, external.target),
    ...valueOrPerPod(path, external.target),
    ...(external.target?.value !== undefined && external.target.averageValue !== undefined
      ? [fieldForbidden(`${path}.target.value`, "may not set both a target value for metric and a per-pod target")]
      : []),
  ],
  pods: (path, { pods }) => [
    ...identifier(`${path}.metric`, pods.metric),
    ...target(`${path}.target`, pods.target),
    ...(isPositive(pods.target?.averageValue)
      ? []
      : [fieldRequired(`${path}.target.averageValue`, "must specify a positive target averageValue")]),
  ],
  resource: (path, { resource }) => resourceSource(path, resource),
  containerResource: (path, { containerResource }) => [
    ...resourceSource(path, containerResource),
    ...(containerResource.container ? [] : [fieldRequired(`${path}.container`, "must specify a container")]),
  ],
};

function validateMetric(path: string, metric: MetricSpec): FieldError[] {
  const errors = findings();
  if (!metric.type) errors.push(fieldRequired(`${path}.type`, "must specify a metric source type"));
  if (!sourceTypes.includes(metric.type)) {
    errors.push(fieldNotSupported(`${path}.type`, metric.type ?? "", sourceTypes));
  }
  const present = (Object.keys(sources) as Source[]).filter((source) => metric[source] !== undefined);
  const [first] = present;
  // Of several only the first is looked into.
  if (first) errors.push(...sources[first](`${path}.${first}`, metric as Required<Sources>));
  const expected = metric.type ? (((metric.type[0] ?? "").toLowerCase() + metric.type.slice(1)) as Source) : undefined;
  if (expected && Object.hasOwn(sources, expected) && !present.includes(expected)) {
    errors.push(fieldRequired(`${path}.${expected}`, "must populate information for the given metric source"));
  }
  if (present.length !== 1) {
    for (const other of present) {
      if (other === expected) continue;
      errors.push(fieldForbidden(`${path}.${other}`, "must populate the given metric source only"));
    }
  }
  return errors;
}

function resourceSource(
  path: string,
  { name, target: goal }: { readonly name?: string; readonly target?: MetricTarget },
): FieldError[] {
  const errors = findings();
  if (!name) errors.push(fieldRequired(`${path}.name`, "must specify a resource name"));
  errors.push(...target(`${path}.target`, goal));
  const hasUtilization = goal?.averageUtilization !== undefined;
  const hasValue = goal?.averageValue !== undefined;
  if (!hasUtilization && !hasValue) {
    const why = "must set either a target raw value or a target utilization";
    errors.push(fieldRequired(`${path}.target.averageUtilization`, why));
  }
  if (hasUtilization && hasValue) {
    const why = "may not set both a target raw value and a target utilization";
    errors.push(fieldForbidden(`${path}.target.averageValue`, why));
  }
  return errors;
}

const valueOrPerPod = (path: string, goal: MetricTarget | undefined): FieldError[] =>
  goal?.value === undefined && goal?.averageValue === undefined
    ? [fieldRequired(`${path}.target.averageValue`, "must set either a target value for metric or a per-pod target")]
    : [];

const isPositive = (quantity: string | number | undefined): boolean =>
  quantity !== undefined && (nanoOf(quantity) ?? 0n) > 0n;

function target(path: string, goal: MetricTarget | undefined): FieldError[] {
  const errors = findings();
  if (!goal?.type) errors.push(fieldRequired(`${path}.type`, "must specify a metric target type"));
  if (!targetTypes.includes(goal?.type ?? "")) {
    errors.push(fieldInvalid(`${path}.type`, goal?.type ?? "", "must be either Utilization, Value, or AverageValue"));
  }
  if (goal?.value !== undefined && !isPositive(goal.value)) {
    errors.push(fieldInvalid(`${path}.value`, goal.value, "must be positive"));
  }
  if (goal?.averageValue !== undefined && !isPositive(goal.averageValue)) {
    errors.push(fieldInvalid(`${path}.averageValue`, goal.averageValue, "must be positive"));
  }
  if (goal?.averageUtilization !== undefined && goal.averageUtilization < 1) {
    errors.push(fieldInvalid(`${path}.averageUtilization`, goal.averageUtilization, "must be greater than 0"));
  }
  return errors;
}

const identifier = (path: string, id: MetricIdentifier | undefined): FieldError[] =>
  segment(`${path}.name`, id?.name, "must specify a metric name");

function validateBehavior(path: string, behavior: HorizontalPodAutoscalerBehavior | undefined): FieldError[] {
  if (!behavior) return [];
  return [...rules(`${path}.scaleUp`, behavior.scaleUp), ...rules(`${path}.scaleDown`, behavior.scaleDown)];
}

function rules(path: string, scaling: HPAScalingRules | undefined): FieldError[] {
  if (!scaling) return [];
  const errors = findings();
  const { stabilizationWindowSeconds: window, selectPolicy, policies = [] } = scaling;
  const at = `${path}.stabilizationWindowSeconds`;
  if (window !== undefined && window < 0) {
    errors.push(fieldInvalid(at, window, "must be greater than or equal to zero"));
  }
  if (window !== undefined && window > maxWindowSeconds) {
    errors.push(fieldInvalid(at, window, `must be less than or equal to ${maxWindowSeconds}`));
  }
  if (selectPolicy !== undefined && !selectPolicies.includes(selectPolicy)) {
    errors.push(fieldNotSupported(`${path}.selectPolicy`, selectPolicy, selectPolicies));
  }
  if (policies.length === 0) errors.push(fieldRequired(`${path}.policies`, "must specify at least one Policy"));
  for (const [index, { type, value, periodSeconds }] of policies.entries()) {
    const own = `${path}.policies[${index}]`;
    if (!policyTypes.includes(type)) errors.push(fieldNotSupported(`${own}.type`, type ?? "", policyTypes));
    if (!(value > 0)) errors.push(fieldInvalid(`${own}.value`, value ?? 0, "must be greater than zero"));
    if (!(periodSeconds > 0)) {
      errors.push(fieldInvalid(`${own}.periodSeconds`, periodSeconds ?? 0, "must be greater than zero"));
    }
    if (periodSeconds > maxPeriodSeconds) {
      errors.push(
        fieldInvalid(`${own}.periodSeconds`, periodSeconds, `must be less than or equal to ${maxPeriodSeconds}`),
      );
    }
  }
  return errors;
}
