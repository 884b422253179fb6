// What pods and containers use, as plain data: read by eviction, the stats endpoints and the metrics. Filled by sampler.ts.

export interface ContainerUsage {
  readonly name: string;
  readonly containerId: string;
  readonly startedAtMs: number;
  readonly cpuNanoseconds: number;
  /** Thousandths of a millionth of a core: nanocores; undefined before there are two samples. */
  readonly cpuNanoCores: number | undefined;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly processes: number;
  readonly limitBytes: number;
  readonly cfsPeriods: number;
  readonly cfsThrottledPeriods: number;
  readonly cfsThrottledNanoseconds: number;
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

export interface PodUsage {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly startedAtMs: number;
  readonly cpuNanoseconds: number;
  readonly cpuNanoCores: number | undefined;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly processes: number;
  readonly ephemeralBytes: number;
  readonly ephemeralInodes: number;
  readonly containers: readonly ContainerUsage[];
  readonly volumes: readonly VolumeUsage[];
  readonly network: readonly NetworkUsage[];
}

export interface NodeUsage {
  readonly cpuNanoseconds: number;
  readonly cpuNanoCores: number | undefined;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly availableBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly bootedAtMs: number;
  readonly network: readonly NetworkUsage[];
  readonly swapUsedBytes: number;
  readonly swapTotalBytes: number;
}

export interface Sample {
  readonly atMs: number;
  readonly node: NodeUsage;
  readonly pods: readonly PodUsage[];
}
