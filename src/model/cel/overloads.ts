// How libraries declare what expressions can call: one line of types and a function. The line reads
// `id: target.(args) -> result` or `id: (args) -> result`; one capital letter is a type parameter.
// Upstream counterpart: cel-go common/decls, checker/standard.go.

import type { Evaluation } from "./evaluation.ts";
import { type CelType, parseType } from "./types.ts";
import {
  Bytes,
  costSize,
  Double,
  Duration,
  ListValue,
  MapValue,
  Opaque,
  Optional,
  Timestamp,
  TypeValue,
  Uint,
  type Value,
} from "./values.ts";

/** The target of a member call is the first argument. */
export type Implementation = (run: Evaluation, a: Value, b: Value, c: Value, d: Value) => Value;
/** What a call has cost, afterwards. */
export type CallCost = (a: Value, b: Value, result: Value) => number;

export interface Overload {
  readonly id: string;
  readonly isMember: boolean;
  readonly params: readonly CelType[];
  readonly result: CelType;
  readonly typeParams: readonly string[];
  readonly call: Implementation;
  /** 1 where there is none. */
  readonly cost: CallCost | undefined;
}
/** Name of a function, its overloads, and their function. */
export type Declaration = readonly [
  name: string,
  overloads: string | readonly string[],
  call: Implementation,
  cost?: CallCost,
];

// The kinds that upstream's tables have.
export const scan: CallCost = (a) => Math.ceil(costSize(a) * 0.1);
export const scanTwice: CallCost = (a) => Math.ceil(costSize(a) * 0.2);
export const scanShorter: CallCost = (a, b) => Math.ceil(Math.min(costSize(a), costSize(b)) * 0.1);
export const scanBoth: CallCost = (a, b) => Math.ceil((costSize(a) + costSize(b)) * 0.1);
export const scanProduct: CallCost = (a, b) => Math.ceil(costSize(a) * 0.1) * Math.ceil(costSize(b) * 0.1);
export const regexCost: CallCost = (a, b) => Math.ceil((1 + costSize(a)) * 0.1) * Math.ceil(costSize(b) * 0.25);

/** By name; a function may be declared in several places. */
export function tableOf(...libraries: (readonly Declaration[])[]): ReadonlyMap<string, readonly Overload[]> {
  const table = new Map<string, Overload[]>();
  for (const [name, lines, call, cost] of libraries.flat()) {
    const overloads = table.get(name) ?? [];
    table.set(name, overloads);
    for (const line of typeof lines === "string" ? [lines] : lines) overloads.push(parseOverload(line, call, cost));
  }
  return table;
}

function parseOverload(line: string, call: Implementation, cost: CallCost | undefined): Overload {
  const colon = line.indexOf(": ");
  const arrow = line.lastIndexOf(" -> ");
  const open = line.startsWith("(", colon + 2) ? colon + 2 : line.indexOf(".(") + 1;
  const target = line.slice(colon + 2, Math.max(open - 1, colon + 2));
  const params = splitTypes(line.slice(open + 1, arrow - 1)).map(parseType);
  if (target !== "") params.unshift(parseType(target));
  const result = parseType(line.slice(arrow + 4));
  const typeParams = new Set<string>();
  const collect = (type: CelType): void => {
    if (type.kind === "param") typeParams.add(type.name);
    type.params.forEach(collect);
  };
  for (const type of [...params, result]) collect(type);
  return { id: line.slice(0, colon), isMember: target !== "", params, result, typeParams: [...typeParams], call, cost };
}
function splitTypes(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "(") depth++;
    else if (text[i] === ")") depth--;
    else if (text[i] === "," && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  if (text.trim() !== "") parts.push(text.slice(start));
  return parts.map((part) => part.trim());
}

/** Whether a value may stand for a parameter, where the checker could not tell. */
export function accepts(type: CelType, value: Value): boolean {
  switch (type.kind) {
    case "bool":
      return typeof value === "boolean";
    case "int":
      return typeof value === "number" || typeof value === "bigint";
    case "string":
      return typeof value === "string";
    case "double":
      return value instanceof Double;
    case "uint":
      return value instanceof Uint;
    case "bytes":
      return value instanceof Bytes;
    case "list":
      return value instanceof ListValue;
    case "map":
    case "object":
      return value instanceof MapValue;
    case "null":
      return value === null;
    case "timestamp":
      return value instanceof Timestamp;
    case "duration":
      return value instanceof Duration;
    case "type":
      return value instanceof TypeValue;
    case "opaque":
      if (type.name !== "optional_type") return value instanceof Opaque && value.typeName === type.name;
      return value instanceof Optional && (value.value === undefined || accepts(type.params[0]!, value.value));
    default:
      return true;
  }
}
