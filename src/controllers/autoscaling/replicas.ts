// How many replicas one metric asks for. Pure. Values are in thousandths, as the API's quantities are compared; divisions of
// whole numbers cut off as upstream's do, so that the same figures give the same decision.
// Upstream counterpart: pkg/controller/podautoscaler/replica_calculator.go and metrics/utilization.go.
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { isDeleting, nameOf } from "#model/object.ts";
import { parseQuantity } from "#model/quantity.ts";
import { isPodReady, podCondition } from "../runtime/pods.ts";

export interface PodMetric {
  /** Thousandths. */
  readonly value: number;
  readonly atMs: number;
  readonly windowMs: number;
}
export type PodMetricsByName = ReadonlyMap<string, PodMetric>;

/** Changes within this share of the target are no reason to scale. */
export const tolerance = 0.1;
/** CPU of a pod this young counts only while it is ready and measured since it became so. */
const cpuInitializationMs = 300_000;
/** A pod that turned unready within this of its start was never ready. */
const initialReadinessMs = 30_000;

export interface Proposal {
  readonly replicas: number;
  /** Thousandths, of one pod on average or of all, as the target is. */
  readonly usage: number;
  /** Percent of the request. */
  readonly utilization?: number;
}

/** Words of a failure, as events and conditions show them. */
export class MetricError extends Error {}

export const noPods = "no pods returned by selector while calculating replica count";
const noMetrics = "did not receive metrics for targeted pods (pods might be unready)";

interface Groups {
  readonly readyCount: number;
  readonly unready: ReadonlySet<string>;
  readonly missing: ReadonlySet<string>;
  readonly ignored: ReadonlySet<string>;
}

export function groupPods(pods: readonly Pod[], metrics: PodMetricsByName, isCpu: boolean, nowMs: number): Groups {
  const unready = new Set<string>();
  const missing = new Set<string>();
  const ignored = new Set<string>();
  let readyCount = 0;
  for (const pod of pods) {
    const name = nameOf(pod);
    const metric = metrics.get(name);
    if (isDeleting(pod) || pod.status?.phase === "Failed") ignored.add(name);
    else if (pod.status?.phase === "Pending") unready.add(name);
    else if (!metric) missing.add(name);
    else if (isCpu && !isCpuMeaningful(pod, metric, nowMs)) unready.add(name);
    else readyCount++;
  }
  return { readyCount, unready, missing, ignored };
}

function isCpuMeaningful(pod: Pod, metric: PodMetric, nowMs: number): boolean {
  const ready = podCondition(pod, "Ready");
  const startText = pod.status?.startTime;
  if (!ready || !startText) return false;
  const startMs = Date.parse(startText);
  const changedMs = Date.parse(ready.lastTransitionTime ?? "") || 0;
  if (startMs + cpuInitializationMs > nowMs) {
    return ready.status !== "False" && metric.atMs >= changedMs + metric.windowMs;
  }
  return ready.status !== "False" || startMs + initialReadinessMs <= changedMs;
}

/** Share of what pods request that they use, against a target in percent. */
export function byUtilization(input: {
  readonly pods: readonly Pod[];
  readonly metrics: PodMetricsByName;
  readonly resource: string;
  readonly container: string | undefined;
  readonly currentReplicas: number;
  /** Percent. */
  readonly target: number;
  readonly nowMs: number;
}): Proposal {
  const { pods, resource, target, currentReplicas } = input;
  if (pods.length === 0) throw new MetricError(noPods);
  const groups = groupPods(pods, input.metrics, resource === "cpu", input.nowMs);
  const metrics = valuesOf(input.metrics, groups);
  if (metrics.size === 0) throw new MetricError(noMetrics);
  const requests = requestsOf(pods, input.container, resource);
  const first = utilizationRatio(metrics, requests, target);
  // A pod that is not heard of uses all of its request where that keeps pods, and nothing where that keeps from adding.
  const fallback = Math.max(100, target);
  const replicas = corrected(first.ratio, groups, currentReplicas, metrics, {
    onScaleDown: (name) => Math.trunc(((requests.get(name) ?? 0) * fallback) / 100),
    ratio: () => utilizationRatio(metrics, requests, target).ratio,
    strictlyAbove: true,
  });
  return { replicas, usage: first.usage, utilization: first.utilization };
}

/** What a pod uses on average, against a target in thousandths. */
export function byAverage(input: {
  readonly pods: readonly Pod[];
  readonly metrics: PodMetricsByName;
  readonly isCpu: boolean;
  readonly currentReplicas: number;
  readonly target: number;
  readonly nowMs: number;
}): Proposal {
  const { pods, target, currentReplicas } = input;
  if (pods.length === 0) throw new MetricError(noPods);
  const groups = groupPods(pods, input.metrics, input.isCpu, input.nowMs);
  const metrics = valuesOf(input.metrics, groups);
  if (metrics.size === 0) throw new MetricError(noMetrics);
  const first = averageRatio(metrics, target);
  const replicas = corrected(first.ratio, groups, currentReplicas, metrics, {
    onScaleDown: () => target,
    ratio: () => averageRatio(metrics, target).ratio,
    strictlyAbove: false,
  });
  return { replicas, usage: first.usage };
}

/** One value for all pods, against a target for all: the pods that are ready are scaled by the share. */
export function byValue(input: {
  readonly pods: readonly Pod[];
  readonly value: number;
  readonly target: number;
  readonly currentReplicas: number;
}): Proposal {
  const { pods, value, target, currentReplicas } = input;
  const ratio = value / target;
  if (currentReplicas === 0) return { replicas: Math.ceil(ratio), usage: value };
  if (isTolerable(ratio)) return { replicas: currentReplicas, usage: value };
  if (pods.length === 0) throw new MetricError(`unable to calculate ready pods: ${noPods}`);
  const ready = pods.filter((pod) => pod.status?.phase === "Running" && isPodReady(pod)).length;
  return { replicas: Math.ceil(ratio * ready), usage: value };
}

/** One value for all pods, against a target for each. `replicas`: as many as there are, not as are asked for. */
export function byValuePerPod(input: {
  readonly value: number;
  readonly target: number;
  readonly replicas: number;
}): Proposal {
  const { value, target, replicas } = input;
  const ratio = value / (target * replicas);
  return {
    replicas: isTolerable(ratio) ? replicas : Math.ceil(value / target),
    usage: replicas === 0 ? 0 : Math.ceil(value / replicas),
  };
}

const isTolerable = (ratio: number): boolean => Math.abs(1 - ratio) <= tolerance;

function valuesOf(metrics: PodMetricsByName, { ignored, unready }: Groups): Map<string, number> {
  const out = new Map<string, number>();
  for (const [name, { value }] of metrics) if (!ignored.has(name) && !unready.has(name)) out.set(name, value);
  return out;
}

/** Pods that are not heard of, or not ready, may dampen a change but never turn it round. Adds to `metrics`. */
function corrected(
  ratio: number,
  { readyCount, unready, missing }: Groups,
  currentReplicas: number,
  metrics: Map<string, number>,
  how: {
    readonly onScaleDown: (name: string) => number;
    readonly ratio: () => number;
    /** Whether at exactly the target missing pods count as nothing. */
    readonly strictlyAbove: boolean;
  },
): number {
  const scalesUpWithUnready = unready.size > 0 && ratio > 1;
  if (!scalesUpWithUnready && missing.size === 0) {
    return isTolerable(ratio) ? currentReplicas : Math.ceil(ratio * readyCount);
  }
  for (const name of missing) {
    if (ratio < 1) metrics.set(name, how.onScaleDown(name));
    else if (ratio > 1 || !how.strictlyAbove) metrics.set(name, 0);
  }
  if (scalesUpWithUnready) for (const name of unready) metrics.set(name, 0);
  const next = how.ratio();
  if (isTolerable(next) || (ratio < 1 && next > 1) || (ratio > 1 && next < 1)) return currentReplicas;
  const replicas = Math.ceil(next * metrics.size);
  if ((next < 1 && replicas > currentReplicas) || (next > 1 && replicas < currentReplicas)) return currentReplicas;
  return replicas;
}

function utilizationRatio(
  metrics: ReadonlyMap<string, number>,
  requests: ReadonlyMap<string, number>,
  target: number,
): { readonly ratio: number; readonly utilization: number; readonly usage: number } {
  let used = 0;
  let requested = 0;
  let count = 0;
  for (const [name, value] of metrics) {
    const request = requests.get(name);
    if (request === undefined) continue;
    used += value;
    requested += request;
    count++;
  }
  if (requested === 0) throw new MetricError("no metrics returned matched known pods");
  const utilization = divide(used * 100, requested);
  return { ratio: utilization / target, utilization, usage: divide(used, count) };
}

function averageRatio(metrics: ReadonlyMap<string, number>, target: number) {
  let total = 0;
  for (const value of metrics.values()) total += value;
  const usage = divide(total, metrics.size);
  return { ratio: usage / target, usage };
}

/** Whole numbers, exactly: 29 percent must not become 28. */
const divide = (a: number, b: number): number => Number(BigInt(Math.round(a)) / BigInt(Math.round(b)));

function requestsOf(pods: readonly Pod[], container: string | undefined, resource: string): Map<string, number> {
  const out = new Map<string, number>();
  for (const pod of pods) {
    let sum = 0;
    for (const c of longLived(pod)) {
      if (container !== undefined && container !== c.name) continue;
      const request = c.resources?.requests?.[resource];
      if (request === undefined) {
        throw new MetricError(`missing request for ${resource} in container ${c.name} of Pod ${nameOf(pod)}`);
      }
      sum += Number(parseQuantity(request).milliValue());
    }
    out.set(nameOf(pod), sum);
  }
  return out;
}

const longLived = (pod: Pod): readonly Container[] => [
  ...(pod.spec.containers ?? []),
  ...(pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === "Always"),
];
