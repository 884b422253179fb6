import { describe, expect, test } from "vitest";
import { formatDurationNanoseconds, parseDurationNanoseconds } from "./duration.ts";
import { canonicalMicroTime, canonicalTime, parseTime } from "./time.ts";

test.each([
  ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.000000Z"],
  ["2024-01-02T03:04:05.1234567+02:00", "2024-01-02T01:04:05Z", "2024-01-02T01:04:05.123456Z"],
  ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"],
])("%s", (text, time, micro) => {
  expect(canonicalTime(text)).toBe(time);
  expect(canonicalMicroTime(text)).toBe(micro);
});
test.each(["", "2024-01-02", "2024-13-02T03:04:05Z", "2024-01-02 03:04:05Z", "yesterday"])("%j is no time", (text) => {
  expect(() => parseTime(text)).toThrowError(/^parsing time/);
});

describe("durations", () => {
  test.each([
    ["0s", 0],
    ["1ns", 1],
    ["1.5µs", 1500],
    ["300ms", 300e6],
    ["1h0m0s", 3600e9],
    ["1h15m30.918273645s", 4530918273645],
    ["-2m0s", -120e9],
  ])("%s", (text, nanoseconds) => {
    expect(parseDurationNanoseconds(text)).toBe(nanoseconds);
    expect(formatDurationNanoseconds(nanoseconds)).toBe(text);
  });
  test("other spellings", () => {
    expect(parseDurationNanoseconds("1.5h")).toBe(5400e9);
    expect(parseDurationNanoseconds("+90s")).toBe(90e9);
    expect(parseDurationNanoseconds("0")).toBe(0);
  });
  test.each(["", "1", "s", "1x", "1s2", "--1s"])("%j is refused", (text) => {
    expect(() => parseDurationNanoseconds(text)).toThrowError(`time: invalid duration ${JSON.stringify(text)}`);
  });
});
