import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkNames } from "./names.ts";

const files = new Set(["src/a/README.md", "src/a/one.ts", "src/a/deep/two.ts", "docs/page.md"]);

test.each([
  ["src/a/README.md", "`one.ts`, `deep/two.ts` and two.ts; [page](../../docs/page.md)"],
  ["src/a/one.ts", "// As page.md says, and src/a/deep/two.ts (one.ts).\nconst name = 'gone.ts';"],
])("lets names pass of what is there: %s", (path, text) => {
  expect(checkNames([{ path, text }], files)).toEqual([]);
});

test.each([
  ["src/a/README.md", "| `gone.ts` | what it did |"],
  ["src/a/README.md", "[page](../docs/page-2.md)"],
  ["src/a/README.md", "  deep/one.ts  a name of another folder"],
  ["src/a/one.ts", "/** See gone.ts. */"],
])("catches a planted name of nothing: %s %s", (path, text) => {
  expect(checkNames([{ path, text }], files)).toHaveLength(1);
});

test("every file that is named is there", () => {
  const all = readdirSync(".").filter((name) => name.endsWith(".ts") || name.endsWith(".md"));
  for (const folder of ["src", "test", "scripts", "assembly", "docs", "firmware", "rootfs"]) {
    for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" })) all.push(join(folder, path));
  }
  const told = all.filter((path) =>
    /^(?:(?:src|test|scripts|assembly)\/(?!.*\/gen\/).*\.(?:ts|md)|docs\/[^/]+\.md|README\.md)$/.test(path),
  );
  expect(told.length).toBeGreaterThan(1000);
  const own = /^scripts\/check\/names/;
  const texts = told.filter((path) => !own.test(path)).map((path) => ({ path, text: readFileSync(path, "utf8") }));
  expect(checkNames(texts, new Set(all))).toEqual([]);
});
