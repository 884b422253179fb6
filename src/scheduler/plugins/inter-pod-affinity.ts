// Where other pods are: required affinity and anti-affinity both ways, and preferences of the new pod and of those that
// run. How many pods match is known per node (NodeTable.matching) and summed up per domain once per pod, so that asking a
// node is a few look-ups. Upstream: InterPodAffinity, v1.32.
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { namespaceOf } from "#model/object.ts";
import type { Domains } from "../node-table.ts";
import { type PodInfo, podInfoOrLess, type Term, termSelects } from "../pod-info.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import type { PluginArgs } from "./args.ts";
import {
  type Change,
  type HintView,
  maxScore,
  type Plugin,
  type PreparedFilter,
  unresolvable,
  unschedulable,
} from "./framework.ts";

const notNear = unresolvable("node(s) didn't match pod affinity rules");
const tooNear = unschedulable("node(s) didn't match pod anti-affinity rules");
const tooNearOthers = unschedulable("node(s) didn't satisfy existing pods anti-affinity rules");

/** Sums by domain of one topology key. */
interface Sums {
  readonly domains: Domains;
  readonly sums: Float64Array;
}

export function interPodAffinity(args: PluginArgs["InterPodAffinity"]): Plugin {
  return {
    name: "InterPodAffinity",
    points: ["preFilter", "filter", "preScore", "score"],
    interests: [
      {
        events: ["AssignedPodAdd", "AssignedPodUpdatePodLabel", "AssignedPodDelete"],
        hint: helpsByPod,
      },
      { events: ["UnschedulablePodUpdatePodLabel"] },
      { events: ["NodeAdd", "NodeUpdateNodeLabel"], hint: helpsByNode },
      { events: ["NamespaceUpdate"] },
    ],
    filter: prepareFilter,
    score: (pod, snapshot, nodes, out) => score(pod, snapshot, nodes, out, args),
  };
}

function prepareFilter(pod: PodInfo, snapshot: Snapshot): PreparedFilter {
  const { table, namespaceLabels } = snapshot;
  if (pod.near.length === 0 && pod.far.length === 0 && table.terms.far.size === 0) return {};
  const selects = (term: Term, other: PodInfo): boolean =>
    termSelects(term, other.namespace, other.labels, namespaceLabels);
  const near = sumsOf(pod.near, pod.near.length > 0 ? countsOf(pod.near, snapshot) : undefined, snapshot);
  const far = pod.far.map((term) => sumsOf([term], countsOf([term], snapshot), snapshot)[0]!);
  let nearTotal = 0;
  for (const { sums } of near) for (const n of sums) nearTotal += n;
  // The first pod of a group that wants to be near itself may go anywhere the topology exists.
  const isOwnGroup = pod.near.length > 0 && pod.near.every((term) => selects(term, pod));

  /** Places that pods already running have closed to the new one, by topology key. */
  const closed = new Map<string, Sums>();
  const memo = new Map<string, boolean>();
  const close = (other: PodInfo, node: NodeInfo, by: number): void => {
    for (const term of other.far) {
      let isMeant = memo.get(term.text);
      if (isMeant === undefined) {
        isMeant = selects(term, pod);
        memo.set(term.text, isMeant);
      }
      if (isMeant) add(sumsFor(closed, term.topologyKey, snapshot), node.slot, by);
    }
  };
  for (const { term, holders } of table.terms.far.values()) {
    if (!selects(term, pod)) continue;
    const into = sumsFor(closed, term.topologyKey, snapshot);
    for (const [slot, count] of holders) add(into, slot, count);
  }

  return {
    check({ slot }) {
      if (pod.near.length > 0) {
        let isNear = true;
        for (const { domains, sums } of near) {
          const domain = domains.ids[slot]!;
          if (domain < 0) return notNear;
          if (!(sums[domain]! > 0)) isNear = false;
        }
        if (!isNear && !(nearTotal === 0 && isOwnGroup)) return notNear;
      }
      for (const { domains, sums } of far) {
        const domain = domains.ids[slot]!;
        if (domain >= 0 && sums[domain]! > 0) return tooNear;
      }
      for (const { domains, sums } of closed.values()) {
        const domain = domains.ids[slot]!;
        if (domain >= 0 && sums[domain]! > 0) return tooNearOthers;
      }
      return undefined;
    },
    moved(other, node, by) {
      const { slot } = node;
      if (pod.near.length > 0 && pod.near.every((term) => selects(term, other))) {
        for (const { domains, sums } of near) {
          const domain = domains.ids[slot]!;
          if (domain < 0) continue;
          sums[domain]! += by;
          nearTotal += by;
        }
      }
      for (const [i, term] of pod.far.entries()) {
        const { domains, sums } = far[i]!;
        const domain = domains.ids[slot]!;
        if (domain >= 0 && selects(term, other)) sums[domain]! += by;
      }
      close(other, node, by);
    },
  };
}

/** Running pods by slot that all of these terms select. */
function countsOf(terms: readonly Term[], { table, nodes, namespaceLabels }: Snapshot): Int32Array | undefined {
  const [first] = terms;
  if (!first || terms.some(({ requirements }) => requirements === undefined)) return undefined;
  const isPlain = terms.every(
    (term) => term.namespaceRequirements === undefined && term.namespaces.join() === first.namespaces.join(),
  );
  if (isPlain && first.namespaces.length === 1) {
    const requirements = terms.flatMap((term) => term.requirements ?? []);
    return table.matching(first.namespaces[0]!, requirements, { skipsDeleting: false });
  }
  const counts = new Int32Array(table.rows.length);
  for (const { pods, slot } of nodes) {
    for (const other of pods.values()) {
      if (terms.every((term) => termSelects(term, other.namespace, other.labels, namespaceLabels))) counts[slot]!++;
    }
  }
  return counts;
}

/** For each term the sums of the same counts over its own topology. */
function sumsOf(terms: readonly Term[], counts: Int32Array | undefined, { table, nodes }: Snapshot): Sums[] {
  return terms.map(({ topologyKey }) => {
    const domains = table.domains(topologyKey);
    const sums = new Float64Array(domains.values.length);
    if (counts) {
      for (const { slot } of nodes) {
        const domain = domains.ids[slot]!;
        if (domain >= 0) sums[domain]! += counts[slot]!;
      }
    }
    return { domains, sums };
  });
}

function sumsFor(into: Map<string, Sums>, topologyKey: string, { table }: Snapshot): Sums {
  let entry = into.get(topologyKey);
  if (!entry) {
    const domains = table.domains(topologyKey);
    entry = { domains, sums: new Float64Array(domains.values.length) };
    into.set(topologyKey, entry);
  }
  return entry;
}

function add({ domains, sums }: Sums, slot: number, by: number): void {
  const domain = domains.ids[slot]!;
  if (domain >= 0) sums[domain]! += by;
}

function score(
  pod: PodInfo,
  snapshot: Snapshot,
  nodes: readonly NodeInfo[],
  out: Float64Array,
  args: PluginArgs["InterPodAffinity"],
): boolean {
  const { table, namespaceLabels } = snapshot;
  const { near, preferred } = table.terms;
  const hardWeight = args.hardPodAffinityWeight;
  const isAlone = preferred.size === 0 && (near.size === 0 || hardWeight === 0);
  if (pod.preferred.length === 0 && (args.ignorePreferredTermsOfExistingPods || isAlone)) return false;
  const weights = new Map<string, Sums>();
  for (const term of pod.preferred) {
    const counts = countsOf([term], snapshot);
    if (!counts) continue;
    const into = sumsFor(weights, term.topologyKey, snapshot);
    for (const { slot } of snapshot.nodes) if (counts[slot]! > 0) add(into, slot, counts[slot]! * term.weight);
  }
  const held = hardWeight === 0 ? [...preferred.values()] : [...preferred.values(), ...near.values()];
  for (const { term, weight, holders } of held) {
    if (!termSelects(term, pod.namespace, pod.labels, namespaceLabels)) continue;
    const into = sumsFor(weights, term.topologyKey, snapshot);
    for (const [slot, count] of holders) add(into, slot, count * (weight || hardWeight));
  }
  if (weights.size === 0) return false;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < nodes.length; i++) {
    const { slot } = nodes[i]!;
    let sum = 0;
    for (const { domains, sums } of weights.values()) {
      const domain = domains.ids[slot]!;
      if (domain >= 0) sum += sums[domain]!;
    }
    out[i] = sum;
    if (sum < min) min = sum;
    if (sum > max) max = sum;
  }
  if (max === min) return false;
  for (let i = 0; i < nodes.length; i++) out[i] = Math.floor((maxScore * (out[i]! - min)) / (max - min));
  return true;
}

/** A pod has come to where the waiting one wants to be near it, or has gone from where it must not be near it. */
function helpsByPod(pod: PodInfo, { old, next }: Change, { namespaceLabels }: HintView): boolean {
  const selectedBy = (terms: readonly Term[], object: unknown, how: "some" | "every"): boolean => {
    if (!object || terms.length === 0) return false;
    const other = object as Pod;
    return terms[how]((term) => termSelects(term, namespaceOf(other), other.metadata.labels ?? {}, namespaceLabels));
  };
  if (!selectedBy(pod.near, old, "every") && selectedBy(pod.near, next, "every")) return true;
  // The last of a group may have gone: then the waiting one may be the first of the next.
  if (selectedBy(pod.near, old, "every") && !selectedBy(pod.near, next, "every")) return true;
  if (selectedBy(pod.far, old, "some") && !selectedBy(pod.far, next, "some")) return true;
  if (!old) return false;
  const keepsAway = (object: unknown): boolean =>
    podInfoOrLess(object as Pod).far.some((term) => termSelects(term, pod.namespace, pod.labels, namespaceLabels));
  return keepsAway(old) && !(next && keepsAway(next));
}

/** A node has come, or has changed, in a topology that the pod's terms are about. */
function helpsByNode(pod: PodInfo, { old, next }: Change): boolean {
  const now = (next as Node).metadata.labels ?? {};
  const before = (old as Node | undefined)?.metadata.labels;
  if (!pod.near.every(({ topologyKey }) => Object.hasOwn(now, topologyKey))) return false;
  if (!before) return true;
  // Turned down for what others want: any label may be theirs.
  if (pod.near.length + pod.far.length === 0) return true;
  return [...pod.near, ...pod.far].some(({ topologyKey }) => before[topologyKey] !== now[topologyKey]);
}
