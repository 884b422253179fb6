// The datastore beside etcd of Debian, in the same run and interleaved: 1 KiB puts over gRPC from a client in C (h2load),
// and what needs no peer: the in-process path, a card whose flush takes 20 ms, bytes written per byte, opening again.
//   --seconds N   of each measurement (default 5)     --rounds N   interleaved, the median counts (default 3)
// h2load sends one and the same request, so the puts over gRPC are to one key; the in-process ones go over 20,000 keys.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { etcdServerPins } from "#build.config.ts";
import { prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import { systemClock } from "#platform/clock.ts";
import { buildStages } from "#scripts/build/build.ts";
import { unpackDebianClosure, unpackDebianPackage } from "#scripts/debian.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { SlowFiles } from "#test/harness/slow-files.ts";

const value = Buffer.alloc(1024, "v");
const keys = 20_000;
let folder = "";
let seconds = 5;

export async function datastore(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({
    args: [...args],
    options: { seconds: { type: "string", default: "5" }, rounds: { type: "string", default: "3" } },
  });
  seconds = Number(values.seconds);
  const rounds = Number(values.rounds);
  if (!(seconds > 0 && rounds > 0)) throw new UserError("--seconds and --rounds: a number above 0");
  await runStages(buildStages);
  folder = mkdtempSync(join(tmpdir(), "mote-bench-"));
  try {
    const inProcess = await inProcessFigures();
    const overGrpc = await grpcFigures(rounds);
    const figures = { ...overGrpc, ...inProcess };
    const put256 = figures["put256_etcd_rate"];
    const all: Record<string, number> = {
      ...figures,
      ...(put256 ? { put256_inprocess_vs_etcd: round(figures["put256_inprocess_rate"]! / put256, 2) } : {}),
    };
    const goals: Readonly<Record<string, string>> = {
      put256_vs_etcd: "goal 1.2, then 1.5",
      put256_inprocess_vs_etcd: "goal 3",
      put64_slowdisk_vs_ceiling: "goal 0.8 of in flight / flush time",
      put1_max_vs_etcd: "worst request of each round; h2load gives no p99",
      rss_vs_etcd: "goal at most 0.25",
      bytes_per_byte_lone: "goal at most 7",
      bytes_per_byte_64: "goal at most 2.6",
      slowdisk_get_p99_ms: "goal at most 10",
    };
    for (const [name, figure] of Object.entries(all)) {
      console.log(`${name.padEnd(28)}${String(figure).padStart(12)}   ${goals[name] ?? ""}`);
    }
    return all;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function inProcessFigures(): Promise<Record<string, number>> {
  const metrics = new Metrics();
  const endpoint = `sqlite://${folder}/in-process/state.db`;
  const store = await openDatastore({ endpoint }, { clock: systemClock, log: silentLogger, metrics });
  await sleep(1000);
  const figures: Record<string, number> = {};
  for (const inFlight of [1, 64, 256]) {
    const written = metricOf(metrics, "mote_datastore_written_bytes_total");
    const { count, p99Ms } = await putFor(store, inFlight);
    const bytes = metricOf(metrics, "mote_datastore_written_bytes_total") - written;
    figures[`put${inFlight}_inprocess_rate`] = Math.round(count / seconds);
    figures[`put${inFlight}_inprocess_p99_ms`] = round(p99Ms, 2);
    if (inFlight < 256)
      figures[inFlight === 1 ? "bytes_per_byte_lone" : "bytes_per_byte_64"] = round(bytes / (count * 1024), 2);
    await store.compact(store.revision());
  }
  await store.close();
  const slow = await openDatastore(
    { endpoint: `sqlite://${folder}/slow/state.db`, files: new SlowFiles(20), reserveBytes: 0 },
    { clock: systemClock, log: silentLogger },
  );
  let done = false;
  const gets: number[] = [];
  const reading = (async () => {
    while (!done) {
      const startMs = performance.now();
      await slow.range({ key: "/k/1" });
      await new Promise((resolve) => setImmediate(resolve));
      gets.push(performance.now() - startMs);
    }
  })();
  const { count } = await putFor(slow, 64);
  done = true;
  await reading;
  figures["put64_slowdisk_vs_ceiling"] = round(count / seconds / (64 / 0.02), 2);
  figures["slowdisk_get_p99_ms"] = round(percentile(gets, 0.99), 2);
  figures["slowdisk_longest_pause_ms"] = round(percentile(gets, 1), 1);
  await slow.close();
  figures["open100k_s"] = await openFigure();
  return figures;
}

async function openFigure(): Promise<number> {
  const endpoint = `sqlite://${folder}/open/state.db`;
  const deps = { clock: systemClock, log: silentLogger };
  const store = await openDatastore({ endpoint, reserveBytes: 0 }, deps);
  for (let i = 0; i < 100_000; i += 128) {
    const success = Array.from({ length: Math.min(128, 100_000 - i) }, (_, n) => ({
      ...{ type: "put" as const, key: `/registry/things/${i + n}`, value },
    }));
    await store.commit({ compares: [], success });
  }
  await store.close();
  const startMs = performance.now();
  const again = await openDatastore({ endpoint, reserveBytes: 0 }, deps);
  const took = (performance.now() - startMs) / 1000;
  const { count } = await again.range({ ...prefixRange("/"), countOnly: true });
  if (count !== 100_000) throw new UserError(`opened ${count} keys`);
  await again.close();
  return round(took, 2);
}

async function putFor(store: Datastore, inFlight: number): Promise<{ count: number; p99Ms: number }> {
  const endMs = performance.now() + seconds * 1000;
  const latencies: number[] = [];
  let n = 0;
  const writer = async () => {
    while (performance.now() < endMs) {
      const startMs = performance.now();
      await store.commit({ compares: [], success: [{ type: "put", key: `/k/${n++ % keys}`, value }] });
      latencies.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, writer));
  return { count: latencies.length, p99Ms: percentile(latencies, 0.99) };
}

interface Peer {
  readonly name: "mote" | "etcd";
  readonly port: number;
  readonly child: ChildProcess;
}

async function grpcFigures(rounds: number): Promise<Record<string, number>> {
  const h2load = await findH2load();
  const peers = [await startMote(), await startEtcd()];
  try {
    const body = `${folder}/put.grpc`;
    writeFileSync(body, putRequest());
    const rates: Record<string, number[]> = {};
    const note = (name: string, figure: number) => {
      rates[name] ??= [];
      rates[name].push(figure);
    };
    for (let i = 0; i < rounds; i++) {
      for (const inFlight of [1, 64, 256]) {
        // Turn about, so that neither always has the warmer machine.
        for (const peer of i % 2 ? [...peers].reverse() : peers) {
          const { rate, maxMs } = await load(h2load, peer.port, inFlight, body);
          note(`put${inFlight}_${peer.name}_rate`, rate);
          if (inFlight === 1) note(`put1_max_ms_${peer.name}`, maxMs);
        }
      }
    }
    const figures: Record<string, number> = {};
    for (const [name, values] of Object.entries(rates)) figures[name] = round(percentile(values, 0.5), 1);
    for (const { name, child } of peers) figures[`rss_${name}_mib`] = round(rssKib(child.pid!) / 1024, 1);
    for (const n of [1, 64, 256])
      figures[`put${n}_vs_etcd`] = round(figures[`put${n}_mote_rate`]! / figures[`put${n}_etcd_rate`]!, 2);
    figures["put1_max_vs_etcd"] = round(figures["put1_max_ms_mote"]! / figures["put1_max_ms_etcd"]!, 2);
    figures["rss_vs_etcd"] = round(figures["rss_mote_mib"]! / figures["rss_etcd_mib"]!, 2);
    return figures;
  } finally {
    for (const { child } of peers) child.kill("SIGKILL");
  }
}

async function startMote(): Promise<Peer> {
  const port = await freePort();
  const args = [
    "kine",
    "--listen-address",
    `http://127.0.0.1:${port}`,
    "--endpoint",
    `sqlite://${folder}/mote/state.db`,
  ];
  return ready({ name: "mote", port, child: spawn("node", ["build/dist/mote.mjs", ...args], { stdio: "ignore" }) });
}

async function startEtcd(): Promise<Peer> {
  const pin = etcdServerPins.find(({ arch }) => arch === (process.arch === "arm64" ? "arm64" : "amd64"))!;
  const root = await unpackDebianPackage(pin);
  const [port, peerPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const flags = ["--data-dir", `${folder}/etcd`, "--listen-client-urls", url, "--advertise-client-urls", url];
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  flags.push(
    "--listen-peer-urls",
    peerUrl,
    "--initial-advertise-peer-urls",
    peerUrl,
    "--initial-cluster",
    `default=${peerUrl}`,
  );
  return ready({
    name: "etcd",
    port,
    child: spawn(`${root}/usr/bin/etcd`, [...flags, "--log-level", "error"], { stdio: "ignore" }),
  });
}

async function ready(peer: Peer): Promise<Peer> {
  for (let i = 0; i < 200; i++) {
    const { connect } = await import("node:net");
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(peer.port, "127.0.0.1", () => {
        socket.destroy();
        resolve(true);
      });
      socket.on("error", () => resolve(false));
    });
    if (open) {
      await sleep(2000);
      return peer;
    }
    await sleep(50);
  }
  peer.child.kill("SIGKILL");
  throw new UserError(`${peer.name} does not listen`);
}

/** h2load of Debian with the libraries it was built with, unpacked beside the machine's own. */
async function findH2load(): Promise<readonly string[]> {
  const root = join(process.cwd(), "build/debian/h2load");
  const program = `${root}/usr/bin/h2load`;
  const arch = process.arch === "arm64" ? "arm64" : "amd64";
  if (!existsSync(program)) await unpackDebianClosure(["nghttp2-client"], arch, root);
  const triplet = arch === "amd64" ? "x86_64-linux-gnu" : "aarch64-linux-gnu";
  const loader = arch === "amd64" ? "ld-linux-x86-64.so.2" : "ld-linux-aarch64.so.1";
  return [`${root}/usr/lib/${triplet}/${loader}`, "--library-path", `${root}/usr/lib/${triplet}`, program];
}

async function load(
  command: readonly string[],
  port: number,
  inFlight: number,
  body: string,
): Promise<{ rate: number; maxMs: number }> {
  const connections = inFlight === 1 ? 1 : 4;
  const args = ["-D", String(seconds), "-c", String(connections), "-m", String(inFlight / connections), "-d", body];
  args.push(
    "-H",
    "content-type: application/grpc",
    "-H",
    "te: trailers",
    `http://127.0.0.1:${port}/etcdserverpb.KV/Put`,
  );
  const output = await new Promise<string>((resolve, reject) => {
    const child = spawn(command[0]!, [...command.slice(1), ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", () => resolve(text));
  });
  const rate = Number(/finished in [\d.]+\w+, ([\d.]+) req\/s/.exec(output)?.[1]);
  const [, max = "", unit = ""] = /time for request:\s+\S+\s+([\d.]+)(us|ms|s)\b/.exec(output) ?? [];
  if (!(rate > 0) || !/ 0 failed, 0 errored/.test(output)) throw new UserError(`h2load:\n${output}`);
  return { rate, maxMs: Number(max) * { us: 0.001, ms: 1, s: 1000 }[unit as "us" | "ms" | "s"] };
}

/** PutRequest { key, value } with gRPC's five bytes before it. */
function putRequest(): Buffer {
  const key = Buffer.from("/registry/things/1");
  const length = Buffer.from([0x80 | (value.length & 0x7f), value.length >> 7]);
  const message = Buffer.concat([Buffer.from([0x0a, key.length]), key, Buffer.from([0x12]), length, value]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

const rssKib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
const round = (figure: number, digits: number): number => Number(figure.toFixed(digits));

function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

function metricOf(metrics: Metrics, name: string): number {
  const line = metrics
    .render()
    .split("\n")
    .find((l) => l.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}
