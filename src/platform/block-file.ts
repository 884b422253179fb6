// Files as a database engine wants them: positioned reads and writes that are whole or fail, and two ways to flush, one
// that blocks and one that does not. An interface, because the crash simulator (test/crash) is another one.
import * as fs from "node:fs";
import { dirname } from "node:path";
import { hasCode } from "#base/errors.ts";

export interface BlockFile {
  /** Fills `into` from `position` as far as the file goes; returns how many bytes that were. */
  read(into: Uint8Array, position: number): number;
  write(from: Uint8Array, position: number): void;
  truncate(size: number): void;
  size(): number;
  /** Returns when all that was written is on the medium. */
  sync(): void;
  /** The same without blocking; covers what was written before the call. */
  flush(): Promise<void>;
  close(): void;
}

export interface BlockFiles {
  /** Throws ENOENT when there is none and `create` is not set. */
  open(path: string, options: { readonly create: boolean }): BlockFile;
  exists(path: string): boolean;
  /** Throws ENOENT when there is none. */
  remove(path: string): void;
  /** Replaces `to`; throws ENOENT when there is no `from`. */
  rename(from: string, to: string): void;
  /** Makes creations, renamings and removals in the file's folder durable. */
  syncFolderOf(path: string): void;
}

export const systemBlockFiles: BlockFiles = {
  open(path, options) {
    const flags = fs.constants.O_RDWR | (options.create ? fs.constants.O_CREAT : 0);
    // Only the owner: the store holds every Secret of the cluster.
    return openBlockFile(fs.openSync(path, flags, 0o600));
  },
  exists(path) {
    try {
      // A file of no length counts as absent, as in SQLite's own unix VFS.
      return fs.statSync(path).size > 0;
    } catch (error) {
      if (hasCode(error, "ENOENT")) return false;
      throw error;
    }
  },
  remove: (path) => fs.unlinkSync(path),
  rename: (from, to) => fs.renameSync(from, to),
  syncFolderOf(path) {
    const folder = fs.openSync(dirname(path), fs.constants.O_RDONLY);
    try {
      fs.fsyncSync(folder);
    } finally {
      fs.closeSync(folder);
    }
  },
};

function openBlockFile(fd: number): BlockFile {
  return {
    read(into, position) {
      let done = 0;
      while (done < into.length) {
        const n = fs.readSync(fd, into, done, into.length - done, position + done);
        if (n === 0) break;
        done += n;
      }
      return done;
    },
    write(from, position) {
      let done = 0;
      while (done < from.length) done += fs.writeSync(fd, from, done, from.length - done, position + done);
    },
    truncate: (size) => fs.ftruncateSync(fd, size),
    size: () => fs.fstatSync(fd).size,
    sync: () => fs.fdatasyncSync(fd),
    flush: () =>
      new Promise((resolve, reject) => {
        fs.fdatasync(fd, (error) => (error ? reject(error) : resolve()));
      }),
    close: () => fs.closeSync(fd),
  };
}
