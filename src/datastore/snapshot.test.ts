import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { hasCode } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { type BlockFiles, systemBlockFiles } from "#platform/block-file.ts";
import { systemClock } from "#platform/clock.ts";
import { askControlSocket } from "#platform/control-socket.ts";
import { watchInto } from "#test/conformance/backend.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { S3Server } from "#test/harness/s3-server.ts";
import { until } from "#test/harness/until.ts";
import { prefixRange } from "./backend.ts";
import { openDatastore } from "./open.ts";
import { parseS3Settings } from "./s3-settings.ts";
import { listSnapshots, pruneSnapshots, restoreSnapshot, saveSnapshot, verifySnapshot } from "./snapshot.ts";
import { createSnapshotSchedule, createSnapshotSocket } from "./snapshots.ts";
import type { Datastore } from "./store.ts";

const root = mkdtempSync(join(tmpdir(), "mote-snapshot-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const newFolder = () => join(root, String(count++));
const deps = { clock: systemClock, log: silentLogger };
const open = (folder: string) => openDatastore({ endpoint: `sqlite://${folder}/state.db`, reserveBytes: 0 }, deps);
const put = (store: Datastore, key: string, value: string, lease = 0) =>
  store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.from(value), lease }] });
const contents = async (store: Datastore) =>
  (await store.range(prefixRange("/"))).kvs.map((kv) => [
    ...[kv.key, Buffer.from(kv.value).toString(), kv.createRevision, kv.modRevision, kv.version, kv.lease],
  ]);

/** The system's, and which of them were flushed. */
function watchedFiles(): { files: BlockFiles; flushed: string[] } {
  const flushed: string[] = [];
  const files: BlockFiles = {
    ...systemBlockFiles,
    open(path, options) {
      const file = systemBlockFiles.open(path, options);
      return {
        ...file,
        sync() {
          flushed.push(path);
          file.sync();
        },
        flush() {
          flushed.push(path);
          return file.flush();
        },
      };
    },
    syncFolderOf(path) {
      flushed.push(path);
      systemBlockFiles.syncFolderOf(path);
    },
  };
  return { files, flushed };
}

describe("a snapshot", () => {
  it.each([false, true])(
    "holds one revision of a store that is written and compacted meanwhile (compressed: %s)",
    async (compress) => {
      const folder = newFolder();
      const store = await open(folder);
      // Two keys that are equal in every revision, far apart in the order of keys.
      const pair = (n: number) =>
        store.commit({
          compares: [],
          success: ["/a", "/z"].map((key) => ({ type: "put", key, value: Buffer.from(String(n)) })),
        });
      for (let i = 0; i < 800; i++) await put(store, `/k/${i}`, "x".repeat(500));
      await pair(0);
      let n = 0;
      let done = false;
      const writing = (async () => {
        while (!done) {
          await pair(++n);
          await store.commit({ compares: [], success: [{ type: "delete", key: `/k/${n}` }] });
          if (n % 5 === 0) await Promise.race([store.compact(store.revision()), systemClock.sleep(20)]);
        }
      })();
      const saved = await saveSnapshot(
        store,
        { folder: `${folder}/snapshots`, name: "on-demand", node: "n1", compress },
        deps,
      );
      done = true;
      await writing;
      expect(n).toBeGreaterThan(2);
      expect(saved.name).toMatch(compress ? /^on-demand-n1-\d+\.gz$/ : /^on-demand-n1-\d+$/);
      expect(readdirSync(`${folder}/snapshots`)).toEqual([saved.name]);
      const { keys } = await verifySnapshot(saved.path, deps);
      await store.close();

      const target = newFolder();
      await restoreSnapshot({ path: saved.path, target: `${target}/state.db` }, deps);
      const restored = await open(target);
      const found = new Map((await contents(restored)).map(([key, value]) => [key, value]));
      expect(found.size).toBe(keys);
      expect(found.get("/a")).toBe(found.get("/z"));
      restored.verify();
      await restored.close();
    },
  );

  it.each([
    { what: "a small one once", values: 20, flushes: ["/state"] },
    // Its log is folded when it has 2 MiB.
    { what: "a large one every few megabytes", values: 180, flushes: ["/state-wal", "/state", "/state"] },
  ])("is flushed when it is whole: $what", async ({ values, flushes }) => {
    const folder = newFolder();
    const store = await open(folder);
    for (let i = 0; i < values; i++) await put(store, `/k/${i}`, "x".repeat(50_000));
    const { files, flushed } = watchedFiles();
    const options = { folder: `${folder}/s`, name: "x", node: "n", compress: false };
    const saved = await saveSnapshot(store, options, { ...deps, files });
    const names = flushed.map((path) => path.replace(/^.*\/x-n-\d+\.tmp/, "/state"));
    if (values < 100) expect(names).toEqual(flushes);
    else for (const name of flushes) expect(names).toContain(name);
    expect(names.length).toBeLessThan(10);
    expect(names.at(-1)).toBe("/state");
    expect((await verifySnapshot(saved.path, deps)).keys).toBe(values);
    await store.close();
  });

  it("brings a store back with its versions and leases, and with no revision that was seen before", async () => {
    const folder = newFolder();
    let store = await open(folder);
    const lease = await store.grantLease(3600);
    await put(store, "/a", "1");
    await put(store, "/a", "2");
    await put(store, "/leased", "1", lease.id);
    const before = await contents(store);
    const saved = await saveSnapshot(store, { folder: `${folder}/s`, name: "x", node: "n", compress: false }, deps);
    await put(store, "/a", "3");
    const { revision } = await put(store, "/after", "1");
    await store.close();
    const { kept } = await restoreSnapshot({ path: saved.path, target: `${folder}/state.db` }, deps);
    expect(kept).toBe(`${folder}/state.db-before-restore`);
    store = await open(folder);
    expect(await contents(store)).toEqual(before);
    expect((await store.keepAlive(lease.id)).ttlSeconds).toBe(3600);
    const resumed = watchInto(store, { ...prefixRange("/"), startRevision: revision });
    await until(() => hasCode(resumed.ended, "DATASTORE_COMPACTED"));
    expect((await put(store, "/b", "1")).revision).toBeGreaterThan(revision);
    await store.close();
    // For people: any sqlite3 can read it.
    const count = `SELECT count(*) FROM record`;
    try {
      expect(execFileSync("sqlite3", [saved.path, count], { encoding: "utf8" }).trim()).toBe("2");
    } catch (error) {
      if (!hasCode(error, "ENOENT")) throw error;
    }
  });

  it("is refused when anything in it is wrong", async () => {
    const folder = newFolder();
    const store = await open(folder);
    for (let i = 0; i < 100; i++) await put(store, `/k/${i}`, `value-${i}-${"x".repeat(300)}`);
    const saved = await saveSnapshot(store, { folder, name: "x", node: "n", compress: false }, deps);
    await store.close();
    const good = readFileSync(saved.path);
    const refused = async (bytes: Buffer) => {
      writeFileSync(saved.path, bytes);
      await expect(verifySnapshot(saved.path, deps)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_CORRUPT"));
      const target = `${newFolder()}/state.db`;
      await expect(restoreSnapshot({ path: saved.path, target }, deps)).rejects.toThrow();
    };
    const flipped = Buffer.from(good);
    flipped[flipped.indexOf("value-50-") + 20]! ^= 1;
    await refused(flipped);
    await refused(good.subarray(0, good.length - 8192));
    await refused(Buffer.alloc(0));
    await refused(Buffer.from("no database at all".repeat(1000)));
    writeFileSync(saved.path, good);
    expect((await verifySnapshot(saved.path, deps)).keys).toBe(100);
  });

  it("leaves the running store alone: restoring needs it to have ended", async () => {
    const folder = newFolder();
    const store = await open(folder);
    await put(store, "/a", "1");
    const saved = await saveSnapshot(store, { folder, name: "x", node: "n", compress: false }, deps);
    await expect(restoreSnapshot({ path: saved.path, target: `${folder}/state.db` }, deps)).rejects.toSatisfy((e) =>
      hasCode(e, "PROCESS_LOCKED"),
    );
    await store.close();
  }, 30_000);
});

describe("schedule and retention", () => {
  it("saves at the minutes of its schedule, keeps as many as it should, and skips when nothing was written", async () => {
    const folder = newFolder();
    const clock = new FakeClock(Date.UTC(2026, 0, 1));
    const store = await open(folder);
    const options = { folder: `${folder}/s`, name: "etcd-snapshot", node: "n", retention: 3, compress: false };
    const stop = new AbortController();
    const service = createSnapshotSchedule(
      { ...options, schedule: "*/10 * * * *" },
      { store, clock, log: silentLogger },
    );
    const running = service.run(stop.signal, () => {});
    await put(store, "/a", "1");
    const saved = async (n: number, newest: number) => {
      for (let i = 0; i < 400; i++) {
        const found = await listSnapshots(options.folder);
        if (found.length === n && found.at(-1)?.createdMs === newest) return;
        await systemClock.sleep(10);
      }
      throw new Error(`never ${n} snapshots`);
    };
    for (let i = 1; i <= 5; i++) {
      await clock.advance(600_000);
      await saved(Math.min(i, 3), Date.UTC(2026, 0, 1, 0, 10 * i));
      await put(store, "/a", String(i));
      await store.commit({
        compares: [],
        success: [{ type: "put", key: "/beat", value: Buffer.from("1"), class: "heartbeat" }],
      });
    }
    await clock.advance(600_000);
    await saved(3, Date.UTC(2026, 0, 1, 1, 0));
    await clock.advance(1_200_000);
    await systemClock.sleep(100);
    await saved(3, Date.UTC(2026, 0, 1, 1, 0));
    // Another name has a count of its own.
    await saveSnapshot(store, { ...options, name: "on-demand" }, { clock, log: silentLogger });
    expect(await pruneSnapshots({ ...options, retention: 1 })).toHaveLength(2);
    expect((await listSnapshots(options.folder)).map(({ name }) => name.split("-n-")[0])).toEqual([
      "etcd-snapshot",
      "on-demand",
    ]);
    stop.abort();
    await running;
    await store.close();
  });

  it("sends what it saved to a bucket, and again when that failed, without saving again", async () => {
    const folder = newFolder();
    const clock = new FakeClock(Date.UTC(2026, 0, 1));
    const store = await open(folder);
    const account = { bucket: "b", accessKey: "a", secretKey: "s", region: "us-east-1" };
    const server = new S3Server({ ...account, skewMs: Date.UTC(2026, 0, 1) - Date.now() });
    const fields = { endpoint: `127.0.0.1:${await server.listen()}`, insecure: "true", bucket: "b" };
    const settings = parseS3Settings({ ...fields, "access-key": "a", "secret-key": "s" }, (name) => name);
    const options = { folder: `${folder}/s`, name: "etcd-snapshot", node: "n", retention: 3, compress: true };
    let asked = 0;
    const s3 = async () => {
      if (asked++ < 2) throw new Error("no network");
      return settings;
    };
    const stop = new AbortController();
    const service = createSnapshotSchedule(
      { ...options, s3, schedule: "0 * * * *" },
      { store, clock, log: silentLogger },
    );
    const running = service.run(stop.signal, () => {});
    await put(store, "/a", "1");
    for (let i = 0; server.objects.size === 0; i++) {
      if (i > 400) throw new Error("never uploaded");
      await clock.advance(60_000);
      await systemClock.sleep(10);
    }
    const [saved, ...others] = await listSnapshots(options.folder);
    expect([...server.objects.keys()]).toEqual([saved!.name]);
    expect(asked).toBe(3);
    // Two pauses of a quarter of an hour after the full hour.
    expect(clock.now() - saved!.createdMs).toBeGreaterThanOrEqual(30 * 60_000);
    expect(others).toEqual([]);
    stop.abort();
    await running;
    await server.close();
    await store.close();
  });

  it("saves when asked over the socket", async () => {
    const folder = newFolder();
    const store = await open(folder);
    await put(store, "/a", "1");
    const stop = new AbortController();
    const socket = `${folder}/snapshot.sock`;
    const options = {
      folder: `${folder}/s`,
      name: "x",
      node: "n",
      retention: 5,
      compress: false,
      schedule: undefined,
      socket,
    };
    expect(await askControlSocket(socket, {})).toBe(undefined);
    let running = Promise.resolve();
    await new Promise<void>((ready) => {
      running = createSnapshotSocket(options, { ...deps, store }).run(stop.signal, ready);
    });
    const request = { command: "save", name: "on-demand", compress: false, retention: 5 };
    while (!existsSync(socket)) await systemClock.sleep(5);
    const saved = (await askControlSocket(socket, request)) as { path: string };
    expect((await verifySnapshot(saved.path, deps)).keys).toBe(1);
    await expect(askControlSocket(socket, { ...request, name: "../evil" })).rejects.toThrow(/not allowed/);
    await expect(askControlSocket(socket, null)).rejects.toThrow(/unknown request/);
    stop.abort();
    await running;
    await store.close();
  });
});
