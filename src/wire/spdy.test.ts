import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { SpdySession, type SpdyStream, type SpdyStreamHandlers } from "./spdy.ts";

interface Seen {
  readonly events: string[];
  readonly handlers: SpdyStreamHandlers;
}
const recorder = (): Seen => {
  const events: string[] = [];
  return {
    events,
    handlers: {
      reply: (headers) => events.push(`reply ${JSON.stringify(headers)}`),
      data: (bytes) => events.push(`data ${Buffer.from(bytes).toString()}`),
      end: () => events.push("end"),
      reset: () => events.push("reset"),
    },
  };
};

/** Two sessions joined; `cut` decides how the bytes are portioned. */
function pair(options: { cut?: (bytes: Uint8Array) => Uint8Array[]; accept?: boolean } = {}) {
  const cut = options.cut ?? ((bytes) => [bytes]);
  const queue: (() => void)[] = [];
  const accepted: { stream: SpdyStream; seen: Seen }[] = [];
  const state = { clientGoAway: 0 };
  const client: SpdySession = new SpdySession({
    role: "client",
    send: (bytes) => {
      for (const piece of cut(bytes)) queue.push(() => server.receive(piece));
    },
    goAway: () => state.clientGoAway++,
  });
  const server: SpdySession = new SpdySession({
    role: "server",
    windowUpdates: true,
    send: (bytes) => {
      for (const piece of cut(bytes)) queue.push(() => client.receive(piece));
    },
    ...(options.accept === false
      ? {}
      : {
          accept: (stream: SpdyStream) => {
            const seen = recorder();
            accepted.push({ stream, seen });
            stream.reply({ ok: stream.headers["streamtype"] ?? "" });
            return seen.handlers;
          },
        }),
  });
  const settle = () => {
    for (let step = queue.shift(); step; step = queue.shift()) step();
  };
  return { client, server, accepted, state, settle };
}

test("streams open, carry data both ways, half-close and vanish", () => {
  const { client, server, accepted, settle } = pair();
  const stdin = recorder();
  const stdout = recorder();
  const a = client.open({ streamType: "stdin" }, stdin.handlers);
  const b = client.open({ streamType: "stdout" }, stdout.handlers);
  a.write(Buffer.from("in"));
  a.end();
  a.write(Buffer.from("too late"));
  settle();
  expect([a.id, b.id]).toEqual([1, 3]);
  expect(accepted.map((s) => s.stream.headers["streamtype"])).toEqual(["stdin", "stdout"]);
  expect(accepted[0]!.seen.events).toEqual(["data in", "end"]);
  accepted[0]!.stream.end();
  accepted[1]!.stream.write(Buffer.from("out"));
  accepted[1]!.stream.end();
  settle();
  expect(stdin.events).toEqual(['reply {"ok":"stdin"}', "end"]);
  expect(stdout.events).toEqual(['reply {"ok":"stdout"}', "data out", "end"]);
  b.end();
  settle();
  expect([client.streamCount, server.streamCount]).toEqual([0, 0]);
});

test("the bytes of a client's opening, as in the draft", () => {
  const sent: Buffer[] = [];
  const client = new SpdySession({ role: "client", send: (bytes) => sent.push(Buffer.from(bytes)) });
  const stream = client.open({ a: "b" }, recorder().handlers);
  stream.write(Buffer.from("hi"));
  stream.end();
  client.ping(1);
  stream.reset();
  client.close();
  expect(sent.map((frame) => frame.toString("hex"))).toEqual([
    // version 3 SYN_STREAM, 40 bytes: stream 1, no parent, priority 0; zlib head, dictionary, one stored block, flush
    `80030001${"00000028"}${"00000001"}${"00000000"}${"0000"}7820e3c6a7c2${"000e00f1ff"}00000001${"0000000161"}${"0000000162"}${"000000ffff"}`,
    `00000001${"00000002"}6869`,
    `00000001${"01000000"}`,
    `80030006${"00000004"}00000001`,
    `80030003${"00000008"}0000000100000005`,
    `80030007${"00000008"}0000000000000000`,
  ]);
});

test("a reset and the end of the session reach every stream once", () => {
  const { client, accepted, settle } = pair();
  const one = recorder();
  const two = recorder();
  client.open({ n: "1" }, one.handlers);
  const second = client.open({ n: "2" }, two.handlers);
  settle();
  accepted[0]!.stream.reset();
  settle();
  expect(one.events).toEqual(['reply {"ok":""}', "reset"]);
  second.write(Buffer.from("x"));
  settle();
  client.end();
  client.end();
  expect(two.events).toEqual(['reply {"ok":""}', "reset"]);
  expect(() => client.open({}, one.handlers)).toThrow("over");
});

test("a server without acceptor refuses streams; late data for them is dropped", () => {
  const { client, settle } = pair({ accept: false });
  const seen = recorder();
  const stream = client.open({ a: "b" }, seen.handlers);
  stream.write(Buffer.from("x"));
  settle();
  expect(seen.events).toEqual(["reset"]);
});

test("pings of the peer are answered, answers to ours are not", () => {
  const sent: string[] = [];
  const client = new SpdySession({ role: "client", send: (bytes) => sent.push(Buffer.from(bytes).toString("hex")) });
  client.receive(Buffer.from("800300060000000400000002", "hex"));
  client.receive(Buffer.from("800300060000000400000001", "hex"));
  expect(sent).toEqual(["800300060000000400000002"]);
});

test("a goaway of the peer is told, settings and windows are taken", () => {
  const { client, server, state, settle } = pair();
  client.receive(Buffer.from("80030004000000040000000080030009000000080000000000001000", "hex"));
  server.close();
  settle();
  expect(state.clientGoAway).toBe(1);
});

test.each([
  ["another version", "8002000100000000", "version 2"],
  ["a huge control frame", "8003000100ffffff", "control frame"],
  ["data on stream 0", "0000000000000001", "stream 0"],
  [
    "a stream id of ours",
    `8003000100000019${"00000002"}00000000${"0000"}7820e3c6a7c2${"000400fbff"}00000000`,
    "stream id 2",
  ],
])("a broken peer: %s", (_name, hex, message) => {
  const sent: string[] = [];
  const server = new SpdySession({ role: "server", send: (bytes) => sent.push(Buffer.from(bytes).toString("hex")) });
  const bytes = Buffer.concat([Buffer.from(hex, "hex"), Buffer.alloc(64)]);
  expect(() => server.receive(bytes)).toThrow(new RegExp(message));
  expect(sent).toEqual(["80030007000000080000000000000001"]);
});

test("random traffic in random portions arrives whole and in order (seeds 1-40)", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = seededRandom(seed);
    const below = (limit: number) => Math.floor(random.float() * limit);
    const { client, accepted, settle } = pair({
      cut(bytes) {
        const pieces: Uint8Array[] = [];
        for (let at = 0; at < bytes.length; ) {
          const size = 1 + below(below(4) === 0 ? 3 : 200);
          pieces.push(bytes.slice(at, at + size));
          at += size;
        }
        return pieces;
      },
    });
    const sent: Buffer[] = [];
    const streams: SpdyStream[] = [];
    for (let step = 0; step < 60; step++) {
      if (streams.length < 5 && below(4) === 0) {
        streams.push(client.open({ n: String(streams.length), pad: "p".repeat(below(300)) }, recorder().handlers));
        sent.push(Buffer.alloc(0));
      } else if (streams.length > 0) {
        const index = below(streams.length);
        const data = Buffer.from("abcdefghij".repeat(below(30)).slice(below(10)));
        streams[index]!.write(data);
        sent[index] = Buffer.concat([sent[index]!, data]);
      }
      if (below(3) === 0) settle();
    }
    for (const stream of streams) stream.end();
    settle();
    const received = accepted.map(({ seen }) => seen.events);
    expect(
      received.map((events) => events.at(-1)),
      `seed ${seed}`,
    ).toEqual(streams.map(() => "end"));
    expect(
      received.map((events) =>
        events
          .slice(0, -1)
          .map((e) => e.slice("data ".length))
          .join(""),
      ),
      `seed ${seed}`,
    ).toEqual(sent.map((bytes) => bytes.toString()));
  }
});
