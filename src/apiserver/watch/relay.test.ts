import { expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import type { WatchEvent } from "#datastore/backend.ts";
import { nextTurn } from "#platform/turns.ts";
import { type Hear, Relay } from "./relay.ts";

/** Listeners that take `eachMs` for a batch, which is known by its length. */
function listeners(count: number, eachMs: number) {
  let nowMs = 0;
  const relay = new Relay({ clock: { monotonicMs: () => nowMs } as Clock });
  const heard: string[] = [];
  const all = Array.from(
    { length: count },
    (_, i): Hear =>
      (events) => {
        nowMs += eachMs;
        heard.push(`${i}:${events.length}`);
      },
  );
  const tell = (hear: Hear, events: readonly WatchEvent[]): boolean => {
    const isNow = relay.mayTell();
    if (isNow) hear(events);
    else relay.tellLater(hear, events);
    return isNow;
  };
  return { heard, tellAll: (size: number) => all.map((one) => tell(one, new Array<WatchEvent>(size))) };
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
