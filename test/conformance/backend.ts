// What every Backend must do, whatever is below it. Handed a factory; each test gets a store of its own.
// Upstream counterpart: etcd's tests/robustness and storage/mvcc tests, as far as backend.ts promises the same.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hasCode } from "#base/errors.ts";
import {
  type Backend,
  type KeyRange,
  type Op,
  prefixRange,
  type Revision,
  revision,
  type WatchEvent,
  type WatchOptions,
} from "#datastore/backend.ts";
import { againstModel, bytes, text } from "#test/harness/backend-model.ts";
import { FakeClock, settle as settleTurns } from "#test/harness/fake-clock.ts";

export interface BackendFixture {
  readonly backend: Backend;
  /** Closes and opens again from what is on disk; absent where nothing is. */
  readonly reopen?: () => Promise<Backend>;
  readonly cleanUp: () => Promise<void>;
  /** The store has a clock of its own that nobody can move. */
  readonly realTime?: boolean;
  /** Until what is under way has arrived; default a few turns of the event loop. */
  readonly settle?: () => Promise<void>;
}

export function describeBackend(name: string, open: (clock: FakeClock) => Promise<BackendFixture>): void {
  describe(`${name} is a Backend`, () => {
    let clock: FakeClock;
    let fixture: BackendFixture;
    let backend: Backend;

    beforeEach(async () => {
      // A board without a battery.
      clock = new FakeClock(0);
      fixture = await open(clock);
      backend = fixture.backend;
    });
    afterEach(async () => {
      await backend.close();
      await fixture.cleanUp();
    });

    const put = async (key: string, value: string, more: Partial<Extract<Op, { type: "put" }>> = {}) => {
      const result = await backend.commit({
        compares: [],
        success: [{ type: "put", key, value: bytes(value), ...more }],
      });
      return result.revision;
    };
    const settle = () => (fixture.settle ?? settleTurns)();
    const remove = (key: string, end?: string) =>
      backend.commit({ compares: [], success: [{ type: "delete", key, end, prevKv: true }] });
    const read = async (range: KeyRange, at?: Revision) => {
      const { kvs } = await backend.range({ ...range, revision: at });
      return kvs.map((kv) => `${kv.key}=${text(kv.value)}`);
    };

    describe("commit", () => {
      it("raises the revision by one for all writes of a transaction and not for reads", async () => {
        const start = backend.revision();
        const result = await backend.commit({
          compares: [],
          success: [
            { type: "put", key: "/a", value: bytes("1") },
            { type: "put", key: "/b", value: bytes("2") },
          ],
        });
        expect(result.revision).toBe(start + 1);
        expect(backend.revision()).toBe(start + 1);
        const { kvs } = await backend.range(prefixRange("/"));
        expect(kvs.map((kv) => kv.modRevision)).toEqual([start + 1, start + 1]);
        const reading = await backend.commit({ compares: [], success: [{ type: "range", range: { key: "/a" } }] });
        expect(reading.revision).toBe(start + 1);
        const nothing = await backend.commit({ compares: [], success: [{ type: "delete", key: "/none" }] });
        expect(nothing.revision).toBe(start + 1);
        expect(nothing.results).toEqual([{ type: "delete", deleted: 0, prevKvs: [] }]);
      });

      it("counts versions and remembers creation until the key is deleted", async () => {
        const first = await put("/a", "1");
        const second = await put("/a", "2");
        const [kv] = (await backend.range({ key: "/a" })).kvs;
        expect(kv).toMatchObject({ createRevision: first, modRevision: second, version: 2, lease: 0 });
        await remove("/a");
        const third = await put("/a", "3");
        const [again] = (await backend.range({ key: "/a" })).kvs;
        expect(again).toMatchObject({ createRevision: third, modRevision: third, version: 1 });
      });

      const compares: readonly [string, Parameters<Backend["commit"]>[0]["compares"][number], boolean][] = [
        ["mod equal", { key: "/a", target: "mod", op: "=", value: 3 }, true],
        ["mod not equal", { key: "/a", target: "mod", op: "!=", value: 3 }, false],
        ["mod less", { key: "/a", target: "mod", op: "<", value: 4 }, true],
        ["mod greater", { key: "/a", target: "mod", op: ">", value: 3 }, false],
        ["create", { key: "/a", target: "create", op: "=", value: 2 }, true],
        ["version", { key: "/a", target: "version", op: "=", value: 2 }, true],
        ["lease", { key: "/a", target: "lease", op: "=", value: 0 }, true],
        ["absent key is 0", { key: "/none", target: "mod", op: "=", value: 0 }, true],
        ["absent key is not 1", { key: "/none", target: "version", op: "=", value: 1 }, false],
        ["value", { key: "/a", target: "value", op: "=", value: bytes("2") }, true],
        ["value less", { key: "/a", target: "value", op: "<", value: bytes("2") }, false],
        ["value of an absent key", { key: "/none", target: "value", op: "!=", value: bytes("2") }, false],
        ["all keys of a range", { key: "/", end: "0", target: "version", op: ">", value: 1 }, true],
        ["not all of a range", { key: "/", end: "0", target: "value", op: "!=", value: bytes("2") }, false],
        ["an empty range is 0", { key: "/x", end: "/y", target: "create", op: "=", value: 0 }, true],
      ];
      it.each(compares)("compares %s", async (_name, compare, holds) => {
        const base = backend.revision();
        await put("/a", "1");
        await put("/a", "2");
        // The table is written for a store that starts at revision 1.
        const shifted =
          (compare.target === "mod" || compare.target === "create") && compare.value > 0
            ? { ...compare, value: compare.value + base - 1 }
            : compare;
        const result = await backend.commit({
          compares: [shifted],
          success: [],
          failure: [{ type: "range", range: { key: "/a" } }],
        });
        expect(result.succeeded).toBe(holds);
        expect(result.results.length).toBe(holds ? 0 : 1);
      });

      it("judges nested transactions before it applies anything", async () => {
        await put("/a", "1");
        const nested = (key: string, version: number): Op => ({
          type: "txn",
          txn: {
            compares: [{ key: "/a", target: "version", op: "=", value: version }],
            success: [{ type: "put", key, value: bytes("then") }],
            failure: [{ type: "put", key, value: bytes("else") }],
          },
        });
        const result = await backend.commit({
          compares: [],
          success: [{ type: "put", key: "/a", value: bytes("2") }, nested("/b", 1), nested("/c", 2)],
        });
        expect(result.results.map((r) => r.type === "txn" && r.succeeded)).toEqual([false, true, false]);
        expect(await read({ key: "/", end: "0" })).toEqual(["/a=2", "/b=then", "/c=else"]);
        const twice = backend.commit({ compares: [], success: [nested("/d", 1), nested("/d", 2)] });
        await expect(twice).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_BAD_REQUEST"));
      });

      it("keeps the value or the lease of a key where asked to", async () => {
        const lease = await backend.grantLease(600);
        await put("/a", "1", { lease: lease.id });
        const op = { type: "put", key: "/a", value: bytes("") } as const;
        await backend.commit({ compares: [], success: [{ ...op, value: bytes("2"), keepLease: true }] });
        let [kv] = (await backend.range({ key: "/a" })).kvs;
        expect([text(kv!.value), kv!.lease]).toEqual(["2", lease.id]);
        await backend.commit({ compares: [], success: [{ ...op, keepValue: true }] });
        [kv] = (await backend.range({ key: "/a" })).kvs;
        expect([text(kv!.value), kv!.lease, kv!.version]).toEqual(["2", 0, 3]);
        const none = backend.commit({ compares: [], success: [{ ...op, key: "/none", keepValue: true }] });
        await expect(none).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_KEY_NOT_FOUND"));
      });

      it("answers with previous values and reads its own writes", async () => {
        await put("/a", "1");
        const result = await backend.commit({
          compares: [],
          success: [
            { type: "put", key: "/a", value: bytes("2"), prevKv: true },
            { type: "range", range: { key: "/a" } },
            { type: "delete", key: "/b/", end: "/b0", prevKv: true },
          ],
        });
        const [first, second] = result.results;
        expect(first?.type === "put" && text(first.prevKv!.value)).toBe("1");
        expect(second?.type === "range" && text(second.result.kvs[0]!.value)).toBe("2");
      });

      it("deletes ranges and answers what was there", async () => {
        await put("/b/1", "x");
        await put("/b/2", "y");
        await put("/c", "z");
        const { end } = prefixRange("/b/");
        const { results } = await remove("/b/", end);
        const [result] = results;
        expect(result?.type === "delete" && result.prevKvs.map((kv) => text(kv.value))).toEqual(["x", "y"]);
        expect(await read(prefixRange("/"))).toEqual(["/c=z"]);
      });

      it("sees every transaction before it, also those on their way to the disk", async () => {
        const attempts = Array.from({ length: 20 }, (_, i) =>
          backend.commit({
            compares: [{ key: "/once", target: "mod", op: "=", value: 0 }],
            success: [{ type: "put", key: "/once", value: bytes(String(i)) }],
          }),
        );
        const results = await Promise.all(attempts);
        const won = results.flatMap((r, i) => (r.succeeded ? [i] : []));
        // On their way to another machine they may overtake each other.
        expect(won).toEqual(fixture.realTime ? [won[0]] : [0]);
        expect(await read({ key: "/once" })).toEqual([`/once=${won[0]}`]);
      });

      const bad: readonly [string, readonly Op[], string][] = [
        ["an empty key", [{ type: "put", key: "", value: bytes("") }], "DATASTORE_BAD_REQUEST"],
        ["a key that is too long", [{ type: "put", key: "k".repeat(4097), value: bytes("") }], "DATASTORE_BAD_REQUEST"],
        ["a key that is not bytes", [{ type: "put", key: "/ü€", value: bytes("") }], "DATASTORE_BAD_REQUEST"],
        [
          "a large value",
          [{ type: "put", key: "/a", value: new Uint8Array(3 * 1024 * 1024 + 1) }],
          "DATASTORE_TOO_LARGE",
        ],
        [
          "129 operations",
          Array.from({ length: 129 }, (_, i): Op => ({ type: "delete", key: `/${i}` })),
          "DATASTORE_TOO_LARGE",
        ],
        [
          "a key put twice",
          ["1", "2"].map((n): Op => ({ type: "put", key: "/a", value: bytes(n) })),
          "DATASTORE_BAD_REQUEST",
        ],
        [
          "a key put and deleted",
          [
            { type: "put", key: "/a/b", value: bytes("") },
            { type: "delete", key: "/a/", end: "/a0" },
          ],
          "DATASTORE_BAD_REQUEST",
        ],
        ["an unknown lease", [{ type: "put", key: "/a", value: bytes(""), lease: 77 }], "DATASTORE_LEASE_NOT_FOUND"],
        [
          "a future revision",
          [{ type: "range", range: { key: "/a", revision: revision(1e6) } }],
          "DATASTORE_FUTURE_REVISION",
        ],
      ];
      it.each(bad)("refuses %s and changes nothing", async (_name, ops, code) => {
        const before = backend.revision();
        const all: Op[] = [{ type: "put", key: "/first", value: bytes("1") }, ...ops];
        await expect(backend.commit({ compares: [], success: all })).rejects.toSatisfy((e) => hasCode(e, code));
        expect(backend.revision()).toBe(before);
        expect(await read(prefixRange("/"))).toEqual([]);
      });

      it("holds the longest key and the largest value", async () => {
        const key = `/${"k".repeat(4095)}`;
        const value = new Uint8Array(3 * 1024 * 1024).fill(7);
        await backend.commit({ compares: [], success: [{ type: "put", key, value }] });
        const { kvs } = await backend.range({ key, keysOnly: true });
        expect(kvs[0]?.key).toBe(key);
        // Not toEqual, which looks at three million elements one by one.
        expect(Buffer.compare((await backend.range({ key })).kvs[0]!.value, value)).toBe(0);
      });

      it("keeps keys that JavaScript finds special", async () => {
        for (const key of ["__proto__", "constructor", "/__proto__/a", "\0", "/\xff"]) await put(key, key);
        for (const key of ["__proto__", "constructor", "/__proto__/a", "\0", "/\xff"]) {
          expect((await backend.range({ key })).kvs[0]?.key).toBe(key);
        }
      });
    });

    describe("range", () => {
      it("pages in byte order with limit, count and more", async () => {
        for (const name of ["b", "a", "d", "c", "B", "a-", "a/"]) await put(`/r/${name}`, name);
        const all = await backend.range(prefixRange("/r/"));
        expect(all.kvs.map((kv) => text(kv.value))).toEqual(["B", "a", "a-", "a/", "b", "c", "d"]);
        expect(all).toMatchObject({ count: 7, more: false });
        const page = await backend.range({ ...prefixRange("/r/"), limit: 3 });
        expect(page).toMatchObject({ count: 7, more: true });
        expect(page.kvs.length).toBe(3);
        const last = await backend.range({ ...prefixRange("/r/"), limit: 7 });
        expect(last).toMatchObject({ count: 7, more: false });
        expect(await backend.range({ ...prefixRange("/r/"), countOnly: true })).toMatchObject({ count: 7, kvs: [] });
        const keys = await backend.range({ ...prefixRange("/r/"), keysOnly: true, limit: 2 });
        expect(keys.kvs.map((kv) => [kv.key, kv.value.length])).toEqual([
          ["/r/B", 0],
          ["/r/a", 0],
        ]);
        const from = await backend.range({ key: "/r/c", end: "\0" });
        expect(from.kvs.map((kv) => kv.key)).toEqual(["/r/c", "/r/d"]);
        expect((await backend.range({ key: "/r/c", end: "/r/a" })).kvs).toEqual([]);
      });

      it("reads thousands of keys in one answer", async () => {
        for (let i = 0; i < 50; i++) {
          const success = Array.from({ length: 100 }, (_, j): Op => {
            return { type: "put", key: `/n/${String(i * 100 + j).padStart(5, "0")}`, value: bytes(`v${i * 100 + j}`) };
          });
          await backend.commit({ compares: [], success });
        }
        const { kvs, count } = await backend.range(prefixRange("/n/"));
        expect(count).toBe(5000);
        expect(kvs.map((kv) => text(kv.value))).toEqual(Array.from({ length: 5000 }, (_, i) => `v${i}`));
        const part = await backend.range({ ...prefixRange("/n/"), limit: 1500 });
        expect([part.kvs.length, part.count, part.more]).toEqual([1500, 5000, true]);
      });

      it("reads the past, and says what it no longer or not yet has", async () => {
        const r1 = await put("/h/a", "1");
        const r2 = await put("/h/a", "2");
        await put("/h/b", "1");
        const r4 = (await remove("/h/a")).revision;
        expect(await read(prefixRange("/h/"), r1)).toEqual(["/h/a=1"]);
        expect(await read(prefixRange("/h/"), r2)).toEqual(["/h/a=2"]);
        expect(await read(prefixRange("/h/"), r4)).toEqual(["/h/b=1"]);
        await expect(read({ key: "/h/a" }, revision(r4 + 1))).rejects.toSatisfy((e) =>
          hasCode(e, "DATASTORE_FUTURE_REVISION"),
        );
        await backend.compact(r2);
        expect(backend.compactedRevision()).toBe(r2);
        expect(await read(prefixRange("/h/"), r2)).toEqual(["/h/a=2"]);
        await expect(read({ key: "/h/a" }, r1)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_COMPACTED"));
        await expect(backend.compact(r2)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_COMPACTED"));
        await expect(backend.compact(revision(r4 + 9))).rejects.toSatisfy((e) =>
          hasCode(e, "DATASTORE_FUTURE_REVISION"),
        );
      });

      it("gives values that later writes do not change", async () => {
        await put("/v", "old");
        const { kvs } = await backend.range({ key: "/v" });
        for (let i = 0; i < 50; i++) await put("/v", "x".repeat(i));
        await backend.compact(backend.revision());
        expect(text(kvs[0]!.value)).toBe("old");
      });
    });

    describe("watch", () => {
      it("delivers creations, changes and deletions of its range with what was before", async () => {
        const seen = watchInto(backend, prefixRange("/w/"));
        await put("/w/a", "1");
        await put("/x", "-");
        await put("/w/a", "2");
        await remove("/w/a");
        await settle();
        expect(seen.lines()).toEqual(["put /w/a=1", "put /w/a=2 was 1", "delete /w/a was 2"]);
        expect(seen.events.map((e) => e.kv.modRevision)).toEqual(
          [...seen.events.map((e) => e.kv.modRevision)].sort((a, b) => a - b),
        );
        expect(seen.watch.progress).toBe(backend.revision());
        seen.watch.cancel();
        await put("/w/a", "3");
        await settle();
        expect(seen.events.length).toBe(3);
      });

      it("replays history from its start revision and goes on without gap or repetition", async () => {
        const first = await put("/w/0", "0");
        for (let i = 1; i < 30; i++) await put(`/w/${i}`, String(i));
        await remove("/w/3");
        const seen = watchInto(backend, { ...prefixRange("/w/"), startRevision: first });
        const writes = Array.from({ length: 30 }, (_, i) => put(`/w/${i + 30}`, String(i + 30)));
        await Promise.all(writes);
        await settle();
        expect(seen.events.map((e) => e.kv.modRevision)).toEqual(Array.from({ length: 61 }, (_, i) => first + i));
        expect(seen.lines()[30]).toBe("delete /w/3 was 3");
      });

      it("starts in the future when asked to", async () => {
        const now = backend.revision();
        const seen = watchInto(backend, { ...prefixRange("/w/"), startRevision: revision(now + 3) });
        for (const n of ["1", "2", "3", "4"]) await put("/w/a", n);
        await settle();
        expect(seen.lines()).toEqual(["put /w/a=3 was 2", "put /w/a=4 was 3"]);
      });

      it("ends with COMPACTED when its start is gone", async () => {
        const first = await put("/w/a", "1");
        await put("/w/a", "2");
        await backend.compact(first);
        const seen = watchInto(backend, { ...prefixRange("/w/"), startRevision: first });
        expect(seen.ended).toBe(undefined);
        await settle();
        expect(hasCode(seen.ended, "DATASTORE_COMPACTED")).toBe(true);
      });

      it("gives all watchers the same event object, in one batch for each revision", async () => {
        const a = watchInto(backend, prefixRange("/w/"));
        const b = watchInto(backend, { key: "/w/x" });
        const c = watchInto(backend, { key: "/w/a", end: "/w/z" });
        await backend.commit({
          compares: [],
          success: ["/w/x", "/w/y"].map((key): Op => ({ type: "put", key, value: bytes("1") })),
        });
        await settle();
        expect(a.batches.map((n) => n.length)).toEqual([2]);
        expect(b.events[0]).toBe(a.events[0]);
        expect(c.events).toEqual(a.events);
        expect(c.events[1]).toBe(a.events[1]);
      });

      it("tells the watchers of a range only what is in it", async () => {
        const ranges: readonly [KeyRange, readonly string[]][] = [
          [{ key: "/p/a" }, ["/p/a"]],
          [prefixRange("/p/a/"), ["/p/a/x", "/p/a/y/z"]],
          [prefixRange("/p/a"), ["/p/a", "/p/a/x", "/p/a/y/z", "/p/ab"]],
          [{ key: "/p/b", end: "\0" }, ["/p/b", "/q"]],
          [{ key: "\0", end: "\0" }, ["/p/a", "/p/a/x", "/p/a/y/z", "/p/ab", "/p/b", "/q"]],
        ];
        const watchers = ranges.map(([range]) => watchInto(backend, range));
        for (const key of ["/p/a", "/p/a/x", "/p/a/y/z", "/p/ab", "/p/b", "/q"]) await put(key, "1");
        await settle();
        for (const [i, [, expected]] of ranges.entries())
          expect(watchers[i]!.events.map((e) => e.kv.key)).toEqual(expected);
      });

      it("survives a sink that throws and one that cancels in the middle", async () => {
        const good = watchInto(backend, prefixRange("/w/"));
        backend.watch(prefixRange("/w/"), {
          onEvents: () => {
            throw new Error("planted");
          },
          onEnd: () => {},
        });
        const self = backend.watch(prefixRange("/w/"), { onEvents: () => self.cancel(), onEnd: () => {} });
        await put("/w/a", "1");
        await put("/w/a", "2");
        await settle();
        expect(good.lines()).toEqual(["put /w/a=1", "put /w/a=2 was 1"]);
      });

      it("ends with CLOSED", async () => {
        const seen = watchInto(backend, prefixRange("/w/"));
        await backend.close();
        expect(hasCode(seen.ended, "DATASTORE_CLOSED")).toBe(true);
        await expect(put("/a", "1")).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_CLOSED"));
        await expect(backend.range({ key: "/a" })).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_CLOSED"));
        await backend.close();
      });
    });

    describe("leases", () => {
      it("takes its keys with it when it ends, whatever the wall clock does", async () => {
        if (fixture.realTime) return;
        const lease = await backend.grantLease(60);
        await put("/l/a", "1", { lease: lease.id });
        await put("/l/b", "1", { lease: lease.id, class: "event" });
        await put("/l/c", "1", { lease: lease.id });
        await put("/l/c", "2");
        const seen = watchInto(backend, prefixRange("/l/"));
        clock.jump(50 * 365 * 86_400_000);
        await clock.advance(59_000);
        expect(await read(prefixRange("/l/"))).toEqual(["/l/a=1", "/l/b=1", "/l/c=2"]);
        expect((await backend.keepAlive(lease.id)).remainingSeconds).toBe(60);
        await clock.advance(59_000);
        expect(await read(prefixRange("/l/"))).toEqual(["/l/a=1", "/l/b=1", "/l/c=2"]);
        await clock.advance(2000);
        await drained(backend);
        expect(await read(prefixRange("/l/"))).toEqual(["/l/c=2"]);
        expect(seen.lines()).toEqual(["delete /l/a was 1", "delete /l/b was 1"]);
        await expect(backend.keepAlive(lease.id)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_LEASE_NOT_FOUND"));
      });

      it("is revoked by request", async () => {
        const lease = await backend.grantLease(60, 4711);
        expect(lease).toEqual({ id: 4711, ttlSeconds: 60, remainingSeconds: 60 });
        await expect(backend.grantLease(60, 4711)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_BAD_REQUEST"));
        await put("/l/a", "1", { lease: 4711 });
        expect((await backend.leases()).map(({ id }) => id)).toEqual([4711]);
        expect(await backend.lease(4711, true)).toMatchObject({ ttlSeconds: 60, keys: ["/l/a"] });
        await backend.revokeLease(4711);
        expect(await backend.leases()).toEqual([]);
        expect(await read(prefixRange("/l/"))).toEqual([]);
        await expect(backend.revokeLease(4711)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_LEASE_NOT_FOUND"));
        expect(clock.pending).toBe(0);
      });
    });

    it("agrees with a plain model over random transactions, reads of the past and compactions", async () => {
      await againstModel(backend, 20261121, 1500);
    });

    it("keeps everything over a restart", async () => {
      if (!fixture.reopen) return;
      const lease = await backend.grantLease(600);
      const first = await put("/k/a", "1");
      await put("/k/a", "2", { lease: lease.id });
      await put("/k/b", "1");
      await remove("/k/b");
      await put("/k/event", "1", { class: "event" });
      const last = await put("/k/heartbeat", "1", { class: "heartbeat" });
      const before = (await backend.range(prefixRange("/k/"))).kvs;
      backend = await fixture.reopen();
      expect((await backend.range(prefixRange("/k/"))).kvs).toEqual(before);
      expect(await read(prefixRange("/k/"), first)).toEqual(["/k/a=1"]);
      expect(backend.revision()).toBeGreaterThanOrEqual(last);
      expect((await backend.keepAlive(lease.id)).ttlSeconds).toBe(600);
      expect(await put("/k/c", "1")).toBeGreaterThan(last);
      const seen = watchInto(backend, { ...prefixRange("/k/"), startRevision: first });
      await settle();
      expect(seen.lines().slice(0, 4)).toEqual(["put /k/a=1", "put /k/a=2 was 1", "put /k/b=1", "delete /k/b was 1"]);
      await backend.compact(backend.revision());
      const compacted = backend.compactedRevision();
      backend = await fixture.reopen();
      expect(backend.compactedRevision()).toBe(compacted);
      expect(await read({ key: "/k/a" })).toEqual(["/k/a=2"]);
      await expect(read({ key: "/k/a" }, first)).rejects.toSatisfy((e) => hasCode(e, "DATASTORE_COMPACTED"));
    });
  });
}

export interface Seen {
  readonly watch: { readonly progress: Revision; cancel(): void };
  readonly events: readonly WatchEvent[];
  readonly batches: readonly (readonly WatchEvent[])[];
  readonly ended: Error | undefined;
  lines(): string[];
}

export function watchInto(backend: Backend, options: WatchOptions): Seen {
  const events: WatchEvent[] = [];
  const batches: (readonly WatchEvent[])[] = [];
  let ended: Error | undefined;
  let within = true;
  const watch = backend.watch(options, {
    onEvents(batch, through) {
      expect(within).toBe(false);
      expect(through).toBeGreaterThanOrEqual(batch[batch.length - 1]!.kv.modRevision);
      batches.push(batch);
      events.push(...batch);
    },
    onEnd(error) {
      expect(within).toBe(false);
      ended = error;
    },
  });
  within = false;
  return {
    watch,
    events,
    batches,
    get ended() {
      return ended;
    },
    lines: () =>
      events.map((e) => {
        const was = e.prevKv ? ` was ${text(e.prevKv.value)}` : "";
        return e.type === "put" ? `put ${e.kv.key}=${text(e.kv.value)}${was}` : `delete ${e.kv.key}${was}`;
      }),
  };
}

/** Waits for what the store does by itself: its own transactions stand in the queue before this one. */
async function drained(backend: Backend): Promise<void> {
  await backend.commit({ compares: [], success: [{ type: "range", range: { key: "/drained" } }] });
  await settleTurns();
}
