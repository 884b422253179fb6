// Processors and memory as the hardware has them: which processors share a core, a socket, a NUMA node; and choosing among
// them. Reading is at the end; the rest is pure. Counterpart: pkg/kubelet/cm/cpumanager/{topology,cpu_assignment.go}.
import { listFolder, readFileIfExists } from "#platform/files.ts";

export interface Processor {
  readonly id: number;
  readonly core: string;
  readonly socket: number;
  readonly numa: number;
}
export interface NumaNode {
  readonly id: number;
  readonly memoryBytes: number;
}
export interface Topology {
  readonly processors: readonly Processor[];
  readonly nodes: readonly NumaNode[];
}

/** `0-2,5` → 0, 1, 2, 5; throws an Error that names the part. */
export function parseList(text: string): Set<number> {
  const out = new Set<number>();
  for (const part of text.trim().split(",")) {
    if (part === "") continue;
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (!match || last < first || last > 4096) throw new Error(`${JSON.stringify(part)} is not a number or a range`);
    for (let n = first; n <= last; n++) out.add(n);
  }
  return out;
}

export function formatList(ids: Iterable<number>): string {
  const sorted = [...new Set(ids)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let j = i;
    while (sorted[j + 1] === sorted[j]! + 1) j++;
    parts.push(i === j ? String(sorted[i]) : `${sorted[i]}-${sorted[j]}`);
    i = j + 1;
  }
  return parts.join(",");
}

/**
 * `count` of the `free` processors, close together: whole cores first, from the group (NUMA node, then socket) that is
 * fullest and still large enough; then what is left over. Undefined when there are not enough.
 */
export function takeProcessors(
  topology: Topology,
  free: ReadonlySet<number>,
  count: number,
  near: ReadonlySet<number> | undefined,
): Set<number> | undefined {
  const usable = topology.processors.filter((p) => free.has(p.id));
  if (usable.length < count) return undefined;
  const taken = new Set<number>();
  const inNear = usable.filter((p) => near === undefined || near.has(p.numa));
  const groups = groupBy(inNear, (p) => p.numa).sort((a, b) => a.length - b.length || a[0]!.id - b[0]!.id);
  // One that holds all is best; else from the largest on.
  const fitting = groups.find((g) => g.length >= count);
  const ordered = fitting ? [fitting] : groups.sort((a, b) => b.length - a.length || a[0]!.id - b[0]!.id);
  if (near !== undefined) ordered.push(usable.filter((p) => !near.has(p.numa)));
  for (const group of ordered) {
    const cores = groupBy(group, (p) => `${p.socket}/${p.core}`);
    const threads = (members: readonly Processor[]) =>
      topology.processors.filter((p) => p.socket === members[0]!.socket && p.core === members[0]!.core).length;
    // Whole cores that still fit, then single processors of cores that are in use already.
    for (const core of cores) {
      if (core.length === threads(core) && core.length <= count - taken.size) for (const p of core) taken.add(p.id);
    }
    const rest = cores.filter((core) => !taken.has(core[0]!.id)).sort((a, b) => a.length - b.length);
    for (const p of rest.flat()) {
      if (taken.size >= count) break;
      taken.add(p.id);
    }
    if (taken.size >= count) return taken;
  }
  return taken.size >= count ? taken : undefined;
}

function groupBy<K>(list: readonly Processor[], key: (p: Processor) => K): Processor[][] {
  const groups = new Map<K, Processor[]>();
  for (const p of list) {
    const k = key(p);
    const group = groups.get(k);
    if (group) group.push(p);
    else groups.set(k, [p]);
  }
  return [...groups.values()];
}

const text = async (path: string): Promise<string> => (await readFileIfExists(path))?.toString("utf8").trim() ?? "";

export async function readTopology(memoryBytes: number): Promise<Topology> {
  const system = "/sys/devices/system";
  const online = parseList((await text(`${system}/cpu/online`)) || "0");
  const nodes: NumaNode[] = [];
  const numaOf = new Map<number, number>();
  for (const entry of await listFolder(`${system}/node`)) {
    const id = /^node(\d+)$/.exec(entry.name)?.[1];
    if (id === undefined) continue;
    const total = /MemTotal:\s+(\d+) kB/.exec(await text(`${system}/node/${entry.name}/meminfo`))?.[1];
    nodes.push({ id: Number(id), memoryBytes: Number(total ?? 0) * 1024 });
    for (const cpu of parseList(await text(`${system}/node/${entry.name}/cpulist`))) numaOf.set(cpu, Number(id));
  }
  // A kernel without NUMA has one node.
  if (nodes.length === 0) nodes.push({ id: 0, memoryBytes });
  const processors: Processor[] = [];
  for (const id of [...online].sort((a, b) => a - b)) {
    const folder = `${system}/cpu/cpu${id}/topology`;
    processors.push({
      id,
      core: (await text(`${folder}/core_id`)) || String(id),
      socket: Math.max(0, Number(await text(`${folder}/physical_package_id`)) || 0),
      numa: numaOf.get(id) ?? nodes[0]!.id,
    });
  }
  return { processors, nodes: nodes.sort((a, b) => a.id - b.id) };
}
