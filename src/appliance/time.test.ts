import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import { openUdp, type UdpSocket } from "#platform/datagram.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createTimeSync, startClock, type TimeDeps } from "./time.ts";

const hour = 3600_000;
let folder: string;
let socket: UdpSocket;
let asked = 0;
let answer: (request: Buffer) => Buffer | undefined = () => undefined;
const set: number[] = [];
const disbelieved: string[] = [];

/** A clock that is `behindMs` late, and hears when it is set. */
const deps = (behindMs: number): TimeDeps => ({
  clock: { ...systemClock, now: () => systemClock.now() - behindMs },
  random: seededRandom(1),
  log: silentLogger,
  setTime: async (ms) => void set.push(ms),
  onDisbelief: (sentence) => void disbelieved.push(sentence),
});

beforeEach(async () => {
  folder = mkdtempSync("/tmp/mote-time-");
  set.length = 0;
  disbelieved.length = 0;
  asked = 0;
  socket = await openUdp({
    ...{ address: "127.0.0.1", port: 0 },
    onMessage(data, from) {
      asked++;
      const reply = answer(data);
      if (reply) socket.send(reply, from.port, from.address);
    },
    onError() {},
  });
});
afterEach(async () => {
  await socket.close();
  rmSync(folder, { recursive: true });
});

function reply(request: Buffer, change: (packet: Buffer) => void = () => {}): Buffer {
  const packet = Buffer.alloc(48);
  packet[0] = (4 << 3) | 4;
  packet[1] = 2;
  request.copy(packet, 24, 40, 48);
  for (const at of [32, 40]) {
    const ms = systemClock.now();
    packet.writeUInt32BE((Math.floor(ms / 1000) + 2_208_988_800) % 2 ** 32, at);
    packet.writeUInt32BE(Math.floor(((ms % 1000) / 1000) * 2 ** 32), at + 4);
  }
  change(packet);
  return packet;
}

describe("time servers", () => {
  const run = async (until: () => boolean, past: number[] = []) => {
    const stop = new AbortController();
    const options = { path: `${folder}/last`, past, port: socket.port, servers: async () => ["127.0.0.1"] };
    const done = createTimeSync(options, deps(10 * hour)).run(stop.signal, () => {});
    const deadlineMs = systemClock.monotonicMs() + 30_000;
    while (!until() && systemClock.monotonicMs() < deadlineMs) await systemClock.sleep(10);
    stop.abort();
    await done;
  };

  test("an answer sets the clock and is remembered", async () => {
    answer = (request) => reply(request);
    await run(() => set.length > 0);
    expect(Math.abs(set[0]! - systemClock.now())).toBeLessThan(30_000);
    expect(Date.parse(readFileSync(`${folder}/last`, "utf8").trim())).toBeGreaterThan(0);
  });

  test("an answer from before what has certainly passed is said, and not followed", async () => {
    answer = (request) => reply(request);
    await run(() => disbelieved.length > 0, [systemClock.now() + 400 * 24 * hour]);
    expect(set).toEqual([]);
    expect(disbelieved).toEqual([expect.stringMatching(/^The time server 127.0.0.1 says it is 20..-..-.., but/)]);
  });

  test.each<[string, (packet: Buffer) => void]>([
    ["from a server that knows no time", (packet) => packet.writeUInt8(0xe4, 0)],
    ["of stratum 0", (packet) => packet.writeUInt8(0, 1)],
    ["to another question", (packet) => packet.writeUInt8(packet[24]! ^ 1, 24)],
    ["without time", (packet) => packet.fill(0, 32, 48)],
    ["of a client", (packet) => packet.writeUInt8((4 << 3) | 3, 0)],
  ])("an answer %s is none", async (_, change) => {
    answer = (request) => reply(request, change);
    await run(() => asked > 0);
    await systemClock.sleep(50);
    expect(set).toEqual([]);
  });
});

test("at start the clock is moved to the last known time, never back", async () => {
  const now = systemClock.now();
  writeFileSync(`${folder}/last`, `${new Date(now).toISOString()}\n`);
  const options = { path: `${folder}/last`, past: [now - 50 * hour] };
  await startClock(options, deps(10 * hour));
  expect(set).toEqual([now]);
  await startClock(options, deps(-hour));
  expect(set).toHaveLength(1);
  writeFileSync(`${folder}/last`, "nonsense");
  await startClock(options, deps(100 * hour));
  expect(set.at(-1)).toBe(now - 50 * hour);
});
