// Pods that wait for a node, each in one of three places.
//
//   add ──► active (priority, then age) ──pop──► in flight ──no node──► parked ──event of interest──┐
//             ▲                                      │ event came meanwhile, or the bind failed     │
//             └──── backoff (1 s doubling to 10 s) ◄─┴──────────────────────────────────────────────┘
//
// Parked pods also come back by themselves after five minutes, in case an event was missed. Bounded by the number of
// pending pods. Upstream counterpart: pkg/scheduler/backend/queue.
import type { Clock } from "#base/clock.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { keyOf, uidOf } from "#model/object.ts";
import type { ClusterEvent, Plugin } from "./plugins/framework.ts";

export const backoffMinMs = 1000;
export const backoffMaxMs = 10_000;
export const parkedMaxMs = 5 * 60_000;

interface Waiting {
  pod: Pod;
  readonly addedMs: number;
  attempts: number;
  /** Plugins that turned it down last time. */
  rejectedBy: ReadonlySet<string>;
  /** End of the pause (backoff) or start of the wait (parked). */
  sinceMs: number;
}

export class SchedulingQueue {
  readonly #clock: Clock;
  /** Plugin name → events that may change its mind. */
  readonly #events: ReadonlyMap<string, readonly ClusterEvent[]>;
  readonly #active = new Map<string, Waiting>();
  readonly #backoff = new Map<string, Waiting>();
  readonly #parked = new Map<string, Waiting>();
  readonly #inFlight = new Map<string, Waiting & { events: Set<ClusterEvent>; isChanged: boolean }>();
  #wake: () => void = () => {};
  #cancelTimer: (() => void) | undefined;

  constructor(plugins: readonly Plugin[], deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
    this.#events = new Map(plugins.map((plugin) => [plugin.name, plugin.events]));
  }

  /** Pods in all places, in flight ones included. */
  get size(): number {
    return this.#active.size + this.#backoff.size + this.#parked.size + this.#inFlight.size;
  }

  /** A new pod, or one whose spec or labels changed: a changed pod is worth another try. */
  put(pod: Pod, change: { readonly isRelevant: boolean }): void {
    const key = keyOf(pod);
    const flying = this.#flying(pod);
    if (flying) {
      flying.pod = pod;
      flying.isChanged ||= change.isRelevant;
      return;
    }
    for (const place of [this.#active, this.#backoff]) {
      const waiting = place.get(key);
      if (waiting && uidOf(waiting.pod) === uidOf(pod)) {
        waiting.pod = pod;
        return;
      }
    }
    const parked = this.#parked.get(key);
    if (parked && uidOf(parked.pod) === uidOf(pod)) {
      parked.pod = pod;
      if (change.isRelevant) this.#unpark(key, parked);
      return;
    }
    this.remove(key);
    const nowMs = this.#clock.monotonicMs();
    this.#active.set(key, { pod, addedMs: nowMs, attempts: 0, rejectedBy: new Set(), sinceMs: nowMs });
    this.#wake();
  }

  remove(key: string): void {
    this.#active.delete(key);
    this.#backoff.delete(key);
    this.#parked.delete(key);
    this.#inFlight.delete(key);
  }

  /** Something happened in the cluster: pods it may help come back. */
  moved(event: ClusterEvent): void {
    for (const flying of this.#inFlight.values()) flying.events.add(event);
    for (const [key, waiting] of this.#parked) if (this.#helps(waiting, event)) this.#unpark(key, waiting);
  }

  /** The most important pod; waits for one. Rejects with the signal's reason. The caller must say `done` or `failed`. */
  async pop(signal: AbortSignal): Promise<Pod> {
    for (;;) {
      signal.throwIfAborted();
      this.#bringBack();
      const first = this.#first();
      if (first) {
        const [key, waiting] = first;
        this.#active.delete(key);
        waiting.attempts++;
        this.#inFlight.set(key, { ...waiting, events: new Set(), isChanged: false });
        return waiting.pod;
      }
      await this.#wait(signal);
    }
  }

  /** Bound, or no longer ours. */
  done(pod: Pod): void {
    if (this.#flying(pod)) this.#inFlight.delete(keyOf(pod));
  }

  /** No node (with the plugins that said so), or an error (no plugins): which is tried again after a pause. */
  failed(pod: Pod, rejectedBy: ReadonlySet<string>): void {
    const key = keyOf(pod);
    const flying = this.#flying(pod);
    if (!flying) return;
    this.#inFlight.delete(key);
    const { events, isChanged, ...rest } = flying;
    const waiting: Waiting = { ...rest, rejectedBy, sinceMs: this.#clock.monotonicMs() };
    const isHelped = isChanged || [...events].some((event) => this.#helps(waiting, event));
    if (rejectedBy.size === 0 || isHelped) this.#pause(key, waiting);
    else this.#parked.set(key, waiting);
    this.#wake();
  }

  /** The attempt for this very pod, not for a later one of the same name. */
  #flying(pod: Pod) {
    const flying = this.#inFlight.get(keyOf(pod));
    return flying && uidOf(flying.pod) === uidOf(pod) ? flying : undefined;
  }

  #helps(waiting: Waiting, event: ClusterEvent): boolean {
    // Without a node at all nobody rejected anything: the first node helps.
    if (waiting.rejectedBy.has(noNodes)) return event === "nodeAdded";
    for (const plugin of waiting.rejectedBy) if (this.#events.get(plugin)?.includes(event)) return true;
    return false;
  }

  #unpark(key: string, waiting: Waiting): void {
    this.#parked.delete(key);
    this.#pause(key, waiting);
    this.#wake();
  }

  /** The pause counts from the last attempt, so a pod that has waited long enough is tried at once. */
  #pause(key: string, waiting: Waiting): void {
    const pauseMs = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(waiting.attempts - 1, 10));
    const untilMs = waiting.sinceMs + pauseMs;
    if (untilMs <= this.#clock.monotonicMs()) {
      this.#active.set(key, waiting);
      return;
    }
    this.#backoff.set(key, { ...waiting, sinceMs: untilMs });
  }

  #bringBack(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [key, waiting] of this.#backoff) {
      if (waiting.sinceMs > nowMs) continue;
      this.#backoff.delete(key);
      this.#active.set(key, waiting);
    }
    for (const [key, waiting] of this.#parked) {
      if (waiting.sinceMs + parkedMaxMs > nowMs) continue;
      this.#parked.delete(key);
      this.#active.set(key, waiting);
    }
  }

  #first(): [string, Waiting] | undefined {
    let best: [string, Waiting] | undefined;
    for (const entry of this.#active) if (!best || isBefore(entry[1], best[1])) best = entry;
    return best;
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort, { once: true });
    this.#setTimer();
    try {
      await woken;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#cancelTimer?.();
      this.#cancelTimer = undefined;
      this.#wake = () => {};
    }
  }

  /** One timer for the earliest return; only while somebody waits in `pop`. */
  #setTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    let atMs = Number.POSITIVE_INFINITY;
    for (const { sinceMs } of this.#backoff.values()) atMs = Math.min(atMs, sinceMs);
    for (const { sinceMs } of this.#parked.values()) atMs = Math.min(atMs, sinceMs + parkedMaxMs);
    if (!Number.isFinite(atMs)) return;
    this.#cancelTimer = this.#clock.after(Math.max(0, atMs - this.#clock.monotonicMs()), () => this.#wake());
  }
}

/** Stands among the rejecting plugins when there was no node to ask. */
export const noNodes = "(no nodes)";

function isBefore(a: Waiting, b: Waiting): boolean {
  const byPriority = (b.pod.spec.priority ?? 0) - (a.pod.spec.priority ?? 0);
  return byPriority !== 0 ? byPriority < 0 : a.addedMs < b.addedMs;
}
