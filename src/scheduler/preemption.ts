// Which pods would have to go so that a more important one fits: for each node that says no for reasons that could change,
// all less important pods are thought away, then taken back one by one, the most important first, as long as the pod still
// fits. Of the nodes the one that loses least is taken. Pure. Upstream counterpart: framework/preemption,
// plugins/defaultpreemption.
import type { Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import { isDeleting, keyOf, nameOf, namespaceOf } from "#model/object.ts";
import { NodeInfo, type Snapshot } from "./snapshot.ts";

/** Nodes thought through for one pod: upstream's floor; each costs a pass of all filters per victim. */
const maxCandidates = 100;

export interface Preemption {
  readonly node: string;
  /** The most important first. */
  readonly victims: readonly Pod[];
}

export interface PreemptionInput {
  readonly pod: Pod;
  readonly snapshot: Snapshot;
  /** Nodes that turned the pod down for reasons that the absence of other pods could change. */
  readonly nodes: readonly NodeInfo[];
  readonly budgets: readonly PodDisruptionBudget[];
  /** Why the pod does not fit on this node of this snapshot; undefined when it does. */
  readonly rejection: (snapshot: Snapshot, node: NodeInfo) => readonly string[] | undefined;
}

/** What to do, or for each node why it cannot be helped, in upstream's words. */
export type PreemptionPlan = Preemption | { readonly reasons: ReadonlyMap<string, readonly string[]> };

export const priorityOf = (pod: Pod): number => pod.spec.priority ?? 0;

/** Why the pod may not push out others; undefined when it may. */
export function preemptionBar(pod: Pod, snapshot: Snapshot): string | undefined {
  if (pod.spec.preemptionPolicy === "Never") return "not eligible due to preemptionPolicy=Never.";
  const nominated = snapshot.nodes.find((node) => node.name === pod.status?.nominatedNodeName);
  const isAwaited = [...(nominated?.pods.values() ?? [])].some(
    (other) => isDeleting(other) && priorityOf(other) < priorityOf(pod),
  );
  return isAwaited ? "not eligible due to a terminating pod on the nominated node." : undefined;
}

interface Candidate extends Preemption {
  readonly violations: number;
}

export function planPreemption(input: PreemptionInput): PreemptionPlan {
  const reasons = new Map<string, readonly string[]>();
  let best: Candidate | undefined;
  for (const node of input.nodes.slice(0, maxCandidates)) {
    const found = victimsOn(node, input);
    if ("victims" in found) best = best && isCheaper(best, found) ? best : found;
    else reasons.set(node.name, found.reasons);
  }
  return best ? { node: best.node, victims: best.victims } : { reasons };
}

function victimsOn(node: NodeInfo, input: PreemptionInput): Candidate | { readonly reasons: readonly string[] } {
  const { pod, snapshot } = input;
  const possible = [...node.pods.values()].filter((other) => priorityOf(other) < priorityOf(pod)).sort(byImportance);
  if (possible.length === 0) return { reasons: ["No preemption victims found for incoming pod"] };
  const gone = new Set(possible.map(keyOf));
  const problem = (): readonly string[] | undefined => {
    const rest = without(node, gone);
    return input.rejection({ ...snapshot, nodes: snapshot.nodes.map((one) => (one === node ? rest : one)) }, rest);
  };
  const hopeless = problem();
  if (hopeless) return { reasons: hopeless };
  const protectedKeys = overBudget(possible, input.budgets);
  const isProtected = (other: Pod): boolean => protectedKeys.has(keyOf(other));
  const victims: Pod[] = [];
  for (const other of [...possible.filter(isProtected), ...possible.filter((one) => !isProtected(one))]) {
    gone.delete(keyOf(other));
    if (!problem()) continue;
    gone.add(keyOf(other));
    victims.push(other);
  }
  victims.sort(byImportance);
  return { node: node.name, victims, violations: victims.filter(isProtected).length };
}

function without(node: NodeInfo, keys: ReadonlySet<string>): NodeInfo {
  const copy = new NodeInfo(node.node);
  for (const [key, pod] of node.pods) if (!keys.has(key)) copy.addPod(pod);
  return copy;
}

/** Those whose going, one after the other, some budget would not allow. */
function overBudget(pods: readonly Pod[], budgets: readonly PodDisruptionBudget[]): ReadonlySet<string> {
  const left = new Map(budgets.map((budget) => [budget, budget.status?.disruptionsAllowed ?? 0]));
  const over = new Set<string>();
  for (const pod of pods) {
    const labels = pod.metadata.labels;
    if (!labels || Object.keys(labels).length === 0) continue;
    for (const budget of budgets) {
      if (namespaceOf(budget) !== namespaceOf(pod) || isEmpty(budget.spec.selector)) continue;
      if (!matchesLabelSelector(budget.spec.selector, labels)) continue;
      if (budget.status?.disruptedPods?.[nameOf(pod)] !== undefined) continue;
      const rest = (left.get(budget) ?? 0) - 1;
      left.set(budget, rest);
      if (rest < 0) over.add(keyOf(pod));
    }
  }
  return over;
}

const isEmpty = (selector: PodDisruptionBudget["spec"]["selector"]): boolean =>
  Object.keys(selector?.matchLabels ?? {}).length === 0 && (selector?.matchExpressions ?? []).length === 0;

const startOf = (pod: Pod): string => pod.status?.startTime ?? "9999";
/** The higher priority first; among equals the one that has run for longer. */
const byImportance = (a: Pod, b: Pod): number =>
  priorityOf(b) - priorityOf(a) || startOf(a).localeCompare(startOf(b)) || keyOf(a).localeCompare(keyOf(b));

/** Whether `a` loses less than `b`, or as little. */
function isCheaper(a: Candidate, b: Candidate): boolean {
  const highest = ({ victims }: Candidate): number => (victims[0] ? priorityOf(victims[0]) : Number.NEGATIVE_INFINITY);
  // Shifted so that more victims never cost less, whatever the sign of their priorities.
  const sum = ({ victims }: Candidate): number => victims.reduce((total, pod) => total + priorityOf(pod) + 2 ** 31, 0);
  const earliest = (c: Candidate): string =>
    c.victims
      .filter((pod) => priorityOf(pod) === highest(c))
      .map(startOf)
      .sort()[0] ?? "9999";
  const order =
    a.violations - b.violations ||
    highest(a) - highest(b) ||
    sum(a) - sum(b) ||
    a.victims.length - b.victims.length ||
    earliest(b).localeCompare(earliest(a));
  return Number.isNaN(order) || order <= 0;
}
