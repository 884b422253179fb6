// What is wrong with the rules of a definition: form, types, and what they could cost, each and together. Data that a
// limit of the schema bounds can be looked at more often than data that only the size of a request bounds.
// Upstream counterpart: apiextensions validation.go (x-kubernetes-validations) and cel_validation.go.
import type { JsonSchema, ValidationRule } from "../custom-resources.ts";
import { type FieldError, fieldForbidden, fieldInvalid, fieldNotSupported, fieldRequired } from "../status.ts";
import { findings } from "../validation/findings.ts";
import { unlimited } from "./cost.ts";
import { resolveFieldPath } from "./field-path.ts";
import { type CompiledRule, compileRule, maxCardinality } from "./rule.ts";
import { type Declaration, declare, escapeName } from "./schema-types.ts";

/** Of one rule, wherever its data can stand. */
const ruleCostLimit = 10_000_000;
const schemaCostLimit = 100_000_000;
const reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/** How object types are called in messages; upstream's name has a number of no meaning. */
const typeName = "selfType";

export function checkSchemaRules(schema: JsonSchema, path: string): FieldError[] {
  if (!hasRules(schema)) return [];
  const costs: RuleCost[] = [];
  const found = check({
    schema,
    path,
    cardinality: 1,
    isResource: true,
    declaration: undefined,
    uncorrelatable: undefined,
    costs,
  });
  const errors = findings([...found.form, ...found.rules]);
  const total = costs.reduce((sum, { cost }) => Math.min(sum + cost, unlimited), 0);
  if (total > schemaCostLimit) {
    const worst = costs.filter(({ cost }) => cost >= schemaCostLimit / 100).sort((a, b) => b.cost - a.cost);
    for (const { path: at } of worst.slice(0, 4)) {
      const why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
      errors.push(fieldForbidden(at, why));
    }
    const what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.push(fieldForbidden(path, costText(what, total, schemaCostLimit)));
  }
  return errors;
}

/** Whether any level has a rule; inside of allOf and its like none may be. */
export function hasRules(schema: JsonSchema): boolean {
  if ((schema["x-kubernetes-validations"] ?? []).length > 0) return true;
  const { items, additionalProperties, properties } = schema;
  return (
    Object.values(properties ?? {}).some(hasRules) ||
    (items !== undefined && hasRules(items)) ||
    (typeof additionalProperties === "object" && additionalProperties !== null && hasRules(additionalProperties))
  );
}

interface RuleCost {
  readonly path: string;
  readonly cost: number;
}
interface Level {
  readonly schema: JsonSchema;
  readonly path: string;
  /** How often it can stand in an object; undefined where nothing bounds that. */
  readonly cardinality: number | undefined;
  readonly isResource: boolean;
  /** Of this schema, where a level above has it already. */
  readonly declaration: Declaration | undefined;
  /** The nearest list or map above in which old and new elements cannot be told to be the same. */
  readonly uncorrelatable: string | undefined;
  readonly costs: RuleCost[];
}
/** Where the form is wrong, here or below, rules are not compiled: their errors would only confuse. */
interface Found {
  readonly form: FieldError[];
  readonly rules: FieldError[];
}

function check(level: Level): Found {
  const { schema, path } = level;
  const found: Found = { form: findings(), rules: findings() };
  const rules = schema["x-kubernetes-validations"] ?? [];
  const declaration = level.declaration ?? (rules.length > 0 ? declare(schema, level.isResource, typeName) : undefined);
  const look = (below: Level): void => {
    if (!hasRules(below.schema)) return;
    const { form, rules: errors } = check(below);
    found.form.push(...form);
    found.rules.push(...errors);
  };
  const { additionalProperties, properties, items } = schema;
  const isResource = (part: JsonSchema): boolean => part["x-kubernetes-embedded-resource"] === true;
  const cardinality = product(level.cardinality, maxElements(schema));
  const isAtomic = schema["x-kubernetes-map-type"] === "atomic";
  const members = { ...level, cardinality, uncorrelatable: level.uncorrelatable ?? (isAtomic ? path : undefined) };
  if (typeof additionalProperties === "object" && additionalProperties !== null) {
    look({
      ...members,
      schema: additionalProperties,
      path: `${path}.additionalProperties`,
      isResource: isResource(additionalProperties),
      declaration: declaration?.item,
    });
  }
  for (const [name, part] of Object.entries(properties ?? {})) {
    const escaped = escapeName(name);
    look({
      ...members,
      schema: part,
      path: `${path}.properties[${name}]`,
      isResource: isResource(part),
      declaration: escaped === undefined ? undefined : declaration?.fields?.get(escaped),
    });
  }
  if (items) {
    const isKeyed = schema["x-kubernetes-list-type"] === "map";
    look({
      ...level,
      schema: items,
      path: `${path}.items`,
      cardinality,
      isResource: isResource(items),
      declaration: declaration?.item,
      uncorrelatable: level.uncorrelatable ?? (isKeyed ? undefined : path),
    });
  }
  if (rules.length === 0) return found;
  for (const [index, rule] of rules.entries()) {
    checkForm(found.form, rule, `${path}.x-kubernetes-validations[${index}]`, schema);
  }
  if (found.form.length > 0) return found;
  if (!declaration) {
    found.rules.push({
      reason: "InternalError",
      field: `${path}.x-kubernetes-validations`,
      message:
        "Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations",
    });
    return found;
  }
  rules.forEach((rule, index) => {
    const at = `${path}.x-kubernetes-validations[${index}]`;
    checkRule(found.rules, compileRule(rule, declaration, schema), at, declaration, level);
  });
  return found;
}

const lineBreak = /[\n\r]/;
function checkForm(errors: FieldError[], rule: ValidationRule, path: string, schema: JsonSchema): void {
  const text = rule.rule.trim();
  const message = (rule.message ?? "").trim();
  if (text === "") errors.push(fieldRequired(`${path}.rule`, "rule is not specified"));
  else if (rule.message && message === "") {
    errors.push(fieldInvalid(`${path}.message`, rule.message, "message must be non-empty if specified"));
  } else if (lineBreak.test(message)) {
    errors.push(fieldInvalid(`${path}.message`, rule.message, "message must not contain line breaks"));
  } else if (lineBreak.test(text) && message === "") {
    errors.push(fieldRequired(`${path}.message`, "message must be specified if rule contains line breaks"));
  }
  if (rule.messageExpression && rule.messageExpression.trim() === "") {
    errors.push(fieldRequired(`${path}.messageExpression`, "messageExpression must be non-empty if specified"));
  }
  if (rule.reason !== undefined && !reasons.includes(rule.reason)) {
    errors.push(fieldNotSupported(`${path}.reason`, rule.reason, reasons));
  }
  const { fieldPath } = rule;
  if (!fieldPath) return;
  const at = `${path}.fieldPath`;
  if (fieldPath.trim() === "") errors.push(fieldInvalid(at, fieldPath, "fieldPath must be non-empty if specified"));
  if (lineBreak.test(fieldPath)) errors.push(fieldInvalid(at, fieldPath, "fieldPath must not contain line breaks"));
  if (resolveFieldPath(fieldPath, schema) === undefined) {
    errors.push(fieldInvalid(at, fieldPath, "fieldPath must be a valid path"));
  }
}

function checkRule(
  errors: FieldError[],
  compiled: CompiledRule,
  path: string,
  declaration: Declaration,
  level: Level,
): void {
  const { rule, program, messageProgram } = compiled;
  const count = level.cardinality ?? maxCardinality(declaration);
  const cost = Math.min((program?.maxCost ?? 0) * count, unlimited);
  const spend = (field: string, what: string, amount: number): void => {
    if (amount > ruleCostLimit) errors.push(fieldForbidden(field, costText(what, amount, ruleCostLimit)));
    level.costs.push({ path: field, cost: amount });
  };
  spend(`${path}.rule`, "estimated rule cost", cost);
  const whole = (field: string, why: string): void => {
    errors.push({ reason: "FieldValueInvalid", field, message: `Invalid value: ${showRule(rule)}: ${why}` });
  };
  if (compiled.problem !== undefined) whole(`${path}.rule`, compiled.problem);
  if (compiled.messageProblem !== undefined) whole(`${path}.messageExpression`, compiled.messageProblem);
  else if (messageProgram) {
    spend(`${path}.messageExpression`, "estimated messageExpression cost", messageProgram.maxCost);
  }
  if (compiled.usesOldSelf) {
    if (level.uncorrelatable !== undefined) {
      const why = `oldSelf cannot be used on the uncorrelatable portion of the schema within ${level.uncorrelatable}`;
      errors.push(fieldInvalid(`${path}.rule`, rule.rule, why));
    }
  } else if (rule.optionalOldSelf !== undefined) {
    const why = "may not be set if oldSelf is not used in rule";
    errors.push(fieldInvalid(`${path}.optionalOldSelf`, rule.optionalOldSelf, why));
  }
}

/** As Go prints the struct. Of pointers only nil has a text of its own. */
function showRule(rule: ValidationRule): string {
  const text = (value: string | undefined): string => JSON.stringify(value ?? "");
  const reason = rule.reason === undefined ? "nil" : "0xc000000000";
  const optional = rule.optionalOldSelf === undefined ? "nil" : "0xc000000000";
  return `apiextensions.ValidationRule{Rule:${text(rule.rule)}, Message:${text(rule.message)}, MessageExpression:${text(rule.messageExpression)}, Reason:(*apiextensions.FieldValueErrorReason)(${reason}), FieldPath:${text(rule.fieldPath)}, OptionalOldSelf:(*bool)(${optional})}`;
}

function costText(what: string, cost: number, limit: number): string {
  const factor = cost / limit;
  const shown = factor > 100 ? "more than 100x" : factor < 1.5 ? `${factor.toFixed(6)}x` : `${factor.toFixed(1)}x`;
  return `${what} exceeds budget by factor of ${shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)`;
}

/** By how much the schema multiplies what stands below it; undefined where it sets no limit. */
function maxElements(schema: JsonSchema): number | undefined {
  const limit = (value: number | undefined): number | undefined =>
    value === undefined ? undefined : Math.max(value, 0);
  if (schema.type === "array") return limit(schema.maxItems);
  return schema.type === "object" && schema.additionalProperties !== undefined ? limit(schema.maxProperties) : 1;
}
const product = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? undefined : Math.min(a * b, unlimited);
