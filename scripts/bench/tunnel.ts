// What the tunnel carries over loopback TLS, a server here and a node in another process: bulk from the node (masked) and to
// it, a 64-byte round trip alone and beside bulk in both directions, bulk beside a reader that stalls, memory of streams
// that nobody reads and of idle ones, and the codec in WASM beside the plain one.
//   --seconds N   of each measurement (default 4)
// On a machine that others use too, processor time per MiB says more than MiB per second; it is of both ends together.
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { readAsset } from "#platform/assets.ts";
import { systemClock } from "#platform/clock.ts";
import { openHttpsServer } from "#platform/https-server.ts";
import { systemRandom } from "#platform/random.ts";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { ensurePki } from "#supervisor/pki.ts";
import { type Frame, loadCodec, type TunnelCodec, WasmCodec } from "#supervisor/tunnel/codec.ts";
import { createTunnelServer, type TunnelServer } from "#supervisor/tunnel/server.ts";
import { PlainCodec } from "#test/harness/tunnel-codec.ts";

type Figures = Record<string, number>;

const mib = 1024 * 1024;
const streamsForMemory = 500;
const codecBatches = 150;
const base = { clock: systemClock, random: systemRandom, log: silentLogger };

export async function tunnel(args: readonly string[]): Promise<Readonly<Figures>> {
  const { values } = parseArgs({ args: [...args], options: { seconds: { type: "string", default: "4" } } });
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new UserError("--seconds: a number above 0");
  await runStages(buildStages);
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const figures: Figures = codecFigures();
  const rig = await openRig();
  try {
    // Everything compiled and every window grown.
    await bulkFrom(rig, 1);
    await bulkTo(rig, 1);
    const from = await metered(rig, () => bulkFrom(rig, seconds));
    const to = await metered(rig, () => bulkTo(rig, seconds));
    const stalled = rig.tunnels.dial("node", "silent", "silent:1");
    for (let i = 0; i < 2048; i++) stalled.write(Buffer.alloc(4096));
    const beside = await metered(rig, () => bulkTo(rig, seconds));
    stalled.destroy();
    figures["mib_per_s"] = Math.min(from.rate, to.rate);
    figures["from_node_mib_per_s"] = from.rate;
    figures["to_node_mib_per_s"] = to.rate;
    figures["beside_stalled_mib_per_s"] = beside.rate;
    figures["from_node_cpu_ms_per_mib"] = from.cpu;
    figures["to_node_cpu_ms_per_mib"] = to.cpu;
    Object.assign(figures, percentiles("alone", await roundTrips(rig, seconds)));
    const done = new AbortController();
    const bulk = [bulkFrom(rig, Infinity, done.signal), bulkTo(rig, Infinity, done.signal)];
    Object.assign(figures, percentiles("small", await roundTrips(rig, seconds)));
    done.abort();
    await Promise.all(bulk);
    figures["idle_kib_per_stream"] = await memoryOf(rig, "echo:1", collect);
    figures["kib_per_stream"] = await memoryOf(rig, "source:64", collect);
  } finally {
    await rig.close();
  }
  for (const [name, figure] of Object.entries(figures)) console.log(`${name.padEnd(32)}${String(figure).padStart(12)}`);
  return figures;
}

interface Rig {
  readonly tunnels: TunnelServer;
  readonly child: ChildProcess;
  close(): Promise<void>;
}

async function openRig(): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), "mote-bench-tunnel-"));
  const pki = await ensurePki({ folder, nodeName: "node", nodeIps: ["127.0.0.1"] }, base);
  const caFile = join(folder, "ca.pem");
  writeFileSync(caFile, pki.serverCa.certificate);
  const codec = () => loadCodec((size) => systemRandom.bytes(size));
  const tunnels = createTunnelServer({}, { ...base, metrics: new Metrics(), codec });
  const door = await openHttpsServer(
    {
      host: "127.0.0.1",
      port: 0,
      tls: { certificatePem: pki.servingApiserver.certificate, keyPem: pki.servingApiserver.key },
      log: silentLogger,
    },
    {
      async request(_request, response) {
        response.head(404, {});
        response.end();
      },
      upgrade: async (upgrade) => tunnels.accept(upgrade, "node"),
    },
  );
  const child = fork("scripts/run.mjs", ["scripts/bench/tunnel-node.ts", String(door.port), caFile], {
    stdio: ["ignore", 2, 2, "ipc"],
  });
  for (let i = 0; !tunnels.has("node"); i++) {
    if (i > 1000 || child.exitCode !== null) throw new UserError("the node of the bench does not come");
    await systemClock.sleep(20);
  }
  return {
    tunnels,
    child,
    async close() {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.disconnect();
      await ended;
      tunnels.close();
      await door.close(0);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function cpuMs(rig: Rig): Promise<number> {
  const there = await new Promise<NodeJS.CpuUsage>((resolve) => {
    rig.child.once("message", (usage) => resolve(usage as NodeJS.CpuUsage));
    rig.child.send("usage");
  });
  const here = process.cpuUsage();
  return (there.user + there.system + here.user + here.system) / 1000;
}

async function metered(rig: Rig, run: () => Promise<number>): Promise<{ rate: number; cpu: number }> {
  const cpuBefore = await cpuMs(rig);
  const startMs = performance.now();
  const bytes = await run();
  const tookS = (performance.now() - startMs) / 1000;
  return { rate: Math.round(bytes / mib / tookS), cpu: round((await cpuMs(rig)) - cpuBefore, bytes / mib) };
}

const round = (figure: number, by = 1): number => Number((figure / by).toFixed(2));

/** Bytes read within the time. */
async function bulkFrom(rig: Rig, seconds: number, signal?: AbortSignal): Promise<number> {
  const stream = rig.tunnels.dial("node", "source", "source:100000000");
  let bytes = 0;
  stream.on("data", (part: Buffer) => {
    bytes += part.length;
  });
  await lasting(seconds, signal);
  stream.destroy();
  return bytes;
}

/** Bytes written within the time, without what waits here. */
async function bulkTo(rig: Rig, seconds: number, signal?: AbortSignal): Promise<number> {
  const stream = rig.tunnels.dial("node", "sink", "sink:1");
  const piece = Buffer.alloc(64 * 1024, "p");
  let bytes = 0;
  let isOver = false;
  const write = () => {
    while (!isOver && !stream.destroyed) {
      bytes += piece.length;
      if (!stream.write(piece)) return;
    }
  };
  stream.on("drain", write);
  write();
  await lasting(seconds, signal);
  isOver = true;
  bytes -= stream.writableLength;
  stream.destroy();
  return bytes;
}

async function lasting(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return systemClock.sleep(seconds * 1000);
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

async function roundTrips(rig: Rig, seconds: number): Promise<number[]> {
  const stream = rig.tunnels.dial("node", "echo", "echo:1");
  const message = Buffer.alloc(64, "m");
  const took: number[] = [];
  const endMs = performance.now() + seconds * 1000;
  let have = 0;
  let arrived = () => {};
  stream.on("data", (part: Buffer) => {
    have += part.length;
    if (have >= message.length) arrived();
  });
  while (performance.now() < endMs) {
    have = 0;
    const startMs = performance.now();
    const answer = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    stream.write(message);
    await answer;
    took.push(performance.now() - startMs);
    await systemClock.sleep(2);
  }
  stream.destroy();
  return took;
}

function percentiles(name: string, values: readonly number[]): Figures {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number) =>
    round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN);
  return { [`${name}_p50_ms`]: at(0.5), [`${name}_p99_ms`]: at(0.99), [`${name}_max_ms`]: at(1) };
}

/** Of this end, when each has as many bytes waiting as it may. */
async function memoryOf(rig: Rig, address: string, collect: () => void): Promise<number> {
  await systemClock.sleep(500);
  const used = () => {
    collect();
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = used();
  const streams: Duplex[] = Array.from({ length: streamsForMemory }, () =>
    rig.tunnels.dial("node", address.split(":")[0]!, address),
  );
  await systemClock.sleep(2500);
  const after = used();
  for (const stream of streams) stream.destroy();
  await systemClock.sleep(500);
  return round(after - before, streamsForMemory * 1024);
}

/** Frames of 4 KiB, masked, in batches as they are sent and in chunks as TLS brings them; processor time of each. */
function codecFigures(): Figures {
  const random = (size: number) => systemRandom.bytes(size);
  const codecs: Readonly<Record<string, TunnelCodec>> = {
    wasm: loadCodec(random),
    scalar: new WasmCodec(readAsset("tunnel.wasm"), random),
    ts: new PlainCodec(random),
  };
  const payload = Buffer.alloc(4096, "x");
  const batch: Frame[] = Array.from({ length: 15 }, () => ({ kind: 1, connection: 2, payload }));
  const sent = codecs["wasm"]!.encode(batch, true);
  const record = 16 * 1024;
  const rounds: Record<string, number[]> = {};
  for (let round = 0; round < 9; round++) {
    for (const [name, codec] of Object.entries(codecs)) {
      const decoder = codec.decoder(true);
      let start = process.cpuUsage();
      for (let i = 0; i < codecBatches; i++) codec.encode(batch, true);
      const encode = cpuNs(start) / (codecBatches * batch.length);
      let decode = 0;
      for (let i = 0; i < codecBatches; i++) {
        // What the socket brings is new each time; copying it is not the codec's cost.
        const chunk = Buffer.from(sent);
        start = process.cpuUsage();
        for (let at = 0; at < chunk.length; at += record) decoder.push(chunk.subarray(at, at + record));
        decode += cpuNs(start);
      }
      rounds[`codec_encode_${name}_ns`] ??= [];
      rounds[`codec_encode_${name}_ns`]!.push(encode);
      rounds[`codec_decode_${name}_ns`] ??= [];
      rounds[`codec_decode_${name}_ns`]!.push(decode / (codecBatches * batch.length));
    }
  }
  const figures: Figures = {};
  for (const [name, list] of Object.entries(rounds)) figures[name] = Math.round(list.sort((a, b) => a - b)[4]!);
  const both = (name: string) => figures[`codec_encode_${name}_ns`]! + figures[`codec_decode_${name}_ns`]!;
  figures["wasm_vs_ts"] = round(both("ts"), both("wasm"));
  return figures;
}

function cpuNs(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) * 1000;
}
