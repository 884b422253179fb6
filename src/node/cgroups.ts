// The cgroup of a pod as a whole, above those that runc makes for its containers. Works on v1 (one tree per controller)
// and v2 (one tree). Limits are best effort: where a controller is missing, containers still have their own.

import type { Pod } from "#model/gen/core-v1.ts";
import { exists, listFolder, readFileIfExists } from "#platform/files.ts";
import { writeExisting } from "#platform/folders.ts";
import {
  kernelFoldersIn,
  kernelPathExists,
  makeKernelFolder,
  readKernelFile,
  removeKernelFolder,
  writeKernelFile,
} from "#platform/kernel-files.ts";
import { podsCgroupOf } from "./configuration.ts";
import { type LinuxLimits, podLimits, qosClass } from "./pods/resources.ts";
import { cgroupRoot, isUnified, parseStat, readCgroup } from "./stats/kernel.ts";

/** Of v1: the trees that hold limits. The others get their folders from runc. */
const limited = { cpu: "cpu", memory: "memory", pids: "pids", hugePages: "hugetlb" } as const;

/** Of pods together: their huge pages are bounded by what each of them may have. */
export interface GroupLimits extends Omit<LinuxLimits, "hugePageBytes"> {
  readonly hugePageBytes: LinuxLimits["hugePageBytes"] | undefined;
}

/** `maxPids`: processes the pod may have; 0 for no bound. */
export async function applyPodCgroup(path: string, limits: GroupLimits, maxPids = 0, root = cgroupRoot): Promise<void> {
  if (kernelPathExists(`${root}/cgroup.controllers`)) {
    const parts = path.split("/").filter((part) => part !== "");
    let at = root;
    for (const part of parts) {
      const handedOn = controllersToHandOn(readKernelFile(`${at}/cgroup.controllers`));
      // Most often all of them are, and the kernel walks the whole tree for each write.
      const missing =
        handedOn !== "" && handedOn !== controllersToHandOn(readKernelFile(`${at}/cgroup.subtree_control`));
      if (missing) writeKernelFile(`${at}/cgroup.subtree_control`, handedOn);
      at = `${at}/${part}`;
      makeKernelFolder(at);
    }
    writeKernelFile(`${at}/cpu.weight`, String(weightOf(limits.cpuShares)));
    writeKernelFile(`${at}/cpu.max`, `${limits.cpuQuotaUs > 0 ? limits.cpuQuotaUs : "max"} ${limits.cpuPeriodUs}`);
    // May take memory back from who has it, which takes time.
    await writeExisting(`${at}/memory.max`, limits.memoryBytes > 0 ? String(limits.memoryBytes) : "max");
    writeKernelFile(`${at}/pids.max`, maxPids > 0 ? String(maxPids) : "max");
    await limitHugePages(at, limits.hugePageBytes);
    return;
  }
  const cpu = `${root}/${limited.cpu}`;
  if (kernelPathExists(cpu)) {
    makeKernelFolder(`${cpu}${path}`);
    writeKernelFile(`${cpu}${path}/cpu.shares`, String(limits.cpuShares));
    if (limits.cpuQuotaUs > 0) {
      writeKernelFile(`${cpu}${path}/cpu.cfs_period_us`, String(limits.cpuPeriodUs));
      writeKernelFile(`${cpu}${path}/cpu.cfs_quota_us`, String(limits.cpuQuotaUs));
    }
  }
  const memory = `${root}/${limited.memory}`;
  if (kernelPathExists(memory)) {
    if (limits.memoryBytes > 0) makeKernelFolder(`${memory}${path}`);
    // Where there is a folder, it may have the limit of an earlier start.
    await writeExisting(`${memory}${path}/memory.limit_in_bytes`, String(limits.memoryBytes || -1));
  }
  const pids = `${root}/${limited.pids}`;
  if (kernelPathExists(pids)) {
    if (maxPids > 0) makeKernelFolder(`${pids}${path}`);
    writeKernelFile(`${pids}${path}/pids.max`, maxPids > 0 ? String(maxPids) : "max");
  }
  const hugePages = `${root}/${limited.hugePages}`;
  if (limits.hugePageBytes && kernelPathExists(hugePages)) {
    makeKernelFolder(`${hugePages}${path}`);
    await limitHugePages(`${hugePages}${path}`, limits.hugePageBytes);
  }
}

/** Limits of pages in use and of pages set aside, of both versions. */
const hugePageLimit = /^hugetlb\.([^.]+)\.(?:rsvd\.)?(?:max|limit_in_bytes)$/;

/** Of sizes that are not asked for there are none. The kernel's files say which sizes it has, and whether it limits them. */
async function limitHugePages(folder: string, bytes: LinuxLimits["hugePageBytes"] | undefined): Promise<void> {
  if (!bytes) return;
  for (const { name } of await listFolder(folder)) {
    const size = hugePageLimit.exec(name)?.[1];
    if (size !== undefined) await writeExisting(`${folder}/${name}`, String(bytes[size] ?? 0));
  }
}

/** What to write to `cgroup.subtree_control`: a controller that the kernel lacks (hugetlb on ARMv7) makes the write EINVAL. */
export function controllersToHandOn(available: string): string {
  const there = new Set(available.trim().split(/\s+/));
  return ["cpu", "memory", "pids", "cpuset", "hugetlb"]
    .filter((name) => there.has(name))
    .map((name) => `+${name}`)
    .join(" ");
}

/** Without one of these its limits are not kept, and a container that has such a limit does not start. */
const needed = ["cpu", "cpuset", "memory", "pids"];

/** Controllers that the kernel has and that are switched on, and those of the needed ones that it lacks. */
export async function controllers(): Promise<{ readonly present: ReadonlySet<string>; readonly missing: string[] }> {
  const names = (await isUnified())
    ? ((await readFileIfExists(`${cgroupRoot}/cgroup.controllers`))?.toString("utf8") ?? "").trim().split(/\s+/)
    : (await listFolder(cgroupRoot)).map((entry) => entry.name);
  return { present: new Set(names), missing: needed.filter((name) => !names.includes(name)) };
}

/**
 * Weights of the classes below `podsCgroup`: burstable pods together get what they requested, best effort ones the least. And
 * what all pods together may take, where something is reserved for others.
 */
export async function applyNodeCgroups(
  pods: readonly Pod[],
  bounds: {
    readonly memoryBytes: number;
    readonly milliCpu: number;
    readonly pids: number;
    readonly podsCgroup: string;
  },
): Promise<void> {
  const { podsCgroup } = bounds;
  const burstable = pods.filter((pod) => qosClass(pod) === "Burstable");
  const shares = burstable.reduce((sum, pod) => sum + podLimits(pod).cpuShares, 0);
  const none = { cpuQuotaUs: 0, cpuPeriodUs: 100_000, memoryBytes: 0, hugePageBytes: undefined };
  const all = {
    ...none,
    cpuShares: Math.max(2, Math.floor((bounds.milliCpu * 1024) / 1000)),
    memoryBytes: bounds.memoryBytes,
  };
  await applyPodCgroup(podsCgroup, all, bounds.pids);
  await applyPodCgroup(`${podsCgroup}/burstable`, { ...none, cpuShares: Math.min(262_144, Math.max(2, shares)) });
  await applyPodCgroup(`${podsCgroup}/besteffort`, { ...none, cpuShares: 2 });
}

const classes = ["", "/burstable", "/besteffort"] as const;

/** Removes the pod's folders once its containers are gone; what is still busy stays for the next time. */
export function removePodCgroups(podUid: string, podsCgroup: string): void {
  // The QoS class of a pod that only the runtime remembers is not known, so all three places are looked at.
  for (const qos of classes) removeCgroup(`${podsCgroup}${qos}/pod${podUid}`);
}

/** Every cgroup of pods below this one, with it; when all of them have ended. */
export const removeAllCgroups = (podsCgroup = podsCgroupOf("/")): void => removeCgroup(podsCgroup);

function removeCgroup(path: string): void {
  const isUnified = kernelPathExists(`${cgroupRoot}/cgroup.controllers`);
  const trees = isUnified
    ? [cgroupRoot]
    : kernelFoldersIn(cgroupRoot).map((controller) => `${cgroupRoot}/${controller}`);
  for (const tree of trees) removeNested(`${tree}${path}`);
}

/** runc leaves empty folders in trees it does not limit (v1 beside a bare v2), so children go first. */
function removeNested(path: string): void {
  if (!kernelPathExists(path)) return;
  for (const child of kernelFoldersIn(path)) removeNested(`${path}/${child}`);
  removeKernelFolder(path);
}

/** Processes of a pod that the kernel ended for lack of memory; undefined where its cgroup does not tell (v1, or gone). */
export function podOomKills(podUid: string, podsCgroup: string, root = cgroupRoot): number | undefined {
  for (const qos of classes) {
    const text = readKernelFile(`${root}${podsCgroup}${qos}/pod${podUid}/memory.events`);
    if (text !== "") return parseStat(text).get("oom_kill");
  }
  return undefined;
}

/** The same of everything on the machine. */
export const machineOomKills = (): number | undefined => parseStat(readKernelFile("/proc/vmstat")).get("oom_kill");

/** v1 shares 2..262144 onto v2 weight 1..10000, as runc does. */
export const weightOf = (shares: number): number => 1 + Math.floor(((shares - 2) * 9999) / 262142);

export interface PodLimitsNow extends Pick<LinuxLimits, "cpuQuotaUs" | "memoryBytes"> {
  readonly unified: boolean;
}

/** The limits that a pod's cgroup has now; 0 for none, and where there is no such cgroup. */
export async function readPodLimits(path: string, at = cgroupRoot): Promise<PodLimitsNow> {
  const unified = await isUnified(at);
  const file = unified ? `${at}${path}/cpu.max` : `${at}/${limited.cpu}${path}/cpu.cfs_quota_us`;
  // "max" and -1 are none.
  const quota = Number.parseInt(readKernelFile(file), 10);
  const { limitBytes } = readCgroup(path, { unified, root: at });
  return { unified, cpuQuotaUs: Math.max(0, quota || 0), memoryBytes: limitBytes };
}

/** Whether containers without a memory limit can be kept from swapping; asked once the cgroup of all pods is there. */
export const canForbidSwap = (podsCgroup: string): Promise<boolean> =>
  exists(`${cgroupRoot}${podsCgroup}/memory.swap.max`);

/** Of the setting `cgroupRoot`: trees of the kernel in which it has no such cgroup, for pods are not put elsewhere instead. */
export function treesWithout(path: string, root = cgroupRoot): string[] {
  const isUnified = kernelPathExists(`${root}/cgroup.controllers`);
  const trees = isUnified ? [root] : Object.values(limited).map((controller) => `${root}/${controller}`);
  return trees.filter((tree) => kernelPathExists(tree) && !kernelPathExists(`${tree}${path}`));
}
