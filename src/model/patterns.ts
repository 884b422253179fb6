// Regular expressions of schemas and CEL: RE2 syntax, whatever a definition says. Whether a text matches is asked of an
// automaton that looks at each character once. What needs more (states made on the way, patterns that no small automaton
// stands for, finding where a match is) takes up to the size of the pattern for each character, and a few letters make a
// large one: `(.?){1000}`. That part is counted, and ends with PatternTooCostly before others wait for it.
// Upstream counterpart: Go's regexp, without such an end: a slow pattern there holds one thread of many.
import { RE2JS } from "re2js";

/** Steps of one pattern's instruction on one character, beyond one look at each: some 20 ms on a small board. */
const maxSteps = 1_000_000;
/** What making a pattern takes for each of its instructions, in such steps. */
export const stepsPerInstruction = 300;
/** What making a state takes for each instruction of the pattern, in such steps. */
const stepsPerState = 8;
/** Of one pattern's automaton, which is made anew when it grows beyond; most take a few kilobytes. */
const maxAutomatonBytes = 1024 * 1024;
/** Of one pattern; making so many takes some 50 ms, and Go's end is a million. */
const maxInstructions = 5_000;
/** As re2js decides: shorter texts are looked at by an engine that reads once for each step. */
const backtracking = { maxInstructions: 500, maxVisits: 262_144 } as const;

/** What is left for all patterns that look at one object. */
export class Effort {
  /** Set by who goes back to where it was more. */
  left = maxSteps;

  spend(steps: number): void {
    this.left -= steps;
    if (this.left < 0) throw new PatternTooCostly();
  }
}

/** The text is too long for so large a pattern. Ends what was asked for, whoever asked. */
export class PatternTooCostly {
  readonly message = "pattern takes too long on a text of this length";
}

/** Both throw PatternTooCostly. */
export interface Pattern {
  /** Anywhere in the text. */
  finds(text: string, effort: Effort): boolean;
  /** The first `limit` matches that do not overlap. */
  all(text: string, limit: number, effort: Effort): string[];
}

/** Undefined where it is no expression, or too large a one; definitions with such are refused. */
export function compilePattern(source: string): Pattern | undefined {
  if (patternSize(source) > maxInstructions) return undefined;
  let compiled: RE2JS;
  try {
    compiled = RE2JS.compile(source);
  } catch {
    // It throws for nothing but what cannot be read, and why is not told to whoever asks.
    return undefined;
  }
  const engine = compiled.re2();
  if (!engine.onepass) engine.dfa.memBudget = engine.dfa.stateBudget = maxAutomatonBytes;
  return {
    finds: (text, effort) => engine.match(new CountedText(text, compiled, effort, engine.prefilter ? 2 : 1)) as boolean,
    all(text, limit, effort) {
      const found: string[] = [];
      const matcher = compiled.matcher(
        new CountedText(text, compiled, effort, engine.prefilter ? 1 : 0) as unknown as string,
      );
      while (found.length < limit && matcher.find()) found.push(text.slice(matcher.start(), matcher.end()));
      return found;
    },
  };
}

const parts = /\\Q[\s\S]*?(?:\\E|$)|\\[\s\S]|\[\^?\]?(?:\\[\s\S]|\[:[a-z^]*:\]|[^\]\\])*\]?|\{\d+(?:,\d*)?\}|[\s\S]/g;
/**
 * About how many instructions a pattern will have, without making them: one for each letter and class, as often as it is
 * to be repeated. A thousand times a thousand letters are written in nine characters, and take seconds to make.
 */
export function patternSize(source: string): number {
  const outer: number[] = [];
  let size = 0;
  let last = 0;
  for (const [part] of source.matchAll(parts)) {
    if (part === "(") {
      outer.push(size);
      size = 0;
      last = 0;
    } else if (part === ")") {
      last = size + 1;
      size = (outer.pop() ?? 0) + last;
    } else if (/^\{\d/.test(part)) {
      const times = Math.max(...part.slice(1, -1).split(",").map(Number));
      size += last * (times - 1);
      last *= times;
    } else {
      last = part.startsWith("\\Q") ? part.length : 1;
      size += last;
    }
    if (size > maxInstructions) return size;
  }
  return outer.reduce((sum, each) => sum + each, size);
}

/** A text that sees how often it is read. So many passes from its start to its end are free. */
class CountedText extends String {
  readonly #text: string;
  readonly #effort: Effort;
  readonly #engine: ReturnType<RE2JS["re2"]>;
  readonly #instructions: number;
  readonly #stepsPerRead: number;
  #freePasses: number;
  #at = 0;
  #states: number;

  constructor(text: string, pattern: RE2JS, effort: Effort, freePasses: number) {
    super(text);
    this.#text = text;
    this.#effort = effort;
    this.#engine = pattern.re2();
    this.#instructions = pattern.programSize();
    this.#states = this.#stateCount();
    const { maxInstructions, maxVisits } = backtracking;
    const isShort = this.#instructions <= maxInstructions && text.length * this.#instructions <= maxVisits;
    // Otherwise it is read three times for each character: that one, the one before and the one behind.
    this.#stepsPerRead = isShort ? 1 : Math.ceil(this.#instructions / 3);
    this.#freePasses = freePasses;
  }

  override charCodeAt(index: number): number {
    const states = this.#stateCount();
    if (states !== this.#states) {
      this.#states = states;
      this.#effort.spend(this.#instructions * stepsPerState);
    }
    // A pass looks one character back at most.
    if (index + 1 < this.#at) this.#freePasses--;
    this.#at = index;
    if (this.#freePasses <= 0) this.#effort.spend(this.#stepsPerRead);
    return this.#text.charCodeAt(index);
  }

  /** There is no automaton before it is first asked, and none for the simplest patterns. */
  #stateCount(): number {
    const automaton = this.#engine.lazyDFA as { readonly stateCount: number } | null;
    return automaton?.stateCount ?? 0;
  }
}
