// One pod's life on this node. A worker is woken by anything that may matter (a new spec, an ended container, a probe, a
// timer) and then looks at everything: observe, plan, apply, report, until there is nothing to do. One step at a time,
// so no two actions of a pod race; only its deletion cuts a running step short.
//
//   running ──deletionTimestamp──▶ ending ──containers gone, status told, object deleted──▶ ended
//      └────────── object gone (force-deleted, or left over from an earlier run) ──▶ ending ──▶ ended
//
// Counterpart: the kubelet's pod workers with syncPod, syncTerminatingPod, syncTerminatedPod.

import { isDeepStrictEqual } from "node:util";
import { pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Container, Pod, PodStatus } from "#model/gen/core-v1.ts";
import { graceSecondsOf } from "#model/pod-grace.ts";
import { pods } from "#model/resources.ts";
import { isApiError, isConflict, isNotFound } from "#model/status.ts";
import { removePodCgroups } from "../cgroups.ts";
import { saysAway } from "../remembered/reach.ts";
import { VolumeError } from "../volumes/volume-error.ts";
import {
  containerEvent,
  createSandbox,
  podEvent,
  removeRemains,
  type StartFailure,
  startContainer,
  stopContainer,
  stopPod,
} from "./apply.ts";
import { BackOff } from "./back-off.ts";
import type { PodContext } from "./context.ts";
import { podLogFolder } from "./cri-config.ts";
import { createPullBackOff, pullWaiting } from "./images.ts";
import { lastWords } from "./last-words.ts";
import { type ObservedContainer, type PodObservation, readySandbox } from "./observation.ts";
import {
  containerOf,
  mayBeUp,
  type Plan,
  type PodFailure,
  planPod,
  podLabel,
  resizeHold,
  sandboxHold,
} from "./plan.ts";
import { recall } from "./recall.ts";
import { PodSizes } from "./sizes.ts";
import { podStatus, toldStatuses } from "./status.ts";
import { statusPatch } from "./status-patch.ts";

/** Plan and apply at most so often per wake-up; a pod needs a round per init container at most. */
const maxRounds = 20;
/** Volumes follow the API at this pace, spread so that pods do not refresh together. */
const refreshMs = { least: 60_000, spread: 30_000 } as const;
/** What a pod becomes on its way up is told when the next step takes longer than this: most are there before. */
const onTheWayMs = 300;
/** After an error of the runtime or the API. */
const retryMs = { initialMs: 1_000, maxMs: 60_000 } as const;
const crashMs = { initialMs: 10_000, maxMs: 300_000 } as const;

export class PodWorker {
  readonly uid: string;
  readonly #context: PodContext;
  #pod: Pod;
  /** What this node says of the pod, which may be ahead of `#pod.status`, and of what the API has been told. */
  #told: PodStatus | undefined;
  /** What the API took last, in this run of the agent. */
  #acknowledged: PodStatus | undefined;
  /** The API could not be told: to be tried again. */
  #isUntold = false;
  /** What is being told, or was told last: to know it again when the watch brings it back. */
  #telling: PodStatus | undefined;
  #gone = false;
  #ended = false;
  #dirty = true;
  #wake: () => void = () => {};
  /** Aborted when the pod is to end: cuts pulls and hooks short. */
  #starting = new AbortController();
  #holds = new Map<string, StartFailure>();
  #sandboxHold = { untilMs: 0 };
  #words = new Map<string, string>();
  #volumesGone = false;
  #stoppingWith: number | undefined;
  /** The node takes the pod down for good. */
  #ending: { readonly failure: PodFailure; readonly graceSeconds: number } | undefined;
  #whenDown: (() => void)[] = [];
  #isAdmitted = false;
  readonly #mirrorUid: (() => string | undefined) | undefined;
  /** Uid of the object that was told last, and the version it got by that. */
  #toldTo: string | undefined;
  #toldVersion: string | undefined;
  readonly #crashes = new BackOff(crashMs);
  readonly #pulls = createPullBackOff();
  readonly #retries = new BackOff(retryMs);
  readonly #tellRetries = new BackOff(retryMs);
  #saidBackOff = new Map<string, number>();
  readonly #sizes: PodSizes;

  /**
   * `mirrorUid`: the pod comes from a file, and the API shows it under that uid; undefined while it does not. `known`: what
   * this node said of the pod before it went down, where the API has not heard of it.
   */
  constructor(context: PodContext, pod: Pod, mirrorUid?: () => string | undefined, known?: PodStatus) {
    this.#context = context;
    this.#mirrorUid = mirrorUid;
    this.#pod = pod;
    this.#told = known;
    this.uid = pod.metadata.uid ?? "";
    this.#sizes = new PodSizes({
      ...{ uid: this.uid, context },
      warn: (reason, message) => this.event("Warning", reason, message),
      changed: (name) => {
        this.#crashes.forget(name);
        this.#holds.delete(name);
      },
    });
  }

  /** The pod with the status last computed. */
  get pod(): Pod {
    const status = this.#status();
    return status ? { ...this.#pod, status } : this.#pod;
  }
  /** Tells the API again what it could not be told; for when it is back. */
  tellAgain(): void {
    if (!this.#isUntold) return;
    this.#tellRetries.forget("");
    this.nudge();
  }

  /** What was said last; where somebody else has counted the pod as ended since, that is final. */
  #status(): PodStatus | undefined {
    const { status } = this.#pod;
    if (!this.#told || !isFinal(status) || isFinal(this.#told)) return this.#told ?? status;
    const { phase, reason, message } = status;
    return {
      ...this.#told,
      phase,
      ...(reason === undefined ? {} : { reason }),
      ...(message === undefined ? {} : { message }),
    };
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
      this.#remember(this.pod);
      this.#hurry();
    } else if (this.#isEcho(before, pod)) return;
    this.nudge();
  }

  /** The watch brings back what this worker has told itself, and nothing else. */
  #isEcho(before: Pod, pod: Pod): boolean {
    const [told, status] = [this.#telling, pod.status];
    if (!told || !status || this.#mirrorUid || pod.metadata.generation !== before.metadata.generation) return false;
    return (
      isDeepStrictEqual(facts(before), facts(pod)) &&
      isDeepStrictEqual(pod.spec, before.spec) &&
      isDeepStrictEqual(foreign(before.status), foreign(status)) &&
      statusPatch(status, told) === undefined
    );
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
          pauseMs = this.#untilTold(pauseMs);
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

  /** What the API could not be told is tried again with growing pauses; the pod itself goes on. */
  #untilTold(pauseMs: number): number {
    if (!this.#isUntold) return pauseMs;
    const nowMs = this.#context.clock.now();
    this.#tellRetries.next("", nowMs, nowMs);
    return Math.min(pauseMs, this.#tellRetries.delayMs("", nowMs));
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

  #specOf(name: string): Container | undefined {
    return containerOf(this.#pod, name);
  }

  #plan(pod: Pod, observed: PodObservation): Plan {
    const { clock, probes } = this.#context;
    const status = this.#status();
    return planPod({
      pod: status ? { ...pod, status } : pod,
      nowMs: clock.now(),
      observed,
      cgroupIsStale: this.#sizes.isCgroupStale(pod),
      ending: this.#ending,
      probe: (c) => probes.view(c, pod),
      backOffMs: (name, finishedAtMs) => this.#crashes.delayMs(name, finishedAtMs),
      holdUntilMs: (name) =>
        name === sandboxHold
          ? this.#sandboxHold.untilMs
          : name === resizeHold
            ? this.#sizes.holdUntilMs
            : (this.#holds.get(name)?.retryAtMs ?? 0),
    });
  }

  async #sync(): Promise<number | undefined> {
    const context = this.#context;
    let observed = await this.#observe();
    await this.#admit(observed);
    for (let round = 0; round < maxRounds; round++) {
      if (this.isActive && !this.#mirrorUid) await this.#sizes.allocate(this.#pod, observed);
      // Of this round: it may change while the round's actions are under way, and they must fit together.
      const pod = this.#sizes.allocated(this.#pod);
      const plan = this.#plan(pod, observed);
      this.#sayBackOff(plan);
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
            await stopContainer(
              context,
              pod,
              { id: action.id, name: action.name, ip: this.#ip(observed) },
              graceSecondsOf(pod, action.graceSeconds),
              action.message,
            );
          } else if (action.kind === "resize") await this.#sizes.resize(pod, action.updates);
          else if (action.kind === "remove") await context.cri.removeContainer(action.id);
          else {
            if (action.afterExitMs !== undefined) {
              this.#crashes.next(action.container.name, action.afterExitMs, context.clock.now());
            }
            const signal = this.#starting.signal;
            const given = { context, pod, observed, action, volumes, pullBackOff: this.#pulls, signal };
            const failure = await startContainer(given);
            if (failure) this.#holds.set(action.container.name, failure);
            else this.#holds.delete(action.container.name);
            // Its probes begin while others still start.
            if (!failure && action !== plan.actions.at(-1)) {
              observed = await this.#observe();
              this.#probe(observed);
            }
          }
        }
      } finally {
        await told?.();
      }
      observed = await this.#observe();
      this.#probe(observed);
    }
    return context.clock.now() + 1000;
  }

  #remember(pod: Pod): void {
    if (!this.#mirrorUid) this.#context.remember(pod);
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
      this.#sandboxHold.untilMs = 0;
      this.#retries.forget("sandbox");
    } catch (error) {
      const nowMs = clock.now();
      this.#retries.next("sandbox", nowMs, nowMs);
      this.#sandboxHold.untilMs = nowMs + this.#retries.delayMs("sandbox", nowMs);
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

  /** Events for waiting that is not an action; said once per pause. */
  #sayBackOff(plan: Plan): void {
    for (const [name, failure] of this.#holds) {
      if (
        !failure.isPull ||
        failure.waiting.reason !== "ErrImagePull" ||
        this.#saidBackOff.get(name) === failure.retryAtMs
      )
        continue;
      this.#saidBackOff.set(name, failure.retryAtMs);
      this.#containerEvent(name, "Normal", "BackOff", `Back-off pulling image "${this.#specOf(name)?.image ?? ""}"`);
      this.#containerEvent(name, "Warning", "Failed", "Error: ImagePullBackOff");
    }
    for (const [name, waiting] of plan.waiting) {
      if (waiting.reason !== "CrashLoopBackOff") continue;
      const until = plan.wakeAtMs ?? 0;
      if (this.#saidBackOff.get(name) === until) continue;
      this.#saidBackOff.set(name, until);
      const message = `Back-off restarting failed container ${name} in pod ${podLabel(this.#pod)}`;
      this.#containerEvent(name, "Warning", "BackOff", message);
    }
  }

  /** Waiting reasons as the API shows them: the plan's, and those of failed starts. */
  #waiting(plan: Plan): Plan["waiting"] {
    const out = new Map(plan.waiting);
    if (plan.finished) return out;
    for (const [name, failure] of this.#holds) {
      const spec = this.#specOf(name);
      if (!spec || out.get(name)?.reason === "CrashLoopBackOff") continue;
      // A pull that failed a moment ago shows its error first and the pause after.
      const isPause =
        failure.isPull && failure.waiting.reason === "ErrImagePull" && this.#toldWaiting(name) === "ErrImagePull";
      out.set(name, isPause ? pullWaiting(spec) : failure.waiting);
    }
    return out;
  }

  #toldWaiting(name: string): string | undefined {
    const reason = toldStatuses(this.pod).find((s) => s.name === name)?.state?.waiting?.reason;
    return reason === "ImagePullBackOff" ? "ErrImagePull" : reason;
  }

  async #tell(observed: PodObservation, plan: Plan, ended = false): Promise<void> {
    const { clock, client, nodeIps, probes } = this.#context;
    const target = this.#mirrorUid ? this.#mirrorUid() : this.uid;
    const isNewTarget = this.#toldTo !== undefined && target !== undefined && this.#toldTo !== target;
    const last = this.#acknowledged ?? this.#pod.status;
    // A final word is the last, but for the ends of what still ran when somebody else had it.
    if (isFinal(last) && !isNewTarget && !hasRunning(last)) {
      // Somebody else may have had it: it must not be run again by a boot that hears nothing of that.
      this.#remember(this.pod);
      return;
    }
    for (const c of observed.containers) {
      if (c.state === "exited" && !this.#words.has(c.id))
        this.#words.set(c.id, await lastWords(this.#context.volumes.podFolder(this.uid), this.#pod, c));
    }
    for (const id of this.#words.keys()) if (!observed.containers.some((c) => c.id === id)) this.#words.delete(id);
    // Conditions of others come from the newest object, our own from what was last told.
    const status = podStatus({
      pod: { ...this.#sizes.allocated(this.#pod), status: mergeForeign(this.#status(), this.#pod.status) },
      observed,
      plan: { ...plan, waiting: this.#waiting(plan) },
      showsResources: this.#context.canResize,
      resize: plan.finished ? undefined : this.#sizes.status(this.#pod, plan.resizing === true),
      probe: (c: ObservedContainer) => probes.view(c, this.#pod),
      hostIps: nodeIps,
      nowMs: clock.now(),
      terminationMessage: (c) => this.#words.get(c.id) ?? "",
      ended,
    });
    this.#remember({ ...this.#pod, status });
    if (target === undefined) {
      // Told once there is something to tell it to.
      this.#told = status;
      this.#toldTo = "";
      return;
    }
    const before = isNewTarget ? {} : this.#known();
    const patch = statusPatch(before, status);
    if (!patch) {
      this.#isUntold = false;
      return;
    }
    this.#telling = status;
    const object = { name: this.#pod.metadata.name ?? "", namespace: this.#pod.metadata.namespace };
    try {
      const answer = await client.patch(
        pods,
        object,
        { metadata: { uid: target }, status: patch },
        {
          subresource: "status",
          type: "application/strategic-merge-patch+json",
        },
      );
      this.#told = status;
      this.#acknowledged = status;
      this.#isUntold = false;
      this.#toldTo = target;
      this.#toldVersion = answer.metadata.resourceVersion;
      this.#tellRetries.forget("");
    } catch (error) {
      // The object is gone or another took its name: the watch will say so.
      if (isNotFound(error) || isConflict(error)) return;
      if (!saysAway(error)) throw error;
      // Nobody to tell it to must keep no container from its restart.
      this.#told = status;
      this.#isUntold = true;
    }
  }

  /**
   * The status that the API has: what was told, until the watch has brought that back or something newer. Others may have
   * written since (a node that was silent has its pods marked unready), and what is ours is put right again.
   */
  #known(): PodStatus {
    const { status = {}, metadata } = this.#pod;
    const said = this.#acknowledged;
    if (!said || this.#mirrorUid) return said ?? status;
    const [seen, told] = [metadata.resourceVersion, this.#toldVersion];
    return seen === told || Number(seen) > Number(told) ? status : said;
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
    removePodCgroups(this.uid);
    this.#context.hardware.release(this.uid);
    this.#context.allocations.forget(this.uid);
    if (!this.#gone && !this.#mirrorUid) {
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

/** `told` with the conditions of other writers as they are now. */
function mergeForeign(told: PodStatus | undefined, current: PodStatus | undefined): PodStatus {
  if (!told) return current ?? {};
  return {
    ...told,
    conditions: [...(told.conditions ?? []).filter((c) => ownConditions.has(c.type)), ...foreign(current)],
  };
}
