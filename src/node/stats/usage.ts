// What pods and containers use, as plain data: read by eviction, the stats endpoints and the metrics. Filled by sampler.ts.

export interface DeviceUse {
  /** `/dev/vda`; the numbers where it has no name. */
  readonly device: string;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly reads: number;
  readonly writes: number;
}

/** What only the cadvisor metrics show. */
export interface CgroupDetail {
  readonly userNanoseconds: number;
  readonly systemNanoseconds: number;
  readonly cacheBytes: number;
  readonly mappedFileBytes: number;
  readonly kernelBytes: number;
  readonly maxUsageBytes: number;
  /** Times the memory limit was hit; processes killed for it. */
  readonly limitHits: number;
  readonly oomKills: number;
  /** 0 for no bound. */
  readonly maxThreads: number;
  /** Times the CPU quota was accounted, and ran out; for how long then. */
  readonly cfsPeriods: number;
  readonly cfsThrottledPeriods: number;
  readonly cfsThrottledNanoseconds: number;
  readonly devices: readonly DeviceUse[];
}

export interface CgroupUsage {
  readonly cpuNanoseconds: number;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly rssBytes: number;
  readonly swapBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  /** Processes and threads, as the kernel counts against pids.max. */
  readonly processes: number;
  /** Memory; 0 for none. */
  readonly limitBytes: number;
  readonly detail?: CgroupDetail;
}

export interface ContainerUsage extends CgroupUsage {
  readonly name: string;
  readonly containerId: string;
  readonly startedAtMs: number;
  /** Thousandths of a millionth of a core: nanocores; undefined before there are two samples. */
  readonly cpuNanoCores: number | undefined;
  /** Writable layer and logs. */
  readonly rootfsBytes: number;
  readonly rootfsInodes: number;
  readonly logBytes: number;
  readonly logInodes: number;
  /** Both together. */
  readonly diskBytes: number;
}

export interface VolumeUsage {
  readonly name: string;
  readonly bytes: number;
  readonly inodes: number;
  readonly capacityBytes: number;
  readonly availableBytes: number;
  readonly totalInodes: number;
  readonly freeInodes: number;
  /** On the node's own disk, so that it counts as the pod's ephemeral storage. */
  readonly isEphemeral: boolean;
  readonly claim?: { readonly name: string; readonly namespace: string };
}

export interface NetworkUsage {
  readonly name: string;
  readonly rxBytes: number;
  readonly rxErrors: number;
  readonly rxPackets: number;
  readonly rxDropped: number;
  readonly txBytes: number;
  readonly txErrors: number;
  readonly txPackets: number;
  readonly txDropped: number;
}

export interface PodUsage extends CgroupUsage {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly startedAtMs: number;
  readonly cpuNanoCores: number | undefined;
  readonly ephemeralBytes: number;
  readonly ephemeralInodes: number;
  readonly containers: readonly ContainerUsage[];
  readonly volumes: readonly VolumeUsage[];
  readonly network: readonly NetworkUsage[];
  /** The pod's first container, which holds its network. */
  readonly sandbox: CgroupUsage & { readonly id: string };
}

/** One of the node's own parts. */
export interface SystemUsage extends CgroupUsage {
  readonly name: "kubelet" | "runtime" | "pods";
  readonly startedAtMs: number;
  readonly cpuNanoCores: number | undefined;
}

export interface MachineUsage {
  readonly cpuNanoseconds: number;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  /** What is no working set, as the API shows it. */
  readonly availableBytes: number;
  /** What new programs can have, by the kernel's own estimate (MemAvailable). */
  readonly reclaimableBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly bootedAtMs: number;
  readonly swapUsedBytes: number;
  readonly swapTotalBytes: number;
}

export interface NodeUsage extends MachineUsage {
  readonly cpuNanoCores: number | undefined;
  readonly network: readonly NetworkUsage[];
  readonly system: readonly SystemUsage[];
  /** Cgroups above those of pods, by path. */
  readonly groups: readonly (CgroupUsage & { readonly path: string })[];
}

export interface Sample {
  /** On the monotonic clock, and on the wall's. */
  readonly atMs: number;
  readonly timeMs: number;
  readonly node: NodeUsage;
  readonly pods: readonly PodUsage[];
}
