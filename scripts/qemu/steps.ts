// The steps of an end-to-end test as data, each with its time. After one that fails those that build on it are skipped.
import { seconds, UserError } from "#scripts/stages.ts";

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

export interface Step<Test> {
  readonly name: string;
  /** Left out where one start is enough. */
  readonly isLong?: boolean;
  /** No later step builds on it: when it fails, they run all the same. */
  readonly isLeaf?: boolean;
  /** What there is to tell besides that it passed. */
  run(test: Test): Promise<string | undefined>;
}

export async function runSteps<Test>(steps: readonly Step<Test>[], test: Test, counts: Counts): Promise<void> {
  let hasFoundation = true;
  for (const step of steps) {
    if (!hasFoundation) {
      counts.skipped++;
      console.log(`  skipped  ${step.name}`);
      continue;
    }
    const startedMs = performance.now();
    try {
      const said = await step.run(test);
      counts.passed++;
      console.log(`  ok       ${step.name}  ${seconds(performance.now() - startedMs)}${said ? `  (${said})` : ""}`);
    } catch (error) {
      counts.failed++;
      hasFoundation = step.isLeaf === true;
      console.log(`  FAILED   ${step.name}: ${(error as Error).message}`);
      if (!(error instanceof UserError)) console.log((error as Error).stack);
    }
  }
}

export const must = (isTrue: boolean, message: string): void => {
  if (!isTrue) throw new UserError(message);
};
