// Rows as columns for a terminal: each column is as wide as its widest cell, and no line has blanks at its end. Tables that
// a person reads are made to fit 80 to 100 columns by leaving columns out (`-o wide` and `-o json` have all of them), never
// by cutting a cell: what stands there is copied into the next command.

export function columns(rows: readonly (readonly string[])[], gap = 2): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length + gap);
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join("")
        .trimEnd(),
    )
    .join("\n");
}
