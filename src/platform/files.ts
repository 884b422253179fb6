// Files as the rest of mote uses them: whole-file reads, and writes that survive a power cut.
import { constants, type Dirent } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { hasCode } from "#base/errors.ts";

/** The file's bytes, or undefined when there is none. */
export async function readFileIfExists(path: string): Promise<Buffer | undefined> {
  try {
    return await fs.readFile(path);
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return undefined;
    throw error;
  }
}

/** Replaces a file so that a crash leaves the old or the new content: temp, fsync, rename, fsync folder. */
export async function writeFileDurable(path: string, data: string | Uint8Array, mode = 0o644): Promise<void> {
  const temporary = `${path}.tmp-${process.pid}`;
  const file = await fs.open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, mode);
  try {
    await file.writeFile(data);
    await file.chmod(mode);
    await file.sync();
  } finally {
    await file.close();
  }
  await fs.rename(temporary, path);
  await syncFolder(dirname(path));
}

export async function syncFolder(path: string): Promise<void> {
  const folder = await fs.open(path, constants.O_RDONLY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** With those above it. Not Node's own `recursive`: it tries for ever where a folder takes no entry, as /proc does. */
export async function makeFolder(path: string, mode = 0o755): Promise<void> {
  for (let hasParent = false; ; hasParent = true) {
    try {
      await fs.mkdir(path, { mode });
      return;
    } catch (error) {
      if (hasCode(error, "EEXIST") && (await isFolder(path))) return;
      if (hasParent || !hasCode(error, "ENOENT") || dirname(path) === path) throw error;
    }
    await makeFolder(dirname(path), mode);
  }
}

const isFolder = async (path: string): Promise<boolean> => (await fs.stat(path)).isDirectory();

export async function listFolder(path: string): Promise<Dirent[]> {
  try {
    return await fs.readdir(path, { withFileTypes: true });
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await fs.access(path);
    return true;
  } catch {
    return false;
  }
}

/** When the file was last written, or was said to have been. */
export const modifiedMs = async (path: string): Promise<number> => (await fs.stat(path)).mtimeMs;
export const setModified = (path: string, ms: number): Promise<void> => fs.utimes(path, ms / 1000, ms / 1000);
