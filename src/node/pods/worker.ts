// One pod's life on this node. A worker is woken by anything that may matter (a new spec, an ended container, a probe, a
// timer) and then looks at everything: observe, plan, apply, report, until there is nothing to do. One step at a time,
// so no two actions of a pod race; only its deletion cuts a running step short.
//
//   running ──deletionTimestamp──▶ ending ──containers gone, status told, object deleted──▶ ended
//      └────────── object gone (force-deleted, or left over from an earlier run) ──▶ ending ──▶ ended
//
// What is said to the API is told-status.ts's, why something waits holds.ts's, how large the pod is sizes.ts's.
// Counterpart: the kubelet's pod workers with syncPod, syncTerminatingPod, syncTerminatedPod.

import { pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Pod, PodStatus } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { pods } from "#model/resources.ts";
import { isApiError, isConflict, isNotFound } from "#model/status.ts";
import { removePodCgroups } from "../cgroups.ts";
import { VolumeError } from "../volumes/volume-error.ts";
import {
  containerEvent,
  createSandbox,
  podEvent,
  removeRemains,
  startContainer,
  stopContainer,
  stopPod,
} from "./apply.ts";
import { BackOff } from "./back-off.ts";
import type { PodContext } from "./context.ts";
import { podLogFolder } from "./cri-config.ts";
import { Holds } from "./holds.ts";
import { LastWords } from "./last-words.ts";
import { type ObservedContainer, type PodObservation, readySandbox } from "./observation.ts";
import { type Action, mayBeUp, type Plan, type PodFailure, planPod, podLabel, resizeHold } from "./plan.ts";
import { recall } from "./recall.ts";
import { PodSizes } from "./sizes.ts";
import { podStatus } from "./status.ts";
import { ToldStatus } from "./told-status.ts";

/** Plan and apply at most so often per wake-up; a pod needs a round per init container at most. */
const maxRounds = 20;
/** Volumes follow the API at this pace, spread so that pods do not refresh together. */
const refreshMs = { least: 60_000, spread: 30_000 } as const;
/** What a pod becomes on its way up is told when the next step takes longer than this: most are there before. */
const onTheWayMs = 300;
/** After an error of the runtime or the API. */
const retryMs = { initialMs: 1_000, maxMs: 60_000 } as const;

export class PodWorker {
  readonly uid: string;
  readonly #context: PodContext;
  #pod: Pod;
  readonly #said: ToldStatus;
  readonly #holds = new Holds();
  readonly #sizes: PodSizes;
  readonly #words = new LastWords();
  readonly #isMirrored: boolean;
  #gone = false;
  #ended = false;
  #dirty = true;
  #wake: () => void = () => {};
  /** Aborted when the pod is to end: cuts pulls and hooks short. */
  #starting = new AbortController();
  #volumesGone = false;
  #stoppingWith: number | undefined;
  /** The node takes the pod down for good. */
  #ending: { readonly failure: PodFailure; readonly graceSeconds: number } | undefined;
  #whenDown: (() => void)[] = [];
  #isAdmitted = false;
  readonly #retries = new BackOff(retryMs);

  /**
   * `mirrorUid`: the pod comes from a file, and the API shows it under that uid; undefined while it does not. `known`: what
   * this node said of the pod before it went down, where the API has not heard of it.
   */
  constructor(context: PodContext, pod: Pod, mirrorUid?: () => string | undefined, known?: PodStatus) {
    this.#context = context;
    this.#isMirrored = mirrorUid !== undefined;
    this.#pod = pod;
    this.uid = pod.metadata.uid ?? "";
    this.#said = new ToldStatus({ uid: this.uid, pod: () => this.#pod, mirrorUid, known }, context);
    this.#sizes = new PodSizes({
      ...{ uid: this.uid, context },
      warn: (reason, message) => this.event("Warning", reason, message),
      changed: (name) => this.#holds.forget(name),
    });
  }

  /** The pod with the status last computed. */
  get pod(): Pod {
    const status = this.#said.current;
    return status ? { ...this.#pod, status } : this.#pod;
  }
  /** Tells the API again what it could not be told; for when it is back. */
  tellAgain(): void {
    if (this.#said.isDue()) this.nudge();
  }
  /** The same with the resources that it has been allocated. */
  get allocated(): Pod {
    return this.#sizes.allocated(this.pod);
  }
  /** Whether it asks for more than there is room for now. */
  get isWaitingToGrow(): boolean {
    return this.#sizes.isWaitingToGrow;
  }
  get ended(): boolean {
    return this.#ended;
  }

  update(pod: Pod): void {
    const before = this.#pod;
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp) {
      this.#said.remember(this.pod);
      this.#hurry();
    } else if (this.#said.isEcho(before, pod)) return;
    this.nudge();
  }

  /** The object is no longer in the API. */
  removed(): void {
    this.#gone = true;
    this.#hurry();
    this.nudge();
  }

  /** Whether the pod holds resources of this node. */
  get isActive(): boolean {
    return this.#isAdmitted && this.isLive;
  }

  /** Whether it runs here or is about to. */
  get isLive(): boolean {
    const { phase } = this.pod.status ?? {};
    return !this.#ended && !this.#ending && phase !== "Succeeded" && phase !== "Failed";
  }

  /** Takes the pod down for good, because the node must; resolves when nothing of it runs any more. */
  evict(failure: PodFailure, graceSeconds: number): Promise<void> {
    const phase = this.pod.status?.phase;
    if (this.#ended || phase === "Succeeded" || phase === "Failed") return Promise.resolve();
    this.#ending ??= { failure, graceSeconds };
    this.event("Warning", failure.reason, failure.message);
    const down = new Promise<void>((resolve) => {
      this.#whenDown.push(resolve);
    });
    this.#cutShort(new Error("the pod is being evicted"));
    this.nudge();
    return down;
  }

  #sayDown(): void {
    for (const resolve of this.#whenDown.splice(0)) resolve();
  }

  nudge(): void {
    this.#dirty = true;
    this.#wake();
  }

  event(type: "Normal" | "Warning", reason: string, message: string): void {
    podEvent(this.#context, this.#pod, type, reason, message);
  }

  unhealthy(container: string, message: string): void {
    this.#containerEvent(container, "Warning", "Unhealthy", message);
  }

  #containerEvent(name: string, type: "Normal" | "Warning", reason: string, message: string): void {
    containerEvent(this.#context, this.#pod, name, type, reason, message);
  }

  /** Works until the pod has ended here or `signal` aborts; then everything stays as it is. */
  async run(signal: AbortSignal): Promise<void> {
    // What takes long (a pull, a hook) must not keep the agent from ending.
    const cut = () => this.#cutShort(signal.reason);
    signal.addEventListener("abort", cut, { once: true });
    try {
      await this.#live(signal);
    } finally {
      signal.removeEventListener("abort", cut);
    }
  }

  async #live(signal: AbortSignal): Promise<void> {
    const { clock, log, random } = this.#context;
    while (!signal.aborted && !this.#ended) {
      let pauseMs: number = refreshMs.least + random.float() * refreshMs.spread;
      this.#dirty = false;
      try {
        if (this.#gone || this.#pod.metadata.deletionTimestamp) {
          await this.#end();
          this.#retries.forget("");
          if (this.#ended) {
            this.#sayDown();
            return;
          }
        } else {
          const wakeAtMs = await this.#sync();
          if (wakeAtMs !== undefined) pauseMs = Math.max(10, Math.min(pauseMs, wakeAtMs - clock.now()));
          this.#retries.forget("");
          // The pod itself goes on while the API cannot be told.
          pauseMs = this.#said.pauseMs(pauseMs);
        }
      } catch (error) {
        if (signal.aborted) return;
        const nowMs = clock.now();
        this.#retries.next("sync", nowMs, nowMs);
        pauseMs = this.#retries.delayMs("sync", nowMs);
        // A pull or hook that the pod's own end cut short is no failure.
        if (!this.#starting.signal.aborted || this.#gone) {
          // A volume that cannot be made is the pod's own trouble, told in its events.
          if (error instanceof VolumeError) this.event("Warning", "FailedMount", error.message);
          else log.warn("pod step failed, retrying", { pod: podLabel(this.#pod), error: messageOf(error) });
        }
      }
      await this.#pause(pauseMs, signal);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#dirty || signal.aborted) return;
    const wait = new AbortController();
    const stop = () => wait.abort();
    this.#wake = stop;
    signal.addEventListener("abort", stop, { once: true });
    // Rejects only because it was woken.
    await pause(this.#context.clock, ms, wait.signal);
    signal.removeEventListener("abort", stop);
    this.#wake = () => {};
  }

  /** Ends pulls and hooks; of several reasons the first counts. */
  #cutShort(reason: unknown): void {
    if (!this.#starting.signal.aborted) this.#starting.abort(reason);
  }

  #hurry(): void {
    this.#cutShort(new Error("the pod is being deleted"));
    const grace = this.#grace();
    if (this.#stoppingWith === undefined || grace >= this.#stoppingWith) return;
    // Deleted again with less patience: the runtime takes a second, shorter stop beside the first.
    this.#stoppingWith = grace;
    for (const c of this.#context.runtime.get(this.uid).containers) {
      if (c.state !== "running") continue;
      this.#context.cri.stopContainer(c.id, grace).catch((error: unknown) => {
        // The first stop is still under way and will end it.
        this.#context.log.debug("cannot hasten a stop", { error: messageOf(error) });
      });
    }
  }

  #grace(): number {
    const { metadata } = this.#pod;
    if (this.#gone && !metadata.deletionTimestamp) return Math.min(graceSecondsOf(this.#pod), 30);
    if (this.#gone) return Math.min(metadata.deletionGracePeriodSeconds ?? 1, 1);
    return graceSecondsOf(this.#pod, metadata.deletionGracePeriodSeconds);
  }

  async #observe(): Promise<PodObservation> {
    const { namespace = "", name = "" } = this.#pod.metadata;
    const seen = await this.#context.runtime.refresh(this.uid, namespace, name);
    return this.#sizes.known(recall(this.pod, seen, this.#context.clock.now()));
  }

  #plan(pod: Pod, observed: PodObservation): Plan {
    const { clock, probes } = this.#context;
    const status = this.#said.current;
    return planPod({
      pod: status ? { ...pod, status } : pod,
      nowMs: clock.now(),
      observed,
      cgroupIsStale: this.#sizes.isCgroupStale(pod),
      ending: this.#ending,
      probe: (c) => probes.view(c, pod),
      backOffMs: (name, finishedAtMs) => this.#holds.crashDelayMs(name, finishedAtMs),
      holdUntilMs: (name) => (name === resizeHold ? this.#sizes.holdUntilMs : this.#holds.untilMs(name)),
    });
  }

  async #sync(): Promise<number | undefined> {
    const context = this.#context;
    let observed = await this.#observe();
    await this.#admit(observed);
    for (let round = 0; round < maxRounds; round++) {
      if (this.isActive && !this.#isMirrored) await this.#sizes.allocate(this.#pod, observed);
      // Of this round: it may change while the round's actions are under way, and they must fit together.
      const pod = this.#sizes.allocated(this.#pod);
      const plan = this.#plan(pod, observed);
      this.#holds.say(this.#pod, plan, (...said) => this.#containerEvent(...said));
      const isOnTheWay = round > 0 && plan.actions.length > 0 && plan.actions.every(({ kind }) => kind === "start");
      const told = isOnTheWay ? this.#tellLater(observed, plan) : undefined;
      if (!told) await this.#tell(observed, plan);
      if (plan.finished && plan.actions.length === 0) {
        context.probes.forget(this.uid);
        this.#sayDown();
        context.hardware.release(this.uid);
        if (!this.#volumesGone) {
          context.retryResizes();
          await context.volumes.removeVolumes(this.uid);
        }
        this.#volumesGone = true;
        return undefined;
      }
      const volumes = plan.finished ? new Map<string, string>() : await this.#volumes(observed);
      if (plan.actions.length === 0) {
        this.#probe(observed);
        return plan.wakeAtMs;
      }
      try {
        for (const action of plan.actions) {
          const isUp = await this.#apply(action, { pod, plan, observed, volumes });
          if (!isUp || action === plan.actions.at(-1)) continue;
          // Its probes begin while others still start.
          observed = await this.#observe();
          this.#probe(observed);
        }
      } finally {
        await told?.();
      }
      observed = await this.#observe();
      this.#probe(observed);
    }
    return context.clock.now() + 1000;
  }

  /** Does one thing of a round; true: a container has come up by that. */
  async #apply(action: Action, { pod, plan, observed, volumes }: Round): Promise<boolean> {
    const context = this.#context;
    if (action.kind === "create-sandbox" || action.kind === "start") this.#starting.signal.throwIfAborted();
    if (action.kind === "create-sandbox") await this.#createSandbox(action.attempt, observed);
    else if (action.kind === "stop-pod") {
      if (action.why === "deadline") this.event("Normal", "DeadlineExceeded", plan.failure?.message ?? "");
      if (action.why === "sandbox-changed") {
        this.event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
      }
      context.probes.forget(this.uid);
      await stopPod(context, pod, observed, graceSecondsOf(pod, this.#ending?.graceSeconds));
    } else if (action.kind === "kill") {
      if (action.restarts) this.#sizes.willRestart(action.id);
      const container = { id: action.id, name: action.name, ip: this.#ip(observed) };
      await stopContainer(context, pod, container, graceSecondsOf(pod, action.graceSeconds), action.message);
    } else if (action.kind === "resize") await this.#sizes.resize(pod, action.updates);
    else if (action.kind === "remove") await context.cri.removeContainer(action.id);
    else {
      const { name } = action.container;
      if (action.afterExitMs !== undefined) this.#holds.restarts(name, action.afterExitMs, context.clock.now());
      const { signal } = this.#starting;
      const given = { context, pod, observed, action, volumes, pullBackOff: this.#holds.pulls, signal };
      const failure = await startContainer(given);
      this.#holds.started(name, failure);
      return failure === undefined;
    }
    return false;
  }

  /** Tells it unless the returned function is called soon; that resolves when nothing is being told any more. */
  #tellLater(observed: PodObservation, plan: Plan): () => Promise<void> {
    const wait = new AbortController();
    const told = pause(this.#context.clock, onTheWayMs, wait.signal).then(() =>
      wait.signal.aborted ? undefined : this.#tell(observed, plan),
    );
    // Whoever waits for it gets its error; until then nobody listens.
    told.catch(() => {});
    return () => {
      wait.abort();
      return told;
    };
  }

  /** Asked once, and not about what ran here before this agent did. */
  async #admit(observed: PodObservation): Promise<void> {
    if (this.#isAdmitted || this.#ending) return;
    const phase = this.pod.status?.phase;
    const isNew = observed.sandboxes.length === 0 && observed.containers.length === 0;
    const refusal =
      isNew && phase !== "Succeeded" && phase !== "Failed" ? await this.#context.admit(this.#pod) : undefined;
    if (!refusal) {
      this.#isAdmitted = true;
      return;
    }
    this.#ending = { failure: refusal, graceSeconds: 0 };
    this.event("Warning", refusal.reason, refusal.message);
  }

  async #volumes(observed: PodObservation): Promise<Map<string, string>> {
    const context = this.#context;
    const podIps = this.#pod.spec.hostNetwork ? context.nodeIps : (readySandbox(observed)?.ips ?? []);
    const pod = this.#sizes.allocated(this.#pod);
    return context.volumes.ensure(pod, { nodeName: context.nodeName, hostIps: context.nodeIps, podIps });
  }

  async #createSandbox(attempt: number, observed: PodObservation): Promise<void> {
    const { clock, slots } = this.#context;
    try {
      const pod = this.#sizes.allocated(this.#pod);
      await slots.use(() => createSandbox(this.#context, pod, attempt, observed));
      this.#sizes.cgroupMade(pod);
      this.#holds.sandboxMade();
    } catch (error) {
      this.#holds.sandboxFailed(clock.now());
      this.event("Warning", "FailedCreatePodSandBox", `Failed to create pod sandbox: ${messageOf(error)}`);
    }
  }

  #ip(observed: PodObservation): string {
    return this.#pod.spec.hostNetwork ? this.#context.nodeIp : (readySandbox(observed)?.ips[0] ?? this.#context.nodeIp);
  }

  #probe(observed: PodObservation): void {
    const sandbox = readySandbox(observed);
    const running = sandbox
      ? observed.containers.filter((c) => c.state === "running" && c.sandboxId === sandbox.id)
      : [];
    this.#context.probes.sync(this.#pod, running, this.#ip(observed));
  }

  async #tell(observed: PodObservation, plan: Plan, ended = false): Promise<void> {
    const { clock, nodeIps, probes, volumes } = this.#context;
    if (this.#said.isLast) {
      // Somebody else may have had it: it must not be run again by a boot that hears nothing of that.
      this.#said.remember(this.pod);
      return;
    }
    await this.#words.follow(volumes.podFolder(this.uid), this.#pod, observed.containers);
    const status = podStatus({
      // Conditions of others come from the newest object, our own from what was last told.
      pod: { ...this.#sizes.allocated(this.#pod), status: this.#said.merged },
      observed,
      plan: { ...plan, waiting: this.#holds.waiting(this.pod, plan) },
      showsResources: this.#context.canResize,
      resize: plan.finished ? undefined : this.#sizes.status(this.#pod, plan.resizing === true),
      probe: (c: ObservedContainer) => probes.view(c, this.#pod),
      hostIps: nodeIps,
      nowMs: clock.now(),
      terminationMessage: (c) => this.#words.of(c),
      ended,
    });
    await this.#said.tell(status);
  }

  async #end(): Promise<void> {
    const { client, probes, volumes, log } = this.#context;
    const pod = this.#pod;
    probes.forget(this.uid);
    let observed = await this.#observe();
    if (observed.containers.some(mayBeUp) || observed.sandboxes.some((s) => s.ready)) {
      const grace = this.#grace();
      this.#stoppingWith = grace;
      await stopPod(this.#context, pod, observed, grace);
      observed = await this.#observe();
      if (observed.containers.some((c) => c.state === "running"))
        throw new Error("containers are still running after they were stopped");
    }
    if (!this.#gone) {
      await this.#tell(observed, { actions: [], waiting: new Map(), finished: true }, true).catch((error: unknown) => {
        if (!isApiError(error)) throw error;
        // A status that the API refuses must not keep the pod from being deleted.
        log.warn("cannot report the end of a pod", { pod: podLabel(pod), error: messageOf(error) });
      });
    }
    await volumes.remove(this.uid);
    await removeRemains(this.#context, observed, podLogFolder(this.#context.podLogFolder, pod));
    removePodCgroups(this.uid, this.#context.podsCgroup);
    this.#context.hardware.release(this.uid);
    this.#context.allocations.forget(this.uid);
    if (!this.#gone && !this.#isMirrored) {
      try {
        const target = { name: pod.metadata.name ?? "", namespace: pod.metadata.namespace };
        await client.delete(pods, target, { gracePeriodSeconds: 0, preconditions: { uid: this.uid } });
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error;
      }
    }
    this.#ended = true;
    this.#context.retryResizes();
  }
}

/** What the actions of one round have in common. */
interface Round {
  readonly pod: Pod;
  readonly plan: Plan;
  readonly observed: PodObservation;
  readonly volumes: ReadonlyMap<string, string>;
}
