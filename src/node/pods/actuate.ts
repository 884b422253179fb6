// Gives a running pod the CPU and memory it has been allocated: the pod's cgroup and those of its containers, in an order in
// which no container ever may more than its pod. The pod's limits first become the larger of old and new, then containers
// change, those that shrink first, then the pod's limits become the new ones.
// Counterpart: the kubelet's doPodResizeAction.

import type { Container, Pod } from "#model/gen/core-v1.ts";
import { applyPodCgroup, type PodLimitsNow, readPodLimits } from "../cgroups.ts";
import type { Cri } from "../cri.ts";
import { readCgroup } from "../stats/kernel.ts";
import type { RuntimeLimits } from "./observation.ts";
import { containerLimits, cpuPeriodUs, type LinuxLimits, podCgroup, podLimits } from "./resources.ts";

export interface ContainerUpdate {
  readonly id: string;
  readonly container: Container;
  readonly from: RuntimeLimits;
}

export interface ActuateDeps {
  readonly cri: Pick<Cri, "updateResources">;
  readonly maxPids: number;
  /** That of all pods. */
  readonly podsCgroup: string;
  /** Told what a container has after each change that the runtime took. */
  readonly changed: (id: string, limits: RuntimeLimits) => void;
  /** Default: the kernel's. */
  readonly cgroups?: PodCgroups;
}

export interface PodCgroups {
  read(path: string): Promise<PodLimitsNow>;
  write(path: string, limits: LinuxLimits, maxPids: number): Promise<void>;
  /** Memory that cannot be dropped. */
  usedBytes(path: string, unified: boolean): number;
}

const kernelCgroups: PodCgroups = {
  read: readPodLimits,
  write: applyPodCgroup,
  usedBytes: (path, unified) => readCgroup(path, { unified }).workingSetBytes,
};

/** Rejects where something is in the way for now; what was done until then stays, and may be done again. */
export async function actuate(pod: Pod, updates: readonly ContainerUpdate[], deps: ActuateDeps): Promise<void> {
  const path = podCgroup(pod, deps.podsCgroup);
  const wanted = podLimits(pod);
  const cgroups = deps.cgroups ?? kernelCgroups;
  const now = await cgroups.read(path);
  /** The kernel would end processes to make it so. */
  const refuseBelowUse = (what: string, at: string, next: number, before: number): void => {
    if (next === 0 || (before > 0 && next >= before)) return;
    const used = cgroups.usedBytes(at, now.unified);
    if (used > next) throw new Error(`${what} uses ${used} bytes of memory, more than its new limit of ${next}`);
  };
  refuseBelowUse(`pod ${pod.metadata.name ?? ""}`, path, wanted.memoryBytes, now.memoryBytes);
  for (const { id, container, from } of updates) {
    refuseBelowUse(
      `container ${container.name}`,
      `${path}/${id}`,
      containerLimits(container).memoryBytes,
      from.memoryBytes,
    );
  }
  await cgroups.write(path, widest(wanted, now), deps.maxPids);
  for (const { id, container } of shrinkingFirst(updates)) {
    const { cpuShares, cpuQuotaUs, memoryBytes } = containerLimits(container);
    // Zero leaves what it has, which is none: limits are never taken away.
    await deps.cri.updateResources(id, {
      cpuShares,
      ...(cpuQuotaUs > 0 ? { cpuQuota: cpuQuotaUs, cpuPeriod: cpuPeriodUs } : {}),
      memoryLimitInBytes: memoryBytes,
    });
    deps.changed(id, { cpuShares, cpuQuotaUs, memoryBytes });
  }
  await cgroups.write(path, wanted, deps.maxPids);
}

/** Limits under which both the old containers and the new ones have room; 0 is no limit. */
function widest(a: LinuxLimits, b: Pick<LinuxLimits, "cpuQuotaUs" | "memoryBytes">): LinuxLimits {
  const larger = (x: number, y: number) => (x === 0 || y === 0 ? 0 : Math.max(x, y));
  return {
    ...a,
    cpuQuotaUs: larger(a.cpuQuotaUs, b.cpuQuotaUs),
    memoryBytes: larger(a.memoryBytes, b.memoryBytes),
  };
}

/** What one container gives back is there when another takes it. */
function shrinkingFirst(updates: readonly ContainerUpdate[]): readonly ContainerUpdate[] {
  const shrinks = ({ container, from }: ContainerUpdate): boolean => {
    const wanted = containerLimits(container);
    return wanted.memoryBytes < from.memoryBytes || wanted.cpuQuotaUs < from.cpuQuotaUs;
  };
  return [...updates.filter(shrinks), ...updates.filter((update) => !shrinks(update))];
}
