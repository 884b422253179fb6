// Room set aside for the day the disk is full: a file of zeros beside the log. Giving it back is what lets deletions go
// on when nothing else fits; it is filled again when there is room for it and for a little more.
// Counterpart: etcd has a quota and an alarm that a person clears.
import { hasCode } from "#base/errors.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";
import { nextTurn } from "#platform/turns.ts";

/** Written at a time, so that a slow card does not hold the loop. */
const sliceBytes = 128 * 1024;

export interface ReserveOptions {
  readonly path: string;
  /** 0: there is none. */
  readonly bytes: number;
  readonly files: BlockFiles;
}

/** The reserve's file of a log. */
export const reservePath = (logPath: string): string => `${logPath}-reserve`;

export class Reserve {
  readonly #options: ReserveOptions;
  #file: BlockFile | undefined;
  held = false;
  /** Counts releases: one ends the filling that is under way. */
  #released = 0;

  constructor(options: ReserveOptions) {
    this.#options = options;
    if (options.bytes === 0) return;
    try {
      this.#file = options.files.open(options.path, { create: true });
      this.held = this.#file.size() >= options.bytes;
    } catch {
      // The store opens without a reserve; filling it is tried again, and then says what is wrong.
    }
  }

  /** Gives the room back. */
  release(): void {
    this.held = false;
    this.#released++;
    this.#file?.truncate(0);
  }

  /** Tries to set the room aside; true when it is. A quarter more must fit, so that it does not take the last. */
  async fill(): Promise<boolean> {
    const { bytes, files, path } = this.#options;
    if (bytes === 0) return true;
    const released = this.#released;
    try {
      const file = this.#file ?? files.open(path, { create: true });
      this.#file = file;
      const zeros = new Uint8Array(sliceBytes);
      for (let at = file.size(); at < bytes * 1.25; at += sliceBytes) {
        file.write(zeros, at);
        await nextTurn();
        if (this.#file !== file || this.#released !== released) return false;
      }
      file.truncate(bytes);
      this.held = true;
      return true;
    } catch (error) {
      if (!isNoSpace(error)) throw error;
      this.#file?.truncate(this.held ? bytes : 0);
      return false;
    }
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

export function isNoSpace(error: unknown): boolean {
  return hasCode(error, "ENOSPC") || hasCode(error, "EDQUOT");
}
