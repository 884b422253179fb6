// An answer that is written while it is sent is, byte for byte, the one that is built as a whole, whatever is written,
// deleted and compacted meanwhile.
import { Buffer } from "node:buffer";
import { expect, it } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import type { DataSource } from "#wire/http2/stream.ts";
import { prefixRange, type Revision } from "../backend.ts";
import { openDatastore } from "../open.ts";
import { frameOf, headerPart, rangePart } from "./messages.ts";
import { AheadBudget, rangeFrame } from "./range-source.ts";

const deps = { clock: new FakeClock(), log: silentLogger };
const header = () => headerPart(7);
const all = prefixRange("/a/");

async function filled() {
  const random = seededRandom(9);
  const store = await openDatastore({ endpoint: "memory://" }, deps);
  const sizes = [0, 1, 100, 1000, 1024, 20_000, 300_000];
  for (let i = 0; i < 400; i++) {
    const value = Buffer.alloc(i % 50 === 7 ? 300_000 : sizes[Math.floor(random.float() * 6)]!, i);
    await store.commit({ compares: [], success: [{ type: "put", key: `/a/${i}${"k".repeat(i % 90)}`, value }] });
  }
  return { store, random };
}

/** All of it, asking for so much at a time; `meanwhile` runs in between. */
async function drain(
  answer: Uint8Array | DataSource,
  room: () => number,
  meanwhile: () => Promise<void>,
): Promise<Buffer> {
  if (answer instanceof Uint8Array) return Buffer.from(answer);
  const parts: Buffer[] = [];
  for (;;) {
    const into = Buffer.alloc(room());
    const size = answer.fill(into);
    if (size === 0) break;
    parts.push(into.subarray(0, size));
    await meanwhile();
  }
  answer.close();
  return Buffer.concat(parts);
}

it.each([0, 1, 13, 399, 400, 1000])("is the same in pieces, with a limit of %i", async (limit) => {
  const { store, random } = await filled();
  for (const keysOnly of [false, true]) {
    const { kvs, count, more } = await store.range({ ...all, limit });
    const whole = frameOf(rangePart(header(), { kvs, count, more, keysOnly }));
    for (const largest of [700, 9000, 200_000]) {
      const source = rangeFrame(store.scan.bind(store), { ...all, limit, keysOnly }, header, new AheadBudget());
      const got = await drain(
        source,
        () => 1 + Math.floor(random.float() * largest),
        async () => {},
      );
      expect(got.equals(whole), `${limit} ${keysOnly} ${largest}`).toBe(true);
    }
  }
  await store.close();
});

it("is of one revision, and a compaction has the rest of it read", async () => {
  const { store, random } = await filled();
  const { kvs, count, more } = await store.range(all);
  const whole = frameOf(rangePart(header(), { kvs, count, more, keysOnly: false }));
  const source = rangeFrame(store.scan.bind(store), all, header, new AheadBudget());
  let rounds = 0;
  const got = await drain(
    source,
    () => 30_000,
    async () => {
      rounds++;
      const key = kvs[Math.floor(random.float() * kvs.length)]!.key;
      await store.commit({ compares: [], success: [{ type: "put", key, value: Buffer.from("new") }] });
      await store.commit({ compares: [], success: [{ type: "delete", key: "/a/", end: "/a/5" }] });
      if (rounds === 3) await store.compact(store.revision());
    },
  );
  expect(rounds).toBeGreaterThan(20);
  expect(got.equals(whole)).toBe(true);
  store.verify();
  await store.close();
});

it("fails, rather than being short, when the store is closed meanwhile, and lets go of its scan", async () => {
  const { store } = await filled();
  const left = rangeFrame(store.scan.bind(store), all, header, new AheadBudget()) as DataSource;
  const source = rangeFrame(store.scan.bind(store), all, header, new AheadBudget()) as DataSource;
  source.fill(Buffer.alloc(1000));
  left.close();
  await store.compact(1 as Revision);
  await store.close();
  expect(() => {
    for (let i = 0; i < 10_000; i++) source.fill(Buffer.alloc(1000));
  }).toThrow(/closed/);
});

it("is read ahead for one that does not come for it as far as there is room, and fails beyond", async () => {
  const { store } = await filled();
  const { kvs, count, more } = await store.range(all);
  const budget = 5 * frameOf(rangePart(header(), { kvs, count, more, keysOnly: false })).length;
  const ahead = new AheadBudget(budget);
  const open = () => rangeFrame(store.scan.bind(store), all, header, ahead) as DataSource;
  const sources = Array.from({ length: 50 }, open);
  for (const source of sources) source.fill(Buffer.alloc(1000));
  await store.commit({ compares: [], success: [{ type: "put", key: "/new", value: Buffer.from("new") }] });
  await store.compact(store.revision());
  const ends = sources.map((source) => {
    try {
      while (source.fill(Buffer.alloc(100_000)) > 0);
      return "whole";
    } catch (error) {
      return (error as { code?: string }).code;
    } finally {
      source.close();
    }
  });
  expect(ends.slice(0, 5)).toEqual(Array(5).fill("whole"));
  expect(new Set(ends.slice(6))).toEqual(new Set(["DATASTORE_COMPACTED"]));
  // All of it was given back.
  expect(ahead.take(budget)).toBe(true);
  await store.close();
});

it("of little is one frame at once", async () => {
  const { store } = await filled();
  expect(rangeFrame(store.scan.bind(store), { ...all, limit: 1 }, header, new AheadBudget())).toBeInstanceOf(
    Uint8Array,
  );
  await store.close();
});
