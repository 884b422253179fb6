import { expect, test } from "vitest";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { type Clock, pause } from "./clock.ts";

test("a pause ends early when it is called off, and leaves nothing behind", async () => {
  const clock = new FakeClock();
  const stop = new AbortController();
  const pausing = pause(clock, 1000, stop.signal);
  expect(clock.pending).toBe(1);
  stop.abort(new Error("enough"));
  await pausing;
  expect(clock.pending).toBe(0);
  await pause(clock, 1000, stop.signal);
});

test("a pause passes on what is not its end", async () => {
  const broken: Clock = Object.assign(new FakeClock(), { sleep: () => Promise.reject(new Error("no timers")) });
  await expect(pause(broken, 1)).rejects.toThrow("no timers");
  await expect(pause(broken, 1, new AbortController().signal)).rejects.toThrow("no timers");
  await expect(pause(broken, 1, AbortSignal.abort(new Error("enough")))).rejects.toThrow("no timers");
});
