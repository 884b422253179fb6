import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { hasCode } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import { systemClock } from "#platform/clock.ts";
import { type BackendFixture, describeBackend } from "#test/conformance/backend.ts";
import { bytes } from "#test/harness/backend-model.ts";
import type { FakeClock } from "#test/harness/fake-clock.ts";
import { prefixRange } from "./backend.ts";
import { openDatastore } from "./open.ts";
import type { Datastore } from "./store.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-datastore-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;
const newPath = () => join(folder, String(count++), "state.db");
const deps = { clock: systemClock, log: silentLogger };

async function openSqlite(clock: FakeClock): Promise<BackendFixture> {
  const endpoint = `sqlite://${newPath()}`;
  const open = () => openDatastore({ endpoint }, { clock, log: silentLogger });
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

  it("refuses writes beyond its memory and goes on after deletions are compacted", async () => {
    const endpoint = `sqlite://${newPath()}`;
    const store = await openDatastore({ endpoint, maximumMemoryBytes: 8 * 1024 * 1024 }, deps);
    const value = "x".repeat(100_000);
    let full: unknown;
    let n = 0;
    while (!full && n < 200)
      full = await put(store, `/big/${n++}`, value).then(
        () => undefined,
        (e: unknown) => e,
      );
    expect(hasCode(full, "DATASTORE_FULL")).toBe(true);
    expect(n).toBeGreaterThan(20);
    await store.commit({ compares: [], success: [{ type: "delete", ...prefixRange("/big/") }] });
    await store.compact(store.revision());
    for (let i = 0; i < 20; i++) await put(store, `/big/${i}`, value);
    store.verify();
    await store.close();
  });
});
