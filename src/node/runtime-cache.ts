// What runs, by pod: two CRI lists folded into PodObservations. Lists are cheap and level-triggered; details that lists
// leave out (exit codes, addresses) are asked once per change of state. containerd's exit events cut the time to notice an
// end from the relist period to milliseconds, so the period can be long and an idle node stays idle.
// Counterpart: the kubelet's PLEG.
import { type Clock, pause } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { ResourceRequirements } from "#model/gen/core-v1.ts";
import * as cri from "#wire/gen/cri.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { type Cri, podUidLabel } from "./cri.ts";
import {
  type ContainerState,
  nothingObserved,
  type ObservedContainer,
  type ObservedSandbox,
  type PodObservation,
} from "./pods/observation.ts";

export const labels = {
  podName: "io.kubernetes.pod.name",
  podNamespace: "io.kubernetes.pod.namespace",
  podUid: podUidLabel,
  containerName: "io.kubernetes.container.name",
} as const;
export const annotations = {
  hash: "io.kubernetes.container.hash",
  restartCount: "io.kubernetes.container.restartCount",
  terminationMessagePath: "io.kubernetes.container.terminationMessagePath",
  terminationMessagePolicy: "io.kubernetes.container.terminationMessagePolicy",
  podTerminationGracePeriod: "io.kubernetes.pod.terminationGracePeriod",
  /** Of mote: the resources it was made with, so that a later run knows what it was allocated. */
  resources: "io.mote.container.resources",
} as const;

/** With exit events relisting only repairs what they missed; without them it is how ends are noticed at all. */
const relistMs = { withEvents: 30_000, without: 1_000 } as const;
/** Exits come in bursts, and CRI learns of one after its event: lists follow quickly until it must have settled. */
const settle = { stepMs: 50, lastsMs: 1_500 } as const;

const states: Readonly<Record<number, ContainerState>> = {
  [cri.ContainerState.CONTAINER_CREATED]: "created",
  [cri.ContainerState.CONTAINER_RUNNING]: "running",
  [cri.ContainerState.CONTAINER_EXITED]: "exited",
  [cri.ContainerState.CONTAINER_UNKNOWN]: "unknown",
};

export class RuntimeCache {
  readonly #cri: Cri;
  readonly #clock: Clock;
  readonly #log: Logger;
  #pods = new Map<string, PodObservation>();
  /** Details of containers and sandboxes by id and state, kept while they are listed. */
  #containers = new Map<string, ObservedContainer>();
  #sandboxes = new Map<string, ObservedSandbox>();
  /** Whether it is asked what containers are held to: where pods can be resized. */
  readonly #withLimits: boolean;
  #eventsLive = false;
  #wake: () => void = () => {};
  /** Until when lists follow each other quickly, on the monotonic clock. */
  #busyUntilMs = 0;
  /** Called with the uid of every pod whose observation changed in a relist. */
  onChange: (podUid: string) => void = () => {};
  /** When lists last succeeded, on the monotonic clock: the runtime's health. */
  lastRelistMs: number | undefined;

  constructor(deps: { readonly cri: Cri; readonly clock: Clock; readonly log: Logger; readonly withLimits?: boolean }) {
    this.#withLimits = deps.withLimits ?? false;
    this.#cri = deps.cri;
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  get(podUid: string, namespace = "", name = ""): PodObservation {
    return this.#pods.get(podUid) ?? nothingObserved(podUid, namespace, name);
  }

  all(): readonly PodObservation[] {
    return [...this.#pods.values()];
  }

  /** Asks the runtime about everything. */
  async relist(): Promise<void> {
    const [sandboxes, containers] = await Promise.all([this.#cri.listSandboxes(), this.#cri.listContainers()]);
    const fresh = await this.#fold(sandboxes, containers);
    const before = this.#pods;
    this.#pods = fresh;
    this.lastRelistMs = this.#clock.monotonicMs();
    this.#forget(new Set(sandboxes.map((s) => s.id)), new Set(containers.map((c) => c.id)));
    for (const [uid, pod] of fresh) if (signature(before.get(uid)) !== signature(pod)) this.onChange(uid);
    for (const uid of before.keys()) if (!fresh.has(uid)) this.onChange(uid);
  }

  /** Asks the runtime about one pod. */
  async refresh(podUid: string, namespace: string, name: string): Promise<PodObservation> {
    const [sandboxes, containers] = await Promise.all([
      this.#cri.listSandboxes(podUid),
      this.#cri.listContainers(podUid),
    ]);
    const pod = (await this.#fold(sandboxes, containers)).get(podUid);
    if (pod) this.#pods.set(podUid, pod);
    else this.#pods.delete(podUid);
    return pod ?? nothingObserved(podUid, namespace, name);
  }

  /** Relists until `signal` aborts. Failures of the runtime are logged once per outage and retried. */
  async watch(signal: AbortSignal): Promise<void> {
    const events = this.#followExits(signal);
    let failing = false;
    while (!signal.aborted) {
      try {
        await this.relist();
        failing = false;
      } catch (error) {
        if (!failing) this.#log.warn("cannot list containers, retrying", { error: messageOf(error) });
        failing = true;
      }
      const pauseMs = failing || !this.#eventsLive ? relistMs.without : relistMs.withEvents;
      await this.#pause(pauseMs, signal);
    }
    await events;
  }

  async #followExits(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        this.#eventsLive = true;
        for await (const _id of this.#cri.exits(signal)) {
          this.#busyUntilMs = this.#clock.monotonicMs() + settle.lastsMs;
          this.#wake();
        }
      } catch (error) {
        if (isAbort(error, signal) || signal.aborted) return;
        this.#log.debug("container events ended", { error: messageOf(error) });
      }
      this.#eventsLive = false;
      this.#wake();
      await pause(this.#clock, relistMs.without, signal);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    // During the relist before: nobody would wake this pause any more.
    if (signal.aborted) return;
    const leftMs = this.#busyUntilMs - this.#clock.monotonicMs();
    // The first looks come soonest, the later ones only catch a slow machine.
    if (leftMs > 0) ms = Math.min(ms, leftMs > settle.lastsMs - 4 * settle.stepMs ? settle.stepMs : 8 * settle.stepMs);
    const wait = new AbortController();
    const stop = () => wait.abort();
    signal.addEventListener("abort", stop, { once: true });
    if (leftMs <= 0) this.#wake = stop;
    // Rejects only because it was woken.
    await pause(this.#clock, ms, wait.signal);
    this.#wake = () => {};
    signal.removeEventListener("abort", stop);
  }

  async #fold(
    sandboxes: readonly cri.PodSandbox[],
    containers: readonly cri.Container[],
  ): Promise<Map<string, PodObservation>> {
    const pods = new Map<
      string,
      { uid: string; name: string; namespace: string; sandboxes: ObservedSandbox[]; containers: ObservedContainer[] }
    >();
    const entry = (from: Readonly<Record<string, string>>) => {
      const uid = from[labels.podUid] ?? "";
      let pod = pods.get(uid);
      if (!pod) {
        pod = {
          uid,
          name: from[labels.podName] ?? "",
          namespace: from[labels.podNamespace] ?? "",
          sandboxes: [],
          containers: [],
        };
        pods.set(uid, pod);
      }
      return pod;
    };
    for (const sandbox of sandboxes) {
      // A container that was removed between list and status is simply not there.
      const seen = await this.#sandbox(sandbox).catch(notThere);
      if (seen) entry(sandbox.labels).sandboxes.push(seen);
    }
    for (const container of containers) {
      const seen = await this.#container(container).catch(notThere);
      if (seen) entry(container.labels).containers.push(seen);
    }
    for (const pod of pods.values()) {
      pod.sandboxes.sort((a, b) => b.attempt - a.attempt || b.createdAtMs - a.createdAtMs);
      pod.containers.sort((a, b) => b.createdAtMs - a.createdAtMs || b.attempt - a.attempt);
    }
    return pods;
  }

  async #sandbox(listed: cri.PodSandbox): Promise<ObservedSandbox | undefined> {
    const ready = listed.state === cri.PodSandboxState.SANDBOX_READY;
    const known = this.#sandboxes.get(listed.id);
    if (known && known.ready === ready) return known;
    const status = await this.#cri.sandboxStatus(listed.id);
    if (!status) return undefined;
    const network = status.network;
    const ips = [network?.ip ?? "", ...(network?.additionalIps ?? []).map((a) => a.ip)].filter((ip) => ip !== "");
    const sandbox: ObservedSandbox = {
      id: listed.id,
      attempt: listed.metadata?.attempt ?? 0,
      ready: status.state === cri.PodSandboxState.SANDBOX_READY,
      createdAtMs: toMs(listed.createdAt),
      ips,
    };
    this.#sandboxes.set(listed.id, sandbox);
    return sandbox;
  }

  async #container(listed: cri.Container): Promise<ObservedContainer | undefined> {
    const state = states[listed.state] ?? "unknown";
    const known = this.#containers.get(listed.id);
    if (known && known.state === state) return known;
    const status = await this.#cri.containerStatus(listed.id);
    if (!status) return undefined;
    const container: ObservedContainer = {
      id: listed.id,
      name: listed.labels[labels.containerName] ?? listed.metadata?.name ?? "",
      sandboxId: listed.podSandboxId,
      attempt: listed.metadata?.attempt ?? 0,
      state: states[status.state] ?? "unknown",
      createdAtMs: toMs(status.createdAt),
      startedAtMs: toMs(status.startedAt),
      finishedAtMs: toMs(status.finishedAt),
      exitCode: status.exitCode,
      reason: status.reason,
      message: status.message,
      image: status.image?.image ?? "",
      imageId: status.imageRef,
      hash: listed.annotations[annotations.hash] ?? "",
      logPath: status.logPath,
      ...(this.#withLimits ? limitsOf(status.resources?.linux) : {}),
      ...madeWith(listed.annotations[annotations.resources]),
    };
    this.#containers.set(listed.id, container);
    return container;
  }

  #forget(sandboxIds: ReadonlySet<string>, containerIds: ReadonlySet<string>): void {
    for (const id of this.#sandboxes.keys()) if (!sandboxIds.has(id)) this.#sandboxes.delete(id);
    for (const id of this.#containers.keys()) if (!containerIds.has(id)) this.#containers.delete(id);
  }
}

function notThere(error: unknown): undefined {
  if (isGrpcError(error, "NOT_FOUND")) return undefined;
  throw error;
}

/** Absent where the runtime does not say. */
function limitsOf(linux: cri.LinuxContainerResources | undefined): Pick<ObservedContainer, "limits"> {
  if (!linux) return {};
  const amount = (value: number | bigint) => Math.max(0, Number(value));
  return {
    limits: {
      cpuShares: amount(linux.cpuShares),
      cpuQuotaUs: amount(linux.cpuQuota),
      memoryBytes: amount(linux.memoryLimitInBytes),
    },
  };
}

function madeWith(text: string | undefined): Pick<ObservedContainer, "madeWith"> {
  if (!text) return {};
  try {
    return { madeWith: JSON.parse(text) as ResourceRequirements };
  } catch {
    // Written by something else: as if it were not there.
    return {};
  }
}

/** Nanoseconds since 1970; containerd gives negative numbers for times that were never set. */
const toMs = (nanoseconds: number | bigint): number => Math.max(0, Math.floor(Number(nanoseconds) / 1e6));

const signature = (pod: PodObservation | undefined): string =>
  pod
    ? [...pod.sandboxes.map((s) => `${s.id}${s.ready}`), ...pod.containers.map((c) => `${c.id}${c.state}`)].join()
    : "";
