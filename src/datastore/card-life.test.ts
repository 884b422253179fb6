import { expect, it } from "vitest";
import { cardLifeYears } from "./card-life.ts";

const dayMs = 24 * 3600 * 1000;
it.each([
  ["nothing written", { writtenBytes: 0, flushes: 0, ms: dayMs }, 100],
  // 16 TiB of endurance, 16 GiB a day: a thousand days.
  ["large writes", { writtenBytes: 16 * 1024 ** 3, flushes: 10, ms: dayMs }, 2.74],
  // A flush a second with next to nothing in it: 5.3 GiB a day.
  ["many flushes", { writtenBytes: 86_400 * 100, flushes: 86_400, ms: dayMs }, 8.31],
])("%s", (_name, wear, years) => {
  expect(cardLifeYears(wear)).toBeCloseTo(years, 2);
});
