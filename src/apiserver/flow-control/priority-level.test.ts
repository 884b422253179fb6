import { expect, test } from "vitest";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { type Held, type LevelSettings, PriorityLevel, type Rejection } from "./priority-level.ts";
import { flowHash } from "./shuffle-shard.ts";

const queuing = { queues: 64, handSize: 4, queueLengthLimit: 3 };

function levelWith(seats: number, settings: LevelSettings) {
  const clock = new FakeClock();
  let pressed = 0;
  const level = new PriorityLevel("x", { waitLimitMs: 15_000, onPressure: () => pressed++ }, { clock });
  level.configure(settings);
  level.setSeats(seats);
  const tallies = new Map<string, { executing: number; executingSeats: number; waiting: number }>();
  const ask = (flow: string, { width = 1, signal = new AbortController().signal } = {}) => {
    const tally = tallies.get(flow) ?? { executing: 0, executingSeats: 0, waiting: 0 };
    tallies.set(flow, tally);
    return level.acquire({ width, tally, hash: () => flowHash("schema", flow), signal });
  };
  return { clock, level, ask, tallies, pressed: () => pressed };
}

const held = (got: Held | Rejection | Promise<Held | Rejection>): Held => {
  expect(got).toMatchObject({ width: expect.any(Number) });
  return got as Held;
};

test("without queues what finds no seat is refused", () => {
  const { level, ask, tallies, pressed } = levelWith(2, { isExempt: false });
  const first = held(ask("a"));
  held(ask("a"));
  expect(pressed()).toBe(0);
  expect(ask("a")).toBe("concurrency-limit");
  expect(pressed()).toBe(1);
  level.release(first);
  held(ask("b"));
  expect([...tallies.values()]).toEqual([
    { executing: 1, executingSeats: 1, waiting: 0 },
    { executing: 1, executingSeats: 1, waiting: 0 },
  ]);
});

test("an exempt level takes everybody", () => {
  const { level, ask } = levelWith(0, { isExempt: true });
  for (let i = 0; i < 1000; i++) held(ask("a"));
  expect(level.inUse).toBe(1000);
});

test("no seats at all are for nobody", () => {
  expect(levelWith(0, { isExempt: false }).ask("a")).toBe("concurrency-limit");
});

test("what is wider than everything runs alone", async () => {
  const { level, ask } = levelWith(4, { isExempt: false, queuing });
  const first = held(ask("a"));
  const wide = ask("b", { width: 10 });
  expect(wide).toBeInstanceOf(Promise);
  // It is not passed by, or it might wait for ever.
  const behind = ask("c");
  expect(behind).toBeInstanceOf(Promise);
  level.release(first);
  const got = held(await wide);
  expect(level.inUse).toBe(10);
  level.release(got);
  held(await behind);
});

test("queues are bounded in length and in time", async () => {
  const { clock, level, ask, tallies } = levelWith(1, { isExempt: false, queuing: { ...queuing, handSize: 1 } });
  const first = held(ask("a"));
  const waiting = [ask("a"), ask("a"), ask("a")];
  expect(ask("a")).toBe("queue-full");
  expect(tallies.get("a")).toEqual({ executing: 1, executingSeats: 1, waiting: 3 });
  await clock.advance(15_000);
  expect(await Promise.all(waiting.map(async (each) => each))).toEqual(["time-out", "time-out", "time-out"]);
  expect(tallies.get("a")).toEqual({ executing: 1, executingSeats: 1, waiting: 0 });
  level.release(first);
  expect(level.inUse).toBe(0);
  expect(clock.pending).toBe(0);
});

test("who goes away waits no more", async () => {
  const { clock, level, ask } = levelWith(1, { isExempt: false, queuing });
  const first = held(ask("a"));
  const gone = new AbortController();
  const left = ask("a", { signal: gone.signal });
  const stays = ask("a");
  gone.abort();
  expect(await left).toBe("cancelled");
  const late = ask("a", { signal: gone.signal });
  expect(await late).toBe("cancelled");
  level.release(first);
  level.release(held(await stays));
  expect(level.inUse).toBe(0);
  expect(clock.pending).toBe(0);
});

test("more seats let in those who wait", async () => {
  const { level, ask } = levelWith(1, { isExempt: false, queuing });
  held(ask("a"));
  const second = ask("a");
  level.setSeats(2);
  held(await second);
  expect(level.takeDemand()).toBe(2);
});

test("a flow that floods does not starve another: seats go by what each has had", async () => {
  const { clock, level, ask } = levelWith(4, { isExempt: false, queuing: { ...queuing, queueLengthLimit: 1000 } });
  const done = { elephant: 0, mouse: 0 };
  const run = async (flow: "elephant" | "mouse", ms: number) => {
    const got = await ask(flow);
    if (typeof got === "string") return;
    await clock.sleep(ms);
    done[flow]++;
    level.release(got);
  };
  for (let i = 0; i < 2000; i++) void run("elephant", 100);
  await settle();
  // One at a time, as people do.
  void (async () => {
    for (;;) await run("mouse", 100);
  })();
  await clock.advance(10_000);
  // 400 fit altogether. The elephant has four queues of its hand, the mouse one request at a time in one of its own.
  expect(done.elephant + done.mouse).toBeGreaterThan(380);
  expect(done.mouse).toBeGreaterThan(40);
  expect(done.mouse).toBeLessThan(130);
});

test("long requests are charged for what they took", async () => {
  const { clock, level, ask } = levelWith(1, { isExempt: false, queuing: { ...queuing, queueLengthLimit: 1000 } });
  const took = { slow: 0, quick: 0 };
  const run = async (flow: "slow" | "quick", ms: number) => {
    const got = await ask(flow);
    if (typeof got === "string") return;
    await clock.sleep(ms);
    took[flow] += ms;
    level.release(got);
  };
  for (let i = 0; i < 100; i++) void run("slow", 100);
  for (let i = 0; i < 1000; i++) void run("quick", 10);
  await clock.advance(5000);
  expect(Math.abs(took.slow - took.quick)).toBeLessThan(1000);
});
