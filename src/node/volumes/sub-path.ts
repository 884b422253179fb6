// subPath without races: the container itself may swap a folder of the volume for a link while it is being mounted, so a
// path that was checked is not good enough. Each part of the path is opened without following links, and what was opened,
// not its name, is bound to a place of the pod's own that is then given to the runtime.
// Counterpart: k8s.io/mount-utils/pkg/volume/util/subpath (doSafeOpen, doBindSubPath).
import { makeFolder } from "#platform/files.ts";
import { kindOf, realPath, writePlainFile } from "#platform/folders.ts";
import { openInside } from "#platform/open-inside.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { isMounted, unmountAll } from "./mount-points.ts";
import { VolumeError } from "./volume-error.ts";

export interface SubPathRequest {
  /** Host path of the volume. */
  readonly volume: string;
  readonly subPath: string;
  /** `<pod>/volume-subpaths/<volume>/<container>/<index>` */
  readonly place: string;
}

/** The place, with the part of the volume on it. */
export async function bindSubPath({ volume, subPath, place }: SubPathRequest, commands: Commands): Promise<string> {
  if (subPath.startsWith("/") || subPath.split("/").includes("..")) {
    throw new VolumeError(`subPath ${JSON.stringify(subPath)} must be relative and stay inside the volume`);
  }
  const root = await realPath(volume);
  // Links that are there already may point to elsewhere inside the volume, as those of config maps do.
  const existing =
    (await kindOf(`${root}/${subPath}`)) === undefined ? undefined : await realPath(`${root}/${subPath}`);
  if (existing !== undefined && existing !== root && !existing.startsWith(`${root}/`)) {
    throw new VolumeError(`subPath ${JSON.stringify(subPath)} leads out of the volume`);
  }
  const inside = existing === undefined ? subPath : existing.slice(root.length + 1);
  const opened = await openInside(root, inside.split("/").filter(Boolean), { makeFolders: existing === undefined });
  try {
    if (await isMounted(place)) await unmountAll(place, commands);
    const isFolder = (await kindOf(place)) === "folder";
    if (opened.isFolder) await makeFolder(place, 0o750);
    else if (!isFolder && (await kindOf(place)) === undefined) {
      await makeFolder(place.slice(0, place.lastIndexOf("/")), 0o750);
      await writePlainFile(place, "", 0o640);
    }
    // --no-canonicalize: the name behind the descriptor must not be looked up again.
    await runChecked(commands, "mount", ["--no-canonicalize", "--bind", opened.descriptorPath, place]);
    return place;
  } finally {
    await opened.close();
  }
}
