// What a tunnel costs while nothing happens in it, and how many come back at once: an hour in a simulated clock with every byte
// counted, and a server that starts again with hundreds of nodes waiting for it.
import { setMaxListeners } from "node:events";
import { expect, test } from "vitest";
import { AppError } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { createTunnelClient } from "./client.ts";
import { loadCodec } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { formatHello, moteHeader } from "./messages.ts";
import { Session } from "./session.ts";
import { type End, socketPair } from "./socket-pair.fixture.ts";

const random = seededRandom(1);
const codec = loadCodec((size) => random.bytes(size));
const noHead = new Uint8Array(0);
const hourMs = 3_600_000;
test.each([
  // Frames, and writes: 15 pings and their answers, and a confirmation now and then.
  ["metered", true, hourMs, 32, 220],
  ["meteredK3s", false, hourMs, 240, 2400],
  ["swift", true, hourMs / 12, 630, 2800],
] as const)("an idle time of the profile %s", async (profile, isMote, forMs, mostWrites, mostBytes) => {
  const clock = new FakeClock();
  const deps = { codec, clock, random, log: silentLogger };
  const keepalive = keepalives[profile];
  const over = (reason: string) => {
    if (reason !== "the test is over") throw new Error(reason);
  };
  const node = new Session({ peer: "server", isDialer: true, isMote, keepalive }, deps, { over });
  const server = new Session({ peer: "n1", isDialer: false, isMote, keepalive }, deps, { over });
  const ends = socketPair();
  let writes = 0;
  for (const one of ends) {
    const write = one._write.bind(one);
    one._write = (...args: Parameters<End["_write"]>) => {
      writes++;
      write(...args);
    };
  }
  server.attach(ends[0], noHead, 0);
  node.attach(ends[1], noHead, 0);
  for (let ms = 0; ms < forMs; ms += 10_000) await clock.advance(10_000);
  const bytes = ends[0].bytesWritten + ends[1].bytesWritten;
  expect(writes).toBeGreaterThanOrEqual(profile === "metered" ? 28 : 100);
  expect(writes).toBeLessThanOrEqual(mostWrites);
  expect(bytes).toBeLessThanOrEqual(mostBytes);
  expect([node.isAttached, server.isAttached]).toEqual([true, true]);
  for (const session of [node, server]) session.end("the test is over");
  expect(clock.pending).toBe(0);
});

/** When each of many nodes comes back to a server that goes for so long, and how often all of them try meanwhile. */
async function comeBack(
  nodes: number,
  awayMs: number,
  answer: "refuses" | "turns away",
): Promise<{ atMs: number[]; tries: number }> {
  const clock = new FakeClock();
  const chance = seededRandom(5);
  const stop = new AbortController();
  setMaxListeners(0, stop.signal);
  let isThere = true;
  let backMs = 0;
  const atMs: number[] = [];
  let tries = 0;
  const sockets: End[] = [];
  const clients = Array.from({ length: nodes }, () =>
    createTunnelClient(
      { host: "192.0.2.1", port: 6443, tls: () => ({}) },
      {
        ...{ clock, random: chance, log: silentLogger, codec },
        mayDial: () => false,
        open: () => Promise.reject(new Error("nothing is dialed")),
        async dial() {
          if (!isThere) {
            tries++;
            throw new AppError("WEBSOCKET_DIAL", answer, { isConnected: answer === "turns away" });
          }
          if (backMs > 0) atMs.push(clock.monotonicMs() - backMs);
          const [socket, other] = socketPair();
          // It answers every ping.
          other.on("data", () => other.write(Uint8Array.of(0x8a, 0)));
          sockets.push(other);
          const hello = { from: 0, ...keepalives.metered, session: Buffer.from(chance.bytes(16)).toString("hex") };
          return { socket, head: noHead, headers: { [moteHeader]: formatHello(hello) } };
        },
      },
    ),
  );
  const running = clients.map((client) => client.run(stop.signal, () => {}));
  await settle();
  expect(clients.every(({ isConnected }) => isConnected)).toBe(true);
  await clock.advance(5000);
  isThere = false;
  for (const socket of sockets.splice(0)) socket.destroy();
  await settle();
  await clock.advance(awayMs);
  isThere = true;
  backMs = clock.monotonicMs();
  await clock.advance(5000);
  stop.abort(new Error("over"));
  await clock.advance(3000);
  await Promise.all(running);
  return { atMs, tries };
}

const nodes = 100;
const perTenth = (atMs: readonly number[]) =>
  Math.max(...Array.from({ length: 50 }, (_, i) => atMs.filter((ms) => ms >= i * 100 && ms < (i + 1) * 100).length));

test.each([
  // A thousand: five times as many in a tenth of a second.
  ["of a second and a half", 1500, 0.45],
  ["of twelve seconds", 12_000, 0.45],
])("after a restart %s nodes come back within a second, and not all at once", async (_, awayMs, mostInATenth) => {
  const { atMs, tries } = await comeBack(nodes, awayMs, "refuses");
  expect(atMs.length).toBe(nodes);
  expect(Math.max(...atMs)).toBeLessThan(1000);
  expect(perTenth(atMs) / nodes).toBeLessThan(mostInATenth);
  // A connection that is refused costs next to nothing; even so they do not hammer.
  expect(tries / nodes / (awayMs / 1000)).toBeLessThan(6);
});

test("a server that answers and takes nobody is asked less and less, and is used when it does", async () => {
  const { atMs, tries } = await comeBack(nodes, 20_000, "turns away");
  expect(atMs.length).toBe(nodes);
  expect(tries / nodes).toBeLessThan(12);
  expect(perTenth(atMs) / nodes).toBeLessThan(0.2);
});
