// Cuts at any moment: what streams carry is neither lost nor repeated, in both directions, as long as the sessions live.
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { loadCodec } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { maxUnconfirmedBytes } from "./link.ts";
import { Session } from "./session.ts";
import { socketPair } from "./socket-pair.fixture.ts";
import type { TunnelStream } from "./stream.ts";

const noHead = new Uint8Array(0);

interface Ends {
  readonly server: Session;
  readonly node: Session;
  /** A new connection, as the handshake makes it: each asks for what it wants. */
  connect(): void;
  /** The connection breaks with bytes under way; `isSeen`: by which ends. */
  cut(isSeen: readonly [boolean, boolean]): void;
}

function ends(seed: number, connect: (stream: TunnelStream) => void): Ends {
  const random = seededRandom(seed);
  const codec = loadCodec((size) => random.bytes(size));
  const deps = { codec, clock: new FakeClock(), random, log: silentLogger };
  const common = { isMote: true, keepalive: keepalives.swift } as const;
  const fails = (reason: string) => {
    if (reason !== "the test is over") throw new Error(reason);
  };
  const server = new Session({ ...common, peer: "n1", isDialer: false }, deps, { over: fails });
  const node = new Session({ ...common, peer: "server", isDialer: true }, deps, { connect, over: fails });
  let sockets = socketPair(random);
  return {
    server,
    node,
    connect() {
      const [forServer, forNode] = [server.wanted, node.wanted];
      expect([server.canResume(forNode), node.canResume(forServer)]).toEqual([true, true]);
      sockets = socketPair(random);
      server.attach(sockets[0], noHead, forNode);
      node.attach(sockets[1], noHead, forServer);
    },
    cut(isSeen) {
      // An end that sees nothing keeps its socket, into which it goes on to write.
      for (const [i, socket] of sockets.entries()) {
        socket.stall(true);
        if (isSeen[i]) socket.destroy();
      }
    },
  };
}

/** Bytes that tell where in which stream they stand. */
function pattern(stream: number, size: number): Buffer {
  const out = Buffer.alloc(size);
  for (let i = 0; i < size; i++) out[i] = (i * 31 + (i >> 8) * 7 + stream * 101) & 255;
  return out;
}

async function carry(seed: number): Promise<{ cuts: number; bytes: number }> {
  const random = seededRandom(seed);
  const both = ends(seed, (stream) => stream.pipe(stream));
  both.connect();
  const count = 1 + Math.floor(random.float() * 4);
  let open = count;
  let bytes = 0;
  const streams = Array.from({ length: count }, async (_, i) => {
    const sent = pattern(i, Math.floor(random.float() ** 2 * 400_000));
    const stream = both.server.open("tcp", `127.0.0.1:${i + 1}`);
    // In pieces, so that writes fall into all phases.
    const write = async () => {
      for (let at = 0; at < sent.length; ) {
        const size = 1 + Math.floor(random.float() ** 4 * 60_000);
        if (!stream.write(sent.subarray(at, at + size))) await new Promise((resolve) => stream.once("drain", resolve));
        at += size;
        if (random.float() < 0.3) await settle(1);
      }
    };
    const parts: Buffer[] = [];
    const read = new Promise<void>((resolve, reject) => {
      let have = 0;
      const done = () => {
        if (have >= sent.length) resolve();
      };
      done();
      stream.on("error", reject);
      stream.on("data", (part: Buffer) => {
        parts.push(Buffer.from(part));
        have += part.length;
        done();
      });
    });
    await Promise.all([write(), read]);
    expect(Buffer.concat(parts).equals(sent), `seed ${seed}, stream ${i}`).toBe(true);
    bytes += sent.length;
    open--;
  });
  const all = Promise.all(streams);
  let cuts = 0;
  const cutter = async () => {
    while (open > 0) {
      await settle(Math.floor(random.float() ** 2 * 60));
      if (open === 0) break;
      cuts++;
      both.cut([random.float() < 0.7, random.float() < 0.7]);
      await settle(Math.floor(random.float() * 5));
      both.connect();
    }
  };
  await Promise.all([all, cutter()]);
  await settle();
  both.server.end("the test is over");
  both.node.end("the test is over");
  return { cuts, bytes };
}

test("streams survive cuts at any moment without losing or repeating a byte", async () => {
  let cuts = 0;
  let bytes = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const carried = await carry(seed);
    cuts += carried.cuts;
    bytes += carried.bytes;
  }
  expect(cuts).toBeGreaterThan(40);
  expect(bytes).toBeGreaterThan(1_000_000);
});

test("control: a connection that goes on behind what was under way loses bytes", async () => {
  const both = ends(3, (stream) => stream.pipe(stream));
  both.connect();
  const stream = both.server.open("tcp", "127.0.0.1:1");
  let have = 0;
  stream.on("data", (part: Buffer) => {
    have += part.length;
  });
  stream.write(Buffer.alloc(30_000));
  both.cut([true, true]);
  await settle(5);
  let from = both.node.wanted;
  while (both.server.canResume(from + 1)) from++;
  expect(from).toBeGreaterThan(20_000);
  const [forServer, forNode] = socketPair();
  const wanted = both.server.wanted;
  both.server.attach(forServer, noHead, from);
  both.node.attach(forNode, noHead, wanted);
  await settle(50);
  expect(have).toBeLessThan(30_000);
});

test("while the other end does not confirm, what is kept is bounded, and writers wait", async () => {
  const both = ends(5, (stream) => stream.resume());
  both.connect();
  const streams = Array.from({ length: 100 }, (_, i) => both.server.open("tcp", `127.0.0.1:${i + 1}`));
  for (const stream of streams) stream.write(Buffer.alloc(100_000));
  await settle(20);
  both.cut([false, true]);
  await settle(200);
  expect(both.server.unconfirmedBytes).toBeLessThanOrEqual(maxUnconfirmedBytes + 128 * 1024);
  both.connect();
  const isDone = () => streams.every((stream) => stream.writableLength === 0);
  for (let turns = 0; turns < 5000 && !isDone(); turns++) await settle(1);
  expect(isDone()).toBe(true);
});
