// An end that is authenticated and means harm, or is broken: whatever messages it sends in whatever order, nothing is thrown
// where nobody catches, memory stays bounded, and other sessions do not notice.
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { PlainCodec } from "#test/harness/tunnel-codec.ts";
import { controlKind, type Frame, loadCodec } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { encodeNumber, encodeSync, messageTypes, parseHello } from "./messages.ts";
import { Session } from "./session.ts";
import { socketPair } from "./socket-pair.fixture.ts";
import type { TunnelStream } from "./stream.ts";

const types = [...Object.values(messageTypes), 9, 99, controlKind | 9, controlKind | 10];

/** Streams are mostly new ones: one that is opened twice ends the session, and then there is nothing more to try. */
function frame(random: ReturnType<typeof seededRandom>, fresh: number): Frame {
  const int = (most: number) => Math.floor(random.float() * most);
  const kind = types[int(types.length)]!;
  const isNew = kind === messageTypes.connect && random.float() < 0.99;
  const connection = isNew ? 100 + fresh : [0, 2, 3, 4, 5, 100 + int(fresh + 1), -1, 2 ** 53 - 1][int(8)]!;
  const payloads: readonly (() => Uint8Array)[] = [
    () => random.bytes(int(125)),
    () => random.bytes(kind >= controlKind ? 0 : int(40_000)),
    () => encodeNumber(int(2 ** 20)),
    () => encodeNumber(Number.MAX_SAFE_INTEGER),
    () => encodeSync([2, 3, int(10)]),
    () =>
      new TextEncoder().encode(["EOF", "", "tcp/127.0.0.1:10250", "/", "tcp", "n1/5", "\u{fffd}".repeat(90)][int(7)]),
  ];
  const payload = payloads[int(payloads.length)]!();
  return { kind, connection, payload: kind >= controlKind ? payload.subarray(0, 125) : payload };
}

test.each([
  ["a mote that dials", true, true],
  ["a mote that accepts", false, true],
  ["k3s that dials", true, false],
  ["k3s that accepts", false, false],
])("random messages from the other end of %s", async (_, isDialer, isMote) => {
  let ended = 0;
  let opened = 0;
  for (let seed = 1; seed <= 5; seed++) {
    const random = seededRandom(seed);
    const accepted: TunnelStream[] = [];
    const codec = loadCodec((size) => random.bytes(size));
    const session = new Session(
      { peer: "n1", isDialer, isMote, keepalive: keepalives.swift },
      { codec, clock: new FakeClock(), random, log: silentLogger },
      {
        connect: (stream) => {
          accepted.push(stream);
          opened++;
          if (random.float() < 0.5) stream.pipe(stream);
        },
        client() {},
        over() {
          ended++;
        },
      },
    );
    const [ours, theirs] = socketPair(random);
    theirs.resume();
    session.attach(ours, new Uint8Array(0), 0);
    for (let i = 0; i < 3; i++) session.open("tcp", `127.0.0.1:${i}`).write("hello");
    let fresh = 0;
    const plain = new PlainCodec((size) => random.bytes(size));
    for (let i = 0; i < 60 && !session.isOver; i++) {
      theirs.write(
        plain.encode(
          Array.from({ length: 20 }, () => frame(random, fresh++)),
          !isDialer,
        ),
      );
      await settle(3);
    }
    const held = accepted.reduce((sum, stream) => sum + stream.heldBytes, 0);
    expect(held).toBeLessThan(64 * 1024 * 1024);
    expect(session.streamCount).toBeLessThan(4200);
    session.end("the test is over");
    expect(session.streamCount).toBe(0);
  }
  expect(ended).toBe(5);
  expect(opened).toBeGreaterThan(30);
});

test.each([
  ["v=1; from=0; ping=1000; dead=1500", true],
  ["v=1; from=7; ping=1000; dead=1500; session=0123456789abcdef0123456789abcdef", true],
  ["v=2; from=0; ping=1000; dead=1500", false],
  ["v=1; from=-1; ping=1000; dead=1500", false],
  ["v=1; from=1e9; ping=1000; dead=1500", false],
  ["v=1; from=0; ping=0; dead=1500", false],
  ["v=1; from=0; ping=1000; dead=1500; session=../../x", false],
  [`v=1; from=0; ping=1000; dead=1500${" ".repeat(300)}`, false],
  ["", false],
])("the header %j: %s", (text, isUnderstood) => {
  expect(parseHello(text) !== undefined).toBe(isUnderstood);
});
