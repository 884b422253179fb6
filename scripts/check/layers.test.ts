import { expect, test } from "vitest";
import { checkLayers, importsOf } from "./layers.ts";

const planted: readonly [name: string, path: string, text: string, problem: RegExp][] = [
  ["upward", "src/model/a.ts", 'import { x } from "#apiserver/server.ts";', /same or higher layer/],
  ["same rank", "src/scheduler/a.ts", 'import { x } from "#controllers/registry.ts";', /same or higher layer/],
  ["private", "src/apiserver/a.ts", 'import { x } from "#datastore/log/memory.ts";', /private/],
  ["machine", "src/node/a.ts", 'import * as fs from "node:fs";', /only src\/platform/],
  ["pure", "src/controllers/workloads/plan.ts", 'import { randomUUID } from "node:crypto";', /stay pure/],
  ["datastore", "src/controllers/a.ts", 'import type { B } from "#datastore/backend.ts";', /use the datastore/],
  ["relative", "src/node/a.ts", 'import { x } from "../model/status.ts";', /across folders/],
  ["own folder", "src/model/a.ts", 'import { x } from "#model/status.ts";', /relative path/],
  ["build", "src/entry/a.ts", 'import { x } from "#build.config.ts";', /does not depend/],
];

test.each(planted)("catches a planted violation: %s", (_name, path, text, problem) => {
  expect(checkLayers([{ path, text }]).problems.join("\n")).toMatch(problem);
});

test("lets the allowed directions pass", () => {
  const text = `
    import { a } from "#base/assert.ts";
    import { b } from "#datastore/backend.ts";
    import "./side-effect.ts";
    export { c } from "#model/status.ts";`;
  expect(checkLayers([{ path: "src/apiserver/a.ts", text }])).toEqual({ problems: [], importCount: 4 });
});

test("sees every form of import", () => {
  expect(
    importsOf(
      'import {\n  a,\n  b,\n} from "./x.ts";\nimport "./y.ts";\nawait import("./z.ts");\nexport * from "./w.ts";',
    ),
  ).toEqual(["./x.ts", "./y.ts", "./z.ts", "./w.ts"]);
});
