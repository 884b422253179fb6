import { describe, expect, it } from "vitest";
import { AppError, hasCode } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { readAsset } from "#platform/assets.ts";
import { watchInto } from "#test/conformance/backend.ts";
import { bytes } from "#test/harness/backend-model.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { prefixRange, type Revision, type StorageClass } from "./backend.ts";
import { storageClassOf } from "./classes.ts";
import { createCompactor } from "./compactor.ts";
import { Engine } from "./engine/engine.ts";
import type { DamageReport, DatastoreLog, LogBatch } from "./log/log.ts";
import { createMemoryLog } from "./log/memory/memory-log.ts";
import { openSqliteLog } from "./log/sqlite/sqlite-log.ts";
import { type Datastore, openStore } from "./store.ts";

const newEngine = () => new Engine({ wasm: readAsset("engine.wasm"), maximumBytes: 64 * 1024 * 1024, hashSeed: 1 });

/** A log whose appends end when, and how, the test says. */
class HeldLog implements DatastoreLog {
  readonly batches: LogBatch[] = [];
  #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  recovered: number[] = [];
  readonly full = false;
  load() {
    return Promise.resolve({ compacted: 0, reserved: 0, leases: [], newest: 0 });
  }
  append(batch: LogBatch): Promise<void> {
    this.batches.push(batch);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }
  recover(revision: number): Promise<void> {
    this.recovered.push(revision);
    return this.recovered.length > 1 ? Promise.resolve() : Promise.reject(new Error("not yet"));
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
  async end(error?: Error): Promise<void> {
    await settle();
    const first = this.#waiting.shift();
    if (error) first?.reject(error);
    else first?.resolve();
    await settle();
  }
}

async function openHeld() {
  const log = new HeldLog();
  const clock = new FakeClock();
  const store = await openStore(newEngine, log, { clock, log: silentLogger });
  return { store, log, clock };
}

const put = (store: Datastore, key: string, value = "1", storageClass: StorageClass = "durable", lease = 0) =>
  store.commit({ compares: [], success: [{ type: "put", key, value: bytes(value), class: storageClass, lease }] });
const keys = async (store: Datastore) => (await store.range(prefixRange("/"))).kvs.map((kv) => kv.key);

describe("store", () => {
  it("shows a write to nobody before the log has it", async () => {
    const { store, log } = await openHeld();
    const seen = watchInto(store, prefixRange("/"));
    const start = store.revision();
    let acknowledged = false;
    const first = put(store, "/a").then(() => {
      acknowledged = true;
    });
    await settle();
    expect([await keys(store), store.revision(), seen.events.length, acknowledged]).toEqual([[], start, 0, false]);
    const reading = store.commit({ compares: [], success: [{ type: "range", range: { key: "/a" } }] });
    let answered = false;
    const answer = reading.then(() => {
      answered = true;
    });
    await settle();
    expect(answered).toBe(false);
    await log.end();
    await Promise.all([first, answer]);
    expect([await keys(store), store.revision(), seen.events.length]).toEqual([["/a"], start + 1, 1]);
    await store.close();
  });

  it("sends a lone write at once and what arrives meanwhile together", async () => {
    const { store, log } = await openHeld();
    const first = put(store, "/a");
    await settle();
    const rest = ["/b", "/c", "/d"].map((key) => put(store, key));
    await log.end();
    await log.end();
    await Promise.all([first, ...rest]);
    expect(log.batches.map((b) => b.records.map((r) => r.key))).toEqual([["/a"], ["/b", "/c", "/d"]]);
    await store.close();
  });

  it("keeps heartbeats out of the log and behind the writes before them", async () => {
    const { store, log } = await openHeld();
    const seen = watchInto(store, prefixRange("/"));
    const beat = put(store, "/beat", "1", "heartbeat");
    await log.end();
    await beat;
    // The first one needs a block of revisions; its record is not in the log.
    expect(log.batches).toMatchObject([{ records: [], reserve: 2 ** 20 + 2 }]);
    await put(store, "/beat", "2", "heartbeat");
    expect(log.batches.length).toBe(1);
    const durable = put(store, "/a");
    const behind = put(store, "/beat", "3", "heartbeat");
    await settle();
    expect(seen.events.length).toBe(2);
    await log.end();
    await Promise.all([durable, behind]);
    expect(seen.events.map((e) => e.kv.key)).toEqual(["/beat", "/beat", "/a", "/beat"]);
    expect(log.batches[1]?.records.map((r) => r.key)).toEqual(["/a"]);
    // Deleting what the log does not know is none of its business either.
    await store.commit({ compares: [], success: [{ type: "delete", key: "/beat" }] });
    expect(log.batches.length).toBe(2);
    const closing = store.close();
    await log.end();
    await closing;
  });

  it("asks the log once for two minutes of a thousand nodes' heartbeats, and never to compact them", async () => {
    const { store, log } = await openHeld();
    const beats = () => Promise.all(Array.from({ length: 1000 }, (_, i) => put(store, `/beat/${i}`, "1", "heartbeat")));
    const first = beats();
    await log.end();
    await first;
    const start = store.revision();
    for (let round = 1; round < 12; round++) {
      const done = beats();
      await log.end();
      await done;
    }
    expect([store.revision() - start, log.batches.length]).toEqual([11_000, 1]);
    // Their history goes without a word to it.
    await store.compact(store.revision());
    expect([store.accounts().records, log.batches.length]).toEqual([1000, 1]);
    const closing = store.close();
    await log.end();
    await closing;
  });

  it("takes back everything that waits when a flush fails, and opens again when the log can", async () => {
    const { store, log, clock } = await openHeld();
    const ok = put(store, "/a", "1");
    await log.end();
    const { revision } = await ok;
    const seen = watchInto(store, prefixRange("/"));
    const lease = await store.grantLease(60);
    const failing = [put(store, "/a", "2"), put(store, "/b", "1", "durable", lease.id), put(store, "/c", "1", "event")];
    const results = Promise.allSettled(failing);
    await log.end(new AppError("DATASTORE_FLUSH_FAILED", "planted"));
    await results;
    for (const result of await results) expect(result).toMatchObject({ reason: { code: "DATASTORE_FLUSH_FAILED" } });
    expect([await keys(store), store.revision(), seen.events.length]).toEqual([["/a"], revision, 0]);
    expect(Buffer.from((await store.range({ key: "/a" })).kvs[0]!.value).toString()).toBe("1");
    await expect(put(store, "/d")).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_FLUSH_FAILED"));
    await clock.advance(200);
    expect(log.recovered).toEqual([revision, revision]);
    const again = put(store, "/b", "1", "durable", lease.id);
    await log.end();
    expect((await again).revision).toBeGreaterThan(revision + 3);
    // The lease is told to the log again: the first time was taken back.
    expect(log.batches.at(-1)?.leases).toMatchObject([{ id: lease.id, ttlSeconds: 60 }]);
    store.verify();
    const closing = store.close();
    await log.end();
    await closing;
  });

  it("deletes the keys of a lease in the end, also when the disk was full at its end", async () => {
    const { store, log, clock } = await openHeld();
    const lease = await store.grantLease(10);
    const ok = put(store, "/a", "1", "durable", lease.id);
    await log.end();
    await ok;
    await clock.advance(10_000);
    await log.end(new AppError("DATASTORE_FULL", "planted"));
    expect(await keys(store)).toEqual(["/a"]);
    await clock.advance(1100);
    await log.end();
    expect(await keys(store)).toEqual([]);
    expect(log.batches.at(-1)).toMatchObject({ revokedLeases: [lease.id], records: [{ key: "/a" }] });
    await store.close();
  });

  it("rebuilds the index from the log when it fails, and goes on", async () => {
    class Faulty extends Engine {
      override put(...args: Parameters<Engine["put"]>): void {
        // A real assertion of the module.
        if (args[0] === "/planted") super.remove("/not-there", 9, 0);
        super.put(...args);
      }
    }
    const files = new RecordedFiles();
    const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
    const deps = { clock: new FakeClock(), log: silentLogger };
    const log = openSqliteLog({ path: "/db", files, module }, deps);
    const faulty = () => new Faulty({ wasm: readAsset("engine.wasm"), maximumBytes: 64 * 1024 * 1024, hashSeed: 1 });
    const store = await openStore(faulty, log, deps);
    await put(store, "/a");
    const lost = watchInto(store, prefixRange("/"));
    const before = store.revision();
    const waiting = put(store, "/b");
    const results = await Promise.allSettled([put(store, "/planted"), waiting]);
    expect(results).toMatchObject([
      { reason: { code: "DATASTORE_CORRUPT" } },
      { reason: { code: "DATASTORE_CORRUPT" } },
    ]);
    expect(hasCode(lost.ended, "DATASTORE_CORRUPT")).toBe(true);
    await settle();
    expect(await keys(store)).toEqual(["/a"]);
    const again = watchInto(store, { ...prefixRange("/"), startRevision: 2 as never });
    expect((await put(store, "/c")).revision).toBeGreaterThan(before + 1);
    await settle();
    expect(again.lines()).toEqual(["put /a=1", "put /c=1"]);
    store.verify();
    await store.close();
  });

  it("replays a long history in slices, whole revisions each, while writes go on", async () => {
    const store = await openStore(newEngine, createMemoryLog(), { clock: new FakeClock(), log: silentLogger });
    for (let i = 0; i < 900; i++) {
      await store.commit({
        compares: [],
        success: ["a", "b", "c"].map((k) => ({ type: "put", key: `/${k}/${i % 10}`, value: bytes(String(i)) })),
      });
    }
    const seen = watchInto(store, { ...prefixRange("/"), startRevision: 2 as never });
    for (let i = 0; i < 50; i++) await put(store, "/a/0", String(i));
    await settle();
    expect(seen.events.length).toBe(2750);
    expect(seen.batches.length).toBeGreaterThan(2);
    for (const batch of seen.batches) {
      const last = batch[batch.length - 1]!.kv.modRevision;
      expect(seen.events.filter((e) => e.kv.modRevision === last).every((e) => batch.includes(e))).toBe(true);
    }
    await store.close();
  });
});

describe("compactor", () => {
  it("keeps one interval of history, and less when it grows too large", async () => {
    const clock = new FakeClock(0);
    const store = await openStore(newEngine, createMemoryLog(), { clock, log: silentLogger });
    const stop = new AbortController();
    const running = createCompactor({ maxHistoryValueBytes: 100_000 }, { store, clock, log: silentLogger }).run(
      stop.signal,
      () => {},
    );
    await put(store, "/a", "1");
    await clock.advance(300_000);
    expect(store.compactedRevision()).toBeLessThan(store.revision());
    for (let i = 0; i < 10; i++) await put(store, "/a", String(i));
    const before = store.revision();
    await clock.advance(300_000);
    expect(store.compactedRevision()).toBeLessThan(before);
    await clock.advance(300_000);
    expect(store.compactedRevision()).toBe(before);
    for (let i = 0; i < 200; i++) await put(store, "/a", "x".repeat(1000));
    await clock.advance(30_000);
    expect(store.compactedRevision()).toBe(store.revision());
    expect(store.accounts()).toMatchObject({ records: 1, historyBytes: 0 });
    stop.abort();
    await running;
    await store.close();
  });
});

describe("compactor at rest", () => {
  it("does not rest on a compaction that failed", async () => {
    const clock = new FakeClock(0);
    const store = await openStore(newEngine, createMemoryLog(), { clock, log: silentLogger });
    let attempts = 0;
    const shaky = {
      compact: (at: Revision) => (attempts++ === 0 ? Promise.reject(new Error("not now")) : store.compact(at)),
      accounts: () => store.accounts(),
      revision: () => store.revision(),
      compactedRevision: () => store.compactedRevision(),
    } as unknown as Datastore;
    const stop = new AbortController();
    const running = createCompactor({}, { store: shaky, clock, log: silentLogger }).run(stop.signal, () => {});
    for (let i = 0; i < 20; i++) await put(store, "/a", String(i));
    await clock.advance(900_000);
    expect(attempts).toBe(2);
    expect(store.compactedRevision()).toBe(store.revision());
    stop.abort();
    await running;
    await store.close();
  });

  it("leaves a few records for hours, and many for an interval", async () => {
    const clock = new FakeClock(0);
    const store = await openStore(newEngine, createMemoryLog(), { clock, log: silentLogger });
    const stop = new AbortController();
    const running = createCompactor({ checkMs: 60_000 }, { store, clock, log: silentLogger }).run(
      stop.signal,
      () => {},
    );
    for (let i = 0; i < 20; i++) await put(store, "/a", String(i));
    await clock.advance(900_000);
    const compacted = store.compactedRevision();
    expect(compacted).toBe(store.revision());
    for (let i = 0; i < 8; i++) await put(store, "/a", String(i));
    const few = store.revision();
    await clock.advance(5 * 3_600_000);
    expect(store.compactedRevision()).toBe(compacted);
    await clock.advance(3_600_000);
    expect(store.compactedRevision()).toBe(few);
    for (let i = 0; i < 9; i++) await put(store, "/a", String(i));
    await clock.advance(900_000);
    expect(store.compactedRevision()).toBe(store.revision());
    stop.abort();
    await running;
    await store.close();
  });
});

describe("compaction", () => {
  it("takes little from the log at a time, the oldest of a key first", async () => {
    const batches: LogBatch[] = [];
    const log = createMemoryLog({
      fail: (batch) => {
        batches.push(batch);
        return undefined;
      },
    });
    const store = await openStore(newEngine, log, { clock: new FakeClock(0), log: silentLogger });
    await Promise.all(Array.from({ length: 3000 }, (_, i) => put(store, "/one", String(i))));
    await store.commit({ compares: [], success: [{ type: "delete", key: "/one" }] });
    await store.compact(store.revision());
    const dropped = batches.map((batch) => batch.dropped.map((row) => row.revision)).filter((rows) => rows.length > 0);
    expect(Math.max(...dropped.map((rows) => rows.length))).toBeLessThanOrEqual(500);
    expect(dropped.flat()).toEqual([...dropped.flat()].sort((a, b) => a - b));
    expect(dropped.flat().length).toBe(3001);
    expect(batches.find((batch) => batch.dropped.length > 0)?.compacted).toBe(store.revision());
    await store.close();
  });
});

describe("a damaged record", () => {
  const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
  async function openOn(files: RecordedFiles, reports: DamageReport[] = []) {
    const deps = { clock: new FakeClock(0), log: silentLogger };
    const log = openSqliteLog(
      { path: "/db", files, module },
      { ...deps, damaged: (report: DamageReport) => reports.push(report) },
    );
    return openStore(newEngine, log, deps);
  }
  const imageOf = (files: RecordedFiles) =>
    files.cut(files.events.length, { float: () => 0, bytes: () => new Uint8Array(), uuid: () => "" }).image;

  it("is left out by name; everything else is there", async () => {
    const files = new RecordedFiles();
    const store = await openOn(files);
    const lost = watchInto(store, prefixRange("/"));
    for (const key of ["/a", "/b", "/c", "/old"]) await put(store, key, `value-of-${key}`);
    await put(store, "/old", "newer");
    await put(store, "/back", "before");
    await put(store, "/back", "after");
    const { revision } = await put(store, "/d");
    await store.close();
    const image = imageOf(files);
    const data = image.get("/db")!;
    for (const text of ["value-of-/b", "value-of-/old", "after"]) data[data.indexOf(text)]! ^= 1;
    const reports: DamageReport[] = [];
    const mended = new RecordedFiles(image);
    const after = await openOn(mended, reports);
    expect(await keys(after)).toEqual(["/a", "/back", "/c", "/d", "/old"]);
    const value = async (key: string) => Buffer.from((await after.range({ key })).kvs[0]!.value).toString();
    expect([await value("/old"), await value("/back")]).toEqual(["newer", "before"]);
    expect(reports).toMatchObject([
      { lostKeys: ["/b"], revertedKeys: ["/back"], setAside: "/db-damaged", unreadablePages: 0 },
    ]);
    expect(mended.exists("/db-damaged")).toBe(true);
    // Who resumes a watch is told to list again, and no number comes twice.
    expect(after.compactedRevision()).toBeGreaterThan(revision);
    expect((await put(after, "/e")).revision).toBeGreaterThan(revision);
    await after.close();
    const again = await openOn(mended, reports);
    expect([await keys(again), reports.length]).toEqual([["/a", "/back", "/c", "/d", "/e", "/old"], 1]);
    await again.close();
    expect(lost.events.length).toBe(8);
  });

  it("in the middle of the WAL does not take along what came after it", async () => {
    const files = new RecordedFiles();
    const store = await openOn(files);
    for (let i = 0; i < 20; i++) await put(store, `/${i}`, `value-of-/${i}.`);
    const { revision } = await put(store, "/last");
    const image = imageOf(files);
    const wal = image.get("/db-wal")!;
    // Its page is in every later frame too, where it is sound.
    wal[wal.indexOf("value-of-/5.")]! ^= 1;
    const reports: DamageReport[] = [];
    const after = await openOn(new RecordedFiles(image), reports);
    expect((await keys(after)).length).toBe(21);
    expect(reports).toMatchObject([{ lostKeys: [], revertedKeys: [] }]);
    expect(after.revision()).toBeGreaterThan(revision);
    await after.close();
  });

  it("is mended although the power goes between any two steps of it", async () => {
    const files = new RecordedFiles();
    const store = await openOn(files);
    for (const key of ["/a", "/b", "/c"]) await put(store, key, `value-of-${key}`);
    await store.close();
    const image = imageOf(files);
    const data = image.get("/db")!;
    data[data.indexOf("value-of-/b")]! ^= 1;
    const mending = new RecordedFiles(image);
    await (await openOn(mending)).close();
    const steps = mending.events.flatMap((event, i) => (event.type === "renamed" ? [i, i + 1] : []));
    expect(steps.length).toBeGreaterThanOrEqual(4);
    for (const cut of [...steps, ...Array.from({ length: 12 }, (_, i) => i * 4)]) {
      const random = seededRandom(cut);
      const after = await openOn(new RecordedFiles(mending.cut(cut, random).image));
      expect(await keys(after)).toEqual(["/a", "/c"]);
      await after.close();
    }
  });
});

it("knows the storage class of each resource", () => {
  const rows: readonly [string, string, string | undefined, StorageClass, string?][] = [
    ["", "pods", "default", "durable"],
    ["coordination.k8s.io", "leases", "kube-node-lease", "heartbeat"],
    ["coordination.k8s.io", "leases", "kube-system", "durable"],
    ["coordination.k8s.io", "leases", "kube-system", "heartbeat", "apiserver-abc"],
    ["coordination.k8s.io", "leases", "default", "durable", "apiserver-abc"],
    ["", "events", "default", "event"],
    ["events.k8s.io", "events", "kube-system", "event"],
    ["apps", "events", "default", "durable"],
    ["", "nodes", undefined, "durable"],
  ];
  for (const [group, resource, namespace, expected, name = "x"] of rows) {
    const where = `${resource}.${group} ${name} in ${namespace}`;
    expect(storageClassOf(group, resource, namespace, name), where).toBe(expected);
  }
});
