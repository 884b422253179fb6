// What the Node object says about the machine: processors, memory, identities, kernel. Read from the kernel's own files;
// what is missing is empty, as on systems without a machine id.
import { readdir, readFile } from "node:fs/promises";
import { availableParallelism, release, totalmem } from "node:os";

export interface Machine {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly kernelVersion: string;
  readonly osImage: string;
  readonly machineId: string;
  readonly systemUuid: string;
  readonly bootId: string;
  /** GOARCH name. */
  readonly architecture: string;
  /** Bytes set aside as huge pages, by resource name (`hugepages-2Mi`). */
  readonly hugePages: Readonly<Record<string, number>>;
}

const architectures: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64", arm: "arm" };

export async function readMachine(): Promise<Machine> {
  const osRelease = await text("/etc/os-release");
  const machineId = (await text("/etc/machine-id")).trim();
  return {
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    kernelVersion: release(),
    osImage: /^PRETTY_NAME="?([^"\n]*)/m.exec(osRelease)?.[1] ?? "Linux",
    machineId,
    systemUuid: (await text("/sys/class/dmi/id/product_uuid")).trim() || machineId,
    bootId: (await text("/proc/sys/kernel/random/boot_id")).trim(),
    architecture: architectures[process.arch] ?? process.arch,
    hugePages: await readHugePages(),
  };
}

async function readHugePages(): Promise<Record<string, number>> {
  const folder = "/sys/kernel/mm/hugepages";
  const out: Record<string, number> = {};
  let names: string[];
  try {
    names = await readdir(folder);
  } catch {
    // A kernel without huge pages.
    return out;
  }
  for (const name of names.sort()) {
    const kib = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1]);
    if (!kib) continue;
    const pages = Number((await text(`${folder}/${name}/nr_hugepages`)).trim()) || 0;
    const size = kib >= 2 ** 20 ? `${kib / 2 ** 20}Gi` : kib >= 1024 ? `${kib / 1024}Mi` : `${kib}Ki`;
    out[`hugepages-${size}`] = pages * kib * 1024;
  }
  return out;
}

/** The kernel's own, where it does not say. */
const defaultPidMax = 32768;

/** Bytes that the machine has; readable without waiting. */
export function totalMemoryBytes(): number {
  return totalmem();
}

/** How many processes and threads may exist, and do. A small board has memory for fewer than it has numbers. */
export async function processCounts(): Promise<{ readonly max: number; readonly used: number }> {
  const limits = await Promise.all(
    ["pid_max", "threads-max"].map(async (name) => Number((await text(`/proc/sys/kernel/${name}`)).trim())),
  );
  const known = limits.filter((limit) => limit > 0);
  const max = known.length > 0 ? Math.min(...known) : defaultPidMax;
  const used = Number((await text("/proc/loadavg")).split(" ")[3]?.split("/")[1] ?? "0");
  return { max, used };
}

async function text(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    // Absent or unreadable: the field stays empty.
    return "";
  }
}
