// What the kernel has now, by `ip` and `bridge`, and the scripts that change it. Commands come in, so that tests run the
// same code inside network namespaces. A read is two processes, and one more with IPv6.
import { AppError } from "#base/errors.ts";
import type { Commands } from "#platform/processes.ts";
import type { Scripts } from "./difference.ts";

export interface KernelLink {
  readonly ifname: string;
  readonly mtu: number;
  readonly address?: string;
  readonly flags: readonly string[];
  readonly ifalias?: string;
  readonly linkinfo?: { readonly info_kind?: string; readonly info_data?: Readonly<Record<string, unknown>> };
  readonly addr_info: readonly {
    readonly family: string;
    readonly local?: string;
    readonly prefixlen: number;
    /** Numbers, as asked for: 0 is global. */
    readonly scope: string;
    readonly temporary?: boolean;
    readonly deprecated?: boolean;
  }[];
}
export interface KernelRoute {
  readonly dst: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly protocol: string;
  readonly prefsrc?: string;
  readonly metric?: number;
  readonly flags?: readonly string[];
  readonly metrics?: readonly { readonly mtu?: number }[];
}
export interface KernelNeighbour {
  readonly dst: string;
  readonly dev: string;
  readonly lladdr?: string;
  readonly state?: readonly string[];
}
export interface KernelForward {
  readonly mac: string;
  readonly ifname: string;
  readonly dst?: string;
}
export interface Kernel {
  readonly links: readonly KernelLink[];
  readonly routes: Readonly<Record<4 | 6, readonly KernelRoute[]>>;
  readonly neighbours: readonly KernelNeighbour[];
  readonly forwards: readonly KernelForward[];
}

/** A board with many pods takes a while to list its links. */
const timeoutMs = 30_000;

/** `devices`: those whose neighbours and forwarding entries are asked for. */
export async function readKernel(
  commands: Commands,
  options: { readonly devices: readonly string[]; readonly hasIpv6: boolean },
): Promise<Kernel> {
  const links = (await show<KernelLink>(commands, ["-N", "-d"], "addr show"))[0] ?? [];
  const present = options.devices.filter((name) => links.some(({ ifname }) => ifname === name));
  const lines = ["route show", ...present.map((name) => `neigh show dev ${name}`)];
  const [routes = [], ...neighbours] = (await show(commands, ["-N"], lines.join("\n"))) as unknown[][];
  const [routes6 = []] = options.hasIpv6 ? await show<KernelRoute>(commands, ["-N", "-6"], "route show") : [];
  const forwards: KernelForward[] = [];
  for (const name of present) {
    const { code, stdout } = await commands.run("bridge", ["-j", "fdb", "show", "dev", name], { timeoutMs });
    // It may have gone this moment; the next look sees that.
    if (code !== 0) continue;
    for (const entry of parse<KernelForward>(stdout)[0] ?? []) forwards.push({ ...entry, ifname: name });
  }
  return {
    links,
    routes: { 4: routes as KernelRoute[], 6: routes6 },
    neighbours: neighbours.flatMap((list, i) =>
      (list as KernelNeighbour[]).map((entry) => ({ ...entry, dev: present[i]! })),
    ),
    forwards,
  };
}

/** Runs what there is to run; every line is tried, and the first that failed is told. */
export async function runScripts(commands: Commands, scripts: Scripts): Promise<void> {
  const failures: string[] = [];
  const batch = async (program: string, lines: readonly string[]) => {
    if (lines.length === 0) return;
    const input = `${lines.join("\n")}\n`;
    const result = await commands.run(program, ["-force", "-batch", "-"], { input, timeoutMs });
    if (result.code !== 0) failures.push(`${program}: ${explain(result.stderr, lines)}`);
  };
  await batch("ip", scripts.devices);
  await batch("bridge", scripts.forwards);
  for (const args of scripts.wireguard ?? []) {
    const result = await commands.run("wg", args, { timeoutMs });
    if (result.code !== 0) failures.push(`wg: ${result.stderr.trim().split("\n")[0] ?? "failed"}`);
  }
  await batch("ip", scripts.routes);
  if (failures.length > 0) throw new AppError("NETWORK_OVERLAY", failures.join("; "));
}

/** `Command failed -:3` names the line; what it said stands before. */
function explain(stderr: string, lines: readonly string[]): string {
  const line = lines[Number(/Command failed -:(\d+)/.exec(stderr)?.[1] ?? Number.NaN) - 1];
  return `${stderr.trim().split("\n")[0] ?? "failed"}${line === undefined ? "" : ` (${line})`}`;
}

async function show<T>(commands: Commands, flags: readonly string[], lines: string): Promise<T[][]> {
  const result = await commands.run("ip", [...flags, "-j", "-batch", "-"], { input: `${lines}\n`, timeoutMs });
  if (result.code !== 0) throw new AppError("NETWORK_OVERLAY", `ip: ${explain(result.stderr, lines.split("\n"))}`);
  return parse<T>(result.stdout);
}

/** One list a line; a line per question. */
const parse = <T>(stdout: string): T[][] =>
  stdout
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => JSON.parse(line) as T[]);
