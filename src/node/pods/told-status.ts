// What this node says of one pod, and how far the API has heard it. What is said may be ahead of the pod that the watch brings,
// and of what the API was told while it was away; what others write beside it stays theirs, and what they write over it is put
// right. A pod from a file is told to its mirror, which may not be there yet, or be another one later.
// Counterpart: the kubelet's status manager.
import { isDeepStrictEqual } from "node:util";
import type { Pod, PodStatus } from "#model/gen/core-v1.ts";
import { pods } from "#model/resources.ts";
import { isConflict, isNotFound } from "#model/status.ts";
import { saysAway } from "../remembered/reach.ts";
import { BackOff } from "./back-off.ts";
import type { PodContext } from "./context.ts";
import { statusPatch } from "./status-patch.ts";

/** After a try that did not reach the API. */
const retryMs = { initialMs: 1_000, maxMs: 60_000 } as const;

export interface ToldStatusOptions {
  readonly uid: string;
  /** As the watch brought it last. */
  readonly pod: () => Pod;
  /** The pod comes from a file, and the API shows it under that uid; undefined while it does not. */
  readonly mirrorUid?: (() => string | undefined) | undefined;
  /** What this node said of the pod before it went down, where the API has not heard of it. */
  readonly known?: PodStatus | undefined;
}

export type ToldStatusDeps = Pick<PodContext, "client" | "clock" | "remember">;

export class ToldStatus {
  readonly #options: ToldStatusOptions;
  readonly #deps: ToldStatusDeps;
  #told: PodStatus | undefined;
  /** What the API took last, in this run of the agent. */
  #acknowledged: PodStatus | undefined;
  /** The API could not be told: to be tried again. */
  #isUntold = false;
  /** What is being told, or was told last: to know it again when the watch brings it back. */
  #telling: PodStatus | undefined;
  /** Uid of the object that was told last, and the version it got by that. */
  #toldTo: string | undefined;
  #toldVersion: string | undefined;
  readonly #retries = new BackOff(retryMs);

  constructor(options: ToldStatusOptions, deps: ToldStatusDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#told = options.known;
  }

  /** What was said last; where somebody else has counted the pod as ended since, that is final. */
  get current(): PodStatus | undefined {
    const { status } = this.#options.pod();
    if (!this.#told || !isFinal(status) || isFinal(this.#told)) return this.#told ?? status;
    const { phase, reason, message } = status;
    return {
      ...this.#told,
      phase,
      ...(reason === undefined ? {} : { reason }),
      ...(message === undefined ? {} : { message }),
    };
  }

  /** The same with the conditions of other writers as they are now. */
  get merged(): PodStatus {
    const told = this.current;
    const { status } = this.#options.pod();
    if (!told) return status ?? {};
    return {
      ...told,
      conditions: [...(told.conditions ?? []).filter((c) => ownConditions.has(c.type)), ...foreign(status)],
    };
  }

  /** A final word is the last, but for the ends of what still ran when somebody else had it. */
  get isLast(): boolean {
    const last = this.#acknowledged ?? this.#options.pod().status;
    return isFinal(last) && !this.#isNewTarget(this.#target()) && !hasRunning(last);
  }

  /** The watch brings back what this node has told itself, and nothing else. */
  isEcho(before: Pod, pod: Pod): boolean {
    const [told, status] = [this.#telling, pod.status];
    if (!told || !status || this.#options.mirrorUid || pod.metadata.generation !== before.metadata.generation) {
      return false;
    }
    return (
      isDeepStrictEqual(facts(before), facts(pod)) &&
      isDeepStrictEqual(pod.spec, before.spec) &&
      isDeepStrictEqual(foreign(before.status), foreign(status)) &&
      statusPatch(status, told) === undefined
    );
  }

  /** What the API could not be told is tried again with growing pauses: the shorter of that one and `pauseMs`. */
  pauseMs(pauseMs: number): number {
    if (!this.#isUntold) return pauseMs;
    const nowMs = this.#deps.clock.now();
    this.#retries.next("", nowMs, nowMs);
    return Math.min(pauseMs, this.#retries.delayMs("", nowMs));
  }

  /** The API is back: whether there is something to tell it. */
  isDue(): boolean {
    if (this.#isUntold) this.#retries.forget("");
    return this.#isUntold;
  }

  /** Notes the pod with the status that it has now, for a boot that hears nothing of the API. */
  remember(pod: Pod): void {
    if (!this.#options.mirrorUid) this.#deps.remember(pod);
  }

  async tell(status: PodStatus): Promise<void> {
    const { client } = this.#deps;
    const pod = this.#options.pod();
    this.remember({ ...pod, status });
    const target = this.#target();
    if (target === undefined) {
      // Told once there is something to tell it to.
      this.#told = status;
      this.#toldTo = "";
      return;
    }
    const patch = statusPatch(this.#isNewTarget(target) ? {} : this.#known(), status);
    if (!patch) {
      this.#isUntold = false;
      return;
    }
    this.#telling = status;
    const object = { name: pod.metadata.name ?? "", namespace: pod.metadata.namespace };
    try {
      const answer = await client.patch(
        pods,
        object,
        { metadata: { uid: target }, status: patch },
        { subresource: "status", type: "application/strategic-merge-patch+json" },
      );
      this.#told = status;
      this.#acknowledged = status;
      this.#isUntold = false;
      this.#toldTo = target;
      this.#toldVersion = answer.metadata.resourceVersion;
      this.#retries.forget("");
    } catch (error) {
      // The object is gone or another took its name: the watch will say so.
      if (isNotFound(error) || isConflict(error)) return;
      if (!saysAway(error)) throw error;
      // Nobody to tell it to must keep no container from its restart.
      this.#told = status;
      this.#isUntold = true;
    }
  }

  #target(): string | undefined {
    const { uid, mirrorUid } = this.#options;
    return mirrorUid ? mirrorUid() : uid;
  }

  #isNewTarget(target: string | undefined): boolean {
    return this.#toldTo !== undefined && target !== undefined && this.#toldTo !== target;
  }

  /**
   * The status that the API has: what was told, until the watch has brought that back or something newer. Others may have
   * written since (a node that was silent has its pods marked unready), and what is ours is put right again.
   */
  #known(): PodStatus {
    const { status = {}, metadata } = this.#options.pod();
    const said = this.#acknowledged;
    if (!said || this.#options.mirrorUid) return said ?? status;
    const [seen, told] = [metadata.resourceVersion, this.#toldVersion];
    return seen === told || Number(seen) > Number(told) ? status : said;
  }
}

const isFinal = (status: PodStatus | undefined): status is PodStatus & { readonly phase: string } =>
  status?.phase === "Succeeded" || status?.phase === "Failed";

const hasRunning = ({ containerStatuses = [], initContainerStatuses = [] }: PodStatus): boolean =>
  [...containerStatuses, ...initContainerStatuses].some(({ state }) => state?.running !== undefined);

/** What of an object's metadata a pod is made by, or shows in its volumes. */
const facts = ({ metadata: { labels, annotations, deletionTimestamp, uid } }: Pod) => ({
  ...{ labels, annotations, deletionTimestamp, uid },
});

const ownConditions = new Set(["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"]);
const foreign = (status: PodStatus | undefined) => (status?.conditions ?? []).filter((c) => !ownConditions.has(c.type));
