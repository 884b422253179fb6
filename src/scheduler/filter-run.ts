// One pod asked about node after node: all filters of its profile prepared once, and told when pods are thought onto nodes
// or away from them. Thinking changes the nodes themselves and is always undone before the turn of the event loop ends, so
// that a decision among thousands of nodes copies none. Upstream counterpart: RunPreFilterPlugins,
// RunFilterPluginsWithNominatedPods, PreFilterExtensions.
import type { PreparedFilter, Rejection } from "./plugins/framework.ts";
import type { PodInfo } from "./pod-info.ts";
import type { Profile } from "./profile.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export interface NodeRejection extends Rejection {
  readonly plugin: string;
}

/** Pods that are promised room on a node. */
export type Nominated = (node: string) => readonly PodInfo[];

const nobody: readonly PodInfo[] = [];

export class FilterRun {
  /** No node will do. */
  readonly reject: NodeRejection | undefined;
  /** The only nodes that come into question, and who says so. */
  readonly only: { readonly names: ReadonlySet<string>; readonly plugins: readonly string[] } | undefined;
  readonly #pod: PodInfo;
  readonly #nominated: Nominated;
  readonly #checks: { readonly plugin: string; readonly check: NonNullable<PreparedFilter["check"]> }[] = [];
  readonly #moved: NonNullable<PreparedFilter["moved"]>[] = [];
  /** A node is turned down by a handful of rejections; each is wrapped once. */
  readonly #wrapped = new Map<Rejection, NodeRejection>();

  constructor(pod: PodInfo, snapshot: Snapshot, profile: Profile, nominated: Nominated = () => nobody) {
    this.#pod = pod;
    this.#nominated = nominated;
    let names: ReadonlySet<string> | undefined;
    const plugins: string[] = [];
    for (const { plugin, rejects, checks } of profile.filters) {
      const prepared = plugin.filter!(pod, snapshot);
      if (rejects && prepared.reject) {
        this.reject = { plugin: plugin.name, ...prepared.reject };
        return;
      }
      if (rejects && prepared.only) {
        const { only } = prepared;
        names = names ? new Set([...names].filter((name) => only.has(name))) : only;
        plugins.push(plugin.name);
      }
      if (checks && prepared.check) this.#checks.push({ plugin: plugin.name, check: prepared.check });
      if (prepared.moved) this.#moved.push(prepared.moved);
    }
    if (names) this.only = { names, plugins };
  }

  /** Why the pod does not fit there: with those that are promised room on it, and without them as well. */
  rejectionOn(node: NodeInfo): NodeRejection | undefined {
    const promised = this.#nominated(node.name);
    if (promised.length === 0) return this.#check(node);
    const guests = promised.filter(
      ({ key, priority }) => key !== this.#pod.key && priority >= this.#pod.priority && !node.pods.has(key),
    );
    for (const guest of guests) this.move(guest, node, 1);
    let rejection: NodeRejection | undefined;
    try {
      rejection = this.#check(node);
    } finally {
      for (const guest of guests) this.move(guest, node, -1);
    }
    return rejection ?? (guests.length > 0 ? this.#check(node) : undefined);
  }

  /** Thinks a pod onto a node (1) or away from it (-1); whoever calls this undoes it. */
  move(other: PodInfo, node: NodeInfo, by: 1 | -1): void {
    if (by === 1) node.addPod(other);
    else node.removePod(other.key);
    for (const moved of this.#moved) moved(other, node, by);
  }

  #check(node: NodeInfo): NodeRejection | undefined {
    for (const { plugin, check } of this.#checks) {
      const rejection = check(node);
      if (!rejection) continue;
      let wrapped = this.#wrapped.get(rejection);
      if (!wrapped) {
        wrapped = { plugin, ...rejection };
        // Some filters make theirs anew each time; those are not worth remembering without end.
        if (this.#wrapped.size < 100) this.#wrapped.set(rejection, wrapped);
      }
      return wrapped;
    }
    return undefined;
  }
}
