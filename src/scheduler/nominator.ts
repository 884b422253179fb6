// Which pods are promised room on which node while others leave it. No more than there are pending pods.
// Upstream counterpart: backend/queue/nominator.go.
import type { PodInfo } from "./pod-info.ts";

const nobody: readonly PodInfo[] = [];

export class Nominator {
  readonly #nodeOf = new Map<string, string>();
  readonly #byNode = new Map<string, readonly PodInfo[]>();

  /** Replaces an earlier promise to the pod. */
  add(info: PodInfo, node: string): void {
    this.delete(info.key);
    this.#nodeOf.set(info.key, node);
    this.#byNode.set(node, [...this.on(node), info]);
  }

  delete(key: string): boolean {
    const node = this.#nodeOf.get(key);
    if (node === undefined) return false;
    this.#nodeOf.delete(key);
    const rest = this.on(node).filter((info) => info.key !== key);
    if (rest.length > 0) this.#byNode.set(node, rest);
    else this.#byNode.delete(node);
    return true;
  }

  on(node: string): readonly PodInfo[] {
    return this.#byNode.get(node) ?? nobody;
  }
}
