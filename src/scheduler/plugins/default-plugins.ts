// The default profile: which plugins run, in the order their filters are asked. Weights stand with each plugin.
import type { Plugin } from "./framework.ts";
import { interPodAffinity } from "./inter-pod-affinity.ts";
import {
  imageLocality,
  nodeAffinity,
  nodeName,
  nodePorts,
  nodeUnschedulable,
  taintToleration,
} from "./node-plugins.ts";
import { podTopologySpread } from "./pod-topology-spread.ts";
import { nodeResourcesBalancedAllocation, nodeResourcesFit } from "./resource-plugins.ts";
import { nodeVolumeLimits, volumeBinding, volumeRestrictions, volumeZone } from "./volume-plugins.ts";

export const defaultPlugins: readonly Plugin[] = [
  nodeUnschedulable,
  nodeName,
  taintToleration,
  nodeAffinity,
  nodePorts,
  nodeResourcesFit,
  volumeRestrictions,
  nodeVolumeLimits,
  volumeBinding,
  volumeZone,
  podTopologySpread,
  interPodAffinity,
  nodeResourcesBalancedAllocation,
  imageLocality,
];
