// Text to tokens. Positions count code points, as messages do. Upstream counterpart: cel-go parser/gen/CEL.g4.
import type { Issue } from "./ast.ts";
import { Bytes, Double, Failure, intOf, uintOf, type Value } from "./values.ts";

export interface Token {
  readonly kind: "ident" | "literal" | "symbol" | "end";
  /** As written. */
  readonly text: string;
  readonly pos: number;
  readonly value?: Value;
}

/** As upstream's parser: longer expressions are refused before they are read. */
const maxCodePoints = 100_000;
const symbols: ReadonlySet<string> = new Set(["==", "!=", "<=", ">=", "&&", "||", ..."<>+-*/%!?:.,()[]{}"]);
const isDigit = (text: string | undefined): boolean => text !== undefined && text >= "0" && text <= "9";
const isWord = (text: string | undefined): boolean =>
  text !== undefined &&
  ((text >= "a" && text <= "z") || (text >= "A" && text <= "Z") || (text >= "0" && text <= "9") || text === "_");
const blanks: ReadonlySet<string> = new Set(" \t\r\n\f");

export function tokenize(source: string): { tokens: Token[]; issues: Issue[] } {
  const points = [...source];
  if (points.length > maxCodePoints) {
    const text = `expression code point size exceeds limit: size: ${points.length}, limit ${maxCodePoints}`;
    return { tokens: [{ kind: "end", text: "<EOF>", pos: 0 }], issues: [{ pos: -1, text }] };
  }
  const tokens: Token[] = [];
  const issues: Issue[] = [];
  let at = 0;
  while (at < points.length) {
    const start = at;
    const point = points[at]!;
    if (blanks.has(point)) at++;
    else if (point === "/" && points[at + 1] === "/") while (at < points.length && points[at] !== "\n") at++;
    else if (isDigit(point) || (point === "." && isDigit(points[at + 1]))) {
      at = endOfNumber(points, at);
      const text = points.slice(start, at).join("");
      try {
        tokens.push({ kind: "literal", text, pos: start, value: numberLiteral(text) });
      } catch (error) {
        issues.push({ pos: start, text: `invalid ${literalKind(text)} literal` });
        if (!(error instanceof Failure)) throw error;
      }
    } else {
      const opening = stringStart(points, at);
      if (opening) {
        const { end, problem, value } = stringLiteral(points, at, opening);
        at = end;
        if (problem !== undefined) issues.push({ pos: start, text: `Syntax error: ${problem}` });
        else tokens.push({ kind: "literal", text: points.slice(start, end).join(""), pos: start, value: value! });
      } else if (isWord(point)) {
        while (isWord(points[at])) at++;
        tokens.push({ kind: "ident", text: points.slice(start, at).join(""), pos: start });
      } else {
        const pair = point + (points[at + 1] ?? "");
        const symbol = symbols.has(pair) ? pair : symbols.has(point) ? point : undefined;
        at += symbol ? symbol.length : 1;
        if (symbol) tokens.push({ kind: "symbol", text: symbol, pos: start });
        else issues.push({ pos: start, text: `Syntax error: token recognition error at: '${point}'` });
      }
    }
  }
  tokens.push({ kind: "end", text: "<EOF>", pos: points.length });
  return { tokens, issues };
}

function endOfNumber(points: readonly string[], start: number): number {
  let at = start;
  let isWhole = true;
  if (points[at] === "0" && /^[xX]$/.test(points[at + 1] ?? "") && /^[0-9a-fA-F]$/.test(points[at + 2] ?? "")) {
    at += 2;
    while (/^[0-9a-fA-F]$/.test(points[at] ?? "")) at++;
  } else {
    while (isDigit(points[at])) at++;
    if (points[at] === "." && isDigit(points[at + 1])) {
      isWhole = false;
      at++;
      while (isDigit(points[at])) at++;
    }
    if (/^[eE]$/.test(points[at] ?? "")) {
      const digits = /^[+-]$/.test(points[at + 1] ?? "") ? at + 2 : at + 1;
      if (isDigit(points[digits])) {
        isWhole = false;
        at = digits;
        while (isDigit(points[at])) at++;
      }
    }
  }
  return isWhole && /^[uU]$/.test(points[at] ?? "") ? at + 1 : at;
}

const literalKind = (text: string): string =>
  /[uU]$/.test(text) ? "uint" : /^0[xX]/.test(text) || !/[.eE]/.test(text) ? "int" : "double";

/** More than any number needs; reading a bigint takes the square of its length. */
const maxDigits = 1000;
function numberLiteral(text: string): Value {
  const kind = literalKind(text);
  if (text.length > maxDigits) throw new Failure("too many digits");
  if (kind === "uint") return uintOf(BigInt(text.slice(0, -1)));
  if (kind === "double") return new Double(Number(text));
  const value = BigInt(text);
  // The magnitude of the least int; the parser folds the minus that must stand before it.
  return value === 2n ** 63n ? value : intOf(value);
}

interface Opening {
  readonly isRaw: boolean;
  readonly isBytes: boolean;
  readonly quote: string;
  /** Of prefix and quote. */
  readonly length: number;
}
function stringStart(points: readonly string[], at: number): Opening | undefined {
  let isRaw = false;
  let isBytes = false;
  let next = at;
  for (;;) {
    const point = points[next];
    if ((point === "r" || point === "R") && !isRaw) isRaw = true;
    else if ((point === "b" || point === "B") && !isBytes) isBytes = true;
    else break;
    next++;
  }
  const mark = points[next];
  if (mark !== '"' && mark !== "'") return undefined;
  const quote = points[next + 1] === mark && points[next + 2] === mark ? mark.repeat(3) : mark;
  return { isRaw, isBytes, quote, length: next - at + quote.length };
}

const simpleEscapes: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  "'": "'",
  '"': '"',
  "`": "`",
  "?": "?",
};
const encoder = new TextEncoder();

function stringLiteral(
  points: readonly string[],
  start: number,
  opening: Opening,
): { end: number; problem?: string; value?: Value } {
  const { isRaw, isBytes, quote } = opening;
  const isClosed = (at: number): boolean => {
    for (let i = 0; i < quote.length; i++) if (points[at + i] !== quote[i]) return false;
    return true;
  };
  const parts: string[] = [];
  const bytes: number[] = [];
  const add = (text: string): void => {
    if (isBytes) bytes.push(...encoder.encode(text));
    else parts.push(text);
  };
  let at = start + opening.length;
  while (at < points.length && !isClosed(at)) {
    const point = points[at]!;
    if (point === "\n" && quote.length === 1) break;
    if (point !== "\\") {
      add(point);
      at++;
    } else if (isRaw) {
      add(point + (points[at + 1] ?? ""));
      at += 2;
    } else {
      const letter = points[at + 1] ?? "";
      const plain = Object.hasOwn(simpleEscapes, letter) ? simpleEscapes[letter] : undefined;
      if (plain !== undefined) {
        add(plain);
        at += 2;
        continue;
      }
      const [length, base] = /[xX]/.test(letter)
        ? [2, 16]
        : letter === "u"
          ? [4, 16]
          : letter === "U"
            ? [8, 16]
            : [3, 8];
      const from = base === 16 ? at + 2 : at + 1;
      const digits = points.slice(from, from + length).join("");
      const form = base === 16 ? /^[0-9a-fA-F]+$/ : /^[0-3][0-7]{2}$/;
      const code = Number.parseInt(digits, base);
      const isWide = length > 3;
      if (
        digits.length !== length ||
        !form.test(digits) ||
        (isWide && (isBytes || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)))
      ) {
        return {
          end: points.length,
          problem: `token recognition error at: '${points.slice(start, from + length).join("")}'`,
        };
      }
      if (isBytes) bytes.push(code);
      else parts.push(String.fromCodePoint(code));
      at = from + length;
    }
  }
  if (!isClosed(at)) {
    return { end: at, problem: `token recognition error at: '${points.slice(start, at + 1).join("")}'` };
  }
  return { end: at + quote.length, value: isBytes ? new Bytes(Uint8Array.from(bytes)) : parts.join("") };
}
