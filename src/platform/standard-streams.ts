// The process's own output.
import { writeSync } from "node:fs";
import { hasCode } from "#base/errors.ts";

/** Synchronous, so that the last line before a crash is not lost. A full or closed log must not end the server. */
export const writeError = (text: string): void => writeAll(2, text, 0);

/**
 * The same for standard output: on a device, the console, which gets few lines. A serial line takes 4 KiB at once and then
 * some 10 bytes a millisecond; it is waited for, while a log that nobody reads must hold nobody up.
 */
export const writeOutput = (text: string): void => writeAll(1, text, 2000);

const waitMs = 5;

/** The whole text, or as much as the other side takes in time: a terminal that does not block takes part of it. */
export function writeAll(fd: number, text: string, patienceMs: number): void {
  const bytes = Buffer.from(text);
  let waits = 0;
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      // Full for a moment; otherwise there is nowhere to say it.
      if (!hasCode(error, "EAGAIN") || waits++ >= patienceMs / waitMs) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, waitMs);
    }
  }
}
