// Numbers from the kernel's own files: cgroups of both versions, /proc of the machine and of one process. Parsers are pure; the
// readers give zeros for what is not there, because cgroups come and go while they are read. Each costs microseconds a file; who
// reads many yields in between.
// Counterpart: cadvisor's container handlers, as far as dashboards look at them.
import { exists } from "#platform/files.ts";
import { readKernelFile as text } from "#platform/kernel-files.ts";
import type { CgroupDetail, CgroupUsage, DeviceUse, MachineUsage, NetworkUsage } from "./usage.ts";

/** Where cgroups are mounted. */
export const cgroupRoot = "/sys/fs/cgroup";

/** `detail`: what only the cadvisor metrics show; costs four times as many files. */
export interface CgroupQuestion {
  readonly unified: boolean;
  readonly detail?: boolean;
  readonly root?: string;
}

/** What v1 shows where there is no limit: at least this on 64 bits, exactly as many pages as a number holds on 32. */
const unlimited = 2 ** 60;
const unlimitedOn32Bits = (2 ** 31 - 1) * 4096;

/** `key value` lines. */
export function parseStat(content: string): ReadonlyMap<string, number> {
  const out = new Map<string, number>();
  for (const line of content.split("\n")) {
    const at = line.indexOf(" ");
    if (at > 0) out.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return out;
}

export const isUnified = (root = cgroupRoot): Promise<boolean> => exists(`${root}/cgroup.controllers`);

/** Usage of the cgroup at `path`, with everything below it. */
export function readCgroup(path: string, question: CgroupQuestion): CgroupUsage {
  const root = question.root ?? cgroupRoot;
  return question.unified
    ? readUnified(`${root}${path}`, question.detail === true)
    : readSplit(root, path, question.detail === true);
}

function readUnified(folder: string, withDetail: boolean): CgroupUsage {
  const read = (file: string) => text(`${folder}/${file}`);
  const [cpu, current, stat, pids, max, swap] = [
    "cpu.stat",
    "memory.current",
    "memory.stat",
    "pids.current",
    "memory.max",
    "memory.swap.current",
  ].map(read);
  const memory = parseStat(stat ?? "");
  const cpuStat = parseStat(cpu ?? "");
  const usageBytes = Number(current) || 0;
  const usage = {
    cpuNanoseconds: (cpuStat.get("usage_usec") ?? 0) * 1000,
    usageBytes,
    workingSetBytes: Math.max(0, usageBytes - (memory.get("inactive_file") ?? 0)),
    rssBytes: memory.get("anon") ?? 0,
    swapBytes: Number(swap) || 0,
    pageFaults: memory.get("pgfault") ?? 0,
    majorPageFaults: memory.get("pgmajfault") ?? 0,
    processes: Number(pids) || 0,
    limitBytes: Number.parseInt(max ?? "", 10) || 0,
  };
  if (!withDetail) return usage;
  const [peak, events, maxPids, io] = ["memory.peak", "memory.events", "pids.max", "io.stat"].map(read);
  const memoryEvents = parseStat(events ?? "");
  const detail: CgroupDetail = {
    userNanoseconds: (cpuStat.get("user_usec") ?? 0) * 1000,
    systemNanoseconds: (cpuStat.get("system_usec") ?? 0) * 1000,
    cacheBytes: memory.get("file") ?? 0,
    mappedFileBytes: memory.get("file_mapped") ?? 0,
    kernelBytes: memory.get("kernel") ?? 0,
    maxUsageBytes: Number(peak) || 0,
    limitHits: memoryEvents.get("max") ?? 0,
    oomKills: memoryEvents.get("oom_kill") ?? 0,
    maxThreads: Number.parseInt(maxPids ?? "", 10) || 0,
    cfsPeriods: cpuStat.get("nr_periods") ?? 0,
    cfsThrottledPeriods: cpuStat.get("nr_throttled") ?? 0,
    cfsThrottledNanoseconds: (cpuStat.get("throttled_usec") ?? 0) * 1000,
    devices: named(parseIoStat(io ?? "")),
  };
  return { ...usage, detail };
}

function readSplit(root: string, path: string, withDetail: boolean): CgroupUsage {
  const read = ([tree, file]: readonly [string, string]) => text(`${root}/${tree}${path}/${file}`);
  const [cpu, current, stat, pids, limit] = (
    [
      ["cpuacct", "cpuacct.usage"],
      ["memory", "memory.usage_in_bytes"],
      ["memory", "memory.stat"],
      ["pids", "pids.current"],
      ["memory", "memory.limit_in_bytes"],
    ] as const
  ).map(read);
  const memory = parseStat(stat ?? "");
  const usageBytes = Number(current) || 0;
  const limitBytes = Number(limit) || 0;
  const usage = {
    cpuNanoseconds: Number(cpu) || 0,
    usageBytes,
    workingSetBytes: Math.max(0, usageBytes - (memory.get("total_inactive_file") ?? 0)),
    rssBytes: memory.get("total_rss") ?? 0,
    swapBytes: memory.get("total_swap") ?? 0,
    pageFaults: memory.get("total_pgfault") ?? 0,
    majorPageFaults: memory.get("total_pgmajfault") ?? 0,
    processes: Number(pids) || 0,
    limitBytes: limitBytes > unlimited || limitBytes === unlimitedOn32Bits ? 0 : limitBytes,
  };
  if (!withDetail) return usage;
  const [user, system, cfs, kernel, peak, hits, oom, maxPids, bytes, operations] = (
    [
      ["cpuacct", "cpuacct.usage_user"],
      ["cpuacct", "cpuacct.usage_sys"],
      ["cpu", "cpu.stat"],
      ["memory", "memory.kmem.usage_in_bytes"],
      ["memory", "memory.max_usage_in_bytes"],
      ["memory", "memory.failcnt"],
      ["memory", "memory.oom_control"],
      ["pids", "pids.max"],
      ["blkio", "blkio.throttle.io_service_bytes_recursive"],
      ["blkio", "blkio.throttle.io_serviced_recursive"],
    ] as const
  ).map(read);
  const quota = parseStat(cfs ?? "");
  const detail: CgroupDetail = {
    userNanoseconds: Number(user) || 0,
    systemNanoseconds: Number(system) || 0,
    cacheBytes: memory.get("total_cache") ?? 0,
    mappedFileBytes: memory.get("total_mapped_file") ?? 0,
    kernelBytes: Number(kernel) || 0,
    maxUsageBytes: Number(peak) || 0,
    limitHits: Number(hits) || 0,
    oomKills: parseStat(oom ?? "").get("oom_kill") ?? 0,
    maxThreads: Number.parseInt(maxPids ?? "", 10) || 0,
    cfsPeriods: quota.get("nr_periods") ?? 0,
    cfsThrottledPeriods: quota.get("nr_throttled") ?? 0,
    cfsThrottledNanoseconds: quota.get("throttled_time") ?? 0,
    devices: named(parseBlkio(bytes ?? "", operations ?? "")),
  };
  return { ...usage, detail };
}

/** v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`. */
export function parseIoStat(content: string): DeviceUse[] {
  return content.split("\n").flatMap((line) => {
    const match = /^(\d+:\d+) (.*)$/.exec(line);
    if (!match) return [];
    const value = (name: string) => Number(new RegExp(`\\b${name}=(\\d+)`).exec(match[2]!)?.[1] ?? 0);
    const device = match[1]!;
    return [
      { device, readBytes: value("rbytes"), writeBytes: value("wbytes"), reads: value("rios"), writes: value("wios") },
    ];
  });
}

/** v1: `8:0 Read 1` lines, bytes and operations in files of their own. */
export function parseBlkio(bytes: string, operations: string): DeviceUse[] {
  const table = (content: string): Map<string, Map<string, number>> => {
    const out = new Map<string, Map<string, number>>();
    for (const [, device = "", kind = "", value] of content.matchAll(/^(\d+:\d+) (Read|Write) (\d+)$/gm)) {
      const row = out.get(device) ?? new Map<string, number>();
      row.set(kind, Number(value));
      out.set(device, row);
    }
    return out;
  };
  const counted = table(operations);
  return [...table(bytes)].map(([device, row]) => ({
    device,
    readBytes: row.get("Read") ?? 0,
    writeBytes: row.get("Write") ?? 0,
    reads: counted.get(device)?.get("Read") ?? 0,
    writes: counted.get(device)?.get("Write") ?? 0,
  }));
}

/** With the names of devices, as far as the kernel knows them. */
const named = (devices: readonly DeviceUse[]): DeviceUse[] =>
  devices.map((use) => {
    const name = /^DEVNAME=(.+)$/m.exec(text(`/sys/dev/block/${use.device}/uevent`))?.[1];
    return name === undefined ? use : { ...use, device: `/dev/${name}` };
  });

/** Any process of a container, for its network: 0 when none lives. */
export function firstProcess(path: string, unified: boolean): number {
  const trees = unified ? [""] : ["/memory", "/pids", "/cpuacct", "/systemd"];
  for (const tree of trees) {
    const pid = Number(text(`${cgroupRoot}${tree}${path}/cgroup.procs`).split("\n")[0]);
    if (pid > 0) return pid;
  }
  return 0;
}

/** Interfaces as the process sees them, without loopback and the node's ends of pods. */
export function readNetwork(pid: number | "self"): readonly NetworkUsage[] {
  return parseNetDev(text(`/proc/${pid}/net/dev`));
}

export function parseNetDev(content: string): NetworkUsage[] {
  return content.split("\n").flatMap((line) => {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line);
    if (!match || match[1] === "lo" || match[1]!.startsWith("veth")) return [];
    const n = match[2]!.trim().split(/\s+/).map(Number);
    return [
      {
        name: match[1]!,
        ...{ rxBytes: n[0] ?? 0, rxPackets: n[1] ?? 0, rxErrors: n[2] ?? 0, rxDropped: n[3] ?? 0 },
        ...{ txBytes: n[8] ?? 0, txPackets: n[9] ?? 0, txErrors: n[10] ?? 0, txDropped: n[11] ?? 0 },
      },
    ];
  });
}

/** Clock ticks of /proc: 100 a second on every architecture that Linux has. */
const tickNanoseconds = 10_000_000;

export function readMachineUsage(): MachineUsage {
  return parseMachineUsage(text("/proc/meminfo"), text("/proc/stat"), text("/proc/vmstat"));
}

export function parseMachineUsage(meminfo: string, stat: string, vmstat: string): MachineUsage {
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(meminfo)?.[1] ?? 0) * 1024;
  const ticks = /^cpu\s+(.*)$/m.exec(stat)?.[1]?.trim().split(/\s+/).map(Number) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = ticks;
  const faults = parseStat(vmstat);
  const usageBytes = kib("MemTotal") - kib("MemFree");
  const workingSetBytes = Math.max(0, usageBytes - kib("Inactive\\(file\\)"));
  return {
    cpuNanoseconds: (user + nice + system + irq + softirq + steal) * tickNanoseconds,
    usageBytes,
    workingSetBytes,
    availableBytes: kib("MemTotal") - workingSetBytes,
    reclaimableBytes: kib("MemAvailable"),
    rssBytes: kib("AnonPages"),
    pageFaults: faults.get("pgfault") ?? 0,
    majorPageFaults: faults.get("pgmajfault") ?? 0,
    bootedAtMs: Number(/^btime\s+(\d+)/m.exec(stat)?.[1] ?? 0) * 1000,
    swapTotalBytes: kib("SwapTotal"),
    swapUsedBytes: kib("SwapTotal") - kib("SwapFree"),
  };
}

export interface ProcessUsage extends CgroupUsage {
  readonly startedAtMs: number;
}

/** One process, for parts of the node that have no cgroup of their own. Undefined when it has ended. */
export function readProcess(pid: number | "self", bootedAtMs: number): ProcessUsage | undefined {
  const stat = text(`/proc/${pid}/stat`);
  return stat === "" ? undefined : parseProcess(stat, text(`/proc/${pid}/status`), bootedAtMs);
}

export function parseProcess(stat: string, status: string, bootedAtMs: number): ProcessUsage {
  // The name in brackets may hold anything; counting starts behind it, with the third field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const at = (field: number): number => Number(fields[field - 3]) || 0;
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0) * 1024;
  const rssBytes = kib("VmRSS");
  return {
    cpuNanoseconds: (at(14) + at(15)) * tickNanoseconds,
    usageBytes: rssBytes,
    workingSetBytes: rssBytes,
    rssBytes: kib("RssAnon"),
    swapBytes: kib("VmSwap"),
    pageFaults: at(10),
    majorPageFaults: at(12),
    processes: at(20),
    limitBytes: 0,
    startedAtMs: bootedAtMs + (at(22) * tickNanoseconds) / 1e6,
  };
}

/** The device that holds `path`, as /proc/self/mounts names it. */
export const deviceOf = (path: string): string => parseDevice(text("/proc/self/mounts"), path);

export function parseDevice(mounts: string, path: string): string {
  let found = { device: "", point: "" };
  for (const line of mounts.split("\n")) {
    const [device = "", point = ""] = line.split(" ");
    const holds = point === "/" || path === point || path.startsWith(`${point}/`);
    if (point !== "" && holds && point.length >= found.point.length) found = { device, point };
  }
  return found.device;
}
