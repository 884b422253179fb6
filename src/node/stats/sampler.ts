// Samples of what the node and its pods use. Nothing is sampled unless somebody asks: an idle node stays idle. CPU rates need
// two samples; the first question after a long pause takes both, a second apart. Disk usage is walked at most once a minute
// per pod, because it reads folders. Bounded by the pods of this node.
import type { Clock } from "#base/clock.ts";
import type { Pod } from "#model/gen/core-v1.ts";
import { fileSystemSize, folderUsage } from "#platform/folders.ts";
import type { Cri } from "../cri.ts";
import { podLogFolder } from "../pods/cri-config.ts";
import { type PodObservation, readySandbox } from "../pods/observation.ts";
import { podCgroup } from "../pods/resources.ts";
import { firstProcess, isUnified, readCgroup, readMachineUsage, readNetwork } from "./kernel.ts";
import type { ContainerUsage, NetworkUsage, PodUsage, Sample, VolumeUsage } from "./usage.ts";

export interface SamplerDeps {
  readonly cri: Cri;
  readonly clock: Clock;
  /** Pods of this node with what runs of each. */
  readonly pods: () => readonly { readonly pod: Pod; readonly observed: PodObservation }[];
  readonly podLogRoot: string;
  readonly podFolder: (uid: string) => string;
}

/** Asked again within this, the same sample answers. */
const freshMs = 1_000;
/** A rate is taken over at least this, and not over more than `staleMs`. */
const rateMs = 900;
const staleMs = 120_000;
const diskFreshMs = 60_000;
/** What a walk of one volume looks at before it gives up and says what it has. */
const maxEntries = 200_000;

interface DiskUse {
  readonly atMs: number;
  readonly volumes: readonly VolumeUsage[];
  /** By container name. */
  readonly logs: ReadonlyMap<string, { readonly bytes: number; readonly inodes: number }>;
}

interface Counter {
  readonly atMs: number;
  readonly nanoseconds: number;
}

export class Sampler {
  readonly #deps: SamplerDeps;
  #last: Sample | undefined;
  #running: Promise<Sample> | undefined;
  /** CPU counters by cgroup: the one rates are taken from. */
  #counters = new Map<string, Counter>();
  readonly #disks = new Map<string, DiskUse>();

  constructor(deps: SamplerDeps) {
    this.#deps = deps;
  }

  /** The newest sample, with rates; takes what it needs. */
  async sample(): Promise<Sample> {
    const { clock } = this.#deps;
    const nowMs = clock.monotonicMs();
    const ageMs = this.#last ? nowMs - this.#last.atMs : Number.POSITIVE_INFINITY;
    if (ageMs < freshMs && this.#last) return this.#last;
    this.#running ??= this.#take(ageMs > staleMs).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Disk and process use of the pods that `wanted` names, without rates. */
  async usageOf(wanted: (pod: Pod) => boolean): Promise<readonly PodUsage[]> {
    const sample = await this.#collect(wanted);
    return sample.pods;
  }

  async #take(isFirst: boolean): Promise<Sample> {
    if (isFirst) {
      this.#counters.clear();
      await this.#collect(() => true);
      await this.#deps.clock.sleep(freshMs);
    }
    const sample = await this.#collect(() => true);
    this.#last = sample;
    return sample;
  }

  async #collect(wanted: (pod: Pod) => boolean): Promise<Sample> {
    const { cri, clock } = this.#deps;
    const unified = await isUnified();
    const layers = new Map((await cri.containerStats()).map((s) => [s.attributes?.id ?? "", s]));
    const atMs = clock.monotonicMs();
    const all = this.#deps.pods();
    const pods: PodUsage[] = [];
    for (const { pod, observed } of all) {
      if (!wanted(pod) || !readySandbox(observed)) continue;
      pods.push(await this.#pod(pod, observed, layers, unified));
    }
    this.#forget(new Set(all.map(({ pod }) => pod.metadata.uid ?? "")));
    const machine = await readMachineUsage();
    const node = {
      ...machine,
      cpuNanoCores: this.#rate("/", machine.cpuNanoseconds),
      network: await readNetwork("self"),
    };
    return { atMs, node, pods };
  }

  async #pod(
    pod: Pod,
    observed: PodObservation,
    layers: ReadonlyMap<string, Awaited<ReturnType<Cri["containerStats"]>>[number]>,
    unified: boolean,
  ): Promise<PodUsage> {
    const uid = pod.metadata.uid ?? "";
    const cgroup = podCgroup(pod);
    const total = await readCgroup(cgroup, unified);
    const disk = await this.#disk(pod);
    const sandbox = readySandbox(observed)!;
    const containers: ContainerUsage[] = [];
    for (const seen of observed.containers) {
      if (seen.state !== "running") continue;
      const path = `${cgroup}/${seen.id}`;
      const use = await readCgroup(path, unified);
      const layer = layers.get(seen.id)?.writableLayer;
      const log = disk.logs.get(seen.name) ?? { bytes: 0, inodes: 0 };
      const rootfsBytes = Number(layer?.usedBytes?.value ?? 0);
      containers.push({
        ...use,
        name: seen.name,
        containerId: seen.id,
        startedAtMs: seen.startedAtMs,
        cpuNanoCores: this.#rate(path, use.cpuNanoseconds),
        rootfsBytes,
        rootfsInodes: Number(layer?.inodesUsed?.value ?? 0),
        logBytes: log.bytes,
        logInodes: log.inodes,
        diskBytes: rootfsBytes + log.bytes,
      });
    }
    let network: readonly NetworkUsage[] = [];
    if (!pod.spec.hostNetwork) {
      const pid = await firstProcess(`${cgroup}/${sandbox.id}`, unified);
      if (pid > 0) network = await readNetwork(pid);
    }
    const local = disk.volumes.filter((v) => v.isEphemeral);
    const sum = <T>(list: readonly T[], pick: (item: T) => number) => list.reduce((out, item) => out + pick(item), 0);
    return {
      ...total,
      uid,
      namespace: pod.metadata.namespace ?? "",
      name: pod.metadata.name ?? "",
      startedAtMs: sandbox.createdAtMs,
      cpuNanoCores: this.#rate(cgroup, total.cpuNanoseconds),
      ephemeralBytes: sum(containers, (c) => c.diskBytes) + sum(local, (v) => v.bytes),
      ephemeralInodes: sum(containers, (c) => c.rootfsInodes + c.logInodes) + sum(local, (v) => v.inodes),
      containers,
      volumes: disk.volumes,
      network,
    };
  }

  async #disk(pod: Pod): Promise<DiskUse> {
    const { clock, podFolder, podLogRoot } = this.#deps;
    const uid = pod.metadata.uid ?? "";
    const known = this.#disks.get(uid);
    if (known && clock.monotonicMs() - known.atMs < diskFreshMs) return known;
    const volumes: VolumeUsage[] = [];
    for (const volume of pod.spec.volumes ?? []) {
      if (!volume.emptyDir) continue;
      const folder = `${podFolder(uid)}/volumes/kubernetes.io~empty-dir/${volume.name}`;
      const used = await folderUsage(folder, maxEntries);
      const size = used ? await fileSystemSize(folder) : undefined;
      if (!used || !size) continue;
      volumes.push({
        name: volume.name,
        ...{ bytes: used.bytes, inodes: used.inodes },
        ...{ capacityBytes: size.totalBytes, availableBytes: size.freeBytes },
        ...{ totalInodes: size.inodes, freeInodes: size.inodesFree },
        isEphemeral: volume.emptyDir.medium !== "Memory",
      });
    }
    const logs = new Map<string, { bytes: number; inodes: number }>();
    const logFolder = podLogFolder(podLogRoot, pod);
    for (const { name } of [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])]) {
      const used = await folderUsage(`${logFolder}/${name}`, maxEntries);
      if (used) logs.set(name, used);
    }
    const disk = { atMs: clock.monotonicMs(), volumes, logs };
    this.#disks.set(uid, disk);
    return disk;
  }

  /** Nanocores since the counter that is old enough; undefined when there is none. */
  #rate(path: string, nanoseconds: number): number | undefined {
    const atMs = this.#deps.clock.monotonicMs();
    const before = this.#counters.get(path);
    if (!before || nanoseconds < before.nanoseconds) {
      this.#counters.set(path, { atMs, nanoseconds });
      return undefined;
    }
    const passedMs = atMs - before.atMs;
    if (passedMs < rateMs) return undefined;
    // Moves on slowly, so that two askers do not leave each other a window of nothing.
    if (passedMs > 10_000) this.#counters.set(path, { atMs, nanoseconds });
    return Math.round(((nanoseconds - before.nanoseconds) / passedMs) * 1000);
  }

  #forget(uids: ReadonlySet<string>): void {
    for (const uid of this.#disks.keys()) if (!uids.has(uid)) this.#disks.delete(uid);
    for (const path of this.#counters.keys()) {
      const uid = /\/pod([^/]+)/.exec(path)?.[1];
      if (uid !== undefined && !uids.has(uid)) this.#counters.delete(path);
    }
  }
}
