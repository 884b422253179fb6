import { expect, test } from "vitest";
import { checkTidy } from "./tidy.ts";

const cases: readonly [line: string, path: string, found: boolean][] = [
  ["const t = Date.now();", "src/node/a.ts", true],
  ["const t = Date.now();", "src/platform/clock.ts", false],
  ["// Date.now() is banned", "src/node/a.ts", false],
  ["x = process.env.HOME;", "src/cli/a.ts", true],
  ["x = process.env.HOME;", "src/entry/a.ts", false],
  ["try { a(); } catch {}", "src/node/a.ts", true],
  ["const s = AbortSignal.any([a, b]);", "src/platform/a.ts", true],
  ["// FIXME later", "src/node/a.ts", true],
];

test.each(cases)("%s in %s: %s", (line, path, found) => {
  expect(checkTidy([{ path, text: line }]).length > 0).toBe(found);
});
