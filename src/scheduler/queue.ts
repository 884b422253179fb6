// Pods that wait for a node, each in one of four places.
//
//   add ──► active (priority, then age) ──pop──► in flight ──no node──► parked ──change that may help──┐
//    │        ▲                                      │ such a change came meanwhile, or an error       │
//    ▼        └──── backoff (1 s doubling to 10 s) ◄─┴──────────────────────────────────────────────────┘
//   gated ──its last scheduling gate goes──► active
//
// A change helps when a plugin that turned the pod down is interested in it and its hint does not say otherwise. Parked pods
// also come back by themselves after five minutes, in case a change was missed. Bounded by the number of pending pods.
// Upstream counterpart: pkg/scheduler/backend/queue with SchedulerQueueingHints.
import type { Clock } from "#base/clock.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { keyOf, uidOf } from "#model/object.ts";
import { KeyedHeap } from "./heap.ts";
import type { Change, ClusterEvent, HintView, Interest, Plugin } from "./plugins/framework.ts";
import { type PodInfo, podInfoOrLess, priorityOf } from "./pod-info.ts";

export const parkedMaxMs = 5 * 60_000;
/** Changes remembered for an attempt that takes long (extenders); beyond them the pod is tried again in any case. */
const maxChangesInFlight = 256;

export type Place = "active" | "backoff" | "unschedulable" | "gated";

export interface QueueOptions {
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
}

export interface QueueDeps {
  readonly clock: Clock;
  /** All that decide about pods of some profile. */
  readonly plugins: readonly Plugin[];
  readonly isGated: (pod: Pod) => boolean;
  /** What hints may look at. */
  readonly view?: () => HintView;
  /** A pod came to a place, for metrics. */
  readonly onMove?: (place: Place, event: string) => void;
}

interface Waiting {
  pod: Pod;
  /** First seen. */
  readonly addedMs: number;
  /** Added, or failed last: who failed goes behind its equals. */
  stampMs: number;
  /** Among those of the same moment. */
  readonly order: number;
  attempts: number;
  /** Plugins that turned it down last time. */
  rejectedBy: ReadonlySet<string>;
  /** End of the pause, for those in backoff. */
  untilMs: number;
}

interface InFlight {
  readonly waiting: Waiting;
  readonly changes: Change[];
  /** More came than are remembered. */
  isOverflown: boolean;
  /** It has a node: what changes now does not matter to it. */
  isDecided: boolean;
}

/** Says no in place of a plugin. */
export const noNodes = "(no nodes)";
/** What an extender knows nobody here does: any change may help. */
export const extenderName = "Extender";
const parkedByError: ReadonlySet<string> = new Set();

export interface Popped {
  readonly pod: Pod;
  readonly attempts: number;
  /** First seen, in the clock's monotonic time. */
  readonly addedMs: number;
}

export class SchedulingQueue {
  readonly #options: QueueOptions;
  readonly #deps: QueueDeps;
  readonly #active = new KeyedHeap<Waiting>(isBefore);
  readonly #backoff = new KeyedHeap<Waiting>(
    (a, b) => a.untilMs < b.untilMs || (a.untilMs === b.untilMs && isBefore(a, b)),
  );
  /** In the order they were parked, so the first is the first to come back. */
  readonly #parked = new Map<string, Waiting>();
  /** Rejecting plugin → keys of parked pods. */
  readonly #parkedBy = new Map<string, Set<string>>();
  readonly #gated = new Map<string, Pod>();
  readonly #inFlight = new Map<string, InFlight>();
  readonly #interests = new Map<ClusterEvent, { readonly plugin: string; readonly interest: Interest }[]>();
  #order = 0;
  #wake: () => void = () => {};
  #cancelTimer: (() => void) | undefined;

  constructor(options: QueueOptions, deps: QueueDeps) {
    this.#options = options;
    this.#deps = deps;
    for (const { name, interests } of new Map(deps.plugins.map((plugin) => [plugin.name, plugin])).values()) {
      for (const interest of interests) {
        for (const event of interest.events) {
          const list = this.#interests.get(event) ?? [];
          list.push({ plugin: name, interest });
          this.#interests.set(event, list);
        }
      }
    }
  }

  get sizes(): Readonly<Record<Place, number>> {
    return {
      active: this.#active.size + this.#inFlight.size,
      backoff: this.#backoff.size,
      unschedulable: this.#parked.size,
      gated: this.#gated.size,
    };
  }
  /** How many parked pods each plugin turned down. */
  parkedBy(): Map<string, number> {
    return new Map([...this.#parkedBy].map(([plugin, keys]) => [plugin, keys.size]));
  }

  /** A new pod, or a change of one that is known. */
  put(pod: Pod, old: Pod | undefined): void {
    const key = keyOf(pod);
    if (this.#deps.isGated(pod)) {
      const isNew = !this.#gated.has(key);
      this.remove(key);
      this.#gated.set(key, pod);
      if (isNew) this.#deps.onMove?.("gated", "UnschedulablePodAdd");
      return;
    }
    const wasGated = this.#gated.delete(key);
    const flying = this.#flying(pod);
    if (flying) {
      flying.waiting.pod = pod;
      for (const change of ownChanges(pod, old)) this.#remember(flying, change);
      return;
    }
    for (const heap of [this.#active, this.#backoff]) {
      const waiting = heap.get(key);
      if (!waiting || uidOf(waiting.pod) !== uidOf(pod)) continue;
      waiting.pod = pod;
      // The priority may be another.
      heap.set(key, waiting);
      return;
    }
    const parked = this.#parked.get(key);
    if (parked && uidOf(parked.pod) === uidOf(pod)) {
      parked.pod = pod;
      const helping = ownChanges(pod, old).find((change) => this.#helps(parked, change));
      if (helping) this.#unpark(key, parked, helping.event);
      return;
    }
    this.remove(key);
    const nowMs = this.#deps.clock.monotonicMs();
    this.#active.set(key, {
      pod,
      addedMs: nowMs,
      stampMs: nowMs,
      order: this.#order++,
      attempts: 0,
      rejectedBy: parkedByError,
      untilMs: 0,
    });
    const event = wasGated ? "UnschedulablePodUpdatePodSchedulingGatesEliminated" : "UnschedulablePodAdd";
    this.#deps.onMove?.("active", event);
    this.#wake();
  }

  remove(key: string): void {
    this.#active.delete(key);
    this.#backoff.delete(key);
    this.#takeParked(key);
    this.#gated.delete(key);
    this.#inFlight.delete(key);
  }

  /** Whether any pod would be helped by anything: else changes need not be worked out. */
  get isListening(): boolean {
    if (this.#parked.size > 0) return true;
    for (const { isDecided } of this.#inFlight.values()) if (!isDecided) return true;
    return false;
  }

  /** Something happened in the cluster: pods it may help come back. `among`: only those. */
  moved(change: Change, among?: (pod: Pod) => boolean): void {
    for (const flying of this.#inFlight.values()) this.#remember(flying, change);
    // A pod may be parked by several: each is asked once.
    const asked = new Set<string>();
    const interested = this.#interests.get(change.event) ?? [];
    const plugins = new Set([noNodes, extenderName, ...interested.map(({ plugin }) => plugin)]);
    for (const plugin of plugins) {
      const keys = this.#parkedBy.get(plugin);
      if (!keys) continue;
      for (const key of [...keys]) {
        const waiting = this.#parked.get(key);
        if (!waiting || asked.has(key) || (among && !among(waiting.pod))) continue;
        asked.add(key);
        if (this.#helps(waiting, change)) this.#unpark(key, waiting, change.event);
      }
    }
  }

  /** The most important pod; waits for one. Rejects with the signal's reason. The caller must say `done` or `failed`. */
  async pop(signal: AbortSignal): Promise<Popped> {
    for (;;) {
      signal.throwIfAborted();
      this.#bringBack();
      const waiting = this.#active.first();
      if (waiting) {
        const key = keyOf(waiting.pod);
        this.#active.delete(key);
        waiting.attempts++;
        this.#inFlight.set(key, { waiting, changes: [], isOverflown: false, isDecided: false });
        return { pod: waiting.pod, attempts: waiting.attempts, addedMs: waiting.addedMs };
      }
      await this.#wait(signal);
    }
  }

  /** A node was found; what can still go wrong is not for want of room. `done` or `failed` follows. */
  decided(pod: Pod): void {
    const flying = this.#flying(pod);
    if (flying) flying.isDecided = true;
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
    const { waiting, changes, isOverflown } = flying;
    waiting.rejectedBy = rejectedBy;
    waiting.stampMs = this.#deps.clock.monotonicMs();
    const isHelped = isOverflown || changes.some((change) => this.#helps(waiting, change));
    if (rejectedBy.size === 0 || isHelped) this.#pause(key, waiting, "ScheduleAttemptFailure");
    else {
      this.#parked.set(key, waiting);
      for (const plugin of rejectedBy) {
        const keys = this.#parkedBy.get(plugin) ?? new Set();
        keys.add(key);
        this.#parkedBy.set(plugin, keys);
      }
      this.#deps.onMove?.("unschedulable", "ScheduleAttemptFailure");
    }
    this.#wake();
  }

  /** The attempt for this very pod, not for a later one of the same name. */
  #flying(pod: Pod): InFlight | undefined {
    const flying = this.#inFlight.get(keyOf(pod));
    return flying && uidOf(flying.waiting.pod) === uidOf(pod) ? flying : undefined;
  }

  #remember(flying: InFlight, change: Change): void {
    if (flying.isDecided) return;
    if (flying.changes.length < maxChangesInFlight) flying.changes.push(change);
    else flying.isOverflown = true;
  }

  #helps(waiting: Waiting, change: Change): boolean {
    const { rejectedBy, pod } = waiting;
    if (rejectedBy.size === 0) return true;
    // Without a node at all nobody rejected anything: the first node helps.
    if (rejectedBy.has(noNodes)) return change.event === "NodeAdd";
    if (rejectedBy.has(extenderName)) return true;
    let info: PodInfo | undefined;
    for (const { plugin, interest } of this.#interests.get(change.event) ?? []) {
      if (!rejectedBy.has(plugin)) continue;
      if (!interest.hint) return true;
      info ??= podInfoOrLess(pod);
      if (this.#says(interest, info, change)) return true;
    }
    return false;
  }

  #says({ hint }: Interest, info: PodInfo, change: Change): boolean {
    try {
      return hint!(info, change, this.#deps.view?.() ?? { namespaceLabels: new Map() });
    } catch {
      // An object that cannot be read, say: as upstream, rather once too often.
      return true;
    }
  }

  #takeParked(key: string): Waiting | undefined {
    const waiting = this.#parked.get(key);
    if (!waiting) return undefined;
    this.#parked.delete(key);
    for (const plugin of waiting.rejectedBy) {
      const keys = this.#parkedBy.get(plugin);
      if (keys?.delete(key) && keys.size === 0) this.#parkedBy.delete(plugin);
    }
    return waiting;
  }

  #unpark(key: string, waiting: Waiting, event: ClusterEvent | "UnschedulableTimeout"): void {
    this.#takeParked(key);
    this.#pause(key, waiting, event);
    this.#wake();
  }

  /** The pause counts from the last attempt, so a pod that has waited long enough is tried at once. */
  #pause(key: string, waiting: Waiting, event: string): void {
    const { initialBackoffMs, maxBackoffMs } = this.#options;
    const pauseMs = Math.min(maxBackoffMs, initialBackoffMs * 2 ** Math.min(waiting.attempts - 1, 30));
    waiting.untilMs = waiting.stampMs + pauseMs;
    const isOver = waiting.untilMs <= this.#deps.clock.monotonicMs();
    (isOver ? this.#active : this.#backoff).set(key, waiting);
    this.#deps.onMove?.(isOver ? "active" : "backoff", event);
  }

  #bringBack(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (;;) {
      const waiting = this.#backoff.first();
      if (!waiting || waiting.untilMs > nowMs) break;
      const key = keyOf(waiting.pod);
      this.#backoff.delete(key);
      this.#active.set(key, waiting);
      this.#deps.onMove?.("active", "BackoffComplete");
    }
    for (const [key, waiting] of this.#parked) {
      if (waiting.stampMs + parkedMaxMs > nowMs) break;
      this.#unpark(key, waiting, "UnschedulableTimeout");
    }
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
    const { clock } = this.#deps;
    const [parked] = this.#parked.values();
    const atMs = Math.min(
      this.#backoff.first()?.untilMs ?? Number.POSITIVE_INFINITY,
      parked ? parked.stampMs + parkedMaxMs : Number.POSITIVE_INFINITY,
    );
    if (!Number.isFinite(atMs)) return;
    this.#cancelTimer = clock.after(Math.max(0, atMs - clock.monotonicMs()), () => this.#wake());
  }
}

function isBefore(a: Waiting, b: Waiting): boolean {
  const byPriority = priorityOf(b.pod) - priorityOf(a.pod);
  if (byPriority !== 0) return byPriority < 0;
  return a.stampMs !== b.stampMs ? a.stampMs < b.stampMs : a.order < b.order;
}

const sameJson = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b);

/** What has changed of a waiting pod, as plugins may be interested in it. */
function ownChanges(next: Pod, old: Pod | undefined): Change[] {
  if (!old) return [{ event: "UnschedulablePodUpdate", next }];
  const events: ClusterEvent[] = [];
  if (!sameJson(next.metadata.labels, old.metadata.labels)) events.push("UnschedulablePodUpdatePodLabel");
  if (!sameJson(next.spec.tolerations, old.spec.tolerations)) events.push("UnschedulablePodUpdatePodToleration");
  if (isScaledDown(next, old)) events.push("UnschedulablePodUpdatePodScaleDown");
  // What else of a pod can change while it waits: node selectors and affinity, when its gates go.
  if (events.length === 0 && !sameJson(next.spec, old.spec)) events.push("UnschedulablePodUpdate");
  return events.map((event) => ({ event, old, next }));
}

/** Whether a pod asks for less than before, as a resize makes it. */
export function isScaledDown(next: Pod, old: Pod): boolean {
  const isResized = next.status?.resize !== undefined || old.status?.resize !== undefined;
  if (!isResized && sameJson(next.spec.containers, old.spec.containers)) return false;
  const [before, now] = [podInfoOrLess(old).requests, podInfoOrLess(next).requests];
  for (const [name, amount] of before) if ((now.get(name) ?? 0) < amount) return true;
  return false;
}
