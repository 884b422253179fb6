// What an autoscaler decides in one round, from its object, the scale it looks at and what the metrics said. Pure: the
// controller reads, this decides, the controller writes. Conditions, reasons and words are upstream's, because people and tools
// read them. Upstream counterpart: reconcileAutoscaler in pkg/controller/podautoscaler/horizontal.go.
import { rfc3339 } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type {
  HorizontalPodAutoscaler,
  HorizontalPodAutoscalerCondition,
  MetricSpec,
  MetricStatus,
  MetricTarget,
} from "#model/gen/autoscaling-v2.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { parseQuantity } from "#model/quantity.ts";
import { selectorText } from "../runtime/selector.ts";
import { limit, type Memory, remembering } from "./behavior.ts";
import {
  byAverage,
  byUtilization,
  byValue,
  byValuePerPod,
  MetricError,
  type PodMetricsByName,
  type Proposal,
} from "./replicas.ts";

/** What was read for one metric of the spec; in the same order. */
export type Reading =
  | { readonly kind: "pods"; readonly metrics: PodMetricsByName }
  | { readonly kind: "value"; readonly value: number }
  | { readonly kind: "failure"; readonly message: string };

export interface Scale {
  readonly specReplicas: number;
  readonly statusReplicas: number;
}

export interface Note {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
}

export interface Round {
  readonly autoscaler: HorizontalPodAutoscaler;
  readonly scale: Scale;
  /** Of the target, by its own selector. */
  readonly pods: readonly Pod[];
  /** Not asked for where `wantsMetrics` says no; a failure stands for all of them. */
  readonly readings: readonly Reading[] | { readonly failure: SelectorFailure };
  readonly memory: Memory;
  readonly nowMs: number;
  readonly monotonicMs: number;
  /** For how long nothing is taken away that was wanted, where the object does not say. */
  readonly downWindowMs: number;
}

export interface SelectorFailure {
  readonly reason: string;
  readonly message: string;
  readonly error: string;
  /** Of the event, where it has another than the condition. */
  readonly eventReason?: string;
}

export interface Decision {
  /** Undefined: the scale stays as it is. */
  readonly rescaleTo: number | undefined;
  readonly rescaleReason: string;
  readonly desiredReplicas: number;
  readonly conditions: readonly HorizontalPodAutoscalerCondition[];
  readonly currentMetrics: readonly MetricStatus[];
  readonly notes: readonly Note[];
  readonly memory: Memory;
  /** The round could not come to a number. */
  readonly failed: boolean;
}

const minimumOf = (autoscaler: HorizontalPodAutoscaler): number => autoscaler.spec.minReplicas ?? 1;

/** Outside of the bounds, and at none, metrics are not looked at. */
export function wantsMetrics(autoscaler: HorizontalPodAutoscaler, current: number): boolean {
  const min = minimumOf(autoscaler);
  return !(current === 0 && min !== 0) && current <= autoscaler.spec.maxReplicas && current >= min;
}

export function planRound(round: Round): Decision {
  const { autoscaler, scale, nowMs, monotonicMs, downWindowMs } = round;
  const { spec } = autoscaler;
  const current = scale.specReplicas;
  const memory = remembering(round.memory, current, monotonicMs);
  const conditions = new Conditions(autoscaler.status?.conditions ?? [], nowMs);
  conditions.set(
    "AbleToScale",
    "True",
    "SucceededGetScale",
    "the HPA controller was able to get the target's current scale",
  );
  const base = { currentMetrics: [], notes: [], memory, failed: false };
  if (current === 0 && minimumOf(autoscaler) !== 0) {
    const why = "scaling is disabled since the replica count of the target is zero";
    conditions.set("ScalingActive", "False", "ScalingDisabled", why);
    return { ...base, rescaleTo: undefined, rescaleReason: "", desiredReplicas: 0, conditions: conditions.list };
  }
  if (current > spec.maxReplicas || current < minimumOf(autoscaler)) {
    const isAbove = current > spec.maxReplicas;
    const to = isAbove ? spec.maxReplicas : minimumOf(autoscaler);
    const rescaleReason = `Current number of replicas ${isAbove ? "above Spec.MaxReplicas" : "below Spec.MinReplicas"}`;
    return { ...base, rescaleTo: to, rescaleReason, desiredReplicas: to, conditions: conditions.list };
  }
  const asked = askMetrics(round, conditions);
  if (asked.replicas === undefined) {
    return {
      ...{ rescaleTo: undefined, rescaleReason: "", desiredReplicas: autoscaler.status?.desiredReplicas ?? 0 },
      ...{ conditions: conditions.list, currentMetrics: asked.statuses, memory, failed: true },
      notes: [...asked.notes, { type: "Warning", reason: "FailedComputeMetricsReplicas", message: asked.error }],
    };
  }
  const rescaleReason =
    asked.replicas > current
      ? `${asked.metric} above target`
      : asked.replicas < current
        ? "All metrics below target"
        : "";
  const limited = limit({
    ...{ spec, memory, monotonicMs, downWindowMs },
    currentReplicas: current,
    desiredReplicas: asked.replicas,
  });
  conditions.set("AbleToScale", "True", limited.ableToScale.reason, limited.ableToScale.message);
  const { status, reason, message } = limited.scalingLimited;
  conditions.set("ScalingLimited", status, reason, message);
  return {
    rescaleTo: limited.replicas === current ? undefined : limited.replicas,
    ...{ rescaleReason, desiredReplicas: limited.replicas, conditions: conditions.list },
    ...{ currentMetrics: asked.statuses, notes: asked.notes, memory: limited.memory, failed: false },
  };
}

interface Asked {
  /** Undefined: it cannot be told. */
  readonly replicas: number | undefined;
  readonly metric: string;
  readonly statuses: readonly MetricStatus[];
  readonly notes: readonly Note[];
  readonly error: string;
}

/** The largest proposal counts. Where one metric fails, the others may add pods but not take any away. */
function askMetrics(round: Round, conditions: Conditions): Asked {
  const { autoscaler, scale, readings } = round;
  const specs = autoscaler.spec.metrics ?? [];
  const notes: Note[] = [];
  if ("failure" in readings) {
    const { reason, message, error, eventReason } = readings.failure;
    conditions.set("ScalingActive", "False", reason, message);
    notes.push({ type: "Warning", reason: eventReason ?? reason, message: error });
    return { replicas: undefined, metric: "", statuses: [], notes, error };
  }
  let best: { readonly replicas: number; readonly metric: string } | undefined;
  let firstFailure: { readonly reason: string; readonly message: string; readonly error: string } | undefined;
  let failures = 0;
  const statuses = specs.map((spec, index): MetricStatus => {
    try {
      const { proposal, metric, status } = propose(spec, readings[index]!, round);
      if (!best || best.replicas === 0 || proposal.replicas > best.replicas) {
        best = { replicas: proposal.replicas, metric };
      }
      return status;
    } catch (error) {
      if (!(error instanceof MetricError)) throw error;
      const reason = failureReasons[spec.type] ?? "InvalidMetricSourceType";
      const why = messageOf(error);
      notes.push({ type: "Warning", reason, message: why });
      failures++;
      firstFailure ??= {
        reason,
        message: `the HPA was unable to compute the replica count: ${why}`,
        error: `${failurePrefix(spec)}: ${why}`,
      };
      // Keeps its place: who shows them goes by the order of the spec.
      return { type: "" };
    }
  });
  const replicas = best?.replicas ?? 0;
  if (failures >= specs.length || (failures > 0 && replicas < scale.specReplicas)) {
    const error = `invalid metrics (${failures} invalid out of ${specs.length}), first error is: ${firstFailure?.error ?? ""}`;
    if (firstFailure) conditions.set("ScalingActive", "False", firstFailure.reason, firstFailure.message);
    return { replicas: undefined, metric: "", statuses, notes, error };
  }
  const metric = best?.metric ?? "";
  const why = `the HPA was able to successfully calculate a replica count from ${metric}`;
  conditions.set("ScalingActive", "True", "ValidMetricFound", why);
  return { replicas, metric, statuses, notes, error: "" };
}

const failureReasons: Readonly<Record<string, string>> = {
  Object: "FailedGetObjectMetric",
  Pods: "FailedGetPodsMetric",
  Resource: "FailedGetResourceMetric",
  ContainerResource: "FailedGetContainerResourceMetric",
  External: "FailedGetExternalMetric",
};

function failurePrefix(spec: MetricSpec): string {
  switch (spec.type) {
    case "Object":
      return "failed to get object metric value";
    case "Pods":
      return "failed to get pods metric value";
    case "Resource":
      return `failed to get ${spec.resource?.name} resource metric value`;
    case "ContainerResource":
      return `failed to get ${spec.containerResource?.container} container metric value`;
    default:
      return `failed to get ${spec.external?.metric.name} external metric value`;
  }
}

interface Proposed {
  readonly proposal: Proposal;
  /** As the reason of a rescale names it. */
  readonly metric: string;
  readonly status: MetricStatus;
}

function propose(spec: MetricSpec, reading: Reading, round: Round): Proposed {
  const { scale, pods, nowMs } = round;
  const currentReplicas = scale.specReplicas;
  switch (spec.type) {
    case "Resource": {
      const { name, target } = spec.resource!;
      const { proposal, ofRequest } = proposeResource(name, undefined, target, reading, round);
      const metric = ofRequest ? `${name} resource utilization (percentage of request)` : `${name} resource`;
      return {
        proposal,
        metric,
        status: { type: spec.type, resource: { name, current: currentOf(proposal, target) } },
      };
    }
    case "ContainerResource": {
      const { name, container, target } = spec.containerResource!;
      const { proposal, ofRequest } = proposeResource(name, container, target, reading, round);
      const metric = ofRequest ? `${name} container resource utilization (percentage of request)` : `${name} resource`;
      const current = currentOf(proposal, target);
      return { proposal, metric, status: { type: spec.type, containerResource: { name, container, current } } };
    }
    case "Pods": {
      const { metric, target } = spec.pods!;
      const metrics = podsOf(reading);
      const goal = milli(target.averageValue);
      const proposal = byAverage({ pods, metrics, isCpu: false, currentReplicas, target: goal, nowMs });
      const current = { averageValue: text(proposal.usage) };
      return { proposal, metric: `pods metric ${metric.name}`, status: { type: spec.type, pods: { metric, current } } };
    }
    case "Object": {
      const { metric, target, describedObject } = spec.object!;
      const isValue = target.type === "Value" && target.value !== undefined;
      if (!isValue && target.averageValue === undefined) {
        throw new MetricError(
          "invalid object metric source: neither a value target nor an average value target was set",
        );
      }
      const { proposal, current } = proposeValue(isValue, target, reading, round);
      const about = isValue
        ? `${describedObject.kind} metric ${metric.name}`
        : `external metric ${metric.name}(${selectorText(metric.selector)})`;
      return { proposal, metric: about, status: { type: spec.type, object: { metric, describedObject, current } } };
    }
    default: {
      const { metric, target } = spec.external!;
      const isValue = target.averageValue === undefined;
      if (isValue && target.value === undefined) {
        throw new MetricError(
          "invalid external metric source: neither a value target nor an average value target was set",
        );
      }
      const { proposal, current } = proposeValue(isValue, target, reading, round);
      const about = `external metric ${metric.name}(${selectorText(metric.selector)})`;
      return { proposal, metric: about, status: { type: spec.type, external: { metric, current } } };
    }
  }
}

function proposeResource(
  resource: string,
  container: string | undefined,
  target: MetricTarget,
  reading: Reading,
  { scale, pods, nowMs }: Round,
): { readonly proposal: Proposal; readonly ofRequest: boolean } {
  const currentReplicas = scale.specReplicas;
  if (target.averageValue !== undefined) {
    const goal = milli(target.averageValue);
    const isCpu = resource === "cpu";
    const proposal = inWords(`failed to get ${resource} usage`, () =>
      byAverage({ pods, metrics: podsOf(reading), isCpu, currentReplicas, target: goal, nowMs }),
    );
    return { proposal, ofRequest: false };
  }
  const { averageUtilization } = target;
  if (averageUtilization === undefined) {
    throw new MetricError(
      "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set",
    );
  }
  const proposal = inWords(`failed to get ${resource} utilization`, () =>
    byUtilization({
      ...{ pods, metrics: podsOf(reading), resource, container, currentReplicas, nowMs },
      target: averageUtilization,
    }),
  );
  return { proposal, ofRequest: true };
}

function proposeValue(isValue: boolean, target: MetricTarget, reading: Reading, { scale, pods }: Round) {
  const value = singleOf(reading);
  if (isValue) {
    const proposal = byValue({ pods, value, target: milli(target.value), currentReplicas: scale.specReplicas });
    return { proposal, current: { value: text(proposal.usage) } };
  }
  const proposal = byValuePerPod({ value, target: milli(target.averageValue), replicas: scale.statusReplicas });
  return { proposal, current: { averageValue: text(proposal.usage) } };
}

function inWords<T>(words: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof MetricError ? new MetricError(`${words}: ${error.message}`) : error;
  }
}

function podsOf(reading: Reading): PodMetricsByName {
  if (reading.kind === "pods") return reading.metrics;
  throw new MetricError(reading.kind === "failure" ? reading.message : "the metric has one value and not one per pod");
}

function singleOf(reading: Reading): number {
  if (reading.kind === "value") return reading.value;
  throw new MetricError(reading.kind === "failure" ? reading.message : "the metric has one value per pod");
}

function currentOf(proposal: Proposal, target: MetricTarget) {
  const averageValue = text(proposal.usage);
  if (target.averageValue !== undefined || proposal.utilization === undefined) return { averageValue };
  return { averageUtilization: proposal.utilization, averageValue };
}

const milli = (quantity: string | number | undefined): number => Number(parseQuantity(quantity ?? "0").milliValue());
const text = (milliValue: number): string => parseQuantity(`${milliValue}m`).toString();

/** Conditions in the order they were first set; the time of change is kept while the status is the same. */
export class Conditions {
  readonly #nowMs: number;
  #list: HorizontalPodAutoscalerCondition[];
  constructor(old: readonly HorizontalPodAutoscalerCondition[], nowMs: number) {
    this.#list = [...old];
    this.#nowMs = nowMs;
  }
  get list(): readonly HorizontalPodAutoscalerCondition[] {
    return this.#list;
  }
  set(type: string, status: string, reason: string, message: string): void {
    const old = this.#list.find((one) => one.type === type);
    const lastTransitionTime =
      old?.status === status && old.lastTransitionTime !== undefined ? old.lastTransitionTime : rfc3339(this.#nowMs);
    const next = { type, status, lastTransitionTime, reason, message };
    this.#list = old ? this.#list.map((one) => (one === old ? next : one)) : [...this.#list, next];
  }
}
