// The decision: one pod, one snapshot, an answer with a reason for every node that was turned down. Pure; ties are broken
// by the caller's `pick`. In large clusters only as many nodes are looked for as are worth scoring, beginning where the pod
// before left off. Upstream counterpart: scheduleOne's findNodesThatFitPod, prioritizeNodes, selectHost and FitError.
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import { FilterRun, type NodeRejection, type Nominated } from "./filter-run.ts";
import type { PodInfo } from "./pod-info.ts";
import { type Candidate, cheapest, findCandidates, preemptionBar } from "./preemption.ts";
import type { Profile } from "./profile.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export type Decision =
  | { readonly kind: "bind"; readonly node: string; readonly examined: number }
  | {
      readonly kind: "unschedulable";
      readonly message: string;
      /** Which plugins said no: decides which events are worth another try. Empty when there are no nodes. */
      readonly plugins: ReadonlySet<string>;
      /** Who would have to go so that the pod fits. */
      readonly preemption?: Candidate;
      /** What becomes of an earlier promise: taken back (""), or left alone (undefined). */
      readonly nominatedNode?: string;
      readonly examined: number;
    };

export interface ScheduleOptions {
  readonly profile: Profile;
  /** Index below `count`, to choose among nodes of the same score. */
  readonly pick: (count: number) => number;
  /** Which pods are better left alone when room is made for this one. */
  readonly budgets?: readonly PodDisruptionBudget[];
  readonly nominated?: Nominated;
  /** Where to begin among the nodes. */
  readonly start?: number;
  /** Told at the end of each stage, for metrics. */
  readonly lap?: (point: "PreFilter" | "Filter" | "PostFilter" | "Score", status: "Success" | "Unschedulable") => void;
}

export interface Found {
  readonly nodes: readonly NodeInfo[];
  /** By node name. */
  readonly rejections: Map<string, NodeRejection>;
  /** Why the others do not come into question: those neither found nor turned down by themselves. */
  readonly absent?: NodeRejection;
  /** All were turned down at once, for what the pod is. */
  readonly shared?: NodeRejection;
  /** How many were looked at. */
  readonly examined: number;
  readonly run: FilterRun;
}

const minimumToFind = 100;
const minimumPercentage = 5;

/** How many nodes are enough to choose from. 0 percent: by the size of the cluster, from 50 % down to 5 %. */
export function nodesToFind(nodeCount: number, percentage: number): number {
  if (nodeCount < minimumToFind) return nodeCount;
  const share = percentage || Math.max(minimumPercentage, 50 - Math.floor(nodeCount / 125));
  return Math.max(minimumToFind, Math.floor((nodeCount * share) / 100));
}

export function schedule(pod: PodInfo, snapshot: Snapshot, options: ScheduleOptions): Decision {
  const found = findFeasible(pod, snapshot, options);
  if (found.nodes.length === 0) return unschedulable(pod, snapshot, found, options);
  const totals = scoreNodes(pod, snapshot, found.nodes, options.profile);
  options.lap?.("Score", "Success");
  return { kind: "bind", node: best(found.nodes, totals, options.pick).name, examined: found.examined };
}

export function findFeasible(pod: PodInfo, snapshot: Snapshot, options: ScheduleOptions): Found {
  const { profile, lap } = options;
  const run = new FilterRun(pod, snapshot, profile, options.nominated);
  const rejections = new Map<string, NodeRejection>();
  const { reject } = run;
  if (reject && snapshot.nodes.length > 0) {
    lap?.("PreFilter", "Unschedulable");
    return { nodes: [], rejections, absent: reject, shared: reject, examined: 0, run };
  }
  lap?.("PreFilter", "Success");
  const nominated = snapshot.byName.get(pod.pod.status?.nominatedNodeName ?? "");
  if (nominated && !run.rejectionOn(nominated)) {
    lap?.("Filter", "Success");
    return { nodes: [nominated], rejections, examined: 1, run };
  }
  const named = run.only;
  const all = named
    ? [...named.names].map((name) => snapshot.byName.get(name)).filter((node) => node !== undefined)
    : snapshot.nodes;
  // Without scores the first that fits is as good as any.
  const enough = profile.scorers.length === 0 ? 1 : nodesToFind(all.length, profile.percentageOfNodesToScore);
  const nodes: NodeInfo[] = [];
  const start = named || all.length === 0 ? 0 : (options.start ?? 0) % all.length;
  let examined = 0;
  while (examined < all.length && nodes.length < enough) {
    const node = all[(start + examined) % all.length]!;
    examined++;
    const rejection = run.rejectionOn(node);
    if (rejection) rejections.set(node.name, rejection);
    else nodes.push(node);
  }
  lap?.("Filter", nodes.length > 0 ? "Success" : "Unschedulable");
  const found = { nodes, rejections, examined: named ? 0 : examined, run };
  if (!named) return found;
  const plugin = named.plugins[0] ?? "";
  const reason =
    named.names.size > 0
      ? `node(s) didn't satisfy plugin(s) [${named.plugins.join(" ")}]`
      : `node(s) didn't satisfy plugin(s) [${named.plugins.join(" ")}] simultaneously`;
  return { ...found, absent: { plugin, reasons: [reason], isUnresolvable: true } };
}

/** The weighted sum of all scores, by index of `nodes`. */
export function scoreNodes(
  pod: PodInfo,
  snapshot: Snapshot,
  nodes: readonly NodeInfo[],
  { scorers }: Profile,
): Float64Array {
  const totals = new Float64Array(nodes.length);
  if (nodes.length === 1) return totals;
  const scores = new Float64Array(nodes.length);
  for (const { plugin, weight } of scorers) {
    if (!plugin.score!(pod, snapshot, nodes, scores)) continue;
    for (let i = 0; i < totals.length; i++) totals[i]! += scores[i]! * weight;
  }
  return totals;
}

export function best(nodes: readonly NodeInfo[], totals: Float64Array, pick: ScheduleOptions["pick"]): NodeInfo {
  let max = Number.NEGATIVE_INFINITY;
  let count = 0;
  for (const total of totals) {
    if (total > max) {
      max = total;
      count = 1;
    } else if (total === max) count++;
  }
  let skip = count === 1 ? 0 : pick(count);
  for (let i = 0; i < totals.length; i++) if (totals[i] === max && skip-- === 0) return nodes[i]!;
  return nodes[0]!;
}

function unschedulable(pod: PodInfo, snapshot: Snapshot, found: Found, options: ScheduleOptions): Decision {
  const outcome = tryPreemption(pod, snapshot, found, options);
  options.lap?.("PostFilter", outcome.candidates.length > 0 ? "Success" : "Unschedulable");
  return failure(snapshot, found, outcome, cheapest(outcome.candidates));
}

/** The decision that there is no node, where `chosen` is whom to push out. */
export function failure(
  { nodes }: Snapshot,
  found: Found,
  outcome: PreemptionOutcome,
  chosen: Candidate | undefined,
): Decision {
  const plugins = new Set([...found.rejections.values()].map(({ plugin }) => plugin));
  if (found.absent) plugins.add(found.absent.plugin);
  const promise = chosen ? chosen.node : outcome.wasTried ? "" : undefined;
  return {
    kind: "unschedulable",
    message: failureMessage(nodes.length, found, chosen ? "" : outcome.message),
    plugins,
    ...(chosen ? { preemption: chosen } : {}),
    ...(promise === undefined ? {} : { nominatedNode: promise }),
    examined: found.examined,
  };
}

/** Upstream's words, which people and tools search logs for. */
function failureMessage(nodeCount: number, found: Found, preemption: string): string {
  if (nodeCount === 0) return "no nodes available to schedule pods";
  const reasons = found.shared ? found.shared.reasons.join(", ") : histogram(nodeCount, found.rejections, found.absent);
  return `0/${nodeCount} nodes are available: ${reasons}.${preemption === "" ? "" : ` preemption: ${preemption}`}`;
}

export interface PreemptionOutcome {
  readonly candidates: readonly Candidate[];
  /** Why there are none. */
  readonly message: string;
  readonly wasTried: boolean;
}

/** Whom one could push out; where nobody, why not. */
export function tryPreemption(
  pod: PodInfo,
  snapshot: Snapshot,
  found: Found,
  { profile, pick, budgets }: ScheduleOptions,
): PreemptionOutcome {
  const { preemption } = profile;
  if (!preemption) return { candidates: [], message: "", wasTried: false };
  const rejectionOf = ({ name }: NodeInfo) => found.rejections.get(name) ?? found.absent;
  const bar = preemptionBar(pod, snapshot, rejectionOf);
  if (bar !== undefined) return { candidates: [], message: bar, wasTried: false };
  const { candidates, reasons } = findCandidates({
    pod,
    nodes: snapshot.nodes.filter((node) => rejectionOf(node)?.isUnresolvable === false),
    nodeCount: snapshot.nodes.length,
    budgets: budgets ?? [],
    run: found.run,
    pick,
    ...preemption,
  });
  const text = histogram(snapshot.nodes.length, reasons, notHelpful);
  return { candidates, message: `0/${snapshot.nodes.length} nodes are available: ${text}.`, wasTried: true };
}

const notHelpful = { reasons: ["Preemption is not helpful for scheduling"] };

/** `2 Insufficient cpu, 1 Too many pods`; nodes that say nothing themselves say what `others` says. */
function histogram(
  nodeCount: number,
  said: ReadonlyMap<string, { readonly reasons: readonly string[] }>,
  others: { readonly reasons: readonly string[] } | undefined,
): string {
  const counts = new Map<string, number>();
  const add = (reasons: readonly string[], count: number) => {
    for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + count);
  };
  for (const { reasons } of said.values()) add(reasons, 1);
  if (others && said.size < nodeCount) add(others.reasons, nodeCount - said.size);
  return [...counts]
    .map(([reason, count]) => `${count} ${reason}`)
    .sort()
    .join(", ");
}
