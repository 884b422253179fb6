// How large one pod is here, and on its way to: what it has been allocated, why it waits for more, which of its containers
// were ended to come back larger or smaller. The worker asks before each round and tells what it did; the decisions are
// resize.ts's, the work is actuate.ts's.
import { messageOf } from "#base/errors.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { actuate, type ContainerUpdate } from "./actuate.ts";
import { BackOff } from "./back-off.ts";
import type { PodContext } from "./context.ts";
import type { ObservedContainer, PodObservation, RuntimeLimits } from "./observation.ts";
import { podLabel } from "./plan.ts";
import {
  type Allocation,
  askedFor,
  changedContainers,
  frees,
  recalledAllocation,
  sameAllocation,
  type Verdict,
  withAllocation,
} from "./resize.ts";
import { podLimits } from "./resources.ts";

/** After a resize that something is in the way of, as memory in use above its new limit. */
const retryMs = { initialMs: 2_000, maxMs: 60_000 } as const;

export interface PodSizesDeps {
  readonly uid: string;
  readonly context: Pick<
    PodContext,
    "canResize" | "allocations" | "judgeResize" | "retryResizes" | "cri" | "maxPids" | "podsCgroup" | "clock" | "log"
  >;
  readonly warn: (reason: string, message: string) => void;
  /** Nothing is held against a container that gets other resources: failed starts were those of another one. */
  readonly changed: (containerName: string) => void;
}

export class PodSizes {
  readonly #deps: PodSizesDeps;
  /** What the node gives the pod: what it asks for, but while a change of that waits. Unknown until first looked at. */
  #allocation: Allocation | undefined;
  #waitsFor: Extract<Verdict, { fits: false }> | undefined;
  /** By container id: what the runtime took of this agent. */
  readonly #limits = new Map<string, RuntimeLimits>();
  /** Ids of containers that were ended to come back with other resources. */
  readonly #restarting = new Set<string>();
  /** Limits that the cgroup of the pod was given last, as text. */
  #cgroup = "";
  #holdUntilMs = 0;
  readonly #retries = new BackOff(retryMs);

  constructor(deps: PodSizesDeps) {
    this.#deps = deps;
  }

  /** The pod with the resources that it has been allocated. */
  allocated(pod: Pod): Pod {
    return this.#allocation ? withAllocation(pod, this.#allocation) : pod;
  }

  /** Whether it asks for more than there is room for now. */
  get isWaitingToGrow(): boolean {
    return this.#waitsFor?.status === "Deferred";
  }

  /** Before this a resize is not tried again. */
  get holdUntilMs(): number {
    return this.#holdUntilMs;
  }

  /** `pod` is as allocated. */
  isCgroupStale(pod: Pod): boolean {
    return this.#deps.context.canResize && limitsText(pod) !== this.#cgroup;
  }

  cgroupMade(pod: Pod): void {
    this.#cgroup = limitsText(pod);
  }

  willRestart(containerId: string): void {
    this.#restarting.add(containerId);
  }

  /** What is seen, with what this agent knows of it. */
  known(observed: PodObservation): PodObservation {
    const ids = new Set(observed.containers.map((c) => c.id));
    for (const id of this.#limits.keys()) if (!ids.has(id)) this.#limits.delete(id);
    for (const id of this.#restarting) if (!ids.has(id)) this.#restarting.delete(id);
    if (this.#limits.size === 0 && this.#restarting.size === 0) return observed;
    const containers = observed.containers.map((c): ObservedContainer => {
      const limits = this.#limits.get(c.id);
      return {
        ...c,
        ...(limits ? { limits } : {}),
        ...(this.#restarting.has(c.id) ? { mustRestart: true } : {}),
      };
    });
    return { ...observed, containers };
  }

  /** Gives the pod what it asks for, where it may have that. */
  async allocate(pod: Pod, observed: PodObservation): Promise<void> {
    const { uid, context, warn, changed } = this.#deps;
    if (!context.canResize) return;
    this.#allocation ??= context.allocations.get(uid) ?? recalledAllocation(pod, observed);
    const [before, asked] = [this.#allocation, askedFor(pod)];
    if (sameAllocation(asked, before)) {
      this.#waitsFor = undefined;
      return;
    }
    const verdict = context.judgeResize(pod);
    if (!verdict.fits) {
      const known = this.#waitsFor;
      this.#waitsFor = verdict;
      if (known?.message !== verdict.message) warn(`Resize${verdict.status}`, verdict.message);
      return;
    }
    // At once, so that nobody else is given the same room while it is written down.
    this.#allocation = asked;
    this.#waitsFor = undefined;
    this.#holdUntilMs = 0;
    try {
      await context.allocations.set(uid, asked);
    } catch (error) {
      this.#allocation = before;
      throw error;
    }
    for (const name of changedContainers(asked, before)) changed(name);
    if (frees(asked, before)) context.retryResizes();
  }

  /** `pod` is as allocated. What is in the way for now is said and tried again later; the pod goes on meanwhile. */
  async resize(pod: Pod, updates: readonly ContainerUpdate[]): Promise<void> {
    const { cri, maxPids, podsCgroup, clock, log } = this.#deps.context;
    try {
      const changed = (id: string, limits: RuntimeLimits) => this.#limits.set(id, limits);
      await actuate(pod, updates, { cri, maxPids, podsCgroup, changed });
      this.cgroupMade(pod);
      this.#retries.forget("");
    } catch (error) {
      const nowMs = clock.now();
      this.#retries.next("", nowMs, nowMs);
      this.#holdUntilMs = nowMs + this.#retries.delayMs("", nowMs);
      log.warn("cannot resize a pod yet, trying again", { pod: podLabel(pod), error: messageOf(error) });
    }
  }

  /** status.resize of a pod that asks for what `pod` does; `resizing`: containers do not have all that is allocated. */
  status(pod: Pod, resizing: boolean): string | undefined {
    if (this.#waitsFor) return this.#waitsFor.status;
    // Changed since it was looked at last.
    if (this.#allocation && !sameAllocation(askedFor(pod), this.#allocation)) return "Proposed";
    return resizing ? "InProgress" : undefined;
  }
}

const limitsText = (pod: Pod): string => JSON.stringify(podLimits(pod));
