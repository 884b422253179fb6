import { expect, test } from "vitest";
import { Failures } from "./failures.ts";

test("pauses double up to a minute, per key, until it works", () => {
  const failures = new Failures();
  expect(failures.isDue("a", 0)).toBe(true);
  const pauses: number[] = [];
  for (let nowMs = 0, n = 0; n < 8; n++) {
    failures.note("a", "no", nowMs);
    pauses.push(failures.untilMs("a") - nowMs);
    nowMs = failures.untilMs("a");
    expect([failures.isDue("a", nowMs - 1), failures.isDue("a", nowMs), failures.isDue("b", 0)]).toEqual([
      false,
      true,
      true,
    ]);
  }
  expect(pauses).toEqual([1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 1000));
  failures.forget("a");
  failures.note("a", "no", 0);
  expect(failures.untilMs("a")).toBe(1000);
});

test("only what is new is worth a word", () => {
  const failures = new Failures();
  const said = ["no", "no", "never", "never", "no"].map((text) => failures.note("a", text, 0));
  expect(said).toEqual([true, false, true, false, true]);
  failures.keep(new Set(["b"]));
  expect(failures.note("a", "no", 0)).toBe(true);
});
