// The rules of a schema over an object: each level's own, then those below, as long as the object's budget lasts. Rules
// about a change run only where there is something to compare with. What fails but did not change is forgiven, so that
// objects from before a rule can still be written (ratcheting).
// Upstream counterpart: apiextensions schema/cel/validation.go.
import type { JsonSchema } from "../custom-resources.ts";
import { equalJson, isObject } from "../patch/json-value.ts";
import { Effort } from "../patterns.ts";
import { type FieldError, fieldDuplicate, fieldForbidden, fieldInvalid, fieldRequired } from "../status.ts";
import type { Budget, Outcome, SchemaRules, ValidateOptions } from "./contract.ts";
import { evaluationCost, inStretches, type Program, perCallLimit, turnCost } from "./expression.ts";
import { type CompiledRule, compileRule, ruleText } from "./rule.ts";
import { hasRules } from "./schema-check.ts";
import { type Declaration, declare, escapeName } from "./schema-types.ts";
import { type Adapter, adapterOf, keyOf } from "./schema-values.ts";
import { Optional, type Value } from "./values.ts";

/** Of all rules that see one object. */
const objectBudget = 10_000_000;
const maxMessageBytes = 5 * 1024;
/** Enough to see what is wrong; upstream has no bound here, and a rule may fail for each of a million items. */
const maxErrors = 1000;
const outOfBudget = "validation failed due to running out of cost budget, no further validation rules will be run";

/** Undefined where no level of the schema has a rule. */
export function compileSchemaRules(schema: JsonSchema): SchemaRules | undefined {
  const root = hasRules(schema) ? build(schema, true, declare(schema, true, "selfType")) : undefined;
  if (!root) return undefined;
  return {
    *validate(value, old, options: ValidateOptions = {}) {
      const budget = options.budget ?? { remaining: objectBudget };
      const effort = new Effort();
      const run: Run = { errors: [], budget, effort, turn: 0, isOver: false, warn: options.warn };
      const before = old ?? undefined;
      const change = before === undefined ? unknownChange : { here: { value, old: before }, above: undefined };
      yield* visit(run, root, { path: options.path ?? "", value, old: before, change });
      return run.errors;
    },
  };
}

// The tree of levels that have rules, here or below

interface Node {
  readonly rules: readonly CompiledRule[];
  readonly schema: JsonSchema;
  readonly adapter: Adapter;
  readonly items: Node | undefined;
  readonly properties: ReadonlyMap<string, Node>;
  readonly additional: Node | undefined;
}

function build(schema: JsonSchema, isResource: boolean, declaration: Declaration | undefined): Node | undefined {
  const rules = declaration
    ? (schema["x-kubernetes-validations"] ?? []).map((rule) => compileRule(rule, declaration, schema))
    : [];
  const below = (part: JsonSchema | undefined, of: Declaration | undefined): Node | undefined => {
    if (!part || !hasRules(part)) return undefined;
    const isEmbedded = part["x-kubernetes-embedded-resource"] === true;
    return build(part, isEmbedded, of ?? declare(part, isEmbedded, "selfType"));
  };
  const properties = new Map<string, Node>();
  for (const [name, part] of Object.entries(schema.properties ?? {})) {
    const escaped = escapeName(name);
    const node = below(part, escaped === undefined ? undefined : declaration?.fields?.get(escaped));
    if (node) properties.set(name, node);
  }
  const node: Node = {
    rules,
    schema,
    adapter: adapterOf(schema, isResource),
    items: below(schema.items, declaration?.item),
    properties,
    additional: below(elementOf(schema), declaration?.item),
  };
  return rules.length > 0 || node.items || properties.size > 0 || node.additional ? node : undefined;
}
const elementOf = (schema: JsonSchema): JsonSchema | undefined =>
  isObject(schema.additionalProperties) ? (schema.additionalProperties as JsonSchema) : undefined;

// The walk

interface Run {
  readonly errors: FieldError[];
  readonly budget: Budget;
  readonly effort: Effort;
  /** What was spent since others had their turn. */
  turn: number;
  isOver: boolean;
  readonly warn: ((text: string) => void) | undefined;
}
interface Pair {
  readonly value: unknown;
  readonly old: unknown;
  isEqual?: boolean;
}
/** What is compared to find out whether anything changed: this value with its old one, or else the nearest above. */
interface Change {
  readonly here: Pair | undefined;
  readonly above: Pair | undefined;
}
const unknownChange: Change = { here: undefined, above: undefined };
interface Place {
  readonly path: string;
  readonly value: unknown;
  /** Undefined where there is none to compare with. */
  readonly old: unknown;
  readonly change: Change;
}

function isUnchanged({ here, above }: Change): boolean {
  const pair = here ?? above;
  if (!pair) return false;
  pair.isEqual ??= equalJson(pair.value, pair.old);
  return pair.isEqual;
}
function changeBelow(change: Change, value: unknown, old: unknown): Change {
  if (!change.here) return change;
  return { here: old === undefined ? undefined : { value, old }, above: change.here };
}

function* visit(run: Run, node: Node, place: Place): Generator<void> {
  // Rules about null stand above it.
  if (place.value === null || place.value === undefined) return;
  if (node.rules.length > 0) yield* evaluate(run, node, place);
  for (const [next, below] of placesBelow(node, place)) {
    if (run.isOver || run.errors.length >= maxErrors) return;
    yield* visit(run, next, below);
  }
}

function* placesBelow(node: Node, { path, value, old, change }: Place): Generator<readonly [Node, Place]> {
  const { items, additional, properties } = node;
  const placeOf = (at: string, inner: unknown, before: unknown): Place => {
    return { path: at, value: inner, old: before, change: changeBelow(change, inner, before) };
  };
  if (Array.isArray(value)) {
    if (!items) return;
    const before = oldItems(node.schema, old);
    for (const [index, item] of value.entries()) yield [items, placeOf(`${path}[${index}]`, item, before?.(item))];
  } else if (isObject(value)) {
    const oldMembers = node.schema["x-kubernetes-map-type"] !== "atomic" && isObject(old) ? old : undefined;
    const oldOf = (name: string): unknown =>
      oldMembers && Object.hasOwn(oldMembers, name) ? (oldMembers[name] ?? undefined) : undefined;
    if (additional) {
      for (const name of Object.keys(value)) {
        yield [additional, placeOf(`${path}[${name}]`, value[name], oldOf(name))];
      }
    }
    for (const [name, next] of properties) {
      if (!Object.hasOwn(value, name)) continue;
      yield [next, placeOf(path === "" ? name : `${path}.${name}`, value[name], oldOf(name))];
    }
  }
}

/** Only elements of lists with keys are known again. */
function oldItems(schema: JsonSchema, old: unknown): ((item: unknown) => unknown) | undefined {
  if (!Array.isArray(old) || schema["x-kubernetes-list-type"] !== "map") return undefined;
  const keys = schema["x-kubernetes-list-map-keys"] ?? [];
  const byKey = new Map(old.map((item) => [keyOf(item, keys), item] as const));
  return (item) => byKey.get(keyOf(item, keys)) ?? undefined;
}

function* evaluate(run: Run, node: Node, { path, value, old, change }: Place): Generator<void> {
  const type = node.schema.type ?? "";
  const field = path === "" ? "<nil>" : path;
  const fail = (detail: string): void => {
    run.errors.push(fieldInvalid(field, type, detail));
  };
  const stop = (detail: string): void => {
    fail(detail);
    run.isOver = true;
  };
  if (run.budget.remaining <= 0) {
    stop(outOfBudget);
    return;
  }
  // Data that does not fit its schema fails where a rule reads it.
  const self = (): Value => node.adapter(value);
  const oldSelf = (): Value | undefined => (old === undefined ? undefined : node.adapter(old));
  for (const compiled of node.rules) {
    const { rule, program } = compiled;
    if (compiled.problem !== undefined) fail(`rule compile error: ${compiled.problem}`);
    if (!program) continue;
    const isOptional = rule.optionalOldSelf === true;
    if (compiled.usesOldSelf && old === undefined && !isOptional) continue;
    const values = {
      self,
      oldSelf: isOptional
        ? (): Value => (old === undefined ? Optional.none : new Optional(node.adapter(old)))
        : oldSelf,
    };
    if (run.turn > turnCost) {
      run.turn = 0;
      yield;
    }
    const outcome = yield* spend(run, program, values);
    if (!outcome) {
      stop(outOfBudget);
      return;
    }
    if (outcome.error !== undefined) {
      const text = ruleText(rule);
      if (outcome.isOverLimit) {
        stop(
          `'${outcome.error}': no further validation rules will be run due to call cost exceeds limit for rule: ${text}`,
        );
        return;
      }
      if (outcome.error.startsWith("no such overload")) {
        const why = "call arguments did not match a supported operator, function or macro signature for rule";
        fail(`'${outcome.error}': ${why}: ${text}`);
      } else fail(`${outcome.error} evaluating rule: ${text}`);
      continue;
    }
    if (outcome.value === true) continue;
    const message = yield* messageOf(run, compiled, values);
    const at = compiled.fieldPath === "" ? field : path === "" ? compiled.fieldPath : join(path, compiled.fieldPath);
    const error = errorFor(message.isOver ? undefined : rule.reason, at, type, message.text);
    if (!compiled.usesOldSelf && isUnchanged(change)) run.warn?.(`${error.field}: ${error.message}`);
    else run.errors.push(error);
    if (message.isOver) {
      run.isOver = true;
      return;
    }
  }
}
/** Undefined where the budget of the object does not hold what it costs. */
function* spend(
  run: Run,
  program: Program,
  values: Readonly<Record<string, unknown>>,
): Generator<void, Outcome | undefined> {
  const outcome = yield* inStretches(program.begin(values, perCallLimit, run.effort));
  run.turn += outcome.cost + evaluationCost;
  if (outcome.cost > run.budget.remaining) return undefined;
  run.budget.remaining -= outcome.cost;
  return outcome;
}
const join = (path: string, rest: string): string => (rest.startsWith("[") ? `${path}${rest}` : `${path}.${rest}`);

function errorFor(reason: string | undefined, field: string, type: string, detail: string): FieldError {
  switch (reason) {
    case "FieldValueForbidden":
      return fieldForbidden(field, detail);
    case "FieldValueRequired":
      return fieldRequired(field, detail);
    case "FieldValueDuplicate":
      return fieldDuplicate(field, type);
    default:
      return fieldInvalid(field, type, detail);
  }
}

/** The message of the rule; a failed expression of one is no reason to say nothing. */
function* messageOf(
  run: Run,
  { rule, messageProgram }: CompiledRule,
  values: Readonly<Record<string, unknown>>,
): Generator<void, { text: string; isOver?: boolean }> {
  const fallback = { text: rule.message ? ruleText(rule) : `failed rule: ${ruleText(rule)}` };
  if (!messageProgram) return fallback;
  const outcome = yield* spend(run, messageProgram, values);
  if (!outcome) {
    const text =
      "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
    return { text, isOver: true };
  }
  if (outcome.error !== undefined) {
    if (!outcome.isOverLimit) return fallback;
    const shown = JSON.stringify(rule.messageExpression);
    const text = `no further validation rules will be run due to call cost exceeds limit for messageExpression: ${shown}`;
    return { text, isOver: true };
  }
  const text = typeof outcome.value === "string" ? outcome.value.trim() : "";
  const isUsable = text !== "" && !text.includes("\n") && text.length <= maxMessageBytes;
  return isUsable ? { text } : fallback;
}
