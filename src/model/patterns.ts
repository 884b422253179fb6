// Regular expressions of schemas and CEL: RE2 syntax in linear time, whatever a definition says.
import { RE2JS } from "re2js";

export interface Pattern {
  /** Anywhere in the text. */
  finds(text: string): boolean;
}

/** Undefined where it is no expression; definitions with such are refused. */
export function compilePattern(source: string): Pattern | undefined {
  try {
    const compiled = RE2JS.compile(source);
    return { finds: (text) => compiled.matcher(text).find() };
  } catch {
    return undefined;
  }
}
