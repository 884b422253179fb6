// Files that the kernel makes up while they are read: /proc, /sys, cgroups. They never wait for a disk, so they are read at
// once: through the thread pool each would cost ten times the time, and there are thousands of them on a full node. Not for
// anything else.
import { closeSync, openSync, readSync } from "node:fs";

/** Longer files are cut; the longest that are read here (memory.stat, mounts) are below it by far. */
const maxBytes = 256 * 1024;
const pieceBytes = 16 * 1024;

/** The text, or nothing where there is no such file (any more) or it may not be read. */
export function readKernelFile(path: string): string {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    // Cgroups and processes come and go between two reads.
    return "";
  }
  try {
    const piece = Buffer.allocUnsafe(pieceBytes);
    let text = "";
    while (text.length < maxBytes) {
      const length = readSync(file, piece, 0, pieceBytes, -1);
      if (length === 0) break;
      text += piece.toString("latin1", 0, length);
    }
    return text;
  } catch {
    // It ended while it was read.
    return "";
  } finally {
    closeSync(file);
  }
}
