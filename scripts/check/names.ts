// Holds what is written about the code against the code: a file that a README, a page of docs/ or a comment names is there.
// Names may be whole paths, relative ones, or the end of a path. Decisions (docs/adr) tell of their day and are left alone.
import { posix } from "node:path";
import type { SourceFile } from "./layers.ts";

const fileName = /(?<![\w/.*$}-])(?:\.{0,2}\/)?(?:[\w.-]+\/)*[\w][\w.-]*\.(?:ts|md)\b(?![\w*-])/g;
/** What is meant to be somebody else's, or any file. */
const others = /^(?:FILE\.ts|NAME\.md)$/;

/** `files`: paths of all there is, from the top of the repository. */
export function checkNames(texts: readonly SourceFile[], files: ReadonlySet<string>): string[] {
  const ends = new Set<string>();
  for (const path of files) {
    const parts = path.split("/");
    for (let i = 0; i < parts.length; i++) ends.add(parts.slice(i).join("/"));
  }
  const problems: string[] = [];
  for (const { path, text } of texts) {
    for (const [i, line] of text.split("\n").entries()) {
      if (path.endsWith(".ts") && !/^\s*(?:\/\/|\/\*\*|\*)/.test(line)) continue;
      for (const [name] of line.matchAll(fileName)) {
        if (line.includes(`://`) || others.test(name)) continue;
        const fromHere = posix.normalize(posix.join(posix.dirname(path), name));
        const isThere = files.has(fromHere) || ends.has(posix.normalize(name).replace(/^\.\.?\//, ""));
        if (!isThere) problems.push(`${path}:${i + 1}: there is no ${name}`);
      }
    }
  }
  return problems;
}
