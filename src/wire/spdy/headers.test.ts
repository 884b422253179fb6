import { constants, createDeflate, deflateRawSync, inflateSync } from "node:zlib";
import { expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { dictionaryAdler32, spdyDictionary } from "./dictionary.ts";
import { HeaderReader, HeaderWriter } from "./headers.ts";
import { Inflater } from "./inflate.ts";

test("the dictionary is the one of the draft", () => {
  const bytes = spdyDictionary();
  let a = 1;
  let b = 0;
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  expect(bytes.length).toBe(1423);
  expect(b * 65536 + a).toBe(dictionaryAdler32);
});

/** Compresses `blocks` one after the other in one zlib stream, flushed after each, as Go's SPDY does. */
async function compressed(blocks: readonly Uint8Array[], dictionary: boolean, level: number): Promise<Buffer[]> {
  const deflate = createDeflate({ level, ...(dictionary ? { dictionary: spdyDictionary() } : {}) });
  const out: Buffer[] = [];
  let current: Buffer[] = [];
  deflate.on("data", (chunk: Buffer) => current.push(chunk));
  for (const block of blocks) {
    deflate.write(block);
    await new Promise<void>((resolve) => deflate.flush(constants.Z_SYNC_FLUSH, resolve));
    out.push(Buffer.concat(current));
    current = [];
  }
  deflate.destroy();
  return out;
}

test("inflate agrees with zlib for random data at every level and kind of block", () => {
  const random = seededRandom(11);
  for (let round = 0; round < 60; round++) {
    const size = Math.floor(random.float() * 20_000);
    const spread = 1 + Math.floor(random.float() * 255);
    const data = Buffer.from(Array.from({ length: size }, () => Math.floor(random.float() * spread)));
    for (const options of [{ level: round % 10 }, { level: 9, strategy: constants.Z_FIXED }, { level: 0 }]) {
      expect(
        Buffer.compare(new Inflater(new Uint8Array(0)).inflate(deflateRawSync(data, options), 1 << 20), data),
      ).toBe(0);
    }
  }
});

test.each([
  ["block type 3", Uint8Array.of(0b111)],
  ["ends inside a block", Uint8Array.of(0b011, 1)],
  ["sizes differ", Uint8Array.of(1, 1, 0, 0, 0, 7)],
  ["distance before the start", Uint8Array.of(0x63, 0x00, 0x42, 0x00)],
])("malformed: %s", (_name, bytes) => {
  expect(() => new Inflater(new Uint8Array(0)).inflate(bytes.subarray(0, bytes.length), 100)).toThrow(
    "malformed deflate",
  );
});

test("a bomb is refused", () => {
  const bomb = deflateRawSync(Buffer.alloc(1_000_000));
  expect(() => new Inflater(new Uint8Array(0)).inflate(bomb, 32 * 1024)).toThrow("beyond the limit");
});

const blockOf = (headers: Record<string, string>): Uint8Array => {
  const parts: Buffer[] = [];
  const number = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    parts.push(bytes);
  };
  number(Object.keys(headers).length);
  for (const text of Object.entries(headers).flat()) {
    number(Buffer.byteLength(text));
    parts.push(Buffer.from(text));
  }
  return Buffer.concat(parts);
};

test.each([
  [true, 9],
  [true, 6],
  [false, 1],
])(
  "reads header blocks of a compressing peer (dictionary %s, level %d), one state over all",
  async (dictionary, level) => {
    const all = [
      { streamtype: "error" },
      { streamtype: "stdin", "x-long": "y".repeat(3000) },
      {},
      { streamtype: "stdout", "x-long": `${"y".repeat(3000)}ü` },
    ];
    const blocks = await compressed(
      all.map((h) => blockOf(h as Record<string, string>)),
      dictionary,
      level,
    );
    const reader = new HeaderReader();
    for (const [index, block] of blocks.entries()) expect({ ...reader.decode(block) }).toEqual(all[index]);
  },
);

test("what we write is a zlib stream with the dictionary that zlib itself reads", () => {
  const writer = new HeaderWriter();
  const reader = new HeaderReader();
  const all = [{ StreamType: "error", port: "80" }, {}, { big: "z".repeat(70_000).slice(0, 30_000) }];
  const blocks = all.map((headers) => writer.encode(headers as Record<string, string>));
  expect({ ...reader.decode(blocks[0]!) }).toEqual({ streamtype: "error", port: "80" });
  expect({ ...reader.decode(blocks[1]!) }).toEqual({});
  expect({ ...reader.decode(blocks[2]!) }).toEqual(all[2]);
  const whole = inflateSync(Buffer.concat(blocks), {
    dictionary: Buffer.from(spdyDictionary()),
    finishFlush: constants.Z_SYNC_FLUSH,
  });
  expect(whole.subarray(0, 4)).toEqual(Buffer.from([0, 0, 0, 2]));
  expect(whole.toString("latin1")).toContain("streamtype\0\0\0\x05error");
});

test("a header block that claims more than it has is refused", () => {
  const writer = new HeaderWriter();
  const good = writer.encode({ a: "b" });
  const bad = Uint8Array.from(good);
  bad[bad.length - 10] = 200;
  expect(() => new HeaderReader().decode(bad)).toThrow("malformed header block");
  expect(() => new HeaderReader().decode(Uint8Array.of(1, 2, 3))).toThrow("no zlib stream");
});
