// What plugins can be told, under the names and with the defaults of kubescheduler.config.k8s.io/v1.
import type { NodeAffinity, TopologySpreadConstraint } from "#model/gen/core-v1.ts";

export interface ResourceWeight {
  readonly name: string;
  readonly weight: number;
}
export interface ShapePoint {
  readonly utilization: number;
  readonly score: number;
}

export interface PluginArgs {
  readonly NodeResourcesFit: {
    readonly ignoredResources: readonly string[];
    readonly ignoredResourceGroups: readonly string[];
    readonly scoringStrategy: {
      readonly type: "LeastAllocated" | "MostAllocated" | "RequestedToCapacityRatio";
      readonly resources: readonly ResourceWeight[];
      readonly requestedToCapacityRatio?: { readonly shape: readonly ShapePoint[] };
    };
  };
  readonly NodeResourcesBalancedAllocation: { readonly resources: readonly ResourceWeight[] };
  readonly InterPodAffinity: {
    readonly hardPodAffinityWeight: number;
    readonly ignorePreferredTermsOfExistingPods: boolean;
  };
  readonly PodTopologySpread: {
    readonly defaultConstraints: readonly TopologySpreadConstraint[];
    readonly defaultingType: "System" | "List";
  };
  readonly NodeAffinity: { readonly addedAffinity?: NodeAffinity };
  readonly VolumeBinding: { readonly bindTimeoutSeconds: number };
  readonly DefaultPreemption: {
    readonly minCandidateNodesPercentage: number;
    readonly minCandidateNodesAbsolute: number;
  };
}

const cpuAndMemory: readonly ResourceWeight[] = [
  { name: "cpu", weight: 1 },
  { name: "memory", weight: 1 },
];

export const defaultArgs: PluginArgs = {
  NodeResourcesFit: {
    ignoredResources: [],
    ignoredResourceGroups: [],
    scoringStrategy: { type: "LeastAllocated", resources: cpuAndMemory },
  },
  NodeResourcesBalancedAllocation: { resources: cpuAndMemory },
  InterPodAffinity: { hardPodAffinityWeight: 1, ignorePreferredTermsOfExistingPods: false },
  PodTopologySpread: { defaultConstraints: [], defaultingType: "System" },
  NodeAffinity: {},
  VolumeBinding: { bindTimeoutSeconds: 600 },
  DefaultPreemption: { minCandidateNodesPercentage: 10, minCandidateNodesAbsolute: 100 },
};
