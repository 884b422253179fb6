// How a program of this folder ends: with its own exit code, or with a failure told in one sentence.
import { AppError, messageOf } from "#base/errors.ts";
import { ApiError } from "#model/status.ts";

/** True for what the machine, the user or the cluster can cause; anything else is a defect and keeps its stack. */
const isForeseen = (error: unknown): boolean =>
  error instanceof AppError || error instanceof ApiError || (error instanceof Error && "syscall" in error);

/** What to look at, where the failure itself does not say. */
const hints: Readonly<Record<string, string>> = {
  HTTP_FAILED: "is the server up, and is it the one you mean?",
  DATASTORE_LOCKED: "mote runs on this data folder; stop it first, or give another --data-dir",
  PROCESS_LOCKED: "mote runs on this data folder; stop it first, or give another --data-dir",
  HTTP_TIMEOUT: "is the server up, and is it the one you mean?",
};

function sentenceOf(error: unknown): string {
  // Who could not start says so with the words of what was in the way, and that is its cause.
  const hint = [error, error instanceof Error ? error.cause : undefined]
    .map((one) => (one instanceof AppError ? hints[one.code] : undefined))
    .find((one) => one !== undefined);
  return `error: ${messageOf(error)}${hint === undefined ? "" : ` (${hint})`}`;
}

export async function exitCodeOf(run: () => Promise<number>): Promise<number> {
  try {
    return await run();
  } catch (error) {
    console.error(isForeseen(error) ? sentenceOf(error) : error);
    return 1;
  }
}
