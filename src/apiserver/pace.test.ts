// With a clock that goes forward by what the requests of a turn cost.
import { expect, test } from "vitest";
import { Pace } from "./pace.ts";

function paced() {
  let nowMs = 0;
  const pace = new Pace({ clock: { monotonicMs: () => nowMs } as never });
  const log: string[] = [];
  const request = async (name: string, costMs: number) => {
    await pace.enter();
    nowMs += costMs;
    log.push(name);
  };
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  return { log, request, turn };
}

test("costly requests are spread over turns, in order", async () => {
  const { log, request, turn } = paced();
  for (let i = 0; i < 200; i++) {
    await request("warm", 1);
    if (i % 20 === 0) await turn();
  }
  await turn();
  log.length = 0;
  const all = Array.from({ length: 64 }, (_, i) => request(String(i), 1));
  const perTurn: number[] = [];
  for (let done = 0; log.length < 64; done = log.length) {
    await turn();
    perTurn.push(log.length - done);
  }
  await Promise.all(all);
  expect(log).toEqual(Array.from({ length: 64 }, (_, i) => String(i)));
  expect(perTurn.length).toBeGreaterThan(4);
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(20);
});

test("cheap ones all begin at once, and one alone never waits", async () => {
  const { log, request, turn } = paced();
  const all = Array.from({ length: 200 }, (_, i) => request(String(i), 0.001));
  await Promise.resolve();
  expect(log.length).toBe(200);
  await Promise.all(all);
  await turn();
  const alone = request("alone", 50);
  await Promise.resolve();
  expect(log.at(-1)).toBe("alone");
  await alone;
});
