// A new file written piece by piece: downloads. It is on the medium when `finish` has resolved.
import { open } from "node:fs/promises";

export interface FileWriter {
  /** Bytes written so far. */
  readonly sizeBytes: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Throws away what is beyond `sizeBytes`, and goes on there. */
  rewind(sizeBytes: number): Promise<void>;
  /** Flushes and closes. */
  finish(): Promise<void>;
  /** Closes; harmless after `finish`. */
  close(): Promise<void>;
}

/** What was there is overwritten. */
export async function openForWriting(path: string, mode = 0o600): Promise<FileWriter> {
  const handle = await open(path, "w", mode);
  let sizeBytes = 0;
  let isOpen = true;
  const close = async () => {
    if (!isOpen) return;
    isOpen = false;
    await handle.close();
  };
  return {
    get sizeBytes() {
      return sizeBytes;
    },
    async write(chunk) {
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await handle.write(chunk, done, chunk.length - done, sizeBytes);
        done += bytesWritten;
        sizeBytes += bytesWritten;
      }
    },
    async rewind(wanted) {
      await handle.truncate(wanted);
      sizeBytes = wanted;
    },
    async finish() {
      await handle.sync();
      await close();
    },
    close,
  };
}
