import { describe, expect, test } from "vitest";
import {
  decodeMessage,
  decodeTimeout,
  encodeFrame,
  encodeMessage,
  encodeTimeout,
  FrameReader,
  statusOf,
} from "./grpc.ts";

const bytes = (...values: number[]) => Uint8Array.from(values);

test("a frame is a flag, four bytes of length, and the message", () => {
  expect([...encodeFrame(bytes(7, 8))]).toEqual([0, 0, 0, 0, 2, 7, 8]);
});

describe("reading frames", () => {
  const stream = Buffer.concat([encodeFrame(bytes(1)), encodeFrame(bytes()), encodeFrame(bytes(2, 3, 4))]);
  test.each([1, 2, 3, 5, 6, 100])("cut into pieces of %i", (size) => {
    const reader = new FrameReader(100);
    const out: number[][] = [];
    for (let at = 0; at < stream.length; at += size) {
      for (const message of reader.push(stream.subarray(at, at + size))) out.push([...message]);
    }
    expect(out).toEqual([[1], [], [2, 3, 4]]);
    expect(reader.partial).toBe(false);
  });
  test("a message that ends early is partial", () => {
    const reader = new FrameReader(100);
    expect(reader.push(stream.subarray(0, 4))).toEqual([]);
    expect(reader.partial).toBe(true);
  });
  test("compressed and oversized messages are refused", () => {
    expect(() => new FrameReader(100).push(bytes(1, 0, 0, 0, 0))).toThrow(
      expect.objectContaining({ code: "UNIMPLEMENTED" }),
    );
    expect(() => new FrameReader(3).push(bytes(0, 0, 0, 0, 4))).toThrow(
      expect.objectContaining({ code: "RESOURCE_EXHAUSTED" }),
    );
  });
});

test.each([
  [0, "1m"],
  [1.2, "2m"],
  [99_999_999, "99999999m"],
  [100_000_000, "100000S"],
])("timeout of %d ms is %s", (ms, text) => expect(encodeTimeout(ms)).toBe(text));

test.each([
  ["1H", 3_600_000],
  ["2S", 2000],
  ["50m", 50],
  ["500u", 0.5],
  ["123456789m", undefined],
  ["-1S", undefined],
  ["5", undefined],
])("a timeout of %s is %s ms", (text, ms) => expect(decodeTimeout(text)).toBe(ms));

test.each(["etcdserver: key is not provided", "100 % of ü\n", "\u{1f600}", "a~b!'()*"])(
  "message %j comes back",
  (text) => {
    expect(encodeMessage(text)).toMatch(/^[ -~]*$/);
    expect(decodeMessage(encodeMessage(text))).toBe(text);
  },
);
test("half a surrogate pair is no reason to fail", () => expect(encodeMessage("a\ud800b")).toBe("a%EF%BF%BDb"));

describe("status", () => {
  test("OK is no error", () => expect(statusOf({ "grpc-status": "0" })).toBeUndefined());
  test("code and decoded message", () => {
    const error = statusOf({ "grpc-status": "5", "grpc-message": "no%20pod %C3%BC 100%" });
    expect(error).toMatchObject({ code: "NOT_FOUND", message: "no pod ü 100%" });
  });
  test("unknown numbers and missing trailers are UNKNOWN", () => {
    expect(statusOf({ "grpc-status": "99" })?.code).toBe("UNKNOWN");
    expect(statusOf({ ":status": 502 })?.message).toContain("HTTP 502");
  });
  test("bytes that are no UTF-8 stay as they came", () => expect(decodeMessage("%ff")).toBe("%ff"));
});
