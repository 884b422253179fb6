// Giving a tree to a group: what a pod's fsGroup means for its volumes. Links are not followed, other file systems are not
// left out: what is mounted inside the volume belongs to it. Counterpart: the kubelet's volume.SetVolumeOwnership.
import * as fs from "node:fs/promises";
import { hasCode } from "#base/errors.ts";

const setGid = 0o2000;
const folderMask = 0o110;

export interface GroupOwnership {
  readonly gid: number;
  /** Group members may read only. */
  readonly readOnly: boolean;
  /** Leave the tree alone where its top already is as it should be. */
  readonly onlyWhenTopDiffers: boolean;
}

/** The number of entries that were changed. */
export async function giveToGroup(top: string, how: GroupOwnership): Promise<number> {
  const mask = how.readOnly ? 0o440 : 0o660;
  if (how.onlyWhenTopDiffers) {
    const stat = await fs.lstat(top);
    const wanted = mask | folderMask | setGid;
    if (stat.gid === how.gid && (stat.mode & wanted) === wanted) return 0;
  }
  let changed = 0;
  const folders = [top];
  const one = async (path: string): Promise<void> => {
    const stat = await fs.lstat(path);
    if (stat.gid !== how.gid) {
      await fs.lchown(path, stat.uid, how.gid);
      changed++;
    }
    // A link has no mode of its own.
    if (stat.isSymbolicLink()) return;
    const mode = stat.mode | mask | (stat.isDirectory() ? folderMask | setGid : 0);
    if ((mode & 0o7777) !== (stat.mode & 0o7777) || stat.gid !== how.gid) await fs.chmod(path, mode & 0o7777);
    if (stat.isDirectory() && path !== top) folders.push(path);
  };
  // The top last: an interrupted run is taken up again under OnRootMismatch.
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const name of await namesIn(folder)) {
      try {
        await one(`${folder}/${name}`);
      } catch (error) {
        // Removed by its users meanwhile.
        if (!hasCode(error, "ENOENT")) throw error;
      }
    }
  }
  await one(top);
  return changed;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await fs.readdir(folder);
  } catch (error) {
    // Removed by its users meanwhile; where that is the top, its own turn says so.
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}
