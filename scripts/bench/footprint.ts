// What a node costs when nothing happens: time from exec to /readyz and to node Ready, memory of mote and of containerd
// with five pods, idle CPU, bytes and flushes written per idle hour. On a host of its own (network namespace).
//   --minutes N   idle time before and while measuring (default 5)
//   --starts N    warm starts that times are the median of (default 5)
//   --control     positive control: a pod that rewrites a config map every second must be seen in the idle figures
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { Host } from "#test/e2e/host.ts";

const fivePods = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: idle }
spec:
  replicas: 5
  selector: { matchLabels: { app: idle } }
  template:
    metadata: { labels: { app: idle } }
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{ name: main, image: "mote.local/busybox:1", command: ["sleep", "1000000"] }]
`;

export async function footprint(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: "string", default: "5" },
      starts: { type: "string", default: "5" },
      control: { type: "boolean" },
    },
  });
  const idleMs = Number(values.minutes) * 60_000;
  if (!(idleMs > 0)) throw new UserError(`--minutes ${values.minutes}: a number above 0`);
  if (process.getuid?.() !== 0) throw new UserError("real pods need root");
  const host = new Host("bench");
  await runStages(buildStages);
  await host.open();
  try {
    const first = await start(host);
    await host.kubectl("apply -f -", { input: fivePods });
    await host.kubectl("rollout status deploy/idle --timeout=120s");
    const readyzMs: number[] = [];
    const readyMs: number[] = [];
    for (let i = 0; i < Number(values.starts); i++) {
      await stop(host);
      const times = await start(host);
      readyzMs.push(times.readyzMs);
      readyMs.push(times.readyMs);
    }
    if (values.control) await host.kubectl("create configmap control --from-literal=n=0");
    console.log(`idle for ${values.minutes} minute(s), then measuring for as long …`);
    await sleep(idleMs);
    const before = await sample(host);
    const endMs = performance.now() + idleMs;
    for (let n = 1; performance.now() < endMs; n++) {
      if (values.control) await host.kubectl(["patch", "configmap", "control", "-p", `{"data":{"n":"${n}"}}`]);
      await sleep(Math.min(1000, Math.max(0, endMs - performance.now())));
    }
    const after = await sample(host);
    const hours = (after.atMs - before.atMs) / 3_600_000;
    const figures = {
      readyz_s: round(median(readyzMs) / 1000, 2),
      ready_s: round(median(readyMs) / 1000, 2),
      pss_mote_mib: round(after.motePssKib / 1024, 1),
      pss_containerd_mib: round(after.containerdPssKib / 1024, 1),
      idle_cpu_pct: round(((after.cpuSeconds - before.cpuSeconds) / (after.atMs - before.atMs)) * 100_000, 2),
      idle_bytes_per_hour: Math.round((after.writtenBytes - before.writtenBytes) / hours),
      idle_flushes_per_hour: Math.round((after.flushes - before.flushes) / hours),
    };
    const anchors: Readonly<Record<keyof typeof figures, string>> = {
      readyz_s: "goal 1.5, then 0.8",
      ready_s: "goal 3, then 1.5",
      pss_mote_mib: "goal 150, then 128",
      pss_containerd_mib: "",
      idle_cpu_pct: "of one core",
      idle_bytes_per_hour: "goal 10 MiB, then 1 MiB/day",
      idle_flushes_per_hour: "goal 2",
    };
    console.log(
      `\nfirst start: /readyz ${round(first.readyzMs / 1000, 2)} s, Ready ${round(first.readyMs / 1000, 2)} s (with image import)`,
    );
    for (const [name, value] of Object.entries(figures)) {
      console.log(`${name.padEnd(24)}${String(value).padStart(12)}   ${anchors[name as keyof typeof figures]}`);
    }
    console.log(`pods' shims together: ${round(after.shimPssKib / 1024, 1)} MiB PSS`);
    return figures;
  } finally {
    await host.close();
  }
}

/** Starts the server and takes the time from exec, from inside the host's network. */
async function start(host: Host): Promise<{ readyzMs: number; readyMs: number }> {
  const args = ["scripts/run.mjs", "scripts/bench/start-probe.ts", host.dataDir, host.runDir, host.kubeconfig];
  const output = await host.exec("node", args, { timeoutMs: 120_000 });
  if (output.code !== 0)
    throw new UserError(`start: ${output.stderr}\n${host.log().split("\n").slice(-20).join("\n")}`);
  return JSON.parse(output.stdout) as { readyzMs: number; readyMs: number };
}

async function stop(host: Host): Promise<void> {
  const pid = host.serverPid();
  process.kill(pid, "SIGTERM");
  while (commandLine(pid) !== "") await sleep(20);
}

interface Sample {
  readonly atMs: number;
  readonly motePssKib: number;
  readonly containerdPssKib: number;
  readonly shimPssKib: number;
  readonly cpuSeconds: number;
  readonly writtenBytes: number;
  readonly flushes: number;
}

/** Reads /proc for mote, the containerd of this host's run folder, and its shims. */
async function sample(host: Host): Promise<Sample> {
  const mote = host.serverPid();
  const pids = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  const containerd = pids.filter(
    (pid) => /(^|\/)containerd\0/.test(commandLine(pid)) && commandLine(pid).includes(host.folder),
  );
  const shims = pids.filter(
    (pid) => /containerd-shim/.test(commandLine(pid)) && commandLine(pid).includes(host.folder),
  );
  if (containerd.length !== 1)
    throw new UserError(`expected one containerd of ${host.folder}, found ${containerd.length}`);
  const daemons = [mote, ...containerd];
  return {
    atMs: performance.now(),
    motePssKib: pssKib(mote),
    containerdPssKib: pssKib(containerd[0]!),
    shimPssKib: sum(shims.map(pssKib)),
    cpuSeconds: sum([...daemons, ...shims].map(cpuSeconds)),
    writtenBytes: sum(daemons.map((pid) => field(`/proc/${pid}/io`, "write_bytes"))),
    flushes: await flushes(host),
  };
}

/** Flushes that mote itself counts: every fsync and fdatasync of the datastore goes through one door. */
async function flushes(host: Host): Promise<number> {
  const text = await host.kubectl("get --raw /metrics");
  const found = /^mote_datastore_flushes_total(?:\{[^}]*\})? (\d+)/m.exec(text);
  if (!found) throw new UserError("/metrics has no mote_datastore_flushes_total");
  return Number(found[1]);
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return ""; // ended
  }
}

function field(path: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(readFileSync(path, "utf8"))?.[1] ?? Number.NaN);
}

/**
 * Proportional set size, but with the program's own binary counted in full: other Node.js processes on the machine (this
 * bench is one) share those pages and would make mote look smaller than it is on a device where it runs alone.
 */
export function pssKib(pid: number): number {
  const binary = readlinkSync(`/proc/${pid}/exe`);
  let total = 0;
  let isBinary = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
    const head = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$/.exec(line);
    if (head) isBinary = head[1] === binary;
    const value = (isBinary ? /^Rss:\s+(\d+)/ : /^Pss:\s+(\d+)/).exec(line);
    if (value) total += Number(value[1]);
  }
  return total;
}

export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // utime and stime are fields 14 and 15 of proc(5); the clock tick is 10 ms on Linux.
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const round = (value: number, digits: number): number => Number(value.toFixed(digits));
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
