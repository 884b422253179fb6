import { describe, expect, test } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { decodeCbor, encodeCbor, encodeCborMap, encodeCborText } from "./cbor.ts";

const hex = (text: string): Uint8Array => Buffer.from(text.replaceAll(" ", ""), "hex");
const encoded = (value: unknown): string => Buffer.from(encodeCbor(value)).toString("hex").slice(6);

// Appendix A of RFC 8949, as far as JSON has the values.
test.each<[string, unknown]>([
  ["00", 0],
  ["17", 23],
  ["1818", 24],
  ["1903e8", 1000],
  ["1a000f4240", 1_000_000],
  ["1b000000e8d4a51000", 1_000_000_000_000],
  ["20", -1],
  ["3863", -100],
  ["3903e7", -1000],
  ["f93e00", 1.5],
  ["fa47c35000", 100_000],
  ["f97bff", 65_504],
  ["fb3ff199999999999a", 1.1],
  ["fb7e37e43c8800759c", 1e300],
  ["f90001", 2 ** -24],
  ["f90400", 0.00006103515625],
  ["fbc010666666666666", -4.1],
  ["f4", false],
  ["f5", true],
  ["f6", null],
  ["c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"],
  ["c11a514b67b0", "2013-03-21T20:04:00Z"],
  ["c1fb41d452d9ec200000", "2013-03-21T20:04:00.5Z"],
  ["d74401020304", "01020304"],
  ["d818456449455446", "dIETF"],
  ["d82076687474703a2f2f7777772e6578616d706c652e636f6d", "http://www.example.com"],
  ["60", ""],
  ["62c3bc", "ü"],
  ["64f0908591", "𐅑"],
  ["83010203", [1, 2, 3]],
  ["8301820203820405", [1, [2, 3], [4, 5]]],
  ["a26161016162820203", { a: 1, b: [2, 3] }],
  ["5f42616243636465ff", "abcde"],
  ["7f657374726561646d696e67ff", "streaming"],
  ["9fff", []],
  ["9f018202039f0405ffff", [1, [2, 3], [4, 5]]],
  ["bf61610161629f0203ffff", { a: 1, b: [2, 3] }],
  ["d9d9f7f6", null],
  ["d6430102ff", Buffer.from([1, 2, 255]).toString("base64")],
  ["d5430102ff", Buffer.from([1, 2, 255]).toString("base64url")],
])("reads %s", (bytes, value) => {
  expect(decodeCbor(hex(bytes))).toEqual(value);
});

test.each<[string, unknown]>([
  ["00", 0],
  ["00", -0],
  ["3863", -100],
  ["1b0020000000000000", 2 ** 53],
  ["3b7fffffffffffffff", -(2n ** 63n)],
  ["1b7fffffffffffffff", 2n ** 63n - 1n],
  ["fa5f000000", 2 ** 63],
  ["f93e00", 1.5],
  ["f90001", 2 ** -24],
  ["f983ff", -1023 * 2 ** -24],
  ["f963d1", 1000.5],
  ["fa3fc01000", 1.50048828125],
  ["fb3ff199999999999a", 1.1],
  ["fb3e60000000000001", 2 ** -25 + 2 ** -77],
  ["43616263", "abc"],
  // Shorter keys first, then bytes; what is undefined is not there.
  ["a540004161034162024261610142c3a9f6", { aa: 1, b: 2, a: 3, é: null, no: undefined, "": 0 }],
])("writes %s", (bytes, value) => {
  expect(encoded(value)).toBe(bytes);
});

test("bytes are for base64, and come back as it", () => {
  expect(encoded(Buffer.from("hi"))).toBe("d6426869");
  expect(decodeCbor(encodeCbor({ a: Buffer.from("hi") }))).toEqual({ a: "aGk=" });
});

test("a map of items that are encoded", () => {
  const bytes = encodeCborMap([
    ["type", encodeCborText("ADDED")],
    ["object", encodeCbor({ a: 1 })],
  ]);
  expect(decodeCbor(bytes)).toEqual({ type: "ADDED", object: { a: 1 } });
  expect(Buffer.from(bytes).toString("hex")).toMatch(/^d9d9f7a24474797065/);
});

describe("refuses", () => {
  test.each([
    ["nothing", "", "EOF"],
    ["more than one item", "0000", "1 bytes of extraneous data"],
    ["an end within", "8201", "unexpected EOF"],
    ["a string longer than the rest", "5affffffff00", "unexpected EOF"],
    ["a string of 2^63 bytes", "5b800000000000000000", "unexpected EOF"],
    ["more elements than bytes", "9903e800", "unexpected EOF"],
    ["too many elements", "990401", "exceeded max number of array elements 1024"],
    ["too many pairs", "b90401", "exceeded max number of map pairs 1024"],
    ["an array without an end", `9f${"00".repeat(1025)}`, "exceeded max number of array elements 1024"],
    ["depth", `${"81".repeat(65)}00`, "exceeded max nested level 64"],
    ["tags of tags", `${"d818".repeat(65)}00`, "exceeded max nested level 64"],
    ["depth without an end", "9f".repeat(70), "exceeded max nested level 64"],
    ["a key twice", "a2616101416102", 'found duplicate map key "a"'],
    ["__proto__ twice", "a2695f5f70726f746f5f5f01695f5f70726f746f5f5f02", "found duplicate map key"],
    ["a key that is a number", "a10000", "map keys must be strings"],
    ["text that is none", "61ff", "invalid UTF-8"],
    ["bytes that are no text", "41ff", "invalid UTF-8"],
    ["half a letter in a chunk", "7f61c361bcff", "invalid UTF-8"],
    ["a chunk without an end", "5f5fffff", "wrong chunk"],
    ["a chunk of another kind", "5f6161ff", "wrong chunk"],
    ["a whole number of 65 bits", "1bffffffffffffffff", "does not fit into 64 bits"],
    ["a negative of 65 bits", "3b8000000000000000", "does not fit into 64 bits"],
    ["a bignum", "c249010000000000000000", "bignums"],
    ["undefined", "f7", "simple value 23"],
    ["a simple value", "f820", "simple value 32"],
    ["infinity", "f97c00", "NaN and infinity"],
    ["NaN", "fb7ff8000000000000", "NaN and infinity"],
    ["a break", "ff", "break"],
    ["a reserved length", "1c", "invalid additional information 28"],
    ["base64 of a number", "d600", "followed by a byte string"],
    ["a time that is none", "c06161", "RFC 3339"],
    ["a time beyond all calendars", "c11b7fffffffffffffff", "time in seconds"],
  ])("%s", (_name, bytes, message) => {
    expect(() => decodeCbor(hex(bytes))).toThrow(message);
  });

  test("what JSON has no word for, when writing", () => {
    expect(() => encodeCbor(Number.NaN)).toThrow("NaN");
    expect(() => encodeCbor(2n ** 63n)).toThrow("64 bits");
    expect(() => encodeCbor([() => 1])).toThrow("no value");
  });
});

test("whole numbers beyond 2^53 are exact where they are wanted", () => {
  const bytes = hex("1b7fffffffffffffff");
  expect(decodeCbor(bytes, { bigints: true })).toBe(2n ** 63n - 1n);
  expect(decodeCbor(bytes)).toBe(2 ** 63);
  expect(decodeCbor(hex("1b001fffffffffffff"), { bigints: true })).toBe(Number.MAX_SAFE_INTEGER);
  expect(encoded(decodeCbor(bytes, { bigints: true }))).toBe("1b7fffffffffffffff");
});

test("__proto__ is an ordinary member", () => {
  const value = decodeCbor(hex("a1695f5f70726f746f5f5fa1617801")) as Record<string, unknown>;
  expect(Object.keys(value)).toEqual(["__proto__"]);
  expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
  expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
  expect(encoded(value)).toBe("a1495f5f70726f746f5f5fa1417801");
});

test("any value comes back, and its encoding is one", () => {
  const random = seededRandom(11);
  const pick = (n: number) => Math.floor(random.float() * n);
  const any = (depth: number): unknown => {
    switch (pick(depth > 4 ? 6 : 8)) {
      case 0:
        return null;
      case 1:
        return pick(2) === 0;
      case 2:
        return Math.trunc((random.float() - 0.5) * 2 ** pick(53));
      case 3:
        return (random.float() - 0.5) * 2 ** (pick(60) - 30);
      case 4:
        return Math.fround(random.float()) * 2 ** (pick(40) - 20);
      case 5:
        return String.fromCodePoint(...Array.from({ length: pick(40) }, () => 1 + pick(0xd7fe)));
      case 6:
        return Array.from({ length: pick(6) }, () => any(depth + 1));
      default:
        return Object.fromEntries(
          Array.from({ length: pick(6) }, () => [`k${pick(50)}ü`.slice(0, 1 + pick(4)), any(depth + 1)]),
        );
    }
  };
  for (let i = 0; i < 2000; i++) {
    const value = JSON.parse(JSON.stringify(any(0))) as unknown;
    const bytes = encodeCbor(value);
    expect(decodeCbor(bytes)).toEqual(value);
    const turned = typeof value === "object" && value && !Array.isArray(value);
    const again = turned ? Object.fromEntries(Object.entries(value).reverse()) : value;
    expect(Buffer.compare(Buffer.from(encodeCbor(again)), Buffer.from(bytes))).toBe(0);
  }
});

test("damaged bytes are refused or read, and nothing else", () => {
  const random = seededRandom(12);
  const whole = encodeCbor({ kind: "Pod", metadata: { name: "a", labels: { x: "y" } }, list: [1, 2.5, null, "text"] });
  for (let i = 0; i < 5000; i++) {
    const bytes = Buffer.from(whole).subarray(0, 1 + Math.floor(random.float() * whole.length));
    for (let n = 0; n < 3; n++) bytes[Math.floor(random.float() * bytes.length)] = Math.floor(random.float() * 256);
    try {
      decodeCbor(bytes);
    } catch (error) {
      expect(error).toMatchObject({ code: "WIRE_CBOR" });
    }
  }
});
