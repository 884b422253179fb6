// The JSONPath that printer columns, scale and selectable fields are written in: names, quoted names, indices, `[*]`,
// `..name`, slices and filters that compare. Compiled once, then run over decoded objects.
// Upstream counterpart: client-go/util/jsonpath, without its printing.
import { AppError } from "#base/errors.ts";
import { isObject } from "#model/patch/json-value.ts";

type Step =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "index"; readonly index: number }
  | { readonly kind: "slice"; readonly from: number | undefined; readonly to: number | undefined }
  | { readonly kind: "all" }
  | { readonly kind: "deep"; readonly name: string }
  | { readonly kind: "filter"; readonly left: Operand; readonly operator: string; readonly right: Operand | undefined };
type Operand = { readonly path: readonly Step[] } | { readonly value: unknown };

export interface JsonPath {
  find(object: unknown): unknown[];
  /** The names, where it is nothing but `.a.b.c`. */
  readonly names: readonly string[] | undefined;
}

/** Nothing people write is longer. */
const maxLength = 1000;
/** Of what one step may find. */
const maxFound = 10_000;

/** Rejects with APISERVER_JSON_PATH. */
export function compileJsonPath(text: string): JsonPath {
  const steps = new Parser(text).path();
  const names = steps.every((step) => step.kind === "name")
    ? steps.map((step) => (step as { name: string }).name)
    : undefined;
  return { find: (object) => walk(steps, [object]), names };
}

class Parser {
  readonly #text: string;
  #at = 0;
  constructor(text: string) {
    if (text.length > maxLength) throw new AppError("APISERVER_JSON_PATH", `is longer than ${maxLength} characters`);
    this.#text = text;
  }

  path(): Step[] {
    const steps = this.steps();
    if (this.#at < this.#text.length) this.#fail(`unexpected ${JSON.stringify(this.#text[this.#at])}`);
    return steps;
  }

  steps(): Step[] {
    const steps: Step[] = [];
    for (;;) {
      const next = this.#text[this.#at];
      if (next === ".") {
        this.#at++;
        if (this.#text[this.#at] === ".") {
          this.#at++;
          steps.push({ kind: "deep", name: this.#name() });
        } else if (this.#text[this.#at] === "[") continue;
        else if (this.#text[this.#at] === "*") {
          this.#at++;
          steps.push({ kind: "all" });
        } else steps.push({ kind: "name", name: this.#name() });
      } else if (next === "[") steps.push(this.#bracket());
      else return steps;
    }
  }

  #name(): string {
    let name = "";
    while (this.#at < this.#text.length) {
      const letter = this.#text[this.#at]!;
      if (letter === "\\") {
        name += this.#text[this.#at + 1] ?? "";
        this.#at += 2;
        continue;
      }
      if (/[.[\]()=!<>\s,'"@?*]/.test(letter)) break;
      name += letter;
      this.#at++;
    }
    if (name === "") this.#fail("a name is missing");
    return name;
  }

  #bracket(): Step {
    this.#at++;
    const rest = this.#text.slice(this.#at);
    const match =
      /^(\*)\]/.exec(rest) ??
      /^'((?:[^'\\]|\\.)*)'\]/.exec(rest) ??
      /^"((?:[^"\\]|\\.)*)"\]/.exec(rest) ??
      /^(-?\d{1,9})\]/.exec(rest) ??
      /^(-?\d{0,9}):(-?\d{0,9})\]/.exec(rest);
    if (match) {
      this.#at += match[0].length;
      if (match[0].startsWith("*")) return { kind: "all" };
      if (/^['"]/.test(match[0])) return { kind: "name", name: match[1]!.replace(/\\(.)/g, "$1") };
      if (match.length === 3) {
        const bound = (part: string | undefined) => (part ? Number(part) : undefined);
        return { kind: "slice", from: bound(match[1]), to: bound(match[2]) };
      }
      return { kind: "index", index: Number(match[1]) };
    }
    if (!rest.startsWith("?(")) this.#fail(`invalid array index ${rest}`);
    this.#at += 2;
    const left = this.#operand();
    this.#spaces();
    const operator = /^(==|!=|<=|>=|<|>)/.exec(this.#text.slice(this.#at))?.[0] ?? "";
    let right: Operand | undefined;
    if (operator !== "") {
      this.#at += operator.length;
      right = this.#operand();
    }
    this.#spaces();
    if (!this.#text.startsWith(")]", this.#at)) this.#fail("unterminated filter");
    this.#at += 2;
    return { kind: "filter", left, operator, right };
  }

  #operand(): Operand {
    this.#spaces();
    if (this.#text[this.#at] === "@") {
      this.#at++;
      return { path: this.steps() };
    }
    const rest = this.#text.slice(this.#at);
    const quoted = /^"((?:[^"\\]|\\.)*)"/.exec(rest) ?? /^'((?:[^'\\]|\\.)*)'/.exec(rest);
    if (quoted) {
      this.#at += quoted[0].length;
      return { value: quoted[1]!.replace(/\\(.)/g, "$1") };
    }
    const plain = /^(-?\d+(?:\.\d+)?|true|false)/.exec(rest);
    if (!plain) this.#fail("a filter compares with a text, a number or a path");
    this.#at += plain![0].length;
    return { value: JSON.parse(plain![0]) as unknown };
  }

  #spaces(): void {
    while (this.#text[this.#at] === " ") this.#at++;
  }

  #fail(why: string): never {
    throw new AppError("APISERVER_JSON_PATH", why);
  }
}

function walk(steps: readonly Step[], start: readonly unknown[]): unknown[] {
  let found = [...start];
  for (const step of steps) {
    const next: unknown[] = [];
    for (const value of found) {
      take(step, value, next);
      if (next.length > maxFound) break;
    }
    found = next;
  }
  return found;
}

/** One by one: as arguments of a call a hundred thousand values are too many. */
function addAll(out: unknown[], values: readonly unknown[]): void {
  for (const value of values) {
    if (out.length > maxFound) return;
    out.push(value);
  }
}

function take(step: Step, value: unknown, out: unknown[]): void {
  switch (step.kind) {
    case "name":
      if (isObject(value) && Object.hasOwn(value, step.name)) out.push(value[step.name]);
      return;
    case "index":
      if (Array.isArray(value)) {
        const item: unknown = value.at(step.index);
        if (item !== undefined) out.push(item);
      }
      return;
    case "slice":
      if (Array.isArray(value)) addAll(out, value.slice(step.from ?? 0, step.to));
      return;
    case "all":
      if (Array.isArray(value)) addAll(out, value);
      else if (isObject(value)) addAll(out, Object.values(value));
      return;
    case "deep":
      if (out.length > maxFound) return;
      if (isObject(value)) {
        for (const name of Object.keys(value)) {
          if (name === step.name) out.push(value[name]);
          take(step, value[name], out);
        }
      } else if (Array.isArray(value)) for (const item of value) take(step, item, out);
      return;
    case "filter":
      if (Array.isArray(value)) for (const item of value) if (passes(step, item)) out.push(item);
  }
}

function passes(step: Extract<Step, { kind: "filter" }>, item: unknown): boolean {
  const valuesOf = (operand: Operand): unknown[] => ("path" in operand ? walk(operand.path, [item]) : [operand.value]);
  const [left] = valuesOf(step.left);
  if (left === undefined) return false;
  if (!step.right) return true;
  const [right] = valuesOf(step.right);
  if (right === undefined || typeof left !== typeof right) return false;
  switch (step.operator) {
    case "==":
      return left === right;
    case "!=":
      return left !== right;
    case "<":
      return (left as string) < (right as string);
    case "<=":
      return (left as string) <= (right as string);
    case ">":
      return (left as string) > (right as string);
    default:
      return (left as string) >= (right as string);
  }
}
