// What is mounted on this machine, and taking it away before a folder is removed: a tree with a mount in it is never
// deleted, since what is mounted there is somebody's data. Counterpart: k8s.io/mount-utils.
import { AppError } from "#base/errors.ts";
import { readFileIfExists } from "#platform/files.ts";
import { readKernelFile } from "#platform/kernel-files.ts";
import { type Commands, runChecked } from "#platform/processes.ts";

/** Mounts may lie on one another; more layers than this are a mistake somewhere. */
const maxLayers = 16;

/** Of the table: a full node's is a tenth of it. A part of it would be worse than none. */
const maxTableBytes = 8 * 1024 * 1024;

/** Every mount point in the order of mounting, once per layer. */
export async function mountPoints(): Promise<string[]> {
  const table = readKernelFile("/proc/self/mounts", maxTableBytes);
  if (table === "" || table.length >= maxTableBytes) {
    throw new AppError("NODE_MOUNTS", "cannot read what is mounted", { bytes: table.length });
  }
  return table
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => unescapePath(line.split(" ", 2)[1] ?? ""));
}

/** Blanks and the like stand as octal numbers in the table. */
const unescapePath = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** Whether anything is mounted at or below `folder`. */
export const hasMounts = async (folder: string): Promise<boolean> =>
  (await mountPoints()).some((point) => point === folder || point.startsWith(`${folder}/`));

export const isMounted = async (path: string): Promise<boolean> => (await mountPoints()).includes(path);

/** Makes mounts below `folder` visible in containers that share it, as CSI drivers need it: on most machines it is so. */
export async function shareMounts(folder: string, commands: Commands): Promise<void> {
  const table = (await readFileIfExists("/proc/self/mountinfo"))?.toString("utf8") ?? "";
  let holder: { readonly point: string; readonly isShared: boolean } | undefined;
  for (const line of table.split("\n")) {
    const fields = line.split(" ");
    const point = unescapePath(fields[4] ?? "");
    if (point === "" || (point !== "/" && folder !== point && !folder.startsWith(`${point}/`))) continue;
    // Later lines lie over earlier ones; of nested ones the innermost holds the folder.
    if (!holder || point.length >= holder.point.length) {
      holder = { point, isShared: fields.slice(6, fields.indexOf("-")).some((field) => field.startsWith("shared:")) };
    }
  }
  if (holder?.isShared) return;
  if (holder?.point !== folder) await runChecked(commands, "mount", ["--bind", "--", folder, folder]);
  await runChecked(commands, "mount", ["--make-rshared", "--", folder]);
}

/** Undoes the mount of a folder on itself; a file system that somebody mounted there stays. */
export async function unshareMounts(folder: string, commands: Commands): Promise<void> {
  const table = (await readFileIfExists("/proc/self/mountinfo"))?.toString("utf8") ?? "";
  const isOnItself = table.split("\n").some((line) => {
    const [, , , root, point] = line.split(" ");
    return point !== undefined && unescapePath(point) === folder && root !== "/";
  });
  if (!isOnItself) return;
  const { code, stderr } = await commands.run("umount", ["-l", "--", folder]);
  // Another mote of this machine may have done it this moment.
  if (code !== 0 && (await isMounted(folder)))
    throw new AppError("NODE_UNMOUNT", `cannot unmount ${folder}: ${stderr.trim()}`, { folder });
}

/** Unmounts everything at and below `folder`, the innermost first; fails where something stays. */
export async function unmountAll(folder: string, commands: Commands): Promise<void> {
  for (let layer = 0; layer < maxLayers; layer++) {
    const points = (await mountPoints()).filter((point) => point === folder || point.startsWith(`${folder}/`));
    if (points.length === 0) return;
    for (const point of points.reverse()) await runChecked(commands, "umount", ["-l", "--", point]);
  }
  throw new AppError("NODE_UNMOUNT", `cannot unmount what lies below ${folder}`, { folder });
}
