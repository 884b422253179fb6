// Which pods would have to go so that a more important one fits: on each node that says no for reasons that could change,
// all less important pods are thought away, then taken back one by one, the most important first, as long as the pod still
// fits. Of the nodes the one that loses least is taken. Pure: what is thought is undone. Upstream counterpart:
// framework/preemption, plugins/defaultpreemption.
import type { Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import { nameOf, namespaceOf } from "#model/object.ts";
import type { FilterRun, NodeRejection } from "./filter-run.ts";
import type { PluginArgs } from "./plugins/args.ts";
import type { PodInfo } from "./pod-info.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export interface Candidate {
  readonly node: string;
  /** The most important first. */
  readonly victims: readonly PodInfo[];
  /** How many of them some budget would have kept. */
  readonly violations: number;
}

export interface PreemptionInput extends Readonly<PluginArgs["DefaultPreemption"]> {
  readonly pod: PodInfo;
  /** Nodes that turned the pod down for reasons that the absence of other pods could change. */
  readonly nodes: readonly NodeInfo[];
  readonly nodeCount: number;
  readonly budgets: readonly PodDisruptionBudget[];
  readonly run: FilterRun;
  /** Index below `count`: where to begin among the nodes. */
  readonly pick: (count: number) => number;
}

interface Reasons {
  readonly reasons: readonly string[];
}
const noVictims: Reasons = { reasons: ["No preemption victims found for incoming pod"] };

/** Marks of a pod that leaves for a more important one. */
export const preemptionCondition = { type: "DisruptionTarget", reason: "PreemptionByScheduler" } as const;

/** Why the pod may not push out others; undefined when it may. */
export function preemptionBar(
  pod: PodInfo,
  { byName }: Snapshot,
  rejectionOf: (node: NodeInfo) => NodeRejection | undefined,
): string | undefined {
  if (pod.pod.spec.preemptionPolicy === "Never") return "not eligible due to preemptionPolicy=Never.";
  const nominated = byName.get(pod.pod.status?.nominatedNodeName ?? "");
  // What was promised can no longer be had there: it may look elsewhere.
  if (!nominated || rejectionOf(nominated)?.isUnresolvable) return undefined;
  for (const other of nominated.pods.values()) {
    if (other.isDeleting && other.priority < pod.priority && leavesForAnother(other.pod)) {
      return "not eligible due to a terminating pod on the nominated node.";
    }
  }
  return undefined;
}

const leavesForAnother = (pod: Pod): boolean =>
  (pod.status?.conditions ?? []).some(
    ({ type, status, reason }) =>
      type === preemptionCondition.type && status === "True" && reason === preemptionCondition.reason,
  );

/** Nodes that could be helped, and for each other one that was looked at why it cannot, in upstream's words. */
export function findCandidates(input: PreemptionInput): {
  readonly candidates: readonly Candidate[];
  readonly reasons: ReadonlyMap<string, Reasons>;
} {
  const { nodes, nodeCount, minCandidateNodesAbsolute, minCandidateNodesPercentage } = input;
  const reasons = new Map<string, Reasons>();
  const candidates: Candidate[] = [];
  const share = Math.floor((nodeCount * minCandidateNodesPercentage) / 100);
  const enough = Math.min(nodes.length, Math.max(share, minCandidateNodesAbsolute));
  const offset = nodes.length > enough ? input.pick(nodes.length) : 0;
  let harmless = 0;
  for (let i = 0; i < nodes.length; i++) {
    // As upstream: one that breaks no budget is wanted among them.
    if (harmless > 0 && candidates.length >= enough) break;
    const node = nodes[(offset + i) % nodes.length]!;
    const found = victimsOn(node, input);
    if ("reasons" in found) {
      reasons.set(node.name, found);
      continue;
    }
    candidates.push(found);
    if (found.violations === 0) harmless++;
  }
  return { candidates, reasons };
}

export function cheapest(candidates: readonly Candidate[]): Candidate | undefined {
  let best: Candidate | undefined;
  for (const one of candidates) if (!best || !isCheaper(best, one)) best = one;
  return best;
}

function victimsOn(node: NodeInfo, { pod, run, budgets }: PreemptionInput): Candidate | Reasons {
  if (node.lowestPriority >= pod.priority) return noVictims;
  const possible: PodInfo[] = [];
  for (const other of node.pods.values()) if (other.priority < pod.priority) possible.push(other);
  possible.sort(byImportance);
  const gone = new Set<PodInfo>();
  try {
    for (const other of possible) {
      run.move(other, node, -1);
      gone.add(other);
    }
    const hopeless = run.rejectionOn(node);
    if (hopeless) return { reasons: hopeless.reasons };
    const protectedPods = overBudget(possible, budgets);
    const first = possible.filter((other) => protectedPods.has(other));
    const then = possible.filter((other) => !protectedPods.has(other));
    const victims: PodInfo[] = [];
    for (const other of [...first, ...then]) {
      run.move(other, node, 1);
      gone.delete(other);
      if (!run.rejectionOn(node)) continue;
      run.move(other, node, -1);
      gone.add(other);
      victims.push(other);
    }
    victims.sort(byImportance);
    return { node: node.name, victims, violations: victims.filter((one) => protectedPods.has(one)).length };
  } finally {
    for (const other of gone) run.move(other, node, 1);
  }
}

/** Those whose going, one after the other, some budget would not allow. */
function overBudget(pods: readonly PodInfo[], budgets: readonly PodDisruptionBudget[]): ReadonlySet<PodInfo> {
  const over = new Set<PodInfo>();
  if (budgets.length === 0) return over;
  const left = new Map(budgets.map((budget) => [budget, budget.status?.disruptionsAllowed ?? 0]));
  for (const info of pods) {
    if (Object.keys(info.labels).length === 0) continue;
    for (const budget of budgets) {
      if (namespaceOf(budget) !== info.namespace || isEmpty(budget.spec.selector)) continue;
      if (!matchesLabelSelector(budget.spec.selector, info.labels)) continue;
      if (budget.status?.disruptedPods?.[nameOf(info.pod)] !== undefined) continue;
      const rest = (left.get(budget) ?? 0) - 1;
      left.set(budget, rest);
      if (rest < 0) over.add(info);
    }
  }
  return over;
}

const isEmpty = (selector: PodDisruptionBudget["spec"]["selector"]): boolean =>
  Object.keys(selector?.matchLabels ?? {}).length === 0 && (selector?.matchExpressions ?? []).length === 0;

const startOf = ({ pod }: PodInfo): string => pod.status?.startTime ?? "9999";
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
/** The higher priority first; among equals the one that has run for longer. */
const byImportance = (a: PodInfo, b: PodInfo): number =>
  b.priority - a.priority || compare(startOf(a), startOf(b)) || compare(a.key, b.key);

/** Whether `a` loses less than `b`, or as little. */
function isCheaper(a: Candidate, b: Candidate): boolean {
  const highest = ({ victims }: Candidate): number => victims[0]?.priority ?? Number.NEGATIVE_INFINITY;
  // Shifted so that more victims never cost less, whatever the sign of their priorities.
  const sum = ({ victims }: Candidate): number => victims.reduce((total, one) => total + one.priority + 2 ** 31, 0);
  const earliest = (c: Candidate): string =>
    c.victims
      .filter(({ priority }) => priority === highest(c))
      .map(startOf)
      .sort()[0] ?? "9999";
  const order =
    a.violations - b.violations ||
    highest(a) - highest(b) ||
    sum(a) - sum(b) ||
    a.victims.length - b.victims.length ||
    compare(earliest(b), earliest(a));
  return Number.isNaN(order) || order <= 0;
}
