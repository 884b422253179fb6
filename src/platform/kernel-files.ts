// Files and folders that the kernel makes up: /proc, /sys, cgroups. They never wait for a disk, so they are read and written
// at once: through the thread pool each would cost ten times the time, and there are thousands of them on a full node. Not for
// anything else, and not for writes that make the kernel work (a memory limit below what is in use).
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmdirSync,
  writeSync,
} from "node:fs";
import { hasCode } from "#base/errors.ts";

/** Longer files are cut; the longest that are read here (memory.stat, mounts) are below it by far. */
const defaultMaxBytes = 256 * 1024;
const pieceBytes = 16 * 1024;

/** The text, or nothing where there is no such file (any more) or it may not be read. */
export function readKernelFile(path: string, maxBytes = defaultMaxBytes): string {
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

/** Writes to a control file; false where there is none. */
export function writeKernelFile(path: string, text: string): boolean {
  let file: number;
  try {
    file = openSync(path, constants.O_WRONLY | constants.O_TRUNC);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
  try {
    writeSync(file, text);
    return true;
  } finally {
    closeSync(file);
  }
}

export const kernelPathExists = (path: string): boolean => existsSync(path);

export function makeKernelFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o755 });
}

/** Names of the folders in a folder; none where it is not there. */
export function kernelFoldersIn(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}

/** Takes away a folder without folders in it; one that is in use or gone stays as it is. */
export function removeKernelFolder(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!["ENOENT", "ENOTEMPTY", "EBUSY"].some((code) => hasCode(error, code))) throw error;
  }
}
