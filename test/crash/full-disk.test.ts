// A real disk that is full: reads, watches and deletions go on, what adds is refused at once, writing resumes by itself.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hasCode } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { Datastore } from "#datastore/store.ts";
import { systemClock } from "#platform/clock.ts";
import { watchInto } from "#test/conformance/backend.ts";
import { until } from "#test/harness/until.ts";

const isRoot = process.getuid?.() === 0;
const mib = 1024 * 1024;
const options = (folder: string) => ({ endpoint: `sqlite://${folder}/state.db`, reserveBytes: mib });
const deps = { clock: systemClock, log: silentLogger };
let folder: string;

describe.skipIf(!isRoot)("a full disk", () => {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "mote-full-"));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=12m", "mote-test", folder]);
  });
  afterEach(() => {
    execFileSync("umount", ["-l", folder]);
    rmSync(folder, { recursive: true, force: true });
  });

  it("takes deletions while others fill it, and writes again when they have gone", async () => {
    const store = await openDatastore(options(folder), deps);
    await until(() => reserveSize() === mib);
    for (let i = 0; i < 300; i++) await put(store, `/k/${i}`, 4000);
    const seen = watchInto(store, prefixRange("/k/"));
    fillUp(`${folder}/other`);
    const [acked, refused] = await putUntilFull(store);
    expect(hasCode(refused, "DATASTORE_FULL")).toBe(true);
    // Refused from what is known, before anything is asked of the disk.
    let turns = 0;
    let isOver = false;
    const counting = (async () => {
      for (; !isOver; turns++) await new Promise((resolve) => setImmediate(resolve));
    })();
    await expect(put(store, "/k/no", 10)).rejects.toMatchObject({ code: "DATASTORE_FULL" });
    isOver = true;
    await counting;
    expect(turns).toBeLessThan(5);
    for (let i = 0; i < 300; i += 2)
      await store.commit({ compares: [], success: [{ type: "delete", key: `/k/${i}` }] });
    expect((await store.range(prefixRange("/k/"))).count).toBe(150);
    expect(seen.events.filter((e) => e.type === "delete").length).toBe(150);
    // Heartbeats live in memory: a full disk is no reason to lose the node.
    await store.commit({
      compares: [],
      success: [{ type: "put", key: "/beat", value: Buffer.from("1"), class: "heartbeat" }],
    });
    rmSync(`${folder}/other`);
    await until(() =>
      put(store, "/k/yes", 4000).then(
        () => true,
        () => false,
      ),
    );
    await until(() => reserveSize() === mib);
    await store.close();
    const again = await openDatastore(options(folder), deps);
    const keys = (await again.range(prefixRange("/"))).kvs.map((kv) => kv.key);
    expect(keys.filter((k) => k.startsWith("/k/")).length).toBe(151);
    expect(acked.filter((key) => !keys.includes(key))).toEqual([]);
    again.verify();
    await again.close();
  });

  it("comes free by deletion and compaction when the store itself has filled it", async () => {
    let store = await openDatastore(options(folder), deps);
    await until(() => reserveSize() === mib);
    const [acked, refused] = await putUntilFull(store);
    expect(hasCode(refused, "DATASTORE_FULL")).toBe(true);
    expect(acked.length).toBeGreaterThan(1000);
    await store.commit({ compares: [], success: [{ type: "delete", ...prefixRange("/fill/") }] });
    await store.compact(store.revision());
    for (let i = 0; i < 500; i++) await put(store, `/again/${i}`, 4000);
    await store.close();
    store = await openDatastore(options(folder), deps);
    expect((await store.range(prefixRange("/"))).count).toBe(500);
    await store.close();
  });

  it("opens, deletes and reads when it was full before the start", async () => {
    let store = await openDatastore(options(folder), deps);
    await until(() => reserveSize() === mib);
    for (let i = 0; i < 300; i++) await put(store, `/k/${i}`, 4000);
    fillUp(`${folder}/other`);
    await putUntilFull(store);
    await store.close();
    fillUp(`${folder}/other-2`);
    store = await openDatastore(options(folder), deps);
    expect((await store.range({ ...prefixRange("/k/"), countOnly: true })).count).toBe(300);
    await until(() =>
      put(store, "/no", 100_000).then(
        () => false,
        (e) => hasCode(e, "DATASTORE_FULL"),
      ),
    );
    rmSync(`${folder}/other`);
    rmSync(`${folder}/other-2`);
    await until(() =>
      put(store, "/yes", 100_000).then(
        () => true,
        () => false,
      ),
    );
    await store.close();
  });
});

const reserveSize = () => statSync(`${folder}/state.db-reserve`).size;
const put = (store: Datastore, key: string, size: number) =>
  store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.alloc(size, "x") }] });

async function putUntilFull(store: Datastore): Promise<[acked: string[], refused: unknown]> {
  const acked: string[] = [];
  for (let n = 0; n < 20_000; n++) {
    try {
      await put(store, `/fill/${n}`, 4000);
      acked.push(`/fill/${n}`);
    } catch (error) {
      return [acked, error];
    }
  }
  return [acked, undefined];
}

function fillUp(path: string): void {
  for (;;) {
    try {
      writeFileSync(path, Buffer.alloc(4096), { flag: "a" });
    } catch {
      return;
    }
  }
}
