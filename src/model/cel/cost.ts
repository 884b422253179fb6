// The worst that an expression can cost, from its checked tree and what is known of sizes: literals, and data whose
// schema has limits. Definitions whose rules may cost too much are refused by this number, so its rules are upstream's,
// coarse as they are. Numbers saturate where upstream's 64 bits end.
// Upstream counterpart: cel-go checker/cost.go, apiserver/pkg/cel/library/cost.go.
import type { Call, Comprehension, Expr, OptionalMap } from "./ast.ts";
import type { Checked } from "./checker.ts";
import { type CelType, isOptional } from "./types.ts";
import { Bytes, codePoints } from "./values.ts";

export interface Range {
  readonly min: number;
  readonly max: number;
}
/** How many entries or characters stand at `path` at most: a variable, then fields, `@items`, `@keys`, `@values`. */
export type SizeOf = (path: readonly string[]) => number | undefined;

/** 2^64-1: more is not told apart. */
export const unlimited = 2 ** 64;
const clamp = (value: number): number => Math.min(value, unlimited);
const exactly = (value: number): Range => ({ min: value, max: value });
const add = (...ranges: readonly Range[]): Range => {
  let min = 0;
  let max = 0;
  for (const range of ranges) {
    min += range.min;
    max += range.max;
  }
  return { min: clamp(min), max: clamp(max) };
};
const times = (a: Range, b: Range): Range => ({ min: clamp(a.min * b.min), max: clamp(a.max * b.max) });
const scaled = (size: Range, factor: number): Range => ({
  min: clamp(Math.ceil(size.min * factor)),
  max: clamp(Math.ceil(size.max * factor)),
});
const union = (a: Range, b: Range): Range => ({ min: Math.min(a.min, b.min), max: Math.max(a.max, b.max) });

const nothing = exactly(0);
const one = exactly(1);
const unknownSize: Range = { min: 0, max: unlimited };
const listBase = exactly(10);
const mapBase = exactly(30);
/** Of a character; one of a pattern is rarer than its length. */
const textFactor = 0.1;
const patternFactor = 0.25;

export function estimateCost(expr: Expr, checked: Checked, sizeOf: SizeOf): Range {
  return new Estimator(checked, sizeOf).cost(expr);
}

interface Local {
  readonly name: string;
  readonly path: readonly string[] | undefined;
  readonly size: Range | undefined;
}
interface CallEstimate {
  readonly cost: Range;
  readonly size?: Range | undefined;
}

class Estimator {
  readonly #checked: Checked;
  readonly #sizeOf: SizeOf;
  readonly #paths = new Map<number, readonly string[]>();
  readonly #sizes = new Map<number, Range>();
  readonly #locals: Local[] = [];
  constructor(checked: Checked, sizeOf: SizeOf) {
    this.#checked = checked;
    this.#sizeOf = sizeOf;
  }

  cost(expr: Expr): Range {
    switch (expr.kind) {
      case "const":
        return nothing;
      case "ident": {
        const local = this.#local(expr.name);
        const path = local ? local.path : [expr.name];
        if (path) this.#paths.set(expr.id, path);
        if (local?.size) this.#sizes.set(expr.id, local.size);
        return one;
      }
      case "select": {
        const operand = this.cost(expr.operand);
        if (expr.isTest) return operand;
        this.#extend(expr, expr.operand, expr.field);
        const { kind } = this.#checked.typeOf(expr.operand);
        return kind === "map" || kind === "object" || kind === "param" ? add(operand, one) : operand;
      }
      case "call":
        return this.#call(expr);
      case "list":
        return add(listBase, ...expr.items.map((item) => this.cost(item)));
      case "map":
        return add(mapBase, ...expr.entries.flatMap(({ key, value }) => [this.cost(key), this.cost(value)]));
      case "comprehension":
        return this.#comprehension(expr);
      case "optionalMap":
        return this.#optionalMap(expr);
    }
  }

  #local(name: string): Local | undefined {
    return this.#locals.findLast((local) => local.name === name);
  }
  #extend(expr: Expr, base: Expr, step: string): void {
    const path = this.#paths.get(base.id);
    if (path) this.#paths.set(expr.id, [...path, step]);
  }

  // Sizes

  #known(expr: Expr): Range | undefined {
    const computed = this.#sizes.get(expr.id) ?? literalSize(expr);
    if (computed) return computed;
    const path = this.#paths.get(expr.id);
    const max = path && this.#sizeOf(path);
    if (max !== undefined) return { min: 0, max };
    return isScalar(this.#checked.typeOf(expr)) ? one : undefined;
  }
  #size(expr: Expr): Range {
    return this.#known(expr) ?? unknownSize;
  }
  /** Of an element of a list. */
  #itemSize(list: Expr): Range {
    if (list.kind === "list") {
      return (
        list.items.reduce((size: Range | undefined, item) => {
          const next = this.#size(item);
          return size ? union(size, next) : next;
        }, undefined) ?? nothing
      );
    }
    const path = this.#paths.get(list.id);
    const max = path && this.#sizeOf([...path, "@items"]);
    return max === undefined ? unknownSize : { min: 0, max };
  }

  /** Upstream's choice between none and a value: the target is evaluated for the question and for the answer. */
  #optionalMap(expr: OptionalMap): Range {
    const asked = add(this.cost(expr.target), one);
    this.#locals.push({ name: expr.variable, path: undefined, size: undefined });
    const body = this.cost(expr.body);
    this.#locals.pop();
    return add(asked, union(add(listBase, asked, body, expr.isFlat ? nothing : one), one));
  }

  // Loops

  #comprehension(expr: Comprehension): Range {
    const range = this.cost(expr.range);
    const type = this.#checked.typeOf(expr.range).kind;
    const path = this.#paths.get(expr.range.id);
    const under = (step: string): readonly string[] | undefined => path && [...path, step];
    const depth = this.#locals.length;
    const item: Local = {
      name: expr.second ?? expr.variable,
      path: under(type === "list" ? "@items" : expr.second === undefined ? "@keys" : "@values"),
      size: expr.range.kind === "list" ? this.#itemSize(expr.range) : undefined,
    };
    if (expr.second !== undefined) {
      const isList = type === "list";
      this.#locals.push({
        name: expr.variable,
        path: isList ? undefined : under("@keys"),
        size: isList ? one : undefined,
      });
    }
    this.#locals.push(item);
    const condition = expr.condition && this.cost(expr.condition);
    const result = expr.result && this.cost(expr.result);
    this.#locals.length = depth;
    const count = this.#size(expr.range);
    if (!isTest(expr)) this.#sizes.set(expr.id, count);
    const { before, each, after } = stepsOf(expr, condition ?? nothing, result ?? nothing);
    return add(range, before, times(count, each), after);
  }

  // Calls

  #call(call: Call): Range {
    if (call.name === "dyn" && call.args.length === 1 && !call.target) {
      const arg = call.args[0]!;
      const cost = this.cost(arg);
      const size = this.#known(arg);
      if (size) this.#sizes.set(call.id, size);
      return add(one, cost);
    }
    const costs = call.args.map((arg) => this.cost(arg));
    const isMember = call.target !== undefined && !this.#checked.isQualified(call);
    const target = isMember ? call.target : undefined;
    const targetCost = target ? this.cost(target) : nothing;
    if (call.name === "_?._") return add(one, ...costs);
    let total: Range | undefined;
    let size: Range | undefined;
    for (const { id } of this.#checked.overloadsOf(call)) {
      const estimate = this.#overload(call, id, target, costs);
      total = total ? union(total, estimate.cost) : estimate.cost;
      if (estimate.size) size = size ? union(size, estimate.size) : estimate.size;
      if (id === "index_list") this.#extend(call, call.args[0]!, "@items");
      else if (id === "index_map") this.#extend(call, call.args[0]!, "@values");
    }
    if (size) this.#sizes.set(call.id, size);
    return add(targetCost, total ?? nothing);
  }

  #overload(call: Call, id: string, target: Expr | undefined, costs: readonly Range[]): CallEstimate {
    const { args } = call;
    const sum = add(...costs);
    const with_ = (cost: Range, size?: Range): CallEstimate => ({ cost: add(cost, sum), size });
    const [first, second] = args;
    switch (this.#checked.isQualified(call) ? "" : call.name) {
      case "_&&_":
      case "_||_":
        return { cost: { min: costs[0]!.min, max: sum.max } };
      case "_?_:_": {
        const size = union(this.#size(args[1]!), this.#size(args[2]!));
        return { cost: add(costs[0]!, union(costs[1]!, costs[2]!)), size };
      }
      case "isSorted":
      case "sum":
      case "max":
      case "min":
      case "indexOf":
      case "lastIndexOf":
        if (target) return with_(this.#listWalk(target));
        break;
      case "url":
        return with_(scaled(this.#size(first!), textFactor));
      case "lowerAscii":
      case "upperAscii":
      case "substring":
      case "trim":
        if (target) return with_(scaled(this.#size(target), textFactor), this.#size(target));
        break;
      case "replace":
        if (target && first && second)
          return with_(scaled(this.#size(target), 2 * textFactor), this.#replaced(target, first, second));
        break;
      case "split":
        if (target) return with_(scaled(this.#size(target), 2 * textFactor), this.#pieces(target, second));
        break;
      case "join":
        if (target) {
          const size = this.#joined(target, first);
          return with_(scaled(size, textFactor), size);
        }
        break;
      case "find":
      case "findAll":
        if (target && first) return with_(this.#search(target, first), { min: 0, max: this.#size(target).max });
        break;
      case "matches":
        if (target && first) return with_(this.#search(target, first));
        break;
      case "contains":
        if (target && first) {
          return with_(times(scaled(this.#size(target), textFactor), scaled(this.#size(first), textFactor)));
        }
        break;
      case "startsWith":
      case "endsWith":
        if (first) return with_(scaled(this.#size(first), textFactor));
        break;
      case "format":
        if (target) return with_(scaled(this.#size(target), textFactor));
        break;
      case "containsIP":
        return with_(
          add(networkCompare, id === "cidr_contains_ip_string" ? scaled(this.#size(first!), textFactor) : nothing),
        );
      case "containsCIDR": {
        const parse = id === "cidr_contains_cidr_string" ? scaled(this.#size(first!), textFactor) : nothing;
        return with_(add(networkCompare, networkMask, parse));
      }
      case "validate":
        if (first)
          return with_(
            times(scaled(add(this.#size(first), one), textFactor), exactly(Math.ceil(1200 * patternFactor))),
          );
        break;
      case "@in":
        if (id === "in_list") return with_(this.#size(second!));
        break;
      case "string":
      case "bytes":
        if (id === "bytes_to_string" || id === "string_to_bytes") return this.#conversion(id, first!, with_);
        break;
      case "_+_":
        if (id === "add_list" || id === "add_string" || id === "add_bytes") {
          const size = add(this.#size(first!), this.#size(second!));
          return with_(id === "add_list" ? one : scaled(size, textFactor), size);
        }
        break;
      case "_==_":
      case "_!=_":
        if (this.#checked.typeOf(first!).kind === "opaque" && !isOptional(this.#checked.typeOf(first!)))
          return with_(one);
        return with_(this.#comparison(first!, second!));
      case "_<_":
      case "_<=_":
      case "_>_":
      case "_>=_":
        if (/_(?:string_string|bytes_bytes)$/.test(id)) return with_(this.#comparison(first!, second!));
        break;
    }
    if (id.startsWith("list_sets_")) {
      const factor = id === "list_sets_equivalent_list" ? 2 : 1;
      return with_(add(one, scaled(times(this.#size(first!), this.#size(second!)), factor)));
    }
    if (id === "strings_quote") {
      const size = this.#size(first!);
      return with_(scaled(size, textFactor), { min: clamp(size.min + 2), max: clamp(2 * size.max + 2) });
    }
    return with_(one);
  }

  #listWalk(target: Expr): Range {
    const type = this.#checked.typeOf(target);
    const item = type.params[0];
    if (!item) return scaled(this.#size(target), textFactor);
    const isText = item.kind === "string" || item.kind === "bytes";
    const each = isText ? add(one, scaled(this.#itemSize(target), textFactor)) : one;
    return times(this.#size(target), each);
  }
  #search(target: Expr, pattern: Expr): Range {
    const text = scaled(add(this.#size(target), one), textFactor);
    return times(text, scaled(this.#size(pattern), patternFactor));
  }
  #comparison(left: Expr, right: Expr): Range {
    const max = Math.min(this.#size(left).max, this.#size(right).max);
    return scaled({ min: max > 0 ? 1 : 0, max }, textFactor);
  }
  #conversion(id: string, arg: Expr, with_: (cost: Range, size?: Range) => CallEstimate): CallEstimate {
    const size = this.#size(arg);
    const result =
      id === "string_to_bytes"
        ? { min: size.min, max: clamp(4 * size.max) }
        : { min: Math.floor(size.min / 4), max: size.max };
    return with_(scaled(size, textFactor), result);
  }
  /** As many of the smallest matches as fit, each with the largest replacement. */
  #replaced(target: Expr, from: Expr, to: Expr): Range {
    const size = this.#size(target);
    const found = this.#size(from);
    const put = this.#size(to);
    let max: number;
    if (found.min === 0) max = (size.max + 1) * put.max + size.max;
    else if (put.max <= found.min) max = size.max;
    else max = Math.ceil(size.max / found.min) * put.max;
    let min: number;
    if (found.max === 0) min = (size.min + 1) * put.min + size.min;
    else if (found.max <= put.min) min = size.min;
    else min = Math.ceil(size.min / found.max) * put.min;
    return { min: clamp(min), max: clamp(max) };
  }
  #pieces(target: Expr, limit: Expr | undefined): Range {
    const bound = limit?.kind === "const" && typeof limit.value === "number" ? limit.value : -1;
    return { min: 0, max: bound >= 0 ? bound : this.#size(target).max };
  }
  #joined(target: Expr, separator: Expr | undefined): Range {
    const count = this.#size(target);
    const items = times(count, this.#itemSize(target));
    if (!separator) return items;
    const gaps = { min: Math.max(count.min - 1, 0), max: Math.max(count.max - 1, 0) };
    return add(items, times(this.#size(separator), gaps));
  }
}

/** Of two addresses of 4 or 16 bytes, twice. */
const networkCompare = scaled({ min: 8, max: 32 }, textFactor);
const networkMask = add(scaled({ min: 4, max: 16 }, textFactor), one);

const isTest = ({ macro }: Comprehension): boolean => macro === "all" || macro === "exists" || macro === "existsOne";

/** What the loop that a macro stands for costs: once before, for each element, once after. */
function stepsOf(expr: Comprehension, condition: Range, result: Range): { before: Range; each: Range; after: Range } {
  const choice = (whenTrue: Range, whenFalse: Range): Range =>
    expr.condition ? add(condition, union(whenTrue, whenFalse)) : whenTrue;
  switch (expr.macro) {
    case "all":
      return { before: nothing, each: add(exactly(2), { min: 1, max: clamp(1 + condition.max) }), after: one };
    case "exists":
      return { before: nothing, each: add(exactly(3), { min: 1, max: clamp(1 + condition.max) }), after: one };
    case "existsOne":
      return { before: nothing, each: choice(exactly(2), one), after: exactly(2) };
    case "filter":
      return { before: listBase, each: choice(exactly(13), one), after: one };
    case "map":
      return { before: listBase, each: choice(add(exactly(12), result), one), after: one };
    case "transformMap":
      return { before: mapBase, each: choice(add(exactly(3), result), one), after: one };
    case "transformMapEntry":
      return { before: mapBase, each: choice(add(exactly(2), result), one), after: one };
  }
}

function literalSize(expr: Expr): Range | undefined {
  if (expr.kind === "list") return exactly(expr.items.length);
  if (expr.kind === "map") return exactly(expr.entries.length);
  if (expr.kind !== "const") return undefined;
  if (typeof expr.value === "string") return exactly(codePoints(expr.value));
  return expr.value instanceof Bytes ? exactly(expr.value.data.length) : one;
}

const scalars: ReadonlySet<CelType["kind"]> = new Set(["bool", "double", "duration", "int", "timestamp", "uint"]);
const isScalar = (type: CelType): boolean => scalars.has(type.kind) || (isOptional(type) && isScalar(type.params[0]!));
