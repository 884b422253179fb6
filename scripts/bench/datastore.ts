// The datastore beside etcd of Debian, in the same run and interleaved: 1 KiB puts over gRPC from a client in C (h2load),
// and what needs no peer: the in-process path, a card whose flush takes 20 ms, bytes written per byte, opening again.
//   --seconds N   of each measurement (default 3)     --rounds N   interleaved, the median counts (default 3)
//   --only PART   may be repeated; the other figures are those of the last run (build/bench/datastore.json)
// h2load sends one and the same request, so the puts over gRPC are to one key; the others go over 20,000 keys.
import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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
import { type GrpcServer, openGrpcServer } from "#platform/grpc-server.ts";
import { buildStages } from "#scripts/build/build.ts";
import { unpackDebianClosure, unpackDebianPackage } from "#scripts/debian.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { SlowFiles } from "#test/harness/slow-files.ts";
import { LoadConnection } from "./grpc-load.ts";

const value = Buffer.alloc(1024, "v");
const keys = 20_000;
/** Where parts of earlier runs stand, so that all together are one line. */
const resultsPath = "build/bench/datastore.json";
let folder = "";
let seconds = 3;
let rounds = 3;

type Figures = Record<string, number>;

const parts: Readonly<Record<string, () => Promise<Figures>>> = {
  put1: () => putFigures(1),
  put64: () => putFigures(64),
  put256: () => putFigures(256),
  range: rangeFigures,
  watch1: () => watchFigures(1),
  watch100: () => watchFigures(100),
  watch10k: () => watchFigures(10_000),
  rss: rssFigures,
  inprocess: inProcessFigures,
  slowdisk: slowDiskFigures,
  open: openFigures,
};

/** Of two figures, which may be from different parts. */
const ratios: readonly (readonly [name: string, over: string, under: string])[] = [
  ["put1_vs_etcd", "put1_mote_rate", "put1_etcd_rate"],
  ["put64_vs_etcd", "put64_mote_rate", "put64_etcd_rate"],
  ["put256_vs_etcd", "put256_mote_rate", "put256_etcd_rate"],
  ["put256_inprocess_vs_etcd", "put256_inprocess_rate", "put256_etcd_rate"],
  ["put256_cpu_vs_etcd", "put256_mote_cpu_us", "put256_etcd_cpu_us"],
  ["put1_p99_vs_etcd", "put1_mote_p99_ms", "put1_etcd_p99_ms"],
  ["range500_vs_etcd", "range500_mote_rate", "range500_etcd_rate"],
  ["range10k_vs_etcd", "range10k_mote_rate", "range10k_etcd_rate"],
  ["watch1_p99_vs_etcd", "watch1_mote_p99_ms", "watch1_etcd_p99_ms"],
  ["watch100_p99_vs_etcd", "watch100_mote_p99_ms", "watch100_etcd_p99_ms"],
  ["watch10k_p99_vs_etcd", "watch10k_mote_p99_ms", "watch10k_etcd_p99_ms"],
  ["rss_vs_etcd", "rss_mote_mib", "rss_etcd_mib"],
];

const goals: Readonly<Record<string, string>> = {
  put256_vs_etcd: "goal 1.2, then 1.5",
  put256_inprocess_vs_etcd: "goal 3",
  put64_slowdisk_vs_ceiling: "goal 0.8 of in flight / flush time",
  put1_p99_vs_etcd: "goal at most 1",
  range10k_vs_etcd: "goal 2",
  watch1_p99_vs_etcd: "goal at most 0.33",
  watch100_p99_vs_etcd: "goal at most 0.33",
  watch10k_p99_vs_etcd: "goal at most 0.33",
  rss_vs_etcd: "goal at most 0.25",
  bytes_per_byte_lone: "goal at most 7",
  bytes_per_byte_64: "goal at most 2.6",
  heartbeat_bytes: "goal 0",
  slowdisk_get_p99_ms: "goal at most 10",
};

export async function datastore(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: "string", default: "3" },
      rounds: { type: "string", default: "3" },
      only: { type: "string", multiple: true, default: [] },
    },
  });
  seconds = Number(values.seconds);
  rounds = Number(values.rounds);
  if (!(seconds > 0 && rounds > 0)) throw new UserError("--seconds and --rounds: a number above 0");
  for (const name of values.only) {
    if (!parts[name]) throw new UserError(`--only ${name}: one of ${Object.keys(parts).join(", ")}`);
  }
  await runStages(buildStages);
  let figures: Figures = {};
  if (values.only.length > 0 && existsSync(resultsPath)) {
    figures = JSON.parse(readFileSync(resultsPath, "utf8")) as Figures;
  }
  for (const [name, measure] of Object.entries(parts)) {
    if (values.only.length > 0 && !values.only.includes(name)) continue;
    folder = mkdtempSync(join(tmpdir(), "mote-bench-"));
    try {
      Object.assign(figures, await measure());
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  for (const [name, over, under] of ratios) {
    const [a, b] = [figures[over], figures[under]];
    if (a !== undefined && b !== undefined) figures[name] = round(a / b, 2);
  }
  mkdirSync("build/bench", { recursive: true });
  writeFileSync(resultsPath, JSON.stringify(figures));
  for (const [name, figure] of Object.entries(figures)) {
    console.log(`${name.padEnd(28)}${String(figure).padStart(12)}   ${goals[name] ?? ""}`);
  }
  return figures;
}

/** In the process itself: latencies, and what is written. */
async function inProcessFigures(): Promise<Figures> {
  const figures: Figures = {};
  for (const inFlight of [1, 64]) {
    const metrics = new Metrics();
    const endpoint = `sqlite://${folder}/in-process-${inFlight}/state.db`;
    const store = await openDatastore({ endpoint }, { clock: systemClock, log: silentLogger, metrics });
    const written = () => metricOf(metrics, "mote_datastore_written_bytes_total");
    await sleep(1000);
    const before = written();
    const { count, p99Ms } = await putFor(store, inFlight);
    const bytes = written() - before;
    figures[`put${inFlight}_inprocess_p99_ms`] = round(p99Ms, 2);
    figures[inFlight === 1 ? "bytes_per_byte_lone" : "bytes_per_byte_64"] = round(bytes / (count * 1024), 2);
    if (inFlight === 1) {
      await store.commit({ compares: [], success: [{ type: "put", key: "/beat", value, class: "heartbeat" }] });
      const beforeBeats = written();
      for (let i = 0; i < 1000; i++)
        await store.commit({ compares: [], success: [{ type: "put", key: "/beat", value, class: "heartbeat" }] });
      figures["heartbeat_bytes"] = written() - beforeBeats;
    }
    await store.close();
  }
  return figures;
}

async function slowDiskFigures(): Promise<Figures> {
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
  await slow.close();
  return {
    put64_slowdisk_vs_ceiling: round(count / seconds / (64 / 0.02), 2),
    slowdisk_get_p99_ms: round(percentile(gets, 0.99), 2),
    slowdisk_longest_pause_ms: round(percentile(gets, 1), 1),
  };
}

/** After kill -9 of a server that has just written them. */
async function openFigures(): Promise<Figures> {
  const mote = await startMote();
  const load = new LoadConnection(mote.port);
  await putMany(load, 100_000, 100_000, 256);
  load.close();
  await end(mote);
  const startMs = performance.now();
  const again = await openDatastore(
    { endpoint: `sqlite://${folder}/mote/state.db`, reserveBytes: 0 },
    { clock: systemClock, log: silentLogger },
  );
  const took = (performance.now() - startMs) / 1000;
  const { count } = await again.range({ ...prefixRange("/"), countOnly: true });
  if (count !== 100_000) throw new UserError(`opened ${count} keys`);
  await again.close();
  return { open100k_s: round(took, 2) };
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

/** Both peers, turn about, so that neither always has the warmer machine; the median of each figure. */
async function interleaved(
  measure: (peer: Peer, note: (name: string, figure: number) => void) => Promise<void>,
  prepare: (peer: Peer) => Promise<void> = async () => {},
  alone: (note: (name: string, figure: number) => void) => Promise<void> = async () => {},
): Promise<Figures> {
  const peers = [await startMote(), await startEtcd()];
  const found: Record<string, number[]> = {};
  const note = (name: string, figure: number) => {
    found[name] ??= [];
    found[name].push(figure);
  };
  try {
    for (const peer of peers) await prepare(peer);
    for (let i = 0; i < rounds; i++) {
      for (const peer of i % 2 ? [...peers].reverse() : peers) await measure(peer, note);
      await alone(note);
    }
  } finally {
    for (const peer of peers) await end(peer);
  }
  return Object.fromEntries(Object.entries(found).map(([name, list]) => [name, round(percentile(list, 0.5), 3)]));
}

async function end({ child }: Peer): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
}

async function putFigures(inFlight: number): Promise<Figures> {
  const h2load = await findH2load();
  const body = requestFile("put", putRequest("/registry/things/1"));
  const measure = async (peer: Peer, note: (name: string, figure: number) => void) => {
    const connections = inFlight === 1 ? 1 : 4;
    const before = cpuMs(peer);
    const { rate, latenciesMs } = await load(h2load, peer.port, { inFlight, connections, body, method: "KV/Put" });
    note(`put${inFlight}_${peer.name}_cpu_us`, ((cpuMs(peer) - before) * 1000) / latenciesMs.length);
    note(`put${inFlight}_${peer.name}_rate`, rate);
    note(`put${inFlight}_${peer.name}_p50_ms`, percentile(latenciesMs, 0.5));
    note(`put${inFlight}_${peer.name}_p99_ms`, percentile(latenciesMs, 0.99));
  };
  const store = await openDatastore(
    { endpoint: `sqlite://${folder}/in-process/state.db` },
    { clock: systemClock, log: silentLogger },
  );
  const floors = inFlight === 1 ? [await startFloor("pool"), await startFloor("sync")] : [];
  try {
    // In the same rounds, so that it is held against what etcd did at that time.
    return await interleaved(
      measure,
      async () => {},
      async (note) => {
        note(`put${inFlight}_inprocess_rate`, (await putFor(store, inFlight)).count / seconds);
        for (const { flush, server } of floors) {
          const { latenciesMs } = await load(h2load, server.port!, {
            inFlight: 1,
            connections: 1,
            body,
            method: "KV/Put",
          });
          note(`put1_floor_${flush}_p50_ms`, percentile(latenciesMs, 0.5));
          note(`put1_floor_${flush}_p99_ms`, percentile(latenciesMs, 0.99));
        }
      },
    );
  } finally {
    for (const { server } of floors) await server.close(0);
    await store.close();
  }
}

interface Floor {
  readonly flush: "pool" | "sync";
  readonly server: GrpcServer;
}

/** A file of blocks that it has already, into which a record is written of as many bytes as a lone put takes. */
function openFloor(name: string) {
  const fd = fs.openSync(`${folder}/floor-${name}`, "w");
  const record = Buffer.alloc(2200, "r");
  const places = 900;
  for (let i = 0; i < places; i++) fs.writeSync(fd, record, 0, record.length, i * record.length);
  fs.fdatasyncSync(fd);
  let n = 0;
  return {
    write: () => fs.writeSync(fd, record, 0, record.length, (n++ % places) * record.length),
    flushSync: () => fs.fdatasyncSync(fd),
    flush: () =>
      new Promise<void>((resolve, reject) => {
        fs.fdatasync(fd, (error) => (error ? reject(error) : resolve()));
      }),
    close: () => fs.closeSync(fd),
  };
}

/** What no store on Node can be quicker than: a put that only writes as many bytes as a lone one does, flushes and answers. */
async function startFloor(flush: Floor["flush"]): Promise<Floor> {
  const file = openFloor(flush);
  const handle = async () => {
    file.write();
    if (flush === "sync") file.flushSync();
    else await file.flush();
    return Buffer.from([0, 0, 0, 0, 0]);
  };
  const server = await openGrpcServer(
    { listen: { host: "127.0.0.1", port: 0 }, maxMessageBytes: 2 ** 20, log: silentLogger },
    new Map([["/etcdserverpb.KV/Put", { kind: "unary", handle }]]),
  );
  return { flush, server };
}

async function rangeFigures(): Promise<Figures> {
  const h2load = await findH2load();
  const bodies = {
    range500: requestFile("range500", rangeRequest("/registry/things/", "/registry/things0", 500)),
    range10k: requestFile("range10k", rangeRequest("/registry/things/", "/registry/things0", 0)),
  };
  return interleaved(
    async (peer, note) => {
      for (const [name, body] of Object.entries(bodies)) {
        const { rate } = await load(h2load, peer.port, { inFlight: 4, connections: 4, body, method: "KV/Range" });
        note(`${name}_${peer.name}_rate`, rate);
      }
    },
    async ({ port }) => {
      const filling = new LoadConnection(port);
      await putMany(filling, 10_000, 10_000, 128);
      filling.close();
    },
  );
}

/**
 * From the moment a put is sent to that at which a watcher has its event; 100 watches to a stream, up to 4 connections.
 * The first puts of each round are not counted: this client and mote are compiled by then, as a server at work is.
 */
async function watchFigures(count: number): Promise<Figures> {
  const [warmUp, puts] = count > 1000 ? [10, 20] : [600, 300];
  return interleaved(
    async (peer, note) => {
      const connections = Array.from(
        { length: Math.min(4, Math.ceil(count / 100)) },
        () => new LoadConnection(peer.port),
      );
      const latencies: number[] = [];
      let created = 0;
      let sentMs = 0;
      let arrived = 0;
      let progressed = (): void => {};
      const progress = () =>
        new Promise<void>((resolve) => {
          progressed = resolve;
        });
      const allCreated = progress();
      for (let i = 0; i < count; i += 100) {
        const send = connections[(i / 100) % connections.length]!.stream("/etcdserverpb.Watch/Watch", (message) => {
          if (!hasEvents(message)) {
            if (++created === count) progressed();
            return;
          }
          latencies.push(performance.now() - sentMs);
          if (++arrived === count) progressed();
        });
        for (let n = i; n < Math.min(i + 100, count); n++) send(watchRequest("/registry/things/", "/registry/things0"));
      }
      await allCreated;
      const writing = new LoadConnection(peer.port);
      await writing.unary("/etcdserverpb.KV/Put", putRequest("/other"));
      for (let i = 0; i < warmUp + puts; i++) {
        if (i === warmUp) latencies.length = 0;
        arrived = 0;
        const told = progress();
        sentMs = performance.now();
        await Promise.all([writing.unary("/etcdserverpb.KV/Put", putRequest(`/registry/things/${i}`)), told]);
        await sleep(5);
      }
      for (const connection of [...connections, writing]) connection.close();
      const name = count === 10_000 ? "10k" : String(count);
      note(`watch${name}_${peer.name}_p50_ms`, percentile(latencies, 0.5));
      note(`watch${name}_${peer.name}_p99_ms`, percentile(latencies, 0.99));
      await sleep(200);
    },
    warmedUp,
    async (note) => {
      if (count !== 1) return;
      const latencies = await pacedFlushes();
      note("watch1_floor_p50_ms", percentile(latencies, 0.5));
      note("watch1_floor_p99_ms", percentile(latencies, 0.99));
    },
  );
}

/** What a server at work has behind it: SQLite's and our code compiled, the log's file grown. */
async function warmedUp({ port }: Peer): Promise<void> {
  const load = new LoadConnection(port);
  await putMany(load, 20_000, 1000, 16);
  await putMany(load, 2000, 1000, 1);
  load.close();
}

/** The flush alone, as far apart as the puts of `watchFigures`: a watcher has its event after it, whoever serves. */
async function pacedFlushes(): Promise<number[]> {
  const { write, flush, close } = openFloor("paced");
  const latencies: number[] = [];
  for (let i = 0; i < 300; i++) {
    const startMs = performance.now();
    write();
    await flush();
    latencies.push(performance.now() - startMs);
    await sleep(5);
  }
  close();
  return latencies;
}

/** Resident memory after 350,000 puts over 20,000 keys, neither compacted; and of a Node that does nothing. */
async function rssFigures(): Promise<Figures> {
  const idle = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
  await sleep(1000);
  const figures: Figures = { rss_node_mib: round(rssKib(idle.pid!) / 1024, 1) };
  idle.kill("SIGKILL");
  for (const start of [startMote, startEtcd]) {
    const peer = await start();
    try {
      const loading = new LoadConnection(peer.port);
      await putMany(loading, 350_000, keys, 256);
      loading.close();
      await sleep(2000);
      figures[`rss_${peer.name}_mib`] = round(rssKib(peer.child.pid!) / 1024, 1);
    } finally {
      await end(peer);
    }
  }
  return figures;
}

async function putMany(load: LoadConnection, count: number, over: number, inFlight: number): Promise<void> {
  let n = 0;
  const writer = async () => {
    while (n < count) await load.unary("/etcdserverpb.KV/Put", putRequest(`/registry/things/${n++ % over}`));
  };
  await Promise.all(Array.from({ length: inFlight }, writer));
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
  return ready({ name: "mote", port, child: spawn("build/dist/mote", args, { stdio: "ignore" }) });
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

interface LoadOptions {
  readonly inFlight: number;
  readonly connections: number;
  /** A file with the request and gRPC's prefix. */
  readonly body: string;
  readonly method: string;
}

async function load(
  command: readonly string[],
  port: number,
  { inFlight, connections, body, method }: LoadOptions,
): Promise<{ rate: number; latenciesMs: number[] }> {
  const log = `${folder}/requests.log`;
  rmSync(log, { force: true });
  const args = ["-D", String(seconds), "-c", String(connections), "-m", String(inFlight / connections), "-d", body];
  args.push(`--log-file=${log}`, "-H", "content-type: application/grpc", "-H", "te: trailers");
  args.push(`http://127.0.0.1:${port}/etcdserverpb.${method}`);
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
  if (!(rate > 0) || !/ 0 failed, 0 errored/.test(output)) throw new UserError(`h2load:\n${output}`);
  // start, status, microseconds
  const latenciesMs = readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => Number(line.split("\t")[2]) / 1000);
  return { rate, latenciesMs };
}

// Requests by hand: fields 1 (key) and 2 (value, or end of range), 3 (limit).

const bytesField = (number: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([number * 8 + 2, (bytes.length & 127) | 128, bytes.length >> 7]), bytes]);

const putRequest = (key: string): Buffer => Buffer.concat([bytesField(1, Buffer.from(key)), bytesField(2, value)]);

const rangeRequest = (key: string, rangeEnd: string, limit: number): Buffer =>
  Buffer.concat([
    ...[bytesField(1, Buffer.from(key)), bytesField(2, Buffer.from(rangeEnd))],
    Buffer.from([24, (limit & 127) | 128, limit >> 7]),
  ]);

const watchRequest = (key: string, rangeEnd: string): Buffer =>
  bytesField(1, Buffer.concat([bytesField(1, Buffer.from(key)), bytesField(2, Buffer.from(rangeEnd))]));

/** An answer of a watch without events is short. */
const hasEvents = (message: Buffer): boolean => message.length > value.length;

function requestFile(name: string, message: Buffer): string {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  writeFileSync(`${folder}/${name}.grpc`, Buffer.concat([head, message]));
  return `${folder}/${name}.grpc`;
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** Processor time of all threads so far: unlike a rate it hardly depends on what else the machine does. */
function cpuMs({ child }: Peer): number {
  const stat = readFileSync(`/proc/${child.pid}/stat`, "utf8");
  const [user, system] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13);
  return (Number(user) + Number(system)) * 10;
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
