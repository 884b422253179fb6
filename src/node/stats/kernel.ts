// Numbers from the kernel's own files: cgroups of both versions, /proc of the machine and of one process. Parsers are pure; the
// readers give zeros for what is not there, because cgroups come and go while they are read.
// Counterpart: cadvisor's container handlers, as far as dashboards look at them.
import { exists, readFileIfExists } from "#platform/files.ts";
import type { NetworkUsage } from "./usage.ts";

const root = "/sys/fs/cgroup";

export interface CgroupUsage {
  readonly cpuNanoseconds: number;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly processes: number;
  /** 0 for none. */
  readonly limitBytes: number;
  /** Times the CPU quota was accounted, and ran out; for how long then. */
  readonly cfsPeriods: number;
  readonly cfsThrottledPeriods: number;
  readonly cfsThrottledNanoseconds: number;
}

/** Where v1 has a limit that is none. */
const unlimited = 2 ** 60;

const text = async (path: string): Promise<string> => {
  try {
    return (await readFileIfExists(path))?.toString("utf8") ?? "";
  } catch {
    // The cgroup went away between opening and reading.
    return "";
  }
};

/** `key value` lines. */
export function parseStat(content: string): ReadonlyMap<string, number> {
  const out = new Map<string, number>();
  for (const line of content.split("\n")) {
    const at = line.indexOf(" ");
    if (at > 0) out.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return out;
}

export const isUnified = (): Promise<boolean> => exists(`${root}/cgroup.controllers`);

/** Usage of the cgroup at `path`, with everything below it. */
export async function readCgroup(path: string, unified: boolean): Promise<CgroupUsage> {
  return unified ? readUnified(`${root}${path}`) : readSplit(path);
}

async function readUnified(folder: string): Promise<CgroupUsage> {
  const [cpu, current, stat, pids, max] = await Promise.all([
    text(`${folder}/cpu.stat`),
    text(`${folder}/memory.current`),
    text(`${folder}/memory.stat`),
    text(`${folder}/pids.current`),
    text(`${folder}/memory.max`),
  ]);
  const memory = parseStat(stat);
  const usageBytes = Number(current) || 0;
  const cpuStat = parseStat(cpu);
  return {
    cpuNanoseconds: (cpuStat.get("usage_usec") ?? 0) * 1000,
    cfsPeriods: cpuStat.get("nr_periods") ?? 0,
    cfsThrottledPeriods: cpuStat.get("nr_throttled") ?? 0,
    cfsThrottledNanoseconds: (cpuStat.get("throttled_usec") ?? 0) * 1000,
    usageBytes,
    workingSetBytes: Math.max(0, usageBytes - (memory.get("inactive_file") ?? 0)),
    rssBytes: memory.get("anon") ?? 0,
    pageFaults: memory.get("pgfault") ?? 0,
    majorPageFaults: memory.get("pgmajfault") ?? 0,
    processes: Number(pids) || 0,
    limitBytes: Number.parseInt(max, 10) || 0,
  };
}

async function readSplit(path: string): Promise<CgroupUsage> {
  const [cpu, usage, stat, pids, limit, cfs] = await Promise.all([
    text(`${root}/cpuacct${path}/cpuacct.usage`),
    text(`${root}/memory${path}/memory.usage_in_bytes`),
    text(`${root}/memory${path}/memory.stat`),
    text(`${root}/pids${path}/pids.current`),
    text(`${root}/memory${path}/memory.limit_in_bytes`),
    text(`${root}/cpu${path}/cpu.stat`),
  ]);
  const cpuStat = parseStat(cfs);
  const memory = parseStat(stat);
  const usageBytes = Number(usage) || 0;
  const limitBytes = Number(limit) || 0;
  return {
    cpuNanoseconds: Number(cpu) || 0,
    usageBytes,
    workingSetBytes: Math.max(0, usageBytes - (memory.get("total_inactive_file") ?? 0)),
    rssBytes: memory.get("total_rss") ?? 0,
    pageFaults: memory.get("total_pgfault") ?? 0,
    majorPageFaults: memory.get("total_pgmajfault") ?? 0,
    processes: Number(pids) || 0,
    limitBytes: limitBytes > unlimited ? 0 : limitBytes,
    cfsPeriods: cpuStat.get("nr_periods") ?? 0,
    cfsThrottledPeriods: cpuStat.get("nr_throttled") ?? 0,
    cfsThrottledNanoseconds: cpuStat.get("throttled_time") ?? 0,
  };
}

/** Any process of a container, for its network: 0 when none lives. */
export async function firstProcess(path: string, unified: boolean): Promise<number> {
  const trees = unified ? [""] : ["/memory", "/pids", "/cpuacct", "/systemd"];
  for (const tree of trees) {
    const pid = Number((await text(`${root}${tree}${path}/cgroup.procs`)).split("\n")[0]);
    if (pid > 0) return pid;
  }
  return 0;
}

/** Interfaces as the process sees them, without loopback. */
export async function readNetwork(pid: number | "self"): Promise<readonly NetworkUsage[]> {
  return parseNetDev(await text(`/proc/${pid}/net/dev`));
}

export function parseNetDev(content: string): NetworkUsage[] {
  return content.split("\n").flatMap((line) => {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line);
    if (!match || match[1] === "lo") return [];
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

export interface MachineUsage {
  readonly cpuNanoseconds: number;
  readonly usageBytes: number;
  readonly workingSetBytes: number;
  readonly availableBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly bootedAtMs: number;
  readonly swapUsedBytes: number;
  readonly swapTotalBytes: number;
}

/** Clock ticks of /proc/stat: 100 a second on every architecture that Linux has. */
const tickNanoseconds = 10_000_000;

export async function readMachineUsage(): Promise<MachineUsage> {
  const [memory, stat, vm] = await Promise.all([text("/proc/meminfo"), text("/proc/stat"), text("/proc/vmstat")]);
  return parseMachineUsage(memory, stat, vm);
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
    rssBytes: kib("AnonPages"),
    pageFaults: faults.get("pgfault") ?? 0,
    majorPageFaults: faults.get("pgmajfault") ?? 0,
    bootedAtMs: Number(/^btime\s+(\d+)/m.exec(stat)?.[1] ?? 0) * 1000,
    swapTotalBytes: kib("SwapTotal"),
    swapUsedBytes: kib("SwapTotal") - kib("SwapFree"),
  };
}
