// Every code that the source rejects with stands in docs/errors.md, and the other way round.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { readSources } from "./layers.ts";

test("docs/errors.md lists exactly the codes of the source", () => {
  const used = new Set<string>();
  for (const { path, text } of readSources(process.cwd(), ["src"])) {
    if (/\.(test|fixture)\.ts$/.test(path)) continue;
    for (const [, code] of text.matchAll(/(?:AppError|datastoreError|usageError)\(\s*"([A-Z][A-Z_]+)"/g))
      used.add(code!);
  }
  const documented = [...readFileSync("docs/errors.md", "utf8").matchAll(/^\| ([A-Z][A-Z_]+) \|/gm)].map((m) => m[1]!);
  expect(used.size).toBeGreaterThan(30);
  expect(documented).toEqual([...used].sort());
});
