// One run of a program: the values of its variables, what it has cost, and what it may hold in memory. The limits are
// what makes any expression safe to run: cost bounds time as upstream counts it, allocation bounds memory, which
// upstream leaves to the cost (a `replace` there may make a terabyte out of a megabyte).
// Upstream counterpart: cel-go interpreter/runtimecost.go.

import { compilePattern, Effort, type Pattern, patternSize, stepsPerInstruction } from "../patterns.ts";
import { quote } from "./text.ts";
import { CostExceeded, Failure, type Meter, type Value } from "./values.ts";

/** Characters and list entries that one run may make: several times the largest object. */
const maxAllocation = 32 * 1024 * 1024;
/** Comparisons of one run, of whatever depth: several of the largest object with another. */
const maxSteps = 10_000_000;
/** Expressions made at run time, which patterns in data are; each is small. */
const maxPatterns = 64;

export class Evaluation implements Meter {
  readonly slots: Value[];
  readonly limit: number;
  /** What patterns may still take; their cost says little of it. */
  readonly effort: Effort;
  cost = 0;
  #allocated = 0;
  #steps = 0;
  readonly #patterns = new Map<string, Pattern>();
  constructor(slots: Value[], limit: number, effort: Effort = new Effort()) {
    this.slots = slots;
    this.limit = limit;
    this.effort = effort;
  }

  charge(cost: number): void {
    this.cost += cost;
    if (this.cost > this.limit) throw new CostExceeded();
  }

  step(): void {
    if (++this.#steps > maxSteps) throw new Failure("comparison too large");
  }

  /** Before `amount` characters or entries are made. */
  allocate(amount: number): void {
    this.#allocated += amount;
    if (this.#allocated > maxAllocation) throw new Failure("result too large");
  }

  pattern(source: string): Pattern {
    let pattern = this.#patterns.get(source);
    if (!pattern) {
      if (this.#patterns.size >= maxPatterns) this.#patterns.clear();
      this.effort.spend(patternSize(source) * stepsPerInstruction);
      pattern = patternOf(source);
      this.#patterns.set(source, pattern);
    }
    return pattern;
  }
}

export function patternOf(source: string): Pattern {
  const pattern = compilePattern(source);
  if (!pattern) throw new Failure(`error parsing regexp: ${quote(source)}`);
  return pattern;
}
