// How a program of this folder ends: with its own exit code, or with a failure told in one sentence.
import { AppError, messageOf } from "#base/errors.ts";
import { ApiError } from "#model/status.ts";

/** True for what the machine, the user or the cluster can cause; anything else is a defect and keeps its stack. */
const isForeseen = (error: unknown): boolean =>
  error instanceof AppError || error instanceof ApiError || (error instanceof Error && "syscall" in error);

export async function exitCodeOf(run: () => Promise<number>): Promise<number> {
  try {
    return await run();
  } catch (error) {
    console.error(isForeseen(error) ? `error: ${messageOf(error)}` : error);
    return 1;
  }
}
