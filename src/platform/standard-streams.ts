// The process's own output.
import { writeSync } from "node:fs";

/** Synchronous, so that the last line before a crash is not lost. A full or closed log must not end the server. */
export function writeError(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // Nowhere to say it.
  }
}

/** The same for standard output: on a device, the console. */
export function writeOutput(text: string): void {
  try {
    writeSync(1, text);
  } catch {
    // Nowhere to say it.
  }
}
