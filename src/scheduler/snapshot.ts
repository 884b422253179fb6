// What a decision is made from: nodes with the sums of what already runs on them, and namespace labels for affinity terms.
// A NodeInfo is only changed through addPod and removePod, so that sums and pod list never disagree.
// Upstream counterpart: framework.NodeInfo and the scheduler's internal cache snapshot.
import { assert } from "#base/assert.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { keyOf, nameOf } from "#model/object.ts";
import { type Amounts, add, amountsOf, podRequests, subtract } from "./resources.ts";
import type { VolumeView } from "./volumes.ts";

export interface HostPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

export interface Snapshot {
  readonly nodes: readonly NodeInfo[];
  readonly namespaceLabels: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** How many nodes hold an image, by image name: spreads the weight of popular images. */
  readonly imageSpread: ReadonlyMap<string, number>;
  /** Absent: nothing is known of storage, and nothing is asked of it. */
  readonly volumes?: VolumeView;
}

export class NodeInfo {
  readonly name: string;
  readonly pods = new Map<string, Pod>();
  /** Those of `pods` that have affinity or anti-affinity terms: the only ones others have to be compared with. */
  readonly podsWithAffinity = new Map<string, Pod>();
  readonly requested: Amounts = new Map();
  readonly scoring = { milliCpu: 0, memoryBytes: 0 };
  #node: Node;
  #allocatable: Amounts = new Map();
  #images = new Map<string, number>();

  constructor(node: Node) {
    this.name = nameOf(node);
    this.#node = node;
    this.setNode(node);
  }
  get node(): Node {
    return this.#node;
  }
  get labels(): Readonly<Record<string, string>> {
    return this.#node.metadata.labels ?? {};
  }
  get allocatable(): ReadonlyMap<string, number> {
    return this.#allocatable;
  }
  /** Image name → bytes. */
  get images(): ReadonlyMap<string, number> {
    return this.#images;
  }

  setNode(node: Node): void {
    assert(nameOf(node) === this.name, "a NodeInfo keeps its node");
    this.#node = node;
    this.#allocatable = amountsOf(node.status?.allocatable ?? node.status?.capacity);
    this.#images = new Map();
    for (const image of node.status?.images ?? []) {
      for (const name of image.names ?? []) this.#images.set(name, Number(image.sizeBytes ?? 0));
    }
  }

  addPod(pod: Pod): void {
    const key = keyOf(pod);
    assert(!this.pods.has(key), "a pod is counted once");
    const { requests, scoring } = podRequests(pod);
    add(this.requested, requests);
    this.scoring.milliCpu += scoring.milliCpu;
    this.scoring.memoryBytes += scoring.memoryBytes;
    this.pods.set(key, pod);
    if (hasAffinityTerms(pod)) this.podsWithAffinity.set(key, pod);
  }

  removePod(key: string): void {
    const pod = this.pods.get(key);
    if (!pod) return;
    const { requests, scoring } = podRequests(pod);
    subtract(this.requested, requests);
    this.scoring.milliCpu -= scoring.milliCpu;
    this.scoring.memoryBytes -= scoring.memoryBytes;
    this.pods.delete(key);
    this.podsWithAffinity.delete(key);
  }
}

/** A snapshot of what is given, for tests and for one-off decisions. */
export function snapshotOf(
  nodes: readonly Node[],
  pods: readonly Pod[],
  namespaceLabels: Snapshot["namespaceLabels"] = new Map(),
): Snapshot {
  const infos = new Map(nodes.map((node) => [nameOf(node), new NodeInfo(node)]));
  for (const pod of pods) if (occupiesNode(pod)) infos.get(pod.spec.nodeName ?? "")?.addPod(pod);
  const list = [...infos.values()];
  return { nodes: list, namespaceLabels, imageSpread: imageSpreadOf(list) };
}

/** The snapshot as if these pods were on these nodes already: room that is promised to them is taken. */
export function withPromised(
  snapshot: Snapshot,
  promised: Iterable<{ readonly pod: Pod; readonly node: string }>,
): Snapshot {
  const copies = new Map<string, NodeInfo>();
  for (const { pod, node: name } of promised) {
    const node = copies.get(name) ?? snapshot.nodes.find((one) => one.name === name);
    if (!node || node.pods.has(keyOf(pod))) continue;
    let copy = copies.get(name);
    if (!copy) {
      copy = new NodeInfo(node.node);
      for (const other of node.pods.values()) copy.addPod(other);
      copies.set(name, copy);
    }
    copy.addPod(pod);
  }
  if (copies.size === 0) return snapshot;
  return { ...snapshot, nodes: snapshot.nodes.map((node) => copies.get(node.name) ?? node) };
}

export function imageSpreadOf(nodes: readonly NodeInfo[]): Map<string, number> {
  const spread = new Map<string, number>();
  for (const node of nodes) for (const name of node.images.keys()) spread.set(name, (spread.get(name) ?? 0) + 1);
  return spread;
}

/** Assigned and not finished: what has ended holds nothing. */
export function occupiesNode(pod: Pod): boolean {
  const phase = pod.status?.phase;
  return (pod.spec.nodeName ?? "") !== "" && phase !== "Succeeded" && phase !== "Failed";
}

export function hostPortsOf(pod: Pod): HostPort[] {
  const out: HostPort[] = [];
  const sidecars = (pod.spec.initContainers ?? []).filter((c) => c.restartPolicy === "Always");
  for (const container of [...(pod.spec.containers ?? []), ...sidecars]) {
    for (const port of container.ports ?? []) {
      if (!port.hostPort) continue;
      out.push({ ip: port.hostIP || "0.0.0.0", protocol: port.protocol ?? "TCP", port: port.hostPort });
    }
  }
  return out;
}

function hasAffinityTerms(pod: Pod): boolean {
  const affinity = pod.spec.affinity;
  return affinity?.podAffinity !== undefined || affinity?.podAntiAffinity !== undefined;
}
