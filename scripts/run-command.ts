// Child processes for scripts: run to the end, show or keep the output, fail with what was said: without colours, and
// with the middle left out where a tool says thousands of lines.
import { spawn } from "node:child_process";
import { stripVTControlCharacters } from "node:util";
import { UserError } from "#scripts/stages.ts";

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** "show" passes output through; "keep" (default) returns it and prints it only on failure. */
  readonly output?: "show" | "keep";
  readonly input?: string;
  /** Exit codes that are fine; default [0]. */
  readonly ok?: readonly number[];
  readonly timeoutMs?: number;
}

export interface RunResult {
  readonly code: number;
  readonly output: string;
}

export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const show = options.output === "show";
    const child = spawn(program, args, {
      stdio: [options.input === undefined ? "ignore" : "pipe", show ? "inherit" : "pipe", show ? "inherit" : "pipe"],
      // Kept output is searched and printed plainly; shown output is the terminal's affair.
      env: { ...process.env, ...(show ? {} : { NO_COLOR: "1", FORCE_COLOR: "0" }), ...options.env },
      ...(options.cwd ? { cwd: options.cwd } : {}),
    });
    const chunks: Buffer[] = [];
    const timer = options.timeoutMs ? setTimeout(() => child.kill("SIGKILL"), options.timeoutMs) : undefined;
    child.stdout?.on("data", (c: Buffer) => chunks.push(c));
    child.stderr?.on("data", (c: Buffer) => chunks.push(c));
    child.stdin?.end(options.input);
    child.on("error", (error) => reject(new UserError(`cannot start ${program}: ${error.message}`)));
    child.on("close", (code) => {
      clearTimeout(timer);
      const output = Buffer.concat(chunks).toString("utf8");
      const status = code ?? 1;
      if ((options.ok ?? [0]).includes(status)) resolve({ code: status, output });
      else {
        if (!show && output !== "") console.error(`\n${readable(output)}`);
        reject(new UserError(`${program} ${args.slice(0, 6).join(" ")} ended with exit ${status}`));
      }
    });
  });
}

/** Of a long output the first lines (compilers, linters) and the last (package managers) tell most. */
const shownLines = { first: 60, last: 30 } as const;
/** Bundles quote whole files on one line. */
const shownColumns = 400;

/** Output as a failure shows it: no escape sequences, no endless lines, the middle of a long text left out. */
export function readable(output: string): string {
  const lines = stripVTControlCharacters(output).trimEnd().split(/\r*\n/);
  const { first, last } = shownLines;
  const leftOut = lines.length - first - last;
  const kept =
    leftOut <= 1 ? lines : [...lines.slice(0, first), `… ${leftOut} lines left out …`, ...lines.slice(-last)];
  return kept.map((line) => (line.length > shownColumns ? `${line.slice(0, shownColumns)}…` : line)).join("\n");
}
