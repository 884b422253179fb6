// What runs, by pod: two CRI lists folded into PodObservations. Lists are cheap and level-triggered; details that lists
// leave out (exit codes, addresses) are asked once per change of state. containerd's events cut the time to notice an end from
// the relist period to milliseconds, so the period can be long and an idle node stays idle. An end is asked about alone: lists
// of a full node for every container that ends are most of what its agent would do.
// Counterpart: the kubelet's PLEG.
import { type Clock, pause } from "#base/clock.ts";
import { isAbort, messageOf } from "#base/errors.ts";
import { familyOfIp, type IpFamily } from "#base/ip-range.ts";
import type { Logger } from "#base/log.ts";
import type { ResourceRequirements } from "#model/gen/core-v1.ts";
import * as cri from "#wire/gen/cri.ts";
import { isGrpcError } from "#wire/grpc.ts";
import { machineOomKills } from "./cgroups.ts";
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
/** CRI learns of an end a moment after its event: it is asked after these pauses until it has. */
const settleMs = [0, 10, 40, 100, 200, 400, 800] as const;
/** An end of what was in no list yet: lists follow quickly until it must be in one. */
const settle = { stepMs: 50, lastsMs: 1_500 } as const;
/** Containers that ran out of memory and are still listed, or not yet: more than a node has. */
const maxRemembered = 1024;
/** On a busy machine the runtime shows an end seconds after the kernel counts it. */
const unclaimedMs = 20_000;
/** Exit code of what the kernel ends, and of much else that is killed. */
const killedExitCode = 137;
const oomReason = "OOMKilled";

const states: Readonly<Record<number, ContainerState>> = {
  [cri.ContainerState.CONTAINER_CREATED]: "created",
  [cri.ContainerState.CONTAINER_RUNNING]: "running",
  [cri.ContainerState.CONTAINER_EXITED]: "exited",
  [cri.ContainerState.CONTAINER_UNKNOWN]: "unknown",
};

/** The first address of each family, the cluster's first family before the other, whatever order a plugin gave them in. */
export function podIpsInOrder(ips: readonly string[], first: IpFamily): string[] {
  const one = ips.find((ip) => familyOfIp(ip) === first);
  const other = ips.find((ip) => familyOfIp(ip) !== first);
  return [one, other].flatMap((ip) => ip ?? []);
}

export interface RuntimeCacheDeps {
  readonly cri: Cri;
  readonly clock: Clock;
  readonly log: Logger;
  readonly withLimits?: boolean;
  /** Of the address that a pod with two is known by. Default IPv4. */
  readonly ipFamily?: IpFamily;
  /** What the kernel counts for a pod as a whole. */
  readonly oomKills: (podUid: string) => number | undefined;
  /** And for everything. Default: /proc/vmstat. */
  readonly machineOomKills?: () => number | undefined;
}

export class RuntimeCache {
  readonly #cri: Cri;
  readonly #clock: Clock;
  readonly #log: Logger;
  #pods = new Map<string, PodObservation>();
  /** Details of containers and sandboxes by id and state, kept while they are listed. */
  #containers = new Map<string, ObservedContainer>();
  #sandboxes = new Map<string, ObservedSandbox>();
  /** Whose they are: uids of pods by id of container or sandbox, kept as long. */
  #owners = new Map<string, string>();
  /** Containers that ran out of memory, kept as long. */
  #outOfMemory = new Set<string>();
  /** By pod uid: processes that were ended for lack of memory and are accounted for. */
  #oomKills = new Map<string, number>();
  readonly #readOomKills: (podUid: string) => number | undefined;
  readonly #machineOomKills: () => number | undefined;
  /** Of the machine: old ones, and those of containers since. */
  #knownMachineKills: number | undefined;
  #machineKillsThen: { readonly kills: number; readonly untilMs: number } | undefined;
  /** Whether it is asked what containers are held to: where pods can be resized. */
  readonly #withLimits: boolean;
  readonly #ipFamily: IpFamily;
  #eventsLive = false;
  #wake: () => void = () => {};
  /** Until when lists follow each other quickly, on the monotonic clock. */
  #busyUntilMs = 0;
  /** Called with the uid of every pod whose observation changed in a relist. */
  onChange: (podUid: string) => void = () => {};
  /** When lists last succeeded, on the monotonic clock: the runtime's health. */
  lastRelistMs: number | undefined;

  constructor(deps: RuntimeCacheDeps) {
    this.#withLimits = deps.withLimits ?? false;
    this.#ipFamily = deps.ipFamily ?? "IPv4";
    this.#readOomKills = deps.oomKills;
    this.#machineOomKills = deps.machineOomKills ?? machineOomKills;
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
    this.#noteMachineKills();
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
    const events = this.#followEvents(signal);
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

  async #followEvents(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        this.#eventsLive = true;
        for await (const { kind, containerId } of this.#cri.taskEvents(signal)) {
          if (kind === "oom") this.#ranOut(containerId);
          else void this.#ended(containerId, signal);
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

  /** Tells once the runtime shows the end. Never rejects. */
  async #ended(id: string, signal: AbortSignal): Promise<void> {
    const uid = this.#owners.get(id);
    try {
      for (const ms of uid === undefined ? [] : settleMs) {
        if (ms > 0) await pause(this.#clock, ms, signal);
        if (signal.aborted) return;
        if (!(await this.#shows(id))) continue;
        this.onChange(uid!);
        return;
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#log.debug("cannot ask about a container that has ended", { id, error: messageOf(error) });
    }
    this.#busyUntilMs = this.#clock.monotonicMs() + settle.lastsMs;
    this.#wake();
  }

  /** Whether the runtime shows that the container or sandbox runs no more. */
  async #shows(id: string): Promise<boolean> {
    try {
      if (this.#sandboxes.has(id)) {
        return (await this.#cri.sandboxStatus(id))?.state !== cri.PodSandboxState.SANDBOX_READY;
      }
      return (await this.#cri.containerStatus(id))?.state !== cri.ContainerState.CONTAINER_RUNNING;
    } catch (error) {
      return notThere(error) === undefined;
    }
  }

  #ranOut(id: string): void {
    if (this.#outOfMemory.has(id)) return;
    // It may be so young that no list has had it.
    this.#outOfMemory.add(id);
    for (const oldest of this.#outOfMemory) {
      if (this.#outOfMemory.size <= maxRemembered) break;
      this.#outOfMemory.delete(oldest);
    }
    const uid = this.#owners.get(id);
    if (uid === undefined) return;
    const known = this.#containers.get(id);
    if (known?.state !== "exited" || known.reason === oomReason) return;
    // Told otherwise already: what is not final yet is put right.
    this.#containers.delete(id);
    this.onChange(uid);
  }

  /**
   * Whether a container that was killed was so for lack of memory. The runtime may not have heard of it yet, and on cgroup
   * v1 may never hear: its cgroup is gone when it looks. The kernel counts at once: for the pod as a whole on v2, else for the
   * machine, which is believed for containers that have a limit.
   */
  #isOutOfMemory(id: string, uid: string, hasLimit: boolean): boolean {
    if (this.#outOfMemory.has(id)) return true;
    const [before, now] = [this.#oomKills.get(uid), this.#readOomKills(uid)];
    if (before !== undefined && now !== undefined) return now > before;
    const kills = hasLimit ? this.#machineOomKills() : undefined;
    return kills !== undefined && this.#knownMachineKills !== undefined && kills > this.#knownMachineKills;
  }

  /** What was there a while ago and is of no container yet is of none. */
  #noteMachineKills(): void {
    const [kills, nowMs] = [this.#machineOomKills(), this.#clock.monotonicMs()];
    const sample = this.#machineKillsThen;
    if (kills === undefined || (sample && nowMs < sample.untilMs)) return;
    this.#knownMachineKills = Math.max(this.#knownMachineKills ?? 0, sample?.kills ?? kills);
    this.#machineKillsThen = { kills, untilMs: nowMs + unclaimedMs };
  }

  /** One kill is one container's, so that the next one is judged by its own. */
  #countOom(uid: string): void {
    const [before, now] = [this.#oomKills.get(uid), this.#readOomKills(uid)];
    if (before !== undefined && now !== undefined) this.#oomKills.set(uid, Math.min(now, before + 1));
    const kills = this.#machineOomKills();
    if (kills !== undefined && this.#knownMachineKills !== undefined) {
      this.#knownMachineKills = Math.min(kills, this.#knownMachineKills + 1);
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
    // A container that was removed between list and status is simply not there.
    const [seenSandboxes, seenContainers] = await Promise.all([
      Promise.all(sandboxes.map((sandbox) => this.#sandbox(sandbox).catch(notThere))),
      Promise.all(containers.map((container) => this.#container(container).catch(notThere))),
    ]);
    for (const [i, seen] of seenSandboxes.entries()) if (seen) entry(sandboxes[i]!.labels).sandboxes.push(seen);
    for (const [i, seen] of seenContainers.entries()) if (seen) entry(containers[i]!.labels).containers.push(seen);
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
    const all = [network?.ip ?? "", ...(network?.additionalIps ?? []).map((a) => a.ip)].filter((ip) => ip !== "");
    const ips = podIpsInOrder(all, this.#ipFamily);
    const sandbox: ObservedSandbox = {
      id: listed.id,
      attempt: listed.metadata?.attempt ?? 0,
      ready: status.state === cri.PodSandboxState.SANDBOX_READY,
      createdAtMs: toMs(listed.createdAt),
      ips,
    };
    this.#sandboxes.set(listed.id, sandbox);
    this.#owners.set(listed.id, listed.labels[labels.podUid] ?? "");
    return sandbox;
  }

  async #container(listed: cri.Container): Promise<ObservedContainer | undefined> {
    const state = states[listed.state] ?? "unknown";
    const known = this.#containers.get(listed.id);
    if (known && known.state === state) return known;
    const status = await this.#cri.containerStatus(listed.id);
    if (!status) return undefined;
    const uid = listed.labels[labels.podUid] ?? "";
    this.#owners.set(listed.id, uid);
    const isRunning = status.state === cri.ContainerState.CONTAINER_RUNNING;
    const kills = isRunning ? this.#readOomKills(uid) : undefined;
    if (kills !== undefined && known?.state !== "running") this.#oomKills.set(uid, kills);
    const made = madeWith(listed.annotations[annotations.resources]);
    let { reason } = status;
    if (status.state === cri.ContainerState.CONTAINER_EXITED && status.exitCode === killedExitCode) {
      const hasLimit = made.madeWith?.limits?.["memory"] !== undefined;
      if (reason !== oomReason && this.#isOutOfMemory(listed.id, uid, hasLimit)) reason = oomReason;
      if (reason === oomReason && known?.reason !== oomReason) this.#countOom(uid);
      if (reason === oomReason) this.#outOfMemory.add(listed.id);
    }
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
      reason,
      message: status.message,
      image: status.image?.image ?? "",
      imageId: status.imageRef,
      hash: listed.annotations[annotations.hash] ?? "",
      logPath: status.logPath,
      ...(this.#withLimits ? limitsOf(status.resources?.linux) : {}),
      ...made,
    };
    this.#containers.set(listed.id, container);
    return container;
  }

  #forget(sandboxIds: ReadonlySet<string>, containerIds: ReadonlySet<string>): void {
    const isGone = (id: string) => !sandboxIds.has(id) && !containerIds.has(id);
    // What nobody owns may be younger than the list.
    for (const id of this.#outOfMemory) if (isGone(id) && this.#owners.has(id)) this.#outOfMemory.delete(id);
    for (const map of [this.#sandboxes, this.#containers, this.#owners]) {
      for (const id of map.keys()) if (isGone(id)) map.delete(id);
    }
    const uids = new Set(this.#owners.values());
    for (const uid of this.#oomKills.keys()) if (!uids.has(uid)) this.#oomKills.delete(uid);
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
