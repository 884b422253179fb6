// Even spread over zones, hosts or any label. DoNotSchedule filters by skew; ScheduleAnyway scores. The cluster-wide
// default constraints of upstream (soft, zone and host) are not applied: on few nodes they only repeat LeastAllocated.
// Upstream: PodTopologySpread, v1.32.
import type { Pod, TopologySpreadConstraint } from "#model/gen/core-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import { isDeleting, namespaceOf } from "#model/object.ts";
import { matchesNodeAffinity, untoleratedTaint } from "../node-selector.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import { maxScore, type Plugin, unresolvable, unschedulable } from "./framework.ts";

const message = "node(s) didn't match pod topology spread constraints";
const hostname = "kubernetes.io/hostname";

interface Counted {
  readonly constraint: TopologySpreadConstraint;
  /** Domain (label value) → matching pods, over the nodes the constraint counts. */
  readonly domains: ReadonlyMap<string, number>;
  /** 1 where the new pod itself will count. */
  readonly self: number;
}

export const podTopologySpread: Plugin = {
  name: "PodTopologySpread",
  weight: 2,
  events: [
    "nodeAdded",
    "nodeLabelsChanged",
    "nodeTaintsChanged",
    "assignedPodAdded",
    "assignedPodChanged",
    "assignedPodRemoved",
  ],
  prepare(pod, snapshot) {
    const constraints = pod.spec.topologySpreadConstraints ?? [];
    const hard = count(
      pod,
      snapshot,
      constraints.filter((c) => c.whenUnsatisfiable === "DoNotSchedule"),
    );
    const soft = count(
      pod,
      snapshot,
      constraints.filter((c) => c.whenUnsatisfiable === "ScheduleAnyway"),
    );
    return {
      ...(hard.length > 0 && {
        filter: (node: NodeInfo) => {
          for (const { constraint, domains, self } of hard) {
            const domain = labelOf(node, constraint.topologyKey);
            if (domain === undefined) return unresolvable(`${message} (missing required label)`);
            const skew = (domains.get(domain) ?? 0) + self - smallest(constraint, domains);
            if (skew > constraint.maxSkew) return unschedulable(message);
          }
          return undefined;
        },
      }),
      ...(soft.length > 0 && {
        score: (node: NodeInfo) => {
          let score = 0;
          for (const { constraint, domains } of soft) {
            const domain = labelOf(node, constraint.topologyKey);
            if (domain === undefined) return Number.POSITIVE_INFINITY;
            // More domains make each count for more, so that wide constraints are not drowned by narrow ones.
            const breadth = constraint.topologyKey === hostname ? snapshot.nodes.length : domains.size;
            score += (domains.get(domain) ?? 0) * Math.log(breadth + 2) + (constraint.maxSkew - 1);
          }
          return Math.round(score);
        },
        normalize: fewerIsBetter,
      }),
    };
  },
};

function count(pod: Pod, snapshot: Snapshot, constraints: readonly TopologySpreadConstraint[]): Counted[] {
  const keys = constraints.map((c) => c.topologyKey);
  return constraints.map((constraint) => {
    const domains = new Map<string, number>();
    for (const node of snapshot.nodes) {
      const domain = labelOf(node, constraint.topologyKey);
      if (domain === undefined || keys.some((k) => labelOf(node, k) === undefined)) continue;
      if (!isCounted(constraint, pod, node)) continue;
      let matching = domains.get(domain) ?? 0;
      for (const other of node.pods.values()) {
        if (namespaceOf(other) === namespaceOf(pod) && !isDeleting(other) && selects(constraint, pod, other))
          matching++;
      }
      domains.set(domain, matching);
    }
    return { constraint, domains, self: selects(constraint, pod, pod) ? 1 : 0 };
  });
}

/** nodeAffinityPolicy defaults to Honor, nodeTaintsPolicy to Ignore. */
function isCounted(constraint: TopologySpreadConstraint, pod: Pod, node: NodeInfo): boolean {
  if (constraint.nodeAffinityPolicy !== "Ignore" && !matchesNodeAffinity(pod, node)) return false;
  if (constraint.nodeTaintsPolicy !== "Honor") return true;
  return untoleratedTaint(node.node.spec.taints, pod.spec.tolerations, ["NoSchedule", "NoExecute"]) === undefined;
}

function selects(constraint: TopologySpreadConstraint, pod: Pod, other: Pod): boolean {
  if (!constraint.labelSelector || !matchesLabelSelector(constraint.labelSelector, other.metadata.labels)) return false;
  for (const label of constraint.matchLabelKeys ?? []) {
    const wanted = pod.metadata.labels?.[label];
    if (wanted !== undefined && other.metadata.labels?.[label] !== wanted) return false;
  }
  return true;
}

/** The fewest in any domain; 0 while there are fewer domains than asked for. */
function smallest(constraint: TopologySpreadConstraint, domains: ReadonlyMap<string, number>): number {
  if (domains.size < (constraint.minDomains ?? 1)) return 0;
  let min = Number.POSITIVE_INFINITY;
  for (const n of domains.values()) if (n < min) min = n;
  return Number.isFinite(min) ? min : 0;
}

const labelOf = (node: NodeInfo, label: string): string | undefined =>
  Object.hasOwn(node.labels, label) ? node.labels[label] : undefined;

/** Nodes outside the topology (infinite) get 0, the emptiest domain 100. */
function fewerIsBetter(scores: readonly number[]): readonly number[] {
  const finite = scores.filter(Number.isFinite);
  const max = Math.max(0, ...finite);
  const min = Math.min(...finite, max);
  return scores.map((s) => {
    if (!Number.isFinite(s)) return 0;
    return max === 0 ? maxScore : Math.floor((maxScore * (max + min - s)) / max);
  });
}
