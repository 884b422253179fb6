// Streams over one connection: bytes, ends, flow control, fairness, bounds, keepalive, and the wire towards k3s.
import { type Duplex, Readable } from "node:stream";
import { afterEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { FakeClock, settle } from "#test/harness/fake-clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { PlainCodec } from "#test/harness/tunnel-codec.ts";
import { controlKind, type Frame, loadCodec, type Piece } from "./codec.ts";
import { keepalives } from "./keepalive.ts";
import { encodeSync, messageTypes } from "./messages.ts";
import { Session, type SessionHandlers } from "./session.ts";
import { type End, socketPair } from "./socket-pair.fixture.ts";
import { firstWindowBytes, type TunnelStream } from "./stream.ts";

const random = seededRandom(7);
const codec = loadCodec((size) => random.bytes(size));
const clock = new FakeClock();
const deps = { codec, clock, random, log: silentLogger };
const noHead = new Uint8Array(0);
const open: Session[] = [];

afterEach(() => {
  for (const session of open.splice(0)) session.end("the test is over");
});

function makeSession(isDialer: boolean, isMote: boolean, handlers: Partial<SessionHandlers> = {}): Session {
  const keepalive = isMote ? keepalives.swift : keepalives.k3s;
  const session = new Session({ peer: "n1", isDialer, isMote, keepalive }, deps, { over() {}, ...handlers });
  open.push(session);
  return session;
}

interface Pair {
  readonly server: Session;
  readonly node: Session;
  readonly sockets: readonly [End, End];
  readonly accepted: TunnelStream[];
}

/** A server and a node; the node answers each stream with what comes, unless told otherwise. */
function pair(isMote: boolean, connect?: (stream: TunnelStream) => void): Pair {
  const accepted: TunnelStream[] = [];
  const server = makeSession(false, isMote);
  const node = makeSession(true, isMote, {
    connect(stream) {
      accepted.push(stream);
      if (connect) connect(stream);
      else stream.pipe(stream);
    },
  });
  const sockets = socketPair(random);
  server.attach(sockets[0], noHead, 0);
  node.attach(sockets[1], noHead, 0);
  return { server, node, sockets, accepted };
}

async function readAll(stream: Duplex): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** Bytes until so many are there. */
async function readSome(stream: Duplex, size: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let have = 0;
  for (let turns = 0; have < size && turns < 20_000; turns++) {
    const part = stream.read() as Buffer | null;
    if (part) {
      parts.push(part);
      have += part.length;
    } else await settle(1);
  }
  return Buffer.concat(parts);
}

test.each([true, false])("bytes come back as they were, on many streams at once (mote: %s)", async (isMote) => {
  const { server, node } = pair(isMote);
  const sizes = [0, 1, 100, 40_000, 700_000];
  await Promise.all(
    sizes.map(async (size, i) => {
      const bytes = Buffer.from(seededRandom(i).bytes(size));
      const stream = server.open("tcp", `127.0.0.1:${10250 + i}`);
      stream.write(bytes);
      expect((await readSome(stream, size)).equals(bytes)).toBe(true);
      stream.destroy();
    }),
  );
  await settle(50);
  expect([server.streamCount, node.streamCount]).toEqual([0, 0]);
});

test.each([true, false])("an end comes behind the bytes before it (mote: %s)", async (isMote) => {
  const bytes = Buffer.from(random.bytes(300_000));
  const { server, node } = pair(isMote, (stream) => stream.end(bytes));
  const got = await readAll(server.open("tcp", "127.0.0.1:10250"));
  expect(got.equals(bytes)).toBe(true);
  await settle(50);
  expect([server.streamCount, node.streamCount]).toEqual([0, 0]);
});

test("a writer that never tires is stopped by the other end, and others have their turns", async () => {
  const tireless = (): Readable =>
    new Readable({
      read() {
        this.push(Buffer.alloc(4096));
      },
    });
  const { server, node } = pair(true, (stream) => void tireless().pipe(stream));
  const stream = server.open("tcp", "127.0.0.1:1");
  await readSome(stream, 100_000);
  stream.destroy();
  await settle(50);
  expect([server.streamCount, node.streamCount]).toEqual([0, 0]);
});

test("a failure on one side is told to the other in its words", async () => {
  const { server } = pair(true, (stream) => stream.destroy(new Error("dial tcp 127.0.0.1:1: connection refused")));
  await expect(readAll(server.open("tcp", "127.0.0.1:1"))).rejects.toThrow(
    "tcp/127.0.0.1:1: dial tcp 127.0.0.1:1: connection refused",
  );
});

test("only whoever takes streams can be asked for one", async () => {
  const { node } = pair(true);
  await expect(readAll(node.open("tcp", "127.0.0.1:6443"))).rejects.toThrow("connect not allowed");
});

test("the end of the connection ends a k3s session's streams, and a mote's only after its time", async () => {
  for (const isMote of [true, false]) {
    const { server, sockets } = pair(isMote);
    const stream = server.open("tcp", "127.0.0.1:10250");
    let error = "";
    stream.on("error", (e) => {
      error = e.message;
    });
    await settle();
    sockets[0].destroy();
    await settle();
    expect(error === "").toBe(isMote);
    if (!isMote) expect(error).toBe("n1: tcp/127.0.0.1:10250: tunnel disconnect: the connection was lost");
  }
});

test("a reader that does not read holds its first window and no more; others go on", async () => {
  const { server, accepted } = pair(true, (stream) => {
    if (stream.connection > 2) stream.pipe(stream);
  });
  const stalled = server.open("tcp", "127.0.0.1:1");
  stalled.write(Buffer.alloc(10_000_000));
  const quick = server.open("tcp", "127.0.0.1:2");
  quick.write(Buffer.alloc(500_000, "q"));
  expect((await readSome(quick, 500_000)).length).toBe(500_000);
  expect(accepted[0]!.heldBytes).toBe(firstWindowBytes);
  stalled.destroy();
});

test("a window grows for a reader that keeps up, and shrinks for one that does not any more", async () => {
  const { server, accepted } = pair(true, () => {});
  const stream = server.open("tcp", "127.0.0.1:1");
  stream.write(Buffer.alloc(4_000_000));
  await settle();
  const [reader] = accepted;
  await readSome(reader!, 1_000_000);
  expect(reader!.windowBytes).toBeGreaterThan(firstWindowBytes * 4);
  const wide = reader!.windowBytes;
  for (let i = 0; i < 6; i++) {
    await settle(200);
    await clock.advance(200);
    await readSome(reader!, reader!.windowBytes / 2);
  }
  expect(reader!.windowBytes).toBeLessThan(wide);
});

test("all windows together are bounded", async () => {
  const { server, accepted } = pair(true, () => {});
  const streams = Array.from({ length: 40 }, (_, i) => server.open("tcp", `127.0.0.1:${i + 1}`));
  for (const stream of streams) stream.write(Buffer.alloc(1_000_000));
  await settle(100);
  await Promise.all(accepted.map((reader) => readSome(reader, 400_000)));
  await settle(300);
  const held = accepted.reduce((sum, reader) => sum + reader.heldBytes, 0);
  expect(held).toBeLessThanOrEqual(4 * 1024 * 1024 + 40 * firstWindowBytes);
  expect(held).toBeGreaterThan(40 * firstWindowBytes);
});

test("a small message passes a hundred bulk streams in a few frames", async () => {
  const { server, accepted } = pair(true, (stream) => {
    if (stream.target === "tcp/small:1") stream.pipe(stream);
    else stream.resume();
  });
  for (let i = 0; i < 100; i++) server.open("tcp", `127.0.0.1:${i + 1}`).write(Buffer.alloc(5_000_000));
  const small = server.open("tcp", "small:1");
  await settle(10);
  const before = accepted.reduce((sum, one) => sum + one.readableLength, 0);
  expect(before).toBeGreaterThanOrEqual(0);
  for (let i = 0; i < 5; i++) {
    small.write("ping");
    let turns = 0;
    while (!small.read() && turns < 1000) {
      await settle(1);
      turns++;
    }
    expect(turns).toBeLessThan(60);
  }
  for (const one of accepted) one.destroy();
});

// ---- against an end that speaks remotedialer and nothing of ours ----

interface Raw {
  readonly session: Session;
  readonly socket: End;
  readonly pieces: Piece[];
  send(frames: readonly Frame[]): void;
}

function raw(isDialer: boolean, handlers: Partial<SessionHandlers> = {}): Raw {
  const session = makeSession(isDialer, false, handlers);
  const [ours, socket] = socketPair();
  const plain = new PlainCodec((size) => random.bytes(size));
  const decoder = plain.decoder(isDialer);
  const pieces: Piece[] = [];
  socket.on("data", (chunk: Buffer) => pieces.push(...decoder.push(chunk)));
  session.attach(ours, noHead, 0);
  return { session, socket, pieces, send: (frames) => void socket.write(plain.encode(frames, !isDialer)) };
}

const text = (value: string) => new TextEncoder().encode(value);
const told = (pieces: readonly Piece[]) =>
  pieces.map(({ kind, connection, bytes }) => `${kind} ${connection} ${Buffer.from(bytes).toString("latin1")}`);

test("a server opens, sends, and ends as k3s does", async () => {
  const { session, pieces, send } = raw(false);
  const stream = session.open("tcp", "127.0.0.1:10250");
  stream.write("hello");
  await settle();
  expect(told(pieces)).toEqual(["2 2 tcp/127.0.0.1:10250", "1 2 hello"]);
  send([
    { kind: messageTypes.data, connection: 2, payload: text("world") },
    { kind: messageTypes.error, connection: 2, payload: text("EOF") },
  ]);
  expect((await readAll(stream)).toString()).toBe("world");
  await settle();
  // The echo of the end.
  expect(told(pieces).slice(2)).toEqual(["3 2 EOF"]);
  send([{ kind: messageTypes.data, connection: 9, payload: text("?") }]);
  send([{ kind: messageTypes.data, connection: 9, payload: text("?") }]);
  await settle();
  expect(told(pieces).slice(3)).toEqual(["3 9 connection not found n1/0/9"]);
});

test("heeds Pause and Resume, and asks for them", async () => {
  const accepted: TunnelStream[] = [];
  const { pieces, send } = raw(true, { connect: (stream) => void accepted.push(stream) });
  send([{ kind: messageTypes.connect, connection: 2, payload: text("tcp/127.0.0.1:10250") }]);
  for (let i = 0; i < 12; i++) send([{ kind: messageTypes.data, connection: 2, payload: new Uint8Array(32_768) }]);
  await settle(60);
  expect(told(pieces)).toEqual(["6 2 "]);
  // Still taken, as it was under way; or the other end has forgotten that it was to pause.
  for (let i = 0; i < 8; i++) send([{ kind: messageTypes.data, connection: 2, payload: new Uint8Array(32_768) }]);
  await settle(60);
  expect(told(pieces)).toEqual(["6 2 ", "6 2 "]);
  expect(accepted[0]!.heldBytes).toBe(20 * 32_768);
  await readSome(accepted[0]!, 20 * 32_768);
  await settle();
  expect(told(pieces)).toEqual(["6 2 ", "6 2 ", "7 2 "]);
  send([{ kind: messageTypes.pause, connection: 2, payload: noHead }]);
  await settle();
  accepted[0]!.write("later");
  await settle();
  expect(told(pieces).length).toBe(3);
  send([{ kind: messageTypes.resume, connection: 2, payload: noHead }]);
  await settle();
  expect(told(pieces).slice(3)).toEqual(["1 2 later"]);
});

test("a stream that is flooded despite Pause is given up, the others are not", async () => {
  const accepted: TunnelStream[] = [];
  const { session, send } = raw(true, { connect: (stream) => void accepted.push(stream) });
  send([{ kind: messageTypes.connect, connection: 2, payload: text("tcp/127.0.0.1:1") }]);
  send([{ kind: messageTypes.connect, connection: 3, payload: text("tcp/127.0.0.1:2") }]);
  for (let i = 0; i < 300; i++) send([{ kind: messageTypes.data, connection: 2, payload: new Uint8Array(32_768) }]);
  await settle(1500);
  expect(accepted[0]!.destroyed).toBe(true);
  expect(accepted[1]!.destroyed).toBe(false);
  expect(session.isOver).toBe(false);
});

test("a list of connections drops a stream that two in a row miss, not one on its way", async () => {
  const { session, send } = raw(false);
  const [old, fresh] = [session.open("tcp", "127.0.0.1:1"), session.open("tcp", "127.0.0.1:2")];
  await settle();
  send([{ kind: messageTypes.sync, connection: 0, payload: encodeSync([]) }]);
  await settle();
  expect([old.destroyed, fresh.destroyed]).toEqual([false, false]);
  send([{ kind: messageTypes.sync, connection: 0, payload: encodeSync([3, 2 ** 40]) }]);
  await settle();
  expect([old.destroyed, fresh.destroyed]).toEqual([true, false]);
});

test("the dialing end pings every 5 s, lists its streams every 60 s, and gives up after a minute of silence", async () => {
  const reasons: string[] = [];
  const { session, pieces, send } = raw(true, {
    connect: () => {},
    over: (reason) => void reasons.push(reason),
  });
  send([{ kind: messageTypes.connect, connection: 5, payload: text("tcp/127.0.0.1:1") }]);
  const pong = { kind: controlKind | 10, connection: 0, payload: noHead };
  for (let second = 0; second < 65; second++) {
    await clock.advance(1000);
    if (second % 2) send([pong]);
    await settle(2);
  }
  const kinds = pieces.map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === (controlKind | 9)).length).toBeGreaterThanOrEqual(10);
  expect(told(pieces).filter((line) => line.startsWith("8 "))).toEqual([
    `8 0 ${Buffer.from(encodeSync([5])).toString("latin1")}`,
  ]);
  expect(session.isOver).toBe(false);
  for (let second = 0; second < 66; second++) await clock.advance(1000);
  expect(reasons).toEqual(["the connection was lost"]);
});

test("answers the last ping, says goodbye, and takes it", async () => {
  const { socket, pieces, send, session } = raw(false);
  send([{ kind: controlKind | 9, connection: 0, payload: text("abc") }]);
  await settle();
  expect(told(pieces)).toEqual([`${controlKind | 10} 0 abc`]);
  session.close();
  await settle();
  expect(pieces.at(-1)!.kind).toBe(controlKind | 8);
  expect(socket.destroyed).toBe(true);
  const other = raw(false);
  other.send([{ kind: controlKind | 8, connection: 0, payload: noHead }]);
  await settle();
  expect(other.session.isOver).toBe(true);
});

test("whoever asks without reading the answers is cut off", async () => {
  const reasons: string[] = [];
  const { socket, send } = raw(false, { over: (reason) => void reasons.push(reason) });
  socket.stall(true);
  for (let i = 0; i < 400 && reasons.length === 0; i++) {
    const frames = Array.from({ length: 100 }, (_, n) => ({
      ...{ kind: messageTypes.connect, connection: 10 + i * 100 + n, payload: text("tcp/127.0.0.1:1") },
    }));
    send(frames);
    await settle(2);
  }
  expect(reasons).toEqual(["it asks without reading the answers"]);
});

test.each([
  ["a text message", Buffer.from("8101" + "41", "hex")],
  ["rubbish", Buffer.alloc(20, 0xff)],
])("%s ends the session and nothing else", async (_, bytes) => {
  const reasons: string[] = [];
  const { socket } = raw(true, { over: (reason) => void reasons.push(reason) });
  socket.write(bytes);
  await settle();
  expect(reasons.length).toBe(1);
  expect(socket.destroyed).toBe(true);
});

/** A clock whose owner was not running for a while: timers fire late, and all at once. */
class LateClock extends FakeClock {
  lateMs = 0;
  override monotonicMs(): number {
    return super.monotonicMs() + this.lateMs;
  }
}

test("between motes silence is noticed within two seconds and a tick, a stall of our own is not taken for it", async () => {
  const late = new LateClock();
  let detached = 0;
  const session = new Session(
    { peer: "n1", isDialer: true, isMote: true, keepalive: keepalives.swift },
    { ...deps, clock: late },
    { detached: () => detached++, over() {} },
  );
  open.push(session);
  const [ours, theirs] = socketPair();
  const plain = new PlainCodec((size) => random.bytes(size));
  theirs.on("data", () =>
    theirs.write(plain.encode([{ kind: controlKind | 10, connection: 0, payload: noHead }], false)),
  );
  session.attach(ours, noHead, 0);
  await late.advance(10_000);
  late.lateMs += 20_000;
  await late.advance(30_000);
  expect(detached).toBe(0);
  theirs.stall(true);
  await late.advance(900);
  expect(detached).toBe(0);
  await late.advance(1350);
  expect(detached).toBe(1);
});
