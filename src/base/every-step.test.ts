import { expect, test } from "vitest";
import { everyStep } from "./every-step.ts";
import { silentLogger } from "./log.ts";

test("each step is tried, and what failed is told together", async () => {
  const done: string[] = [];
  const step = (name: string, fails = false) =>
    [
      name,
      async () => {
        done.push(name);
        if (fails) throw new Error(`${name} resists`);
      },
    ] as const;
  await everyStep([step("a"), step("b")], silentLogger);
  const all = everyStep([step("c", true), step("d"), step("e", true)], silentLogger);
  await expect(all).rejects.toMatchObject({
    code: "TEARDOWN",
    message: "not all is down: c: c resists; e: e resists",
  });
  expect(done.join("")).toBe("abcde");
});
