// Long commands as named stages: one line when a stage starts, one with the time when it ends, a total at the end.

export interface Stage {
  readonly name: string;
  /** Returns a few words on the outcome, printed behind the time. Rejects when the whole command must stop. */
  run(): Promise<string | undefined> | Promise<void>;
}

/** A failure whose message is all the user needs: printed without a stack. */
export class UserError extends Error {
  override readonly name = "UserError";
}

const isTerminal = process.stdout.isTTY === true;

export async function runStages(stages: readonly Stage[]): Promise<number> {
  const startedMs = performance.now();
  for (const [i, stage] of stages.entries()) {
    const label = `[${i + 1}/${stages.length}] ${stage.name}`;
    if (isTerminal) process.stdout.write(`${label} …`);
    else console.log(`${label} …`);
    const stageMs = performance.now();
    try {
      const said = await stage.run();
      const line = `${label}  ${seconds(performance.now() - stageMs)}${said ? `  ${said}` : ""}`;
      console.log(isTerminal ? `\r\x1b[K${line}` : line);
    } catch (error) {
      console.log(isTerminal ? `\r\x1b[K${label}  failed` : `${label}  failed`);
      throw error;
    }
  }
  return performance.now() - startedMs;
}

export function seconds(ms: number): string {
  return ms < 60_000
    ? `${(ms / 1000).toFixed(1)} s`
    : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** Runs a program's main: UserErrors become one sentence and exit 1, others keep their stack. */
export async function main(body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    console.error(error instanceof UserError || isOfCommandLine(error) ? `error: ${error.message}` : error);
    process.exitCode = 1;
  }
}

/** What node:util's parseArgs says of flags: the user's mistake, not this program's. */
const isOfCommandLine = (error: unknown): error is Error =>
  error instanceof Error && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS_");
