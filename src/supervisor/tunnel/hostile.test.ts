// An end that is authenticated and means harm, or is broken: whatever messages it sends in whatever order, nothing is thrown
// where nobody catches, memory stays bounded, and other sessions do not notice.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, expect, test, vi } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { PlainCodec } from "#test/harness/tunnel-codec.ts";
import { controlKind, type Frame, loadCodec, type Piece } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { maxUnconfirmedBytes } from "./link.ts";
import { encodeNumber, encodeSync, messageTypes, parseHello } from "./messages.ts";
import { maxStreams, Session } from "./session.ts";
import { type End, socketPair } from "./socket-pair.fixture.ts";
import type { TunnelStream } from "./stream.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

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

// ---- one kind of harm at a time ----

const noHead = new Uint8Array(0);
const text = (value: string) => new TextEncoder().encode(value);
const open: Session[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.end("the test is over");
});

interface Victim {
  readonly session: Session;
  readonly accepted: TunnelStream[];
  readonly reasons: string[];
  /** What it says, as far as the other end reads. */
  readonly pieces: Piece[];
  readonly socket: End;
  /** So many bytes of it. */
  gotBytes(): number;
  send(frames: readonly Frame[]): void;
  /** All that was sent has been taken in. */
  taken(): Promise<void>;
}

/** A session, and an end that does what the test says: it neither answers nor confirms by itself. */
function victim({ isDialer = true, isMote = true, takes = (_: TunnelStream): void => {} } = {}): Victim {
  const random = seededRandom(11);
  const codec = loadCodec((size) => random.bytes(size));
  const accepted: TunnelStream[] = [];
  const reasons: string[] = [];
  const session = new Session(
    { peer: "n1", isDialer, isMote, keepalive: keepalives.swift },
    { codec, clock: new FakeClock(), random, log: silentLogger },
    {
      connect(stream) {
        accepted.push(stream);
        takes(stream);
      },
      over: (reason) => void reasons.push(reason),
    },
  );
  open.push(session);
  const [ours, socket] = socketPair();
  const decoder = codec.decoder(isDialer);
  const pieces: Piece[] = [];
  socket.on("data", (chunk: Buffer) => pieces.push(...decoder.push(chunk)));
  session.attach(ours, noHead, 0);
  const plain = new PlainCodec((size) => random.bytes(size));
  return {
    ...{ session, accepted, reasons, pieces, socket },
    gotBytes: () => decoder.total,
    send: (frames) => void socket.write(plain.encode(frames, !isDialer)),
    async taken() {
      while (socket.writableLength > 0 && !socket.destroyed) await settle(1);
      await settle(8);
    },
  };
}

const connect = (connection: number, target = "tcp/127.0.0.1:10250"): Frame => ({
  ...{ kind: messageTypes.connect, connection, payload: text(target) },
});
const data = (connection: number, payload: Uint8Array): Frame => ({ kind: messageTypes.data, connection, payload });
const end = (connection: number): Frame => ({ kind: messageTypes.error, connection, payload: text("EOF") });
const said = (pieces: readonly Piece[], kind: number) => pieces.filter((piece) => piece.kind === kind);
const ping: Frame = { kind: controlKind | 9, connection: 0, payload: noHead };
function pauseOf(connection: number): Frame {
  return { kind: messageTypes.pause, connection, payload: noHead };
}
function creditOf(connection: number): Frame {
  return { kind: messageTypes.credit, connection, payload: encodeNumber(Number.MAX_SAFE_INTEGER) };
}
function syncOf(size: number): Frame {
  return { kind: messageTypes.sync, connection: 0, payload: new Uint8Array(size) };
}

let collect: (() => void) | undefined;
/** Of what is in use. */
function usedMib(): number {
  if (!collect) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

test("100,000 streams are opened: as many stand as may, each of the others is told, and the session lives", async () => {
  const { session, accepted, pieces, gotBytes, send, taken } = victim();
  for (let i = 0; i < 100_000; i += 100) {
    send(Array.from({ length: 100 }, (_, n) => connect(100 + i + n)));
    if (i % 2000 > 0) continue;
    send([{ kind: messageTypes.ack, connection: 0, payload: encodeNumber(gotBytes()) }]);
    await taken();
  }
  await taken();
  expect([accepted.length, session.liveStreamCount, session.isOver]).toEqual([maxStreams, maxStreams, false]);
  const refused = said(pieces, messageTypes.error);
  expect(refused.length).toBe(100_000 - maxStreams);
  expect(Buffer.from(refused[0]!.bytes).toString()).toBe("too many connections");
});

test("streams that end before anybody has read them count until somebody has", async () => {
  const { session, accepted, pieces, send, taken } = victim();
  for (let i = 0; i < 6000; i++) {
    send([connect(100 + i), data(100 + i, new Uint8Array(100)), end(100 + i)]);
    if (i % 100 === 0) await taken();
  }
  await taken();
  expect([session.streamCount, session.liveStreamCount, accepted.length]).toEqual([0, maxStreams, maxStreams]);
  const refused = said(pieces, messageTypes.error).map(({ bytes }) => Buffer.from(bytes).toString());
  expect(refused.filter((words) => words === "too many connections")).toHaveLength(6000 - maxStreams);
  for (const stream of accepted) stream.resume();
  await settle(50);
  expect(session.liveStreamCount).toBe(0);
  send([connect(7)]);
  await settle();
  expect(session.liveStreamCount).toBe(1);
});

test("what a stream has borrowed is not lent again while its bytes are here", async () => {
  const { session, accepted, send, pieces, taken } = victim();
  let held = 0;
  for (let i = 0; i < 60; i++) {
    send([connect(100 + i)]);
    await taken();
    const stream = accepted[i]!;
    let credit = 32 * 1024;
    let seen = pieces.length;
    // A quick reader: its window grows. Then it stops, and the stream ends.
    stream.on("data", () => {});
    for (let sent = 0; sent < 600_000; ) {
      const size = Math.min(credit, 30_000);
      if (size === 0) break;
      send([data(100 + i, new Uint8Array(size))]);
      sent += size;
      credit -= size;
      await taken();
      for (; seen < pieces.length; seen++) {
        const { kind, connection, bytes } = pieces[seen]!;
        if (kind !== messageTypes.credit || connection !== 100 + i) continue;
        for (let n = 0, at = 0; at < bytes.length; n += 7, at++) credit += (bytes[at]! & 127) * 2 ** n;
      }
    }
    stream.pause();
    for (; credit > 0; credit -= 30_000) send([data(100 + i, new Uint8Array(Math.min(credit, 30_000)))]);
    send([end(100 + i)]);
    await taken();
    held = accepted.reduce((sum, one) => sum + one.heldBytes, 0);
  }
  expect(session.isOver).toBe(false);
  expect(held).toBeLessThanOrEqual(4 * 1024 * 1024 + 60 * 32 * 1024);
  expect(held).toBeGreaterThan(2 * 1024 * 1024);
});

test.each([
  ["a mote", true, 32 * 1024],
  ["k3s", false, 200_000],
])("bytes one by one, that nobody reads, take their place and little more (%s)", async (_, isMote, count) => {
  const { accepted, send, socket, taken } = victim({ isMote });
  socket.removeAllListeners("data").resume();
  const frames = Array.from({ length: 100 }, () => data(2, Uint8Array.of(7)));
  send([connect(2)]);
  await settle();
  const before = usedMib();
  for (let i = 0; i < count; i += 100) {
    send(frames.slice(0, count - i));
    if (i % 2000 === 0) await taken();
  }
  await taken();
  expect(accepted[0]!.heldBytes).toBe(count);
  expect(usedMib() - before).toBeLessThan(4);
  const parts: Buffer[] = [];
  accepted[0]!.on("data", (part: Buffer) => parts.push(part));
  await settle(20);
  expect(Buffer.concat(parts).equals(Buffer.alloc(count, 7))).toBe(true);
});

test("pieces of all sizes that had to wait come out as they came in", async () => {
  const random = seededRandom(21);
  const { accepted, send, taken } = victim({ isMote: false });
  send([connect(2)]);
  const sent: Buffer[] = [];
  const got: Buffer[] = [];
  for (let i = 0; i < 400; i++) {
    const piece = Buffer.from(random.bytes(1 + Math.floor(random.float() ** 3 * 3000)));
    sent.push(piece);
    send([data(2, piece)]);
    if (random.float() < 0.2) {
      await taken();
      const part = accepted[0]!.read() as Buffer | null;
      if (part) got.push(part);
    }
  }
  await taken();
  for (let part = accepted[0]!.read() as Buffer | null; part; part = accepted[0]!.read() as Buffer | null)
    got.push(part);
  expect(Buffer.concat(got).equals(Buffer.concat(sent))).toBe(true);
});

test("a flood of pings costs one answer at a time, also behind a queue that is full", async () => {
  const { session, pieces, socket, send, taken } = victim();
  socket.stall(true);
  for (let i = 0; i < 170; i++) send(Array.from({ length: 100 }, (_, n) => data(100 + i * 100 + n, Uint8Array.of(1))));
  await taken();
  const plain = new PlainCodec((size) => seededRandom(1).bytes(size));
  const flood = plain.encode(
    Array.from({ length: 3000 }, () => ping),
    false,
  );
  const started = process.cpuUsage();
  for (let i = 0; i < 100; i++) socket.write(flood);
  await taken();
  // 300,000 of them. Where each looks through the queue this takes seconds.
  expect(process.cpuUsage(started).user / 1e6).toBeLessThan(2.5);
  expect(session.isOver).toBe(false);
  socket.stall(false);
  for (let turns = 0; turns < 2000 && said(pieces, controlKind | 10).length === 0; turns++) await settle(1);
  const pongs = said(pieces, controlKind | 10).length;
  expect(pongs).toBeGreaterThan(0);
  expect(pongs).toBeLessThan(200);
});

test("who reads everything and confirms nothing is not kept for ever", async () => {
  const { session, reasons, socket, send, taken } = victim();
  socket.removeAllListeners("data").resume();
  const before = usedMib();
  for (let i = 0; i < 2000 && !session.isOver; i++) {
    send(Array.from({ length: 100 }, (_, n) => data(1000 + i * 100 + n, Uint8Array.of(1))));
    await taken();
  }
  expect(reasons).toEqual(["it does not confirm what it gets"]);
  expect(usedMib() - before).toBeLessThan(16);
});

test("who confirms goes on for as long as it likes; confirmations of what was never sent are nothing", async () => {
  const { session, pieces, gotBytes, send, taken } = victim();
  const ack = (payload: Uint8Array): Frame => ({ kind: messageTypes.ack, connection: 0, payload });
  for (let i = 0; i < 600; i++) {
    send(Array.from({ length: 100 }, (_, n) => data(1000 + i * 100 + n, Uint8Array.of(1))));
    send([ack(encodeNumber(2 ** 50)), ack(Uint8Array.of(0x80)), ack(encodeNumber(gotBytes()))]);
    await taken();
  }
  expect(session.isOver).toBe(false);
  expect(session.unconfirmedBytes).toBeGreaterThan(0);
  expect(session.unconfirmedBytes).toBeLessThan(maxUnconfirmedBytes / 8);
  expect(said(pieces, messageTypes.error).length).toBe(60_000);
});

test("an end that pings for a day and confirms nothing has little kept for it", async () => {
  const { session, socket, send, taken } = victim({ isDialer: false });
  socket.removeAllListeners("data").resume();
  const before = usedMib();
  for (let i = 0; i < 40_000; i++) {
    send([ping]);
    if (i % 50 === 0) await taken();
  }
  await taken();
  expect(session.unconfirmedBytes).toBeGreaterThan(60_000);
  // Each alone would be some 200 bytes.
  expect(usedMib() - before).toBeLessThan(3);
});

test.each([
  ["a connect of a megabyte", [connect(2, `tcp/${"a".repeat(2 ** 20)}`)], "", 1],
  ["a connect to nothing", [connect(2, "")], "", 1],
  ["a connection that is opened twice", [connect(2), connect(2)], "a connection was opened twice", 1],
  ["one that is opened again when it has ended, which nobody has read", [connect(2), end(2), connect(2)], "", 2],
  [
    "bytes, ends, credit and pauses for what was never opened",
    [data(9, text("x")), end(9), pauseOf(9), creditOf(9)],
    "",
    0,
  ],
  ["credit beyond all numbers", [connect(2), creditOf(2), creditOf(2), creditOf(2)], "", 1],
  ["a list of connections that is too long", [syncOf(2 ** 17)], "a list of connections that is too long", 0],
  ["more than a window", [connect(2), data(2, new Uint8Array(33_000))], "", 0],
] as const)("%s", async (_, frames, reason, live) => {
  const { session, accepted, reasons, send, socket } = victim();
  for (const one of frames as readonly Frame[]) send([one]);
  await settle(40);
  expect(reasons).toEqual(reason === "" ? [] : [reason]);
  if (reason === "") expect(session.liveStreamCount).toBe(live);
  for (const { target } of accepted) expect(target.length).toBeLessThanOrEqual(512);
  expect(socket.destroyed).toBe(reason !== "");
});

test("an error of many bytes that are no text is cut, and told without harm", async () => {
  const { session, socket, send } = victim({ isDialer: false });
  const stream = session.open("tcp", "127.0.0.1:1");
  const told = new Promise<Error>((resolve) => stream.once("error", resolve));
  send([{ kind: messageTypes.error, connection: stream.connection, payload: Buffer.alloc(50_000, 0xff) }]);
  const { message } = await told;
  expect(message.length).toBeLessThan(150);
  expect(message.startsWith("n1: tcp/127.0.0.1:1: ")).toBe(true);
  expect(socket.destroyed).toBe(false);
});
