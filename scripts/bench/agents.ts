// What a thousand agents cost their server, and what one agent costs its device. The shipped server runs as a process of its
// own, without a node; simulated agents are in two others (agents-sim.ts). One real agent joins a small cluster with a network
// of its own; that part needs root.
//   --agents N      how many (default 1000)
//   --seconds N     of the measurement, after as long a rest (default 60)
//   --only PART     server or agent
//   --status-every N   seconds between a node's unchanged status (default: none comes, as an agent tells it once a day)
//   --control       positive control: a config map changes every second, which the bytes written must show
//   --inspect PORT  the server listens there for a profiler while the bench waits for a line on its input
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { closeHosts, connectHosts, eventually, Host } from "#test/e2e/host.ts";
import type { SimFigures, SimOptions } from "./agents-sim.ts";
import { ApiConnection } from "./api-load.ts";
import { cpuSeconds, pssKib } from "./footprint.ts";

type Figures = Record<string, number>;

interface Options {
  readonly agents: number;
  readonly seconds: number;
  readonly statusEveryMs: number;
  readonly isControl: boolean;
  readonly inspect: string | undefined;
}

const goals: Readonly<Record<string, string>> = {
  rss_mib: "goal at most 384: the server's PSS, its binary in full",
  rss_max_mib: "the most it had, while all came at once",
  rss_before_mib: "the same before there were agents",
  cpu_pct: "goal at most 40, of one core",
  heartbeat_bytes_written: "goal 0, in the time of the measurement",
  heartbeat_p99_ms: "of a lease",
  watch_events: "that all agents were told in that time",
  agent_pss_mib: "goal at most 112 (ARM 96), with its containerd",
};
const simProcesses = 2;
const stepTimeoutMs = 600_000;

export async function agents(args: readonly string[]): Promise<Readonly<Figures>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      agents: { type: "string", default: "1000" },
      seconds: { type: "string", default: "60" },
      only: { type: "string" },
      "status-every": { type: "string", default: "0" },
      control: { type: "boolean", default: false },
      inspect: { type: "string" },
    },
  });
  const options: Options = {
    agents: Number(values.agents),
    seconds: Number(values.seconds),
    statusEveryMs: Number(values["status-every"]) * 1000,
    isControl: values.control,
    inspect: values.inspect,
  };
  if (!(options.agents > 0 && options.seconds > 0)) throw new UserError("--agents, --seconds: numbers above 0");
  const { only } = values;
  if (only !== undefined && only !== "server" && only !== "agent") throw new UserError("--only: server or agent");
  await runStages(buildStages);
  const figures: Figures = {};
  if (only !== "agent") Object.assign(figures, await serverFigures(options));
  if (only !== "server") {
    if (process.getuid?.() === 0) Object.assign(figures, await agentFigures(options));
    else console.log("the real agent is left out: it needs root");
  }
  for (const [name, value] of Object.entries(figures)) {
    console.log(`${name.padEnd(26)}${String(value).padStart(12)}   ${goals[name] ?? ""}`);
  }
  return figures;
}

// A thousand, and their server

async function serverFigures(options: Options): Promise<Figures> {
  const folder = mkdtempSync(`${tmpdir()}/mote-bench-agents-`);
  const port = await freePort();
  const server = startServer(folder, port, options.inspect);
  const sims: Sim[] = [];
  const done = new AbortController();
  try {
    const api = await openApi(folder, port);
    await sleep(5000);
    const before = pssKib(server.pid!);
    const share = Math.ceil(options.agents / simProcesses);
    for (let from = 0; from < options.agents; from += share) {
      sims.push(
        await Sim.start({
          ...{ port, tlsFolder: `${folder}/data/server/tls`, statusEveryMs: options.statusEveryMs },
          ...{ from, count: Math.min(share, options.agents - from) },
        }),
      );
    }
    const all = async (step: string) => {
      const startMs = performance.now();
      const found = await Promise.all(sims.map((sim) => sim.step(step)));
      console.log(`${step}: ${Math.round((performance.now() - startMs) / 100) / 10} s, ${memoryOf(server.pid!)}`);
      return found;
    };
    await all("register");
    await api.settled(options.agents);
    await all("watch");
    const tunnels = async () => sumOf(await all("figures"), "tunnels");
    for (let i = 0; (await tunnels()) < options.agents; i++) {
      if (i > 60) throw new UserError("not all tunnels come to stand");
      await sleep(1000);
    }
    if (options.isControl) void api.changeEverySecond(done.signal);
    await sleep(options.seconds * 1000);
    if (options.inspect !== undefined) {
      console.log(`profile ${server.pid} at 127.0.0.1:${options.inspect}, then press Enter`);
      await once(process.stdin, "data");
    }
    await all("figures");
    const start = sampleOf(server.pid!);
    const startMs = performance.now();
    await sleep(options.seconds * 1000);
    const after = sampleOf(server.pid!);
    const tookMs = performance.now() - startMs;
    const found = await all("figures");
    const failures = sumOf(found, "failures");
    const wanted = { watches: options.agents * 5, tunnels: options.agents };
    for (const name of ["watches", "tunnels"] as const) {
      const there = sumOf(found, name);
      if (there < wanted[name] * 0.99) throw new UserError(`${there} of ${wanted[name]} ${name} stand at the end`);
    }
    const beats = sumOf(found, "beats");
    if (beats < (options.agents * options.seconds) / 10 / 2) throw new UserError(`only ${beats} heartbeats came`);
    return {
      rss_mib: round(pssKib(server.pid!) / 1024, 1),
      rss_max_mib: round(statusKib(server.pid!, "VmHWM") / 1024, 1),
      rss_before_mib: round(before / 1024, 1),
      cpu_pct: round(((after.cpuSeconds - start.cpuSeconds) / tookMs) * 100_000, 1),
      heartbeat_bytes_written: after.writtenBytes - start.writtenBytes,
      heartbeats_per_s: round((beats * 1000) / tookMs, 1),
      heartbeat_p50_ms: round(Math.max(...found.map(({ beatP50Ms }) => beatP50Ms)), 1),
      heartbeat_p99_ms: round(Math.max(...found.map(({ beatP99Ms }) => beatP99Ms)), 1),
      heartbeat_failures: failures,
      watch_events: sumOf(found, "events"),
    };
  } finally {
    done.abort();
    for (const sim of sims) sim.close();
    await end(server);
    rmSync(folder, { recursive: true, force: true });
  }
}

function startServer(folder: string, port: number, inspect: string | undefined): ChildProcess {
  writeFileSync(`${folder}/none.yaml`, "");
  const flags = [
    ...["--config", `${folder}/none.yaml`, "--data-dir", `${folder}/data`, "--run-dir", `${folder}/run`],
    ...["--node-name", "hub", "--node-ip", "192.0.2.1", "--disable-agent", "--bind-address", "127.0.0.1"],
    ...["--https-listen-port", String(port), "--write-kubeconfig", `${folder}/kubeconfig`],
    // A /24 for each.
    ...["--cluster-cidr", "10.128.0.0/12"],
  ];
  const env = inspect === undefined ? process.env : { ...process.env, NODE_OPTIONS: `--inspect=127.0.0.1:${inspect}` };
  return spawn("build/dist/mote", ["server", ...flags], { stdio: "ignore", env });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

interface Api {
  /** Every node has its range: what registering sets going is over. */
  settled(agents: number): Promise<void>;
  changeEverySecond(signal: AbortSignal): Promise<void>;
}

async function openApi(folder: string, port: number): Promise<Api> {
  const connection = await eventually("the server answers", 60_000, async () => {
    if (!existsSync(`${folder}/kubeconfig`)) return undefined;
    const tls = `${folder}/data/server/tls`;
    const read = (name: string) => readFileSync(`${tls}/${name}`, "utf8");
    const address = { port, ca: read("server-ca.crt"), cert: read("client-admin.crt"), key: read("client-admin.key") };
    const opened = await ApiConnection.open(address);
    const { status } = await opened.request("GET", "/readyz");
    if (status === 200) return opened;
    opened.close();
    return undefined;
  });
  const maps = "/api/v1/namespaces/default/configmaps";
  const send = (method: string, path: string, object: unknown, type: string) =>
    connection.request(method, path, Buffer.from(JSON.stringify(object)), type);
  return {
    async settled(agents) {
      await eventually("all nodes have their range", 120_000, async () => {
        const { body } = await connection.request("GET", "/api/v1/nodes");
        return (body.toString().match(/"podCIDR":/g) ?? []).length >= agents;
      });
    },
    async changeEverySecond(signal) {
      await send("POST", maps, { metadata: { name: "control" } }, "application/json");
      for (let n = 0; !signal.aborted; n++) {
        await send("PATCH", `${maps}/control`, { data: { n: String(n) } }, "application/merge-patch+json");
        await sleep(1000);
      }
    },
  };
}

/** A process full of agents. */
class Sim {
  readonly #child: ChildProcess;

  static async start(options: SimOptions): Promise<Sim> {
    const sim = new Sim(
      fork("scripts/run.mjs", ["scripts/bench/agents-sim.ts", JSON.stringify(options)], {
        stdio: ["ignore", 2, 2, "ipc"],
      }),
    );
    await sim.#answer("begun");
    return sim;
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  async step(name: string): Promise<SimFigures> {
    const answer = this.#answer(name);
    this.#child.send(name);
    return answer;
  }

  #answer(name: string): Promise<SimFigures> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new UserError(`agents: no answer to ${name}`)), stepTimeoutMs);
      const onExit = () => settle(() => reject(new UserError(`agents: the process ended in ${name}`)));
      const onMessage = (message: unknown) => {
        const { step, error, figures } = message as { step: string; error?: string; figures: SimFigures };
        if (step !== name) return;
        settle(() => (error === undefined ? resolve(figures) : reject(new UserError(`agents: ${name}: ${error}`))));
      };
      const settle = (how: () => void) => {
        clearTimeout(timer);
        this.#child.off("exit", onExit);
        this.#child.off("message", onMessage);
        how();
      };
      this.#child.on("exit", onExit);
      this.#child.on("message", onMessage);
    });
  }

  close(): void {
    this.#child.kill("SIGKILL");
  }
}

// One real agent

async function agentFigures({ seconds }: Options): Promise<Figures> {
  const hub = new Host("bench-hub", "192.168.77.2");
  const leaf = new Host("bench-leaf", "192.168.77.3");
  try {
    await hub.open();
    await leaf.open();
    await connectHosts(hub, leaf);
    hub.start(["server", "--disable-agent", "--node-name", "hub", "--write-kubeconfig", hub.kubeconfig]);
    await eventually("/readyz", 60_000, async () => (await hub.kubectl("get --raw /readyz")) === "ok");
    const token = readFileSync(`${hub.dataDir}/server/token`, "utf8").trim();
    const server = `https://${hub.address}:6443`;
    const startMs = performance.now();
    leaf.start(["agent", "--node-name", "leaf", "--server", server, "--token", token]);
    const isReady = async () => / Ready /.test(await hub.kubectl("get node leaf --no-headers"));
    await eventually("the agent is Ready", 60_000, isReady);
    const readyMs = performance.now() - startMs;
    await sleep(seconds * 1000);
    const containerd = pidsOf((line) => /(^|\/)containerd\0/.test(line) && line.includes(leaf.folder));
    if (containerd.length !== 1) throw new UserError(`expected one containerd, found ${containerd.length}`);
    const pids = [leaf.programPid, ...containerd];
    const before = pids.map(cpuSeconds);
    await sleep(seconds * 1000);
    const cpu = pids.map((pid, i) => cpuSeconds(pid) - before[i]!).reduce((a, b) => a + b, 0);
    const [own = 0, runtime = 0] = pids.map((pid) => pssKib(pid) / 1024);
    return {
      agent_pss_mib: round(own + runtime, 1),
      agent_own_pss_mib: round(own, 1),
      agent_containerd_pss_mib: round(runtime, 1),
      agent_cpu_pct: round((cpu / seconds) * 100, 2),
      agent_ready_ms: Math.round(readyMs),
    };
  } finally {
    await closeHosts(leaf, hub);
  }
}

// What the kernel counts

interface Sample {
  readonly cpuSeconds: number;
  readonly writtenBytes: number;
}

function sampleOf(pid: number): Sample {
  const io = readFileSync(`/proc/${pid}/io`, "utf8");
  return { cpuSeconds: cpuSeconds(pid), writtenBytes: Number(/^write_bytes:\s+(\d+)/m.exec(io)?.[1] ?? Number.NaN) };
}

function statusKib(pid: number, name: string): number {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? Number.NaN);
}

const memoryOf = (pid: number): string =>
  `server at ${round(statusKib(pid, "VmRSS") / 1024, 0)} MiB, ${round(cpuSeconds(pid), 1)} s of CPU`;

function pidsOf(matches: (commandLine: string) => boolean): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return matches(readFileSync(`/proc/${pid}/cmdline`, "utf8"));
      } catch {
        return false; // ended
      }
    });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

const sumOf = (all: readonly SimFigures[], name: keyof SimFigures): number => all.reduce((sum, f) => sum + f[name], 0);
const round = (value: number, digits: number): number => Number(value.toFixed(digits));
