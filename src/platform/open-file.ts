// Reading parts of a file that may be large or still growing: image archives, container logs.
import { open as openFile, stat as statPath } from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

export interface FileFacts {
  readonly sizeBytes: number;
  /** Device and inode: tells a rotated file from the one that took its name. */
  readonly identity: string;
  readonly modifiedMs: number;
}

export interface OpenFile {
  /** Up to `length` bytes from `offset`; fewer at the end of the file. The result is the caller's own. */
  read(offset: number, length: number): Promise<Buffer>;
  facts(): Promise<FileFacts>;
  close(): Promise<void>;
}

/** Opens for reading; undefined when there is no such file. */
export async function openForReading(path: string): Promise<OpenFile | undefined> {
  try {
    const handle = await openFile(path, "r");
    return {
      async read(offset, length) {
        const buffer = Buffer.allocUnsafe(length);
        let filled = 0;
        while (filled < length) {
          const { bytesRead } = await handle.read(buffer, filled, length - filled, offset + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return buffer.subarray(0, filled);
      },
      async facts() {
        return factsOf(await handle.stat());
      },
      close: () => handle.close(),
    };
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return undefined;
    throw error;
  }
}

/** What lies under `path` now; undefined when nothing does. */
export async function fileFacts(path: string): Promise<FileFacts | undefined> {
  try {
    return factsOf(await statPath(path));
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return undefined;
    throw error;
  }
}

const factsOf = (stat: { size: number; dev: number; ino: number; mtimeMs: number }): FileFacts => ({
  sizeBytes: stat.size,
  identity: `${stat.dev}:${stat.ino}`,
  modifiedMs: stat.mtimeMs,
});
