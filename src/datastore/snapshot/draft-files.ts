// Files of a draft: nobody needs them after a crash, and whoever finishes one flushes what stays of it, once. So what a database
// engine wants flushed on the way is left to the system, but for every `flushEveryBytes`: a large snapshot must not be one
// long flush at its end that the store's own wait behind. What is removed before the system came to write it, as SQLite's log,
// costs a card nothing.
// Invariant: what is read is what was written; whether it is on the medium nobody may ask here.
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";

/** As much as a card of the slowest class takes in half a second. */
const flushEveryBytes = 4 * 1024 * 1024;

export function draftFiles(files: BlockFiles): BlockFiles {
  return {
    ...files,
    open: (path, options) => draftFile(files.open(path, options)),
    syncFolderOf() {},
  };
}

function draftFile(file: BlockFile): BlockFile {
  let unflushedBytes = 0;
  return {
    read: (into, position) => file.read(into, position),
    write(from, position) {
      file.write(from, position);
      unflushedBytes += from.length;
    },
    truncate: (size) => file.truncate(size),
    size: () => file.size(),
    sync() {},
    async flush() {
      if (unflushedBytes < flushEveryBytes) return;
      unflushedBytes = 0;
      await file.flush();
    },
    close: () => file.close(),
  };
}
