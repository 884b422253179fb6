// What two designs of the log cost under the whole store, in process: puts of 1 KiB over 20,000 keys by one writer and by
// 64, with history compacted as in a server, on this machine's disk and on one whose flush takes 20 ms.
//   --seconds N   of each measurement (default 4)     --design wal|append   only that one
// Bytes are counted at the file system and, where the kernel says so, at the device (write_bytes of /proc/self/io). The last
// figures are of opening: 100,000 keys, and the same with a million superseded revisions, after the process has died.
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { createCompactor } from "#datastore/compactor.ts";
import { openSqliteLog } from "#datastore/log/sqlite/sqlite-log.ts";
import { createEngine, openDatastore } from "#datastore/open.ts";
import { type Datastore, openStore } from "#datastore/store.ts";
import { readAsset } from "#platform/assets.ts";
import { systemBlockFiles } from "#platform/block-file.ts";
import { systemClock } from "#platform/clock.ts";
import { nextTurn } from "#platform/turns.ts";
import { buildStages } from "#scripts/build/build.ts";
import { runStages, UserError } from "#scripts/stages.ts";
import { SlowFiles } from "#test/harness/slow-files.ts";
import { openAppendLog } from "./append-log.ts";

const value = Buffer.alloc(1024, "v");
const keys = 20_000;
const designs = ["wal", "append"] as const;
const writersOf = { lone: 1, "64": 64 } as const;

type Figures = Record<string, number>;

export async function log(args: readonly string[]): Promise<Readonly<Figures>> {
  const { values } = parseArgs({
    args: [...args],
    options: { seconds: { type: "string", default: "4" }, design: { type: "string" } },
  });
  const chosen = designs.filter((design) => values.design === undefined || values.design === design);
  if (chosen.length === 0) throw new UserError(`--design: one of ${designs.join(", ")}`);
  const seconds = Number(values.seconds);
  if (!(seconds > 0)) throw new UserError("--seconds: a number above 0");
  await runStages(buildStages);
  const folder = mkdtempSync(join(tmpdir(), "mote-bench-log-"));
  try {
    const figures: Figures = {};
    for (const [disk, flushMs] of [
      ["disk", 0],
      ["slow", 20],
    ] as const) {
      for (const [name, writers] of Object.entries(writersOf)) {
        for (const design of chosen) {
          const part = `${disk}_${name}_${design}`;
          Object.assign(figures, await measure(`${folder}/${part}`, part, { design, writers, seconds, flushMs }));
        }
      }
    }
    figures["open100k_s"] = await openAfterDeath(`${folder}/live`, 100_000, 0);
    figures["open100k_history1m_s"] = await openAfterDeath(`${folder}/history`, 100_000, 1_000_000);
    for (const [name, figure] of Object.entries(figures))
      console.log(`${name.padEnd(32)}${String(figure).padStart(12)}`);
    return figures;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Load {
  readonly design: (typeof designs)[number];
  readonly writers: number;
  readonly seconds: number;
  readonly flushMs: number;
}

async function measure(folder: string, name: string, load: Load): Promise<Figures> {
  const { design, writers, seconds, flushMs } = load;
  const metrics = new Metrics();
  const deps = { clock: systemClock, log: silentLogger, metrics };
  mkdirSync(folder);
  const files = flushMs > 0 ? new SlowFiles(flushMs) : systemBlockFiles;
  const path = `${folder}/state.db`;
  const sqlite = openSqliteLog({ path, files, module: new WebAssembly.Module(readAsset("sqlite3.wasm")) }, deps);
  const appended = design === "append" ? await openAppendLog(path, files, sqlite) : undefined;
  const store = await openStore(() => createEngine({ endpoint: "" }), appended ?? sqlite, deps);
  const stop = new AbortController();
  const compactor = createCompactor({}, { store, clock: systemClock, log: silentLogger });
  const compacting = compactor.run(stop.signal, () => {});
  const counted = () => ({
    bytes: metricOf(metrics, "mote_datastore_written_bytes_total") + (appended?.counted.bytes ?? 0),
    flushes: metricOf(metrics, "mote_datastore_flushes_total") + (appended?.counted.flushes ?? 0),
    device: deviceBytes(),
  });
  const before = counted();
  const cpu = process.cpuUsage();
  const { puts, gets } = await putFor(store, writers, seconds);
  const { user, system } = process.cpuUsage(cpu);
  stop.abort();
  await compacting;
  await store.close();
  const after = counted();
  const logical = puts.length * value.length;
  const figures: Figures = {
    [`${name}_puts_per_s`]: Math.round(puts.length / seconds),
    [`${name}_p50_ms`]: percentile(puts, 0.5),
    [`${name}_p99_ms`]: percentile(puts, 0.99),
    [`${name}_get_p99_ms`]: percentile(gets, 0.99),
    [`${name}_longest_get_ms`]: percentile(gets, 1),
    [`${name}_cpu_us_per_put`]: Math.round((user + system) / puts.length),
    [`${name}_bytes_per_byte`]: round((after.bytes - before.bytes) / logical),
    [`${name}_device_bytes_per_byte`]: round((after.device - before.device) / logical),
    [`${name}_flushes_per_put`]: round((after.flushes - before.flushes) / puts.length),
  };
  return figures;
}

interface Latencies {
  readonly puts: readonly number[];
  readonly gets: readonly number[];
}

/** One reader beside the writers: a get and a turn of the event loop, which is what a request waits for. */
async function putFor(store: Datastore, writers: number, seconds: number): Promise<Latencies> {
  const endMs = performance.now() + seconds * 1000;
  const puts: number[] = [];
  const gets: number[] = [];
  let n = 0;
  const write = async () => {
    while (performance.now() < endMs) {
      const startMs = performance.now();
      await store.commit({ compares: [], success: [{ type: "put", key: `/k/${(n++ * 7919) % keys}`, value }] });
      puts.push(performance.now() - startMs);
    }
  };
  const read = async () => {
    while (performance.now() < endMs) {
      await systemClock.sleep(2);
      const startMs = performance.now();
      await store.range({ key: `/k/${(n * 31) % keys}` });
      await nextTurn();
      gets.push(performance.now() - startMs);
    }
  };
  await Promise.all([read(), ...Array.from({ length: writers }, write)]);
  return { puts, gets };
}

/** Opens what a process that died has left: a copy of the files of a store that is still open. */
async function openAfterDeath(folder: string, live: number, history: number): Promise<number> {
  const deps = { clock: systemClock, log: silentLogger };
  const store = await openDatastore({ endpoint: `sqlite://${folder}/state.db`, reserveBytes: 0 }, deps);
  const total = live + history;
  for (let i = 0; i < total; i += 128) {
    const success = Array.from({ length: Math.min(128, total - i) }, (_, n) => ({
      ...{
        type: "put" as const,
        key: `/registry/things/${(i + n) % live}`,
        value: i + n < total - live ? small : value,
      },
    }));
    await store.commit({ compares: [], success });
  }
  const dead = `${folder}/dead.db`;
  for (const end of ["", "-wal"])
    if (existsSync(`${folder}/state.db${end}`)) copyFileSync(`${folder}/state.db${end}`, dead + end);
  await store.close();
  const startMs = performance.now();
  const again = await openDatastore({ endpoint: `sqlite://${dead}`, reserveBytes: 0 }, deps);
  const tookMs = performance.now() - startMs;
  const { keys: found } = again.accounts();
  await again.close();
  if (found !== live) throw new UserError(`opened ${found} keys`);
  return round(tookMs / 1000);
}

/** Superseded values: they are read for their checksums only. */
const small = Buffer.alloc(256, "h");

function deviceBytes(): number {
  return Number(/^write_bytes: (\d+)/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1] ?? Number.NaN);
}

const round = (figure: number): number => Number(figure.toFixed(2));

function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN);
}

function metricOf(metrics: Metrics, name: string): number {
  const line = metrics
    .render()
    .split("\n")
    .find((l) => l.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}
