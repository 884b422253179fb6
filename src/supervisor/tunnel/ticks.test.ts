// One timer for many, none for nobody, and what a stall of the process looks like.
import { expect, test } from "vitest";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { type Ticking, Ticks } from "./ticks.ts";

const counter = (): Ticking & { times: number[]; late: number } => ({
  times: [],
  late: 0,
  tick(nowMs, lateMs) {
    this.times.push(nowMs);
    this.late += lateMs;
  },
});

test("a thousand are looked at by one timer, and none is left when the last has gone", async () => {
  const clock = new FakeClock();
  const ticks = new Ticks(clock);
  const many = Array.from({ length: 1000 }, counter);
  for (const one of many) ticks.add(one, 500);
  expect(clock.pending).toBe(1);
  await clock.advance(2000);
  expect(many.every(({ times }) => times.join() === "500,1000,1500,2000")).toBe(true);
  for (const one of many) ticks.delete(one);
  expect(clock.pending).toBe(0);
});

test.each([
  [100, 250],
  [500, 500],
  [999, 500],
  [2500, 2500],
  [60_000, 5000],
])("every %i ms: looked at every %i", async (wanted, everyMs) => {
  const clock = new FakeClock();
  const one = counter();
  new Ticks(clock).add(one, wanted);
  await clock.advance(10_000);
  expect(one.times.length).toBe(10_000 / everyMs);
});

test("who leaves while all are looked at is not looked at again; who comes is from the next time on", async () => {
  const clock = new FakeClock();
  const ticks = new Ticks(clock);
  const last = counter();
  const first: Ticking = { tick: () => ticks.delete(last) };
  ticks.add(first, 500);
  ticks.add(last, 500);
  await clock.advance(1000);
  expect(last.times).toEqual([]);
  ticks.delete(first);
  expect(clock.pending).toBe(0);
  ticks.add(last, 500);
  await clock.advance(500);
  expect(last.times).toEqual([1500]);
});

test("a process that did not run says so, once", async () => {
  class LateClock extends FakeClock {
    lateMs = 0;
    override monotonicMs(): number {
      return super.monotonicMs() + this.lateMs;
    }
  }
  const clock = new LateClock();
  const one = counter();
  new Ticks(clock).add(one, 1000);
  await clock.advance(3000);
  expect(one.late).toBe(0);
  clock.lateMs = 5000;
  await clock.advance(3000);
  expect([one.late, one.times.length]).toEqual([5000, 6]);
});
