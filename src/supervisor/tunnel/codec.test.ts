// The codec in WASM, with and without SIMD: byte-exact vectors, what peers may not do, and against the plain one.
import { expect, test } from "vitest";
import { readAsset } from "#platform/assets.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { PlainCodec } from "#test/harness/tunnel-codec.ts";
import {
  controlKind,
  type Frame,
  failureKind,
  failureText,
  maxBatchFrames,
  type Piece,
  type TunnelCodec,
  WasmCodec,
} from "./codec.ts";
import { messageTypes } from "./messages.ts";

const fixedMask = (size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, i) => [0x11, 0x22, 0x33, 0x44][i & 3]!);

const codecs: readonly (readonly [string, (bytes: (size: number) => Uint8Array) => TunnelCodec])[] = [
  ["SIMD", (bytes) => new WasmCodec(readAsset("tunnel-simd.wasm"), bytes)],
  ["scalar", (bytes) => new WasmCodec(readAsset("tunnel.wasm"), bytes)],
  ["plain", (bytes) => new PlainCodec(bytes)],
];

const text = (value: string) => new TextEncoder().encode(value);
const hex = (value: string) => new Uint8Array(Buffer.from(value.replaceAll(" ", ""), "hex"));

/** What came, with the parts of a message put together. */
function whole(pieces: readonly Piece[]): { kind: number; connection: number; text: string }[] {
  const out: { kind: number; connection: number; text: string }[] = [];
  for (const piece of pieces) {
    const last = out.at(-1);
    const more = Buffer.from(piece.bytes).toString("latin1");
    if (piece.isFirst || piece.kind >= failureKind || !last)
      out.push({ kind: piece.kind, connection: piece.connection, text: more });
    else last.text += more;
  }
  return out;
}

// As Go's remotedialer v0.3 and gorilla/websocket write them, message ids 1, 2, …
const vectors: readonly (readonly [string, Frame, string])[] = [
  ["data", { kind: 1, connection: 2, payload: text("hello") }, "82 0b 02 04 02 b0ea01 68656c6c6f"],
  ["empty data", { kind: 1, connection: 2, payload: text("") }, "82 06 02 04 02 b0ea01"],
  [
    "connect",
    { kind: 2, connection: 2, payload: text("tcp/127.0.0.1:10250") },
    "82 19 02 04 04 b0ea01 7463702f3132372e302e302e313a3130323530",
  ],
  ["error", { kind: 3, connection: 2, payload: text("EOF") }, "82 06 02 04 06 454f46"],
  ["addclient", { kind: 4, connection: 0, payload: text("n1/7") }, "82 07 02 00 08 6e312f37"],
  ["removeclient", { kind: 5, connection: 0, payload: text("n1/7") }, "82 07 02 00 0a 6e312f37"],
  ["pause", { kind: 6, connection: 300, payload: text("") }, "82 04 02 d804 0c"],
  ["resume", { kind: 7, connection: 300, payload: text("") }, "82 04 02 d804 0e"],
  ["sync", { kind: 8, connection: 0, payload: hex("0200000000000000") }, "82 0b 02 00 10 0200000000000000"],
  ["a negative connection", { kind: 6, connection: -1, payload: text("") }, "82 03 02 01 0c"],
  ["a large connection", { kind: 6, connection: 2 ** 53 - 1, payload: text("") }, "82 0a 02 feffffffffffff1f 0c"],
  ["ping", { kind: controlKind | 9, connection: 0, payload: text("") }, "89 00"],
  ["close", { kind: controlKind | 8, connection: 0, payload: hex("03e8") }, "88 02 03e8"],
];

for (const [name, make] of codecs) {
  test.each(vectors)(`${name}: %s, both ways`, (_, frame, bytes) => {
    expect(make(fixedMask).encode([frame], false).toString("hex")).toBe(bytes.replaceAll(" ", ""));
    const pieces = make(fixedMask).decoder(false).push(hex(bytes));
    const { kind, connection, payload } = frame;
    expect(whole(pieces)).toEqual([{ kind, connection, text: Buffer.from(payload).toString("latin1") }]);
    expect(pieces.at(-1)!.isLast).toBe(true);
  });

  test(`${name}: masks what it sends, and takes the mask off`, () => {
    const frame = { kind: messageTypes.data, connection: 2, payload: text("hello") };
    const sent = make(fixedMask).encode([frame], true);
    expect(sent.toString("hex")).toBe("828b" + "11223344" + "13263" + "1f4" + "fb235b217d4e5c");
    expect(whole(make(fixedMask).decoder(true).push(sent))).toEqual([{ kind: 1, connection: 2, text: "hello" }]);
  });

  test.each([0, 1, 119, 120, 125, 126, 127, 65529, 65530])(`${name}: a payload of %i bytes`, (size) => {
    const payload = seededRandom(size).bytes(size);
    for (const isMasked of [false, true]) {
      const sent = make(fixedMask).encode([{ kind: 1, connection: 9, payload }], isMasked);
      const length = size + 6;
      const head = length < 126 ? 2 : length < 65536 ? 4 : 10;
      expect(sent.length).toBe(head + length + (isMasked ? 4 : 0));
      const pieces = make(fixedMask).decoder(isMasked).push(sent);
      expect(Buffer.concat(pieces.map(({ bytes }) => bytes)).equals(payload)).toBe(true);
      expect(pieces.every(({ kind, connection }) => kind === 1 && connection === 9)).toBe(true);
    }
  });

  test(`${name}: a message in fragments with control frames between them, byte by byte`, () => {
    // Header split over two frames, an empty frame in the middle, pings with and without payload.
    const stream = hex(
      "02 01 02  89 00  00 03 04 02 b0  89 02 abcd  00 00  80 05 ea01 616263  8a 01 ff  82 04 02 04 0c 00",
    );
    const decoder = make(fixedMask).decoder(false);
    const pieces = [...stream].flatMap((_, i) => decoder.push(stream.slice(i, i + 1)));
    const messages = whole(pieces.filter(({ kind }) => kind < controlKind));
    expect(messages).toEqual([
      { kind: 1, connection: 2, text: "abc" },
      { kind: 6, connection: 2, text: "\0" },
    ]);
    expect(pieces.filter(({ kind }) => kind >= controlKind).map(({ kind, bytes }) => [kind & 15, ...bytes])).toEqual([
      [9],
      [9, 0xab, 0xcd],
      [10, 0xff],
    ]);
    expect([decoder.total, decoder.frameStart]).toEqual([stream.length, stream.length]);
  });

  test(`${name}: knows where the frame began that is not over`, () => {
    const decoder = make(fixedMask).decoder(false);
    decoder.push(hex("8900 820b0204"));
    expect([decoder.total, decoder.frameStart]).toEqual([6, 2]);
    decoder.push(hex("02b0ea0168656c6c6f 82"));
    expect([decoder.total, decoder.frameStart]).toEqual([16, 15]);
  });

  test(`${name}: a type that nobody knows is told as 0`, () => {
    const decoder = make(fixedMask).decoder(false);
    // 4096 and above, and negative ones.
    expect(whole(decoder.push(hex("8205 02 04 8040 ff 8204 02 04 03 ff"))).map(({ kind }) => kind)).toEqual([0, 0]);
  });

  test.each([
    ["c2 00", false, "a frame with reserved bits"],
    ["83 00", false, "a frame with an unknown opcode"],
    ["8b 00", false, "a frame with an unknown opcode"],
    ["09 00", false, "a control frame that is too long or in parts"],
    ["89 7e 007e", false, "a control frame that is too long or in parts"],
    ["82 80 00000000", false, "a frame that is masked where it must not be, or is not where it must"],
    ["82 00", true, "a frame that is masked where it must not be, or is not where it must"],
    ["80 00", false, "a frame out of order"],
    ["02 01 02 82 01 02", false, "a frame out of order"],
    ["81 01 41", false, "a message that is not binary"],
    ["82 7f 8000000000000000", false, "a frame longer than any can be"],
    ["82 7f 0020000000000000", false, "a frame longer than any can be"],
    ["82 0b ffffffffffffffffff02 04", false, "a number that is none"],
    ["82 0a 02 80808080808080 8020", false, "a number that is none"],
    ["82 00", false, "a message that ends within its header"],
    ["82 02 02 04", false, "a message that ends within its header"],
  ])(`${name}: refuses %s`, (bytes, isMasked, why) => {
    const decoder = make(fixedMask).decoder(isMasked);
    const pieces = decoder.push(hex(bytes));
    expect(failureText(pieces.at(-1)!.kind)).toBe(why);
    expect(decoder.push(hex("8900"))).toEqual([]);
  });
}

// ---- what comes in pieces ----

/** Lawful and not; `x` stands for bytes of a mask. */
const streams: readonly (readonly [string, string])[] = [
  ["fragments with a ping between them", "02 01 02  89 00  00 03 04 02 b0  80 05 ea01 616263"],
  ["a message in fragments of one byte", "02 01 02 00 01 04 00 01 02 00 01 b0 00 01 ea 00 01 01 00 01 61 80 00"],
  ["empty fragments before, between and behind", "02 00 00 00 00 04 02 04 02 b0 00 00 80 03 ea01 61 00 00"],
  ["a length of 16 bits where 7 would do", "82 7e 0007 02 04 02 b0ea01 61 89 00"],
  ["a length of 64 bits where 7 would do", "82 7f 0000000000000007 02 04 02 b0ea01 61 89 00"],
  ["a length of 64 bits that is never reached", "82 7f 001fffffffffffff 02 04 02 b0ea01 616161"],
  ["a length with the highest bit", "82 7f 8000000000000007 02 04 02 b0ea01 61"],
  ["a length above all safe numbers", "82 7f 7fffffffffffffff 02 04 02 b0ea01 61"],
  ["numbers written longer than they are", "82 0e 8200 8400 8200 b0ea8100 616263646566 89 00"],
  ["a number of eleven bytes", "82 0f 02 8080808080808080808001 04 02 89 00"],
  ["a number above 64 bits", "82 0d 02 ffffffffffffffffff02 02 00 89 00"],
  ["a connection above all safe numbers", "82 0c 02 feffffffffffffff 01 02 00 61 89 00"],
  ["a negative type and a huge one", "82 04 02 04 03 61 82 0d 02 04 feffffffffffffffff01 61 89 00"],
  ["a negative deadline", "82 05 02 04 04 03 61 89 00"],
  ["the largest deadline", "82 0e 02 04 02 feffffffffffffffff01 61 89 00"],
  ["a message without a header", "82 00 89 00"],
  ["a message that ends before its deadline", "82 03 02 04 02 89 00"],
  ["a close with a code and words", "88 0a 03e8 676f6f64627965 21"],
  ["a close without anything, and more behind it", "88 00 89 00"],
  ["a close of one byte", "88 01 03"],
  ["a ping of 125 bytes", `89 7d ${"aa".repeat(125)} 89 00`],
  ["a ping of 126 bytes", `89 7e 007e ${"aa".repeat(126)}`],
  ["a ping in parts", "09 01 61 80 01 61"],
  ["text", "81 01 61"],
  ["a new message within another", "02 02 02 04 82 02 02 04"],
  ["a part of nothing", "80 01 61"],
  ["a bit for an extension", "c2 01 61"],
  ["all bits for extensions", "f2 01 61"],
  ["an opcode that nobody has given away", "83 00"],
  ["a control opcode that nobody has given away", "8b 00"],
];

/** The same with a mask on each frame; a frame that goes beyond the stream is masked as far as it goes. */
function masked(stream: Uint8Array): Uint8Array {
  const out: number[] = [];
  const key = [0x5a, 0xa5, 0x3c, 0xc3];
  for (let at = 0; at + 1 < stream.length; ) {
    const short = stream[at + 1]! & 0x7f;
    const extra = short === 126 ? 2 : short === 127 ? 8 : 0;
    const head = stream.subarray(at, at + 2 + extra);
    const length = extra === 0 ? short : head.subarray(2).reduce((sum, byte) => sum * 256 + byte, 0);
    out.push(head[0]!, head[1]! | 0x80, ...head.subarray(2), ...key);
    at += 2 + extra;
    for (let i = 0; i < length && at < stream.length; i++) out.push(stream[at++]! ^ key[i & 3]!);
  }
  return Uint8Array.from(out);
}

const made = codecs.map(([, make]) => make(fixedMask));

test.each(streams)("%s: the same wherever chunks end, masked and not, for all codecs", (_, text) => {
  const plain = hex(text);
  const results = new Set<string>();
  for (const isMasked of [false, true]) {
    const stream = isMasked ? masked(plain) : plain;
    for (const codec of made) {
      for (let first = 0; first <= stream.length; first++) {
        for (const second of new Set([first, Math.min(first + 1, stream.length), stream.length])) {
          const decoder = codec.decoder(isMasked);
          const chunks = [stream.slice(0, first), stream.slice(first, second), stream.slice(second)];
          const pieces = chunks.flatMap((chunk) => decoder.push(chunk));
          results.add(JSON.stringify(told(pieces)));
        }
      }
    }
  }
  expect([...results]).toHaveLength(1);
});

/** A stream of bytes as an unfriendly but lawful peer writes it: fragments, control frames between, all lengths. */
function lawfulStream(seed: number, isMasked: boolean): Uint8Array {
  const random = seededRandom(seed);
  const plain = new PlainCodec((size) => random.bytes(size));
  const int = (n: number) => Math.floor(random.float() * n);
  const parts: Uint8Array[] = [];
  const heads: number[] = [];
  const ping = () =>
    plain.encode([{ kind: controlKind | (9 + int(2)), connection: 0, payload: random.bytes(int(126)) }], isMasked);
  for (let i = 0; i < 40; i++) {
    const payload = random.bytes([int(10), int(200), int(5000), 0][int(4)]!);
    const kind = 1 + int(9);
    const message = Buffer.from(plain.encode([{ kind, connection: int(1000) - 3, payload }], false));
    const body = message.subarray(message[1]! < 126 ? 2 : 4);
    const cuts = Array.from({ length: int(4) }, () => int(body.length + 1)).sort((a, b) => a - b);
    const edges = [0, ...cuts, body.length];
    for (let f = 0; f + 1 < edges.length; f++) {
      const bytes = body.subarray(edges[f], edges[f + 1]);
      const isFinal = f + 2 === edges.length;
      const head = [(isFinal ? 0x80 : 0) | (f === 0 ? 2 : 0)];
      const bit = isMasked ? 0x80 : 0;
      if (bytes.length < 126) head.push(bit | bytes.length);
      else head.push(bit | 126, bytes.length >> 8, bytes.length & 255);
      const key = random.bytes(4);
      heads.push(parts.reduce((sum, part) => sum + part.length, 0));
      if (isMasked) head.push(...key);
      parts.push(Uint8Array.from(head), isMasked ? bytes.map((byte, n) => byte ^ key[n & 3]!) : bytes);
      if (int(3) === 0) parts.push(ping());
    }
  }
  const whole = new Uint8Array(Buffer.concat(parts));
  // Now and then something is broken.
  if (int(3) === 0) whole[heads[int(heads.length)]! + int(8)]! ^= 1 << int(8);
  return whole;
}

/** Told apart by content, not by how the chunks fell. */
const told = (pieces: readonly Piece[]) => {
  const out: string[] = [];
  let open = "";
  for (const { kind, connection, isFirst, isLast, bytes } of pieces) {
    const text = Buffer.from(bytes).toString("latin1");
    if (kind >= controlKind) {
      out.push(`${kind} ${text}`);
      continue;
    }
    open = isFirst ? `${kind} ${connection} ${text}` : open + text;
    if (isLast) out.push(`${open} end`);
    if (isLast) open = "";
  }
  return [...out, open];
};

test("agrees with the plain codec on 150 streams in chunks of all sizes, lawful and not", () => {
  let failures = 0;
  let mixed = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const isMasked = seed % 2 === 0;
    const stream = lawfulStream(seed, isMasked);
    const results = codecs.map(([, make], which) => {
      const random = seededRandom(seed * 3 + which);
      const decoder = make(fixedMask).decoder(isMasked);
      const pieces: Piece[] = [];
      for (let at = 0; at < stream.length; ) {
        const size = 1 + Math.floor(random.float() ** 4 * 9000);
        // The chunk is the decoder's: a copy at an odd place, so that alignment is of every kind.
        const chunk = new Uint8Array(size + 3).subarray(at % 4 === 3 ? 3 : at % 4);
        const part = stream.subarray(at, at + Math.min(size, chunk.length));
        chunk.set(part);
        pieces.push(...decoder.push(chunk.subarray(0, part.length)));
        at += part.length;
      }
      return { pieces: told(pieces), start: decoder.frameStart, total: decoder.total };
    });
    const [simd, scalar, plain] = results;
    const hasFailed = plain!.pieces.some((piece) => Number.parseInt(piece, 10) >= failureKind);
    if (hasFailed) failures++;
    else if (plain!.pieces.length > 40) mixed++;
    expect(simd!.pieces, `seed ${seed}`).toEqual(plain!.pieces);
    expect(scalar!.pieces, `seed ${seed}`).toEqual(plain!.pieces);
    expect(simd!.start, `seed ${seed}`).toBe(plain!.start);
    if (!hasFailed) expect(simd!.total, `seed ${seed}`).toBe(plain!.total);
  }
  expect(failures).toBeGreaterThan(20);
  expect(mixed).toBeGreaterThan(80);
});

test("what one codec encodes all others read, in batches of all sizes", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = seededRandom(seed);
    const frames: Frame[] = [];
    let left = 65536;
    for (let i = Math.floor(random.float() * maxBatchFrames); i >= 0 && left > 0; i--) {
      const payload = random.bytes(Math.min(left, Math.floor(random.float() ** 6 * 40_000)));
      left -= payload.length;
      frames.push({
        kind: 1 + Math.floor(random.float() * 8),
        connection: Math.floor(random.float() * 2 ** 40),
        payload,
      });
    }
    for (const isMasked of [false, true]) {
      const sent = codecs.map(([, make]) => make(fixedMask).encode(frames, isMasked));
      expect(sent[0]!.equals(sent[2]!)).toBe(true);
      expect(sent[1]!.equals(sent[2]!)).toBe(true);
      const pieces = codecs[0]![1](fixedMask).decoder(isMasked).push(sent[0]!);
      expect(told(pieces)).toEqual([
        ...frames.map(
          ({ kind, connection, payload }) => `${kind} ${connection} ${Buffer.from(payload).toString("latin1")} end`,
        ),
        "",
      ]);
    }
  }
});

test("a chunk of thousands of the smallest frames", () => {
  const pings = Buffer.alloc(40_000, Buffer.from("8900", "hex"));
  const [simd, , plain] = codecs.map(([, make]) => make(fixedMask).decoder(false).push(new Uint8Array(pings)).length);
  expect([simd, plain]).toEqual([20_000, 20_000]);
});
