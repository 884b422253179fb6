// Regular expressions of schemas and CEL: RE2 syntax in linear time, whatever a definition says.
import { RE2JS } from "re2js";

export interface Pattern {
  /** Anywhere in the text. */
  finds(text: string): boolean;
  /** The first `limit` matches that do not overlap. */
  all(text: string, limit: number): string[];
}

/** Undefined where it is no expression; definitions with such are refused. */
export function compilePattern(source: string): Pattern | undefined {
  try {
    const compiled = RE2JS.compile(source);
    return {
      finds: (text) => compiled.matcher(text).find(),
      all: (text, limit) => {
        const found: string[] = [];
        const matcher = compiled.matcher(text);
        while (found.length < limit && matcher.find()) found.push(matcher.group() ?? "");
        return found;
      },
    };
  } catch {
    return undefined;
  }
}
