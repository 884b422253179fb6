// Any expression in any environment: compile once, evaluate with a budget. Rules of schemas and policies stand on this.
// Upstream counterpart: cel.Env.Compile, Program and EstimateCost as Kubernetes configures them.
import { type Effort, PatternTooCostly } from "../patterns.ts";
import { printIssues } from "./ast.ts";
import { check } from "./checker.ts";
import { compile } from "./compiler.ts";
import type { Outcome } from "./contract.ts";
import { estimateCost, type SizeOf } from "./cost.ts";
import { Evaluation } from "./evaluation.ts";
import type { FunctionTable } from "./functions.ts";
import { parse } from "./parser.ts";
import type { CelType } from "./types.ts";
import { adaptJson, CostExceeded, Failure, type Value } from "./values.ts";

/** Of one evaluation, in upstream's units. */
export const perCallLimit = 1_000_000;
/** After so much of several evaluations others should have their turn: a few milliseconds. */
export const turnCost = 50_000;
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
  evaluate(values: Readonly<Record<string, unknown>>, limit?: number, effort?: Effort): Outcome;
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
  const program: Program = {
    type: checked.type,
    reads: checked.variables,
    maxCost: estimateCost(parsed.expr, checked, options.sizeOf ?? (() => undefined)).max,
    evaluate(values, limit = perCallLimit, effort) {
      const slots = new Array<Value>(slotCount);
      const run = new Evaluation(slots, limit, effort);
      try {
        for (let i = 0; i < names.length; i++) {
          const given = values[names[i]!];
          const raw: unknown = typeof given === "function" ? given() : given;
          if (raw !== undefined) slots[i] = adaptJson(raw);
        }
        return { value: code(run), cost: run.cost };
      } catch (error) {
        if (error instanceof Failure) return { error: error.message, cost: run.cost };
        if (error instanceof CostExceeded || error instanceof PatternTooCostly) {
          return { error: error.message, cost: run.cost, isOverLimit: true };
        }
        throw error;
      }
    },
  };
  return { program };
}
