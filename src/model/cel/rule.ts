// One rule of a schema, compiled where it stands: `self` is the value there, `oldSelf` what it was before.
// Upstream counterpart: apiextensions schema/cel/compilation.go.
import type { JsonSchema, ValidationRule } from "../custom-resources.ts";
import { compileExpression, type Program } from "./expression.ts";
import { resolveFieldPath } from "./field-path.ts";
import { type Declaration, maxRequestBytes, sizesOf } from "./schema-types.ts";
import { type CelType, optionalOf } from "./types.ts";

export interface CompiledRule {
  readonly rule: ValidationRule;
  readonly program: Program | undefined;
  readonly problem: string | undefined;
  readonly usesOldSelf: boolean;
  readonly messageProgram: Program | undefined;
  readonly messageProblem: string | undefined;
  /** Goes behind the path of the value. */
  readonly fieldPath: string;
}

export function compileRule(rule: ValidationRule, declaration: Declaration, schema: JsonSchema): CompiledRule {
  const oldType = rule.optionalOldSelf === true ? optionalOf(declaration.type) : declaration.type;
  const variables = new Map<string, CelType>([
    ["self", declaration.type],
    ["oldSelf", oldType],
  ]);
  const sizeOf = sizesOf(declaration);
  const compiled = compileExpression({ text: rule.rule, variables, sizeOf });
  const fieldPath = rule.fieldPath ? (resolveFieldPath(rule.fieldPath, schema) ?? "") : "";
  const found = { rule, fieldPath, messageProgram: undefined, messageProblem: undefined };
  if ("problem" in compiled) {
    return { ...found, program: undefined, problem: `compilation failed: ${compiled.problem}`, usesOldSelf: false };
  }
  const { program } = compiled;
  if (program.type.kind !== "bool") {
    const problem = "cel expression must evaluate to a bool";
    return { ...found, program: undefined, problem, usesOldSelf: false };
  }
  const usesOldSelf = program.reads.has("oldSelf");
  const rest = { ...found, program, problem: undefined, usesOldSelf };
  if (!rule.messageExpression) return rest;
  const message = compileExpression({ text: rule.messageExpression, variables, sizeOf });
  if ("problem" in message)
    return { ...rest, messageProblem: `messageExpression compilation failed: ${message.problem}` };
  if (message.program.type.kind !== "string") {
    return { ...rest, messageProblem: "messageExpression must evaluate to a string" };
  }
  return { ...rest, messageProgram: message.program };
}

/** How often data of this size can stand in one request, where no limit says so. */
export const maxCardinality = (declaration: Declaration): number =>
  Math.floor(maxRequestBytes / (declaration.minSize + 1));

/** What a rule says when it fails, where it says no more. */
export const ruleText = ({ rule, message }: ValidationRule): string => (message ? message.trim() : rule.trim());
