import { describe, expect, test } from "vitest";
import { cronProblem, parseCron } from "./cron.ts";

const next = (schedule: string, from: string, timeZone = "UTC"): string | undefined => {
  const at = parseCron(schedule, timeZone).next(Date.parse(from));
  return at === undefined ? undefined : new Date(at).toISOString().replace(":00.000Z", "Z");
};

test.each([
  ["* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01Z"],
  ["* * * * *", "2026-01-01T00:00:59Z", "2026-01-01T00:01Z"],
  ["*/15 * * * *", "2026-01-01T14:45:00Z", "2026-01-01T15:00Z"],
  ["20-35/15 * * * *", "2026-01-01T15:20:00Z", "2026-01-01T15:35Z"],
  ["5/20 * * * *", "2026-01-01T15:46:00Z", "2026-01-01T16:05Z"],
  ["0 0 * feb mon", "2026-01-01T00:00:00Z", "2026-02-02T00:00Z"],
  ["0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00Z"],
  ["0 0 31 12 ?", "2026-12-31T00:00:00Z", "2027-12-31T00:00Z"],
  // Both days restricted: one is enough. A star with a step does not count as unrestricted.
  ["0 0 1,15 * sun", "2026-01-01T00:00:00Z", "2026-01-04T00:00Z"],
  ["0 0 * * sun", "2026-01-01T00:00:00Z", "2026-01-04T00:00Z"],
  ["0 0 */10 * sun", "2026-01-02T00:00:00Z", "2026-01-04T00:00Z"],
  ["@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00Z"],
  ["@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00Z"],
  ["@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30Z"],
  ["0 0 30 2 *", "2026-01-01T00:00:00Z", undefined],
])("%s after %s fires at %s", (schedule, from, expected) => {
  expect(next(schedule, from)).toBe(expected);
});

describe("time zones", () => {
  const zone = "America/New_York";
  test.each([
    // Clocks go forward at 02:00 on 11 March 2012: 02:30 does not exist and does not fire; other hours do.
    ["30 2 11 mar ?", "2012-03-11T05:00:00Z", "2013-03-11T06:30Z"],
    ["0 * * * ?", "2012-03-11T06:00:00Z", "2012-03-11T07:00Z"],
    ["0 3 11 mar ?", "2012-03-11T05:00:00Z", "2012-03-11T07:00Z"],
    ["0 0 * * ?", "2012-03-11T05:00:00Z", "2012-03-12T04:00Z"],
    // And back at 02:00 on 4 November 2012: 01:00 to 02:00 comes twice.
    ["0 1 * * ?", "2012-11-04T04:00:00Z", "2012-11-04T05:00Z"],
    ["0 1 * * ?", "2012-11-04T05:00:00Z", "2012-11-04T06:00Z"],
    ["0 1 * * ?", "2012-11-04T06:00:00Z", "2012-11-05T06:00Z"],
    ["30 2 4 nov ?", "2012-11-04T04:00:00Z", "2012-11-04T07:30Z"],
  ])("%s in New York after %s fires at %s", (schedule, from, expected) => {
    expect(next(schedule, from, zone)).toBe(expected);
  });
  test.each([
    // 02:00 to 03:00 is left out on 29 March 2026 and comes twice on 25 October.
    ["30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30Z"],
    ["0 9 * * *", "2026-03-28T12:00:00Z", "2026-03-29T07:00Z"],
    ["30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30Z"],
    ["30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30Z"],
    ["30 2 * * *", "2026-10-25T01:30:00Z", "2026-10-26T01:30Z"],
  ])("%s in Berlin after %s fires at %s", (schedule, from, expected) => {
    expect(next(schedule, from, "Europe/Berlin")).toBe(expected);
  });
  test("half and quarter hours", () => {
    expect(next("0 9 * * *", "2026-06-01T00:00:00Z", "Asia/Kathmandu")).toBe("2026-06-01T03:15Z");
    expect(next("0 9 * * *", "2026-06-01T00:00:00Z", "Asia/Kolkata")).toBe("2026-06-01T03:30Z");
  });
  test("an unknown one", () => {
    expect(() => parseCron("* * * * *", "Europe/Atlantis")).toThrow(RangeError);
  });
  test("jumping gives what walking minute by minute gives, over a change of half an hour", () => {
    const cron = parseCron("*/7 1-2 * * *", "Australia/Lord_Howe");
    const format = new Intl.DateTimeFormat("en-US", {
      timeZone: "Australia/Lord_Howe",
      hourCycle: "h23",
      hour: "numeric",
      minute: "numeric",
    });
    const walked: number[] = [];
    const jumped: number[] = [];
    const from = Date.parse("2026-04-03T00:00:00Z");
    const end = Date.parse("2026-04-07T00:00:00Z");
    for (let ms = from + 60_000; ms <= end; ms += 60_000) {
      const [hour, minute] = format.format(ms).split(":").map(Number);
      if (((hour === 1 || hour === 2) && (minute ?? 1) % 7) === 0) walked.push(ms);
    }
    for (let ms = cron.next(from); ms !== undefined && ms <= end; ms = cron.next(ms)) jumped.push(ms);
    expect(jumped).toEqual(walked);
    expect(walked.length).toBeGreaterThan(60);
  });
});

test.each([
  ["* * * *", "expected exactly 5 fields, found 4: [* * * *]"],
  ["60 * * * *", "end of range (60) above maximum (59): 60"],
  ["* * 0 * *", "beginning of range (0) below minimum (1): 0"],
  ["* * * * 7", "end of range (7) above maximum (6): 7"],
  ["9-5 * * * *", "beginning of range (9) beyond end of range (5): 9-5"],
  ["*/0 * * * *", "step of range should be a positive number: */0"],
  ["1-2-3 * * * *", "too many hyphens: 1-2-3"],
  ["1/2/3 * * * *", "too many slashes: 1/2/3"],
  ["x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'],
  ["@reboot", "unrecognized descriptor: @reboot"],
  ["@every x", 'failed to parse duration @every x: time: invalid duration "x"'],
  ["0 0 1 jan mon", undefined],
])("%s: %s", (schedule, problem) => {
  expect(cronProblem(schedule)).toBe(problem);
});
