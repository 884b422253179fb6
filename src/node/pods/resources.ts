// From requests and limits to what the kernel takes: QoS class, CPU shares and quota, memory limit, OOM score, cgroup
// names. Pure. Sources: the Kubernetes pages "Pod QoS" and "Node-pressure eviction" (the oom_score_adj table).
import type { Container, Pod } from "#model/gen/core-v1.ts";
import { milliOf, wholeOf } from "./quantities.ts";
import { podTotals } from "./totals.ts";

export type QosClass = "Guaranteed" | "Burstable" | "BestEffort";

const computeResources = ["cpu", "memory"] as const;

export function qosClass(pod: Pod): QosClass {
  let anySet = false;
  let guaranteed = true;
  for (const c of [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])]) {
    for (const name of computeResources) {
      const limit = wholeOf(c.resources?.limits?.[name]);
      const request = wholeOf(c.resources?.requests?.[name]) || limit;
      if (limit > 0 || request > 0) anySet = true;
      if (
        limit === 0 ||
        Math.abs(
          milliOf(c.resources?.limits?.[name]) - milliOf(c.resources?.requests?.[name] ?? c.resources?.limits?.[name]),
        ) > 0
      ) {
        guaranteed = false;
      }
    }
  }
  if (!anySet) return "BestEffort";
  return guaranteed ? "Guaranteed" : "Burstable";
}

export interface LinuxLimits {
  readonly cpuShares: number;
  /** Per `cpuPeriodUs`; 0 means none. */
  readonly cpuQuotaUs: number;
  readonly cpuPeriodUs: number;
  /** 0 means none. */
  readonly memoryBytes: number;
  /** By page size as the kernel writes it: 2MB, 1GB. */
  readonly hugePageBytes: Readonly<Record<string, number>>;
}

/** `hugepages-2Mi` → `2MB`, as the hugetlb controller names its files. */
function hugePagesOf(amounts: Readonly<Record<string, string | number>>): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [name, text] of Object.entries(amounts)) {
    const match = /^hugepages-(\d+)([KMG])i$/.exec(name);
    if (match) out[`${match[1]}${match[2]}B`] = wholeOf(text);
  }
  return out;
}

/** What the kernel calls the sizes of huge pages that a machine has, by their resource names. */
export const hugePageSizes = (machine: Readonly<Record<string, number>>): string[] => Object.keys(hugePagesOf(machine));

export const cpuPeriodUs = 100_000;
/** The kernel refuses fewer shares and shorter quotas. */
const minShares = 2;
const maxShares = 262_144;
const minQuotaUs = 1_000;

export const sharesOf = (milliCpu: number): number =>
  Math.min(maxShares, Math.max(minShares, Math.floor((milliCpu * 1024) / 1000)));
export const quotaOf = (milliCpu: number): number =>
  milliCpu <= 0 ? 0 : Math.max(minQuotaUs, Math.floor((milliCpu * cpuPeriodUs) / 1000));

export function containerLimits(container: Container): LinuxLimits {
  const limits = container.resources?.limits ?? {};
  const requests = container.resources?.requests ?? {};
  const cpuLimit = milliOf(limits["cpu"]);
  const cpuRequest = requests["cpu"] === undefined ? cpuLimit : milliOf(requests["cpu"]);
  return {
    cpuShares: sharesOf(cpuRequest),
    cpuQuotaUs: quotaOf(cpuLimit),
    cpuPeriodUs,
    memoryBytes: wholeOf(limits["memory"]),
    hugePageBytes: hugePagesOf(limits),
  };
}

/** Limits of the pod's own cgroup: of the pod as a whole where every container has one, else none. */
export function podLimits(pod: Pod): LinuxLimits {
  const [requests, limits] = [podTotals(pod, "requests"), podTotals(pod, "limits")];
  const all = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
  const isLimited = (name: string) => all.length > 0 && all.every((c) => milliOf(c.resources?.limits?.[name]) > 0);
  return {
    cpuShares: sharesOf(requests["cpu"] ?? 0),
    cpuQuotaUs: isLimited("cpu") ? quotaOf(limits["cpu"] ?? 0) : 0,
    cpuPeriodUs,
    memoryBytes: isLimited("memory") ? (limits["memory"] ?? 0) : 0,
    hugePageBytes: hugePagesOf(limits),
  };
}

/** Who is killed first when memory runs out. */
export function oomScoreAdjust(pod: Pod, container: Container, memoryCapacityBytes: number): number {
  if ((pod.spec.priority ?? 0) >= 2_000_000_000) return -997;
  switch (qosClass(pod)) {
    case "Guaranteed":
      return -997;
    case "BestEffort":
      return 1000;
    case "Burstable": {
      const request = wholeOf(container.resources?.requests?.["memory"]);
      const score = 1000 - Math.floor((1000 * request) / memoryCapacityBytes);
      if (score < 1000 - 997) return 1000 - 997;
      return score === 1000 ? 999 : score;
    }
  }
}

/** Path of the pod's cgroup below each hierarchy's mount point; `podsCgroup` is that of all pods. */
export function podCgroup(pod: Pod, podsCgroup: string): string {
  const uid = pod.metadata.uid ?? "";
  const qos = qosClass(pod);
  return qos === "Guaranteed" ? `${podsCgroup}/pod${uid}` : `${podsCgroup}/${qos.toLowerCase()}/pod${uid}`;
}
