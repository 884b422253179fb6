// Trees of files as the node agent builds them for pods: links, owners, modes, sizes of file systems. Whole-file reads and
// durable writes are in files.ts; these are the rest of node:fs that volumes and logs need.
import type { Stats } from "node:fs";
import * as fs from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

export type PathKind = "folder" | "file" | "socket" | "character-device" | "block-device" | "other";

/** What lies under `path`, links followed; undefined when nothing does. */
export async function kindOf(path: string): Promise<PathKind | undefined> {
  try {
    const stat = await fs.stat(path);
    if (stat.isDirectory()) return "folder";
    if (stat.isFile()) return "file";
    if (stat.isSocket()) return "socket";
    if (stat.isCharacterDevice()) return "character-device";
    if (stat.isBlockDevice()) return "block-device";
    return "other";
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return undefined;
    throw error;
  }
}

/** Where a symbolic link points, or undefined when `path` is none. */
export async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await fs.readlink(path);
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "EINVAL")) return undefined;
    throw error;
  }
}

/** The path with all links resolved. */
export const realPath = (path: string): Promise<string> => fs.realpath(path);

export const makeLink = (target: string, path: string): Promise<void> => fs.symlink(target, path);
export const renamePath = (from: string, to: string): Promise<void> => fs.rename(from, to);
export const changeMode = (path: string, mode: number): Promise<void> => fs.chmod(path, mode);
export const changeOwner = (path: string, uid: number, gid: number): Promise<void> => fs.chown(path, uid, gid);

/** Writes without forcing to disk: for what is rebuilt after a crash. The mode is set whatever the umask. */
export async function writePlainFile(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  await fs.writeFile(path, data, { mode });
  await fs.chmod(path, mode);
}

export async function removeFile(path: string): Promise<void> {
  await fs.rm(path, { force: true });
}

/** Removes a tree. Mounts inside it must be gone: it refuses to cross none, so unmount first. */
export async function removeTree(path: string): Promise<void> {
  await fs.rm(path, { recursive: true, force: true });
}

/** Removes an empty folder; false when it is not empty or busy. */
export async function removeEmptyFolder(path: string): Promise<boolean> {
  try {
    await fs.rmdir(path);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return true;
    if (hasCode(error, "ENOTEMPTY") || hasCode(error, "EBUSY")) return false;
    throw error;
  }
}

/** Writes to a file that exists already, such as a kernel control file; false when there is none. */
export async function writeExisting(path: string, data: string): Promise<boolean> {
  try {
    await fs.writeFile(path, data, { flag: "r+" });
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

export interface FileSystemSize {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly inodes: number;
  readonly inodesFree: number;
}

export async function fileSystemSize(path: string): Promise<FileSystemSize> {
  const stat = await fs.statfs(path);
  return {
    totalBytes: stat.blocks * stat.bsize,
    freeBytes: stat.bavail * stat.bsize,
    inodes: stat.files,
    inodesFree: stat.ffree,
  };
}

/**
 * Disk space and entries below `path`, on its own file system, hard links once. Stops after `maxEntries` and tells what it has:
 * a folder of millions is not read whole. What cannot be looked at is not counted; undefined when that is `path` itself.
 */
export async function folderUsage(
  path: string,
  maxEntries: number,
): Promise<{ readonly bytes: number; readonly inodes: number } | undefined> {
  const device = await fs.stat(path).then(
    (stat) => stat.dev,
    () => undefined,
  );
  if (device === undefined) return undefined;
  let bytes = 0;
  let inodes = 1;
  const links = new Set<number>();
  const folders = [path];
  for (let folder = folders.pop(); folder !== undefined && inodes < maxEntries; folder = folders.pop()) {
    try {
      for await (const { name } of await fs.opendir(folder, { bufferSize: 256 })) {
        const stat = await lstatIfThere(`${folder}/${name}`);
        if (!stat || stat.dev !== device) continue;
        const isShared = stat.nlink > 1 && !stat.isDirectory();
        if (isShared && links.has(stat.ino)) continue;
        if (isShared) links.add(stat.ino);
        inodes++;
        bytes += stat.blocks * 512;
        if (stat.isDirectory()) folders.push(`${folder}/${name}`);
        if (inodes >= maxEntries) break;
      }
    } catch {
      // Removed while it was walked, or its path is longer than the system takes: the rest counts all the same.
    }
  }
  return { bytes, inodes };
}

async function lstatIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await fs.lstat(path);
  } catch {
    // Removed after it was listed.
    return undefined;
  }
}
