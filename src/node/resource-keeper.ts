// Keeps the node's resources: what it has and gives, who may start, what is short, which pods and images go. Joins capacity,
// eviction and image collection for the agent, which only sees this. Counterpart: the parts of the kubelet around its
// container manager.
import { type Clock, pause } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Node, Pod } from "#model/gen/core-v1.ts";
import { uidOf } from "#model/object.ts";
import { fileSystemSize } from "#platform/folders.ts";
import { type Machine, processCounts } from "#platform/machine.ts";
import { type Amounts, allocatableOf, capacityOf, victimsFor } from "./capacity.ts";
import { applyNodeCgroups } from "./cgroups.ts";
import { type NodeConfiguration, podsCgroupOf } from "./configuration.ts";
import type { Cri } from "./cri.ts";
import { EvictionManager } from "./eviction/manager.ts";
import { isCriticalPod } from "./eviction/ranking.ts";
import type { Hardware } from "./hardware/manager.ts";
import { ImageCollector } from "./images/gc.ts";
import type { NodeResources } from "./node-object.ts";
import { admit, affinityReason, type Refusal } from "./pods/admission.ts";
import type { PodFailure } from "./pods/plan.ts";
import { judgeResize, type Verdict } from "./pods/resize.ts";
import { podLimits } from "./pods/resources.ts";
import type { PodWorker } from "./pods/worker.ts";
import type { RuntimeCache } from "./runtime-cache.ts";
import { Sampler } from "./stats/sampler.ts";

export interface ResourceKeeperDeps {
  readonly configuration: NodeConfiguration;
  readonly machine: Machine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly cri: Cri;
  readonly runtime: RuntimeCache;
  readonly workers: ReadonlyMap<string, PodWorker>;
  readonly podsFolder: string;
  readonly imageFolder: string;
  readonly podLogRoot: string;
  /** Where a volume lies that is not in the pod's own folder. */
  readonly mountedAt: (podUid: string, volume: string) => string | undefined;
  readonly runtimePidFile: string;
  readonly pauseImage: string;
  readonly hasAppArmor: boolean;
  readonly hardware: Hardware;
  readonly warn: (reason: string, message: string) => void;
  /** Something the Node object shows has changed. */
  readonly onChange: () => void;
  /** Reads the Node as the API has it now, for `knowNode`. */
  readonly lookAtNode: () => Promise<void>;
}

/** Requests of pods come and go; weights of the classes follow at this pace. */
const weighMs = 60_000;
const preempted: PodFailure = {
  reason: "Preempting",
  message: "Preempted in order to admit critical pod",
  disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
};
const preemptGraceSeconds = 1;
/** Those who must go for a critical pod have this long, because others wait to be admitted meanwhile. */
const preemptMs = 10_000;

export class ResourceKeeper {
  readonly sampler: Sampler;
  readonly #deps: ResourceKeeperDeps;
  readonly #eviction: EvictionManager;
  readonly #images: ImageCollector;
  #capacity: Amounts = {};
  #node: Node | undefined;
  /** Admitted by this agent, from that very moment on; the workers hear of it later. */
  readonly #admitted = new WeakSet<PodWorker>();
  /** Settles when nobody is being decided about. As long as there are new pods. */
  #line: Promise<unknown> = Promise.resolve();
  isShuttingDown = false;

  constructor(deps: ResourceKeeperDeps) {
    this.#deps = deps;
    const { clock, log, cri, runtime, workers, configuration } = deps;
    this.sampler = new Sampler({
      cri,
      clock,
      pods: () =>
        [...workers.values()].map(({ pod, uid }) => ({
          pod,
          observed: runtime.get(uid, pod.metadata.namespace ?? "", pod.metadata.name ?? ""),
        })),
      podLogRoot: deps.podLogRoot,
      podFolder: (uid) => `${deps.podsFolder}/${uid}`,
      ...{ mountedAt: deps.mountedAt, runtimePidFile: deps.runtimePidFile },
      podsCgroup: podsCgroupOf(configuration.cgroupRoot),
    });
    this.#images = new ImageCollector({
      ...{ cri, clock, log, configuration },
      imageFolder: deps.imageFolder,
      pauseImage: deps.pauseImage,
      warn: deps.warn,
    });
    this.#eviction = new EvictionManager({
      ...{ clock, log, configuration, metrics: deps.metrics },
      nodeFolder: deps.podsFolder,
      imageFolder: deps.imageFolder,
      pods: () => this.#active().map((w) => w.pod),
      usageOf: (wanted) => this.sampler.usageOf(wanted),
      evict: (pod, message, graceSeconds) =>
        workers.get(uidOf(pod))?.evict({ reason: "Evicted", message, disruption: message }, graceSeconds) ??
        Promise.resolve(),
      reclaimDisk: () => this.#reclaimDisk(),
      warn: deps.warn,
      onConditions: deps.onChange,
    });
  }

  /** Measures; before anything else is asked. */
  async open(): Promise<void> {
    const { machine, configuration, podsFolder } = this.#deps;
    this.#capacity = capacityOf(machine, (await fileSystemSize(podsFolder)).totalBytes, configuration);
    await this.#weigh();
  }

  get resources(): NodeResources {
    return {
      capacity: { ...this.#capacity, ...this.#deps.hardware.capacity },
      allocatable: this.allocatable,
      pressure: this.#eviction.conditions,
      isShuttingDown: this.isShuttingDown,
    };
  }

  get allocatable(): Amounts {
    return { ...allocatableOf(this.#capacity, this.#deps.configuration), ...this.#deps.hardware.allocatable };
  }

  /** The Node as the API has it now: its labels decide about node selectors. */
  knowNode(node: Node): void {
    this.#node = node;
  }

  /** One pod after the other, each beside those that were admitted before it. May end others first, for a critical pod. */
  async admit(pod: Pod): Promise<Refusal | undefined> {
    // Whoever bound the pod may have seen labels that are newer than what is known here. Asked before the pod gets in line:
    // the API may be away.
    if (this.#refusal(pod)?.reason === affinityReason) await this.#deps.lookAtNode();
    const decided = this.#line.then(() => this.#decide(pod));
    this.#line = decided.then(
      () => {},
      // Whoever asked hears of it; the next in line is asked about all the same.
      () => {},
    );
    return decided;
  }

  async #decide(pod: Pod): Promise<Refusal | undefined> {
    const refusal = this.#give(pod);
    if (!refusal?.reason.startsWith("OutOf") || !isCriticalPod(pod)) return refusal;
    const victims = victimsFor(pod, without(this.#activePods(), pod), this.allocatable) ?? [];
    const workers = victims.flatMap((victim) => this.#deps.workers.get(uidOf(victim)) ?? []);
    if (workers.length === 0) return refusal;
    if (!(await this.#preempt(workers))) return refusal;
    return this.#give(pod);
  }

  /** Decides and takes in one go: nobody can be asked about in between. */
  #give(pod: Pod): Refusal | undefined {
    const refusal = this.#refusal(pod) ?? this.#deps.hardware.admit(pod);
    const worker = this.#deps.workers.get(uidOf(pod));
    if (!refusal && worker) this.#admitted.add(worker);
    return refusal;
  }

  /** Whether all of them went in time. */
  async #preempt(workers: readonly PodWorker[]): Promise<boolean> {
    const over = new AbortController();
    const ends = Promise.all(workers.map((worker) => worker.evict(preempted, preemptGraceSeconds)));
    const isDone = ends.then(() => true).finally(() => over.abort(new Error("all have ended")));
    return Promise.race([isDone, pause(this.#deps.clock, preemptMs, over.signal).then(() => over.signal.aborted)]);
  }

  /** Whether a pod that runs here may have what it asks for now: as if it were new. */
  judgeResize(pod: Pod): Verdict {
    const { configuration } = this.#deps;
    const { allocatable } = this;
    // Whoever is about to start counts too: after a restart nobody has been looked at yet.
    const others = [...this.#deps.workers.values()].filter((w) => w.isLive).map((w) => w.allocated);
    return judgeResize({ pod, allocatable, configuration, refusal: () => this.#refusal(pod, without(others, pod)) });
  }

  #activePods(): Pod[] {
    return this.#active().map((w) => w.allocated);
  }

  #refusal(pod: Pod, others: readonly Pod[] = without(this.#activePods(), pod)): Refusal | undefined {
    return admit({
      pod,
      others,
      allocatable: this.allocatable,
      allowedUnsafeSysctls: this.#deps.configuration.allowedUnsafeSysctls,
      hasAppArmor: this.#deps.hasAppArmor,
      node: this.#node,
      underPressure: (asked) => this.#eviction.refusal(asked),
      isShuttingDown: this.isShuttingDown,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#eviction.run(signal), this.#images.run(signal), this.#keepWeights(signal)]);
  }

  /** Those that hold what they ask for: admitted, or here since before this agent, looked at already or not. */
  #active(): PodWorker[] {
    const { workers, runtime } = this.#deps;
    const isHere = (uid: string) => {
      const { sandboxes, containers } = runtime.get(uid);
      return sandboxes.length > 0 || containers.length > 0;
    };
    return [...workers.values()].filter((w) => w.isActive || (w.isLive && (this.#admitted.has(w) || isHere(w.uid))));
  }

  async #keepWeights(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    let last = "";
    while (!signal.aborted) {
      try {
        await clock.sleep(weighMs, signal);
        const active = this.#active();
        const now = active
          .map((w) => `${w.uid} ${podLimits(w.allocated).cpuShares}`)
          .sort()
          .join();
        if (now !== last) await this.#weigh();
        last = now;
      } catch (error) {
        if (isAbort(error, signal)) return;
        log.warn("cannot write the weights of pod classes, retrying", { error: messageOf(error) });
      }
    }
  }

  async #weigh(): Promise<void> {
    const { configuration, machine } = this.#deps;
    const reserved = (name: string) =>
      (configuration.kubeReserved[name] ?? 0) + (configuration.systemReserved[name] ?? 0);
    const bound = (name: string, total: number) => (reserved(name) > 0 ? Math.max(0, total - reserved(name)) : 0);
    await applyNodeCgroups(this.#activePods(), {
      memoryBytes: bound("memory", machine.memoryBytes),
      milliCpu: machine.cpus * 1000 - reserved("cpu"),
      pids: bound("pid", (await processCounts()).max),
      podsCgroup: podsCgroupOf(configuration.cgroupRoot),
    });
  }

  /** Dead containers first, because they hold images; the newest of each name stays for its state and log. */
  async #reclaimDisk(): Promise<void> {
    const { runtime, cri, log } = this.#deps;
    for (const pod of runtime.all()) {
      const seen = new Set<string>();
      for (const container of pod.containers) {
        const isNewest = !seen.has(container.name);
        seen.add(container.name);
        if (isNewest || container.state === "running") continue;
        try {
          await cri.removeContainer(container.id);
        } catch (error) {
          // It has gone already, or is being looked at; the next round tries again.
          log.debug("cannot remove a dead container", { container: container.id, error: messageOf(error) });
        }
      }
    }
    await this.#images.freeAll();
  }
}

const without = (pods: readonly Pod[], pod: Pod): Pod[] => pods.filter((other) => uidOf(other) !== uidOf(pod));
