// The plugin contract as data: a plugin looks at one pod and the snapshot once (`prepare`) and hands back what it has to
// say about nodes. Everything here is pure; a rejection is a value. Upstream counterpart: the scheduling framework's
// PreFilter/Filter/PreScore/Score/NormalizeScore points, folded into one closure per pod.
import type { Pod } from "#model/gen/core-v1.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";

/** Why a node is out of the question for a pod. */
export interface Rejection {
  readonly reasons: readonly string[];
  /** True where evicting other pods from this node could not help. */
  readonly isUnresolvable: boolean;
}

/** What may happen in the cluster that makes it worth trying a rejected pod again. */
export type ClusterEvent =
  | "nodeAdded"
  | "nodeTaintsChanged"
  | "nodeLabelsChanged"
  | "nodeAllocatableChanged"
  | "assignedPodAdded"
  | "assignedPodChanged"
  | "assignedPodRemoved"
  | "namespaceChanged"
  | "claimChanged"
  | "volumeChanged"
  | "storageClassChanged"
  /** What drivers, nodes and pools say of CSI: CSINode, CSIDriver, CSIStorageCapacity. */
  | "csiChanged";

export interface Prepared {
  /** No node will do, whatever it is like. */
  readonly reject?: Rejection;
  readonly filter?: (node: NodeInfo) => Rejection | undefined;
  /** Any finite number; brought to 0..100 by `normalize`. */
  readonly score?: (node: NodeInfo) => number;
  readonly normalize?: (scores: readonly number[], nodes: readonly NodeInfo[]) => readonly number[];
}

export interface Plugin {
  readonly name: string;
  readonly weight: number;
  readonly events: readonly ClusterEvent[];
  prepare(pod: Pod, snapshot: Snapshot): Prepared;
}

export const maxScore = 100;

export const unschedulable = (...reasons: string[]): Rejection => ({ reasons, isUnresolvable: false });
export const unresolvable = (...reasons: string[]): Rejection => ({ reasons, isUnresolvable: true });

/** Highest score becomes 100, the others in proportion; `reverse` turns the order round. Whole numbers, as upstream. */
export function proportional(scores: readonly number[], order: "straight" | "reverse"): readonly number[] {
  let max = 0;
  for (const s of scores) if (s > max) max = s;
  if (max === 0) return order === "reverse" ? scores.map(() => maxScore) : scores;
  return scores.map((s) => {
    const scaled = Math.floor((maxScore * s) / max);
    return order === "reverse" ? maxScore - scaled : scaled;
  });
}
