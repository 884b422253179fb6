// Links that are slow, uneven or lossy, idle and full of bulk: neither end may take the other for gone, and both notice in time when
// it is. All of it is simulated, with what TCP makes of lost packets: a pause that doubles, behind which everything waits.
import { Duplex } from "node:stream";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Reach } from "#platform/raw-websocket.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { loadCodec } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { Session } from "./session.ts";

interface LinkKind {
  readonly oneWayMs: number;
  readonly jitterMs?: number;
  /** Of one. */
  readonly loss?: number;
  readonly bytesPerMs?: number;
}

/** What a socket and the devices on the way hold before the writer waits. */
const bufferBytes = 64 * 1024;
const packetBytes = 1400;

class End extends Duplex {
  other!: End;
  /** Nothing gets through, and nobody is told. */
  isCut = false;
  readonly #clock: FakeClock;
  readonly #kind: LinkKind;
  readonly #float: () => number;
  #freeAtMs = 0;
  #arrivesMs = 0;

  constructor(clock: FakeClock, kind: LinkKind, float: () => number) {
    super({ allowHalfOpen: false });
    this.#clock = clock;
    this.#kind = kind;
    this.#float = float;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const { oneWayMs, jitterMs = 0, loss = 0, bytesPerMs = 1e6 } = this.#kind;
    const nowMs = this.#clock.monotonicMs();
    for (let at = 0; at < chunk.length; at += packetBytes) {
      const bytes = Buffer.from(chunk.subarray(at, at + packetBytes));
      this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + bytes.length / bytesPerMs;
      let waitsMs = oneWayMs + this.#float() * jitterMs;
      for (let againMs = 200 + 2 * oneWayMs; this.#float() < loss; againMs *= 2) waitsMs += againMs;
      this.#arrivesMs = Math.max(this.#arrivesMs, this.#freeAtMs + waitsMs);
      this.#clock.after(this.#arrivesMs - nowMs, () => {
        if (!this.isCut && !this.other.destroyed) this.other.push(bytes);
      });
    }
    this.#clock.after(Math.max(0, this.#freeAtMs - nowMs - bufferBytes / bytesPerMs), done);
  }
}

const minuteMs = 60_000;

test.each<[string, LinkKind, number, number]>([
  // Bytes of bulk in both directions, and until both have noticed a cut.
  ["a local network", { oneWayMs: 0.2 }, 0, 2250],
  ["a satellite", { oneWayMs: 300, jitterMs: 100 }, 0, 4000],
  ["two satellites", { oneWayMs: 600, jitterMs: 50 }, 0, 5500],
  ["a tenth is lost", { oneWayMs: 0.5, loss: 0.1 }, 0, 7500],
  ["a tenth is lost, far away", { oneWayMs: 50, jitterMs: 20, loss: 0.1 }, 0, 7500],
  ["64 kbit/s full of bulk", { oneWayMs: 30, bytesPerMs: 8 }, 2_000_000, 14_000],
  ["a satellite full of bulk", { oneWayMs: 300, jitterMs: 50, bytesPerMs: 64 }, 8_000_000, 9000],
])("%s: nobody who is there is taken for gone, and whoever is not, is", async (_, kind, bulkBytes, noticedMs) => {
  const clock = new FakeClock();
  const random = seededRandom(11);
  const deps = { codec: loadCodec((size) => random.bytes(size)), clock, random, log: silentLogger };
  const lost: string[] = [];
  const end = (name: string, isDialer: boolean) =>
    new Session({ peer: name, isDialer, isMote: true, keepalive: keepalives.swift }, deps, {
      connect: (stream) => void stream.pipe(stream).on("error", () => {}),
      detached: () => lost.push(name),
      over: (reason) => void (reason === "over" || lost.push(reason)),
    });
  const [node, server] = [end("node", true), end("server", false)];
  const sockets = [0, 1].map(() => new End(clock, kind, () => random.float())) as [End, End];
  [sockets[0].other, sockets[1].other] = [sockets[1], sockets[0]];
  let isCut = false;
  const reach: Reach = async (signal, connected) => {
    await clock.sleep(2 * kind.oneWayMs, signal);
    if (isCut) throw new Error("nobody there");
    connected();
    await clock.sleep(2 * kind.oneWayMs, signal);
  };
  server.attach(sockets[1], new Uint8Array(0), 0);
  node.attach(sockets[0], new Uint8Array(0), 0, { reach });
  if (bulkBytes > 0) {
    const stream = server.open("tcp", "127.0.0.1:1");
    stream.on("error", () => {}).resume();
    stream.write(Buffer.alloc(bulkBytes));
  }
  for (let ms = 0; ms < 2 * minuteMs; ms += 10_000) await clock.advance(10_000);
  expect(lost).toEqual([]);
  isCut = true;
  for (const socket of sockets) socket.isCut = true;
  await clock.advance(noticedMs);
  expect(lost.sort()).toEqual(["node", "server"]);
  for (const session of [node, server]) session.end("over");
});
