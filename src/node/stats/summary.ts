// GET /stats/summary: the node and its pods as upstream's stats/v1alpha1 Summary. Pure over one sample.
import { rfc3339 } from "#base/clock.ts";
import type { FileSystemSize } from "#platform/folders.ts";
import type { CgroupUsage, ContainerUsage, NetworkUsage, PodUsage, Sample, SystemUsage } from "./usage.ts";

export interface SummaryInput {
  readonly nodeName: string;
  readonly sample: Sample;
  readonly nodeFs: FileSystemSize;
  readonly imageFs: FileSystemSize & { readonly usedBytes: number };
  readonly pids: { readonly max: number; readonly used: number };
  /** The default route's; the first stands for the whole where it is not known. */
  readonly mainInterface?: string;
  readonly onlyCpuAndMemory: boolean;
}

export function summaryOf(input: SummaryInput): object {
  const { sample, nodeFs, imageFs } = input;
  const time = rfc3339(sample.timeMs);
  const { node } = sample;
  /** The larger part, which the short form leaves out. */
  const unlessShort = <T extends object>(part: () => T): T | Record<string, never> =>
    input.onlyCpuAndMemory ? {} : part();
  const disk = (size: FileSystemSize, usedBytes: number, inodesUsed?: number) => ({
    time,
    availableBytes: size.freeBytes,
    capacityBytes: size.totalBytes,
    usedBytes,
    inodesFree: size.inodesFree,
    inodes: size.inodes,
    inodesUsed: inodesUsed ?? Math.max(0, size.inodes - size.inodesFree),
  });
  const cpu = (use: { readonly cpuNanoCores: number | undefined; readonly cpuNanoseconds: number }) => ({
    time,
    ...(use.cpuNanoCores === undefined ? {} : { usageNanoCores: use.cpuNanoCores }),
    usageCoreNanoSeconds: use.cpuNanoseconds,
  });
  const memory = (use: MemoryUse, availableBytes?: number) => ({
    time,
    ...(availableBytes === undefined ? {} : { availableBytes }),
    usageBytes: use.usageBytes,
    workingSetBytes: use.workingSetBytes,
    rssBytes: use.rssBytes,
    pageFaults: use.pageFaults,
    majorPageFaults: use.majorPageFaults,
  });
  const leftOf = (use: CgroupUsage) =>
    use.limitBytes > 0 ? Math.max(0, use.limitBytes - use.workingSetBytes) : undefined;
  const swap = (use: CgroupUsage) => ({ swap: { time, swapUsageBytes: use.swapBytes } });
  const container = (use: ContainerUsage) => ({
    name: use.name,
    startTime: rfc3339(use.startedAtMs),
    cpu: cpu(use),
    memory: memory(use, leftOf(use)),
    ...unlessShort(() => ({
      rootfs: disk(imageFs, use.rootfsBytes, use.rootfsInodes),
      logs: disk(nodeFs, use.logBytes, use.logInodes),
    })),
    ...swap(use),
  });
  const system = (use: SystemUsage) => ({
    name: use.name,
    startTime: rfc3339(use.startedAtMs),
    cpu: cpu(use),
    memory: memory(use, use.name === "pods" ? (leftOf(use) ?? node.availableBytes) : undefined),
  });
  const pod = (use: PodUsage) => ({
    podRef: { name: use.name, namespace: use.namespace, uid: use.uid },
    startTime: rfc3339(use.startedAtMs),
    containers: use.containers.map(container),
    cpu: cpu(use),
    memory: memory(use, leftOf(use)),
    ...unlessShort(() => ({
      ...(use.network.length > 0 ? { network: network(use.network, time, "eth0") } : {}),
      volume: use.volumes.map((v) => ({
        time,
        name: v.name,
        availableBytes: v.availableBytes,
        capacityBytes: v.capacityBytes,
        usedBytes: v.bytes,
        inodes: v.totalInodes,
        inodesFree: v.freeInodes,
        inodesUsed: v.inodes,
        ...(v.claim ? { pvcRef: v.claim } : {}),
      })),
      "ephemeral-storage": disk(nodeFs, use.ephemeralBytes, use.ephemeralInodes),
      process_stats: { process_count: use.processes },
    })),
    ...swap(use),
  });
  return {
    node: {
      nodeName: input.nodeName,
      systemContainers: node.system.map(system),
      startTime: rfc3339(node.bootedAtMs),
      cpu: cpu(node),
      memory: memory(node, node.availableBytes),
      ...unlessShort(() => ({
        network: network(node.network, time, input.mainInterface ?? "eth0"),
        fs: disk(nodeFs, nodeFs.totalBytes - nodeFs.freeBytes),
        runtime: { imageFs: disk(imageFs, imageFs.usedBytes), containerFs: disk(imageFs, imageFs.usedBytes) },
        rlimit: { time, maxpid: input.pids.max, curproc: input.pids.used },
      })),
      swap: {
        time,
        swapAvailableBytes: node.swapTotalBytes - node.swapUsedBytes,
        swapUsageBytes: node.swapUsedBytes,
      },
    },
    pods: sample.pods.map(pod),
  };
}

interface MemoryUse {
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
}

/** One interface stands for the whole. */
function network(interfaces: readonly NetworkUsage[], time: string, name: string): object {
  const one = ({ name, rxBytes, rxErrors, txBytes, txErrors }: NetworkUsage) => ({
    ...{ name, rxBytes, rxErrors, txBytes, txErrors },
  });
  const main = interfaces.find((i) => i.name === name) ?? interfaces[0];
  return { time, ...(main ? one(main) : { name: "" }), interfaces: interfaces.map(one) };
}
