// How fast pods start and go on a real node with their image present, and what churn leaves behind in memory: one after the
// other (create to Running), a node's full set at once, its deletion. On a host of its own (network namespace). And the CPU time
// of a pod's whole life: mote's, containerd's without what it starts, and the machine's, which means something on a quiet one.
//   --single N     pods one after the other (default 50)
//   --together N   pods at once (default 110)
//   --rounds N     rounds of both, for the memory that churn costs (default 2)
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { Host } from "#test/e2e/host.ts";

export async function pods(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      single: { type: "string", default: "50" },
      together: { type: "string", default: "110" },
      rounds: { type: "string", default: "2" },
    },
  });
  if (process.getuid?.() !== 0) throw new UserError("real pods need root");
  const host = new Host("bench-pods");
  await runStages(buildStages);
  await host.open();
  try {
    await host.up();
    await host.kubectl("wait --for=condition=Ready node --all --timeout=60s");
    const rounds: { starts: number[]; allMs: number; goneMs: number }[] = [];
    const residentMib: number[] = [];
    const pids = [host.serverPid(), Number(readFileSync(`${host.runDir}/containerd/containerd.pid`, "utf8"))] as const;
    const spent = () => [cpuMs(pids[0]), cpuMs(pids[1]), machineCpuMs()] as const;
    const before = spent();
    for (let i = 0; i < Number(values.rounds); i++) {
      const script = [
        "scripts/run.mjs",
        "scripts/bench/pods-probe.ts",
        host.kubeconfig,
        values.single,
        values.together,
      ];
      const output = await host.exec("node", script, { timeoutMs: 300_000 });
      if (output.code !== 0) throw new UserError(`round ${i + 1}: ${output.stderr}\n${host.log().slice(-3000)}`);
      rounds.push(JSON.parse(output.stdout.trim().split("\n").at(-1) ?? "") as (typeof rounds)[number]);
      residentMib.push(residentKib(host.serverPid()) / 1024);
    }
    const podCount = (Number(values.single) + Number(values.together)) * rounds.length;
    const perPod = spent().map((ms, i) => Number(((ms - before[i]!) / podCount).toFixed(1)));
    const starts = rounds.flatMap((r) => r.starts).sort((a, b) => a - b);
    const at = (share: number) =>
      Math.round(starts[Math.min(starts.length - 1, Math.floor(starts.length * share))] ?? Number.NaN);
    const best = (list: readonly number[]) => Number((Math.min(...list) / 1000).toFixed(2));
    const figures = {
      start_p50_ms: at(0.5),
      start_p99_ms: at(0.99),
      all110_s: best(rounds.map((r) => r.allMs)),
      delete110_s: best(rounds.map((r) => r.goneMs)),
      rss_after_first_round_mib: Math.round(residentMib[0] ?? Number.NaN),
      rss_after_last_round_mib: Math.round(residentMib.at(-1) ?? Number.NaN),
      pod_cpu_mote_ms: perPod[0]!,
      pod_cpu_containerd_ms: perPod[1]!,
      pod_cpu_machine_ms: perPod[2]!,
    };
    const goals: Readonly<Record<keyof typeof figures, string>> = {
      start_p50_ms: "goal 250",
      start_p99_ms: "goal 600",
      all110_s: "goal 8",
      delete110_s: "goal 8",
      rss_after_first_round_mib: "",
      rss_after_last_round_mib: "no more than after the first, but for the collector's mood",
      pod_cpu_mote_ms: "",
      pod_cpu_containerd_ms: "",
      pod_cpu_machine_ms: "runc, shims, CNI and this program too",
    };
    for (const [name, value] of Object.entries(figures)) {
      console.log(`${name.padEnd(28)}${String(value).padStart(10)}   ${goals[name as keyof typeof figures]}`);
    }
    return figures;
  } finally {
    await host.close();
  }
}

const residentKib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN);

/** The kernel's clock ticks, which are the same on every machine that it is built for. */
const tickMs = 10;

const cpuMs = (pid: number): number => {
  const fields = (readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1] ?? "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
};

/** Everything but idle and waiting for the disk. */
const machineCpuMs = (): number => {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0] = (
    readFileSync("/proc/stat", "utf8").split("\n")[0] ?? ""
  )
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softIrq) * tickMs;
};
