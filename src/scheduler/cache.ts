// The scheduler's view of nodes and the pods on them, one step ahead of the API: a pod that was just given a node counts
// there at once (assumed) until the informer shows the binding or the assumption expires.
//
//   assume ──► assumed ──bind ok, finishBinding──► expires after ttl ──► forgotten (the informer never saw it)
//                 │                                      ▲
//                 ├── informer shows it on the node ──► confirmed ──► removed when the pod ends
//                 └── bind failed, forget
//
// Upstream counterpart: pkg/scheduler/backend/cache.
import type { Clock } from "#base/clock.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { keyOf, nameOf, uidOf } from "#model/object.ts";
import { NodeTable } from "./node-table.ts";
import { type PodInfo, podInfoOrLess } from "./pod-info.ts";
import { NodeInfo, occupiesNode, type Snapshot, spreadImages, zoneOf, zonesInTurn } from "./snapshot.ts";

interface Entry {
  readonly info: PodInfo;
  readonly node: string;
  isAssumed: boolean;
  /** Set once the binding was acknowledged. */
  deadlineMs: number | undefined;
}

export interface CacheOptions {
  /** How long a bound pod may stay unseen by the informer. */
  readonly assumeTtlMs: number;
}

export class SchedulerCache {
  readonly #options: CacheOptions;
  readonly #clock: Clock;
  readonly #table = new NodeTable();
  readonly #nodes = new Map<string, NodeInfo>();
  /** In the order they are looked at; undefined after nodes or zones changed. */
  #ordered: readonly NodeInfo[] | undefined;
  readonly #entries = new Map<string, Entry>();
  readonly #assumed = new Set<string>();
  /** Keys of entries on nodes that are not known, by node: they count when it appears. */
  readonly #homeless = new Map<string, Set<string>>();
  readonly #namespaceLabels = new Map<string, Readonly<Record<string, string>>>();
  readonly #imageSpread = new Map<string, number>();

  constructor(options: CacheOptions, deps: { readonly clock: Clock }) {
    this.#options = options;
    this.#clock = deps.clock;
  }

  setNode(node: Node): void {
    const name = nameOf(node);
    const known = this.#nodes.get(name);
    if (known) {
      const zone = zoneOf(known);
      spreadImages(this.#imageSpread, known.images, -1);
      known.setNode(node);
      spreadImages(this.#imageSpread, known.images, 1);
      if (zoneOf(known) !== zone) this.#ordered = undefined;
      return;
    }
    const info = new NodeInfo(node, this.#table);
    this.#nodes.set(name, info);
    this.#ordered = undefined;
    spreadImages(this.#imageSpread, info.images, 1);
    for (const key of this.#homeless.get(name) ?? []) info.addPod(this.#entries.get(key)!.info);
    this.#homeless.delete(name);
  }

  removeNode(name: string): void {
    const info = this.#nodes.get(name);
    if (!info) return;
    this.#nodes.delete(name);
    this.#ordered = undefined;
    spreadImages(this.#imageSpread, info.images, -1);
    if (info.pods.size > 0) this.#homeless.set(name, new Set(info.pods.keys()));
    info.remove();
  }

  setNamespace(name: string, labels: Readonly<Record<string, string>> | undefined): void {
    if (labels) this.#namespaceLabels.set(name, labels);
    else this.#namespaceLabels.delete(name);
  }

  /** What the informer says. Confirms an assumption, or corrects it where the pod went elsewhere. */
  setPod(pod: Pod): void {
    const key = keyOf(pod);
    const entry = this.#entries.get(key);
    if (!occupiesNode(pod)) {
      // An assumed pod's last events still come without a node; they must not undo the assumption.
      if (entry?.isAssumed && entry.info.uid === uidOf(pod) && !pod.spec.nodeName) return;
      this.#drop(key);
      return;
    }
    this.#drop(key);
    const info = podInfoOrLess(pod);
    this.#place(key, { info, node: pod.spec.nodeName ?? "", isAssumed: false, deadlineMs: undefined });
  }

  removePod(key: string): void {
    this.#drop(key);
  }

  /** Counts the pod on the node before the API knows. False where it already counts somewhere. */
  assume(info: PodInfo, node: string): boolean {
    const { key } = info;
    if (this.#entries.has(key)) return false;
    this.#place(key, { info, node, isAssumed: true, deadlineMs: undefined });
    this.#assumed.add(key);
    return true;
  }

  /** The binding was acknowledged: from now on the assumption may expire. */
  finishBinding(pod: Pod): void {
    const entry = this.#assumption(pod);
    if (entry) entry.deadlineMs = this.#clock.monotonicMs() + this.#options.assumeTtlMs;
  }

  /** The binding failed. */
  forget(pod: Pod): void {
    if (this.#assumption(pod)) this.#drop(keyOf(pod));
  }

  isAssumed(key: string): boolean {
    return this.#assumed.has(key);
  }

  /** Drops what was bound long ago and never seen; the keys dropped. */
  expire(): string[] {
    const nowMs = this.#clock.monotonicMs();
    const expired = [...this.#assumed].filter((key) => {
      const deadlineMs = this.#entries.get(key)?.deadlineMs;
      return deadlineMs !== undefined && deadlineMs <= nowMs;
    });
    for (const key of expired) this.#drop(key);
    return expired;
  }

  /** For metrics. */
  get sizes(): { readonly nodes: number; readonly pods: number; readonly assumed: number } {
    return { nodes: this.#nodes.size, pods: this.#entries.size, assumed: this.#assumed.size };
  }
  get namespaceLabels(): Snapshot["namespaceLabels"] {
    return this.#namespaceLabels;
  }

  /** Valid until the next change of this cache: nodes are shared, not copied, because a decision is made in one turn. */
  snapshot(): Snapshot {
    this.#ordered ??= zonesInTurn([...this.#nodes.values()]);
    return {
      table: this.#table,
      nodes: this.#ordered,
      byName: this.#nodes,
      namespaceLabels: this.#namespaceLabels,
      imageSpread: this.#imageSpread,
    };
  }

  /** The assumption about this very pod, not about a later one of the same name. */
  #assumption(pod: Pod): Entry | undefined {
    const entry = this.#entries.get(keyOf(pod));
    return entry?.isAssumed && entry.info.uid === uidOf(pod) ? entry : undefined;
  }

  #place(key: string, entry: Entry): void {
    this.#entries.set(key, entry);
    const node = this.#nodes.get(entry.node);
    if (node) {
      node.addPod(entry.info);
      return;
    }
    const homeless = this.#homeless.get(entry.node) ?? new Set();
    homeless.add(key);
    this.#homeless.set(entry.node, homeless);
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#entries.delete(key);
    this.#assumed.delete(key);
    this.#nodes.get(entry.node)?.removePod(key);
    const homeless = this.#homeless.get(entry.node);
    if (homeless?.delete(key) && homeless.size === 0) this.#homeless.delete(entry.node);
  }
}
