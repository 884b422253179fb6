// Opens something below a folder part by part without following links, so that nobody who can write there leads it out.
// Node has no openat(2): /proc/self/fd/N/name stands in for it. Counterpart: openat2(2) with RESOLVE_NO_SYMLINKS.
import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

/** Names it without asking for permission to read it; Linux, not in Node's constants. */
const oPath = 0o10000000;
const flags = oPath | constants.O_NOFOLLOW;
/** Permissions, and that what is made inside belongs to the folder's group. */
const madeModeBits = 0o2777;

export interface OpenedInside {
  readonly isFolder: boolean;
  /** A path of what was opened, for other processes, as long as it is open. */
  readonly descriptorPath: string;
  close(): Promise<void>;
}

/** `makeFolders`: parts that are missing are made, with the mode of `root` and whatever the umask. */
export async function openInside(
  root: string,
  parts: readonly string[],
  options: { readonly makeFolders: boolean },
): Promise<OpenedInside> {
  let handle = await fs.open(root, flags);
  try {
    const mode = (await handle.stat()).mode & madeModeBits;
    for (const part of parts) {
      const path = `/proc/self/fd/${handle.fd}/${part}`;
      const isMade = options.makeFolders && (await makeMissing(path));
      const next = await fs.open(path, flags);
      await handle.close();
      handle = next;
      if ((await handle.stat()).isSymbolicLink()) throw new Error(`${part} is a symbolic link`);
      if (isMade) await fs.chmod(`/proc/self/fd/${handle.fd}`, mode);
    }
    const isFolder = (await handle.stat()).isDirectory();
    const last = handle;
    return { isFolder, descriptorPath: `/proc/${process.pid}/fd/${last.fd}`, close: () => last.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** False where something was there already. */
async function makeMissing(path: string): Promise<boolean> {
  try {
    await fs.mkdir(path, 0o750);
    return true;
  } catch (error) {
    if (hasCode(error, "EEXIST")) return false;
    throw error;
  }
}
