// Concurrent clients, watches, compactions and restarts, in order and by power cut, against the checker of the promises;
// and planted bugs that it must find. MOTE_CHECK_OPS sets the number of operations,
// MOTE_CRASH_SEED their seed.
import { describe, expect, it } from "vitest";
import { silentLogger } from "#base/log.ts";
import { type Backend, prefixRange, revision, type Watch, type WatchEvent } from "#datastore/backend.ts";
import { Engine } from "#datastore/engine/engine.ts";
import { openSqliteLog } from "#datastore/log/sqlite/sqlite-log.ts";
import { openStore } from "#datastore/store.ts";
import { readAsset } from "#platform/assets.ts";
import { nextTurn } from "#platform/turns.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import {
  HistoryChecker,
  type ReadRecord,
  type SimpleOp,
  type TransactionRecord,
  type WatchRecord,
} from "#test/harness/history-checker.ts";
import { RecordedFiles } from "#test/harness/recorded-files.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";

const operations = Number(process.env["MOTE_CHECK_OPS"] ?? 20_000);
const firstSeed = Number(process.env["MOTE_CRASH_SEED"] ?? 11);
const clients = 8;
const roundOps = 1500;
const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
const engineWasm = readAsset("engine.wasm");

type Plant = (backend: Backend, random: () => number) => Backend;

interface RunOptions {
  readonly seed: number;
  readonly operations: number;
  readonly plant?: Plant;
  readonly unsafeAcknowledgeEarly?: boolean;
}

async function runChecked({ seed, operations: wanted, plant, unsafeAcknowledgeEarly = false }: RunOptions) {
  const random = seededRandom(seed);
  const pick = (n: number) => Math.floor(random.float() * n);
  const key = () => `/${"abc"[pick(3)]}/${pick(6)}`;
  let files = new RecordedFiles();
  let opened = 0;
  const open = () => {
    const deps = { clock: new FakeClock(0), log: silentLogger };
    // Every other time no value is in memory: all are read from the log.
    const warmValueBytes = opened++ % 2 === 0 ? undefined : 0;
    const newEngine = () =>
      new Engine({ wasm: engineWasm, maximumBytes: 64 * 1024 * 1024, hashSeed: seed, warmValueBytes });
    const log = openSqliteLog({ path: "/state.db", files, module, maxFrames: 60, unsafeAcknowledgeEarly }, deps);
    return openStore(newEngine, log, deps);
  };
  let store = await open();
  const checker = new HistoryChecker(store.revision());
  let done = 0;
  let serial = 0;
  let kept = store.revision() as number;
  const restarts = { orderly: 0, power: 0 };
  while (done < wanted && checker.problems.length === 0) {
    const backend = plant ? plant(store, () => random.float()) : store;
    const records: (TransactionRecord | ReadRecord)[] = [];
    const watches: (WatchRecord & { watch: Watch })[] = [];
    const audit: WatchEvent[] = [];
    const roundStart = kept + 1;
    let known = store.revision() as number;
    let ended = false;
    backend.watch(
      { ...prefixRange("/"), startRevision: revision(roundStart) },
      { onEvents: (events) => audit.push(...events), onEnd: () => {} },
    );
    const startWatch = () => {
      const prefix = ["/a/", "/b/", "/client/", "/"][pick(4)]!;
      const from = Math.max(roundStart, store.compactedRevision() + 1, store.revision() - pick(200));
      const batches: { events: readonly WatchEvent[]; through: number }[] = [];
      const watch = backend.watch(
        { ...prefixRange(prefix), startRevision: revision(from) },
        { onEvents: (events, through) => batches.push({ events, through }), onEnd: () => {} },
      );
      watches.push({
        prefix,
        from,
        batches,
        watch,
        get progress() {
          return watch.progress;
        },
      });
    };
    for (let i = 0; i < 4; i++) startWatch();
    const client = async (name: number) => {
      const seen = new Map<string, number>();
      while (!ended && done < wanted && records.length < roundOps) {
        done++;
        const knownBefore = known;
        if (pick(3) === 0) {
          const asked =
            pick(4) === 0 ? Math.max(roundStart, store.compactedRevision(), store.revision() - pick(60)) : 0;
          const prefix = ["/a/", "/b/", "/"][pick(3)]!;
          try {
            const result = await backend.range({
              ...prefixRange(prefix),
              revision: revision(Math.min(asked, store.revision())),
            });
            known = Math.max(known, result.revision);
            for (const kv of result.kvs) seen.set(kv.key, kv.version);
            const at = Math.min(asked, result.revision);
            if (asked <= result.revision) records.push({ type: "read", prefix, asked: at, knownBefore, result });
          } catch {
            // Compacted or closed meanwhile: nothing was promised.
          }
          continue;
        }
        const id = `c${name}-${serial++}`;
        const ops: SimpleOp[] = [{ type: "put", key: `/client/${name}`, value: Buffer.from(id) }];
        const used = new Set<string>();
        for (let n = 1 + pick(3); n > 0; n--) {
          const k = key();
          if (used.has(k)) continue;
          used.add(k);
          ops.push(
            pick(4) === 0
              ? { type: "delete", key: k }
              : { type: "put", key: k, value: Buffer.from(`${id}-${"x".repeat(pick(200))}`) },
          );
        }
        const compared = key();
        const compare = pick(2) === 0 ? { key: compared, version: seen.get(compared) ?? 0 } : undefined;
        const compares = compare
          ? [{ key: compare.key, target: "version" as const, op: "=" as const, value: compare.version }]
          : [];
        let result: TransactionRecord["result"];
        try {
          result = await backend.commit({ compares, success: ops });
          known = Math.max(known, result.revision);
        } catch {
          // Cut off: its outcome is not known.
        }
        records.push({ type: "txn", id, compare, ops, knownBefore, result });
      }
    };
    const disturb = async () => {
      while (!ended) {
        for (let i = pick(40); i > 0 && !ended; i--) await nextTurn();
        if (ended) return;
        if (pick(3) === 0 && watches.length < 40) startWatch();
        const target = store.revision() - 30 - pick(100);
        if (pick(4) === 0 && target > Math.max(store.compactedRevision(), roundStart)) {
          await backend.compact(revision(target)).catch(() => {});
        }
      }
    };
    const disturbing = disturb();
    const working = Promise.all(Array.from({ length: clients }, (_, i) => client(i)));
    const power = pick(2) === 0;
    if (power) {
      // Somewhere in the middle of it all.
      for (let i = 200 + pick(400); i > 0 && records.length < roundOps; i--) await nextTurn();
      ended = true;
      const image = files.cut(files.events.length, random).image;
      const cutAt = records.length;
      const { length: auditLength } = audit;
      const told = watches.map(({ prefix, from, batches, watch }) => ({
        prefix,
        from,
        batches: [...batches],
        progress: watch.progress as number,
      }));
      await disturbing;
      await working;
      await store.close();
      // What came after the cut never happened to anybody.
      const after = records
        .splice(cutAt)
        .map((record) => (record.type === "txn" ? { ...record, result: undefined } : undefined));
      for (const record of after) if (record) records.push(record);
      audit.length = auditLength;
      files = new RecordedFiles(image);
      store = await open();
      const last = Math.max(roundStart - 1, ...audit.map((e) => e.kv.modRevision));
      const missing: WatchEvent[] = [];
      store.watch(
        { ...prefixRange("/"), startRevision: revision(last + 1) },
        { onEvents: (events) => missing.push(...events), onEnd: () => {} },
      );
      for (let i = 0; i < 20; i++) await nextTurn();
      checker.check([...audit, ...missing], records, told, store.revision());
      restarts.power++;
    } else {
      await working;
      ended = true;
      await disturbing;
      for (let i = 0; i < 20; i++) await nextTurn();
      checker.check(
        audit,
        records,
        watches.map(({ prefix, from, batches, watch }) => ({ prefix, from, batches, progress: watch.progress })),
        store.revision(),
      );
      store.verify();
      await store.close();
      files = new RecordedFiles(files.cut(files.events.length, random).image);
      store = await open();
      restarts.orderly++;
    }
    store.verify();
    kept = store.revision();
  }
  await store.close();
  return { problems: checker.problems, done, restarts };
}

describe("the promises of a backend", () => {
  it(`hold over ${operations} operations with restarts and compactions`, {
    timeout: 120_000 + operations * 5,
  }, async () => {
    const { problems, done, restarts } = await runChecked({ seed: firstSeed, operations });
    expect(problems).toEqual([]);
    expect(done).toBeGreaterThanOrEqual(operations);
    expect(Math.min(restarts.orderly, restarts.power)).toBeGreaterThan(2);
    console.log(
      `${done} operations of seed ${firstSeed}: 0 problems, ${restarts.orderly} orderly restarts, ${restarts.power} power cuts`,
    );
  });

  const forwarding = (backend: Backend, changed: Partial<Backend>): Backend => ({
    ...{ commit: (txn) => backend.commit(txn), range: (o) => backend.range(o), watch: (o, s) => backend.watch(o, s) },
    ...{ compact: (r) => backend.compact(r), revision: () => backend.revision() },
    ...{ compactedRevision: () => backend.compactedRevision(), close: () => backend.close() },
    ...{ grantLease: (t, i) => backend.grantLease(t, i), keepAlive: (i) => backend.keepAlive(i) },
    ...{
      revokeLease: (i) => backend.revokeLease(i),
      leases: () => backend.leases(),
      lease: (i, k) => backend.lease(i, k),
    },
    ...changed,
  });
  const rarely = 0.01;
  const plants: readonly [string, Plant, RegExp][] = [
    [
      "a stale read",
      (backend, random) =>
        forwarding(backend, {
          async range(options) {
            const result = await backend.range(options);
            const before = revision(result.revision - 1);
            if (options.revision || random() > 0.2 || before <= backend.compactedRevision()) return result;
            return { ...(await backend.range({ ...options, revision: before })), revision: before };
          },
        }),
      /known before|a read/,
    ],
    [
      "a read of two revisions",
      (backend, random) =>
        forwarding(backend, {
          async range(options) {
            const result = await backend.range(options);
            return random() < rarely ? { ...result, kvs: result.kvs.slice(1) } : result;
          },
        }),
      /a read/,
    ],
    [
      "a watch that loses an event",
      (backend, random) =>
        forwarding(backend, {
          watch: (options, sink) =>
            backend.watch(options, {
              ...{ onEnd: (error) => sink.onEnd(error) },
              onEvents: (events, through) => {
                if (options.key !== "/" && random() < rarely) return;
                sink.onEvents(events, through);
              },
            }),
        }),
      /a watch of/,
    ],
    [
      "a watch that says a revision twice",
      (backend, random) =>
        forwarding(backend, {
          watch: (options, sink) =>
            backend.watch(options, {
              ...{ onEnd: (error) => sink.onEnd(error) },
              onEvents: (events, through) => {
                sink.onEvents(events, through);
                if (options.key !== "/" && random() < rarely) sink.onEvents(events, through);
              },
            }),
        }),
      /a watch got/,
    ],
    [
      "a compare that is not looked at",
      (backend, random) =>
        forwarding(backend, {
          commit: (txn) => backend.commit(random() < 0.05 ? { ...txn, compares: [] } : txn),
        }),
      /compare did not hold/,
    ],
  ];
  it.each(plants)("%s is found", { timeout: 120_000 }, async (_name, plant, expected) => {
    const { problems } = await runChecked({ seed: 5, operations: 20_000, plant });
    expect(problems.join("\n")).toMatch(expected);
    console.log(`positive control: ${problems[0]}`);
  });

  it("a write that is acknowledged before its flush is found", async () => {
    const { problems } = await runChecked({ seed: 6, operations: 40_000, unsafeAcknowledgeEarly: true });
    expect(problems.join("\n")).toMatch(/is nowhere|known before|went back/);
    console.log(`positive control: ${problems[0]}`);
  });
});
