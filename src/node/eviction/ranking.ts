// Which pod goes first when something runs short, and what it is told. Pure. Order: those that use more than they requested,
// then lower priority, then more use beyond the request. Critical pods never go. Counterpart: the kubelet's rankMemoryPressure,
// rankDiskPressureFunc, rankPIDPressure and evictionMessage; the texts are the ones people look for.
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { wholeOf } from "../pods/quantities.ts";
import { podTotals } from "../pods/totals.ts";
import type { PodUsage } from "../stats/usage.ts";
import { amountOf, type Observation, type Signal, signalFacts, type Threshold } from "./signals.ts";

/** SystemCriticalPriority. */
export const criticalPriority = 2_000_000_000;
const configSource = "kubernetes.io/config.source";
const configMirror = "kubernetes.io/config.mirror";

export const isStaticPod = (pod: Pod): boolean => {
  const source = pod.metadata.annotations?.[configSource];
  return source !== undefined && source !== "api";
};

export const isCriticalPod = (pod: Pod): boolean =>
  isStaticPod(pod) ||
  pod.metadata.annotations?.[configMirror] !== undefined ||
  (pod.spec.priority ?? 0) >= criticalPriority;

/** What of the pod counts against the signal. */
function usedOf(usage: PodUsage | undefined, signal: Signal): number {
  if (!usage) return 0;
  switch (signal) {
    case "memory.available":
      return usage.workingSetBytes;
    case "pid.available":
      return usage.processes;
    case "nodefs.inodesFree":
    case "imagefs.inodesFree":
      return usage.ephemeralInodes;
    default:
      return usage.ephemeralBytes;
  }
}

export interface Candidate {
  readonly pod: Pod;
  readonly usage: PodUsage | undefined;
}

/** First to go first. */
export function rank(candidates: readonly Candidate[], signal: Signal): readonly Candidate[] {
  const { resource } = signalFacts[signal];
  const rows = candidates
    .filter((c) => !isCriticalPod(c.pod))
    .map((candidate) => {
      const used = usedOf(candidate.usage, signal);
      // Requests of inodes and processes do not exist.
      const beyond =
        used -
        (resource === "memory" || resource === "ephemeral-storage"
          ? (podTotals(candidate.pod, "requests")[resource] ?? 0)
          : 0);
      return {
        candidate,
        beyond,
        exceeds: resource === "pids" || beyond > 0,
        priority: candidate.pod.spec.priority ?? 0,
      };
    });
  rows.sort((a, b) => Number(b.exceeds) - Number(a.exceeds) || a.priority - b.priority || b.beyond - a.beyond);
  return rows.map((row) => row.candidate);
}

/** Binary suffixes where they are exact enough, as messages print quantities. */
export function quantityText(bytes: number, resource: string): string {
  if (resource !== "memory" && resource !== "ephemeral-storage") return String(bytes);
  for (const [suffix, unit] of [
    ["Gi", 2 ** 30],
    ["Mi", 2 ** 20],
    ["Ki", 2 ** 10],
  ] as const) {
    if (bytes >= unit && bytes % unit === 0) return `${bytes / unit}${suffix}`;
  }
  return bytes >= 1024 ? `${Math.floor(bytes / 1024)}Ki` : String(bytes);
}

export function evictionMessage(
  threshold: Threshold,
  seen: Observation | undefined,
  { pod, usage }: Candidate,
): string {
  const { resource } = signalFacts[threshold.signal];
  let text = `The node was low on resource: ${resource}. `;
  if (seen) {
    const limit = quantityText(amountOf(threshold, seen.capacity), resource);
    text += `Threshold quantity: ${limit}, available: ${quantityText(seen.available, resource)}. `;
  }
  for (const container of usage?.containers ?? []) {
    const used =
      resource === "memory" ? container.workingSetBytes : resource === "ephemeral-storage" ? container.diskBytes : 0;
    const spec = [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? [])].find(
      (c) => c.name === container.name,
    );
    const request = wholeOf(spec?.resources?.requests?.[resource]);
    if (used <= request) continue;
    text += `Container ${container.name} was using ${quantityText(used, resource)}, request is ${quantityText(request, resource)}, has larger consumption of ${resource}. `;
  }
  return text;
}

/** Limits a pod set itself on local storage, crossed: the message, or undefined. */
export function storageLimitMessage(pod: Pod, usage: PodUsage): string | undefined {
  for (const volume of pod.spec.volumes ?? []) {
    const limit = wholeOf(volume.emptyDir?.sizeLimit);
    const used = usage.volumes.find((v) => v.name === volume.name)?.bytes ?? 0;
    if (volume.emptyDir && limit > 0 && used > limit) {
      return `Usage of EmptyDir volume "${volume.name}" exceeds the limit "${volume.emptyDir.sizeLimit}". `;
    }
  }
  const containers = pod.spec.containers ?? [];
  const limitOf = (c: Container) => wholeOf(c.resources?.limits?.["ephemeral-storage"]);
  const total = containers.reduce((sum, c) => sum + limitOf(c), 0);
  if (total > 0 && containers.every((c) => limitOf(c) > 0) && usage.ephemeralBytes > total) {
    return `Pod ephemeral local storage usage exceeds the total limit of containers ${quantityText(total, "memory")}. `;
  }
  for (const container of containers) {
    const limit = limitOf(container);
    const used = usage.containers.find((c) => c.name === container.name)?.diskBytes ?? 0;
    if (limit > 0 && used > limit) {
      const shown = container.resources?.limits?.["ephemeral-storage"];
      return `Container ${container.name} exceeded its local ephemeral storage limit "${shown}". `;
    }
  }
  return undefined;
}

/** Whether the pod asks for its local storage to be watched at all. */
export const hasStorageLimit = (pod: Pod): boolean =>
  (pod.spec.volumes ?? []).some((v) => v.emptyDir?.sizeLimit !== undefined && v.emptyDir.medium !== "Memory") ||
  (pod.spec.containers ?? []).some((c) => c.resources?.limits?.["ephemeral-storage"] !== undefined);
