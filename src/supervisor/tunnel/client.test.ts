// When the node's end tries again, under a clock that only moves when told to.
import { expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { createLogger, silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createTunnelClient, type TunnelClientOptions } from "./client.ts";
import { loadCodec } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { formatHello, moteHeader } from "./messages.ts";
import { socketPair } from "./socket-pair.fixture.ts";

/** Nobody is there, and that takes `takesMs` to find out. */
async function alone(takesMs: number, more: Partial<TunnelClientOptions> = {}) {
  const clock = new FakeClock();
  const random = seededRandom(1);
  const asked: (number | undefined)[] = [];
  const told: number[] = [];
  const log = createLogger((level) => void (level === "warn" && told.push(clock.monotonicMs())), "info");
  const client = createTunnelClient(
    { host: "192.0.2.1", port: 6443, tls: () => ({}), ...more },
    {
      ...{ clock, random, log, codec: loadCodec((size) => random.bytes(size)) },
      mayDial: () => false,
      open: () => Promise.reject(new Error("nothing may be dialed")),
      async dial({ againMs }, signal) {
        asked.push(againMs);
        await clock.sleep(takesMs, signal);
        throw new AppError("WEBSOCKET_DIAL", "nobody is there", { isConnected: false });
      },
    },
  );
  const stop = new AbortController();
  const running = client.run(stop.signal, () => {});
  await clock.advance(0);
  const end = async () => {
    stop.abort(new Error("enough"));
    await running;
  };
  return { client, clock, asked, told, end };
}

test("an attempt that took its time is followed by another at once", async () => {
  const { clock, asked, end } = await alone(5000);
  for (const attempts of [1, 2, 3]) {
    expect(asked).toHaveLength(attempts);
    await clock.advance(4999);
    expect(asked).toHaveLength(attempts);
    await clock.advance(1);
  }
  await end();
});

test("who has not answered for a minute is tried half as often", async () => {
  const { clock, asked, end } = await alone(5000);
  await clock.advance(120_000);
  expect([asked[0], asked[11], asked[13], asked.at(-1)]).toEqual([undefined, undefined, 500, 500]);
  await end();
});

test("one that is over at once is followed after a pause of half a second at most", async () => {
  const { clock, asked, end } = await alone(0);
  for (let second = 0; second < 10; second++) {
    const before = asked.length;
    await clock.advance(1000);
    expect(asked.length - before).toBeGreaterThanOrEqual(2);
    expect(asked.length - before).toBeLessThanOrEqual(8);
  }
  await end();
});

test("that nobody answers is said at once, and ever more rarely", async () => {
  const { clock, asked, told, end } = await alone(1000);
  await clock.advance(1000);
  expect(told).toHaveLength(1);
  await clock.advance(300_000);
  expect(asked.length).toBeGreaterThan(100);
  // After 10, 30, 70 and 150 seconds, each with the first attempt that fails from then on.
  const afterMs = told.map((atMs) => atMs - told[0]!);
  expect(afterMs).toHaveLength(5);
  expect(afterMs.at(-1)).toBeGreaterThanOrEqual(150_000);
  await end();
});

test("whoever knows that the server is back ends the pause", async () => {
  const { client, clock, asked, end } = await alone(0);
  await clock.advance(10_000);
  const before = asked.length;
  await clock.advance(0);
  expect(asked).toHaveLength(before);
  client.hurry();
  await clock.advance(0);
  expect(asked).toHaveLength(before + 1);
  await end();
  expect(clock.pending).toBe(0);
});

test("where bytes cost money attempts are few", async () => {
  const { clock, asked, end } = await alone(0, { isMetered: true });
  await clock.advance(60_000);
  expect(asked.length).toBeLessThan(20);
  expect(asked.every((againMs) => againMs !== undefined && againMs >= 2000)).toBe(true);
  await end();
});

test("a server that says goodbye as it answers has given no way, and the one after it has", async () => {
  const clock = new FakeClock();
  const random = seededRandom(1);
  const said: (readonly [isThere: boolean, isConnected: boolean])[] = [];
  const goodbye = Uint8Array.of(0x88, 0x02, 0x03, 0xe8);
  let answers = 0;
  const client = createTunnelClient(
    { host: "192.0.2.1", port: 6443, tls: () => ({}) },
    {
      ...{ clock, random, log: silentLogger, codec: loadCodec((size) => random.bytes(size)) },
      mayDial: () => false,
      open: () => Promise.reject(new Error("nothing may be dialed")),
      onLink: (isThere) => void said.push([isThere, client.isConnected]),
      async dial() {
        const session = Buffer.from(random.bytes(16)).toString("hex");
        const headers = { [moteHeader]: formatHello({ from: 0, ...keepalives.swift, session }) };
        return { socket: socketPair()[0], head: answers++ === 0 ? goodbye : new Uint8Array(0), headers };
      },
    },
  );
  const stop = new AbortController();
  const running = client.run(stop.signal, () => {});
  await settle();
  for (let tries = 0; tries < 100 && answers < 2; tries++) await clock.advance(100);
  await settle();
  expect([answers, said]).toEqual([2, [[true, true]]]);
  stop.abort(new Error("enough"));
  await clock.advance(3000);
  await running;
});
