// All plugins that profiles can name, made with their settings, and the default profile: which are on, in the order they
// are asked, and what their scores weigh. Upstream counterpart: plugins/registry.go, apis/config/v1/default_plugins.go.
import type { PluginArgs } from "./args.ts";
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

/** Plugins whose work is done elsewhere: in the queue, by preemption, by the binding. They can be named and switched off. */
const elsewhere = (name: string, ...points: Plugin["points"]): Plugin => ({ name, points, interests: [] });

const schedulingGates: Plugin = {
  ...elsewhere("SchedulingGates", "preEnqueue"),
  interests: [{ events: ["UnschedulablePodUpdatePodSchedulingGatesEliminated"] }],
};

/** `managed`: resources that extenders look after. */
export function createPlugins(args: PluginArgs, managed: ReadonlySet<string>): ReadonlyMap<string, Plugin> {
  const all = [
    schedulingGates,
    elsewhere("PrioritySort", "queueSort"),
    nodeUnschedulable,
    nodeName,
    taintToleration,
    nodeAffinity(args.NodeAffinity),
    nodePorts,
    nodeResourcesFit(args.NodeResourcesFit, managed),
    volumeRestrictions,
    nodeVolumeLimits,
    volumeBinding,
    volumeZone,
    podTopologySpread(args.PodTopologySpread),
    interPodAffinity(args.InterPodAffinity),
    elsewhere("DefaultPreemption", "postFilter"),
    nodeResourcesBalancedAllocation(args.NodeResourcesBalancedAllocation),
    imageLocality,
    elsewhere("DefaultBinder", "bind"),
  ];
  return new Map(all.map((plugin) => [plugin.name, plugin]));
}

/** Upstream's list for 1.32; a weight of 0 stands for "none said", which is 1 where there is a score. */
export const defaultMultiPoint: readonly { readonly name: string; readonly weight: number }[] = [
  { name: "SchedulingGates", weight: 0 },
  { name: "PrioritySort", weight: 0 },
  { name: "NodeUnschedulable", weight: 0 },
  { name: "NodeName", weight: 0 },
  { name: "TaintToleration", weight: 3 },
  { name: "NodeAffinity", weight: 2 },
  { name: "NodePorts", weight: 0 },
  { name: "NodeResourcesFit", weight: 1 },
  { name: "VolumeRestrictions", weight: 0 },
  { name: "NodeVolumeLimits", weight: 0 },
  { name: "VolumeBinding", weight: 0 },
  { name: "VolumeZone", weight: 0 },
  { name: "PodTopologySpread", weight: 2 },
  { name: "InterPodAffinity", weight: 2 },
  { name: "DefaultPreemption", weight: 0 },
  { name: "NodeResourcesBalancedAllocation", weight: 1 },
  { name: "ImageLocality", weight: 1 },
  { name: "DefaultBinder", weight: 0 },
];
