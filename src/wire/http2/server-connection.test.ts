// The state machine alone, frame by frame: what it tells and answers, whatever the chunks; and what hostile clients get.
// With real clients: platform/https-server.test.ts and datastore/etcd-face.test.ts.
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { connect } from "node:http2";
import { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { errorCode, frameFlag, frameType, preface, setting } from "./frames.ts";
import { encodeHeaderBlock } from "./hpack.ts";
import { SendBuffers } from "./send-buffers.ts";
import { Http2ServerConnection } from "./server-connection.ts";
import type { DataSource, Http2Stream } from "./stream.ts";

const options = {
  maxConcurrentStreams: 300,
  streamWindowBytes: 100_000,
  connectionWindowBytes: 200_000,
  maxHeaderBytes: 4096,
  maxQueuedBytes: 1_000_000,
  buffers: new SendBuffers(),
};
const block = encodeHeaderBlock([
  [":method", "POST"],
  [":path", "/a"],
]);

function frame(type: number, flags: number, id: number, payload: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}
const number = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const settings = (...pairs: [number, number][]): Buffer =>
  frame(
    frameType.settings,
    0,
    0,
    Buffer.concat(pairs.map(([name, v]) => Buffer.concat([Buffer.from([0, name]), number(v)]))),
  );
const headers = (id: number, flags: number = frameFlag.endHeaders): Buffer =>
  frame(frameType.headers, flags, id, block);
const data = (id: number, bytes: Uint8Array, flags = 0): Buffer => frame(frameType.data, flags, id, bytes);
const hello = Buffer.concat([Buffer.from(preface), settings()]);

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

function framesOf(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUIntBE(at, 3);
    const payload = bytes.subarray(at + 9, at + 9 + length);
    frames.push({ type: bytes[at + 3]!, flags: bytes[at + 4]!, id: bytes.readUInt32BE(at + 5), payload });
    at += 9 + length;
  }
  return frames;
}

type Answer = (stream: Http2Stream, body: Buffer) => void;

function open(answer: Answer = () => {}) {
  const log: string[] = [];
  const streams = new Map<number, Http2Stream>();
  const connection = new Http2ServerConnection(options, {
    request(stream, list) {
      log.push(`${stream.id} ${list.join(" ")}`);
      streams.set(stream.id, stream);
      const parts: Uint8Array[] = [];
      return {
        data(bytes) {
          parts.push(bytes);
          stream.consumed(bytes.length);
        },
        end() {
          const body = Buffer.concat(parts);
          log.push(`${stream.id} end ${body.length}`);
          answer(stream, body);
        },
        gone: () => log.push(`${stream.id} gone`),
        caughtUp: () => log.push(`${stream.id} caught up`),
      };
    },
    output() {},
    outputIsLarge() {},
    sourceFailed: (why) => log.push(`failed: ${why}`),
  });
  const taken = (): Frame[] => framesOf(Buffer.concat(connection.takeOutput()));
  return { connection, log, streams, taken };
}

/** What the last frame says of why it is over. */
function goAwayOf(frames: readonly Frame[]): number | undefined {
  const last = frames.at(-1);
  return last?.type === frameType.goAway ? last.payload.readUInt32BE(4) : undefined;
}

describe("a conversation", () => {
  const echo: Answer = (stream, body) => {
    stream.respond(block, false);
    stream.data(body);
    stream.end(block);
  };
  const bodies = [0, 1, 500, 16_384, 40_000].map((size) => Buffer.alloc(size, size % 251));
  const conversation = Buffer.concat([
    hello,
    frame(frameType.windowUpdate, 0, 0, number(1_000_000)),
    ...bodies.flatMap((body, i) => {
      const id = 2 * i + 1;
      const split = [block.subarray(0, 3), block.subarray(3)] as const;
      const begin =
        i % 2 === 0
          ? [headers(id)]
          : [
              frame(frameType.headers, 0, id, split[0]),
              frame(frameType.continuation, frameFlag.endHeaders, id, split[1]),
            ];
      const rest: Buffer[] = [];
      for (let at = 0; at < body.length; at += 16_384) rest.push(data(id, body.subarray(at, at + 16_384)));
      const padded = frame(frameType.data, frameFlag.padded | frameFlag.endStream, id, Buffer.from([4, 7, 0, 0, 0, 0]));
      return [...begin, ...rest, padded, frame(frameType.ping, 0, 0, Buffer.alloc(8, i)), frame(99, 0, 0)];
    }),
  ]);

  function talk(chunkSize: () => number) {
    const { connection, log, taken } = open(echo);
    for (let at = 0; at < conversation.length; ) {
      const size = chunkSize();
      connection.receive(Buffer.from(conversation.subarray(at, at + size)));
      at += size;
    }
    const answers = new Map<number, Buffer[]>();
    const frames = taken();
    for (const { type, id, payload } of frames) {
      if (type === frameType.data) answers.set(id, [...(answers.get(id) ?? []), payload]);
    }
    const sent = Buffer.concat(frames.flatMap(({ type, flags, id, payload }) => [frame(type, flags, id), payload]));
    const bytes = new Map([...answers].map(([id, parts]) => [id, Buffer.concat(parts)]));
    return { log, answers: bytes, same: `${log.join()} ${createHash("sha256").update(sent).digest("hex")}` };
  }

  test("is the same whatever the chunks are", () => {
    const random = seededRandom(3);
    const whole = talk(() => conversation.length);
    expect(whole.log.filter((line) => line.includes("end"))).toEqual(
      bodies.map((b, i) => `${2 * i + 1} end ${b.length + 1}`),
    );
    for (const [i, body] of bodies.entries())
      expect(whole.answers.get(2 * i + 1)?.equals(Buffer.concat([body, Buffer.from([7])]))).toBe(true);
    for (const size of [1, 9, 10, 24]) expect(talk(() => size).same).toBe(whole.same);
    for (let round = 0; round < 50; round++)
      expect(talk(() => 1 + Math.floor(random.float() ** 3 * 20_000)).same).toBe(whole.same);
  });

  test("ends with a stream of the client's that is longer than its windows", () => {
    const { connection, log, taken } = open();
    connection.receive(Buffer.concat([hello, headers(1)]));
    let [mine, all] = [options.streamWindowBytes, options.connectionWindowBytes];
    for (let sent = 0; sent < 1_000_000; sent += 16_000) {
      connection.receive(data(1, Buffer.alloc(16_000)));
      mine -= 16_000;
      all -= 16_000;
      for (const { type, id, payload } of taken()) {
        if (type !== frameType.windowUpdate || sent === 0) continue;
        if (id === 1) mine += payload.readUInt32BE();
        else all += payload.readUInt32BE();
      }
      expect(Math.min(mine, all)).toBeGreaterThan(16_000);
    }
    connection.receive(data(1, Buffer.alloc(0), frameFlag.endStream));
    expect(log.at(-1)).toBe("1 end 1008000");
  });
});

describe("windows of the client", () => {
  test("are kept, stream by stream and together, and all arrives", () => {
    const random = seededRandom(5);
    const { connection, streams, taken, log } = open();
    connection.receive(Buffer.concat([Buffer.from(preface), settings([setting.initialWindowSize, 10])]));
    const owed = new Map<number, number>();
    for (let i = 0; i < 20; i++) {
      connection.receive(headers(2 * i + 1));
      const bytes = Math.floor(random.float() * 20_000);
      owed.set(2 * i + 1, bytes);
      const stream = streams.get(2 * i + 1)!;
      stream.respond(block, false);
      for (let left = bytes; left > 0; left -= 3000) stream.data(Buffer.alloc(Math.min(3000, left)));
      // With trailers, and without.
      if (i % 2 === 0) stream.end(block);
      else stream.finish();
      stream.data(Buffer.alloc(10));
    }
    const windows = new Map([...owed.keys()].map((id) => [id, 10]));
    let together = 65_535;
    const ended = new Set<number>();
    for (let round = 0; round < 5000 && ended.size < 20; round++) {
      for (const { type, id, payload, flags } of taken()) {
        if (type === frameType.data) expect(ended.has(id)).toBe(false);
        if ((flags & frameFlag.endStream) !== 0 && id !== 0) ended.add(id);
        if (type !== frameType.data) continue;
        windows.set(id, windows.get(id)! - payload.length);
        owed.set(id, owed.get(id)! - payload.length);
        together -= payload.length;
        expect(Math.min(windows.get(id)!, together)).toBeGreaterThanOrEqual(0);
      }
      const id = 2 * Math.floor(random.float() * 20) + 1;
      const more = 1 + Math.floor(random.float() * 5000);
      if (round % 2 === 0) {
        together += more;
        connection.receive(frame(frameType.windowUpdate, 0, 0, number(more)));
      } else {
        windows.set(id, windows.get(id)! + more);
        connection.receive(frame(frameType.windowUpdate, 0, id, number(more)));
      }
    }
    expect([...owed.values()].every((bytes) => bytes === 0)).toBe(true);
    expect(ended.size).toBe(20);
    expect(log.filter((line) => line.includes("gone"))).toEqual([]);
  });

  test("a socket that is full holds data back, and answers to pings have a bound", () => {
    const { connection, streams, taken } = open();
    connection.receive(Buffer.concat([hello, headers(1)]));
    taken();
    connection.pause();
    streams.get(1)!.data(Buffer.alloc(100));
    expect(taken().filter(({ type }) => type === frameType.data)).toEqual([]);
    connection.resume();
    expect(taken().filter(({ type }) => type === frameType.data).length).toBe(1);
    connection.pause();
    for (let i = 0; i < 20_000 && connection.failure === undefined; i++) {
      if (i % 1000 === 0) connection.relax();
      connection.receive(frame(frameType.ping, 0, 0, Buffer.alloc(8)));
    }
    expect(connection.failure).toBe("the client asks and does not read");
  });
});

describe("data that is made while it is sent", () => {
  /** Hands out `bytes` in pieces of its own size; says when it is closed. */
  function sourceOf(bytes: Buffer, pieceBytes: number, log: string[], failAt = Infinity): DataSource {
    let at = 0;
    return {
      fill(into) {
        if (at >= failAt) throw new Error("no more");
        const size = Math.min(pieceBytes, into.length, bytes.length - at);
        bytes.copy(into, 0, at, at + size);
        at += size;
        return size;
      },
      close: () => log.push("closed"),
    };
  }
  const bytes = Buffer.from(Array.from({ length: 1_500_000 }, (_, i) => (i * 7) ^ (i >> 8)));

  test.each([1000, 50_000, 1_000_000])("arrives whole within windows of any size, in pieces of %i", (pieceBytes) => {
    const random = seededRandom(pieceBytes);
    const closed: string[] = [];
    const { connection, taken } = open((stream) => {
      stream.respond(block, false);
      stream.dataFrom(sourceOf(bytes, pieceBytes, closed));
      stream.end(block);
    });
    connection.receive(Buffer.concat([hello, headers(1, 5), headers(3, 5)]));
    const received = { 1: [] as Buffer[], 3: [] as Buffer[] };
    const ended: number[] = [];
    for (let i = 0; i < 10_000 && ended.length < 2; i++) {
      // The socket is behind now and then: what it was given must not change meanwhile.
      const full = random.float() < 0.25;
      if (full) connection.pause();
      for (const { type, flags, id, payload } of taken()) {
        if (type === frameType.data) received[id as 1 | 3].push(Buffer.from(payload));
        if (type === frameType.headers && (flags & frameFlag.endStream) !== 0) ended.push(id);
      }
      connection.written();
      if (full) connection.resume();
      const grant = number(1 + Math.floor(random.float() * 60_000));
      connection.receive(
        Buffer.concat([0, 1, 3].map((id) => frame(frameType.windowUpdate, 0, ended.includes(id) ? 0 : id, grant))),
      );
      connection.relax();
    }
    expect(ended.sort()).toEqual([1, 3]);
    for (const parts of Object.values(received)) expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect(closed).toEqual(["closed", "closed"]);
  });

  test("in two parts is one frame, and what was sent does not change when its buffers are used again", () => {
    const { connection, streams, taken } = open();
    const wide = [
      frame(frameType.windowUpdate, 0, 0, number(100_000_000)),
      settings([setting.initialWindowSize, 50_000_000]),
    ];
    connection.receive(Buffer.concat([hello, ...wide, headers(1)]));
    const stream = streams.get(1)!;
    stream.respond(block, false);
    const head = Buffer.alloc(8);
    const expected: Buffer[] = [];
    taken();
    const sent: Buffer[] = [];
    for (let round = 0; round < 20; round++) {
      const under: Uint8Array[] = [];
      for (let i = 0; i < 600; i++) {
        const tail = Buffer.alloc([0, 100, 4000, 5000][i % 4]!, round * 7 + i);
        head.fill(round + i);
        expected.push(Buffer.concat([head, tail]));
        stream.dataOf(head, tail);
        // On its way to the socket, which has not taken it yet, while the next ones are made.
        if (i % 100 === 50) under.push(...connection.takeOutput());
      }
      for (let more = connection.takeOutput(); more.length > 0; more = connection.takeOutput()) {
        under.push(...more);
        connection.resume();
      }
      sent.push(Buffer.concat(under));
      connection.written();
    }
    const got = framesOf(Buffer.concat(sent)).filter(({ type }) => type === frameType.data);
    expect(Buffer.concat(got.map(({ payload }) => payload)).equals(Buffer.concat(expected))).toBe(true);
  });

  test("is not made before there is room, and its source is closed with its stream", () => {
    const closed: string[] = [];
    let made = 0;
    const { connection, taken } = open((stream) => {
      stream.respond(block, false);
      const source = sourceOf(bytes, 20_000, closed);
      const fill = (into: Buffer) => {
        made += 20_000;
        return source.fill(into);
      };
      stream.dataFrom({ ...source, fill });
      stream.end(block);
    });
    connection.receive(Buffer.concat([hello, headers(1, 5)]));
    taken();
    expect(made).toBeLessThan(100_000);
    connection.receive(frame(frameType.reset, 0, 1, number(8)));
    expect(closed).toEqual(["closed"]);
    expect(connection.streamCount).toBe(0);
  });

  test("that fails resets the stream alone", () => {
    const { connection, log, taken } = open((stream) => {
      stream.respond(block, false);
      stream.dataFrom(sourceOf(bytes, 20_000, log, 40_000));
      stream.end(block);
    });
    connection.receive(Buffer.concat([hello, headers(1, 5)]));
    const reset = taken().find(({ type }) => type === frameType.reset);
    expect(reset?.payload.readUInt32BE()).toBe(errorCode.internal);
    expect(log).toContain("failed: no more");
    expect(log.filter((line) => line === "closed")).toHaveLength(1);
    expect(connection.failure).toBeUndefined();
  });
});

describe("hostile clients", () => {
  const rapid = (i: number) => Buffer.concat([headers(2 * i + 1), frame(frameType.reset, 0, 2 * i + 1, number(8))]);
  test.each<[string, (i: number) => Buffer, number]>([
    ["streams that are reset at once", rapid, errorCode.enhanceYourCalm],
    ["pings", () => frame(frameType.ping, 0, 0, Buffer.alloc(8)), errorCode.enhanceYourCalm],
    ["settings", () => settings([setting.headerTableSize, 1]), errorCode.enhanceYourCalm],
    ["priorities", () => frame(frameType.priority, 0, 1, Buffer.alloc(5)), errorCode.enhanceYourCalm],
    ["frames of no type", () => frame(77, 0, 0), errorCode.enhanceYourCalm],
    ["empty data", (i) => (i === 0 ? headers(1) : data(1, Buffer.alloc(0))), errorCode.enhanceYourCalm],
    [
      "a header block without end",
      (i) => (i === 0 ? headers(1, 0) : frame(frameType.continuation, 0, 1)),
      errorCode.enhanceYourCalm,
    ],
    [
      "a header block that is long",
      (i) => (i === 0 ? headers(1, 0) : frame(frameType.continuation, 0, 1, Buffer.alloc(1000))),
      errorCode.enhanceYourCalm,
    ],
    ["streams beyond the number allowed", (i) => headers(2 * i + 1), errorCode.enhanceYourCalm],
    ["a window that overflows", () => frame(frameType.windowUpdate, 0, 0, number(0x7fffffff)), errorCode.flowControl],
    ["data beyond the window", (i) => (i === 0 ? headers(1) : data(3, Buffer.alloc(9))), errorCode.protocol],
    [
      "a malformed header block",
      () => frame(frameType.headers, frameFlag.endHeaders, 1, Buffer.from([0x80])),
      errorCode.compression,
    ],
    ["a frame that is too large", () => frame(frameType.data, 0, 1, Buffer.alloc(16_385)), errorCode.frameSize],
    ["another stream within a header block", (i) => (i === 0 ? headers(1, 0) : headers(3)), errorCode.protocol],
    ["a push", () => frame(frameType.pushPromise, 0, 1, Buffer.alloc(4)), errorCode.protocol],
    ["a stream of ours", () => headers(2), errorCode.protocol],
    ["a window update of 0", () => frame(frameType.windowUpdate, 0, 0, number(0)), errorCode.protocol],
    ["a reset of nothing", () => frame(frameType.reset, 0, 9, number(0)), errorCode.protocol],
    ["a window of 2^31", () => settings([setting.initialWindowSize, 2 ** 31]), errorCode.flowControl],
  ])("%s", (_name, attack, code) => {
    const { connection, taken, streams } = open();
    connection.receive(hello);
    let frames: Frame[] = [];
    for (let i = 0; i < 10_000 && connection.failure === undefined; i++) {
      connection.receive(attack(i));
      frames = taken();
    }
    expect(goAwayOf(frames)).toBe(code);
    expect(connection.ended).toBe(true);
    expect(connection.streamCount).toBe(0);
    expect([...streams.values()].every((stream) => stream.closed)).toBe(true);
  });

  test("one that takes a byte of many answers holds no more than the bound and one buffer", () => {
    const { connection, streams, taken } = open();
    connection.receive(Buffer.concat([Buffer.from(preface), settings([setting.initialWindowSize, 1])]));
    const ids = Array.from({ length: 200 }, (_, i) => 1 + 2 * i);
    let filled = 0;
    for (const id of ids) {
      connection.receive(headers(id));
      streams.get(id)!.respond(block, false);
      streams.get(id)!.dataFrom({
        fill: (into) => {
          filled++;
          return into.length;
        },
        close: () => {},
      });
    }
    taken();
    expect(connection.failure).toBeUndefined();
    const owed = ids.reduce((sum, id) => sum + streams.get(id)!.queuedBytes, 0);
    expect(owed).toBeGreaterThan(500_000);
    expect(owed).toBeLessThanOrEqual(options.maxQueuedBytes + 128 * 1024);
    // The others are not forgotten: they get theirs when the first go on.
    const before = filled;
    for (const id of ids.slice(0, 8))
      connection.receive(Buffer.concat([Buffer.from(frame(frameType.windowUpdate, 0, id, number(1_000_000)))]));
    connection.receive(frame(frameType.windowUpdate, 0, 0, number(10_000_000)));
    expect(filled).toBeGreaterThan(before);
  });

  test("one that lets answers pile up is cut off at the bound", () => {
    const { connection, streams, taken, log } = open();
    connection.receive(Buffer.concat([hello, headers(1), headers(3)]));
    for (let i = 0; i < 200 && connection.failure === undefined; i++) {
      streams.get(1 + 2 * (i % 2))!.data(Buffer.alloc(10_000));
      expect(streams.get(1)!.queuedBytes + streams.get(3)!.queuedBytes).toBeLessThanOrEqual(options.maxQueuedBytes);
    }
    expect(goAwayOf(taken())).toBe(errorCode.enhanceYourCalm);
    expect(log.slice(-2)).toEqual(["1 gone", "3 gone"]);
  });

  test.each<[string, Buffer, number]>([
    ["data beyond the stream's window", data(1, Buffer.alloc(16_384)), errorCode.flowControl],
    [
      "data after the end",
      Buffer.concat([data(1, Buffer.alloc(1), 1), data(1, Buffer.alloc(1))]),
      errorCode.streamClosed,
    ],
    [
      "a window of the stream that overflows",
      frame(frameType.windowUpdate, 0, 1, number(0x7fffffff)),
      errorCode.flowControl,
    ],
    ["a header in upper case", frame(frameType.headers, 4, 3, Buffer.from("\0\x01A\x01b")), errorCode.protocol],
    ["a line end in a value", frame(frameType.headers, 4, 3, Buffer.from("\0\x01a\x02b\n")), errorCode.protocol],
    ["too many headers", frame(frameType.headers, 4, 3, Buffer.alloc(1000, 0x82)), errorCode.enhanceYourCalm],
  ])("%s ends the stream alone", (_name, attack, code) => {
    const connection = new Http2ServerConnection(options, {
      request: () => ({ data() {}, end() {}, gone() {}, caughtUp() {} }),
      output() {},
      outputIsLarge() {},
      sourceFailed() {},
    });
    connection.receive(Buffer.concat([hello, headers(1)]));
    const resets: Frame[] = [];
    for (let i = 0; i < 8 && resets.length === 0; i++) {
      connection.receive(attack);
      resets.push(...framesOf(Buffer.concat(connection.takeOutput())).filter(({ type }) => type === frameType.reset));
    }
    expect(resets.map(({ payload }) => payload.readUInt32BE())).toEqual([code]);
    expect(connection.failure).toBeUndefined();
  });

  test("an interval of many small ones is allowed again and again", () => {
    const { connection, taken } = open();
    connection.receive(hello);
    for (let i = 0; i < 10_000; i++) {
      if (i % 1000 === 0) connection.relax();
      connection.receive(rapid(i));
    }
    expect(goAwayOf(taken())).toBeUndefined();
    expect(connection.failure).toBeUndefined();
  });

  test("any bytes are answered or cut off", () => {
    const random = seededRandom(13);
    let failed = 0;
    for (let round = 0; round < 400; round++) {
      const { connection, taken } = open((stream) => stream.end(block));
      connection.receive(hello);
      for (let i = 0; i < 20; i++) {
        const id = Math.floor(random.float() * 8);
        connection.receive(
          frame(
            Math.floor(random.float() * 11),
            Math.floor(random.float() * 256),
            id,
            random.bytes(Math.floor(random.float() * 12)),
          ),
        );
      }
      connection.receive(Buffer.from(random.bytes(40)));
      taken();
      if (connection.failure !== undefined) failed++;
    }
    expect(failed).toBeGreaterThan(300);
  });
});

test("a call that is answered before its client has ended lets it end, and is let go after a while", () => {
  const { connection, streams, taken } = open();
  connection.receive(Buffer.concat([hello, headers(1)]));
  streams.get(1)!.respond(block, true);
  connection.receive(data(1, Buffer.alloc(50)));
  expect(taken().some(({ type }) => type === frameType.reset)).toBe(false);
  connection.relax();
  expect(connection.streamCount).toBe(1);
  connection.relax();
  expect(
    taken()
      .filter(({ type }) => type === frameType.reset)
      .map(({ payload }) => payload.readUInt32BE()),
  ).toEqual([0]);
  expect(connection.streamCount).toBe(0);
});

test("a server that leaves ends its calls first", () => {
  const { connection, streams, taken, log } = open();
  connection.receive(Buffer.concat([hello, headers(1, 5)]));
  connection.leave();
  expect(goAwayOf(taken())).toBe(errorCode.none);
  expect(connection.ended).toBe(false);
  connection.receive(headers(3, 5));
  expect(taken().map(({ type }) => type)).toEqual([frameType.reset]);
  streams.get(1)!.respond(block, true);
  expect(connection.ended).toBe(true);
  expect(log).toEqual(["1 :method POST :path /a", "1 end 0"]);
});

test("headers of nghttp2 are read, whatever bytes their values have", async () => {
  const lists: string[] = [];
  const seen = new Promise<void>((resolve) => {
    const connection: Http2ServerConnection = new Http2ServerConnection(options, {
      request(stream, list) {
        lists.push(list.join(" "));
        if (lists.length === 224) resolve();
        stream.respond(encodeHeaderBlock([[":status", "200"]]), true);
        return { data() {}, end() {}, gone() {}, caughtUp() {} };
      },
      output: () =>
        setImmediate(() => {
          for (const part of connection.takeOutput()) pipe.push(part);
        }),
      outputIsLarge() {},
      sourceFailed() {},
    });
    const pipe = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        connection.receive(chunk);
        done();
      },
    });
    const session = connect("http://a", { createConnection: () => pipe });
    session.on("error", () => {});
    // Long enough for a Huffman code to pay whatever the last byte is.
    for (let byte = 0x20; byte < 0x100; byte++) {
      const value = `${"a".repeat(40)}${String.fromCharCode(byte)}b`;
      session.request({ ":path": `/${byte}`, "x-any": value }).on("error", () => {});
    }
  });
  await seen;
  lists.forEach((list, i) => {
    expect(list).toContain(`:path /${i + 0x20}`);
    expect(list).toContain(`x-any ${"a".repeat(40)}${String.fromCharCode(i + 0x20)}b`);
  });
});
