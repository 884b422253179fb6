import { expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import type { WatchEvent } from "#datastore/backend.ts";
import { nextTurn } from "#platform/turns.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { Listener, Relay } from "./relay.ts";

/** Listeners that take `eachMs` for a batch, which is known by its length. */
function listeners(count: number, eachMs: number) {
  let nowMs = 0;
  const relay = new Relay({ clock: { monotonicMs: () => nowMs } as Clock });
  const heard: string[] = [];
  const all = Array.from(
    { length: count },
    (_, i) =>
      new Listener((events) => {
        nowMs += eachMs;
        heard.push(`${i}:${events.length}`);
      }),
  );
  const tell = (listener: Listener, events: readonly WatchEvent[]): boolean => {
    const before = heard.length;
    relay.tell(listener, events);
    return heard.length > before;
  };
  return {
    ...{ heard, all, relay, tell },
    tellAll(size: number) {
      const events = new Array<WatchEvent>(size);
      return all.map((one) => tell(one, events));
    },
  };
}

test("few hear at once", () => {
  const { heard, tellAll } = listeners(3, 1);
  expect(tellAll(1)).toEqual([true, true, true]);
  expect(heard).toEqual(["0:1", "1:1", "2:1"]);
});

test("many hear in turns, each in the order it came", async () => {
  const { heard, tellAll } = listeners(200, 0.125);
  tellAll(1);
  tellAll(2);
  // Five milliseconds, of fifty.
  expect(heard).toHaveLength(40);
  let turns = 0;
  while (heard.length < 400 && turns < 100) {
    const before = heard.length;
    await nextTurn();
    turns++;
    expect(heard.length - before).toBeLessThanOrEqual(40 + 16);
  }
  expect(turns).toBeGreaterThanOrEqual(6);
  for (let i = 0; i < 200; i++) {
    expect(heard.filter((one) => one.startsWith(`${i}:`))).toEqual([`${i}:1`, `${i}:2`]);
  }
});

test("what comes while others wait waits behind them; afterwards it is at once again", async () => {
  const { heard, tellAll } = listeners(100, 0.125);
  tellAll(1);
  await nextTurn();
  expect(tellAll(2)[0]).toBe(false);
  for (let turn = 0; turn < 20; turn++) await nextTurn();
  expect(heard).toHaveLength(200);
  expect(heard.slice(100).every((one) => one.endsWith(":2"))).toBe(true);
  expect(tellAll(3)[0]).toBe(true);
});

test("each hears what it was told and no more, whatever others were told", async () => {
  const { heard, all, tell, tellAll } = listeners(100, 0.125);
  tellAll(1);
  const [second, third] = [new Array<WatchEvent>(2), new Array<WatchEvent>(3)];
  // 97 is told of both, 98 of the first of them, 99 of another after it; 96 goes.
  tell(all[97]!, second);
  tell(all[98]!, second);
  tell(all[99]!, second);
  tell(all[97]!, third);
  tell(all[99]!, new Array<WatchEvent>(4));
  tell(all[99]!, new Array<WatchEvent>(5));
  all[96]!.clear();
  for (let turn = 0; turn < 40; turn++) await nextTurn();
  const of = (i: number) => heard.filter((one) => one.startsWith(`${i}:`)).map((one) => one.slice(3));
  expect([95, 96, 97, 98, 99].map(of)).toEqual([["1"], [], ["1", "2", "3"], ["1", "2"], ["1", "2", "4", "5"]]);
});

test.each([1, 2, 3, 4, 5])("nothing is lost, doubled or out of order, seed %i", async (seed) => {
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random.float() * limit);
  let nowMs = 0;
  const relay = new Relay({ clock: { monotonicMs: () => nowMs } as Clock });
  const batches = Array.from({ length: 300 }, () => new Array<WatchEvent>(1));
  const numberOf = new Map<readonly WatchEvent[], number>(batches.map((events, i) => [events, i]));
  const all = Array.from({ length: 40 }, () => {
    const heard: number[] = [];
    const hear = (events: readonly WatchEvent[]) => {
      nowMs += 0.5;
      heard.push(numberOf.get(events)!);
    };
    return { heard, told: [] as number[], hasLeft: false, listener: new Listener(hear) };
  });
  for (let i = 0; i < batches.length; i++) {
    // To all, to some, or one of two to each.
    const [isForAll, isForked] = [below(4) > 0, below(4) === 0];
    for (const one of all) {
      if (one.hasLeft || (!isForAll && below(2) === 0)) continue;
      const at = isForked ? Math.min(i + below(2), batches.length - 1) : i;
      one.told.push(at);
      relay.tell(one.listener, batches[at]!);
    }
    if (isForked) i++;
    if (below(20) === 0) {
      const gone = all[below(all.length)]!;
      gone.hasLeft = true;
      gone.listener.clear();
    }
    if (below(3) === 0) await nextTurn();
  }
  for (let turn = 0; turn < 20_000 && all.some(({ listener }) => listener.owed > 0); turn++) await nextTurn();
  for (const { heard, told, hasLeft } of all) expect(heard).toEqual(hasLeft ? told.slice(0, heard.length) : told);
});

test("what waits for thousands is kept once", () => {
  const { all, relay } = listeners(5_000, 1);
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 1_000; i++) {
    const events = new Array<WatchEvent>(1);
    for (const one of all) relay.tell(one, events);
  }
  expect(all.at(-1)!.owed).toBe(1_000);
  const grownBytes = process.memoryUsage().heapUsed - before;
  for (const one of all) one.clear();
  // 200 MB where each of them has an entry for each.
  expect(grownBytes).toBeLessThan(40e6);
});
