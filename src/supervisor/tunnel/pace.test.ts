// When to ask, when to give up, and how much may be under way: tables and small simulations.
import { expect, test } from "vitest";
import { judge, keepalives, type Silence, tickMs } from "./keepalive.ts";
import { Pace } from "./pace.ts";

const heard = (changes: Partial<Silence>): Silence => ({
  ...{
    nowMs: 100_000,
    isDialer: true,
    heardMs: 100_000,
    unansweredMs: undefined,
    pingedMs: 100_000,
    isPingOpen: false,
    patienceMs: 1000,
    probedMs: undefined,
    reachedMs: undefined,
    answeredMs: undefined,
  },
  ...changes,
  sureMs: changes.sureMs ?? changes.nowMs ?? 100_000,
});

test.each<[keyof typeof keepalives, Partial<Silence>, string]>([
  ["swift", {}, "wait"],
  ["swift", { pingedMs: 99_000 }, "ping"],
  ["swift", { pingedMs: 99_501, isPingOpen: true }, "wait"],
  ["swift", { pingedMs: 99_500, isPingOpen: true }, "probe"],
  ["swift", { pingedMs: 99_100, isPingOpen: true, probedMs: 99_600 }, "wait"],
  ["swift", { pingedMs: 99_000, isPingOpen: true, probedMs: 99_500 }, "dead"],
  // Its machine can be reached: it is slow, or hangs.
  ["swift", { pingedMs: 99_000, isPingOpen: true, probedMs: 99_500, reachedMs: 99_510 }, "wait"],
  ["swift", { pingedMs: 88_001, isPingOpen: true, probedMs: 88_500, reachedMs: 88_500 }, "wait"],
  ["swift", { pingedMs: 88_000, isPingOpen: true, probedMs: 88_500, reachedMs: 88_500 }, "dead"],
  // It runs, but this connection is forgotten by somebody on the way; or TCP repeats the ping.
  ["swift", { pingedMs: 98_001, isPingOpen: true, probedMs: 98_500, reachedMs: 98_501, answeredMs: 98_502 }, "wait"],
  ["swift", { pingedMs: 98_000, isPingOpen: true, probedMs: 98_500, reachedMs: 98_501, answeredMs: 98_502 }, "dead"],
  // It runs again: the answer to the ping comes as late as this one.
  ["swift", { pingedMs: 93_500, isPingOpen: true, probedMs: 95_500, reachedMs: 95_501, answeredMs: 98_000 }, "wait"],
  ["swift", { pingedMs: 93_500, isPingOpen: true, probedMs: 95_500, reachedMs: 95_501, answeredMs: 97_500 }, "dead"],
  // Where answers take long, so do we.
  ["swift", { pingedMs: 97_500, isPingOpen: true, patienceMs: 6000 }, "wait"],
  ["swift", { pingedMs: 97_000, isPingOpen: true, patienceMs: 6000 }, "probe"],
  ["swift", { pingedMs: 94_000, isPingOpen: true, patienceMs: 6000, probedMs: 97_000 }, "dead"],
  // This process has not run: what has come meanwhile is not read yet.
  ["swift", { pingedMs: 99_000, isPingOpen: true, probedMs: 99_500, sureMs: 99_900 }, "wait"],
  ["swift", { isDialer: false, heardMs: 98_000, sureMs: 99_900 }, "wait"],
  ["swift", { isDialer: false, heardMs: 98_001 }, "wait"],
  ["swift", { isDialer: false, heardMs: 98_000 }, "dead"],
  ["swift", { isDialer: false, heardMs: 98_000, patienceMs: 1500 }, "wait"],
  ["k3s", { isDialer: false, heardMs: 40_001, patienceMs: 55_000 }, "wait"],
  ["k3s", { isDialer: false, heardMs: 40_000, patienceMs: 55_000 }, "dead"],
  ["metered", { pingedMs: 0 }, "wait"],
  ["metered", { pingedMs: -140_000 }, "ping"],
  // Something was sent into the silence: either end asks.
  ["metered", { pingedMs: 0, unansweredMs: 89_000 }, "ping"],
  ["metered", { pingedMs: 0, unansweredMs: 91_000 }, "wait"],
  ["metered", { isDialer: false, pingedMs: 0, heardMs: 0, unansweredMs: 89_000 }, "ping"],
  ["metered", { isDialer: false, pingedMs: 90_000, isPingOpen: true, heardMs: 0 }, "dead"],
])("%s: %o: %s", (name, silence, verdict) => {
  expect(judge(keepalives[name], heard({ patienceMs: keepalives[name].deadMs, ...silence }))).toBe(verdict);
});

test("k3s gives up an end that does not ping for 60 s: no profile towards it comes near", () => {
  for (const name of ["k3s", "meteredK3s"] as const)
    expect(keepalives[name].pingMs + tickMs(keepalives[name])).toBeLessThanOrEqual(50_000);
  expect(tickMs(keepalives.metered)).toBe(2500);
  // Ping, silence and a tick of each: noticed within three seconds, and room for a machine that is slow itself.
  const { pingMs, deadMs } = keepalives.swift;
  expect(pingMs + deadMs + 2 * tickMs(keepalives.swift)).toBeLessThanOrEqual(2500);
});

/** A path of so many bytes a millisecond and such a round trip; the sender always has more. Bytes under way at the end. */
function run(bytesPerMs: number, roundTripMs: number): { limit: number; shared: number; rate: number } {
  const pace = new Pace(1024 * 1024);
  let sent = 0;
  let confirmed = 0;
  let freeAtMs = 0;
  const underWay: { atMs: number; offset: number }[] = [];
  for (let nowMs = 0; nowMs < 5000; nowMs++) {
    while (underWay[0] && underWay[0].atMs <= nowMs) {
      confirmed = underWay.shift()!.offset;
      pace.confirmed(confirmed, nowMs);
    }
    while (sent - confirmed < pace.limit) {
      const isFirst = sent === confirmed;
      sent += 4096;
      freeAtMs = Math.max(freeAtMs, nowMs) + 4096 / bytesPerMs;
      underWay.push({ atMs: freeAtMs + roundTripMs, offset: sent });
      pace.sent(sent, confirmed, isFirst, nowMs);
    }
  }
  return { limit: pace.limit, shared: pace.sharedLimit, rate: confirmed / 5000 };
}

test.each([
  ["a slow line: 1 Mbit/s, 50 ms", 125, 50, 64 * 1024],
  ["mobile: 20 Mbit/s, 60 ms", 2500, 60, 512 * 1024],
  ["a local network: 1 Gbit/s, 1 ms", 125_000, 1, 1024 * 1024],
])("%s is used in full, with little in front of what comes next", (_, bytesPerMs, roundTripMs, most) => {
  const { limit, rate } = run(bytesPerMs, roundTripMs);
  expect(rate).toBeGreaterThan(bytesPerMs * 0.85);
  expect(limit).toBeLessThanOrEqual(most);
});

test.each([
  // What small messages wait behind is little in time, or what the path holds anyhow.
  ["a slow line: nothing less than its own limit", 125, 50, 64 * 1024],
  ["a local network: 1 Gbit/s, 0.2 ms", 125_000, 0.2, 256 * 1024],
  ["a machine to itself", 500_000, 0.05, 256 * 1024],
])("beside small messages: %s", (_, bytesPerMs, roundTripMs, most) => {
  const { limit, shared } = run(bytesPerMs, roundTripMs);
  expect(shared).toBeLessThanOrEqual(Math.min(limit, most));
  expect(shared).toBeGreaterThanOrEqual(Math.min(limit, 64 * 1024));
});
