// The API as clients see it: a server without a node as a process of its own, over TLS and HTTP/2, on its own datastore on
// disk, with the whole chain behind it, and beside its limits in the same run: node:http2 that only echoes, and the
// datastore alone.
//   --seconds N   of each measurement (default 5)
//   --only PART   may be repeated; the other figures are those of the last run (build/bench/api.json)
//   --control     positive control: the server holds its event loop for 30 ms ten times a second, which the delay must show
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { parse } from "yaml";
import { silentLogger } from "#base/log.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock } from "#platform/clock.ts";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { type ApiAddress, ApiConnection } from "./api-load.ts";
import { cpuSeconds, pssKib } from "./footprint.ts";

type Figures = Record<string, number>;

/** Where parts of earlier runs stand, so that all together are one line. */
const resultsPath = "build/bench/api.json";
const inFlight = 64;
const loadConnections = 4;
const watchConnections = 200;
const namespace = "/api/v1/namespaces/default";
/** Rounds of a watch, and lists of everything: few are enough for a median. */
const rounds = 15;

const goals: Readonly<Record<string, string>> = {
  list10k_p50_ms: "goal at most 80",
  list10k_extra_mib: "goal at most 4",
  configmaps_per_s: "goal 4000",
  pods_per_s: "goal 2000",
  configmap_p99_ms: "goal at most 40",
  pod_p99_ms: "goal at most 80",
  watch10k_last_ms: "goal at most 150",
  loop_delay_p99_ms: "goal at most 20",
  pss_mib: "goal at most 100, with 1000 objects",
  pss_after_mib: "of the server that all parts ran against",
  echo_per_s: "limit: node:http2",
  datastore_puts_per_s: "limit: the datastore in process",
};

interface Bench {
  readonly server: Server;
  readonly seconds: number;
  /** Shared by the parts: names must not meet. */
  count: number;
}

const parts: Readonly<Record<string, (bench: Bench) => Promise<Figures>>> = {
  limits: limitFigures,
  memory: memoryFigures,
  configmaps: (bench) => createFigures(bench, "configmaps", configMap),
  pods: (bench) => createFigures(bench, "pods", pod),
  get: getFigures,
  patch: patchFigures,
  list: listFigures,
  watch1k: (bench) => watchFigures(bench, "watch1k", 1000),
  watch10k: (bench) => watchFigures(bench, "watch10k", 10_000),
};

export async function api(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: "string", default: "5" },
      only: { type: "string", multiple: true, default: [] },
      control: { type: "boolean" },
    },
  });
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new UserError("--seconds: a number above 0");
  for (const name of values.only) {
    if (!parts[name]) throw new UserError(`--only ${name}: one of ${Object.keys(parts).join(", ")}`);
  }
  await runStages(buildStages);
  let figures: Figures = {};
  if (values.only.length > 0 && existsSync(resultsPath)) {
    figures = JSON.parse(readFileSync(resultsPath, "utf8")) as Figures;
  }
  const server = await Server.start();
  try {
    if (values.control) await server.tell("hold");
    const bench: Bench = { server, seconds, count: 0 };
    for (const [name, measure] of Object.entries(parts)) {
      if (values.only.length > 0 && !values.only.includes(name)) continue;
      const found = await measure(bench);
      for (const [figure, value] of Object.entries(found)) console.log(lineOf(figure, value));
      Object.assign(figures, found);
    }
    figures["pss_after_mib"] = round(pssKib(server.pid) / 1024, 1);
  } finally {
    await server.close();
  }
  const delays = Object.entries(figures).filter(([name]) => name.endsWith("_loop_p99_ms"));
  // The worst of what was measured while something went on.
  if (delays.length > 0) figures["loop_delay_p99_ms"] = Math.max(...delays.map(([, value]) => value));
  mkdirSync("build/bench", { recursive: true });
  writeFileSync(resultsPath, JSON.stringify(figures));
  console.log("");
  for (const [name, value] of Object.entries(figures)) console.log(lineOf(name, value));
  return figures;
}

const lineOf = (name: string, value: number): string =>
  `${name.padEnd(28)}${String(value).padStart(12)}   ${goals[name] ?? ""}`;

// Parts

/** Creates for some seconds with 64 in flight; both figures are the issue's: rate, and the 99th percentile. */
async function createFigures(
  bench: Bench,
  plural: "configmaps" | "pods",
  bodyOf: (name: string) => Uint8Array,
): Promise<Figures> {
  const connections = await bench.server.connections(loadConnections);
  const create = async (connection: ApiConnection) => {
    const { status, body } = await connection.request(
      "POST",
      `${namespace}/${plural}`,
      bodyOf(`bench-${plural}-${bench.count++}`),
    );
    if (status !== 201) throw new UserError(`create of ${plural}: ${status} ${body.toString("utf8", 0, 300)}`);
  };
  await warm(connections, create);
  await bench.server.tell("reset");
  const { latencies, cpuUs } = await measured(bench, connections, create);
  const one = plural === "pods" ? "pod" : "configmap";
  const figures = {
    [`${plural}_per_s`]: Math.round(latencies.length / bench.seconds),
    [`${one}_p99_ms`]: round(percentile(latencies, 0.99), 1),
    [`${one}_cpu_us`]: cpuUs,
    [`${plural}_loop_p99_ms`]: round((await bench.server.tell("delay"))["p99Ms"] ?? Number.NaN, 1),
  };
  for (const connection of connections) connection.close();
  return figures;
}

async function getFigures(bench: Bench): Promise<Figures> {
  await ensureConfigMap(bench, "bench-get");
  const connections = await bench.server.connections(loadConnections);
  const get = async (connection: ApiConnection) => {
    const { status } = await connection.size(`${namespace}/configmaps/bench-get`);
    if (status !== 200) throw new UserError(`get: ${status}`);
  };
  await warm(connections, get);
  const { latencies, cpuUs } = await measured(bench, connections, get);
  for (const connection of connections) connection.close();
  return {
    gets_per_s: Math.round(latencies.length / bench.seconds),
    get_p99_ms: round(percentile(latencies, 0.99), 1),
    get_cpu_us: cpuUs,
  };
}

/** Merge patches of 64 objects, each by one client at a time. */
async function patchFigures(bench: Bench): Promise<Figures> {
  for (let i = 0; i < inFlight; i++) await ensureConfigMap(bench, `bench-patch-${i}`);
  const connections = await bench.server.connections(loadConnections);
  let value = 0;
  const patch = async (connection: ApiConnection, worker: number) => {
    const { status, body } = await connection.request(
      "PATCH",
      `${namespace}/configmaps/bench-patch-${worker}`,
      Buffer.from(`{"data":{"n":"${value++}"}}`),
      "application/merge-patch+json",
    );
    if (status !== 200) throw new UserError(`patch: ${status} ${body.toString("utf8", 0, 300)}`);
  };
  await warm(connections, patch);
  const { latencies, cpuUs } = await measured(bench, connections, patch);
  for (const connection of connections) connection.close();
  return {
    patches_per_s: Math.round(latencies.length / bench.seconds),
    patch_p99_ms: round(percentile(latencies, 0.99), 1),
    patch_cpu_us: cpuUs,
  };
}

/** One page of 500, and everything: 10,000 pods of some 2 kB, in a namespace of their own. */
async function listFigures(bench: Bench): Promise<Figures> {
  const { server } = bench;
  const [connection] = (await server.connections(1)) as [ApiConnection];
  const path = "/api/v1/namespaces/bench-list/pods";
  await fill(bench, "bench-list", 10_000);
  const timed = async (query: string) => {
    const startMs = performance.now();
    const { status, bytes } = await connection.size(path + query);
    if (status !== 200) throw new UserError(`list: ${status}`);
    return { ms: performance.now() - startMs, bytes };
  };
  const pages: number[] = [];
  for (let i = 0; i < rounds * 4; i++) pages.push((await timed("?limit=500")).ms);
  const times: number[] = [];
  const extraKib: number[] = [];
  let bytes = 0;
  // What all of them have taken is held against what there was before the first: memory that one leaves behind for the next
  // is memory that lists need.
  await sleep(5000);
  const before = server.resetPeak();
  const cpuBefore = cpuSeconds(server.pid);
  await server.tell("reset");
  for (let i = 0; i < rounds; i++) {
    server.resetPeak();
    const { ms, bytes: size } = await timed("");
    bytes = size;
    times.push(ms);
    extraKib.push(Math.max(0, server.peakKib() - before));
    await sleep(200);
  }
  const cpuMs = ((cpuSeconds(server.pid) - cpuBefore) * 1000) / rounds;
  const { p99Ms = Number.NaN } = await server.tell("delay");
  connection.close();
  return {
    list500_p50_ms: round(percentile(pages, 0.5), 1),
    list10k_p50_ms: round(percentile(times, 0.5), 1),
    list10k_extra_mib: round(percentile(extraKib, 0.5) / 1024, 1),
    list10k_cpu_ms: Math.round(cpuMs),
    list10k_loop_p99_ms: round(p99Ms, 1),
    list10k_bytes_per_pod: Math.round(bytes / 10_000),
  };
}

/** From the request that changes one config map until the last of all watchers has it. */
async function watchFigures(bench: Bench, name: string, watchers: number): Promise<Figures> {
  const { server } = bench;
  const watched = `bench-${name}`;
  await ensureConfigMap(bench, watched);
  const [writer] = (await server.connections(1)) as [ApiConnection];
  const current = await writer.request("GET", `${namespace}/configmaps/${watched}`);
  const revision = (JSON.parse(current.body.toString()) as { metadata: { resourceVersion: string } }).metadata
    .resourceVersion;
  const connections = await server.connections(Math.min(watchConnections, watchers));
  const path = `${namespace}/configmaps?watch=true&resourceVersion=${revision}`;
  let seen = 0;
  let failure = "";
  let complete = () => {};
  const line = () => {
    if (++seen === watchers) complete();
  };
  const ended = (why: string) => {
    failure ||= why;
    complete();
  };
  for (let i = 0; i < watchers; i += connections.length) {
    const batch = connections.slice(0, watchers - i).map((connection) => connection.watch(path, line, ended));
    await Promise.all(batch);
  }
  await sleep(1000);
  await server.tell("reset");
  const times: number[] = [];
  let cpuBefore = 0;
  for (let n = 0; n < rounds + 3; n++) {
    // The first ones are for the compiler.
    if (n === 3) cpuBefore = cpuSeconds(server.pid);
    seen = 0;
    const all = new Promise<void>((resolve) => {
      complete = resolve;
    });
    const startMs = performance.now();
    const body = Buffer.from(`{"data":{"n":"${n}"}}`);
    const patched = writer.request("PATCH", `${namespace}/configmaps/${watched}`, body, "application/merge-patch+json");
    await all;
    if (failure !== "") throw new UserError(`${name}: a watch ended: ${failure}; ${seen} of ${watchers} had the event`);
    if (n >= 3) times.push(performance.now() - startMs);
    await patched;
    await sleep(200);
  }
  const cpuMs = ((cpuSeconds(server.pid) - cpuBefore) * 1000) / rounds;
  const { p99Ms = Number.NaN } = await server.tell("delay");
  for (const connection of [...connections, writer]) connection.close();
  await sleep(1000);
  return {
    [`${name}_last_ms`]: round(percentile(times, 0.5), 1),
    [`${name}_worst_ms`]: round(Math.max(...times), 1),
    [`${name}_cpu_ms`]: Math.round(cpuMs),
    [`${name}_loop_p99_ms`]: round(p99Ms, 1),
  };
}

/** The shipped program with 1,000 objects, after it has had a moment of peace. */
async function memoryFigures(): Promise<Figures> {
  const server = await Server.start("build/dist/mote");
  try {
    const bench: Bench = { server, seconds: 0, count: 0 };
    const empty = pssKib(server.pid);
    await fill(bench, "bench-memory", 500);
    const [connection] = (await server.connections(1)) as [ApiConnection];
    for (let i = 0; i < 500; i++) await connection.request("POST", `${namespace}/configmaps`, configMap(`bench-${i}`));
    connection.close();
    await sleep(15_000);
    return { pss_empty_mib: round(empty / 1024, 1), pss_mib: round(pssKib(server.pid) / 1024, 1) };
  } finally {
    await server.close();
  }
}

async function limitFigures({ seconds, server }: Bench): Promise<Figures> {
  const port = await freePort();
  const tls = `${server.folder}/data/server/tls/serving-kube-apiserver`;
  const echo = spawnProbe(["echo", `${tls}.crt`, `${tls}.key`, String(port)]);
  let echoed = 0;
  let echoCpuUs = 0;
  try {
    await told(echo, "ready");
    const connections = await Promise.all(Array.from({ length: loadConnections }, () => ApiConnection.open({ port })));
    const body = pod("echo");
    const ask = async (connection: ApiConnection) => {
      await connection.request("POST", "/", body);
    };
    await warm(connections, ask);
    const before = cpuSeconds(echo.pid!);
    echoed = (await during(seconds, connections, ask)).length;
    echoCpuUs = Math.round(((cpuSeconds(echo.pid!) - before) * 1e6) / echoed);
    for (const connection of connections) connection.close();
  } finally {
    echo.kill("SIGKILL");
  }
  const folder = mkdtempSync(`${tmpdir()}/mote-bench-`);
  const store = await openDatastore(
    { endpoint: `sqlite://${folder}/state.db` },
    { clock: systemClock, log: silentLogger },
  );
  const value = Buffer.alloc(2048, "v");
  let n = 0;
  const put = async () => {
    const key = `/registry/things/${n++}`;
    await store.commit({
      compares: [{ key, target: "mod", op: "=", value: 0 }],
      success: [{ type: "put", key, value }],
    });
  };
  const puts = await during(seconds, [undefined], put);
  await store.close();
  rmSync(folder, { recursive: true, force: true });
  return {
    echo_per_s: Math.round(echoed / seconds),
    echo_cpu_us: echoCpuUs,
    datastore_puts_per_s: Math.round(puts.length / seconds),
  };
}

// Load

/** What the compiler has not seen often enough is not what is asked about: a second and 3,000 calls, or 20 seconds. */
async function warm<C>(
  connections: readonly C[],
  call: (connection: C, worker: number) => Promise<void>,
): Promise<void> {
  let calls = 0;
  for (let second = 0; second < 20 && calls < 3000; second++) calls += (await during(1, connections, call)).length;
}

/** With the CPU time of the server for each call, which a busy machine changes less than the rest. */
async function measured(
  { server, seconds }: Bench,
  connections: readonly ApiConnection[],
  call: (connection: ApiConnection, worker: number) => Promise<void>,
): Promise<{ latencies: number[]; cpuUs: number }> {
  const before = cpuSeconds(server.pid);
  const latencies = await during(seconds, connections, call);
  return { latencies, cpuUs: Math.round(((cpuSeconds(server.pid) - before) * 1e6) / latencies.length) };
}

/** 64 workers, spread over `connections`; the time of each call. */
async function during<C>(
  seconds: number,
  connections: readonly C[],
  call: (connection: C, worker: number) => Promise<void>,
): Promise<number[]> {
  const latencies: number[] = [];
  const endMs = performance.now() + seconds * 1000;
  const work = async (_: unknown, worker: number) => {
    const connection = connections[worker % connections.length]!;
    while (performance.now() < endMs) {
      const startMs = performance.now();
      await call(connection, worker);
      latencies.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, work));
  return latencies;
}

async function fill(bench: Bench, name: string, count: number): Promise<void> {
  const connections = await bench.server.connections(loadConnections);
  await bench.server.makeNamespace(name);
  const path = `/api/v1/namespaces/${name}/pods`;
  let next = 0;
  const create = async (_: unknown, worker: number) => {
    while (next < count) {
      const { status, body } = await connections[worker % connections.length]!.request(
        "POST",
        path,
        pod(`pod-${next++}`),
      );
      if (status !== 201) throw new UserError(`pods of ${name}: ${status} ${body.toString("utf8", 0, 300)}`);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, create));
  for (const connection of connections) connection.close();
}

async function ensureConfigMap({ server }: Bench, name: string): Promise<void> {
  const [connection] = (await server.connections(1)) as [ApiConnection];
  const { status } = await connection.request("POST", `${namespace}/configmaps`, configMap(name));
  connection.close();
  if (status !== 201 && status !== 409) throw new UserError(`config map ${name}: ${status}`);
}

const configMap = (name: string): Uint8Array =>
  Buffer.from(
    JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data: { text: "x".repeat(200) } }),
  );

/** Some 2 kB when defaults, owners of fields and what the chain adds are there. */
const pod = (name: string): Uint8Array =>
  Buffer.from(
    JSON.stringify({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, labels: { app: "bench", tier: "web" } },
      spec: {
        automountServiceAccountToken: false,
        containers: [
          {
            name: "main",
            image: "example.com/web:1",
            env: [{ name: "MODE", value: "production" }],
            ports: [{ containerPort: 8080 }],
            resources: { requests: { cpu: "10m", memory: "16Mi" } },
          },
        ],
      },
    }),
  );

// The server

class Server {
  readonly folder: string;
  readonly #child: ChildProcess;
  readonly #address: ApiAddress;

  /** `program`: as shipped; absent: from the sources, so that it can be asked about its event loop. */
  static async start(program?: string): Promise<Server> {
    const folder = mkdtempSync(`${tmpdir()}/mote-bench-`);
    writeFileSync(`${folder}/none.yaml`, "");
    const port = await freePort();
    const flags = [
      ...["--config", `${folder}/none.yaml`, "--data-dir", `${folder}/data`, "--run-dir", `${folder}/run`],
      ...["--node-ip", "192.0.2.1", "--disable-agent", "--bind-address", "127.0.0.1"],
      ...["--https-listen-port", String(port), "--write-kubeconfig", `${folder}/kubeconfig`],
      // The API alone: what runs beside it in a whole server is measured elsewhere.
      ...["controllers", "scheduler", "metrics-server", "local-storage"].flatMap((name) => ["--disable", name]),
    ];
    const child = program ? spawn(program, ["server", ...flags], { stdio: "ignore" }) : spawnProbe(["mote", ...flags]);
    try {
      if (!program) await told(child, "ready");
      const address = await addressOf(`${folder}/kubeconfig`, port);
      const server = new Server(folder, child, address);
      await server.#prepare();
      return server;
    } catch (error) {
      child.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  private constructor(folder: string, child: ChildProcess, address: ApiAddress) {
    this.folder = folder;
    this.#child = child;
    this.#address = address;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  connections(count: number): Promise<ApiConnection[]> {
    return Promise.all(Array.from({ length: count }, () => ApiConnection.open(this.#address)));
  }

  tell(message: string): Promise<Record<string, number>> {
    const answer = new Promise<Record<string, number>>((resolve) => {
      this.#child.once("message", (reply) => resolve(reply as Record<string, number>));
    });
    this.#child.send(message);
    return answer;
  }

  /** With the account that pods are of: the controller that makes it does not run. */
  async makeNamespace(name: string): Promise<void> {
    const [connection] = (await this.connections(1)) as [ApiConnection];
    const make = (path: string, kind: string, object: string) =>
      connection.request(
        "POST",
        path,
        Buffer.from(JSON.stringify({ apiVersion: "v1", kind, metadata: { name: object } })),
      );
    const space = await make("/api/v1/namespaces", "Namespace", name);
    const account = await make(`/api/v1/namespaces/${name}/serviceaccounts`, "ServiceAccount", "default");
    connection.close();
    for (const { status, body } of [space, account]) {
      if (status !== 201 && status !== 409) throw new UserError(`namespace ${name}: ${status} ${body.toString()}`);
    }
  }

  async #prepare(): Promise<void> {
    const endMs = performance.now() + 30_000;
    for (;;) {
      try {
        const [connection] = (await this.connections(1)) as [ApiConnection];
        const { status } = await connection.request("GET", "/readyz");
        connection.close();
        if (status === 200) break;
      } catch (error) {
        // Its port is not open yet.
        if (performance.now() > endMs) throw error;
      }
      if (performance.now() > endMs) throw new UserError("the server did not become ready within 30 s");
      await sleep(50);
    }
    await this.makeNamespace("default");
  }

  /** What it has now, KiB; from here on the peak is counted anew. */
  resetPeak(): number {
    writeFileSync(`/proc/${this.pid}/clear_refs`, "5");
    return this.#status("VmRSS");
  }
  peakKib(): number {
    return this.#status("VmHWM");
  }
  #status(name: string): number {
    const text = readFileSync(`/proc/${this.pid}/status`, "utf8");
    return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? Number.NaN);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((resolve) => this.#child.once("exit", resolve));
      this.#child.kill("SIGKILL");
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function spawnProbe(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, ["scripts/run.mjs", "scripts/bench/api-server.ts", ...args], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
}

/** Waits for the message that has `name`; rejects when the process ends before. */
function told(child: ChildProcess, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.on("message", (message) => {
      if (typeof message === "object" && message !== null && name in message) resolve();
    });
    child.once("exit", (code) => reject(new UserError(`the server ended with ${code} before it was ${name}`)));
  });
}

async function addressOf(kubeconfig: string, port: number): Promise<ApiAddress> {
  const endMs = performance.now() + 30_000;
  while (!existsSync(kubeconfig)) {
    if (performance.now() > endMs) throw new UserError("the server wrote no kubeconfig within 30 s");
    await sleep(50);
  }
  const config = parse(readFileSync(kubeconfig, "utf8")) as Kubeconfig;
  const text = (base64: string) => Buffer.from(base64, "base64").toString();
  const { user } = config.users[0]!;
  return {
    port,
    ca: text(config.clusters[0]!.cluster["certificate-authority-data"]),
    cert: text(user["client-certificate-data"]),
    key: text(user["client-key-data"]),
  };
}

interface Kubeconfig {
  readonly clusters: readonly { readonly cluster: { readonly "certificate-authority-data": string } }[];
  readonly users: readonly {
    readonly user: { readonly "client-certificate-data": string; readonly "client-key-data": string };
  }[];
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

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
const round = (value: number, digits: number): number => Number(value.toFixed(digits));
