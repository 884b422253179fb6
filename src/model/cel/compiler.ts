// A checked tree to closures: one call per node, no dispatch on what the checker already knows. What each step costs is
// counted as upstream's tracker would, macros as the loops they stand for there. && and || absorb the failure of one side
// where the other decides; so do all() and exists(). Upstream counterpart: cel-go interpreter.
import type { Call, Comprehension, Expr, ListLiteral, MapLiteral, OptionalMap, Select } from "./ast.ts";
import type { Checked } from "./checker.ts";
import { Evaluation, patternOf } from "./evaluation.ts";
import { accepts, type Overload } from "./overloads.ts";
import { type CelType, isOptional } from "./types.ts";
import {
  addInts,
  CostExceeded,
  equals,
  Failure,
  keyId,
  ListValue,
  MapValue,
  NativeList,
  NativeMap,
  Optional,
  TypeValue,
  typeNameOf,
  type Value,
} from "./values.ts";

export type Code = (run: Evaluation) => Value;

export interface Compiled {
  readonly code: Code;
  /** Of variables first, in the order given; then of loops. */
  readonly slotCount: number;
}

export function compile(expr: Expr, checked: Checked, variables: readonly string[]): Compiled {
  const compiler = new Compiler(checked, variables);
  return { code: compiler.compile(expr), slotCount: compiler.slotCount };
}

// What upstream's loops cost. `again`: before each element it is asked whether to go on, also before the one after the
// element that decided.
const allCosts = { step: 3, again: 2 };
const existsCosts = { step: 4, again: 3 };
const listCost = 10;
const mapCost = 30;
const appendCost = 12;
const countCost = 2;
const insertCost = 3;
/** Conversions of constants are done once. */
const conversions: ReadonlySet<string> = new Set(
  "bool bytes double duration dyn int string timestamp type uint".split(" "),
);

class Compiler {
  slotCount: number;
  /** Loops have numbers; those inside of one follow it. */
  #loopCount = 0;
  readonly #checked: Checked;
  readonly #globals: ReadonlyMap<string, number>;
  readonly #locals: (readonly [string, number])[] = [];
  constructor(checked: Checked, variables: readonly string[]) {
    this.#checked = checked;
    this.#globals = new Map(variables.map((name, index) => [name, index]));
    this.slotCount = variables.length;
  }

  compile(expr: Expr): Code {
    switch (expr.kind) {
      case "const": {
        const { value } = expr;
        return () => value;
      }
      case "ident":
        return this.#ident(expr, expr.name);
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

  #ident(expr: Expr, name: string): Code {
    let slot: number | undefined;
    for (let i = this.#locals.length - 1; i >= 0 && slot === undefined; i--) {
      if (this.#locals[i]![0] === name) slot = this.#locals[i]![1];
    }
    slot ??= this.#globals.get(name);
    if (slot === undefined) {
      const value = new TypeValue(this.#checked.typeNamedBy(expr) ?? name);
      return () => value;
    }
    const index = slot;
    return (run) => {
      run.charge(1);
      const value = run.slots[index];
      if (value === undefined) throw new Failure(`no such attribute(s): ${name}`);
      return value;
    };
  }

  #select(expr: Select): Code {
    const typeName = this.#checked.typeNamedBy(expr);
    if (typeName !== undefined) return this.#ident(expr, typeName);
    const { field } = expr;
    const operand = this.compile(expr.operand);
    if (expr.isTest) {
      return (run) => {
        const value = operand(run);
        if (value instanceof MapValue) return value.has(field);
        if (value instanceof Optional) {
          if (value.value === undefined) return false;
          if (value.value instanceof MapValue) return value.value.has(field);
        }
        throw noSuchOverload("has", value);
      };
    }
    return (run) => {
      const value = operand(run);
      run.charge(1);
      if (value instanceof MapValue) {
        const found = value.field(field);
        if (found === undefined) throw new Failure(`no such key: ${field}`);
        return found;
      }
      if (value instanceof Optional) return optionalField(value, field);
      throw noSuchOverload("select", value);
    };
  }

  #call(call: Call): Code {
    switch (call.name) {
      case "_&&_":
        return this.#logical(call, false);
      case "_||_":
        return this.#logical(call, true);
      case "_?_:_":
        return this.#conditional(call);
      case "_?._": {
        const [operand, name] = call.args as [Expr, Expr];
        const field = name.kind === "const" && typeof name.value === "string" ? name.value : "";
        const code = this.compile(operand);
        return (run) => {
          const value = code(run);
          const found = optionalField(value instanceof Optional ? value : new Optional(value), field);
          if (found.value !== undefined) run.charge(1);
          return found;
        };
      }
      case "or":
      case "orValue":
        if (call.target && call.args.length === 1) return this.#orElse(call, call.target);
        break;
      case "@in": {
        const constant = constantSet(call.args[1]!);
        if (constant) {
          const value = this.compile(call.args[0]!);
          return (run) => {
            const id = keyId(value(run));
            return id !== undefined && constant.has(id);
          };
        }
        break;
      }
      case "matches": {
        const code = this.#constantPattern(call);
        if (code) return code;
      }
    }
    const isMember = call.target !== undefined && !this.#checked.isQualified(call);
    const args = isMember ? [call.target!, ...call.args] : call.args;
    const codes = args.map((arg) => this.compile(arg));
    // Upstream counts what leads to an index as the index.
    if (call.name === "_[_]" && isAttribute(call.args[1]!)) codes[1] = withoutCost(codes[1]!);
    const overloads = this.#checked.overloadsOf(call);
    const isCertain = overloads.length === 1 && args.every((arg) => isFixed(this.#checked.typeOf(arg)));
    const code = isCertain ? certainCall(overloads[0]!, codes) : dynamicCall(call.name, overloads, codes);
    return conversions.has(call.name) && args.length === 1 && args[0]?.kind === "const" ? folded(code) : code;
  }

  /** `text.matches('...')`: the expression is compiled once. */
  #constantPattern(call: Call): Code | undefined {
    const args = call.target ? [call.target, ...call.args] : call.args;
    const [text, source] = args;
    if (args.length !== 2 || source?.kind !== "const" || typeof source.value !== "string") return undefined;
    const pattern = patternOf(source.value);
    const weight = Math.ceil(source.value.length * 0.25);
    const code = this.compile(text!);
    return (run) => {
      const value = code(run);
      if (typeof value !== "string") throw noSuchOverload("matches", value, source.value as string);
      run.charge(Math.ceil((1 + value.length) * 0.1) * weight);
      return pattern.finds(value, run.effort);
    };
  }

  /** An operand that `decides` does so on whichever side it stands, also beside one that failed. */
  #logical(call: Call, decides: boolean): Code {
    const left = this.compile(call.args[0]!);
    const right = this.compile(call.args[1]!);
    return (run) => {
      let failure: Failure | undefined;
      try {
        const value = left(run);
        if (value === decides) return decides;
        if (value !== !decides) failure = noSuchOverload(call.name, value);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        failure = error;
      }
      const value = right(run);
      if (value === decides) return decides;
      if (failure) throw failure;
      if (value !== !decides) throw noSuchOverload(call.name, value);
      return !decides;
    };
  }
  #conditional(call: Call): Code {
    const [condition, whenTrue, whenFalse] = call.args.map((arg) => this.compile(arg)) as [Code, Code, Code];
    return (run) => {
      const value = condition(run);
      if (value === true) return whenTrue(run);
      if (value === false) return whenFalse(run);
      throw noSuchOverload("_?_:_", value);
    };
  }
  #orElse(call: Call, targetExpr: Expr): Code {
    const target = this.compile(targetExpr);
    const other = this.compile(call.args[0]!);
    const keeps = call.name === "or";
    return (run) => {
      const value = target(run);
      if (!(value instanceof Optional)) throw noSuchOverload(call.name, value);
      if (value.value === undefined) return other(run);
      return keeps ? value : value.value;
    };
  }

  #list(list: ListLiteral): Code {
    if (list.optionals.size === 0 && list.items.every((item) => item.kind === "const")) {
      const constant = new NativeList(list.items.map((item) => (item.kind === "const" ? item.value : null)));
      return () => constant;
    }
    const items = list.items.map((item) => this.compile(item));
    return (run) => {
      run.charge(listCost);
      run.allocate(items.length);
      const values: Value[] = [];
      for (let i = 0; i < items.length; i++) {
        const value = items[i]!(run);
        if (!list.optionals.has(i)) values.push(value);
        else if (!(value instanceof Optional)) throw noSuchOverload("list", value);
        else if (value.value !== undefined) values.push(value.value);
      }
      return new NativeList(values);
    };
  }
  #map(map: MapLiteral): Code {
    const constant = constantMap(map);
    if (constant) return () => constant;
    const entries = map.entries.map(({ key, value, isOptional: optional }) => {
      return { key: this.compile(key), value: this.compile(value), optional };
    });
    return (run) => {
      run.charge(mapCost);
      run.allocate(entries.length);
      const pairs: [Value, Value][] = [];
      for (const { key, value, optional } of entries) {
        const name = key(run);
        const found = value(run);
        if (!optional) pairs.push([name, found]);
        else if (!(found instanceof Optional)) throw noSuchOverload("map", found);
        else if (found.value !== undefined) pairs.push([name, found.value]);
      }
      return new NativeMap(pairs);
    };
  }

  #optionalMap(expr: OptionalMap): Code {
    const target = this.compile(expr.target);
    const slot = this.slotCount++;
    this.#locals.push([expr.variable, slot]);
    const body = this.compile(expr.body);
    this.#locals.pop();
    const { isFlat } = expr;
    return (run) => {
      const before = run.cost;
      const optional = target(run);
      // Asked whether it has a value, then for it: upstream evaluates it twice.
      const again = run.cost - before;
      if (!(optional instanceof Optional)) throw noSuchOverload("hasValue", optional);
      run.charge(2);
      if (optional.value === undefined) return Optional.none;
      run.charge(again);
      run.slots[slot] = optional.value;
      const made = body(run);
      if (isFlat) return made;
      run.charge(1);
      return new Optional(made);
    };
  }

  // Loops

  #comprehension(expr: Comprehension): Code {
    const range = this.compile(expr.range);
    const number = this.#loopCount++;
    const first = this.slotCount++;
    const second = expr.second === undefined ? -1 : this.slotCount++;
    const depth = this.#locals.length;
    this.#locals.push([expr.variable, first]);
    if (expr.second !== undefined) this.#locals.push([expr.second, second]);
    const condition = expr.condition && this.compile(expr.condition);
    const result = expr.result && this.compile(expr.result);
    this.#locals.length = depth;
    const loop = loops[expr.macro](condition, result);
    const behind = this.#loopCount;
    return (run) => {
      const items = range(run);
      run.charge(1);
      return walk(run, loop, new Cursor(run, items, first, second), number, behind);
    };
  }
}

/** Walks a list, or a map by its keys, and puts each element where the loop's variables are. */
class Cursor {
  readonly #run: Evaluation;
  readonly #list: ListValue | undefined;
  readonly #map: MapValue | undefined;
  readonly #keys: readonly Value[] = [];
  readonly #first: number;
  readonly #second: number;
  readonly size: number;
  constructor(run: Evaluation, items: Value, first: number, second: number) {
    this.#run = run;
    this.#first = first;
    this.#second = second;
    if (items instanceof ListValue) this.#list = items;
    else if (items instanceof MapValue) {
      this.#map = items;
      this.#keys = items.keys();
    } else throw noSuchOverload("comprehension", items);
    this.size = this.#list ? this.#list.size : this.#keys.length;
  }
  /** Gives the element, or the key of a map. */
  move(index: number): Value {
    const { slots } = this.#run;
    const element = this.#list ? this.#list.at(index) : this.#keys[index]!;
    if (this.#second < 0) {
      slots[this.#first] = element;
      return element;
    }
    slots[this.#first] = this.#list ? index : element;
    slots[this.#second] = this.#map ? (this.#map.find(element) ?? null) : element;
    return element;
  }
  /** What a map made from the range has as key. */
  key(index: number): Value {
    return this.#list ? index : this.#keys[index]!;
  }
}

/** One way to loop. `made` is what has come of it so far: changed at the end of a step only, so that a step may be done again. */
interface Loop<M> {
  begin(): M;
  /** Gives the value where the element decides. */
  step(run: Evaluation, cursor: Cursor, index: number, made: M): Value | undefined;
  end(run: Evaluation, made: M): Value;
}
type LoopMaker = (condition: Code | undefined, result: Code | undefined) => Loop<unknown>;
/** The driver below hands each loop only what it has begun itself. */
const loopOf = <M>(loop: Loop<M>): Loop<unknown> => loop as Loop<unknown>;

/** From where it was left, if it was. `number + 1` to `behind` are the loops inside. */
function walk(run: Evaluation, loop: Loop<unknown>, cursor: Cursor, number: number, behind: number): Value {
  const state = run.loop(number);
  if (state.outcome) {
    run.goBack(state);
    if ("failure" in state.outcome) throw state.outcome.failure;
    return state.outcome.value;
  }
  let isGoingOn = state.made !== undefined;
  if (isGoingOn) run.goBack(state);
  else state.made = loop.begin();
  const { made } = state;
  let value: Value | undefined;
  try {
    for (; state.index < cursor.size && value === undefined; state.index++) {
      if (!isGoingOn) run.enter(state, number + 1, behind);
      isGoingOn = false;
      value = loop.step(run, cursor, state.index, made);
    }
    if (value === undefined) value = loop.end(run, made);
  } catch (error) {
    if (error instanceof Failure) {
      state.outcome = { failure: error };
      run.note(state);
    }
    throw error;
  }
  state.outcome = { value };
  run.note(state);
  return value;
}

/** The loop ends where one element decides; failures before that are forgotten, without it the first counts. */
const quantifier =
  (decides: boolean, { step, again }: { step: number; again: number }, name: string): LoopMaker =>
  (condition) =>
    loopOf<{ failure: Failure | undefined }>({
      begin: () => ({ failure: undefined }),
      step(run, cursor, i, made) {
        run.charge(step);
        try {
          cursor.move(i);
          const value = condition!(run);
          if (value === decides) {
            if (i + 1 < cursor.size) run.charge(again);
            return decides;
          }
          if (value !== !decides) made.failure ??= noSuchOverload(name, value);
        } catch (error) {
          if (!(error instanceof Failure)) throw error;
          made.failure ??= error;
        }
        return undefined;
      },
      end(_run, { failure }) {
        if (failure) throw failure;
        return !decides;
      },
    });
const isTrue = (value: Value): boolean => {
  if (typeof value !== "boolean") throw noSuchOverload("_?_:_", value);
  return value;
};

const loops: Readonly<Record<Comprehension["macro"], LoopMaker>> = {
  all: quantifier(false, allCosts, "_&&_"),
  exists: quantifier(true, existsCosts, "_||_"),
  existsOne: (condition) =>
    loopOf<{ count: number }>({
      begin: () => ({ count: 0 }),
      step(run, cursor, i, made) {
        cursor.move(i);
        if (!isTrue(condition!(run))) return undefined;
        run.charge(countCost);
        made.count++;
        return undefined;
      },
      end(run, { count }) {
        run.charge(1);
        return count === 1;
      },
    }),
  filter: (condition) =>
    loopOf<Value[]>({
      begin: () => [],
      step(run, cursor, i, kept) {
        const element = cursor.move(i);
        if (!isTrue(condition!(run))) return undefined;
        run.charge(appendCost + 1);
        run.allocate(1);
        kept.push(element);
        return undefined;
      },
      end: (_run, kept) => new NativeList(kept),
    }),
  map: (condition, result) =>
    loopOf<Value[]>({
      begin: () => [],
      step(run, cursor, i, made) {
        cursor.move(i);
        if (condition && !isTrue(condition(run))) return undefined;
        run.charge(appendCost);
        run.allocate(1);
        made.push(result!(run));
        return undefined;
      },
      end: (_run, made) => new NativeList(made),
    }),
  transformMap: (condition, result) =>
    loopOf<[Value, Value][]>({
      begin: () => [],
      step(run, cursor, i, made) {
        cursor.move(i);
        run.charge(insertCost);
        if (condition && !isTrue(condition(run))) return undefined;
        run.allocate(1);
        made.push([cursor.key(i), result!(run)]);
        return undefined;
      },
      end: (_run, made) => new NativeMap(made),
    }),
  transformMapEntry: (condition, result) =>
    loopOf<[Value, Value][]>({
      begin: () => [],
      step(run, cursor, i, made) {
        cursor.move(i);
        run.charge(insertCost);
        if (condition && !isTrue(condition(run))) return undefined;
        const entry = result!(run);
        if (!(entry instanceof MapValue)) throw noSuchOverload("cel.@mapInsert", entry);
        run.allocate(entry.size);
        // Looking for one may pause, so none is kept before all are found.
        const found = entry.keys().map((key): [Value, Value] => [key, entry.find(key) ?? null]);
        for (const pair of found) made.push(pair);
        return undefined;
      },
      end: (_run, made) => insertAll(made),
    }),
};
function insertAll(pairs: readonly [Value, Value][]): MapValue {
  const seen = new Set<string>();
  for (const [key] of pairs) {
    const id = keyId(key) ?? "";
    if (seen.has(id))
      throw new Failure(`insert failed: key ${typeof key === "string" ? key : String(key)} already exists`);
    seen.add(id);
  }
  return new NativeMap(pairs);
}

// Calls

const withoutCost =
  (code: Code): Code =>
  (run) => {
    const { cost } = run;
    const value = code(run);
    run.cost = cost;
    return value;
  };
/** What fails does so when it is evaluated. */
function folded(code: Code): Code {
  try {
    const value = code(new Evaluation([], foldLimit));
    return () => value;
  } catch (error) {
    if (!(error instanceof Failure || error instanceof CostExceeded)) throw error;
    return code;
  }
}
const foldLimit = 1_000_000;

const isFixed = (type: CelType): boolean =>
  type.kind !== "dyn" &&
  type.kind !== "param" &&
  type.kind !== "error" &&
  (!isOptional(type) || isFixed(type.params[0]!));

function certainCall(overload: Overload, codes: readonly Code[]): Code {
  const { call, cost } = overload;
  const [first, second, third, fourth] = codes;
  const integers = intOperators[overload.id];
  if (integers && first && second) {
    return (run) => {
      const a = first(run);
      const b = second(run);
      run.charge(1);
      return typeof a === "number" && typeof b === "number" ? integers(a, b) : call(run, a, b, null, null);
    };
  }
  if (overload.id === "equals" || overload.id === "not_equals") {
    const wanted = overload.id === "equals";
    return (run) => {
      const a = first!(run);
      const b = second!(run);
      run.charge(cost!(a, b, null));
      return equals(a, b, run) === wanted;
    };
  }
  return (run) => {
    const a = first ? first(run) : null;
    const b = second ? second(run) : null;
    const c = third ? third(run) : null;
    const d = fourth ? fourth(run) : null;
    // What can be known before the work is done is charged before.
    const isResultFree = cost === undefined || cost.length < 3;
    if (isResultFree) run.charge(cost ? cost(a, b, null) : 1);
    const result = call(run, a, b, c, d);
    if (!isResultFree) run.charge(cost(a, b, result));
    return result;
  };
}
/** Of safe integers, which most are. */
const intOperators: Readonly<Record<string, ((a: number, b: number) => Value) | undefined>> = {
  less_int_int: (a, b) => a < b,
  less_equals_int_int: (a, b) => a <= b,
  greater_int_int: (a, b) => a > b,
  greater_equals_int_int: (a, b) => a >= b,
  add_int: addInts,
};

function dynamicCall(name: string, overloads: readonly Overload[], codes: readonly Code[]): Code {
  return (run) => {
    const [a = null, b = null, c = null, d = null] = codes.map((code) => code(run));
    const args = [a, b, c, d];
    for (const { params, call, cost } of overloads) {
      if (!params.every((param, index) => accepts(param, args[index]!))) continue;
      if (!cost) run.charge(1);
      else if (cost.length < 3) run.charge(cost(a, b, null));
      const result = call(run, a, b, c, d);
      if (cost && cost.length >= 3) run.charge(cost(a, b, result));
      return result;
    }
    throw noSuchOverload(name, ...args.slice(0, codes.length));
  };
}

const noSuchOverload = (name: string, ...args: readonly Value[]): Failure =>
  new Failure(`no such overload: ${name}(${args.map(typeNameOf).join(", ")})`);

function optionalField({ value }: Optional, field: string): Optional {
  if (value === undefined) return Optional.none;
  if (!(value instanceof MapValue)) throw noSuchOverload("optional_select", value);
  const found = value.find(field);
  if (found instanceof Optional) return found;
  return found === undefined ? Optional.none : new Optional(found);
}

/** Nothing to compute; a key that stands twice fails when it is evaluated. */
function constantMap(map: MapLiteral): MapValue | undefined {
  const pairs: [Value, Value][] = [];
  const ids = new Set<string>();
  for (const { key, value, isOptional: optional } of map.entries) {
    const id = key.kind === "const" ? keyId(key.value) : undefined;
    if (id === undefined || ids.has(id) || optional || key.kind !== "const" || value.kind !== "const") return undefined;
    ids.add(id);
    pairs.push([key.value, value.value]);
  }
  return new NativeMap(pairs);
}

/** A variable, and what fields and indices lead to from there. */
function isAttribute(expr: Expr): boolean {
  if (expr.kind === "ident") return true;
  if (expr.kind === "select") return !expr.isTest && isAttribute(expr.operand);
  return expr.kind === "call" && expr.name === "_[_]" && isAttribute(expr.args[0]!);
}

/** Literals of keys, so that `x in ['a', 'b']` is one look. */
function constantSet(expr: Expr): ReadonlySet<string> | undefined {
  if (expr.kind !== "list" || expr.optionals.size > 0) return undefined;
  const ids = new Set<string>();
  for (const item of expr.items) {
    const id = item.kind === "const" ? keyId(item.value) : undefined;
    if (id === undefined) return undefined;
    ids.add(id);
  }
  return ids;
}
