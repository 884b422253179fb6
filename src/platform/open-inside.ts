// Opens something below a folder part by part without following links, so that nobody who can write there leads it out.
// Node has no openat(2): /proc/self/fd/N/name stands in for it. Counterpart: openat2(2) with RESOLVE_NO_SYMLINKS.
import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

/** Names it without asking for permission to read it; Linux, not in Node's constants. */
const oPath = 0o10000000;
const flags = oPath | constants.O_NOFOLLOW;

export interface OpenedInside {
  readonly isFolder: boolean;
  /** A path of what was opened, for other processes, as long as it is open. */
  readonly descriptorPath: string;
  close(): Promise<void>;
}

/** `makeFolders`: parts that are missing are made, for everybody to write as a subPath must be. */
export async function openInside(
  root: string,
  parts: readonly string[],
  options: { readonly makeFolders: boolean },
): Promise<OpenedInside> {
  let handle = await fs.open(root, flags);
  try {
    for (const part of parts) {
      const path = `/proc/self/fd/${handle.fd}/${part}`;
      let next: fs.FileHandle;
      try {
        next = await fs.open(path, flags);
      } catch (error) {
        if (!options.makeFolders || !hasCode(error, "ENOENT")) throw error;
        await fs.mkdir(path, 0o750);
        next = await fs.open(path, flags);
        await fs.chmod(`/proc/self/fd/${next.fd}`, 0o777);
      }
      await handle.close();
      handle = next;
      if ((await handle.stat()).isSymbolicLink()) throw new Error(`${part} is a symbolic link`);
    }
    const isFolder = (await handle.stat()).isDirectory();
    const last = handle;
    return { isFolder, descriptorPath: `/proc/${process.pid}/fd/${last.fd}`, close: () => last.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
