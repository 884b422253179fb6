import { closeSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { hasCode } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { systemClock } from "#platform/clock.ts";
import { nextTurn } from "#platform/turns.ts";
import { type BackendFixture, describeBackend, watchInto } from "#test/conformance/backend.ts";
import { bytes } from "#test/harness/backend-model.ts";
import type { FakeClock } from "#test/harness/fake-clock.ts";
import { quickFolder } from "#test/harness/quick-folder.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { until } from "#test/harness/until.ts";
import { type KeyValue, type OpResult, prefixRange, type WatchEvent } from "./backend.ts";
import { type DamageReport, type DatastoreOptions, openDatastore } from "./open.ts";
import type { Datastore } from "./store.ts";

const folder = await quickFolder("mote-datastore-");
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;
const newPath = () => join(folder, String(count++), "state.db");
const deps = { clock: systemClock, log: silentLogger };

const openSqlite = (clock: FakeClock) => openFile(clock, {});
/** The least that an engine works with, and of that nothing for values. */
const openCold = (clock: FakeClock) => openFile(clock, { maximumMemoryBytes: 4 * 1024 * 1024, warmValueBytes: 0 });

async function openFile(clock: FakeClock, options: Omit<DatastoreOptions, "endpoint">): Promise<BackendFixture> {
  const endpoint = `sqlite://${newPath()}`;
  const open = () => openDatastore({ ...options, endpoint }, { clock, log: silentLogger });
  let store: Datastore = await open();
  return {
    backend: store,
    async reopen() {
      store.verify();
      await store.close();
      store = await open();
      store.verify();
      return store;
    },
    async cleanUp() {},
  };
}

async function openMemory(clock: FakeClock): Promise<BackendFixture> {
  const store = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  return { backend: store, async cleanUp() {} };
}

describeBackend("sqlite", openSqlite);
describeBackend("sqlite, no value in memory", openCold);
describeBackend("memory", openMemory);

const put = (store: Datastore, key: string, value = "1", storageClass?: "heartbeat" | "event") =>
  store.commit({
    compares: [],
    success: [{ type: "put", key, value: bytes(value), ...(storageClass ? { class: storageClass } : {}) }],
  });

function metricOf(metrics: Metrics, name: string): number {
  const line = metrics
    .render()
    .split("\n")
    .find((l) => l.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}

describe("openDatastore", () => {
  it.each(["", "state.db", "etcd://x", "sqlite://state.db", "__proto__://x"])(
    "refuses the endpoint %j",
    async (endpoint) => {
      await expect(openDatastore({ endpoint }, deps)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_BAD_REQUEST"));
    },
  );

  it("lets one owner at a time have the file, readable by root only", async () => {
    const path = newPath();
    const store = await openDatastore({ endpoint: `sqlite://${path}` }, deps);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await expect(openDatastore({ endpoint: `sqlite://${path}` }, deps)).rejects.toSatisfy((e) =>
      hasCode(e, "DATASTORE_LOCKED"),
    );
    await store.close();
    await (await openDatastore({ endpoint: `sqlite://${path}` }, deps)).close();
  });

  it("refuses a foreign database, a newer format and a file that is none", async () => {
    const path = newPath();
    await (await openDatastore({ endpoint: `sqlite://${path}` }, deps)).close();
    const image = readFileSync(path);
    // application_id stands at byte 68 of the header.
    image.writeUInt32BE(1, 68);
    writeFileSync(path, image);
    await expect(openDatastore({ endpoint: `sqlite://${path}` }, deps)).rejects.toSatisfy((e) =>
      hasCode(e, "DATASTORE_FORMAT"),
    );
    writeFileSync(path, "this is not a database, and it is long enough to be looked at".repeat(20));
    await expect(openDatastore({ endpoint: `sqlite://${path}` }, deps)).rejects.toThrow(/not a database/);
  });

  it("writes nothing for heartbeats and events, and flushes once for writes that arrive together", async () => {
    const metrics = new Metrics();
    const store = await openDatastore({ endpoint: `sqlite://${newPath()}` }, { ...deps, metrics });
    await put(store, "/leases/n1", "0", "heartbeat");
    const flushes = metricOf(metrics, "mote_datastore_flushes_total");
    const written = metricOf(metrics, "mote_datastore_written_bytes_total");
    for (let i = 1; i < 200; i++) await put(store, "/leases/n1", String(i), i % 2 ? "heartbeat" : "event");
    expect(metricOf(metrics, "mote_datastore_flushes_total")).toBe(flushes);
    expect(metricOf(metrics, "mote_datastore_written_bytes_total")).toBe(written);
    await Promise.all(Array.from({ length: 100 }, (_, i) => put(store, `/pods/${i}`)));
    expect(metricOf(metrics, "mote_datastore_flushes_total") - flushes).toBeLessThanOrEqual(2);
    await put(store, "/pods/lone");
    expect(metricOf(metrics, "mote_datastore_flushes_total") - flushes).toBeLessThanOrEqual(3);
    await store.close();
  });

  it("gives back what compaction drops, in memory and on disk", async () => {
    const path = newPath();
    let store = await openDatastore({ endpoint: `sqlite://${path}` }, deps);
    const value = "x".repeat(2000);
    for (let i = 0; i < 600; i++) await put(store, `/pods/${i % 20}`, value);
    for (let i = 0; i < 10; i++) await store.commit({ compares: [], success: [{ type: "delete", key: `/pods/${i}` }] });
    expect(store.accounts()).toMatchObject({ keys: 20, records: 610 });
    await store.compact(store.revision());
    expect(store.accounts()).toMatchObject({ keys: 10, records: 10, historyBytes: 0 });
    store.verify();
    await store.close();
    const size = statSync(path).size;
    store = await openDatastore({ endpoint: `sqlite://${path}` }, deps);
    expect(store.accounts()).toMatchObject({ keys: 10, records: 10 });
    // The freed pages are used again: 500 more writes need no more room.
    for (let i = 0; i < 500; i++) await put(store, `/pods/${10 + (i % 10)}`, value);
    await store.close();
    expect(statSync(path).size).toBeLessThanOrEqual(size * 1.1);
  });

  it("refuses writes when its index does not fit, and goes on after deletions are compacted", async () => {
    const endpoint = `sqlite://${newPath()}`;
    const options = { endpoint, maximumMemoryBytes: 4 * 1024 * 1024 };
    let store = await openDatastore(options, deps);
    let full: unknown;
    let n = 0;
    while (!full && n < 400) {
      const name = `/${"k".repeat(200)}/${n++}`;
      const success = Array.from({ length: 128 }, (_, i) => ({
        ...{ type: "put" as const, key: `${name}/${i}`, value: bytes("1") },
      }));
      full = await store.commit({ compares: [], success }).then(
        () => undefined,
        (e: unknown) => e,
      );
    }
    expect(hasCode(full, "DATASTORE_FULL")).toBe(true);
    expect(n).toBeGreaterThan(20);
    // What was taken can also be opened.
    await store.close();
    store = await openDatastore(options, deps);
    for (let i = 0; i < n; i++) {
      const range = prefixRange(`/${"k".repeat(200)}/${i}/`);
      await store.commit({ compares: [], success: [{ type: "delete", ...range }] });
      if (i % 16 === 15) await store.compact(store.revision());
    }
    if (store.compactedRevision() < store.revision()) await store.compact(store.revision());
    expect(store.accounts().keys).toBe(0);
    for (let i = 0; i < 20; i++) await put(store, `/big/${i}`, "x".repeat(100_000));
    store.verify();
    await store.close();
  });

  it("leaves others their turn while a transaction reads much from the file, and is of one moment all the same", async () => {
    const endpoint = `sqlite://${newPath()}`;
    const store = await openDatastore({ endpoint, reserveBytes: 0, warmValueBytes: 0 }, deps);
    const value = (i: number) => `${i} `.repeat(1000);
    for (let i = 0; i < 1000; i++) await put(store, `/a/${i}`, value(i));
    const seen: WatchEvent[] = [];
    store.watch(prefixRange("/a/"), { onEvents: (events) => seen.push(...events), onEnd: () => {} });
    let turns = 0;
    let done = false;
    const others = (async () => {
      for (; !done; turns++) await new Promise((resolve) => setImmediate(resolve));
    })();
    const range = { type: "range" as const, range: prefixRange("/a/") };
    const removal = { type: "delete" as const, ...prefixRange("/a/"), prevKv: true };
    const committed = store.commit({ compares: [], success: [range, removal] });
    // What comes while it reads is part of it, and history may go meanwhile.
    const newer = put(store, "/a/5", "newer");
    const compacted = store.compact(store.revision());
    const { results } = await committed;
    done = true;
    await Promise.all([others, newer, compacted]);
    expect(turns).toBeGreaterThan(3);
    const [read, removed] = results as [OpResult & { type: "range" }, OpResult & { type: "delete" }];
    const texts = (kvs: readonly KeyValue[]) =>
      Object.fromEntries(kvs.map((kv) => [kv.key, Buffer.from(kv.value).toString()]));
    const expected = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`/a/${i}`, value(i)]));
    expected["/a/5"] = "newer";
    expect(texts(read.result.kvs)).toEqual(expected);
    expect(texts(removed.prevKvs)).toEqual(expected);
    expect(texts(seen.flatMap(({ type, prevKv }) => (type === "delete" && prevKv ? [prevKv] : [])))).toEqual(expected);
    store.verify();
    await store.close();
  });

  it("holds eight times as much as its memory", { timeout: 60_000 }, async () => {
    const path = newPath();
    const metrics = new Metrics();
    const ceiling = 8 * 1024 * 1024;
    const options = { endpoint: `sqlite://${path}`, maximumMemoryBytes: ceiling, reserveBytes: 0 };
    let store = await openDatastore(options, { ...deps, metrics });
    const random = seededRandom(3);
    const sizes = new Map<string, number>();
    const content = (key: string, size: number) => `${key} `.repeat(Math.ceil(size / (key.length + 1))).slice(0, size);
    const check = async (key: string) => {
      const { kvs } = await store.range({ key });
      expect(Buffer.from(kvs[0]!.value).toString() === content(key, sizes.get(key)!), key).toBe(true);
    };
    const key = () => `/registry/things/${Math.floor(random.float() * 12_000)}`;
    // Values of all sizes, so that the room that one leaves is seldom what the next one needs.
    for (let n = 0; n < 260; n++) {
      const chosen = new Set(Array.from({ length: 64 }, key));
      const success = [...chosen].map((k) => {
        const size = random.float() < 0.002 ? 300_000 : Math.floor(8000 * random.float() ** 0.5);
        sizes.set(k, size);
        return { type: "put" as const, key: k, value: Buffer.from(content(k, size)) };
      });
      await store.commit({ compares: [], success });
      await check(key0(sizes, random.float()));
      if (n % 40 === 39) await store.compact(store.revision());
      expect(metricOf(metrics, "mote_datastore_memory_bytes")).toBeLessThanOrEqual(ceiling);
    }
    const total = [...sizes.values()].reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThan(5 * ceiling);
    for (let round = 0; round < 2; round++) {
      store.verify();
      expect(store.accounts().heldBytes).toBeLessThan(ceiling);
      for (let i = 0; i < 500; i++) await check(key0(sizes, random.float()));
      const all = await store.range(prefixRange("/registry/"));
      expect(all.kvs.map((kv) => [kv.key, kv.value.length])).toEqual([...sizes].sort(([a], [b]) => (a < b ? -1 : 1)));
      const some = await store.range({ ...prefixRange("/registry/"), limit: 700 });
      expect([some.kvs.length, some.count, some.more]).toEqual([700, sizes.size, true]);
      await store.close();
      store = await openDatastore(options, deps);
    }
    await store.close();
  });

  it("lets others have their turn while it reads what is not in memory", { timeout: 60_000 }, async () => {
    const options = { endpoint: `sqlite://${newPath()}`, warmValueBytes: 0, reserveBytes: 0 };
    const store = await openDatastore(options, deps);
    const value = Buffer.alloc(4000, "v");
    const write = (from: number) =>
      store.commit({
        compares: [],
        success: Array.from({ length: 100 }, (_, i) => ({ type: "put" as const, key: `/k/${1e5 + from + i}`, value })),
      });
    for (let i = 0; i < 4000; i += 100) await write(i);
    const start = store.revision();
    let turns = 0;
    let done = false;
    const counting = (async () => {
      while (!done) {
        await nextTurn();
        turns++;
      }
    })();
    const reading = store.range(prefixRange("/k/"));
    // What is written and compacted meanwhile changes nothing of what it reads.
    await write(0);
    const compacting = store.compact(store.revision());
    const all = await reading;
    done = true;
    await counting;
    await compacting;
    expect([all.kvs.length, all.revision]).toEqual([4000, start]);
    expect(Math.max(...all.kvs.map((kv) => kv.modRevision))).toBe(start);
    expect(turns).toBeGreaterThan(10);
    expect(store.accounts().coldReadBytes).toBeGreaterThanOrEqual(4000 * 4000);
    await store.close();
  });

  it("finds, names and mends damage to a record when it is read", async () => {
    const path = newPath();
    const reports: DamageReport[] = [];
    const options = { endpoint: `sqlite://${path}`, warmValueBytes: 0, reserveBytes: 0 };
    let store = await openDatastore(options, deps);
    // More than SQLite keeps in memory.
    for (let i = 0; i < 1000; i++) await put(store, `/k/${i}`, `value-${i}-`.repeat(400));
    await store.close();
    store = await openDatastore(options, { ...deps, damaged: (report) => reports.push(report) });
    const watch = watchInto(store, prefixRange("/k/"));
    const file = readFileSync(path);
    const fd = openSync(path, "r+");
    writeSync(fd, "X", file.indexOf("value-7-") + 100);
    closeSync(fd);
    const values = async () => {
      const { kvs } = await store.range(prefixRange("/k/"));
      return kvs.map((kv) => [kv.key, Buffer.from(kv.value).toString()] as const);
    };
    await expect(store.range({ key: "/k/7" })).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_CORRUPT"));
    await until(() => reports.length > 0);
    await systemClock.sleep(20);
    expect(reports.map((r) => r.lostKeys)).toEqual([["/k/7"]]);
    expect(hasCode(watch.ended, "DATASTORE_CORRUPT")).toBe(true);
    const found = await values();
    expect(found.length).toBe(999);
    expect(found.filter(([key, value]) => value !== `value-${key.slice(3)}-`.repeat(400))).toEqual([]);
    await put(store, "/k/7", "again");
    store.verify();
    await store.close();
  });
});

function key0(sizes: ReadonlyMap<string, number>, at: number): string {
  return [...sizes.keys()][Math.floor(at * sizes.size)]!;
}
