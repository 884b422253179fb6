// The decision: one pod, one snapshot, an answer with a reason for every node that was turned down. Pure; ties are broken
// by the caller's `pick`. Every node is looked at: at the sizes mote is for (up to some hundred nodes) sampling saves
// nothing. Upstream counterpart: scheduleOne's findNodesThatFitPod, prioritizeNodes, selectHost and FitError.
import type { Pod } from "#model/gen/core-v1.ts";
import type { Plugin, Prepared } from "./plugins/framework.ts";
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
    };

export interface ScheduleOptions {
  readonly plugins: readonly Plugin[];
  /** Index below `count`, to choose among nodes of the same score. */
  readonly pick: (count: number) => number;
}

export function schedule(pod: Pod, snapshot: Snapshot, options: ScheduleOptions): Decision {
  const prepared = options.plugins.map((plugin) => ({ plugin, ...plugin.prepare(pod, snapshot) }));
  const rejections = new Map<string, NodeRejection>();
  const feasible: NodeInfo[] = [];
  for (const node of snapshot.nodes) {
    const rejection = firstRejection(prepared, node);
    if (rejection) rejections.set(node.name, rejection);
    else feasible.push(node);
  }
  if (feasible.length === 0) {
    return {
      kind: "unschedulable",
      message: failureMessage(pod, snapshot.nodes.length, rejections),
      rejections,
      plugins: new Set([...rejections.values()].map((r) => r.plugin)),
    };
  }
  const totals = scoreAll(prepared, feasible);
  const best = Math.max(...totals);
  const candidates = feasible.filter((_, i) => totals[i] === best);
  const chosen = candidates[candidates.length === 1 ? 0 : options.pick(candidates.length)]!;
  return { kind: "bind", node: chosen.name, scores: new Map(feasible.map((node, i) => [node.name, totals[i]!])) };
}

type Ready = Prepared & { readonly plugin: Plugin };

function firstRejection(prepared: readonly Ready[], node: NodeInfo): NodeRejection | undefined {
  for (const { plugin, filter } of prepared) {
    const rejection = filter?.(node);
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
export function failureMessage(pod: Pod, nodeCount: number, rejections: ReadonlyMap<string, NodeRejection>): string {
  if (nodeCount === 0) return "no nodes available to schedule pods";
  const reasons = histogram([...rejections.values()].flatMap((r) => r.reasons));
  return `0/${nodeCount} nodes are available: ${reasons}. ${preemptionMessage(pod, nodeCount, rejections)}`;
}

/** Preemption is not attempted in this version, so no node ever has victims. */
function preemptionMessage(pod: Pod, nodeCount: number, rejections: ReadonlyMap<string, NodeRejection>): string {
  if (pod.spec.preemptionPolicy === "Never") return "preemption: not eligible due to preemptionPolicy=Never.";
  const reasons = [...rejections.values()].map((r) =>
    r.isUnresolvable ? "Preemption is not helpful for scheduling" : "No preemption victims found for incoming pod",
  );
  return `preemption: 0/${nodeCount} nodes are available: ${histogram(reasons)}.`;
}

function histogram(reasons: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return [...counts]
    .map(([reason, count]) => `${count} ${reason}`)
    .sort()
    .join(", ");
}
