// A ValidatingAdmissionPolicy made ready to be asked: its expressions compiled once per revision, and the answer it gives
// to one request. What cannot be compiled or evaluated counts as the policy's failurePolicy says. Pure but for compiling.
// Upstream: apiserver/pkg/admission/plugin/policy/validating/validator.go.

import type { Outcome } from "#model/cel/contract.ts";
import { Pause } from "#model/cel/evaluation.ts";
import {
  compileExpression,
  evaluationCost,
  inStretches,
  type Program,
  perCallLimit,
  type Stretches,
  turnCost,
} from "#model/cel/expression.ts";
import type { AuthorizerValue } from "#model/cel/library-authorizer.ts";
import { policyEnvironment } from "#model/cel/policy-environment.ts";
import { adaptJson, Failure, MapValue, type Value } from "#model/cel/values.ts";
import type { ValidatingAdmissionPolicy, Validation } from "#model/gen/admissionregistration-v1.ts";
import { Effort } from "#model/patterns.ts";

/** All expressions of one policy together, for one request; upstream's units. */
const policyCostLimit = 10_000_000;
/** A message longer than this is not used. */
const maxMessageBytes = 5 * 1024;

/** As much of an annotation's value is kept. */
const maxAnnotationBytes = 10 * 1024;

export interface PolicyInput {
  readonly authorizer: AuthorizerValue;
  readonly object: unknown;
  readonly oldObject: unknown;
  readonly request: object;
  readonly namespaceObject: unknown;
}

/** Why a request is refused. */
export interface Denial {
  readonly message: string;
  readonly reason: string;
  /** Which of the validations it is; 0 where it is none of them. */
  readonly index: number;
}

/** What a policy says of a request. */
export interface Verdict {
  readonly denials: readonly Denial[];
  /** For the audit log. */
  readonly annotations: readonly { readonly key: string; readonly value: string }[];
}

type Compiled = { readonly program: Program } | { readonly problem: string };

export interface PolicyProgram {
  /**
   * No denials: the request is fine, or the policy does not want to be asked about it. Asked once with each of `params`; of a
   * policy that has none it is [undefined]. It stops where others should have their turn.
   */
  evaluate(input: PolicyInput, params: readonly unknown[]): Generator<void, Verdict>;
}

export function compilePolicy({ spec }: ValidatingAdmissionPolicy): PolicyProgram {
  const environment = policyEnvironment(spec.paramKind !== undefined);
  const compile = (text: string): Compiled => compileExpression({ text, ...environment });
  const conditions = (spec.matchConditions ?? []).map(({ name, expression }) => ({
    name,
    ...textOf(expression, compile),
  }));
  const variables = new Map((spec.variables ?? []).map(({ name, expression }) => [name, compile(expression)]));
  const validations = (spec.validations ?? []).map((validation) => ({
    ...validation,
    compiled: compile(validation.expression),
    speaks: validation.messageExpression === undefined ? undefined : compile(validation.messageExpression),
  }));
  const notes = (spec.auditAnnotations ?? []).map(({ key, valueExpression }) => ({
    key,
    expression: valueExpression,
    compiled: compile(valueExpression),
  }));
  const isStrict = spec.failurePolicy !== "Ignore";
  const failed = (message: string, index = 0): Denial[] => (isStrict ? [{ message, reason: "Invalid", index }] : []);

  function* judge(input: PolicyInput, params: unknown, turn: Turn): Generator<void, Verdict> {
    const budget: Spend = { left: policyCostLimit, effort: new Effort(), turn };
    const values: Record<string, unknown> = {
      ...input,
      params,
      object: input.object ?? null,
      oldObject: input.oldObject ?? null,
      namespaceObject: input.namespaceObject ?? null,
    };
    // One for all expressions, and for the variables themselves: each is evaluated once.
    const shared = new Variables(variables, values, budget);
    values["variables"] = () => shared;
    // One that says no decides, even beside one that cannot be evaluated.
    let problem: string | undefined;
    for (const { name, compiled } of conditions) {
      if (isOver(turn)) yield;
      const outcome = yield* run(compiled, values, budget);
      if (outcome.value === false) return { denials: [], annotations: [] };
      if (outcome.error !== undefined) problem ??= `expression '${name}' resulted in error: ${outcome.error}`;
    }
    if (problem !== undefined) return { denials: failed(problem), annotations: [] };
    const denials: Denial[] = [];
    for (const [index, validation] of validations.entries()) {
      if (isOver(turn)) yield;
      const outcome = yield* run(validation.compiled, values, budget);
      if (outcome.error !== undefined) {
        denials.push(...failed(`expression '${validation.expression}' resulted in error: ${outcome.error}`, index));
      } else if (outcome.value !== true) {
        const message = yield* messageOf(validation, validation.speaks, values, budget);
        denials.push({ message, reason: validation.reason ?? "Invalid", index });
      }
    }
    const annotations: { key: string; value: string }[] = [];
    for (const { key, expression, compiled } of notes) {
      if (isOver(turn)) yield;
      const { value, error } = yield* run(compiled, values, budget);
      if (error !== undefined) denials.push(...failed(`expression '${expression}' resulted in error: ${error}`));
      else if (typeof value === "string" && value.trim() !== "") {
        annotations.push({ key, value: shortened(value.trim()) });
      } else if (typeof value !== "string" && value !== null) {
        const why = "resulted in unsupported return type. Return type must be either string or null.";
        denials.push(...failed(`valueExpression '${expression}' ${why}`));
      }
    }
    return { denials, annotations };
  }

  return {
    *evaluate(input, params) {
      const turn: Turn = { spent: 0 };
      const verdicts: Verdict[] = [];
      for (const each of params) verdicts.push(yield* judge(input, each, turn));
      return {
        denials: verdicts.flatMap(({ denials }) => denials),
        annotations: verdicts.flatMap(({ annotations }) => annotations),
      };
    },
  };
}

const textOf = (text: string, compile: (text: string) => Compiled) => ({ compiled: compile(text) });

function shortened(value: string): string {
  const bytes = Buffer.from(value);
  // What is left of a character that was cut through is left out.
  return bytes.length <= maxAnnotationBytes
    ? value
    : new TextDecoder().decode(bytes.subarray(0, maxAnnotationBytes)).replace(/\ufffd$/, "");
}

interface Spend {
  left: number;
  readonly effort: Effort;
  readonly turn: Turn;
}
/** What was spent since others had theirs. */
interface Turn {
  spent: number;
}
function isOver(turn: Turn): boolean {
  if (turn.spent <= turnCost) return false;
  turn.spent = 0;
  return true;
}
type Ran =
  | { readonly value: Value; readonly error?: undefined }
  | { readonly error: string; readonly value?: undefined };

type Values = Readonly<Record<string, unknown>>;

/** The evaluation, or what is wrong before it. */
function begin(compiled: Compiled, values: Values, budget: Spend): Stretches | { readonly error: string } {
  if ("problem" in compiled) return { error: `compilation error: ${compiled.problem}` };
  if (budget.left <= 0)
    return { error: "validation failed due to running out of cost budget, no further validation rules will be run" };
  return compiled.program.begin(values, perCallLimit, budget.effort);
}
function settle(outcome: Outcome, budget: Spend): Ran {
  budget.left -= outcome.cost;
  budget.turn.spent += outcome.cost + evaluationCost;
  return outcome.error === undefined ? { value: outcome.value } : { error: outcome.error };
}
function* run(compiled: Compiled, values: Values, budget: Spend): Generator<void, Ran> {
  const begun = begin(compiled, values, budget);
  return "error" in begun ? begun : settle(yield* inStretches(begun), budget);
}

function* messageOf(
  validation: Validation,
  speaks: Compiled | undefined,
  values: Values,
  budget: Spend,
): Generator<void, string> {
  const said = speaks && (yield* run(speaks, values, budget)).value;
  const isUsable =
    typeof said === "string" &&
    said.trim() !== "" &&
    !said.includes("\n") &&
    Buffer.byteLength(said) <= maxMessageBytes;
  if (isUsable) return said.trim();
  return validation.message ?? `failed expression: ${validation.expression.trim()}`;
}

/**
 * Evaluated where they are read, once; those of a policy may use the ones before them. One that others should have their
 * turn in pauses whoever reads it, and goes on when it is read again.
 */
class Variables extends MapValue {
  readonly #compiled: ReadonlyMap<string, Compiled>;
  readonly #values: Values;
  readonly #budget: Spend;
  readonly #known = new Map<string, Ran>();
  readonly #begun = new Map<string, Stretches>();
  constructor(compiled: ReadonlyMap<string, Compiled>, values: Values, budget: Spend) {
    super();
    this.#compiled = compiled;
    this.#values = values;
    this.#budget = budget;
  }
  get size(): number {
    return this.#compiled.size;
  }
  find(key: Value): Value | undefined {
    const compiled = typeof key === "string" ? this.#compiled.get(key) : undefined;
    if (!compiled) return undefined;
    let ran = this.#known.get(key as string);
    if (!ran) {
      ran = this.#evaluate(key as string, compiled);
    }
    if (ran.error !== undefined)
      throw new Failure(`composited variable "${key as string}" fails to evaluate: ${ran.error}`);
    return ran.value;
  }
  #evaluate(name: string, compiled: Compiled): Ran {
    const begun = this.#begun.get(name) ?? begin(compiled, this.#values, this.#budget);
    let ran: Ran;
    if ("error" in begun) ran = begun;
    else {
      // One that reads itself finds this.
      this.#known.set(name, { error: "cyclic variable" });
      const outcome = begun.next();
      this.#known.delete(name);
      if (!outcome) {
        this.#begun.set(name, begun);
        throw new Pause();
      }
      ran = settle(outcome, this.#budget);
    }
    this.#known.set(name, ran);
    return ran;
  }
  keys(): Value[] {
    return [...this.#compiled.keys()].map((key) => adaptJson(key));
  }
}
