// What somebody meant who typed a word that is none of those there are: for flags, commands, verbs and keys of files. Of
// several the one with the fewest slips; none rather than one that has little to do with what was typed.

const mostSlips = 2;

export function nearest(typed: string, words: readonly string[]): string | undefined {
  if (typed === "") return undefined;
  let best: { readonly word: string; readonly slips: number } | undefined;
  for (const word of words) {
    const slips = word.startsWith(typed) ? 0 : distance(word, typed);
    // Of a short word two slips leave nothing.
    const isNear = slips <= Math.min(mostSlips, Math.floor(typed.length / 2));
    if (isNear && (best === undefined || slips < best.slips)) best = { word, slips };
  }
  return best?.word;
}

/** How many letters are missing, too many, others, or stand in each other's place; of short words only. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const change = row[j - 1]! + (isSame ? 0 : 1);
      const least = Math.min(next[j - 1]! + 1, row[j]! + 1, change);
      next[j] = isSwapped ? Math.min(least, before[j - 2]! + 1) : least;
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}
