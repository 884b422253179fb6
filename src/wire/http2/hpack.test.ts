import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import { hasCode } from "#base/errors.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { encodeHeaderBlock, HpackDecoder } from "./hpack.ts";

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");

describe("the examples of RFC 7541, appendix C", () => {
  const requests = [
    [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com"],
    [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com", "cache-control", "no-cache"],
    [":method", "GET", ":scheme", "https", ":path", "/index.html", ":authority", "www.example.com"].concat([
      "custom-key",
      "custom-value",
    ]),
  ];
  test.each([
    [
      "C.3, as they are",
      [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
      ],
    ],
    [
      "C.4, with Huffman codes",
      [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
      ],
    ],
  ])("%s", (_name, blocks) => {
    const decoder = new HpackDecoder(1000);
    expect(blocks.map((block) => decoder.decode(hex(block)))).toEqual(requests);
  });
  test("C.2.3: what must not be kept is not", () => {
    const decoder = new HpackDecoder(1000);
    expect(decoder.decode(hex("100870617373776f726406736563726574"))).toEqual(["password", "secret"]);
    expect(() => decoder.decode(hex("be"))).toThrow(/no entry 62/);
  });
});

test("what the encoder writes is read, whatever was read before", () => {
  const random = seededRandom(7);
  const decoder = new HpackDecoder(100_000);
  for (let round = 0; round < 300; round++) {
    const headers = Array.from({ length: Math.floor(random.float() * 6) }, (): [string, string] => {
      const name = [":status", "content-type", "grpc-status", "x-long"][Math.floor(random.float() * 4)]!;
      return [name, "v".repeat(Math.floor(random.float() ** 4 * 5000)) + Math.floor(random.float() * 300)];
    });
    expect(decoder.decode(encodeHeaderBlock(headers))).toEqual(headers.flat());
  }
});

test("the table holds what it may and forgets the oldest", () => {
  const decoder = new HpackDecoder(100_000);
  const add = (name: string, bytes: number) => {
    const value = Buffer.alloc(bytes, name);
    const length = bytes < 127 ? [bytes] : [127, ((bytes - 127) & 127) | 128, (bytes - 127) >> 7];
    decoder.decode(Buffer.concat([Buffer.from([0x40, 1]), Buffer.from(name), Buffer.from(length), value]));
  };
  add("a", 2000);
  add("b", 2000);
  expect(decoder.decode(Buffer.from([0x80 | 63]))?.[0]).toBe("a");
  add("c", 100);
  expect(decoder.decode(Buffer.from([0x80 | 63]))?.[0]).toBe("b");
  expect(() => decoder.decode(Buffer.from([0x80 | 64]))).toThrow();
  // Larger than the whole table: nothing is left.
  add("d", 5000);
  expect(() => decoder.decode(Buffer.from([0x80 | 62]))).toThrow();
  // A smaller limit holds from then on, a larger one than ours is refused.
  expect(decoder.decode(hex("20"))).toEqual([]);
  add("e", 10);
  expect(() => decoder.decode(Buffer.from([0x80 | 62]))).toThrow();
  expect(() => decoder.decode(hex("3fe23f"))).toThrow(/table of/);
});

test.each([
  ["index 0", "80"],
  ["an index that is not there", "c5"],
  ["a number without end", "ffffffffffffffff"],
  ["a number that is cut", "ff"],
  ["a string that is cut", "4003616263"],
  ["a string longer than the block", "40037b"],
  ["a table size behind a header", "8220"],
  ["Huffman padding of zeros", "40 01 61 81 00"],
  ["Huffman padding of eight bits", "40 01 61 82 1f ff"],
  ["the end of a string within it", "40 01 61 84 ff ff ff ff"],
])("%s is refused", (_name, block) => {
  expect(() => new HpackDecoder(1000).decode(hex(block))).toThrow(expect.objectContaining({ code: "WIRE_HPACK" }));
});

test("a list that is too large is said to be, and the table stays right", () => {
  const decoder = new HpackDecoder(200);
  const bomb = Buffer.concat([hex("400161017a"), Buffer.alloc(5000, 0xbe)]);
  expect(decoder.decode(bomb)).toBeUndefined();
  expect(decoder.decode(hex("be"))).toEqual(["a", "z"]);
});

test("any bytes are a list or an error of ours", () => {
  const random = seededRandom(11);
  let lists = 0;
  for (let round = 0; round < 5000; round++) {
    const decoder = new HpackDecoder(1000);
    try {
      decoder.decode(random.bytes(Math.floor(random.float() * 30)));
      lists++;
    } catch (error) {
      if (!hasCode(error, "WIRE_HPACK")) throw error;
    }
  }
  expect(lists).toBeGreaterThan(100);
  expect(lists).toBeLessThan(4900);
});
