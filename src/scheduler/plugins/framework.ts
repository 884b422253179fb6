// The plugin contract as data: a plugin looks at one pod and the snapshot once (`filter`) and hands back what it has to say
// about nodes, and scores those that are left all at once (`score`). Everything here is pure; a rejection is a value. What
// a plugin wants to be told of stands in its table of interests. Upstream counterpart: the scheduling framework's
// PreFilter/Filter/PreScore/Score/NormalizeScore points and EventsToRegister.
import type { ApiObject } from "#model/object.ts";
import type { PodInfo } from "../pod-info.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";

/** Why a node is out of the question for a pod. */
export interface Rejection {
  readonly reasons: readonly string[];
  /** True where evicting other pods from this node could not help. */
  readonly isUnresolvable: boolean;
}

/** What may happen in the cluster, under the names that upstream's metrics give it. */
export type ClusterEvent =
  | "NodeAdd"
  | "NodeDelete"
  | "NodeUpdateNodeAllocatable"
  | "NodeUpdateNodeLabel"
  | "NodeUpdateNodeTaint"
  | "AssignedPodAdd"
  | "AssignedPodDelete"
  | "AssignedPodUpdatePodLabel"
  | "AssignedPodUpdatePodScaleDown"
  /** The waiting pod itself. */
  | "UnschedulablePodUpdate"
  | "UnschedulablePodUpdatePodLabel"
  | "UnschedulablePodUpdatePodScaleDown"
  | "UnschedulablePodUpdatePodToleration"
  | "UnschedulablePodUpdatePodSchedulingGatesEliminated"
  | "NamespaceUpdate"
  | "PersistentVolumeAdd"
  | "PersistentVolumeUpdate"
  | "PersistentVolumeClaimAdd"
  | "PersistentVolumeClaimUpdate"
  | "StorageClassAdd"
  | "StorageClassUpdate"
  | "CSINodeAdd"
  | "CSINodeUpdate"
  | "CSIDriverAdd"
  | "CSIDriverUpdate"
  | "CSIStorageCapacityAdd"
  | "CSIStorageCapacityUpdate"
  | "VolumeAttachmentDelete";

export interface Change {
  readonly event: ClusterEvent;
  /** As it was: of updates and deletions. */
  readonly old?: ApiObject;
  /** As it is: of additions and updates. */
  readonly next?: ApiObject;
}

/** What hints may look at besides pod and change. */
export type HintView = Pick<Snapshot, "namespaceLabels" | "volumes">;

export interface Interest {
  readonly events: readonly ClusterEvent[];
  /** Whether the change may make the pod fit that this plugin turned down; absent: always. */
  readonly hint?: (pod: PodInfo, change: Change, view: HintView) => boolean;
}

export interface PreparedFilter {
  /** No node will do, whatever it is like. */
  readonly reject?: Rejection;
  /** Names of the only nodes that come into question. */
  readonly only?: ReadonlySet<string>;
  readonly check?: (node: NodeInfo) => Rejection | undefined;
  /** A pod was thought onto this node (1) or away from it (-1) since; the node itself shows it already. */
  readonly moved?: (other: PodInfo, node: NodeInfo, by: 1 | -1) => void;
}

export const extensionPoints = [
  "preEnqueue",
  "queueSort",
  "preFilter",
  "filter",
  "postFilter",
  "preScore",
  "score",
  "reserve",
  "permit",
  "preBind",
  "bind",
  "postBind",
] as const;
export type ExtensionPoint = (typeof extensionPoints)[number];

export interface Plugin {
  readonly name: string;
  /** Those that it takes part in upstream: what profiles may enable it for. */
  readonly points: readonly ExtensionPoint[];
  readonly interests: readonly Interest[];
  filter?(pod: PodInfo, snapshot: Snapshot): PreparedFilter;
  /** Writes a score of 0 to 100 for each of the nodes; false where all would be the same. */
  score?(pod: PodInfo, snapshot: Snapshot, nodes: readonly NodeInfo[], out: Float64Array): boolean;
}

export const maxScore = 100;

export const unschedulable = (...reasons: string[]): Rejection => ({ reasons, isUnresolvable: false });
export const unresolvable = (...reasons: string[]): Rejection => ({ reasons, isUnresolvable: true });

/** Highest score becomes 100, the others in proportion; `reverse` turns the order round. Whole numbers, as upstream. */
export function proportional(scores: Float64Array, count: number, order: "straight" | "reverse"): void {
  let max = 0;
  for (let i = 0; i < count; i++) if (scores[i]! > max) max = scores[i]!;
  for (let i = 0; i < count; i++) {
    const scaled = max === 0 ? 0 : Math.floor((maxScore * scores[i]!) / max);
    scores[i] = order === "reverse" ? maxScore - scaled : scaled;
  }
}
