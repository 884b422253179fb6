// The cgroup of a pod as a whole, above those that runc makes for its containers. Works on v1 (one tree per controller)
// and v2 (one tree). Limits are best effort: where a controller is missing, containers still have their own.

import type { Pod } from "#model/gen/core-v1.ts";
import { exists, listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { removeEmptyFolder, writeExisting } from "#platform/folders.ts";
import { readKernelFile } from "#platform/kernel-files.ts";
import { type LinuxLimits, podLimits, qosClass } from "./pods/resources.ts";
import { cgroupRoot, isUnified, readCgroup } from "./stats/kernel.ts";

/** Of v1: the trees that hold limits. The others get their folders from runc. */
const limited = { cpu: "cpu", memory: "memory", pids: "pids", hugePages: "hugetlb" } as const;

/** Of pods together: their huge pages are bounded by what each of them may have. */
export interface GroupLimits extends Omit<LinuxLimits, "hugePageBytes"> {
  readonly hugePageBytes: LinuxLimits["hugePageBytes"] | undefined;
}

/** `maxPids`: processes the pod may have; 0 for no bound. */
export async function applyPodCgroup(path: string, limits: GroupLimits, maxPids = 0, root = cgroupRoot): Promise<void> {
  if (await isUnified(root)) {
    const parts = path.split("/").filter((part) => part !== "");
    let at = root;
    for (const part of parts) {
      const available = (await readFileIfExists(`${at}/cgroup.controllers`))?.toString("utf8") ?? "";
      const handedOn = controllersToHandOn(available);
      if (handedOn !== "") await writeExisting(`${at}/cgroup.subtree_control`, handedOn);
      at = `${at}/${part}`;
      await makeFolder(at);
    }
    await writeExisting(`${at}/cpu.weight`, String(weightOf(limits.cpuShares)));
    await writeExisting(`${at}/cpu.max`, `${limits.cpuQuotaUs > 0 ? limits.cpuQuotaUs : "max"} ${limits.cpuPeriodUs}`);
    await writeExisting(`${at}/memory.max`, limits.memoryBytes > 0 ? String(limits.memoryBytes) : "max");
    await writeExisting(`${at}/pids.max`, maxPids > 0 ? String(maxPids) : "max");
    await limitHugePages(at, limits.hugePageBytes);
    return;
  }
  const cpu = `${root}/${limited.cpu}`;
  if (await exists(cpu)) {
    await makeFolder(`${cpu}${path}`);
    await writeExisting(`${cpu}${path}/cpu.shares`, String(limits.cpuShares));
    if (limits.cpuQuotaUs > 0) {
      await writeExisting(`${cpu}${path}/cpu.cfs_period_us`, String(limits.cpuPeriodUs));
      await writeExisting(`${cpu}${path}/cpu.cfs_quota_us`, String(limits.cpuQuotaUs));
    }
  }
  const memory = `${root}/${limited.memory}`;
  if (await exists(memory)) {
    if (limits.memoryBytes > 0) await makeFolder(`${memory}${path}`);
    // Where there is a folder, it may have the limit of an earlier start.
    await writeExisting(`${memory}${path}/memory.limit_in_bytes`, String(limits.memoryBytes || -1));
  }
  const pids = `${root}/${limited.pids}`;
  if (await exists(pids)) {
    if (maxPids > 0) await makeFolder(`${pids}${path}`);
    await writeExisting(`${pids}${path}/pids.max`, maxPids > 0 ? String(maxPids) : "max");
  }
  const hugePages = `${root}/${limited.hugePages}`;
  if (limits.hugePageBytes && (await exists(hugePages))) {
    await makeFolder(`${hugePages}${path}`);
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
 * Weights of the classes below /kubepods: burstable pods together get what they requested, best effort ones the least. And
 * what all pods together may take, where something is reserved for others.
 */
export async function applyNodeCgroups(
  pods: readonly Pod[],
  bounds: { readonly memoryBytes: number; readonly milliCpu: number; readonly pids: number },
): Promise<void> {
  const burstable = pods.filter((pod) => qosClass(pod) === "Burstable");
  const shares = burstable.reduce((sum, pod) => sum + podLimits(pod).cpuShares, 0);
  const none = { cpuQuotaUs: 0, cpuPeriodUs: 100_000, memoryBytes: 0, hugePageBytes: undefined };
  const all = {
    ...none,
    cpuShares: Math.max(2, Math.floor((bounds.milliCpu * 1024) / 1000)),
    memoryBytes: bounds.memoryBytes,
  };
  await applyPodCgroup("/kubepods", all, bounds.pids);
  await applyPodCgroup("/kubepods/burstable", { ...none, cpuShares: Math.min(262_144, Math.max(2, shares)) });
  await applyPodCgroup("/kubepods/besteffort", { ...none, cpuShares: 2 });
}

/** Removes the pod's folders once its containers are gone; what is still busy stays for the next time. */
export async function removePodCgroups(podUid: string): Promise<void> {
  // The QoS class of a pod that only the runtime remembers is not known, so all three places are looked at.
  for (const qos of ["", "/burstable", "/besteffort"]) await removeCgroup(`/kubepods${qos}/pod${podUid}`);
}

/** Every cgroup of pods on this machine; when all of them have ended. */
export const removeAllCgroups = (): Promise<void> => removeCgroup("/kubepods");

async function removeCgroup(path: string): Promise<void> {
  if (await isUnified()) return removeNested(`${cgroupRoot}${path}`);
  for (const controller of await listFolder(cgroupRoot)) {
    if (controller.isDirectory()) await removeNested(`${cgroupRoot}/${controller.name}${path}`);
  }
}

/** runc leaves empty folders in trees it does not limit (v1 beside a bare v2), so children go first. */
async function removeNested(path: string): Promise<void> {
  for (const child of await listFolder(path)) if (child.isDirectory()) await removeNested(`${path}/${child.name}`);
  await removeEmptyFolder(path);
}

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
export const canForbidSwap = (): Promise<boolean> => exists(`${cgroupRoot}/kubepods/memory.swap.max`);
