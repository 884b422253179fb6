import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { ServerReach } from "./reach.ts";

/** Asks a server that answers after `takesMs`, if it is there. */
async function begin(takesMs: number) {
  const clock = new FakeClock();
  const server = { isThere: false, asked: 0 };
  const reach = new ServerReach({
    ...{ clock, random: seededRandom(1), log: silentLogger },
    async probe(signal) {
      server.asked++;
      await clock.sleep(takesMs, signal);
      if (!server.isThere) throw new Error("nobody is there");
    },
  });
  const stop = new AbortController();
  const running = reach.run(stop.signal, () => {});
  await clock.advance(30_000);
  expect(reach.isAway).toBe(true);
  const end = async () => {
    stop.abort(new Error("enough"));
    await running;
    expect(clock.pending).toBe(0);
  };
  return { clock, server, reach, end };
}

test("who knows that the server is back need not wait for the next question", async () => {
  const { clock, server, reach, end } = await begin(0);
  const before = server.asked;
  reach.hurry();
  await clock.advance(0);
  // Not yet: the pauses go on.
  expect([server.asked, reach.isAway]).toEqual([before + 1, true]);
  server.isThere = true;
  await clock.advance(0);
  expect([server.asked, reach.isAway]).toEqual([before + 1, true]);
  reach.hurry();
  await clock.advance(0);
  expect([server.asked, reach.isAway]).toEqual([before + 2, false]);
  await end();
});

test("a question that took its time is followed by the next at once, one that did not by a pause", async () => {
  for (const [takesMs, least, most] of [
    [2000, 10, 10],
    [0, 15, 25],
  ] as const) {
    const { clock, server, end } = await begin(takesMs);
    const before = server.asked;
    await clock.advance(20_000);
    expect(server.asked - before).toBeGreaterThanOrEqual(least);
    expect(server.asked - before).toBeLessThanOrEqual(most);
    await end();
  }
});
