// GET /stats/summary: the node and its pods as upstream's stats/v1alpha1 Summary. Pure over one sample.
import { rfc3339 } from "#base/clock.ts";
import type { FileSystemSize } from "#platform/folders.ts";
import type { ContainerUsage, NetworkUsage, PodUsage, Sample } from "./usage.ts";

export interface SummaryInput {
  readonly nodeName: string;
  readonly nowMs: number;
  readonly sample: Sample;
  readonly nodeFs: FileSystemSize;
  readonly imageFs: FileSystemSize & { readonly usedBytes: number };
  readonly pids: { readonly max: number; readonly used: number };
}

export function summaryOf(input: SummaryInput): object {
  const { sample, nodeFs, imageFs } = input;
  const time = rfc3339(input.nowMs);
  const { node } = sample;
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
  const container = (use: ContainerUsage) => ({
    name: use.name,
    startTime: rfc3339(use.startedAtMs),
    cpu: cpu(use),
    memory: memory(use, use.limitBytes > 0 ? Math.max(0, use.limitBytes - use.workingSetBytes) : undefined),
    rootfs: disk(imageFs, use.rootfsBytes, use.rootfsInodes),
    logs: disk(nodeFs, use.logBytes, use.logInodes),
    swap: { time, swapUsageBytes: 0 },
  });
  const pod = (use: PodUsage) => ({
    podRef: { name: use.name, namespace: use.namespace, uid: use.uid },
    startTime: rfc3339(use.startedAtMs),
    containers: use.containers.map(container),
    cpu: cpu(use),
    memory: memory(use),
    ...(use.network.length > 0 ? { network: network(use.network, time) } : {}),
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
    swap: { time, swapUsageBytes: 0 },
  });
  return {
    node: {
      nodeName: input.nodeName,
      systemContainers: [],
      startTime: rfc3339(node.bootedAtMs),
      cpu: cpu(node),
      memory: memory(node, node.availableBytes),
      network: network(node.network, time),
      fs: disk(nodeFs, nodeFs.totalBytes - nodeFs.freeBytes),
      runtime: { imageFs: disk(imageFs, imageFs.usedBytes), containerFs: disk(imageFs, imageFs.usedBytes) },
      rlimit: { time, maxpid: input.pids.max, curproc: input.pids.used },
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

/** The first interface stands for the whole, as upstream's default interface does. */
function network(interfaces: readonly NetworkUsage[], time: string): object {
  const one = ({ name, rxBytes, rxErrors, txBytes, txErrors }: NetworkUsage) => ({
    ...{ name, rxBytes, rxErrors, txBytes, txErrors },
  });
  const main = interfaces.find((i) => i.name === "eth0") ?? interfaces[0];
  return { time, ...(main ? one(main) : { name: "" }), interfaces: interfaces.map(one) };
}
