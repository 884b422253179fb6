// Any expression in any environment: compile once, evaluate with a budget. Rules of schemas and policies stand on this.
// Upstream counterpart: cel.Env.Compile, Program and EstimateCost as Kubernetes configures them.
import { type Effort, PatternTooCostly } from "../patterns.ts";
import { printIssues } from "./ast.ts";
import { check } from "./checker.ts";
import { compile } from "./compiler.ts";
import type { Outcome } from "./contract.ts";
import { estimateCost, type SizeOf } from "./cost.ts";
import { Evaluation, Pause } from "./evaluation.ts";
import type { FunctionTable } from "./functions.ts";
import { parse } from "./parser.ts";
import type { CelType } from "./types.ts";
import { adaptJson, CostExceeded, Failure, type Value } from "./values.ts";

/** Of one evaluation, in upstream's units. */
export const perCallLimit = 1_000_000;
/** After so much, of one evaluation or of several, others should have their turn: a millisecond or two, ten times that on a small board. */
export const turnCost = 20_000;
/** What an evaluation takes beside its cost, which is 1 for the smallest. */
export const evaluationCost = 20;

export interface ExpressionOptions {
  readonly text: string;
  readonly variables: ReadonlyMap<string, CelType>;
  /** Sizes of data at paths, for the estimate. */
  readonly sizeOf?: SizeOf;
  /** What the environment has beside the functions of all. */
  readonly functions?: FunctionTable;
}

export interface Program {
  readonly type: CelType;
  /** Of the variables, those it reads. */
  readonly reads: ReadonlySet<string>;
  /** The most it can cost. */
  readonly maxCost: number;
  /**
   * Values are JSON, CEL values, or functions that give one, called once if the expression reads the variable at all.
   * What is absent fails where it is read. `effort`: of patterns, where several evaluations share it.
   */
  evaluate(values: Values, limit?: number, effort?: Effort): Outcome;
  /** The same in stretches of about so much cost. */
  begin(values: Values, limit?: number, effort?: Effort, stretch?: number): Stretches;
}

export type Values = Readonly<Record<string, unknown>>;

/** An evaluation that others have their turns between. */
export interface Stretches {
  /** Undefined: it is to be called again. Not while it runs. */
  next(): Outcome | undefined;
}

/** To the end. It stops where others should have their turn. */
export function* inStretches(stretches: Stretches): Generator<void, Outcome> {
  for (;;) {
    const outcome = stretches.next();
    if (outcome) return outcome;
    yield;
  }
}

/** A program, or upstream's text of what is wrong. */
export function compileExpression(options: ExpressionOptions): { program: Program } | { problem: string } {
  const { text, variables } = options;
  const parsed = parse(text);
  if (!parsed.expr) return { problem: printIssues(text, parsed.issues) };
  const { functions } = options;
  const { checked, issues } = check(parsed.expr, functions ? { variables, functions } : { variables });
  if (!checked) return { problem: printIssues(text, issues) };
  // Only what is read takes a place.
  const names = [...variables.keys()].filter((name) => checked.variables.has(name));
  const { code, slotCount } = compile(parsed.expr, checked, names);
  const start = (values: Values, limit: number, effort: Effort | undefined, stretch?: number): Stretches => {
    const slots = new Array<Value>(slotCount);
    const run = new Evaluation(slots, limit, effort, stretch);
    let isBegun = false;
    const fill = (): void => {
      isBegun = true;
      for (let i = 0; i < names.length; i++) {
        const given = values[names[i]!];
        const raw: unknown = typeof given === "function" ? given() : given;
        if (raw !== undefined) slots[i] = adaptJson(raw);
      }
    };
    return {
      next() {
        try {
          if (isBegun) run.restart();
          else fill();
          return { value: code(run), cost: run.cost };
        } catch (error) {
          if (error instanceof Pause) return undefined;
          if (error instanceof Failure) return { error: error.message, cost: run.cost };
          if (error instanceof CostExceeded || error instanceof PatternTooCostly) {
            return { error: error.message, cost: run.cost, isOverLimit: true };
          }
          throw error;
        }
      },
    };
  };
  const program: Program = {
    type: checked.type,
    reads: checked.variables,
    maxCost: estimateCost(parsed.expr, checked, options.sizeOf ?? (() => undefined)).max,
    // Without an end to a stretch there is one.
    evaluate: (values, limit = perCallLimit, effort) => start(values, limit, effort).next()!,
    begin: (values, limit = perCallLimit, effort, stretch = turnCost) => start(values, limit, effort, stretch),
  };
  return { program };
}
