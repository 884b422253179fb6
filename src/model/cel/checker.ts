// Types of every node, and which overloads each call may mean: one, or several where a value is dynamic. Messages are
// upstream's, to the letter, since people search for them. Upstream counterpart: cel-go checker/checker.go, errors.go,
// cel/validator.go (literals that can be seen to be wrong).

import { compilePattern } from "../patterns.ts";
import type { Call, Comprehension, Expr, Issue, ListLiteral, MapLiteral, OptionalMap, Select } from "./ast.ts";
import { type FunctionTable, functions, operatorTypes } from "./functions.ts";
import type { Overload } from "./overloads.ts";
import { parseDuration, parseTimestamp } from "./text.ts";
import {
  Bindings,
  boolType,
  bytesType,
  type CelType,
  checkSize,
  doubleType,
  durationType,
  dynType,
  errorType,
  formatSignature,
  formatType,
  intType,
  isDynOrError,
  isOptional,
  listOf,
  mapOf,
  moreGeneral,
  namedTypes,
  nullType,
  optionalOf,
  paramType,
  sameType,
  stringType,
  TypeTooLarge,
  timestampType,
  typeOfType,
  uintType,
} from "./types.ts";
import { Bytes, Double, Duration, isInt, Timestamp, Uint, type Value } from "./values.ts";

export interface Checked {
  readonly type: CelType;
  typeOf(expr: Expr): CelType;
  overloadsOf(call: Call): readonly Overload[];
  /** The call names its function in full (`optional.of`): what looks like a target is no expression. */
  isQualified(call: Call): boolean;
  /** The type that an identifier or a selection names. */
  typeNamedBy(expr: Expr): string | undefined;
  readonly variables: ReadonlySet<string>;
}

export interface Scope {
  readonly variables: ReadonlyMap<string, CelType>;
  /** Beside those of every environment. */
  readonly functions?: FunctionTable;
}

export function check(expr: Expr, scope: Scope): { checked?: Checked; issues: Issue[] } {
  const checker = new Checker(scope);
  let checked: Checked;
  try {
    const type = checker.check(expr);
    if (checker.issues.length > 0) return { issues: checker.issues };
    checked = checker.result(type);
  } catch (error) {
    if (!(error instanceof TypeTooLarge)) throw error;
    return { issues: [{ pos: -1, text: "types of the expression are too large" }] };
  }
  const issues = literalIssues(expr, checked);
  return issues.length > 0 ? { issues } : { checked, issues };
}

class Checker {
  readonly issues: Issue[] = [];
  readonly #scope: Scope;
  readonly #types = new Map<number, CelType>();
  readonly #overloads = new Map<number, Overload[]>();
  readonly #qualified = new Set<number>();
  readonly #typeNames = new Map<number, string>();
  readonly #variables = new Set<string>();
  readonly #locals: (readonly [string, CelType])[] = [];
  readonly #bindings = new Bindings();
  #freshCount = 0;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  result(type: CelType): Checked {
    const resolve = (found: CelType | undefined): CelType => this.#bindings.substitute(found ?? dynType, true);
    const resolved = new Map<number, CelType>();
    for (const [id, found] of this.#types) resolved.set(id, resolve(found));
    return {
      type: resolve(type),
      typeOf: (expr) => resolved.get(expr.id) ?? dynType,
      overloadsOf: (call) => this.#overloads.get(call.id) ?? [],
      isQualified: (call) => this.#qualified.has(call.id),
      typeNamedBy: (expr) => this.#typeNames.get(expr.id),
      variables: this.#variables,
    };
  }

  check(expr: Expr): CelType {
    const type = this.#typeOf(expr);
    checkSize(type);
    this.#types.set(expr.id, type);
    return type;
  }

  #typeOf(expr: Expr): CelType {
    switch (expr.kind) {
      case "const":
        return typeOfConstant(expr.value);
      case "ident":
        return this.#named(expr, expr.name) ?? this.#report(expr.pos, undeclared(expr.name));
      case "select":
        return this.#select(expr);
      case "call":
        return this.#call(expr);
      case "list":
        return this.#list(expr);
      case "map":
        return this.#map(expr);
      case "comprehension":
        return this.#comprehension(expr);
      case "optionalMap":
        return this.#optionalMap(expr);
    }
  }

  #report(pos: number, text: string): CelType {
    this.issues.push({ pos, text });
    return errorType;
  }
  #fresh(): CelType {
    return paramType(`_var${this.#freshCount++}`);
  }
  #current(type: CelType): CelType {
    return this.#bindings.substitute(type);
  }
  #assign(from: readonly CelType[], to: readonly CelType[]): boolean {
    return this.#bindings.assign(from, to);
  }

  /** A variable, or a type by its name. */
  #named(expr: Expr, name: string): CelType | undefined {
    for (let i = this.#locals.length - 1; i >= 0; i--) if (this.#locals[i]![0] === name) return this.#locals[i]![1];
    const variable = this.#scope.variables.get(name);
    if (variable) {
      this.#variables.add(name);
      return variable;
    }
    const type = namedTypes.get(name);
    if (!type) return undefined;
    this.#typeNames.set(expr.id, name);
    return typeOfType(type);
  }

  #select(expr: Select): CelType {
    const name = expr.isTest ? undefined : qualifiedName(expr);
    if (name !== undefined && namedTypes.has(name)) {
      const type = this.#named(expr, name);
      if (type) return type;
    }
    const operand = this.#current(this.check(expr.operand));
    const found = this.#field(expr.pos, operand, expr.field);
    return expr.isTest ? boolType : found;
  }

  #field(pos: number, operand: CelType, field: string): CelType {
    const wasOptional = isOptional(operand);
    const target = wasOptional ? this.#current(operand.params[0]!) : operand;
    let found: CelType;
    switch (target.kind) {
      case "error":
      case "dyn":
        found = dynType;
        break;
      case "param":
        // It can only be used as a map or message, so it is as good as dynamic.
        this.#assign([target], [dynType]);
        found = dynType;
        break;
      case "map":
        found = target.params[1]!;
        break;
      case "object": {
        const type = target.fields?.get(field);
        if (!type) return this.#report(pos, `undefined field '${field}'`);
        found = type;
        break;
      }
      default:
        return this.#report(pos, `type '${formatType(target)}' does not support field selection`);
    }
    return wasOptional && !isOptional(found) ? optionalOf(found) : found;
  }

  #call(call: Call): CelType {
    if (call.name === "_?._") return this.#optionalSelect(call);
    const args = call.args.map((arg) => this.check(arg));
    if (!call.target) {
      const overloads = this.#functions(call.name);
      if (!overloads) return this.#report(call.pos, undeclared(call.name));
      return this.#resolve(call, overloads, call.name, args, false);
    }
    const prefix = qualifiedName(call.target);
    if (prefix !== undefined) {
      const name = `${prefix}.${call.name}`;
      const overloads = this.#functions(name);
      if (overloads) {
        this.#qualified.add(call.id);
        return this.#resolve(call, overloads, name, args, false);
      }
    }
    const target = this.check(call.target);
    const overloads = this.#functions(call.name);
    if (!overloads) return this.#report(call.pos, undeclared(call.name));
    return this.#resolve(call, overloads, call.name, [target, ...args], true);
  }
  #functions(name: string): readonly Overload[] | undefined {
    return functions.get(name) ?? operatorTypes.get(name) ?? this.#scope.functions?.get(name);
  }

  #resolve(
    call: Call,
    overloads: readonly Overload[],
    name: string,
    args: readonly CelType[],
    isMember: boolean,
  ): CelType {
    const current = args.map((type) => this.#current(type));
    const candidates: Overload[] = [];
    let result: CelType | undefined;
    for (const overload of overloads) {
      if (overload.isMember !== isMember || overload.params.length !== args.length) continue;
      const fresh = new Map(overload.typeParams.map((param) => [param, this.#fresh()] as const));
      const params = overload.params.map((type) => instantiate(type, fresh));
      if (!this.#assign(current, params)) continue;
      candidates.push(overload);
      const type = this.#current(instantiate(overload.result, fresh));
      if (result === undefined) result = type;
      else if (result.kind !== "dyn" && !sameType(type, result)) result = dynType;
    }
    if (result === undefined) {
      const signature = formatSignature(
        current.map((type) => this.#bindings.substitute(type)),
        isMember,
      );
      return this.#report(call.pos, noOverload(name, signature));
    }
    this.#overloads.set(call.id, candidates);
    return result;
  }

  #optionalSelect(call: Call): CelType {
    const [operand, field] = call.args as [Expr, Expr];
    const type = this.#current(this.check(operand));
    this.check(field);
    const name = field.kind === "const" && typeof field.value === "string" ? field.value : "";
    const found = this.#field(call.pos, type, name);
    return found.kind === "error" || isOptional(found) ? found : optionalOf(found);
  }

  #list(list: ListLiteral): CelType {
    let joined: CelType | undefined;
    for (const [index, item] of list.items.entries()) {
      let type = this.check(item);
      if (list.optionals.has(index)) type = this.#unwrapped(item, type);
      joined = this.#join(item.pos, joined, type);
    }
    return listOf(joined ?? this.#fresh());
  }
  #map(map: MapLiteral): CelType {
    let keys: CelType | undefined;
    let values: CelType | undefined;
    for (const { key, value, isOptional: optional } of map.entries) {
      keys = this.#join(key.pos, keys, this.check(key));
      let type = this.check(value);
      if (optional) type = this.#unwrapped(value, type);
      values = this.#join(value.pos, values, type);
    }
    return mapOf(keys ?? this.#fresh(), values ?? this.#fresh());
  }
  #unwrapped(expr: Expr, type: CelType): CelType {
    const current = this.#current(type);
    if (isDynOrError(current)) return dynType;
    if (isOptional(current)) return current.params[0]!;
    return this.#report(expr.pos, mismatch(optionalOf(current), current));
  }
  /** Literals hold values of one type. */
  #join(pos: number, previous: CelType | undefined, type: CelType): CelType {
    if (previous === undefined) return type;
    if (this.#assign([previous], [type])) return moreGeneral(previous, type);
    this.#report(pos, mismatch(this.#current(previous), this.#current(type)));
    return previous;
  }

  #optionalMap(expr: OptionalMap): CelType {
    const target = this.#current(this.check(expr.target));
    const value = this.#fresh();
    if (!this.#assign([target], [optionalOf(value)])) {
      return this.#report(expr.pos, noOverload("hasValue", formatSignature([target], true)));
    }
    this.#locals.push([expr.variable, this.#current(value)]);
    const body = this.#current(this.check(expr.body));
    this.#locals.pop();
    if (!expr.isFlat) return optionalOf(body);
    const made = optionalOf(this.#fresh());
    if (this.#assign([body], [made])) return this.#current(made);
    return this.#report(expr.pos, noOverload("_?_:_", formatSignature([boolType, body, made], false)));
  }

  #comprehension(expr: Comprehension): CelType {
    const range = this.#current(this.check(expr.range));
    let key: CelType = dynType;
    let value: CelType = dynType;
    switch (range.kind) {
      case "list":
        key = intType;
        value = range.params[0]!;
        break;
      case "map":
        [key, value] = range.params as [CelType, CelType];
        break;
      case "dyn":
      case "error":
      case "param":
        break;
      default: {
        const shown = formatType(range);
        const why = `expression of type '${shown}' cannot be range of a comprehension (must be list, map, or dynamic)`;
        this.#report(expr.range.pos, why);
        key = errorType;
        value = errorType;
      }
    }
    const single = range.kind === "map" ? key : value;
    const locals = this.#locals.length;
    if (expr.second === undefined) this.#locals.push([expr.variable, single]);
    else this.#locals.push([expr.variable, key], [expr.second, value]);
    const condition = expr.condition && this.check(expr.condition);
    const result = expr.result && this.check(expr.result);
    this.#locals.length = locals;
    const made = expr.macro === "filter" ? listOf(single) : this.#made(expr, key, result);
    if (condition && !this.#assign([condition], [boolType])) {
      const found = this.#current(condition);
      if (expr.macro === "all") this.#report(expr.pos, noOverload("_&&_", formatSignature([boolType, found], false)));
      else if (expr.macro === "exists") {
        this.#report(expr.pos, noOverload("_||_", formatSignature([boolType, found], false)));
      } else {
        const shown = expr.macro === "existsOne" ? intType : made;
        this.#report(expr.pos, noOverload("_?_:_", formatSignature([found, shown, shown], false)));
      }
    }
    return made;
  }
  #made(expr: Comprehension, key: CelType, result: CelType | undefined): CelType {
    if (result === undefined) return boolType;
    if (expr.macro === "map") return listOf(result);
    if (expr.macro === "transformMap") return mapOf(key, result);
    const current = this.#current(result);
    if (current.kind === "map" || current.kind === "dyn") return current;
    const args = formatSignature([mapOf(dynType, dynType), current], false);
    return this.#report(expr.pos, noOverload("cel.@mapInsert", args));
  }
}

const undeclared = (name: string): string => `undeclared reference to '${name}' (in container '')`;
const noOverload = (name: string, signature: string): string =>
  `found no matching overload for '${name}' applied to '${signature}'`;
const mismatch = (expected: CelType, found: CelType): string =>
  `expected type '${formatType(expected)}' but found '${formatType(found)}'`;

function instantiate(type: CelType, fresh: ReadonlyMap<string, CelType>): CelType {
  if (type.kind === "param") return fresh.get(type.name) ?? type;
  if (type.params.length === 0) return type;
  return { kind: type.kind, name: type.name, params: type.params.map((param) => instantiate(param, fresh)) };
}

/** `a.b.c` as one name. */
function qualifiedName(expr: Expr): string | undefined {
  if (expr.kind === "ident") return expr.name;
  if (expr.kind !== "select" || expr.isTest) return undefined;
  const prefix = qualifiedName(expr.operand);
  return prefix === undefined ? undefined : `${prefix}.${expr.field}`;
}

function typeOfConstant(value: Value): CelType {
  if (value === null) return nullType;
  if (typeof value === "string") return stringType;
  if (typeof value === "boolean") return boolType;
  if (isInt(value)) return intType;
  if (value instanceof Double) return doubleType;
  if (value instanceof Uint) return uintType;
  if (value instanceof Bytes) return bytesType;
  if (value instanceof Timestamp) return timestampType;
  return value instanceof Duration ? durationType : dynType;
}

// Literals

const literalTests: Readonly<Record<string, (text: string) => boolean>> = {
  duration: (text) => parseDuration(text) !== undefined,
  timestamp: (text) => parseTimestamp(text) !== undefined,
  matches: (text) => compilePattern(text) !== undefined,
};
function literalIssues(root: Expr, checked: Checked): Issue[] {
  const issues: Issue[] = [];
  walk(root, (expr) => {
    if (expr.kind !== "call" || checked.isQualified(expr) || !Object.hasOwn(literalTests, expr.name)) return;
    const text = expr.args[expr.args.length - 1];
    if (text?.kind !== "const" || typeof text.value !== "string") return;
    if (!literalTests[expr.name]!(text.value)) issues.push({ pos: text.pos, text: `invalid ${expr.name} argument` });
  });
  return issues;
}

/** Every node, children after their parents. */
function walk(expr: Expr, visit: (expr: Expr) => void): void {
  visit(expr);
  for (const child of childrenOf(expr)) walk(child, visit);
}
function childrenOf(expr: Expr): readonly Expr[] {
  switch (expr.kind) {
    case "const":
    case "ident":
      return [];
    case "select":
      return [expr.operand];
    case "call":
      return expr.target ? [expr.target, ...expr.args] : expr.args;
    case "list":
      return expr.items;
    case "map":
      return expr.entries.flatMap(({ key, value }) => [key, value]);
    case "comprehension":
      return [expr.range, expr.condition, expr.result].filter((part) => part !== undefined);
    case "optionalMap":
      return [expr.target, expr.body];
  }
}
