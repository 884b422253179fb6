// The decision: one pod, one snapshot, an answer with a reason for every node that was turned down. Pure; ties are broken
// by the caller's `pick`. Every node is looked at: at the sizes mote is for (up to some hundred nodes) sampling saves
// nothing. Upstream counterpart: scheduleOne's findNodesThatFitPod, prioritizeNodes, selectHost and FitError.
import type { Pod } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import type { Plugin, Prepared } from "./plugins/framework.ts";
import { type Preemption, planPreemption, preemptionBar } from "./preemption.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export interface NodeRejection {
  readonly plugin: string;
  readonly reasons: readonly string[];
  readonly isUnresolvable: boolean;
}

export type Decision =
  | { readonly kind: "bind"; readonly node: string; readonly scores: ReadonlyMap<string, number> }
  | {
      readonly kind: "unschedulable";
      readonly message: string;
      /** By node name; empty when there are no nodes. */
      readonly rejections: ReadonlyMap<string, NodeRejection>;
      /** Which plugins said no: decides which events are worth another try. */
      readonly plugins: ReadonlySet<string>;
      /** Who would have to go so that the pod fits. */
      readonly preemption?: Preemption;
    };

export interface ScheduleOptions {
  readonly plugins: readonly Plugin[];
  /** Index below `count`, to choose among nodes of the same score. */
  readonly pick: (count: number) => number;
  /** Which pods are better left alone when room is made for this one. */
  readonly budgets?: readonly PodDisruptionBudget[];
}

export function schedule(pod: Pod, snapshot: Snapshot, options: ScheduleOptions): Decision {
  const prepared = prepare(pod, snapshot, options.plugins);
  const rejections = new Map<string, NodeRejection>();
  const rejecting = snapshot.nodes.length === 0 ? undefined : prepared.find(({ reject }) => reject);
  if (rejecting?.reject) {
    for (const { name } of snapshot.nodes) rejections.set(name, { plugin: rejecting.plugin.name, ...rejecting.reject });
    return unschedulable(pod, snapshot, rejections, options, rejecting.reject.reasons.join(", "));
  }
  const feasible: NodeInfo[] = [];
  for (const node of snapshot.nodes) {
    const rejection = firstRejection(prepared, node);
    if (rejection) rejections.set(node.name, rejection);
    else feasible.push(node);
  }
  if (feasible.length === 0) return unschedulable(pod, snapshot, rejections, options);
  const totals = scoreAll(prepared, feasible);
  const best = Math.max(...totals);
  const candidates = feasible.filter((_, i) => totals[i] === best);
  const chosen = candidates[candidates.length === 1 ? 0 : options.pick(candidates.length)]!;
  return { kind: "bind", node: chosen.name, scores: new Map(feasible.map((node, i) => [node.name, totals[i]!])) };
}

type Ready = Prepared & { readonly plugin: Plugin };

const prepare = (pod: Pod, snapshot: Snapshot, plugins: readonly Plugin[]): Ready[] =>
  plugins.map((plugin) => ({ plugin, ...plugin.prepare(pod, snapshot) }));

function unschedulable(
  pod: Pod,
  snapshot: Snapshot,
  rejections: ReadonlyMap<string, NodeRejection>,
  options: ScheduleOptions,
  /** One reason for all nodes at once. */
  shared?: string,
): Decision {
  const { message, preemption } = tryPreemption(pod, snapshot, rejections, options);
  return {
    kind: "unschedulable",
    message: failureMessage(snapshot.nodes.length, rejections, message, shared),
    rejections,
    plugins: new Set([...rejections.values()].map((r) => r.plugin)),
    ...(preemption ? { preemption } : {}),
  };
}

function firstRejection(prepared: readonly Ready[], node: NodeInfo): NodeRejection | undefined {
  for (const { plugin, reject, filter } of prepared) {
    const rejection = reject ?? filter?.(node);
    if (rejection) return { plugin: plugin.name, ...rejection };
  }
  return undefined;
}

function scoreAll(prepared: readonly Ready[], nodes: readonly NodeInfo[]): number[] {
  const totals = nodes.map(() => 0);
  if (nodes.length === 1) return totals;
  for (const { plugin, score, normalize } of prepared) {
    if (!score || plugin.weight === 0) continue;
    const raw = nodes.map(score);
    const normalized = normalize ? normalize(raw, nodes) : raw;
    normalized.forEach((value, i) => {
      totals[i] = totals[i]! + value * plugin.weight;
    });
  }
  return totals;
}

/** Upstream's words, which people and tools search logs for. */
function failureMessage(
  nodeCount: number,
  rejections: ReadonlyMap<string, NodeRejection>,
  preemption: string,
  shared?: string,
): string {
  if (nodeCount === 0) return "no nodes available to schedule pods";
  const reasons = shared ?? histogram([...rejections.values()].flatMap((r) => r.reasons));
  return `0/${nodeCount} nodes are available: ${reasons}.${preemption === "" ? "" : ` preemption: ${preemption}`}`;
}

/** Whom to push out; where nobody, why not. */
function tryPreemption(
  pod: Pod,
  snapshot: Snapshot,
  rejections: ReadonlyMap<string, NodeRejection>,
  options: ScheduleOptions,
): { readonly message: string; readonly preemption?: Preemption } {
  const bar = preemptionBar(pod, snapshot);
  if (bar !== undefined) return { message: bar };
  const plan = planPreemption({
    pod,
    snapshot,
    nodes: snapshot.nodes.filter((node) => rejections.get(node.name)?.isUnresolvable === false),
    budgets: options.budgets ?? [],
    rejection: (changed, node) => firstRejection(prepare(pod, changed, options.plugins), node)?.reasons,
  });
  if ("victims" in plan) return { message: "", preemption: plan };
  const reasons = snapshot.nodes.flatMap(
    ({ name }) => plan.reasons.get(name) ?? ["Preemption is not helpful for scheduling"],
  );
  return { message: `0/${snapshot.nodes.length} nodes are available: ${histogram(reasons)}.` };
}

function histogram(reasons: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return [...counts]
    .map(([reason, count]) => `${count} ${reason}`)
    .sort()
    .join(", ");
}
