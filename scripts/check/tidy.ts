// Calls that must not stand in product code, each with what to use instead. A test of the code base, not of behaviour.
import type { SourceFile } from "./layers.ts";

interface Ban {
  readonly pattern: RegExp;
  readonly instead: string;
  /** Paths where the call is at home. */
  readonly allowed: RegExp;
}

const bans: readonly Ban[] = [
  { pattern: /\bDate\.now\(/, instead: "Clock.now()", allowed: /^src\/platform\// },
  { pattern: /\bperformance\.now\(/, instead: "Clock.monotonicMs()", allowed: /^src\/platform\// },
  { pattern: /\bMath\.random\(/, instead: "Random", allowed: /^$/ },
  { pattern: /\b(setTimeout|setInterval)\(/, instead: "Clock.sleep or Clock.after", allowed: /^src\/platform\// },
  { pattern: /\bAbortSignal\.timeout\(/, instead: "Clock.after with an AbortController", allowed: /^src\/platform\// },
  { pattern: /\bAbortSignal\.any\(/, instead: "withEither of base/either-signal.ts", allowed: /^$/ },
  { pattern: /\bprocess\.env\b/, instead: "configuration passed in by src/entry", allowed: /^src\/(entry|platform)\// },
  { pattern: /\bprocess\.exit\(/, instead: "a returned exit code", allowed: /^src\/entry\// },
  { pattern: /\b(FIXME|XXX)\b/, instead: "mending it, or an issue", allowed: /^$/ },
  { pattern: /catch\s*(\([^)]*\))?\s*\{\s*\}/, instead: "a sentence that says why going on is right", allowed: /^$/ },
];

export function checkTidy(files: readonly SourceFile[]): string[] {
  const problems: string[] = [];
  for (const file of files) {
    if (!file.path.startsWith("src/") || /\.(test|fixture)\.ts$/.test(file.path) || file.path.includes("/gen/"))
      continue;
    for (const [i, line] of file.text.split("\n").entries()) {
      const code = line.replace(/\/\/.*$/, "");
      const isComment = /^\s*(\*|\/\/|\/\*)/.test(line);
      for (const ban of bans) {
        if (isComment && !/FIXME/.test(ban.pattern.source)) continue;
        if (ban.pattern.test(isComment ? line : code) && !ban.allowed.test(file.path)) {
          problems.push(`${file.path}:${i + 1}: ${ban.pattern.source} — use ${ban.instead}`);
        }
      }
    }
  }
  return problems;
}
