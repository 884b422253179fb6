import { expect, test } from "vitest";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { createRepeatedProblem } from "./repeated-problem.ts";

test("what fails every second for a day is told two dozen times or so, and another reason at once", async () => {
  const clock = new FakeClock();
  const problem = createRepeatedProblem(clock);
  const toldS: number[] = [];
  const hour = 3600;
  for (let s = 0; s < 24 * hour; s++) {
    if (problem.isNews("refused")) toldS.push(s);
    await clock.advance(1000);
  }
  expect(toldS.slice(0, 5)).toEqual([0, 10, 30, 70, 150]);
  expect(toldS.length).toBeLessThan(35);
  expect(problem.isNews("no route")).toBe(true);
  expect(problem.isNews("no route")).toBe(false);
  problem.isOver();
  expect(problem.isNews("no route")).toBe(true);
});
