// A JSON reader that tells what JSON.parse hides: duplicate members (with their path), where text is malformed (in
// Go's words, since clients see them) and whole numbers beyond 2^53. Where there is nothing to tell JSON.parse does the
// reading. Depth is bounded; `__proto__` is an ordinary member.
import { AppError } from "#base/errors.ts";
import { setMember } from "./protobuf.ts";

export interface JsonOptions {
  /** Whole numbers that a double cannot hold come out as bigint instead of being rounded. */
  readonly bigints?: boolean;
  /** Called with the path of each member that was there already: `spec.containers[0].name`. */
  readonly onDuplicate?: (path: string) => void;
}

/** Go allows 10,000; every later walk of the value is recursive, and this is what a Node stack surely holds. */
const maxDepth = 2_000;

/** Rejects with JSON_SYNTAX; details hold the offset (UTF-16 units into the text). */
export function parseJson(text: string, options: JsonOptions = {}): unknown {
  const plain = options.bigints || mayBeDeep(text) ? undefined : parsePlain(text);
  if (plain) return plain.value;
  const reader = new Reader(text, options);
  const value = reader.value();
  reader.end();
  return value;
}

/** JSON.parse with this reader's bound on depth and its words for what is malformed. */
export function parseJsonFast(text: string): unknown {
  if (mayBeDeep(text)) return parseJson(text);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    // JSON.parse words its errors differently from Go; the slow reader knows Go's.
    return parseJson(text);
  }
}

/** What JSON.parse can tell just as well: well formed, and no member comes twice. */
function parsePlain(text: string): { readonly value: unknown } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // JSON.parse words its errors differently from Go; the slow reader knows Go's.
    return undefined;
  }
  return membersOf(value) === colonsOf(text) ? { value } : undefined;
}

function membersOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) for (const item of value) count += membersOf(item);
  else {
    for (const name of Object.keys(value)) count += 1 + membersOf((value as Record<string, unknown>)[name]);
  }
  return count;
}

/** Outside of strings; of well formed text. */
function colonsOf(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === colon) count++;
    else if (code === quoteMark) {
      for (at++; text.charCodeAt(at) !== quoteMark; at++) if (text.charCodeAt(at) === backslash) at++;
    }
  }
  return count;
}

const colon = 0x3a;
const quoteMark = 0x22;
const backslash = 0x5c;

/** Brackets inside of strings count as well: a wrong yes only costs time. */
function mayBeDeep(text: string): boolean {
  if (text.length < maxDepth) return false;
  let depth = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === 0x7b || code === 0x5b) {
      if (++depth > maxDepth) return true;
    } else if (code === 0x7d || code === 0x5d) depth--;
  }
  return false;
}

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

class Reader {
  readonly #text: string;
  readonly #options: JsonOptions;
  readonly #path: (string | number)[] = [];
  #at = 0;
  constructor(text: string, options: JsonOptions) {
    this.#text = text;
    this.#options = options;
  }

  value(): unknown {
    if (this.#path.length > maxDepth) throw this.#fail("exceeded max depth");
    const next = this.#peek();
    switch (next) {
      case "{":
        return this.#object();
      case "[":
        return this.#array();
      case '"':
        return this.#string();
      case "t":
        return this.#literal("true", true);
      case "f":
        return this.#literal("false", false);
      case "n":
        return this.#literal("null", null);
      default:
        return this.#number(next);
    }
  }

  end(): void {
    if (this.#peek() !== "") throw this.#unexpected("after top-level value");
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    this.#at++;
    if (this.#peek() === "}") {
      this.#at++;
      return object;
    }
    for (;;) {
      if (this.#peek() !== '"') throw this.#unexpected("looking for beginning of object key string");
      const name = this.#string();
      if (this.#peek() !== ":") throw this.#unexpected("after object key");
      this.#at++;
      this.#path.push(name);
      if (this.#options.onDuplicate && Object.hasOwn(object, name)) this.#options.onDuplicate(pathText(this.#path));
      setMember(object, name, this.value());
      this.#path.pop();
      const next = this.#peek();
      if (next === "}") break;
      if (next !== ",") throw this.#unexpected("after object key:value pair");
      this.#at++;
    }
    this.#at++;
    return object;
  }

  #array(): unknown[] {
    const list: unknown[] = [];
    this.#at++;
    if (this.#peek() === "]") {
      this.#at++;
      return list;
    }
    for (;;) {
      this.#path.push(list.length);
      list.push(this.value());
      this.#path.pop();
      const next = this.#peek();
      if (next === "]") break;
      if (next !== ",") throw this.#unexpected("after array element");
      this.#at++;
    }
    this.#at++;
    return list;
  }

  #string(): string {
    const start = this.#at++;
    let escapes = false;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (Number.isNaN(code)) throw this.#end();
      if (code < 32) throw this.#unexpected("in string literal");
      this.#at++;
      if (code === 34) break;
      if (code !== 92) continue;
      escapes = true;
      const escaped = this.#text[this.#at] ?? "";
      if (escaped === "") throw this.#end();
      if (!'"\\/bfnrtu'.includes(escaped)) throw this.#unexpected("in string escape code");
      this.#at++;
      if (escaped !== "u") continue;
      for (let digit = 0; digit < 4; digit++, this.#at++) {
        if (this.#at >= this.#text.length) throw this.#end();
        if (!/[0-9a-fA-F]/.test(this.#text[this.#at]!)) throw this.#unexpected("in \\u hexadecimal character escape");
      }
    }
    if (!escapes) return this.#text.slice(start + 1, this.#at - 1);
    return JSON.parse(this.#text.slice(start, this.#at)) as string;
  }

  #literal<T>(word: string, value: T): T {
    for (const [index, letter] of [...word].entries()) {
      const got = this.#text[this.#at];
      if (got === undefined) throw this.#end();
      if (got !== letter) {
        throw this.#unexpected(
          index === 0 ? "looking for beginning of value" : `in literal ${word} (expecting '${letter}')`,
        );
      }
      this.#at++;
    }
    return value;
  }

  #number(next: string): number | bigint {
    if (next === "") throw this.#end();
    if (next !== "-" && (next < "0" || next > "9")) throw this.#unexpected("looking for beginning of value");
    number.lastIndex = this.#at;
    const match = number.exec(this.#text);
    if (!match) {
      this.#at++;
      if (this.#at >= this.#text.length) throw this.#end();
      throw this.#unexpected("in numeric literal");
    }
    this.#at = number.lastIndex;
    const value = Number(match[0]);
    if (this.#options.bigints && !Number.isSafeInteger(value) && /^-?\d+$/.test(match[0])) return BigInt(match[0]);
    return value;
  }

  /** The next character that is no white space; empty at the end. */
  #peek(): string {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return this.#text[this.#at] ?? "";
      this.#at++;
    }
  }
  #unexpected(where: string): AppError {
    const code = this.#text.codePointAt(this.#at);
    if (code === undefined) return this.#end();
    return this.#fail(`invalid character ${quote(String.fromCodePoint(code))} ${where}`);
  }
  #end(): AppError {
    return this.#fail("unexpected end of JSON input");
  }
  #fail(message: string): AppError {
    return new AppError("JSON_SYNTAX", message, { offset: this.#at });
  }
}

function quote(character: string): string {
  if (character === "'") return `'\\''`;
  if (character === '"') return `'"'`;
  return `'${JSON.stringify(character).slice(1, -1)}'`;
}

/** `spec.containers[0].name` */
export function pathText(path: readonly (string | number)[]): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += text === "" ? part : `.${part}`;
  }
  return text;
}
