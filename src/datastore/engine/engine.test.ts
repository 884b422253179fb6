import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { Engine } from "./engine.ts";
import { engineExportNames, tombstoneFlag } from "./module.ts";

const builds = [
  ["release", "build/dist/engine.wasm"],
  ["debug", "build/wasm/engine.debug.wasm"],
] as const;

const open = (path: string, maximumBytes = 64 * 1024 * 1024) =>
  new Engine({ wasm: new Uint8Array(readFileSync(path)), maximumBytes, hashSeed: 7 });

/** What the engine should be: a map of lists, sorted when asked. */
class Model {
  readonly keys = new Map<string, { mod: number; value: string | undefined; logged: boolean }[]>();
  at(key: string, revision: number): string | undefined {
    return this.keys.get(key)?.findLast((r) => r.mod <= revision)?.value;
  }
  range(low: string, high: string, revision: number): [string, string][] {
    const found: [string, string][] = [];
    for (const key of [...this.keys.keys()].sort()) {
      const value = this.at(key, revision);
      if (key >= low && (high === "\0" || key < high) && value !== undefined) found.push([key, value]);
    }
    return found;
  }
  push(key: string, mod: number, value: string | undefined, logged: boolean): void {
    const list = this.keys.get(key) ?? [];
    list.push({ mod, value, logged });
    this.keys.set(key, list);
  }
  rollback(to: number): void {
    for (const [key, list] of this.keys)
      this.#replace(
        key,
        list.filter((r) => r.mod <= to),
      );
  }
  /** Returns the revisions of dropped logged records. */
  compact(at: number): number[] {
    const dropped: number[] = [];
    for (const [key, list] of this.keys) {
      const old = list.filter((r) => r.mod <= at);
      const newest = old.at(-1);
      const newestLogged = old.findLast((r) => r.logged);
      const kept = old.filter((r) => r.value !== undefined && (r === newest || r === newestLogged));
      dropped.push(...old.filter((r) => !kept.includes(r) && r.logged).map((r) => r.mod));
      this.#replace(key, [...kept, ...list.filter((r) => r.mod > at)]);
    }
    return dropped.sort((a, b) => a - b);
  }
  #replace(key: string, list: { mod: number; value: string | undefined; logged: boolean }[]): void {
    if (list.length === 0) this.keys.delete(key);
    else this.keys.set(key, list);
  }
}

describe.each(builds)("engine, %s build", (_name, path) => {
  it("exports exactly what the host knows", () => {
    const module = new WebAssembly.Module(new Uint8Array(readFileSync(path)));
    const names = WebAssembly.Module.exports(module).map((e) => e.name);
    expect(names.filter((name) => name !== "memory").sort()).toEqual([...engineExportNames].sort());
  });

  it.each([1, 2, 3])("agrees with a sorted map, seed %i", (seed) => {
    const random = seededRandom(seed);
    const pick = (n: number) => Math.floor(random.float() * n);
    const engine = open(path);
    const model = new Model();
    let revision = 0;
    let compacted = 0;
    // Few keys for long chains, then many for a deep tree.
    for (const keys of [40, 6000]) {
      const keyOf = () => `/registry/${pick(3)}/${pick(keys)}`;
      for (let round = 0; round < 8000; round++) {
        const kind = pick(100);
        const key = keyOf();
        if (kind < 50) {
          const value = "v".repeat(pick(40)) + round;
          const logged = pick(3) > 0;
          engine.put(key, Buffer.from(value), ++revision, 0, 0, logged);
          model.push(key, revision, value, logged);
        } else if (kind < 85) {
          if (model.at(key, Infinity) === undefined) continue;
          const inLog = model.keys.get(key)!.some((r) => r.logged);
          expect(engine.remove(key, ++revision, 0)).toBe(inLog);
          model.push(key, revision, undefined, inLog);
        } else if (kind < 95) {
          const at = compacted + pick(revision - compacted + 1);
          const kv = engine.get(key, at);
          expect(kv && Buffer.from(kv.value).toString()).toBe(model.at(key, at));
        } else if (round % 50 === 0) {
          const back = Math.max(compacted, revision - pick(20));
          engine.rollback(back);
          model.rollback(back);
        } else if (round % 30 === 1) {
          const at = compacted + pick(revision - compacted + 1);
          const limit = pick(3) === 0 ? pick(50) : 0;
          const [low, high] = [keyOf(), pick(5) === 0 ? "\0" : keyOf()];
          const all = model.range(low, high, at);
          const found = engine.range(low, high, at, limit, false);
          expect(found.map((kv) => [kv.key, Buffer.from(kv.value).toString()])).toEqual(
            limit ? all.slice(0, limit) : all,
          );
          expect(engine.rangeRest()).toBe(all.length - found.length);
          expect(engine.count(low, high, at)).toBe(all.length);
        } else if (round % 40 === 2) {
          compacted += pick(revision - compacted + 1);
          const dropped: { revision: number; sub: number }[] = [];
          engine.compactOpen(compacted);
          while (engine.compactNext(1 + pick(500), dropped)) engine.verify();
          expect(dropped.map((d) => d.revision).sort((a, b) => a - b)).toEqual(model.compact(compacted));
        }
        if (round % 1000 === 0) engine.verify();
      }
      engine.verify();
      expect(engine.keyCount).toBe(model.keys.size);
    }
    for (const key of model.range("\0", "\0", Infinity).map(([k]) => k)) {
      engine.remove(key, ++revision, 0);
      model.push(key, revision, undefined, true);
    }
    const dropped: { revision: number; sub: number }[] = [];
    engine.compactOpen(revision);
    while (engine.compactNext(1000, dropped)) engine.verify();
    engine.verify();
    expect([engine.keyCount, engine.recordCount, engine.historyBytes]).toEqual([0, 0, 0]);
  });

  it("gives back as many bytes as it took", () => {
    const engine = open(path);
    const empty = engine.heldBytes;
    const fill = (from: number) => {
      for (let i = 0; i < 3000; i++) engine.put(`/k/${i}`, Buffer.alloc(i % 700), from + i, 0, 0, true);
    };
    fill(1);
    const memory = engine.memoryBytes;
    engine.rollback(0);
    engine.verify();
    // The hash table keeps its size, everything else is gone.
    expect(engine.heldBytes - empty).toBeLessThan(40_000);
    for (let i = 0; i < 5; i++) {
      fill(1);
      engine.rollback(0);
    }
    expect(engine.memoryBytes).toBeLessThanOrEqual(memory);
  });

  it("finds every watched range that holds a key, and no other", () => {
    const random = seededRandom(11);
    const pick = (n: number) => Math.floor(random.float() * n);
    const engine = open(path);
    const ranges = new Map<number, { kind: "exact" | "prefix" | "listed"; key: string; end: string }>();
    const known = new Set<string>();
    const part = () => ["a", "b", "c"][pick(3)]!;
    let id = 0;
    for (let round = 0; round < 3000; round++) {
      const kind = (["exact", "prefix", "listed"] as const)[pick(3)]!;
      const base = `/${part()}/${part()}${pick(9)}`;
      const key = kind === "prefix" ? `${base}/` : base;
      const end =
        kind === "prefix" ? `${base}0` : kind === "exact" ? `${base}\0` : pick(4) === 0 ? "\0" : `/${part()}/c9`;
      if (pick(3) > 0 && !known.has(kind + key + end)) {
        if (!engine.watchAdd(++id, kind, key, end)) throw new Error("too many");
        known.add(kind + key + end);
        ranges.set(id, { kind, key, end });
      } else if (ranges.size > 0) {
        const [gone, range] = [...ranges][pick(ranges.size)]!;
        engine.watchRemove(gone, range.kind, range.key);
        ranges.delete(gone);
        known.delete(range.kind + range.key + range.end);
      }
      const probe = `/${part()}/${part()}${pick(9)}${pick(2) ? `/${part()}` : ""}`;
      const found: number[] = [];
      engine.match(probe, (n) => found.push(n));
      const expected = [...ranges]
        .filter(([, r]) => probe >= r.key && (r.end === "\0" || probe < r.end))
        .map(([n]) => n);
      expect(found.sort((a, b) => a - b)).toEqual(expected);
    }
  });

  it("lists history in the order it was written and cuts after whole revisions", () => {
    const engine = open(path);
    for (let revision = 1; revision <= 500; revision++) {
      for (const sub of [0, 1, 2])
        engine.put(`/h/${(revision * 7 + sub * 3) % 50}/${sub}`, Buffer.from(`${revision}`), revision, sub, 0, true);
    }
    engine.remove("/h/7/0", 501, 0);
    const seen: string[] = [];
    let from = 1;
    while (from <= 501) {
      const { records, through } = engine.history("/h/", "/h0", from, 501, 100);
      seen.push(...records.map((r) => `${r.kv.modRevision}.${r.sub}${r.deleted ? " gone" : ""}`));
      from = through + 1;
    }
    const expected: string[] = [];
    for (let revision = 1; revision <= 500; revision++)
      for (const sub of [0, 1, 2]) expected.push(`${revision}.${sub}`);
    expect(seen).toEqual([...expected, "501.0 gone"]);
  });

  it("answers the same when most values are in the log only", () => {
    const random = seededRandom(17);
    const pick = (n: number) => Math.floor(random.float() * n);
    const ceiling = 4 * 1024 * 1024;
    const engine = open(path, ceiling);
    const log = new Map<string, Uint8Array>();
    engine.readColdFrom((revision, sub) => {
      const value = log.get(`${revision}/${sub}`);
      if (!value) throw new Error(`the log has no ${revision}/${sub}`);
      return value;
    });
    const model = new Model();
    let [revision, durable, compacted] = [0, 0, 0];
    const text = (kv: { value: Uint8Array } | undefined) => kv && Buffer.from(kv.value).toString();
    let memoryOnly = 0;
    for (let round = 0; round < 8000; round++) {
      const kind = pick(100);
      const key = `/registry/${pick(3)}/${pick(1500)}`;
      if (kind < 60) {
        const current = engine.current(key);
        const read = engine.get(key, Infinity);
        expect(text(current)).toBe(text(read));
        expect([current?.modRevision, current?.valueBytes]).toEqual([read?.modRevision, read?.value.length]);
        const value = `${round} ${"v".repeat(pick(kind === 0 ? 100_000 : 3000))}`;
        // Some are in memory only, and stay there.
        const logged = pick(20) > 0 || memoryOnly++ > 300;
        engine.put(key, Buffer.from(value), ++revision, 0, 0, logged);
        model.push(key, revision, value, logged);
        if (logged) log.set(`${revision}/0`, Buffer.from(value));
        if (pick(3) === 0) {
          durable = revision;
          engine.settled(durable);
          engine.superseded(current ? [current] : []);
        }
      } else if (kind < 70) {
        if (model.at(key, Infinity) === undefined) continue;
        const inLog = model.keys.get(key)!.some((r) => r.logged);
        engine.remove(key, ++revision, 0);
        model.push(key, revision, undefined, inLog);
      } else if (kind < 90) {
        expect(text(engine.getAndKeep(key, Infinity))).toBe(model.at(key, Infinity));
        const at = compacted + pick(revision - compacted + 1);
        expect(text(engine.get(key, at))).toBe(model.at(key, at));
      } else if (kind === 90) {
        engine.rollback(Math.max(durable, compacted));
        model.rollback(Math.max(durable, compacted));
      } else if (kind === 91) {
        const at = compacted + pick(revision - compacted + 1);
        const found: string[] = [];
        for (let next: string | undefined = key; next !== undefined; ) {
          const slice = engine.slice(next, "\0", { at, limit: 0, keysOnly: false, maxColdBytes: 20_000 });
          found.push(...slice.kvs.map((kv) => `${kv.key} ${text(kv)}`));
          next = slice.next;
        }
        expect(found).toEqual(model.range(key, "\0", at).map(([k, v]) => `${k} ${v}`));
      } else if (kind === 92) {
        const from = Math.max(compacted + 1, revision - pick(60));
        const { records, through } = engine.history("/", "0", from, revision, 1000);
        const expected = [...model.keys.values()].flat().filter((r) => r.mod >= from && r.mod <= through);
        expected.sort((a, b) => a.mod - b.mod);
        expect(records.map((r) => (r.deleted ? undefined : text(r.kv)))).toEqual(expected.map((r) => r.value));
      } else if (kind === 93 && durable > compacted) {
        compacted += pick(durable - compacted + 1);
        const dropped: { revision: number; sub: number }[] = [];
        engine.compactOpen(compacted);
        while (engine.compactNext(1 + pick(500), dropped)) engine.verify();
        model.compact(compacted);
        for (const row of dropped) log.delete(`${row.revision}/${row.sub}`);
      }
      if (round % 500 === 0) {
        engine.verify();
        expect(engine.memoryBytes).toBeLessThanOrEqual(ceiling + 200_000);
      }
    }
    engine.verify();
    // It was the log that answered.
    expect(engine.coldBytesRead).toBeGreaterThan(ceiling);
    expect([...log.values()].reduce((sum, value) => sum + value.length, 0)).toBeGreaterThan(ceiling);
    engine.rollback(0);
    expect([engine.keyCount, engine.warmBytes]).toEqual([0, 0]);
  });

  it("stops at a broken promise of its caller", () => {
    const engine = open(path);
    engine.put("/a", Buffer.from("1"), 5, 0, 0, true);
    expect(() => engine.put("/a", Buffer.from("2"), 4, 0, 0, true)).toThrow(/assertion/);
    expect(() => engine.remove("/none", 6, 0)).toThrow(/assertion/);
    expect(() => engine.watchRemove(3, "exact", "/x")).toThrow(/assertion/);
  });

  it("loads records as the log has them", () => {
    const engine = open(path);
    const record = {
      key: "/a",
      value: Buffer.from("x"),
      revision: 2 ** 46,
      sub: 65_535,
      create: 3,
      version: 9,
      lease: 2 ** 51,
      flags: 2,
    };
    engine.load(record);
    expect(engine.get("/a", Infinity)).toEqual({
      key: "/a",
      value: new Uint8Array([120]),
      createRevision: 3,
      modRevision: 2 ** 46,
      version: 9,
      lease: 2 ** 51,
    });
    engine.load({ ...record, value: new Uint8Array(0), revision: 2 ** 46 + 1, flags: 2 | tombstoneFlag });
    expect(engine.get("/a", Infinity)).toBe(undefined);
    expect(engine.get("/a", 2 ** 46)?.version).toBe(9);
    // Created long before, and without a lease; or lately: records of two sizes.
    engine.load({ ...record, key: "/b", lease: 0, create: 2 ** 46 - 2 ** 32 + 1 });
    engine.load({ ...record, key: "/c", lease: 0, create: 2 ** 46 - 2 ** 32, sub: 0 });
    expect(engine.get("/b", Infinity)).toMatchObject({ createRevision: 2 ** 46 - 2 ** 32 + 1, lease: 0 });
    expect(engine.get("/c", Infinity)).toMatchObject({ createRevision: 2 ** 46 - 2 ** 32, lease: 0 });
    expect(() => engine.load({ ...record, key: "/d", revision: 2 ** 47 })).toThrow(/assertion/);
    engine.rollback(2);
    engine.verify();
    expect(engine.keyCount).toBe(0);
  });
});
