// Other amounts of CPU and memory for a pod that runs: what it has been allocated, whether it may have what it asks for now,
// what of its running containers has to change for that, and what its status shows. Pure; actuate.ts does it.
//
//   spec changes ──▶ fits? ──▶ allocated ──▶ cgroups, or a restart where the container's policy says so ──▶ done
//                      └─ not now: Deferred, asked again when others leave; never: Infeasible
//
// Everything else of the node (starting, cgroups, admission of others) goes by what is allocated, never by the spec.
// Counterpart: the kubelet's handlePodResourcesResize, canResizePod, computePodResizeAction.
import type { Container, Pod, ResourceRequirements } from "#model/gen/core-v1.ts";
import { canonicalQuantity } from "#model/quantity.ts";
import type { Amounts } from "../capacity.ts";
import type { NodeConfiguration } from "../configuration.ts";
import type { Refusal } from "./admission.ts";
import { newestContainer, type PodObservation, type RuntimeLimits } from "./observation.ts";
import { milliOf, wholeOf } from "./quantities.ts";
import { containerLimits, cpuPeriodUs, qosClass } from "./resources.ts";
import { podTotals } from "./totals.ts";

/** By container name. Only those that can be resized are in it: the main ones. */
export type Allocation = Readonly<Record<string, ResourceRequirements>>;

export const askedFor = (pod: Pod): Allocation =>
  Object.fromEntries((pod.spec.containers ?? []).map((c) => [c.name, c.resources ?? {}]));

/** The pod as if it asked for what it has; the very same object where that is so. */
export function withAllocation(pod: Pod, allocation: Allocation): Pod {
  const containers = pod.spec.containers ?? [];
  if (sameAllocation(askedFor(pod), allocation)) return pod;
  const resized = containers.map((c) => ({ ...c, resources: allocation[c.name] ?? c.resources ?? {} }));
  return { ...pod, spec: { ...pod.spec, containers: resized } };
}

/** What containers that are here already were made with; the rest as the spec has it. */
export const recalledAllocation = (pod: Pod, observed: PodObservation): Allocation =>
  Object.fromEntries(
    (pod.spec.containers ?? []).map((c) => [c.name, newestContainer(observed, c.name)?.madeWith ?? c.resources ?? {}]),
  );

export const sameAllocation = (a: Allocation, b: Allocation): boolean =>
  Object.keys(a).every((name) => b[name] === undefined || sameAmounts(a[name]!, b[name]));

export const changedContainers = (a: Allocation, b: Allocation): string[] =>
  Object.keys(a).filter((name) => b[name] === undefined || !sameAmounts(a[name]!, b[name]));

const lists = ["requests", "limits"] as const;

/** Of CPU and memory; nothing else changes. Absent is not zero. */
function sameAmounts(a: ResourceRequirements, b: ResourceRequirements): boolean {
  const value = (of: ResourceRequirements, list: (typeof lists)[number], name: "cpu" | "memory") => {
    const text = of[list]?.[name];
    return text === undefined ? undefined : (name === "cpu" ? milliOf : wholeOf)(text);
  };
  return lists.every((list) =>
    (["cpu", "memory"] as const).every((name) => value(a, list, name) === value(b, list, name)),
  );
}

/** Whether the pod would free something by being as `next` wants it. */
export function frees(next: Allocation, before: Allocation): boolean {
  return Object.entries(before).some(([name, had]) =>
    (["cpu", "memory"] as const).some(
      (resource) => milliOf(next[name]?.requests?.[resource]) < milliOf(had.requests?.[resource]),
    ),
  );
}

export type Verdict =
  | { readonly fits: true }
  | { readonly fits: false; readonly status: "Deferred" | "Infeasible"; readonly message: string };

export interface ResizeInput {
  /** With what it asks for. */
  readonly pod: Pod;
  readonly allocatable: Amounts;
  readonly configuration: Pick<NodeConfiguration, "cpuManagerPolicy" | "memoryManagerPolicy">;
  /** Why a new pod of this size could not start here beside the others. */
  readonly refusal: () => Refusal | undefined;
}

export function judgeResize(input: ResizeInput): Verdict {
  const { pod, allocatable, configuration } = input;
  const infeasible = (message: string): Verdict => ({ fits: false, status: "Infeasible", message });
  if (qosClass(pod) === "Guaranteed") {
    // They have processors and memory nodes of their own, which do not change.
    const manager =
      configuration.cpuManagerPolicy === "static"
        ? "CPU"
        : configuration.memoryManagerPolicy === "Static"
          ? "Memory"
          : undefined;
    if (manager) {
      return infeasible(`Resize is infeasible for Guaranteed Pods alongside ${manager} Manager static policy`);
    }
  }
  const asked = podTotals(pod, "requests");
  for (const name of ["memory", "cpu"] as const) {
    const [requested, capacity] = [asked[name] ?? 0, allocatable[name] ?? 0];
    if (requested > capacity) {
      return infeasible(`Node didn't have enough capacity: ${name}, requested: ${requested}, capacity: ${capacity}`);
    }
  }
  const refusal = input.refusal();
  if (!refusal) return { fits: true };
  return { fits: false, status: "Deferred", message: refusal.message.replace(/^Pod was rejected: /, "") };
}

export interface LimitChange {
  readonly cpu: boolean;
  readonly memory: boolean;
}

/** What of a running container is not as allocated; undefined for nothing, and where nobody knows what it has. */
export function pendingChange(container: Container, now: RuntimeLimits | undefined): LimitChange | undefined {
  if (!now) return undefined;
  const wanted = containerLimits(container);
  // Limits are never taken away, so none asked for is nothing to do.
  const cpu =
    (now.cpuShares > 0 && now.cpuShares !== wanted.cpuShares) ||
    (wanted.cpuQuotaUs > 0 && now.cpuQuotaUs !== wanted.cpuQuotaUs);
  const memory = wanted.memoryBytes > 0 && now.memoryBytes !== wanted.memoryBytes;
  return cpu || memory ? { cpu, memory } : undefined;
}

export const needsRestart = (container: Container, change: LimitChange): boolean =>
  (container.resizePolicy ?? []).some(
    ({ resourceName, restartPolicy }) =>
      restartPolicy === "RestartContainer" &&
      ((resourceName === "cpu" && change.cpu) || (resourceName === "memory" && change.memory)),
  );

/** What the status shows a container to have: what is allocated, but where the runtime holds it to something else. */
export function shownResources(container: Container, now: RuntimeLimits | undefined): ResourceRequirements {
  const { requests, limits } = container.resources ?? {};
  const shown: ResourceRequirements = {
    ...(limits ? { limits: { ...limits } } : {}),
    ...(requests ? { requests: { ...requests } } : {}),
  };
  if (!now) return shown;
  const wanted = containerLimits(container);
  if (shown.limits?.["cpu"] !== undefined && now.cpuQuotaUs !== wanted.cpuQuotaUs) {
    replace(shown.limits, "cpu", now.cpuQuotaUs > 0 ? milliText((now.cpuQuotaUs * 1000) / cpuPeriodUs) : undefined);
  }
  if (shown.limits?.["memory"] !== undefined && now.memoryBytes !== wanted.memoryBytes) {
    replace(shown.limits, "memory", now.memoryBytes > 0 ? bytesText(now.memoryBytes) : undefined);
  }
  if (shown.requests?.["cpu"] !== undefined && now.cpuShares > 0 && now.cpuShares !== wanted.cpuShares) {
    shown.requests["cpu"] = milliText((now.cpuShares * 1000) / 1024);
  }
  return shown;
}

function replace(list: Record<string, string>, name: string, text: string | undefined): void {
  if (text === undefined) delete list[name];
  else list[name] = text;
}

const milliText = (milli: number): string => canonicalQuantity(`${Math.ceil(milli)}m`);

function bytesText(bytes: number): string {
  for (const [suffix, unit] of [
    ["Gi", 2 ** 30],
    ["Mi", 2 ** 20],
    ["Ki", 2 ** 10],
  ] as const) {
    if (bytes % unit === 0) return `${bytes / unit}${suffix}`;
  }
  return String(bytes);
}
