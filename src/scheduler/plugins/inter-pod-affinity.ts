// Where other pods are: required affinity and anti-affinity both ways, and preferences of the new pod and of those that
// run. Terms are counted per (topology key, value) once per pod, so that asking a node is a few map look-ups.
// Upstream: InterPodAffinity, v1.32 (hardPodAffinityWeight 1).
import type { Pod, PodAffinityTerm } from "#model/gen/core-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import { namespaceOf } from "#model/object.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import { maxScore, type Plugin, type Prepared, type Rejection, unresolvable, unschedulable } from "./framework.ts";

const hardAffinityWeight = 1;

/** `key\0value` → count or weight. Neither part may contain NUL. */
type Topology = Map<string, number>;

export const interPodAffinity: Plugin = {
  name: "InterPodAffinity",
  weight: 2,
  events: [
    "nodeAdded",
    "nodeLabelsChanged",
    "assignedPodAdded",
    "assignedPodChanged",
    "assignedPodRemoved",
    "namespaceChanged",
  ],
  prepare(pod, snapshot): Prepared {
    const affinity = requiredTerms(pod, "podAffinity");
    const anti = requiredTerms(pod, "podAntiAffinity");
    const existingAnti = countExistingAnti(pod, snapshot);
    const affinityCounts = countIncoming(pod, affinity, snapshot, "all");
    const antiCounts = countIncoming(pod, anti, snapshot, "each");
    // The first pod of a group that wants to be near itself may go anywhere the topology exists.
    const isFirstOfGroup = affinityCounts.size === 0 && affinity.every((term) => termMatches(term, pod, pod, snapshot));
    const weights = preferenceWeights(pod, snapshot);

    const filter = (node: NodeInfo): Rejection | undefined => {
      for (const term of affinity) {
        if (!Object.hasOwn(node.labels, term.topologyKey)) return unresolvable(affinityMessage);
      }
      const isNear = affinity.every((term) => (affinityCounts.get(topologyOf(term, node)) ?? 0) > 0);
      if (!isNear && !isFirstOfGroup) return unresolvable(affinityMessage);
      if (anti.some((term) => (antiCounts.get(topologyOf(term, node)) ?? 0) > 0)) {
        return unschedulable("node(s) didn't match pod anti-affinity rules");
      }
      if (sumOver(existingAnti, node) > 0) {
        return unschedulable("node(s) didn't satisfy existing pods anti-affinity rules");
      }
      return undefined;
    };
    return {
      ...((affinity.length > 0 || anti.length > 0 || existingAnti.size > 0) && { filter }),
      ...(weights.size > 0 && { score: (node: NodeInfo) => sumOver(weights, node), normalize: spread }),
    };
  },
};

const affinityMessage = "node(s) didn't match pod affinity rules";

function requiredTerms(pod: Pod, which: "podAffinity" | "podAntiAffinity"): readonly PodAffinityTerm[] {
  return pod.spec.affinity?.[which]?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
}

/** Does `other` count for a term of `owner`? */
function termMatches(term: PodAffinityTerm, owner: Pod, other: Pod, snapshot: Snapshot): boolean {
  if (!namespaceMatches(term, owner, namespaceOf(other), snapshot)) return false;
  return term.labelSelector !== undefined && matchesLabelSelector(term.labelSelector, other.metadata.labels);
}

function namespaceMatches(term: PodAffinityTerm, owner: Pod, namespace: string, snapshot: Snapshot): boolean {
  const named = term.namespaces ?? [];
  if (named.length === 0 && term.namespaceSelector === undefined) return namespace === namespaceOf(owner);
  if (named.includes(namespace)) return true;
  if (term.namespaceSelector === undefined) return false;
  return matchesLabelSelector(term.namespaceSelector, snapshot.namespaceLabels.get(namespace));
}

const key = (topologyKey: string, value: string): string => `${topologyKey}\0${value}`;
const topologyOf = (term: PodAffinityTerm, node: NodeInfo): string =>
  key(term.topologyKey, node.labels[term.topologyKey] ?? "");

function bump(counts: Topology, term: PodAffinityTerm, node: NodeInfo, by: number): void {
  if (!Object.hasOwn(node.labels, term.topologyKey)) return;
  const at = topologyOf(term, node);
  counts.set(at, (counts.get(at) ?? 0) + by);
}

/** Running pods that match the new pod's terms: all of them at once for affinity, any of them for anti-affinity. */
function countIncoming(
  pod: Pod,
  terms: readonly PodAffinityTerm[],
  snapshot: Snapshot,
  mode: "all" | "each",
): Topology {
  const counts: Topology = new Map();
  if (terms.length === 0) return counts;
  for (const node of snapshot.nodes) {
    for (const other of node.pods.values()) {
      const matching = terms.filter((term) => termMatches(term, pod, other, snapshot));
      if (mode === "all" && matching.length < terms.length) continue;
      for (const term of matching) bump(counts, term, node, 1);
    }
  }
  return counts;
}

/** Places that pods already running have closed to the new one. */
function countExistingAnti(pod: Pod, snapshot: Snapshot): Topology {
  const counts: Topology = new Map();
  for (const node of snapshot.nodes) {
    for (const other of node.podsWithAffinity.values()) {
      for (const term of requiredTerms(other, "podAntiAffinity")) {
        if (termMatches(term, other, pod, snapshot)) bump(counts, term, node, 1);
      }
    }
  }
  return counts;
}

function preferenceWeights(pod: Pod, snapshot: Snapshot): Topology {
  const weights: Topology = new Map();
  const own = weighted(pod);
  for (const node of snapshot.nodes) {
    if (own.length > 0) {
      for (const other of node.pods.values()) {
        for (const { term, weight } of own)
          if (termMatches(term, pod, other, snapshot)) bump(weights, term, node, weight);
      }
    }
    for (const other of node.podsWithAffinity.values()) {
      for (const { term, weight } of weighted(other)) {
        if (termMatches(term, other, pod, snapshot)) bump(weights, term, node, weight);
      }
      for (const term of requiredTerms(other, "podAffinity")) {
        if (termMatches(term, other, pod, snapshot)) bump(weights, term, node, hardAffinityWeight);
      }
    }
  }
  return weights;
}

function weighted(pod: Pod): { term: PodAffinityTerm; weight: number }[] {
  const { podAffinity, podAntiAffinity } = pod.spec.affinity ?? {};
  const near = podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
  const far = podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
  return [
    ...near.map((p) => ({ term: p.podAffinityTerm, weight: p.weight })),
    ...far.map((p) => ({ term: p.podAffinityTerm, weight: -p.weight })),
  ];
}

function sumOver(counts: Topology, node: NodeInfo): number {
  let sum = 0;
  for (const [label, value] of Object.entries(node.labels)) sum += counts.get(key(label, value)) ?? 0;
  return sum;
}

/** Lowest becomes 0, highest 100. */
function spread(scores: readonly number[]): readonly number[] {
  const min = Math.min(...scores);
  const range = Math.max(...scores) - min;
  return scores.map((s) => (range === 0 ? 0 : Math.floor((maxScore * (s - min)) / range)));
}
