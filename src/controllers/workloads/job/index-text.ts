// Indexes as a job's status and policies write them: "0,2-4". Pure.

/** "0,2-4" as sorted numbers; what is beyond `completions` (the job was made smaller) is left out. */
export function parseIndexes(text: string | undefined, completions: number): number[] {
  const out: number[] = [];
  for (const part of text ? text.split(",") : []) {
    const [first, last] = part.split("-").map(Number);
    if (first === undefined || Number.isNaN(first)) continue;
    for (let i = first; i <= Math.min(last ?? first, completions - 1); i++) out.push(i);
  }
  return out;
}

/** The reverse: runs of three and more as a range, of two as "a,b". */
export function formatIndexes(indexes: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < indexes.length; ) {
    let end = i;
    while (indexes[end + 1] === indexes[end]! + 1) end++;
    if (end - i >= 2) parts.push(`${indexes[i]}-${indexes[end]}`);
    else for (let k = i; k <= end; k++) parts.push(String(indexes[k]));
    i = end + 1;
  }
  return parts.join(",");
}
