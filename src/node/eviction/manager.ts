// Watches what the node runs short of and ends pods before the kernel or a full disk does: every ten seconds, every second when
// a threshold is near. Disk is first won back from dead containers and unused images; then one pod goes at a time, and the
// next look waits until its end shows. Limits that pods set on their own local storage are kept here as well.
// Counterpart: pkg/kubelet/eviction.

import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Counter, Metrics } from "#base/metrics.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { fileSystemSize } from "#platform/folders.ts";
import { processCounts } from "#platform/machine.ts";
import type { NodeConfiguration } from "../configuration.ts";
import { readMachineUsage } from "../stats/kernel.ts";
import type { PodUsage } from "../stats/usage.ts";
import { decidePressure, noPressure, type PressureState } from "./decision.ts";
import {
  type Candidate,
  evictionMessage,
  hasStorageLimit,
  isCriticalPod,
  rank,
  storageLimitMessage,
} from "./ranking.ts";
import {
  nearest,
  type Observations,
  observationsOf,
  type PressureCondition,
  signalFacts,
  type Threshold,
} from "./signals.ts";

export interface EvictionDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly configuration: NodeConfiguration;
  /** File systems of pods and of images. */
  readonly nodeFolder: string;
  readonly imageFolder: string;
  /** Pods that run here and have not ended. */
  readonly pods: () => readonly Pod[];
  readonly usageOf: (wanted: (pod: Pod) => boolean) => Promise<readonly PodUsage[]>;
  /** Ends the pod with this message; resolves when nothing of it runs any more. */
  readonly evict: (pod: Pod, message: string, graceSeconds: number) => Promise<void>;
  /** Frees disk without ending pods: dead containers, unused images. */
  readonly reclaimDisk: () => Promise<void>;
  readonly warn: (reason: string, message: string) => void;
  /** The node's conditions have changed. */
  readonly onConditions: () => void;
  /** For tests; default asks the machine. */
  readonly observe?: () => Promise<Observations>;
}

const checkMs = 10_000;
const nearCheckMs = 1_000;
/** Below so many times a threshold it is looked at more often. */
const nearRatio = 2;
/** Walking folders costs; local storage limits are checked at this pace. */
const storageCheckMs = 30_000;
/** An ended pod's memory and disk take a moment to come back. */
const settleMs = 2_000;
const maxEndMs = 30_000;
/** What a hard eviction leaves a pod. */
const immediateGraceSeconds = 1;

export class EvictionManager {
  readonly #deps: EvictionDeps;
  readonly #evictions: Counter;
  #state: PressureState = noPressure;
  #conditions: ReadonlySet<PressureCondition> = new Set();
  #storageCheckedMs = 0;
  /** Thresholds that people have been told of, until they are over. */
  readonly #said = new Set<Threshold>();

  constructor(deps: EvictionDeps) {
    this.#deps = deps;
    this.#evictions = deps.metrics.counter(
      "kubelet_evictions",
      "Cumulative number of pod evictions by eviction signal",
    );
  }

  /** Conditions the node shows now. */
  get conditions(): ReadonlySet<PressureCondition> {
    return this.#conditions;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    while (!signal.aborted) {
      let pauseMs = checkMs;
      try {
        pauseMs = await this.look(signal);
      } catch (error) {
        if (signal.aborted) return;
        // The next look starts from what is there then.
        log.warn("cannot check the node's resources, retrying", { error: messageOf(error) });
      }
      await pause(clock, pauseMs, signal);
    }
  }

  /** One look; the pause before the next. */
  async look(signal: AbortSignal): Promise<number> {
    const { clock, configuration } = this.#deps;
    const thresholds = [...configuration.evictionHard, ...configuration.evictionSoft];
    if (clock.monotonicMs() - this.#storageCheckedMs >= storageCheckMs || this.#storageCheckedMs === 0) {
      this.#storageCheckedMs = clock.monotonicMs();
      if (await this.#enforceStorageLimits()) return settleMs;
    }
    const seen = await this.#observe();
    const decision = decidePressure(
      thresholds,
      seen,
      this.#state,
      clock.monotonicMs(),
      configuration.evictionPressureTransitionPeriodMs,
    );
    this.#state = decision.state;
    this.#show(decision.conditions);
    for (const t of this.#said) if (!decision.act.includes(t)) this.#said.delete(t);
    const [first] = decision.act;
    if (first) return (await this.#relieve(first, seen, signal)) ? settleMs : checkMs;
    return nearest(thresholds, seen) < nearRatio ? nearCheckMs : checkMs;
  }

  /** Why a new pod must not start now; undefined when it may. */
  refusal(pod: Pod): { readonly reason: string; readonly message: string } | undefined {
    if (this.#conditions.size === 0 || isCriticalPod(pod)) return undefined;
    const names = [...this.#conditions];
    if (names.length === 1 && names[0] === "MemoryPressure") {
      const requests = [...(pod.spec.containers ?? []), ...(pod.spec.initContainers ?? [])].some((c) =>
        Object.keys({ ...c.resources?.requests, ...c.resources?.limits }).some((n) => n === "cpu" || n === "memory"),
      );
      const tolerates = (pod.spec.tolerations ?? []).some(
        (t) =>
          (!t.key || t.key === "node.kubernetes.io/memory-pressure") &&
          (!t.effect || t.effect === "NoSchedule") &&
          (t.operator === "Exists" || t.key !== undefined),
      );
      if (requests || tolerates) return undefined;
    }
    return { reason: "Evicted", message: `Pod was rejected: The node had condition: [${names.join(" ")}]. ` };
  }

  #show(conditions: ReadonlySet<PressureCondition>): void {
    const before = this.#conditions;
    this.#conditions = conditions;
    const isSame = before.size === conditions.size && [...conditions].every((c) => before.has(c));
    if (!isSame) this.#deps.onConditions();
  }

  /** True when something was won back, or a pod ended. */
  async #relieve(threshold: Threshold, seen: Observations, signal: AbortSignal): Promise<boolean> {
    const { configuration, log, warn } = this.#deps;
    const { resource, condition } = signalFacts[threshold.signal];
    const isNew = !this.#said.has(threshold);
    this.#said.add(threshold);
    if (isNew) warn("EvictionThresholdMet", `Attempting to reclaim ${resource}`);
    if (condition === "DiskPressure") {
      await this.#deps.reclaimDisk();
      const now = await this.#observe();
      const decision = decidePressure([threshold], now, this.#state, this.#deps.clock.monotonicMs(), 0);
      if (!decision.act.some((t) => t.signal === threshold.signal)) return true;
    }
    const pods = this.#deps.pods();
    const usage = new Map((await this.#deps.usageOf(() => true)).map((u) => [u.uid, u]));
    const candidates = rank(
      pods.map((pod) => ({ pod, usage: usage.get(pod.metadata.uid ?? "") })),
      threshold.signal,
    );
    const [first] = candidates;
    if (!first || signal.aborted) {
      if (isNew) log.warn("nothing can be evicted", { resource });
      return false;
    }
    const own = graceSecondsOf(first.pod);
    const grace =
      threshold.kind === "hard" ? immediateGraceSeconds : Math.min(configuration.evictionMaxPodGracePeriodSeconds, own);
    await this.#evict(first, evictionMessage(threshold, seen.get(threshold.signal), first), grace, threshold.signal);
    return true;
  }

  async #enforceStorageLimits(): Promise<boolean> {
    const limited = this.#deps.pods().filter(hasStorageLimit);
    if (limited.length === 0) return false;
    const uids = new Set(limited.map((pod) => pod.metadata.uid));
    const usage = new Map((await this.#deps.usageOf((pod) => uids.has(pod.metadata.uid))).map((u) => [u.uid, u]));
    let any = false;
    for (const pod of limited) {
      const used = usage.get(pod.metadata.uid ?? "");
      const message = used && storageLimitMessage(pod, used);
      if (!message) continue;
      any = true;
      await this.#evict({ pod, usage: used }, message, immediateGraceSeconds, "ephemeral-storage-limit");
    }
    return any;
  }

  async #evict({ pod }: Candidate, message: string, graceSeconds: number, why: string): Promise<void> {
    const { clock, log, evict } = this.#deps;
    log.warn("evicting a pod", { namespace: pod.metadata.namespace, pod: pod.metadata.name, why, message });
    this.#evictions.add(1, { eviction_signal: why });
    const limit = new AbortController();
    const end = evict(pod, message, graceSeconds).finally(() => limit.abort());
    await Promise.race([end, pause(clock, maxEndMs, limit.signal)]);
  }

  async #observe(): Promise<Observations> {
    if (this.#deps.observe) return this.#deps.observe();
    const [node, image, pids] = await Promise.all([
      fileSystemSize(this.#deps.nodeFolder),
      fileSystemSize(this.#deps.imageFolder),
      processCounts(),
    ]);
    return observationsOf({ memory: readMachineUsage(), node, image, pids });
  }
}
