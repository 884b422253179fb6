// A file that only grows, off the main thread: logs whose owner wants to know whether a line was kept.
import { constants } from "node:fs";
import { open } from "node:fs/promises";

export interface AppendFile {
  readonly sizeBytes: number;
  /** All of it or nothing: a write that fails halfway is taken back. */
  append(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Made with `mode` where there is none. */
export async function openForAppending(path: string, mode: number): Promise<AppendFile> {
  const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, mode);
  let sizeBytes: number;
  try {
    const stat = await handle.stat();
    // A pipe or a device has no end that could be gone back to.
    sizeBytes = stat.isFile() ? stat.size : 0;
  } catch (error) {
    await handle.close();
    throw error;
  }
  return {
    get sizeBytes() {
      return sizeBytes;
    },
    async append(bytes) {
      let done = 0;
      try {
        while (done < bytes.length) {
          const { bytesWritten } = await handle.write(bytes, done, bytes.length - done);
          done += bytesWritten;
        }
        sizeBytes += done;
      } catch (error) {
        // Where even that fails, a torn line is left, and the caller has the error.
        if (done > 0) await handle.truncate(sizeBytes).catch(() => {});
        throw error;
      }
    },
    close: () => handle.close(),
  };
}
