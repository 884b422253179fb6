// Random damage to the files of a store: it opens, serves nothing that was not written, keeps what is sound, says what it
// could not keep, and is sound itself afterwards. MOTE_ROT_ROUNDS sets the number of damaged images,
// MOTE_CRASH_SEED varies them.
import { describe, expect, it } from "vitest";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { Engine } from "#datastore/engine/engine.ts";
import type { DamageReport } from "#datastore/log/log.ts";
import { newPageBytes } from "#datastore/log/sqlite/format.ts";
import { openSqliteLog } from "#datastore/log/sqlite/sqlite-log.ts";
import { type Datastore, openStore } from "#datastore/store.ts";
import { readAsset } from "#platform/assets.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { oldPageBytes, oldStore } from "#test/harness/old-store.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const rounds = Number(process.env["MOTE_ROT_ROUNDS"] ?? 200);
const seed = Number(process.env["MOTE_CRASH_SEED"] ?? 1);
const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
const engineWasm = readAsset("engine.wasm");
const path = "/state.db";

async function openOn(files: RecordedFiles, reports: DamageReport[] = [], cold = false): Promise<Datastore> {
  const deps = { clock: new FakeClock(0), log: silentLogger };
  const newEngine = () =>
    new Engine({ wasm: engineWasm, maximumBytes: 64 * 1024 * 1024, hashSeed: 1, warmValueBytes: cold ? 0 : undefined });
  const log = openSqliteLog({ path, files, module }, { ...deps, damaged: (report) => reports.push(report) });
  return openStore(newEngine, log, deps);
}

interface Grown {
  /** As a power cut after the last flush would leave them: a database, and a WAL with the last writes. */
  readonly image: Map<string, Buffer>;
  readonly state: ReadonlyMap<string, string>;
  /** Every value that each key ever had. */
  readonly ever: ReadonlyMap<string, ReadonlySet<string>>;
  readonly revision: number;
}

async function grow(seed: number, writes: number, files = new RecordedFiles()): Promise<Grown> {
  const random = seededRandom(seed);
  const pick = (n: number) => Math.floor(random.float() * n);
  const store = await openOn(files);
  const state = new Map<string, string>();
  const ever = new Map<string, Set<string>>();
  for (let n = 0; n < writes; n++) {
    const key = `/registry/things/${pick(writes / 3)}`;
    if (pick(6) === 0) {
      await store.commit({ compares: [], success: [{ type: "delete", key }] });
      state.delete(key);
    } else {
      const value = `${n} `.repeat(1 + pick(pick(12) === 0 ? 3000 : 250));
      await store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.from(value) }] });
      state.set(key, value);
      ever.set(key, (ever.get(key) ?? new Set()).add(value));
    }
    if (n % 200 === 199) await store.compact(store.revision());
  }
  const { image } = files.cut(files.events.length, { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" });
  return { image, state, ever, revision: store.revision() };
}

type Damage = (file: Buffer, at: number, random: ReturnType<typeof seededRandom>) => void;
const damages: readonly [string, Damage][] = [
  ["a bit", (file, at, random) => (file[at]! ^= 1 << Math.floor(random.float() * 8))],
  ["a byte", (file, at, random) => (file[at] = Math.floor(random.float() * 256))],
  ["a sector of zeros", (file, at) => file.fill(0, at & ~511, Math.min(file.length, (at & ~511) + 512))],
  [
    "a sector of noise",
    (file, at, random) => file.set(random.bytes(Math.min(512, file.length - (at & ~511))), at & ~511),
  ],
  ["a page of zeros", (file, at) => file.fill(0, at & ~4095, Math.min(file.length, (at & ~4095) + 4096))],
];

describe("bit rot", () => {
  // Found by seed 80: zeros used to mean that a fold had struck the WAL out, and all of it was lost without a word.
  it("in the header of the WAL costs nothing that follows it, and is told", async () => {
    const { image, state } = await grow(80, 450);
    for (const length of [32, 512, 4096]) {
      const files = new Map([...image].map(([name, data]) => [name, Buffer.from(data)]));
      files.get(`${path}-wal`)!.fill(0, 0, length);
      const reports: DamageReport[] = [];
      const store = await openOn(new RecordedFiles(files), reports);
      const { kvs } = await store.range(prefixRange("/"));
      const found = new Map(kvs.map((kv) => [kv.key, Buffer.from(kv.value).toString()]));
      const missing = [...state].filter(([key, value]) => found.get(key) !== value);
      expect(reports.length, `${length} bytes`).toBe(1);
      // The pages of the lost frames.
      expect(missing.length).toBeLessThan(15);
      await store.close();
    }
  });

  // 0: the file is gone. What the WAL has is found without it.
  it.each([0, 1, 16, 99, 511, 512, 600, newPageBytes - 1])(
    "a database of %i bytes is told, and what its WAL has is kept",
    async (length) => {
      const { image, ever } = await grow(5, 900);
      for (const withWal of [true, false]) {
        if (length === 0 && !withWal) continue;
        const files = new Map([...image].map(([name, data]) => [name, Buffer.from(data)]));
        files.set(path, files.get(path)!.subarray(0, length));
        if (!withWal) files.delete(`${path}-wal`);
        const reports: DamageReport[] = [];
        const recorded = new RecordedFiles(files);
        const store = await openOn(recorded, reports);
        const { kvs } = await store.range(prefixRange("/"));
        const where = `${length} ${withWal}`;
        expect(kvs.length > 0, where).toBe(withWal);
        for (const { key, value } of kvs) expect(ever.get(key)?.has(Buffer.from(value).toString()), where).toBe(true);
        expect(reports.length, where).toBe(1);
        expect(reports[0]!.unreadablePages, where).toBeGreaterThan(0);
        expect(recorded.exists(`${path}-damaged`), where).toBe(true);
        expect(store.revision(), where).toBeGreaterThan(1_000_000);
        await store.close();
        await (await openOn(recorded, reports)).close();
        expect(reports.length, where).toBe(1);
      }
    },
  );

  it("no file and no WAL is a new store, and a foreign file is left alone", async () => {
    const reports: DamageReport[] = [];
    const files = new RecordedFiles(new Map([[path, Buffer.alloc(0)]]));
    await (await openOn(files, reports)).close();
    expect(reports).toEqual([]);
    const foreign = new RecordedFiles(new Map([[path, Buffer.alloc(600, "x")]]));
    await expect(openOn(foreign, reports)).rejects.toThrow(/first page/);
    expect(foreign.exists(`${path}-damaged`)).toBe(false);
  });

  it("in the last but one transaction of the WAL is told", async () => {
    const files = new RecordedFiles();
    const store = await openOn(files);
    const whole = { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" };
    const sizes: number[] = [];
    for (let n = 0; n < 12; n++) {
      await store.commit({ compares: [], success: [{ type: "put", key: `/k/${n}`, value: Buffer.alloc(500, n + 1) }] });
      sizes.push(files.cut(files.events.length, whole).image.get(`${path}-wal`)!.length);
    }
    const { image } = files.cut(files.events.length, whole);
    // The end of the content of the frame that commits it.
    const at = sizes.at(-2)! - 100;
    expect(at).toBeGreaterThan(sizes.at(-3)!);
    image.get(`${path}-wal`)![at]! ^= 1;
    const reports: DamageReport[] = [];
    const again = await openOn(new RecordedFiles(image), reports);
    expect(reports.length).toBe(1);
    const { kvs } = await again.range(prefixRange("/k/"));
    const missing = Array.from({ length: 12 }, (_, n) => `/k/${n}`).filter((key) => !kvs.some((kv) => kv.key === key));
    expect(missing.length).toBeLessThanOrEqual(1);
    expect(missing).toEqual(reports[0]!.lostKeys);
    await again.close();
  });

  // The control of the random rounds below: where damage is known to hurt, it is found and named.
  it.each(damages)("%s in a value is told, and its key where it can be read", async (what, damage) => {
    const random = seededRandom(3);
    const files = new RecordedFiles();
    const store = await openOn(files);
    const values = Array.from({ length: 60 }, () => random.bytes(500));
    for (const [n, value] of values.entries())
      await store.commit({ compares: [], success: [{ type: "put", key: `/k/${n}`, value }] });
    await store.close();
    const { image } = files.cut(files.events.length, { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" });
    const at = image.get(path)!.indexOf(values[30]!);
    expect(at).toBeGreaterThan(0);
    damage(image.get(path)!, at + 20, random);
    const reports: DamageReport[] = [];
    const again = await openOn(new RecordedFiles(image), reports);
    expect(reports.length).toBe(1);
    const { kvs } = await again.range(prefixRange("/k/"));
    const whole = kvs.filter(({ key, value }) => Buffer.from(values[Number(key.slice(3))]!).equals(value));
    expect(kvs.length).toBe(whole.length);
    const missing = values.map((_, n) => `/k/${n}`).filter((key) => !kvs.some((kv) => kv.key === key));
    expect(missing).toContain("/k/30");
    const { lostKeys, unreadablePages, damagedRecords } = reports[0]!;
    if (what === "a bit" || what === "a byte") expect([...lostKeys]).toEqual(["/k/30"]);
    else expect(unreadablePages + damagedRecords).toBeGreaterThan(0);
    await again.close();
  });

  it(`is survived ${rounds} times`, { timeout: 60_000 + rounds * 1000 }, async () => {
    const problems: string[] = [];
    let reported = 0;
    let lost = 0;
    const grown = [await grow(seed, 900), await grow(seed + 1, 450, new RecordedFiles(oldStore(path, module)))];
    expect(grown.map(({ image }) => image.get(path)!.readUInt16BE(16))).toEqual([newPageBytes, oldPageBytes]);
    const random = seededRandom(76 + seed);
    for (let n = 0; n < rounds; n++) {
      const { image, state, ever, revision } = grown[n % grown.length]!;
      const files = new Map([...image].map(([name, data]) => [name, Buffer.from(data)]));
      const name = random.float() < 0.6 ? path : `${path}-wal`;
      const file = files.get(name)!;
      const at = Math.floor(random.float() * file.length);
      const [what, damage] = damages[n % damages.length]!;
      damage(file, at, random);
      const where = `${what} at ${at} of ${name}`;
      const reports: DamageReport[] = [];
      const recorded = new RecordedFiles(files);
      try {
        const store = await openOn(recorded, reports, n % 4 < 2);
        store.verify();
        const found = new Map(
          (await store.range(prefixRange("/"))).kvs.map((kv) => [kv.key, Buffer.from(kv.value).toString()]),
        );
        for (const [key, value] of found)
          if (!ever.get(key)?.has(value)) problems.push(`${where}: served garbage of ${key}`);
        const missing = [...state].filter(([key, value]) => found.get(key) !== value).map(([key]) => key);
        const back = [...found.keys()].filter((key) => !state.has(key));
        const [report] = reports;
        if (report) reported++;
        lost += missing.length;
        // The last transaction of a WAL cannot be told from one that a power cut has torn; damage may hide where it begins.
        const tail = name !== path && missing.length + back.length <= 2;
        const unnamed = missing.filter((key) => !report?.lostKeys.includes(key) && !report?.revertedKeys.includes(key));
        if ((unnamed.length > 0 || back.length > 0) && !tail && !report)
          problems.push(`${where}: silently lost ${unnamed.join()}`);
        if (unnamed.length > 0 && !tail && report && report.unreadablePages + report.damagedRecords === 0) {
          problems.push(`${where}: lost ${unnamed.join()} without a word`);
        }
        if (what === "a bit" && missing.length > 15) problems.push(`${where}: one bit cost ${missing.length} keys`);
        const next = await store.commit({
          compares: [],
          success: [{ type: "put", key: "/new", value: Buffer.from("1") }],
        });
        if (next.revision <= revision && report) problems.push(`${where}: gave out revision ${next.revision} again`);
        if (report && store.compactedRevision() < revision) problems.push(`${where}: watchers are not told`);
        await store.close();
        const again = await openOn(recorded, reports);
        if (reports.length > 1) problems.push(`${where}: still damaged after it was mended`);
        if ((await again.range({ ...prefixRange("/"), countOnly: true })).count !== found.size + 1) {
          problems.push(`${where}: not the same after opening again`);
        }
        await again.close();
      } catch (error) {
        problems.push(`${where}: ${String(error)}`);
      }
    }
    expect(problems).toEqual([]);
    // Damage that nothing noticed would prove nothing.
    expect(reported).toBeGreaterThan(rounds * 0.1);
    expect(lost).toBeGreaterThan(rounds * 0.02);
    console.log(`${rounds} damages from seed ${seed}: 0 problems, ${reported} reported, ${lost} keys lost and named`);
  });
});
