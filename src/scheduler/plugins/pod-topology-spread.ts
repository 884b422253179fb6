// Even spread over zones, hosts or any label. DoNotSchedule filters by skew; ScheduleAnyway scores. Pods that say nothing
// themselves but belong to a service or a set get the cluster's constraints: by default soft ones over hosts and zones.
// How many pods match is known per node (NodeTable.matching) and summed up per domain once per pod.
// Upstream: PodTopologySpread, v1.32.
import type { Node, Pod, TopologySpreadConstraint } from "#model/gen/core-v1.ts";
import type { LabelSelector } from "#model/gen/meta-v1.ts";
import { type LabelRequirement, matchesRequirements, requirementsOf } from "#model/label-selector.ts";
import { isDeleting, namespaceOf } from "#model/object.ts";
import { matchesNodeAffinity, untoleratedTaint } from "../node-selector.ts";
import { type Domains, mark } from "../node-table.ts";
import type { Labels, PodInfo } from "../pod-info.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import type { PluginArgs } from "./args.ts";
import { type Change, maxScore, type Plugin, type PreparedFilter, unresolvable, unschedulable } from "./framework.ts";

const message = "node(s) didn't match pod topology spread constraints";
const outside = unresolvable(`${message} (missing required label)`);
const tooMany = unschedulable(message);
const hostname = "kubernetes.io/hostname";
const skipsDeleting = { skipsDeleting: true };

const systemConstraints: readonly TopologySpreadConstraint[] = [
  { topologyKey: hostname, maxSkew: 3, whenUnsatisfiable: "ScheduleAnyway" },
  { topologyKey: "topology.kubernetes.io/zone", maxSkew: 5, whenUnsatisfiable: "ScheduleAnyway" },
];

type Action = "DoNotSchedule" | "ScheduleAnyway";

interface Constraint {
  readonly topologyKey: string;
  readonly maxSkew: number;
  readonly minDomains: number;
  readonly honorsAffinity: boolean;
  readonly honorsTaints: boolean;
  /** Undefined selects nobody. */
  readonly requirements: readonly LabelRequirement[] | undefined;
}

export function podTopologySpread(args: PluginArgs["PodTopologySpread"]): Plugin {
  const isSystem = args.defaultingType === "System";
  const defaults = isSystem ? systemConstraints : args.defaultConstraints;
  const constraintsOf = (pod: PodInfo, action: Action, groupOf: Snapshot["groupOf"]): readonly Constraint[] => {
    const own = pod.pod.spec.topologySpreadConstraints ?? [];
    if (own.length > 0) return own.filter((c) => c.whenUnsatisfiable === action).map((c) => parsed(c, pod.labels));
    const meant = defaults.filter((c) => c.whenUnsatisfiable === action);
    const labelSelector = meant.length > 0 ? groupOf?.(pod) : undefined;
    return labelSelector ? meant.map((c) => parsed({ ...c, labelSelector }, {})) : [];
  };
  const hard = (pod: PodInfo, snapshot?: Snapshot) => constraintsOf(pod, "DoNotSchedule", snapshot?.groupOf);
  return {
    name: "PodTopologySpread",
    points: ["preFilter", "filter", "preScore", "score"],
    interests: [
      {
        events: ["AssignedPodAdd", "AssignedPodDelete", "AssignedPodUpdatePodLabel"],
        hint: (pod, change) => isAboutSelected(pod, hard(pod), change),
      },
      { events: ["UnschedulablePodUpdatePodLabel"] },
      {
        events: ["NodeAdd", "NodeDelete", "NodeUpdateNodeLabel", "NodeUpdateNodeTaint"],
        hint: (pod, change) => isAboutTopology(hard(pod), change),
      },
      { events: ["UnschedulablePodUpdatePodToleration"] },
    ],
    filter(pod, snapshot) {
      const constraints = hard(pod, snapshot);
      return constraints.length === 0 ? {} : prepareFilter(pod, snapshot, constraints);
    },
    score(pod, snapshot, nodes, out) {
      const constraints = constraintsOf(pod, "ScheduleAnyway", snapshot.groupOf);
      if (constraints.length === 0) return false;
      const isOwn = (pod.pod.spec.topologySpreadConstraints ?? []).length > 0;
      return score(pod, snapshot, nodes, out, { constraints, needsAllKeys: isOwn || !isSystem });
    },
  };
}

/** nodeAffinityPolicy defaults to Honor, nodeTaintsPolicy to Ignore. */
function parsed(c: TopologySpreadConstraint, labels: Labels): Constraint {
  const requirements = requirementsOf(c.labelSelector as LabelSelector | undefined);
  for (const key of c.matchLabelKeys ?? []) {
    const value = labels[key];
    if (value !== undefined) requirements?.push({ key, operator: "in", values: [value] });
  }
  return {
    topologyKey: c.topologyKey,
    maxSkew: c.maxSkew,
    minDomains: c.minDomains ?? 1,
    honorsAffinity: c.nodeAffinityPolicy !== "Ignore",
    honorsTaints: c.nodeTaintsPolicy === "Honor",
    requirements,
  };
}

/** Whether the constraint counts this node for the pod. */
function inclusion(
  pod: PodInfo,
  { honorsAffinity, honorsTaints }: Constraint,
): ((node: NodeInfo) => boolean) | undefined {
  const { affinity, nodeSelector, tolerations } = pod.pod.spec;
  const isChoosy = affinity?.nodeAffinity !== undefined || Object.keys(nodeSelector ?? {}).length > 0;
  if (!(honorsAffinity && isChoosy) && !honorsTaints) return undefined;
  return (node) => {
    if (honorsAffinity && isChoosy && !matchesNodeAffinity(pod.pod, node)) return false;
    if (!honorsTaints || !(node.table.marks[node.slot]! & mark.hardTaint)) return true;
    return untoleratedTaint(node.taints, tolerations, ["NoSchedule", "NoExecute"]) === undefined;
  };
}

interface Counted {
  readonly constraint: Constraint;
  readonly domains: Domains;
  /** By domain; -1 where the constraint counts no node of it. */
  readonly counts: Float64Array;
  readonly isCounted: (node: NodeInfo) => boolean;
  readonly self: number;
  smallest: number | undefined;
}

function prepareFilter(pod: PodInfo, snapshot: Snapshot, constraints: readonly Constraint[]): PreparedFilter {
  const { table, nodes } = snapshot;
  const topologies = constraints.map(({ topologyKey }) => table.domains(topologyKey));
  const hasAllKeys = (slot: number): boolean => topologies.every(({ ids }) => ids[slot]! >= 0);
  const counted = constraints.map((constraint, i): Counted => {
    const domains = topologies[i]!;
    const includes = inclusion(pod, constraint);
    const isCounted = (node: NodeInfo) => hasAllKeys(node.slot) && (!includes || includes(node));
    const { requirements } = constraint;
    const matching = requirements && table.matching(pod.namespace, requirements, skipsDeleting);
    const counts = new Float64Array(domains.values.length).fill(-1);
    for (const node of nodes) {
      if (!isCounted(node)) continue;
      const domain = domains.ids[node.slot]!;
      counts[domain] = Math.max(0, counts[domain]!) + (matching?.[node.slot] ?? 0);
    }
    const self = requirements && matchesRequirements(requirements, pod.labels) ? 1 : 0;
    return { constraint, domains, counts, isCounted, self, smallest: undefined };
  });
  return {
    check({ slot }) {
      for (const one of counted) {
        const domain = one.domains.ids[slot]!;
        if (domain < 0) return outside;
        one.smallest ??= smallestOf(one);
        if (Math.max(0, one.counts[domain]!) + one.self - one.smallest > one.constraint.maxSkew) return tooMany;
      }
      return undefined;
    },
    moved(other, node, by) {
      if (other.namespace !== pod.namespace || other.isDeleting) return;
      for (const one of counted) {
        const { requirements } = one.constraint;
        if (!requirements || !matchesRequirements(requirements, other.labels) || !one.isCounted(node)) continue;
        one.counts[one.domains.ids[node.slot]!]! += by;
        one.smallest = undefined;
      }
    },
  };
}

/** The fewest in any domain; 0 while there are fewer domains than asked for. */
function smallestOf({ constraint, counts }: Counted): number {
  let domainCount = 0;
  let min = Number.POSITIVE_INFINITY;
  for (const n of counts) {
    if (n < 0) continue;
    domainCount++;
    if (n < min) min = n;
  }
  return domainCount < constraint.minDomains || domainCount === 0 ? 0 : min;
}

interface SoftConstraints {
  readonly constraints: readonly Constraint[];
  /** Nodes that lack one of the labels are out; else they only do not count for that constraint. */
  readonly needsAllKeys: boolean;
}

function score(
  pod: PodInfo,
  { table, nodes: all }: Snapshot,
  nodes: readonly NodeInfo[],
  out: Float64Array,
  { constraints, needsAllKeys }: SoftConstraints,
): boolean {
  const topologies = constraints.map(({ topologyKey }) => table.domains(topologyKey));
  const isIgnored = ({ slot }: NodeInfo): boolean => needsAllKeys && topologies.some(({ ids }) => ids[slot]! < 0);
  let ignored = 0;
  for (const node of nodes) if (isIgnored(node)) ignored++;
  const rows: { ids: Int32Array; counts: ArrayLike<number>; byHost: boolean; weight: number; maxSkew: number }[] = [];
  for (const [i, constraint] of constraints.entries()) {
    const { ids, values } = topologies[i]!;
    const { requirements, topologyKey, maxSkew } = constraint;
    const byHost = topologyKey === hostname;
    const matching = requirements
      ? table.matching(pod.namespace, requirements, skipsDeleting)
      : new Int32Array(table.rows.length);
    if (byHost) {
      rows.push({ ids, counts: matching, byHost, weight: weightOf(nodes.length - ignored), maxSkew });
      continue;
    }
    const isCandidate = new Uint8Array(values.length);
    let candidates = 0;
    for (const node of nodes) {
      const domain = ids[node.slot]!;
      if (domain < 0 || isCandidate[domain] === 1 || isIgnored(node)) continue;
      isCandidate[domain] = 1;
      candidates++;
    }
    if (candidates === 0) continue;
    const includes = inclusion(pod, constraint);
    const counts = new Float64Array(values.length);
    for (const node of all) {
      const domain = ids[node.slot]!;
      if (domain < 0 || isCandidate[domain] === 0 || isIgnored(node) || (includes && !includes(node))) continue;
      counts[domain]! += matching[node.slot]!;
    }
    rows.push({ ids, counts, byHost, weight: weightOf(candidates), maxSkew });
  }
  let max = 0;
  let min = Number.POSITIVE_INFINITY;
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i]!;
    const { slot } = node;
    if (ignored > 0 && isIgnored(node)) {
      out[i] = -1;
      continue;
    }
    let sum = 0;
    for (const { ids, counts, byHost, weight, maxSkew } of rows) {
      if (ids[slot]! >= 0) sum += counts[byHost ? slot : ids[slot]!]! * weight + (maxSkew - 1);
    }
    const rounded = Math.round(sum);
    out[i] = rounded;
    if (rounded > max) max = rounded;
    if (rounded < min) min = rounded;
  }
  // Nodes outside the topology get 0, the emptiest domain 100.
  for (let i = 0; i < nodes.length; i++) {
    const value = out[i]!;
    if (value < 0) out[i] = 0;
    else out[i] = max === 0 ? maxScore : Math.floor((maxScore * (max + min - value)) / max);
  }
  return true;
}

/** More domains make each count for more, so that wide constraints are not drowned by narrow ones. */
const weightOf = (domainCount: number): number => Math.log(domainCount + 2);

/** A pod that a constraint counts has come, gone, or changed sides. */
function isAboutSelected(pod: PodInfo, constraints: readonly Constraint[], { event, old, next }: Change): boolean {
  const other = (next ?? old) as Pod;
  if (namespaceOf(other) !== pod.namespace || (event === "AssignedPodAdd" && isDeleting(other))) return false;
  // Constraints that the pod got by default are not known here: any pod of its namespace may be meant.
  if (constraints.length === 0) return true;
  return constraints.some(({ requirements }) => {
    if (!requirements) return false;
    const selects = (object: Pod | undefined) =>
      object !== undefined && matchesRequirements(requirements, object.metadata.labels);
    return selects(old as Pod | undefined) !== selects(next as Pod | undefined);
  });
}

/** A node of the topology has come or gone, or has moved within it. */
function isAboutTopology(constraints: readonly Constraint[], { event, old, next }: Change): boolean {
  if (constraints.length === 0) return true;
  const has = (node: Node | undefined) =>
    node !== undefined &&
    constraints.every(({ topologyKey }) => Object.hasOwn(node.metadata.labels ?? {}, topologyKey));
  const [before, now] = [old as Node | undefined, next as Node | undefined];
  if (event === "NodeUpdateNodeTaint") return has(now) && constraints.some(({ honorsTaints }) => honorsTaints);
  if (!before || !now) return has(before ?? now);
  if (has(before) !== has(now)) return true;
  return (
    has(now) &&
    constraints.some(({ topologyKey }) => before.metadata.labels?.[topologyKey] !== now.metadata.labels?.[topologyKey])
  );
}
