// A log file of bounded size: when full it becomes FILE.1, which replaces the one before.
import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";

export interface RotatingFile {
  /** A full or broken medium loses the text: a log must not end the program. */
  append(text: string): void;
  close(): void;
}

/** Opened at the first line, so that a file for rare events need not exist. Takes up to twice `maxBytes`. */
export function rotatingFile(path: string, maxBytes: number): RotatingFile {
  let fd: number | undefined;
  let size = 0;
  const open = () => {
    fd = openSync(path, "a", 0o640);
    size = fstatSync(fd).size;
  };
  const close = () => {
    if (fd !== undefined) closeSync(fd);
    fd = undefined;
  };
  return {
    append(text) {
      try {
        if (fd === undefined) open();
        const bytes = Buffer.from(text);
        if (size > 0 && size + bytes.length > maxBytes) {
          close();
          renameSync(path, `${path}.1`);
          open();
        }
        writeSync(fd!, bytes);
        size += bytes.length;
      } catch {
        // No room or no medium; there is no better place to say so.
        close();
      }
    },
    close,
  };
}
