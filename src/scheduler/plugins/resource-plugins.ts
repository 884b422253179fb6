// Whether a node has room, and how evenly it would be filled, read from the columns of the node table.
// Upstream: NodeResourcesFit (LeastAllocated, MostAllocated, RequestedToCapacityRatio) and
// NodeResourcesBalancedAllocation, v1.32.
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { uidOf } from "#model/object.ts";
import { column, type NodeTable } from "../node-table.ts";
import { type PodInfo, podInfoOrLess } from "../pod-info.ts";
import { amountsOf } from "../resources.ts";
import type { PluginArgs, ResourceWeight, ShapePoint } from "./args.ts";
import { type Change, maxScore, type Plugin, type Rejection } from "./framework.ts";

/** cpu, memory, ephemeral-storage, then the rest by name: the order messages come in. */
const firstNames = ["cpu", "memory", "ephemeral-storage"];
/** Scores of shapes go from 0 to 10. */
const shapeScale = maxScore / 10;

export function nodeResourcesFit(
  { ignoredResources, ignoredResourceGroups, scoringStrategy }: PluginArgs["NodeResourcesFit"],
  /** Resources that an extender looks after. */
  managed: ReadonlySet<string> = new Set(),
): Plugin {
  const isIgnored = (name: string): boolean =>
    managed.has(name) ||
    (name.includes("/") && (ignoredResources.includes(name) || ignoredResourceGroups.includes(name.split("/")[0]!)));
  const wantedBy = ({ requests }: PodInfo): [string, number][] =>
    [...requests].filter(([name]) => !isIgnored(name)).sort(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : 1));

  return {
    name: "NodeResourcesFit",
    points: ["preFilter", "filter", "preScore", "score"],
    interests: [
      { events: ["AssignedPodDelete"] },
      { events: ["AssignedPodUpdatePodScaleDown"], hint: (pod, change) => isLessAsked(wantedBy(pod), change) },
      { events: ["UnschedulablePodUpdatePodScaleDown"] },
      {
        events: ["NodeAdd", "NodeUpdateNodeAllocatable"],
        hint: (pod, change) => isMoreOffered(wantedBy(pod), change),
      },
    ],
    filter(pod, { table }) {
      const wanted = wantedBy(pod).map(([name, amount]) => ({ name, amount, column: table.columnOf(name) }));
      const said = new Map<number, Rejection>();
      return {
        check({ slot }) {
          // Bit 0: pods; bit i + 1: wanted[i]. Which of them are more than the whole node follows from the same look.
          let lacking = 0;
          let isUnresolvable = false;
          const { allocatable, requested } = table;
          if (requested[column.pods]![slot]! + 1 > allocatable[column.pods]![slot]!) lacking = 1;
          for (let i = 0; i < wanted.length; i++) {
            const { amount, column: at } = wanted[i]!;
            const has = at === undefined ? 0 : allocatable[at]![slot]!;
            const used = at === undefined ? 0 : requested[at]![slot]!;
            if (amount <= has - used) continue;
            lacking += 2 ** (i + 1);
            if (amount > has) isUnresolvable = true;
          }
          if (lacking === 0) return undefined;
          const key = isUnresolvable ? -lacking : lacking;
          let rejection = said.get(key);
          if (!rejection) {
            rejection = { reasons: reasonsOf(lacking, wanted), isUnresolvable };
            said.set(key, rejection);
          }
          return rejection;
        },
      };
    },
    score(pod, { table }, nodes, out) {
      const { resources, type, requestedToCapacityRatio } = scoringStrategy;
      const rows = scoredRows(pod, table, resources, "scoring");
      const shape = requestedToCapacityRatio?.shape ?? [];
      for (let i = 0; i < nodes.length; i++) {
        const { slot } = nodes[i]!;
        let sum = 0;
        let weights = 0;
        for (const { allocatable, used, wanted, weight } of rows) {
          const capacity = allocatable[slot]!;
          if (capacity === 0) continue;
          const asked = used[slot]! + wanted;
          if (type === "RequestedToCapacityRatio") {
            const score = onShape(shape, asked > capacity ? 100 : Math.floor((asked * 100) / capacity));
            if (score <= 0) continue;
            sum += score * weight;
          } else if (type === "MostAllocated") {
            sum += Math.floor((Math.min(asked, capacity) * maxScore) / capacity) * weight;
          } else if (asked <= capacity) sum += Math.floor(((capacity - asked) * maxScore) / capacity) * weight;
          weights += weight;
        }
        const mean = weights === 0 ? 0 : sum / weights;
        out[i] = type === "RequestedToCapacityRatio" ? Math.round(mean) : Math.floor(mean);
      }
      return true;
    },
  };
}

export function nodeResourcesBalancedAllocation({ resources }: PluginArgs["NodeResourcesBalancedAllocation"]): Plugin {
  return {
    name: "NodeResourcesBalancedAllocation",
    points: ["preScore", "score"],
    interests: [],
    score(pod, { table }, nodes, out) {
      // A pod that asks for none of them makes no node more uneven.
      if (!resources.some(({ name }) => pod.requests.has(name))) return false;
      const rows = scoredRows(pod, table, resources, "requested");
      const fractions = new Float64Array(rows.length);
      for (let i = 0; i < nodes.length; i++) {
        const { slot } = nodes[i]!;
        let count = 0;
        let total = 0;
        for (const { allocatable, used, wanted } of rows) {
          const capacity = allocatable[slot]!;
          if (capacity === 0) continue;
          const fraction = Math.min(1, (used[slot]! + wanted) / capacity);
          fractions[count++] = fraction;
          total += fraction;
        }
        let deviation = 0;
        if (count === 2) deviation = Math.abs(fractions[0]! - fractions[1]!) / 2;
        else if (count > 2) {
          const mean = total / count;
          let squares = 0;
          for (let j = 0; j < count; j++) squares += (fractions[j]! - mean) ** 2;
          deviation = Math.sqrt(squares / count);
        }
        out[i] = Math.floor((1 - deviation) * maxScore);
      }
      return true;
    },
  };
}

interface ScoredRow {
  readonly allocatable: Float64Array;
  readonly used: Float64Array;
  readonly wanted: number;
  readonly weight: number;
}

/** cpu and memory count with defaults for who asks for nothing when nodes are scored, as they are when evenness is. */
function scoredRows(
  pod: PodInfo,
  table: NodeTable,
  resources: readonly ResourceWeight[],
  by: "scoring" | "requested",
): ScoredRow[] {
  const out: ScoredRow[] = [];
  for (const { name, weight } of resources) {
    const at = table.columnOf(name);
    const asked = pod.requests.get(name) ?? 0;
    // What is not among the basic ones counts for those who want it.
    if (at === undefined || (asked === 0 && !firstNames.includes(name))) continue;
    const row = { allocatable: table.allocatable[at]!, weight };
    if (by === "scoring" && at === column.cpu) {
      out.push({ ...row, used: table.scoringCpu, wanted: pod.scoring.milliCpu });
    } else if (by === "scoring" && at === column.memory) {
      out.push({ ...row, used: table.scoringMemory, wanted: pod.scoring.memoryBytes });
    } else out.push({ ...row, used: table.requested[at]!, wanted: asked });
  }
  return out;
}

/** The line through the points at this utilization; whole numbers, as upstream. */
function onShape(shape: readonly ShapePoint[], utilization: number): number {
  for (const [i, point] of shape.entries()) {
    if (utilization > point.utilization) continue;
    const before = shape[i - 1];
    if (!before) return point.score * shapeScale;
    const rise = (point.score - before.score) * shapeScale;
    const run = point.utilization - before.utilization;
    return before.score * shapeScale + Math.trunc((rise * (utilization - before.utilization)) / run);
  }
  return (shape.at(-1)?.score ?? 0) * shapeScale;
}

function reasonsOf(lacking: number, wanted: readonly { readonly name: string }[]): string[] {
  const has = (bit: number): boolean => Math.floor(lacking / 2 ** bit) % 2 === 1;
  return [
    ...(has(0) ? ["Too many pods"] : []),
    ...wanted.filter((_, i) => has(i + 1)).map(({ name }) => `Insufficient ${name}`),
  ];
}

const rank = (name: string): number => {
  const at = firstNames.indexOf(name);
  return at < 0 ? firstNames.length : at;
};

type Wanted = readonly (readonly [string, number])[];

/** A pod that runs has come to ask for less of something that is wanted. */
function isLessAsked(wanted: Wanted, { old, next }: Change): boolean {
  if (uidOf(old as Pod) !== uidOf(next as Pod)) return true;
  const [before, now] = [podInfoOrLess(old as Pod).requests, podInfoOrLess(next as Pod).requests];
  return wanted.some(([name]) => (now.get(name) ?? 0) < (before.get(name) ?? 0));
}

/** A node that could take the pod if it were empty has come, or has more of something that is wanted than before. */
function isMoreOffered(wanted: Wanted, { old, next }: Change): boolean {
  const offer = (node: Node) => amountsOf(node.status?.allocatable ?? node.status?.capacity);
  const now = offer(next as Node);
  if (wanted.some(([name, amount]) => (now.get(name) ?? 0) < amount)) return false;
  if (!old) return true;
  const before = offer(old as Node);
  return ["pods", ...wanted.map(([name]) => name)].some((name) => (now.get(name) ?? 0) > (before.get(name) ?? 0));
}
