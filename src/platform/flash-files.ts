// Files on FAT, where a rename is not atomic and what is deleted can be read until it is overwritten.
import { open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { hasCode } from "#base/errors.ts";
import { syncFolder } from "./files.ts";

/** Same size: only the file's own sectors change. Makes the file where there is none. */
export async function overwriteInPlace(path: string, bytes: Uint8Array): Promise<void> {
  let isNew = false;
  const file = await open(path, "r+").catch((error: unknown) => {
    if (!hasCode(error, "ENOENT")) throw error;
    isNew = true;
    return open(path, "w");
  });
  try {
    await file.write(bytes, 0, bytes.length, 0);
    if (!isNew) await file.truncate(bytes.length);
    await file.sync();
  } finally {
    await file.close();
  }
  if (isNew) await syncFolder(dirname(path));
}

/** Zeros over the content, on the medium, then the name is taken away. */
export async function overwriteAndRemove(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    const { size } = await file.stat();
    await file.write(Buffer.alloc(size), 0, size, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await rm(path, { force: true });
  await syncFolder(dirname(path));
}
