import { expect, test } from "vitest";
import { createRepeatedProblem } from "./repeated-problem.ts";

/** Fails every second for so long; the seconds in which that was news. */
function toldS(forS: number, reasonAt: (s: number) => string) {
  let nowMs = 0;
  const problem = createRepeatedProblem({ monotonicMs: () => nowMs });
  const told: number[] = [];
  for (let s = 0; s < forS; s++) {
    nowMs = s * 1000;
    if (problem.isNews(reasonAt(s))) told.push(s);
  }
  return { problem, told };
}

test("what fails every second for a day is told two dozen times or so, and another reason at once", () => {
  const { problem, told } = toldS(24 * 3600, () => "refused");
  expect(told.slice(0, 5)).toEqual([0, 10, 30, 70, 150]);
  expect(told.length).toBeLessThan(35);
  expect(problem.isNews("no route")).toBe(true);
  expect(problem.isNews("no route")).toBe(false);
  problem.isOver();
  expect(problem.isNews("no route")).toBe(true);
});

test("two reasons that take turns are each told as rarely as one alone", () => {
  const { told } = toldS(3600, (s) => (s % 2 === 0 ? "no route" : "no answer"));
  expect(told.slice(0, 6)).toEqual([0, 1, 10, 11, 30, 31]);
  expect(told.length).toBeLessThan(25);
});

test("reasons that are ever different are all told, and not remembered for ever", () => {
  const { problem, told } = toldS(100, (s) => `reason ${s}`);
  expect(told).toHaveLength(100);
  expect(problem.isNews("reason 99")).toBe(false);
  expect(problem.isNews("reason 0")).toBe(true);
});
