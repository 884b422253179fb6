// Power cuts at random points of everything the store writes: it must open, hold exactly the transactions up to some
// point at or after the last acknowledged one, and never give out a revision again. The positive control acknowledges
// before the flush: the same cuts must then find lost writes, or the simulator proves nothing.
// MOTE_CRASH_CUTS sets the number of cuts of each kind, MOTE_CRASH_SEED where the seeds begin.
import { describe, expect, it } from "vitest";
import { silentLogger } from "#base/log.ts";
import { type Op, prefixRange, revision } from "#datastore/backend.ts";
import { Engine } from "#datastore/engine/engine.ts";
import { openSqliteLog } from "#datastore/log/sqlite/sqlite-log.ts";
import { type Datastore, openStore } from "#datastore/store.ts";
import { readAsset } from "#platform/assets.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { oldStore } from "#test/harness/old-store.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const cuts = Number(process.env["MOTE_CRASH_CUTS"] ?? 240);
const firstSeed = Number(process.env["MOTE_CRASH_SEED"] ?? 1);
const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
const engineWasm = readAsset("engine.wasm");
const path = "/state.db";
/** With `cold`, so little that no value is kept and all are read from the log. */
const memory = (cold: boolean) =>
  cold ? { maximumBytes: 3 * 1024 * 1024, warmValueBytes: 0 } : { maximumBytes: 64 * 1024 * 1024 };

interface Written {
  readonly revision: number;
  /** Key -> value, or undefined for a deletion; only of the durable class. */
  readonly changes: ReadonlyMap<string, string | undefined>;
}

interface Story {
  readonly files: RecordedFiles;
  /** Every transaction in the order of its revisions. */
  readonly txns: Written[];
  /** Acknowledged revision and the length of the record at that moment; memory-only ones too. */
  readonly acks: { readonly revision: number; readonly at: number; readonly durable: boolean }[];
}

async function openOn(files: RecordedFiles, unsafeAcknowledgeEarly = false, cold = false): Promise<Datastore> {
  const deps = { clock: new FakeClock(0), log: silentLogger };
  const engine = () => new Engine({ ...memory(cold), wasm: engineWasm, hashSeed: 1 });
  // Checkpoints every few transactions, so that cuts fall into them.
  const log = openSqliteLog({ path, files, module, unsafeAcknowledgeEarly, maxFrames: 40 }, deps);
  return openStore(engine, log, deps);
}

/** Eight writers, compactions and heartbeats; all that was written and acknowledged, in one record. */
async function tell(seed: number, unsafe: boolean): Promise<Story> {
  const random = seededRandom(seed);
  const pick = (n: number) => Math.floor(random.float() * n);
  // Every third is an old store, with larger pages.
  const files = new RecordedFiles(seed % 3 === 0 ? oldStore(path, module) : undefined);
  const story: Story = { files, txns: [], acks: [] };
  const store = await openOn(files, unsafe, seed % 2 === 0);
  const writer = async () => {
    for (let n = 0; n < 25; n++) {
      const changes = new Map<string, string | undefined>();
      const ops: Op[] = [];
      if (pick(6) === 0) {
        ops.push({ type: "put", key: `/beat/${pick(3)}`, value: Buffer.from("beat"), class: "heartbeat" });
      } else {
        for (let k = 1 + pick(3); k > 0; k--) {
          const key = `/k/${pick(30)}`;
          if (changes.has(key)) continue;
          const value = pick(5) === 0 ? undefined : String(pick(1e9)).repeat(1 + pick(300));
          changes.set(key, value);
          ops.push(value === undefined ? { type: "delete", key } : { type: "put", key, value: Buffer.from(value) });
        }
      }
      // Applied at once, acknowledged later: the order of the calls is the order of the revisions.
      const { revision: at } = await store.commit({ compares: [], success: ops }).then((result) => {
        story.acks.push({ revision: result.revision, at: files.events.length, durable: changes.size > 0 });
        return result;
      });
      story.txns.push({ revision: at, changes });
      if (pick(25) === 0 && store.revision() - 20 > store.compactedRevision()) {
        await store.compact(revision(store.revision() - 20));
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, writer));
  story.txns.sort((a, b) => a.revision - b.revision);
  return story;
}

/** What is wrong with the store after a cut, or undefined. */
async function problemAfter(story: Story, cut: number, image: Map<string, Buffer>): Promise<string | undefined> {
  const acked = story.acks.filter((a) => a.at <= cut);
  const lastAcked = Math.max(0, ...acked.map((a) => a.revision));
  const lastDurable = Math.max(0, ...acked.filter((a) => a.durable).map((a) => a.revision));
  let store: Datastore;
  try {
    store = await openOn(new RecordedFiles(image), false, cut % 2 === 0);
  } catch (error) {
    return `does not open: ${String(error)}`;
  }
  try {
    store.verify();
    const { kvs } = await store.range(prefixRange("/k/"));
    const found = JSON.stringify(kvs.map((kv) => [kv.key, Buffer.from(kv.value).toString()]));
    // Must be the state after some transaction, and not one before the last acknowledged.
    const state = new Map<string, string>();
    const matches = () => JSON.stringify([...state].sort(([a], [b]) => (a < b ? -1 : 1))) === found;
    let last = matches() ? 0 : -1;
    for (const txn of story.txns) {
      for (const [key, value] of txn.changes) {
        if (value === undefined) state.delete(key);
        else state.set(key, value);
      }
      if (txn.changes.size > 0 && matches()) last = txn.revision;
    }
    if (last < 0) return "holds a state that never was";
    if (last < lastDurable) return `lost acknowledged revision ${lastDurable}: holds ${last}`;
    if (store.revision() < lastAcked) return `revision ${store.revision()} after ${lastAcked} was acknowledged`;
    const next = await store.commit({
      compares: [],
      success: [{ type: "put", key: "/after", value: Buffer.from("1") }],
    });
    if (next.revision <= lastAcked) return `gave out revision ${next.revision} again`;
    return undefined;
  } finally {
    await store.close();
  }
}

async function cutMany(
  seeds: readonly number[],
  unsafe: boolean,
  images = cuts,
): Promise<{ problems: string[]; withLosses: number }> {
  const problems: string[] = [];
  let withLosses = 0;
  for (const seed of seeds) {
    const story = await tell(seed, unsafe);
    const random = seededRandom(seed + 1000);
    for (let n = 0; n < images / seeds.length; n++) {
      const cut = Math.floor(random.float() * (story.files.events.length + 1));
      const { image, unflushed } = story.files.cut(cut, random);
      if (unflushed > 0) withLosses++;
      const problem = await problemAfter(story, cut, image);
      if (problem) problems.push(`seed ${seed}, cut ${cut}: ${problem}`);
    }
  }
  return { problems, withLosses };
}

describe("power cuts", () => {
  it("lose nothing that was acknowledged", { timeout: 300_000 + cuts * 200 }, async () => {
    // Stories of at most so many images: each is another order of writes, compactions and checkpoints.
    const seeds = Array.from({ length: Math.max(3, Math.ceil(cuts / 400)) }, (_, i) => firstSeed + i);
    const { problems, withLosses } = await cutMany(seeds, false);
    expect(problems).toEqual([]);
    // Cuts with nothing to lose prove nothing.
    expect(withLosses).toBeGreaterThan(cuts * 0.6);
    console.log(`${cuts} cuts from seed ${firstSeed}: 0 problems, ${withLosses} of them dropped unflushed writes`);
  });

  it("are noticed when the store acknowledges before the flush (positive control)", { timeout: 300_000 }, async () => {
    const { problems } = await cutMany([4], true, 240);
    expect(problems.some((p) => p.includes("lost acknowledged"))).toBe(true);
    console.log(`positive control: ${problems.length} problems in 240 cuts, as there must be; first: ${problems[0]}`);
  });
});

describe("a failing disk", () => {
  const error = (code: string) => Object.assign(new Error(`${code}: planted`), { code });
  const put = (store: Datastore, key: string) =>
    store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.from("x".repeat(2000)) }] });

  it("fails what waits for a flush, then recovers from disk and goes on", async () => {
    const files = new RecordedFiles();
    const store = await openOn(files);
    const first = await put(store, "/a");
    const seen: string[] = [];
    store.watch(prefixRange("/"), { onEvents: (events) => seen.push(...events.map((e) => e.kv.key)), onEnd: () => {} });
    let failures = 0;
    files.fail = (operation) => (operation === "flush" && failures++ === 0 ? error("EIO") : undefined);
    const results = await Promise.allSettled([put(store, "/b"), put(store, "/c")]);
    expect(results.map((r) => r.status === "rejected" && (r.reason as { code: string }).code)).toEqual([
      "DATASTORE_FLUSH_FAILED",
      "DATASTORE_FLUSH_FAILED",
    ]);
    expect(store.revision()).toBe(first.revision);
    let next = await put(store, "/d").catch(() => undefined);
    for (let i = 0; !next && i < 50; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      next = await put(store, "/d").catch(() => undefined);
    }
    // The failed revisions may have been on disk: they are not used again.
    expect(next!.revision).toBeGreaterThan(first.revision + 1);
    expect(seen).toEqual(["/d"]);
    store.verify();
    const after = await openOn(new RecordedFiles(files.cut(files.events.length, seededRandom(1)).image));
    expect((await after.range(prefixRange("/"))).kvs.map((kv) => kv.key)).toEqual(["/a", "/d"]);
    await after.close();
    await store.close();
  });

  it("answers FULL while there is no space, keeps reading, and writes again when there is", async () => {
    const files = new RecordedFiles();
    const store = await openOn(files);
    await put(store, "/a");
    files.fail = (operation) => (operation === "write" ? error("ENOSPC") : undefined);
    await expect(put(store, "/b")).rejects.toMatchObject({ code: "DATASTORE_FULL" });
    expect((await store.range(prefixRange("/"))).kvs.map((kv) => kv.key)).toEqual(["/a"]);
    files.fail = undefined;
    await put(store, "/c");
    expect((await store.range(prefixRange("/"))).kvs.map((kv) => kv.key)).toEqual(["/a", "/c"]);
    const after = await openOn(new RecordedFiles(files.cut(files.events.length, seededRandom(1)).image));
    expect((await after.range(prefixRange("/"))).kvs.map((kv) => kv.key)).toEqual(["/a", "/c"]);
    await after.close();
    await store.close();
  });

  it.each(["write", "sync", "flush"] as const)(
    "never lies when the n-th %s fails",
    async (kind) => {
      for (let n = 0; n < 25; n++) {
        const files = new RecordedFiles();
        const store = await openOn(files);
        let count = 0;
        files.fail = (operation) => (operation === kind && count++ === n ? error("EIO") : undefined);
        const acked: string[] = [];
        for (let i = 0; i < 30; i++) {
          const ok = await put(store, `/k/${i}`).then(
            () => true,
            () => false,
          );
          if (ok) acked.push(`/k/${i}`);
          else await new Promise((resolve) => setImmediate(resolve));
        }
        files.fail = undefined;
        store.verify();
        const { image } = files.cut(files.events.length, seededRandom(n));
        const after = await openOn(new RecordedFiles(image));
        const found = new Set((await after.range(prefixRange("/k/"))).kvs.map((kv) => kv.key));
        expect(acked.filter((key) => !found.has(key))).toEqual([]);
        expect(acked.length).toBeGreaterThan(20);
        await after.close();
        await store.close();
      }
    },
    60_000,
  );
});
