// Tokens to a tree, macros included: recursive descent over the grammar of the CEL specification. Both nesting and the
// height of the tree are bounded, so that later walks can recurse. Positions of nodes are upstream's: a call points to
// its parenthesis, a selection to its dot, an operation to its operator.
// Upstream counterpart: cel-go parser/parser.go, macro.go, ext/comprehensions.go.
import type { Call, Comprehension, Expr, Issue, MacroName, MapEntry } from "./ast.ts";
import { type Token, tokenize } from "./lexer.ts";
import { Double, type Value } from "./values.ts";

/** Upstream's recursion limit. */
const maxNesting = 250;
/** Chains of operators are nested trees too. */
const maxHeight = 600;
const recursionText = `expression recursion limit exceeded: ${maxNesting}`;
/** Errors beyond these say nothing new. */
const maxSyntaxErrors = 30;

const reserved: ReadonlySet<string> = new Set(
  "as break const continue else for function if import let loop package namespace return var void while".split(" "),
);
const relations: ReadonlySet<string> = new Set(["<", "<=", ">=", ">", "==", "!=", "in"]);
const starts =
  "'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER";

class Failed extends Error {}

export function parse(source: string): { expr?: Expr; issues: Issue[] } {
  const { tokens, issues } = tokenize(source);
  if (issues.some((issue) => issue.pos < 0)) return { issues };
  const parser = new Parser(tokens, issues);
  const expr = parser.whole();
  return expr && issues.length === 0 ? { expr, issues } : { issues };
}

class Parser {
  readonly #tokens: readonly Token[];
  readonly #issues: Issue[];
  #at = 0;
  #nesting = 0;
  #nextId = 1;
  constructor(tokens: readonly Token[], issues: Issue[]) {
    this.#tokens = tokens;
    this.#issues = issues;
  }

  whole(): Expr | undefined {
    try {
      const expr = this.#expression();
      const rest = this.#token();
      if (rest.kind !== "end") {
        this.#fail(
          rest.pos,
          `Syntax error: ${rest.kind === "symbol" ? "mismatched" : "extraneous"} input '${rest.text}' expecting <EOF>`,
        );
      }
      return expr;
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      return undefined;
    }
  }

  // Tokens

  #token(): Token {
    return this.#tokens[this.#at]!;
  }
  #isSymbol(text: string): boolean {
    const token = this.#token();
    return token.kind === "symbol" && token.text === text;
  }
  #accept(text: string): Token | undefined {
    if (!this.#isSymbol(text)) return undefined;
    const token = this.#token();
    this.#at++;
    return token;
  }
  #expect(text: string): Token {
    const found = this.#accept(text);
    if (found) return found;
    const token = this.#token();
    this.#fail(token.pos, `Syntax error: mismatched input '${token.text}' expecting '${text}'`);
  }
  #fail(pos: number, text: string): never {
    this.#report(pos, text);
    throw new Failed(text);
  }
  #report(pos: number, text: string): void {
    if (this.#issues.length < maxSyntaxErrors) this.#issues.push({ pos, text });
  }

  // Nodes

  #node<T extends object>(
    pos: number,
    children: readonly Expr[],
    rest: T,
  ): T & { id: number; pos: number; height: number } {
    let height = 1;
    for (const child of children) if (child.height >= height) height = child.height + 1;
    if (height > maxHeight) this.#fail(-1, recursionText);
    return { id: this.#nextId++, pos, height, ...rest };
  }
  #constant(pos: number, value: Value): Expr {
    return this.#node(pos, [], { kind: "const" as const, value });
  }
  #ident(pos: number, name: string): Expr {
    return this.#node(pos, [], { kind: "ident" as const, name });
  }
  #call(pos: number, name: string, args: readonly Expr[], target?: Expr): Call {
    return this.#node(pos, target ? [target, ...args] : args, { kind: "call" as const, name, target, args });
  }

  // Grammar

  #expression(): Expr {
    if (++this.#nesting > maxNesting) this.#fail(-1, recursionText);
    const condition = this.#logical("||");
    const question = this.#accept("?");
    if (!question) {
      this.#nesting--;
      return condition;
    }
    const whenTrue = this.#logical("||");
    this.#expect(":");
    const whenFalse = this.#expression();
    this.#nesting--;
    return this.#call(question.pos, "_?_:_", [condition, whenTrue, whenFalse]);
  }

  /** Long chains become balanced trees: their height is the logarithm of their length. */
  #logical(operator: "||" | "&&"): Expr {
    const operand = (): Expr => (operator === "||" ? this.#logical("&&") : this.#relation());
    const operands = [operand()];
    const positions: number[] = [];
    for (let token = this.#accept(operator); token; token = this.#accept(operator)) {
      positions.push(token.pos);
      operands.push(operand());
    }
    const build = (from: number, to: number): Expr => {
      if (from === to) return operands[from]!;
      const middle = (from + to) >> 1;
      return this.#call(positions[middle]!, `_${operator}_`, [build(from, middle), build(middle + 1, to)]);
    };
    return build(0, operands.length - 1);
  }

  #relation(): Expr {
    let left = this.#sum();
    for (;;) {
      const token = this.#token();
      const isIn = token.kind === "ident" && token.text === "in";
      if (!isIn && !(token.kind === "symbol" && relations.has(token.text))) return left;
      this.#at++;
      left = this.#call(token.pos, isIn ? "@in" : `_${token.text}_`, [left, this.#sum()]);
    }
  }
  #sum(): Expr {
    let left = this.#product();
    for (;;) {
      const token = this.#accept("+") ?? this.#accept("-");
      if (!token) return left;
      left = this.#call(token.pos, `_${token.text}_`, [left, this.#product()]);
    }
  }
  #product(): Expr {
    let left = this.#unary();
    for (;;) {
      const token = this.#accept("*") ?? this.#accept("/") ?? this.#accept("%");
      if (!token) return left;
      left = this.#call(token.pos, `_${token.text}_`, [left, this.#unary()]);
    }
  }
  #unary(): Expr {
    const token = this.#token();
    const operator = token.kind === "symbol" && (token.text === "!" || token.text === "-") ? token.text : undefined;
    if (!operator) return this.#member();
    let count = 0;
    while (this.#accept(operator)) count++;
    if (operator === "-" && count === 1 && this.#token().kind === "literal") {
      const literal = this.#token();
      const value = literal.value!;
      const negated = negate(value);
      if (negated !== undefined) {
        this.#at++;
        return this.#member(this.#constant(token.pos, negated));
      }
    }
    const operand = this.#member();
    return count % 2 === 0 ? operand : this.#call(token.pos, operator === "!" ? "!_" : "-_", [operand]);
  }

  #member(first?: Expr): Expr {
    let expr = first ?? this.#primary();
    for (;;) {
      const dot = this.#accept(".");
      if (dot) {
        const isOptional = this.#accept("?") !== undefined;
        const name = this.#name();
        const open = isOptional ? undefined : this.#accept("(");
        if (open) expr = this.#memberCall(open.pos, expr, name);
        else if (isOptional) expr = this.#call(dot.pos, "_?._", [expr, this.#constant(name.pos, name.text)]);
        else
          expr = this.#node(dot.pos, [expr], {
            kind: "select" as const,
            operand: expr,
            field: name.text,
            isTest: false,
          });
        continue;
      }
      const bracket = this.#accept("[");
      if (!bracket) return expr;
      const isOptional = this.#accept("?") !== undefined;
      const index = this.#expression();
      this.#expect("]");
      expr = this.#call(bracket.pos, isOptional ? "_[?_]" : "_[_]", [expr, index]);
    }
  }

  #name(): Token {
    const token = this.#token();
    if (token.kind !== "ident" || token.text === "in" || isKeyword(token.text)) {
      this.#fail(token.pos, `Syntax error: no viable alternative at input '.${token.text}'`);
    }
    this.#at++;
    return token;
  }

  #primary(): Expr {
    const token = this.#token();
    if (token.kind === "literal") {
      this.#at++;
      if (token.value === 2n ** 63n) this.#report(token.pos, "invalid int literal");
      return this.#constant(token.pos, token.value!);
    }
    if (token.kind === "ident" && token.text !== "in") {
      this.#at++;
      if (isKeyword(token.text)) return this.#constant(token.pos, keywordValue(token.text));
      const open = this.#accept("(");
      if (reserved.has(token.text)) this.#report(token.pos, `reserved identifier: ${token.text}`);
      if (!open) return this.#ident(token.pos, token.text);
      return this.#globalCall(open.pos, token.text);
    }
    if (this.#accept("(")) {
      const inner = this.#expression();
      this.#expect(")");
      return inner;
    }
    const dot = this.#accept(".");
    if (dot) {
      const name = this.#name();
      const open = this.#accept("(");
      return open ? this.#globalCall(open.pos, name.text) : this.#ident(name.pos, name.text);
    }
    const bracket = this.#accept("[");
    if (bracket) return this.#list(bracket.pos);
    const brace = this.#accept("{");
    if (brace) return this.#map(brace.pos);
    this.#fail(token.pos, `Syntax error: mismatched input '${token.text}' expecting {${starts}}`);
  }

  #list(pos: number): Expr {
    const items: Expr[] = [];
    const optionals = new Set<number>();
    while (!this.#isSymbol("]")) {
      if (this.#accept("?")) optionals.add(items.length);
      items.push(this.#expression());
      if (!this.#accept(",")) break;
    }
    this.#expect("]");
    return this.#node(pos, items, { kind: "list" as const, items, optionals });
  }
  #map(pos: number): Expr {
    const entries: MapEntry[] = [];
    while (!this.#isSymbol("}")) {
      const isOptional = this.#accept("?") !== undefined;
      const key = this.#expression();
      this.#expect(":");
      entries.push({ key, value: this.#expression(), isOptional });
      if (!this.#accept(",")) break;
    }
    this.#expect("}");
    const children = entries.flatMap(({ key, value }) => [key, value]);
    return this.#node(pos, children, { kind: "map" as const, entries });
  }

  #arguments(): Expr[] {
    const args: Expr[] = [];
    while (!this.#isSymbol(")")) {
      args.push(this.#expression());
      if (!this.#accept(",")) break;
    }
    this.#expect(")");
    return args;
  }

  #globalCall(pos: number, name: string): Expr {
    const args = this.#arguments();
    if (name !== "has" || args.length !== 1) return this.#call(pos, name, args);
    const [arg] = args as [Expr];
    if (arg.kind !== "select" || arg.isTest) {
      this.#report(arg.pos, "invalid argument to has() macro");
      return arg;
    }
    const { operand, field } = arg;
    return this.#node(pos, [operand], { kind: "select" as const, operand, field, isTest: true });
  }

  #memberCall(pos: number, target: Expr, { text: name }: Token): Expr {
    const args = this.#arguments();
    if (name === "optMap" || name === "optFlatMap") {
      if (args.length === 2) return this.#optionalMap(pos, target, name, args);
    }
    const macro = Object.hasOwn(macros, name) ? macros[name] : undefined;
    if (!macro?.arities.includes(args.length)) return this.#call(pos, name, args, target);
    const hasSecond = macro.twoVariables || (args.length === 3 && macro.macro !== "map");
    const names = args.slice(0, hasSecond ? 2 : 1);
    const variables = names.map((arg) => {
      if (arg.kind === "ident") return arg.name;
      this.#report(arg.pos, "argument must be a simple name");
      return "";
    });
    if (hasSecond && variables[0] === variables[1]) {
      this.#report(names[1]!.pos, `duplicate variable name: ${variables[1]}`);
    }
    for (const [index, variable] of variables.entries()) {
      if (variable === "__result__") {
        this.#report(names[index]!.pos, "iteration variable overwrites accumulator variable");
      }
    }
    const body = args.slice(names.length);
    const isTest = macro.macro === "all" || macro.macro === "exists" || macro.macro === "existsOne";
    // filter(x, p) keeps elements where p; map(x, p, t) and the transforms with four parts have both.
    const condition = isTest || macro.macro === "filter" || body.length === 2 ? body[0] : undefined;
    const result = isTest || macro.macro === "filter" ? undefined : body[body.length - 1];
    const comprehension: Omit<Comprehension, "id" | "pos" | "height"> = {
      kind: "comprehension",
      macro: macro.macro,
      range: target,
      variable: variables[0]!,
      second: hasSecond ? variables[1]! : undefined,
      condition,
      result,
    };
    return this.#node(pos, [target, ...body], comprehension);
  }

  #optionalMap(pos: number, target: Expr, name: string, args: readonly Expr[]): Expr {
    const [variable, body] = args as [Expr, Expr];
    if (variable.kind !== "ident") {
      this.#report(variable.pos, `${name}() variable name must be a simple identifier`);
      return body;
    }
    const rest = { target, variable: variable.name, body, isFlat: name === "optFlatMap" };
    return this.#node(pos, [target, body], { kind: "optionalMap" as const, ...rest });
  }
}

interface Macro {
  readonly macro: MacroName;
  /** Counts of arguments; with three, all macros but map have two variables. */
  readonly arities: readonly number[];
  readonly twoVariables?: true;
}
const macros: Readonly<Record<string, Macro>> = {
  all: { macro: "all", arities: [2, 3] },
  exists: { macro: "exists", arities: [2, 3] },
  exists_one: { macro: "existsOne", arities: [2, 3] },
  existsOne: { macro: "existsOne", arities: [2, 3] },
  map: { macro: "map", arities: [2, 3] },
  filter: { macro: "filter", arities: [2] },
  transformList: { macro: "map", arities: [3, 4], twoVariables: true },
  transformMap: { macro: "transformMap", arities: [3, 4], twoVariables: true },
  transformMapEntry: { macro: "transformMapEntry", arities: [3, 4], twoVariables: true },
};

const isKeyword = (text: string): boolean => text === "true" || text === "false" || text === "null";
const keywordValue = (text: string): Value => (text === "null" ? null : text === "true");

function negate(value: Value): Value | undefined {
  if (typeof value === "number") return -value + 0;
  if (typeof value === "bigint") return -value;
  return value instanceof Double ? new Double(-value.value) : undefined;
}
