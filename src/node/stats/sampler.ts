// Samples of what the node and its pods use. Nothing is sampled unless somebody asks: an idle node stays idle. Counters are cheap
// and need no second look; rates need two samples, and the first question after a long pause takes both, a second apart.
// Disk usage is walked at most once a minute per pod, because it reads folders. Bounded by the pods of this node.
import type { Clock } from "#base/clock.ts";
import type { Pod, Volume } from "#model/gen/core-v1.ts";
import { readFileIfExists } from "#platform/files.ts";
import { type FileSystemSize, folderUsage } from "#platform/folders.ts";
import { nextTurn } from "#platform/turns.ts";
import type { Cri } from "../cri.ts";
import { podLogFolder } from "../pods/cri-config.ts";
import { type PodObservation, readySandbox } from "../pods/observation.ts";
import { podCgroup } from "../pods/resources.ts";
import { firstProcess, isUnified, readCgroup, readMachineUsage, readNetwork, readProcess } from "./kernel.ts";
import type {
  CgroupUsage,
  ContainerUsage,
  NetworkUsage,
  NodeUsage,
  PodUsage,
  Sample,
  SystemUsage,
  VolumeUsage,
} from "./usage.ts";
import { VolumeSizes } from "./volume-sizes.ts";

export interface SamplerDeps {
  readonly cri: Pick<Cri, "containerStats">;
  readonly clock: Clock;
  /** Pods of this node with what runs of each. */
  readonly pods: () => readonly { readonly pod: Pod; readonly observed: PodObservation }[];
  readonly podLogRoot: string;
  readonly podFolder: (uid: string) => string;
  /** Where a claim or an inline volume of a driver lies, once it is mounted. */
  readonly mountedAt?: (uid: string, volume: string) => string | undefined;
  /** Default: the kernel's answer. */
  readonly fileSystemSize?: (folder: string) => Promise<FileSystemSize>;
  /** Holds the pid of the container runtime. */
  readonly runtimePidFile?: string;
  /** The cgroup of all pods. */
  readonly podsCgroup: string;
}

/**
 * counters: CPU and memory, for /metrics/resource. usage: what eviction weighs. all: with rates, disks, networks and the rest of
 * what cgroups tell.
 */
type Depth = "counters" | "usage" | "all";

/** Asked again within this, the same sample answers. */
const freshMs = 1_000;
/** A rate is taken over at least this, and not over more than `staleMs`. */
const rateMs = 900;
const staleMs = 120_000;
/** Counters of what has ended go after this; nothing that is still asked for is as old. */
const keptMs = 2 * staleMs;
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

const nothing: CgroupUsage = {
  ...{ cpuNanoseconds: 0, usageBytes: 0, workingSetBytes: 0, rssBytes: 0, swapBytes: 0 },
  ...{ pageFaults: 0, majorPageFaults: 0, processes: 0, limitBytes: 0 },
};

type Layers = ReadonlyMap<string, Awaited<ReturnType<Cri["containerStats"]>>[number]>;

export class Sampler {
  readonly #deps: SamplerDeps;
  #last: Partial<Record<Depth, Sample>> = {};
  #running: Partial<Record<Depth, Promise<Sample>>> = {};
  /** CPU counters by cgroup: the one rates are taken from. */
  #counters = new Map<string, Counter>();
  readonly #disks = new Map<string, DiskUse>();
  readonly #sizes: VolumeSizes;

  constructor(deps: SamplerDeps) {
    this.#deps = deps;
    this.#sizes = new VolumeSizes(deps.clock, deps.fileSystemSize);
  }

  /** The newest sample, with rates; takes what it needs. */
  sample(): Promise<Sample> {
    return this.#fresh("all", () => this.#withRates());
  }

  /** CPU and memory alone, at once. */
  counters(): Promise<Sample> {
    return this.#fresh("counters", () => this.#collect(() => true, "counters"));
  }

  /** Disk and process use of the pods that `wanted` names, without rates. */
  async usageOf(wanted: (pod: Pod) => boolean): Promise<readonly PodUsage[]> {
    const sample = await this.#collect(wanted, "usage");
    return sample.pods;
  }

  async #fresh(depth: Depth, take: () => Promise<Sample>): Promise<Sample> {
    const last = this.#last[depth];
    if (last && this.#deps.clock.monotonicMs() - last.atMs < freshMs) return last;
    this.#running[depth] ??= take()
      .then((sample) => {
        this.#last[depth] = sample;
        return sample;
      })
      .finally(() => {
        delete this.#running[depth];
      });
    return this.#running[depth];
  }

  async #withRates(): Promise<Sample> {
    const { clock } = this.#deps;
    const before = this.#last.all;
    if (!before || clock.monotonicMs() - before.atMs > staleMs) {
      this.#counters.clear();
      await this.#collect(() => true, "all");
      await clock.sleep(freshMs);
    }
    return this.#collect(() => true, "all");
  }

  async #collect(wanted: (pod: Pod) => boolean, depth: Depth): Promise<Sample> {
    const { cri, clock } = this.#deps;
    const unified = await isUnified();
    const layers: Layers =
      depth === "counters" ? new Map() : new Map((await cri.containerStats()).map((s) => [s.attributes?.id ?? "", s]));
    const all = this.#deps.pods();
    this.#forget(new Set(all.map(({ pod }) => pod.metadata.uid ?? "")));
    const [atMs, timeMs] = [clock.monotonicMs(), clock.now()];
    const node = await this.#node(depth, unified);
    const pods: PodUsage[] = [];
    for (const { pod, observed } of all) {
      if (!wanted(pod) || !readySandbox(observed)) continue;
      pods.push(await this.#pod(pod, observed, layers, unified, depth));
      await nextTurn();
    }
    return { atMs, timeMs, node, pods };
  }

  async #node(depth: Depth, unified: boolean): Promise<NodeUsage> {
    const machine = readMachineUsage();
    const isAll = depth === "all";
    const read = (path: string) => ({ path, ...readCgroup(path, { unified, detail: true }) });
    return {
      ...machine,
      cpuNanoCores: isAll ? this.#rate("/", machine.cpuNanoseconds) : undefined,
      network: isAll ? readNetwork("self") : [],
      system: isAll ? await this.#system(machine.bootedAtMs, unified) : [],
      groups: isAll ? ["", "/besteffort", "/burstable"].map((qos) => read(`${this.#deps.podsCgroup}${qos}`)) : [],
    };
  }

  /** The agent is this process, the runtime another; pods are what their cgroup says. */
  async #system(bootedAtMs: number, unified: boolean): Promise<SystemUsage[]> {
    const { runtimePidFile, podsCgroup } = this.#deps;
    const pidText = runtimePidFile === undefined ? undefined : await readFileIfExists(runtimePidFile);
    const runtimePid = Number(pidText?.toString("utf8"));
    const own = readProcess("self", bootedAtMs);
    const runtime = runtimePid > 0 ? readProcess(runtimePid, bootedAtMs) : undefined;
    const pods = readCgroup(podsCgroup, { unified });
    const found: SystemUsage[] = [];
    const add = (name: SystemUsage["name"], use: Omit<SystemUsage, "name" | "cpuNanoCores"> | undefined) => {
      if (use) found.push({ ...use, name, cpuNanoCores: this.#rate(`process:${name}`, use.cpuNanoseconds) });
    };
    add("kubelet", own);
    add("runtime", runtime);
    add("pods", { ...pods, startedAtMs: bootedAtMs });
    return found;
  }

  async #pod(pod: Pod, observed: PodObservation, layers: Layers, unified: boolean, depth: Depth): Promise<PodUsage> {
    const uid = pod.metadata.uid ?? "";
    const cgroup = podCgroup(pod, this.#deps.podsCgroup);
    const [isAll, detail] = [depth === "all", depth === "all"];
    const total = readCgroup(cgroup, { unified, detail });
    const disk = depth === "counters" ? undefined : await this.#disk(pod);
    const sandbox = readySandbox(observed)!;
    const containers: ContainerUsage[] = [];
    for (const seen of observed.containers) {
      if (seen.state !== "running") continue;
      const path = `${cgroup}/${seen.id}`;
      const use = readCgroup(path, { unified, detail });
      const layer = layers.get(seen.id)?.writableLayer;
      const log = disk?.logs.get(seen.name) ?? { bytes: 0, inodes: 0 };
      const rootfsBytes = Number(layer?.usedBytes?.value ?? 0);
      containers.push({
        ...use,
        name: seen.name,
        containerId: seen.id,
        startedAtMs: seen.startedAtMs,
        cpuNanoCores: isAll ? this.#rate(path, use.cpuNanoseconds) : undefined,
        rootfsBytes,
        rootfsInodes: Number(layer?.inodesUsed?.value ?? 0),
        logBytes: log.bytes,
        logInodes: log.inodes,
        diskBytes: rootfsBytes + log.bytes,
      });
    }
    containers.sort((a, b) => (a.name < b.name ? -1 : 1));
    const sandboxCgroup = `${cgroup}/${sandbox.id}`;
    let network: readonly NetworkUsage[] = [];
    if (isAll && !pod.spec.hostNetwork) {
      const pid = firstProcess(sandboxCgroup, unified);
      if (pid > 0) network = readNetwork(pid);
    }
    const local = (disk?.volumes ?? []).filter((v) => v.isEphemeral);
    const sum = <T>(list: readonly T[], pick: (item: T) => number) => list.reduce((out, item) => out + pick(item), 0);
    return {
      ...total,
      uid,
      namespace: pod.metadata.namespace ?? "",
      name: pod.metadata.name ?? "",
      startedAtMs: sandbox.createdAtMs,
      cpuNanoCores: isAll ? this.#rate(cgroup, total.cpuNanoseconds) : undefined,
      ephemeralBytes: sum(containers, (c) => c.diskBytes) + sum(local, (v) => v.bytes),
      ephemeralInodes: sum(containers, (c) => c.rootfsInodes + c.logInodes) + sum(local, (v) => v.inodes),
      containers,
      volumes: disk?.volumes ?? [],
      network,
      sandbox: { id: sandbox.id, ...(isAll ? readCgroup(sandboxCgroup, { unified, detail }) : nothing) },
    };
  }

  async #disk(pod: Pod): Promise<DiskUse> {
    const { clock, podLogRoot } = this.#deps;
    const uid = pod.metadata.uid ?? "";
    const known = this.#disks.get(uid);
    if (known && clock.monotonicMs() - known.atMs < diskFreshMs) return known;
    const volumes: VolumeUsage[] = [];
    for (const volume of pod.spec.volumes ?? []) {
      const used = await this.#volume(pod, volume);
      if (used) volumes.push(used);
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

  /** Folders of the pod's own are walked, file systems behind claims say themselves what is used. */
  async #volume(pod: Pod, volume: Volume): Promise<VolumeUsage | undefined> {
    const { podFolder, mountedAt } = this.#deps;
    const uid = pod.metadata.uid ?? "";
    const isMounted = volume.persistentVolumeClaim !== undefined || volume.ephemeral !== undefined;
    const folder = volume.emptyDir
      ? `${podFolder(uid)}/volumes/kubernetes.io~empty-dir/${volume.name}`
      : isMounted || volume.csi
        ? mountedAt?.(uid, volume.name)
        : volume.configMap || volume.secret || volume.downwardAPI || volume.projected
          ? apiVolumeFolder(podFolder(uid), volume.name)
          : undefined;
    if (folder === undefined) return undefined;
    // Not mounted yet, or whoever serves it is away: this volume has no figures, the others do.
    const size = await this.#sizes.of(folder);
    if (!size) return undefined;
    const used =
      isMounted || volume.csi
        ? { bytes: size.totalBytes - size.freeBytes, inodes: Math.max(0, size.inodes - size.inodesFree) }
        : await folderUsage(folder, maxEntries);
    if (!used) return undefined;
    const claimName = volume.persistentVolumeClaim?.claimName ?? `${pod.metadata.name}-${volume.name}`;
    return {
      name: volume.name,
      ...{ bytes: used.bytes, inodes: used.inodes },
      ...{ capacityBytes: size.totalBytes, availableBytes: size.freeBytes },
      ...{ totalInodes: size.inodes, freeInodes: size.inodesFree },
      isEphemeral: volume.emptyDir !== undefined && volume.emptyDir.medium !== "Memory",
      ...(isMounted ? { claim: { name: claimName, namespace: pod.metadata.namespace ?? "" } } : {}),
    };
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
    // By age, not by pod: one that crashes has a new container every few minutes, for years.
    const nowMs = this.#deps.clock.monotonicMs();
    for (const [path, { atMs }] of this.#counters) if (nowMs - atMs > keptMs) this.#counters.delete(path);
  }
}

/** What comes from the API lies on the tmpfs that all pods share, beside their folders. */
function apiVolumeFolder(podFolder: string, volume: string): string {
  const at = podFolder.lastIndexOf("/");
  return `${podFolder.slice(0, at)}/.memory${podFolder.slice(at)}/${volume}`;
}
