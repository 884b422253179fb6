// The tree of an expression after macros: what the parser makes, the checker annotates by node id, and the compiler and
// the cost estimate walk. `pos` is an offset in code points, where messages point to.
// Upstream counterpart: cel-go common/ast.
import type { Value } from "./values.ts";

interface Node {
  readonly id: number;
  readonly pos: number;
  /** Height of the tree below, for the bound that keeps every walk off the end of the stack. */
  readonly height: number;
}
export interface Constant extends Node {
  readonly kind: "const";
  readonly value: Value;
}
export interface Ident extends Node {
  readonly kind: "ident";
  readonly name: string;
}
export interface Select extends Node {
  readonly kind: "select";
  readonly operand: Expr;
  readonly field: string;
  /** has(operand.field) */
  readonly isTest: boolean;
}
export interface Call extends Node {
  readonly kind: "call";
  readonly name: string;
  readonly target: Expr | undefined;
  readonly args: readonly Expr[];
}
export interface ListLiteral extends Node {
  readonly kind: "list";
  readonly items: readonly Expr[];
  /** Indices of `?item`. */
  readonly optionals: ReadonlySet<number>;
}
export interface MapEntry {
  readonly key: Expr;
  readonly value: Expr;
  readonly isOptional: boolean;
}
export interface MapLiteral extends Node {
  readonly kind: "map";
  readonly entries: readonly MapEntry[];
}
export type MacroName = "all" | "exists" | "existsOne" | "map" | "filter" | "transformMap" | "transformMapEntry";

/** A loop, as its macro stands for it. How it is evaluated follows from `macro`; its costs from the parts. */
export interface Comprehension extends Node {
  readonly kind: "comprehension";
  readonly macro: MacroName;
  readonly range: Expr;
  readonly variable: string;
  readonly second: string | undefined;
  /** The condition of all, exists, existsOne, and the one before the result of the others. */
  readonly condition: Expr | undefined;
  /** What the others make of an element. */
  readonly result: Expr | undefined;
}
/**
 * target.optMap(variable, body), or optFlatMap where `isFlat`. A node of its own: written out as upstream does, the target
 * stands there twice, and a chain of them is of exponential size.
 */
export interface OptionalMap extends Node {
  readonly kind: "optionalMap";
  readonly target: Expr;
  readonly variable: string;
  readonly body: Expr;
  readonly isFlat: boolean;
}
export type Expr = Constant | Ident | Select | Call | ListLiteral | MapLiteral | Comprehension | OptionalMap;

/** One thing wrong with an expression. */
export interface Issue {
  readonly pos: number;
  readonly text: string;
}

/** Issues as upstream prints them: place, text, line, and a caret below. */
export function printIssues(source: string, issues: readonly Issue[]): string {
  const points = [...source];
  const sorted = [...issues].sort((a, b) => a.pos - b.pos).slice(0, maxIssues);
  const parts: string[] = [];
  let size = 0;
  let line = 1;
  let start = 0;
  let seen = 0;
  for (const { pos, text } of sorted) {
    // Issues come in the order of the text, so lines are counted once.
    for (; seen < pos && seen < points.length; seen++) {
      if (points[seen] !== "\n") continue;
      line++;
      start = seen + 1;
    }
    const part = pos < 0 ? `ERROR: <input>:-1:0: ${text}` : printIssue(points, line, start, pos, text);
    size += part.length;
    if (parts.length > 0 && size > maxTextLength) break;
    parts.push(part);
  }
  return parts.join("\n");
}
function printIssue(points: readonly string[], line: number, start: number, pos: number, text: string): string {
  let end = start;
  while (end < points.length && points[end] !== "\n") end++;
  const snippet = points.slice(start, end).join("").replaceAll("\t", " ");
  return `ERROR: <input>:${line}:${pos - start + 1}: ${text}\n | ${snippet}\n | ${".".repeat(pos - start)}^`;
}
/** As many as upstream prints. */
const maxIssues = 100;
/** Each shows its whole line, and lines may be long. */
const maxTextLength = 64 * 1024;
