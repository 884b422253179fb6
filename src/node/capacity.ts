// What the node has and what pods may have of it: capacity, allocatable, and whether one more pod fits. Pure.
// allocatable = capacity − kube reserved − system reserved − hard eviction threshold. Counterpart: the kubelet's
// GetNodeAllocatableReservation and the node resources part of its admission.
import type { Pod } from "#model/gen/core-v1.ts";
import type { Machine } from "#platform/machine.ts";
import type { NodeConfiguration } from "./configuration.ts";
import { criticalPriority, isCriticalPod } from "./eviction/ranking.ts";
import { amountOf } from "./eviction/signals.ts";
import { podTotals } from "./pods/totals.ts";

/** By resource name: cpu in thousandths, the rest in units. */
export type Amounts = Readonly<Record<string, number>>;

export function capacityOf(
  machine: Pick<Machine, "cpus" | "memoryBytes" | "hugePages">,
  diskBytes: number,
  configuration: Pick<NodeConfiguration, "maxPods">,
  devices: Amounts = {},
): Amounts {
  return {
    cpu: machine.cpus * 1000,
    "ephemeral-storage": diskBytes,
    ...machine.hugePages,
    memory: machine.memoryBytes,
    pods: configuration.maxPods,
    ...devices,
  };
}

export function allocatableOf(
  capacity: Amounts,
  configuration: Pick<NodeConfiguration, "kubeReserved" | "systemReserved" | "evictionHard">,
): Amounts {
  const out: Record<string, number> = {};
  for (const [name, total] of Object.entries(capacity)) {
    const signal =
      name === "memory" ? "memory.available" : name === "ephemeral-storage" ? "nodefs.available" : undefined;
    const threshold = configuration.evictionHard.find((t) => t.signal === signal);
    const kept =
      (configuration.kubeReserved[name] ?? 0) +
      (configuration.systemReserved[name] ?? 0) +
      (threshold ? amountOf(threshold, total) : 0);
    out[name] = Math.max(0, total - kept);
  }
  // Huge pages are taken out of memory for good.
  const huge = Object.entries(capacity).reduce(
    (sum, [name, bytes]) => sum + (name.startsWith("hugepages-") ? bytes : 0),
    0,
  );
  if (out["memory"] !== undefined) out["memory"] = Math.max(0, out["memory"] - huge);
  return out;
}

/** As the API shows them. */
export function amountText(name: string, value: number): string {
  if (name === "cpu") return value % 1000 === 0 ? String(value / 1000) : `${value}m`;
  if (name === "memory") return `${Math.floor(value / 1024)}Ki`;
  if (name === "ephemeral-storage") return value % 1024 === 0 ? `${value / 1024}Ki` : String(Math.floor(value));
  if (name.startsWith("hugepages-")) return value === 0 ? "0" : `${value / 2 ** 20}Mi`;
  return String(value);
}

export const amountsText = (amounts: Amounts): Record<string, string> =>
  Object.fromEntries(Object.entries(amounts).map(([name, value]) => [name, amountText(name, value)]));

/** The first resource that does not fit, in the words of a refusal; undefined when all do. */
export function misfit(
  pod: Pod,
  others: readonly Pod[],
  allocatable: Amounts,
): { readonly reason: string; readonly message: string } | undefined {
  const podCount = allocatable["pods"] ?? 0;
  if (others.length + 1 > podCount) return outOf("pods", 1, others.length, podCount);
  const used: Record<string, number> = {};
  for (const other of others) {
    for (const [name, value] of Object.entries(podTotals(other, "requests"))) used[name] = (used[name] ?? 0) + value;
  }
  for (const [name, asked] of Object.entries(podTotals(pod, "requests"))) {
    const capacity = allocatable[name];
    // What the node does not count is the scheduler's business.
    if (asked === 0 || capacity === undefined) continue;
    if ((used[name] ?? 0) + asked > capacity) return outOf(name, asked, used[name] ?? 0, capacity);
  }
  return undefined;
}

/**
 * Which of `others` must go so that a critical pod fits: of the least important first, as few as needed. Undefined when even
 * all of them would not do.
 */
export function victimsFor(pod: Pod, others: readonly Pod[], allocatable: Amounts): readonly Pod[] | undefined {
  const priorityOf = (p: Pod) => p.spec.priority ?? 0;
  const removable = others.filter(
    (p) => !isCriticalPod(p) && priorityOf(p) < Math.max(priorityOf(pod), criticalPriority),
  );
  removable.sort((a, b) => priorityOf(a) - priorityOf(b));
  const gone = new Set<Pod>();
  const fits = () =>
    misfit(
      pod,
      others.filter((p) => !gone.has(p)),
      allocatable,
    ) === undefined;
  for (const victim of removable) {
    if (fits()) break;
    gone.add(victim);
  }
  if (!fits()) return undefined;
  // Whoever need not have gone stays, the most important first.
  for (const victim of [...gone].reverse()) {
    gone.delete(victim);
    if (!fits()) gone.add(victim);
  }
  return [...gone];
}

const outOf = (name: string, requested: number, used: number, capacity: number) => ({
  reason: `OutOf${name}`,
  message: `Pod was rejected: Node didn't have enough resource: ${name}, requested: ${requested}, used: ${used}, capacity: ${capacity}`,
});
