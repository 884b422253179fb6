// What a decision is made from: nodes with the pods on them, their numbers in one table, and namespace labels for affinity
// terms. A NodeInfo is only changed through addPod, removePod and setNode, so that sums and pod list never disagree.
// Upstream counterpart: framework.NodeInfo and the scheduler's internal cache snapshot.
import { assert } from "#base/assert.ts";
import type { Node, Pod, Taint } from "#model/gen/core-v1.ts";
import type { LabelSelector } from "#model/gen/meta-v1.ts";
import { nameOf } from "#model/object.ts";
import { mark, NodeTable } from "./node-table.ts";
import { type Labels, type NamespaceLabels, type PodInfo, podInfoOrLess } from "./pod-info.ts";
import { amountsOf } from "./resources.ts";
import type { VolumeView } from "./volumes.ts";

export interface Snapshot {
  readonly table: NodeTable;
  /** In the order they are looked at: zones in turn. */
  readonly nodes: readonly NodeInfo[];
  readonly byName: ReadonlyMap<string, NodeInfo>;
  readonly namespaceLabels: NamespaceLabels;
  /** How many nodes hold an image, by image name: spreads the weight of popular images. */
  readonly imageSpread: ReadonlyMap<string, number>;
  /** Absent: nothing is known of storage, and nothing is asked of it. */
  readonly volumes?: VolumeView;
  /** What the services and sets that a pod belongs to select: for constraints that pods get by default. */
  readonly groupOf?: (pod: PodInfo) => LabelSelector | undefined;
}

const noTaints: readonly Taint[] = [];

export class NodeInfo {
  readonly name: string;
  readonly slot: number;
  readonly table: NodeTable;
  readonly pods = new Map<string, PodInfo>();
  /** Those of `pods` that others have to be compared with for host ports and volumes. */
  readonly podsWithPorts = new Map<string, PodInfo>();
  readonly podsWithClaims = new Map<string, PodInfo>();
  #node: Node;
  #labels: Labels = {};
  #taints: readonly Taint[] = noTaints;
  #images: ReadonlyMap<string, number> = new Map();

  constructor(node: Node, table: NodeTable) {
    this.name = nameOf(node);
    this.table = table;
    this.#node = node;
    this.slot = table.add(this);
    this.setNode(node);
  }
  get node(): Node {
    return this.#node;
  }
  get labels(): Labels {
    return this.#labels;
  }
  get taints(): readonly Taint[] {
    return this.#taints;
  }
  /** Image name → bytes. */
  get images(): ReadonlyMap<string, number> {
    return this.#images;
  }
  allocatableOf(resource: string): number {
    const i = this.table.columnOf(resource);
    return i === undefined ? 0 : this.table.allocatable[i]![this.slot]!;
  }
  requestedOf(resource: string): number {
    const i = this.table.columnOf(resource);
    return i === undefined ? 0 : this.table.requested[i]![this.slot]!;
  }

  setNode(node: Node): void {
    assert(nameOf(node) === this.name, "a NodeInfo keeps its node");
    const { slot, table } = this;
    this.#node = node;
    this.#labels = node.metadata.labels ?? {};
    this.#taints = node.spec?.taints ?? noTaints;
    this.#images = imagesOf(node);
    table.setAllocatable(slot, amountsOf(node.status?.allocatable ?? node.status?.capacity));
    table.setLabels(slot, this.#labels);
    let marks = node.spec?.unschedulable ? mark.unschedulable : 0;
    for (const { effect } of this.#taints) marks |= effect === "PreferNoSchedule" ? mark.softTaint : mark.hardTaint;
    table.marks[slot] = marks;
  }

  addPod(info: PodInfo): void {
    const { key } = info;
    assert(!this.pods.has(key), "a pod is counted once");
    this.pods.set(key, info);
    this.table.count(this.slot, info, 1);
    if (info.hostPorts.length > 0) this.podsWithPorts.set(key, info);
    if (info.hasClaims) this.podsWithClaims.set(key, info);
  }

  removePod(key: string): void {
    const info = this.pods.get(key);
    if (!info) return;
    this.pods.delete(key);
    this.table.count(this.slot, info, -1);
    this.podsWithPorts.delete(key);
    this.podsWithClaims.delete(key);
  }

  /** Gone from the cluster. */
  remove(): void {
    for (const key of [...this.pods.keys()]) this.removePod(key);
    this.table.remove(this);
  }

  /** Of its pods; infinite where there is none. */
  get lowestPriority(): number {
    const known = this.table.lowestPriority[this.slot]!;
    if (!Number.isNaN(known)) return known;
    let lowest = Number.POSITIVE_INFINITY;
    for (const { priority } of this.pods.values()) if (priority < lowest) lowest = priority;
    this.table.lowestPriority[this.slot] = lowest;
    return lowest;
  }
}

function imagesOf(node: Node): ReadonlyMap<string, number> {
  const images = new Map<string, number>();
  for (const image of node.status?.images ?? []) {
    for (const name of image.names ?? []) images.set(name, Number(image.sizeBytes ?? 0));
  }
  return images;
}

/** A snapshot of what is given, for tests and for one-off decisions. */
export function snapshotOf(
  nodes: readonly Node[],
  pods: readonly Pod[],
  namespaceLabels: NamespaceLabels = new Map(),
): Snapshot {
  const table = new NodeTable();
  const byName = new Map(nodes.map((node) => [nameOf(node), new NodeInfo(node, table)]));
  for (const pod of pods) if (occupiesNode(pod)) byName.get(pod.spec.nodeName ?? "")?.addPod(podInfoOrLess(pod));
  const imageSpread = new Map<string, number>();
  for (const { images } of byName.values()) spreadImages(imageSpread, images, 1);
  return { table, nodes: zonesInTurn([...byName.values()]), byName, namespaceLabels, imageSpread };
}

/** A node with these images comes (1) or goes (-1). */
export function spreadImages(spread: Map<string, number>, images: ReadonlyMap<string, number>, by: 1 | -1): void {
  for (const name of images.keys()) {
    const count = (spread.get(name) ?? 0) + by;
    if (count === 0) spread.delete(name);
    else spread.set(name, count);
  }
}

export const zoneOf = ({ labels }: NodeInfo): string =>
  `${labels["topology.kubernetes.io/region"] ?? ""}\0${labels["topology.kubernetes.io/zone"] ?? ""}`;

/** One node of each zone after the other, so that whoever looks at some of them sees all zones. */
export function zonesInTurn(nodes: readonly NodeInfo[]): readonly NodeInfo[] {
  const zones = new Map<string, NodeInfo[]>();
  for (const node of nodes) {
    const zone = zoneOf(node);
    const list = zones.get(zone);
    if (list) list.push(node);
    else zones.set(zone, [node]);
  }
  if (zones.size <= 1) return nodes;
  const out: NodeInfo[] = [];
  for (let i = 0; out.length < nodes.length; i++) {
    for (const list of zones.values()) if (i < list.length) out.push(list[i]!);
  }
  return out;
}

/** Assigned and not finished: what has ended holds nothing. */
export function occupiesNode(pod: Pod): boolean {
  const phase = pod.status?.phase;
  return (pod.spec.nodeName ?? "") !== "" && phase !== "Succeeded" && phase !== "Failed";
}
