// Whether a node has room, and how evenly it would be filled. Upstream: NodeResourcesFit with LeastAllocated (cpu and
// memory weigh the same) and NodeResourcesBalancedAllocation, v1.32.
import { type PodRequests, podRequests } from "../resources.ts";
import type { NodeInfo } from "../snapshot.ts";
import { maxScore, type Plugin, type Rejection } from "./framework.ts";

/** Pods a node takes when it does not say. */
const defaultPodsPerNode = 110;

export const nodeResourcesFit: Plugin = {
  name: "NodeResourcesFit",
  weight: 1,
  events: ["nodeAdded", "nodeAllocatableChanged", "assignedPodRemoved", "assignedPodChanged"],
  prepare(pod) {
    const wanted = podRequests(pod);
    return { filter: (node) => lacking(wanted, node), score: (node) => leastAllocated(wanted, node) };
  },
};

export const nodeResourcesBalancedAllocation: Plugin = {
  name: "NodeResourcesBalancedAllocation",
  weight: 1,
  events: [],
  prepare(pod) {
    const { requests } = podRequests(pod);
    if (!requests.get("cpu") && !requests.get("memory")) return {};
    return { score: (node) => balance(requests, node) };
  },
};

/** Everything the node is short of; undefined when the pod fits. */
export function lacking({ requests }: PodRequests, node: NodeInfo): Rejection | undefined {
  const reasons: string[] = [];
  let isUnresolvable = false;
  const maxPods = node.allocatable.get("pods") ?? defaultPodsPerNode;
  if (node.pods.size + 1 > maxPods) reasons.push("Too many pods");
  for (const name of sortedNames(requests)) {
    const amount = requests.get(name) ?? 0;
    if (amount === 0) continue;
    const allocatable = node.allocatable.get(name) ?? 0;
    if (amount > allocatable - (node.requested.get(name) ?? 0)) {
      reasons.push(`Insufficient ${name}`);
      if (amount > allocatable) isUnresolvable = true;
    }
  }
  return reasons.length > 0 ? { reasons, isUnresolvable } : undefined;
}

function leastAllocated({ scoring }: PodRequests, node: NodeInfo): number {
  const cpu = freeShare(node.scoring.milliCpu + scoring.milliCpu, node.allocatable.get("cpu"));
  const memory = freeShare(node.scoring.memoryBytes + scoring.memoryBytes, node.allocatable.get("memory"));
  const known = [cpu, memory].filter((share) => share !== undefined);
  return known.length === 0 ? 0 : Math.floor(known.reduce((sum, share) => sum + share, 0) / known.length);
}

function freeShare(requested: number, allocatable: number | undefined): number | undefined {
  if (!allocatable) return undefined;
  return requested > allocatable ? 0 : Math.floor(((allocatable - requested) * maxScore) / allocatable);
}

/** For two resources the standard deviation of the used fractions is half their distance. */
function balance(requests: ReadonlyMap<string, number>, node: NodeInfo): number {
  const fractions: number[] = [];
  for (const name of ["cpu", "memory"]) {
    const allocatable = node.allocatable.get(name);
    if (!allocatable) continue;
    fractions.push(Math.min(1, ((node.requested.get(name) ?? 0) + (requests.get(name) ?? 0)) / allocatable));
  }
  const deviation = fractions.length === 2 ? Math.abs(fractions[0]! - fractions[1]!) / 2 : 0;
  return Math.floor((1 - deviation) * maxScore);
}

/** cpu, memory, ephemeral-storage, then the rest by name: the order messages come in. */
function sortedNames(amounts: ReadonlyMap<string, number>): string[] {
  const first = ["cpu", "memory", "ephemeral-storage"];
  const rest = [...amounts.keys()].filter((name) => !first.includes(name)).sort();
  return [...first, ...rest];
}
