// One run of a program: the values of its variables, what it has cost, and what it may hold in memory. The limits are
// what makes any expression safe to run: cost bounds time as upstream counts it, allocation bounds memory, which
// upstream leaves to the cost (a `replace` there may make a terabyte out of a megabyte).
//
// A run can be cut into stretches: at an element of a loop it ends with Pause, and is then started again. Expressions have no
// effects, so it comes to the same place; loops know how far they had come, and those that were over what they gave. What
// stands before them is done again and costs nothing more, for each loop knows the cost so far as well. A stretch does at
// least as much that is new as it did again, so that all of them together take at most three times as long as one run.
// Upstream counterpart: cel-go interpreter/runtimecost.go.

import { compilePattern, Effort, type Pattern, patternSize, stepsPerInstruction } from "../patterns.ts";
import { quote } from "./text.ts";
import { CostExceeded, Failure, type Meter, type Value } from "./values.ts";

/** Characters and list entries that one run may make: several times the largest object. */
const maxAllocation = 32 * 1024 * 1024;
/** Comparisons of one run, of whatever depth: several of the largest object with another. */
const maxSteps = 10_000_000;
/** What is made takes time that its cost says little of: so much counts as a unit of cost when stretches are measured. */
const allocatedPerCost = 4;
/** Expressions made at run time, which patterns in data are; each is small. */
const maxPatterns = 64;

/** Ends a stretch; nothing absorbs it. */
export class Pause {}

/** Where a loop is, and what had been spent when it came there. */
export interface LoopState {
  index: number;
  /** Undefined: it has not begun. */
  made: unknown;
  /** Undefined: it is not over. */
  outcome: { readonly value: Value } | { readonly failure: Failure } | undefined;
  cost: number;
  allocated: number;
  steps: number;
  effort: number;
}

export class Evaluation implements Meter {
  readonly slots: Value[];
  readonly limit: number;
  /** What patterns may still take; their cost says little of it. */
  readonly effort: Effort;
  cost = 0;
  #allocated = 0;
  #steps = 0;
  readonly #patterns = new Map<string, Pattern>();
  readonly #stretch: number;
  readonly #effortAtStart: number;
  /** By number of the loop. */
  readonly #loops: (LoopState | undefined)[] = [];
  #pauseAt: number;
  /** Of this stretch: what was done before in others, and where the work stood when that was counted. */
  #doneAgain = 0;
  #countedAt = 0;
  /** `stretch`: after so much cost it ends with Pause. */
  constructor(slots: Value[], limit: number, effort: Effort = new Effort(), stretch = Number.POSITIVE_INFINITY) {
    this.slots = slots;
    this.limit = limit;
    this.effort = effort;
    this.#stretch = stretch;
    this.#pauseAt = stretch;
    this.#effortAtStart = effort.left;
  }

  /** Another stretch. */
  restart(): void {
    this.cost = 0;
    this.#allocated = 0;
    this.#steps = 0;
    this.effort.left = this.#effortAtStart;
    this.#pauseAt = this.#stretch;
    this.#doneAgain = 0;
    this.#countedAt = 0;
  }

  /** The loop of this number, as it was left if it was. */
  loop(number: number): LoopState {
    let state = this.#loops[number];
    if (!state) {
      state = { index: 0, made: undefined, outcome: undefined, cost: 0, allocated: 0, steps: 0, effort: 0 };
      this.#loops[number] = state;
    }
    return state;
  }

  /** The loop comes to an element: those inside of it begin anew. */
  enter(state: LoopState, firstInside: number, behind: number): void {
    this.note(state);
    for (let i = firstInside; i < behind; i++) this.#loops[i] = undefined;
    if (this.#work() >= this.#pauseAt) throw new Pause();
  }

  note(state: LoopState): void {
    state.cost = this.cost;
    state.allocated = this.#allocated;
    state.steps = this.#steps;
    state.effort = this.effort.left;
  }

  /** To where the loop was left. */
  goBack(state: LoopState): void {
    this.#doneAgain += this.#work() - this.#countedAt;
    this.cost = state.cost;
    this.#allocated = state.allocated;
    this.#steps = state.steps;
    this.effort.left = state.effort;
    this.#countedAt = this.#work();
    this.#pauseAt = this.#countedAt + Math.max(this.#stretch, this.#doneAgain);
  }

  #work(): number {
    return this.cost + this.#allocated / allocatedPerCost;
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
