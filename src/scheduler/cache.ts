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
import { imageSpreadOf, NodeInfo, occupiesNode, type Snapshot } from "./snapshot.ts";

interface Entry {
  pod: Pod;
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
  readonly #nodes = new Map<string, NodeInfo>();
  /** Pods on nodes that are not known (yet): counted when the node appears. */
  readonly #entries = new Map<string, Entry>();
  readonly #assumed = new Set<string>();
  readonly #namespaceLabels = new Map<string, Readonly<Record<string, string>>>();
  #imageSpread: Map<string, number> | undefined;

  constructor(options: CacheOptions, deps: { readonly clock: Clock }) {
    this.#options = options;
    this.#clock = deps.clock;
  }

  setNode(node: Node): void {
    const name = nameOf(node);
    this.#imageSpread = undefined;
    const known = this.#nodes.get(name);
    if (known) {
      known.setNode(node);
      return;
    }
    const info = new NodeInfo(node);
    this.#nodes.set(name, info);
    for (const entry of this.#entries.values()) if (entry.node === name) info.addPod(entry.pod);
  }

  removeNode(name: string): void {
    this.#imageSpread = undefined;
    this.#nodes.delete(name);
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
      if (entry?.isAssumed && uidOf(entry.pod) === uidOf(pod) && !pod.spec.nodeName) return;
      this.#drop(key);
      return;
    }
    this.#drop(key);
    this.#place(key, { pod, node: pod.spec.nodeName ?? "", isAssumed: false, deadlineMs: undefined });
  }

  removePod(key: string): void {
    this.#drop(key);
  }

  /** Counts the pod on the node before the API knows. False where it already counts somewhere. */
  assume(pod: Pod, node: string): boolean {
    const key = keyOf(pod);
    if (this.#entries.has(key)) return false;
    this.#place(key, { pod, node, isAssumed: true, deadlineMs: undefined });
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

  get nodeCount(): number {
    return this.#nodes.size;
  }

  /** Valid until the next change of this cache: nodes are shared, not copied, because a decision is made in one turn. */
  snapshot(): Snapshot {
    const nodes = [...this.#nodes.values()];
    this.#imageSpread ??= imageSpreadOf(nodes);
    return { nodes, namespaceLabels: this.#namespaceLabels, imageSpread: this.#imageSpread };
  }

  /** The assumption about this very pod, not about a later one of the same name. */
  #assumption(pod: Pod): Entry | undefined {
    const entry = this.#entries.get(keyOf(pod));
    return entry?.isAssumed && uidOf(entry.pod) === uidOf(pod) ? entry : undefined;
  }

  #place(key: string, entry: Entry): void {
    this.#entries.set(key, entry);
    this.#nodes.get(entry.node)?.addPod(entry.pod);
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#entries.delete(key);
    this.#assumed.delete(key);
    this.#nodes.get(entry.node)?.removePod(key);
  }
}
