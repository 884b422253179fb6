// Writes a set of files so that a reader sees all of the old ones or all of the new ones: each version lies in a folder of
// its own, the link `..data` points at the current one, and the visible names are links through `..data`.
//
//   key        -> ..data/key
//   ..data     -> ..2026_01_01_00_00_00.000000007
//   ..2026_…/key
//
// Counterpart: the kubelet's AtomicWriter; programs watch `..data` to reload.
import { dirname } from "node:path";
import { AppError } from "#base/errors.ts";
import { listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import {
  changeMode,
  changeOwner,
  linkTarget,
  makeLink,
  removeFile,
  removeTree,
  renamePath,
  writePlainFile,
} from "#platform/folders.ts";

export interface PayloadFile {
  readonly data: Uint8Array;
  readonly mode: number;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
}
/** By path relative to the volume; slashes make folders. */
export type Payload = ReadonlyMap<string, PayloadFile>;

/** Makes `folder` show exactly `payload`; false when it did already. `version` names the new folder and must be new. */
export async function writeAtomically(folder: string, payload: Payload, version: string): Promise<boolean> {
  for (const path of payload.keys()) checkPath(path);
  await makeFolder(folder, 0o755);
  const current = await linkTarget(`${folder}/..data`);
  const links = (await listFolder(folder)).filter((e) => e.isSymbolicLink() && e.name !== "..data").map((e) => e.name);
  const wanted = new Set([...payload.keys()].map((path) => path.split("/")[0]!));
  const sameNames = links.length === wanted.size && links.every((name) => wanted.has(name));
  if (current && sameNames && (await sameContent(`${folder}/${current}`, payload))) return false;

  const next = `..${version}`;
  await makeFolder(`${folder}/${next}`, 0o755);
  await changeMode(`${folder}/${next}`, 0o755);
  for (const [path, file] of payload) {
    const target = `${folder}/${next}/${path}`;
    await makeFolder(dirname(target), 0o755);
    await writePlainFile(target, file.data, file.mode);
    if (file.uid !== undefined || file.gid !== undefined) await changeOwner(target, file.uid ?? 0, file.gid ?? 0);
    // A change of owner may clear mode bits.
    await changeMode(target, file.mode);
  }
  await removeFile(`${folder}/..data_tmp`);
  await makeLink(next, `${folder}/..data_tmp`);
  await renamePath(`${folder}/..data_tmp`, `${folder}/..data`);
  for (const name of wanted) {
    if (!links.includes(name)) await makeLink(`..data/${name}`, `${folder}/${name}`);
  }
  for (const name of links) if (!wanted.has(name)) await removeFile(`${folder}/${name}`);
  for (const entry of await listFolder(folder)) {
    if (entry.isDirectory() && entry.name.startsWith("..") && entry.name !== next)
      await removeTree(`${folder}/${entry.name}`);
  }
  return true;
}

function checkPath(path: string): void {
  const parts = path.split("/");
  if (
    path === "" ||
    path.startsWith("/") ||
    parts.some((p) => p === "" || p === "." || p === "..") ||
    parts[0]!.startsWith("..")
  ) {
    throw new AppError("NODE_VOLUME_PATH", `invalid path in volume: ${JSON.stringify(path)}`, { path });
  }
}

async function sameContent(folder: string, payload: Payload): Promise<boolean> {
  for (const [path, file] of payload) {
    const old = await readFileIfExists(`${folder}/${path}`);
    if (!old || Buffer.compare(old, file.data) !== 0) return false;
  }
  return (await countFiles(folder)) === payload.size;
}

async function countFiles(folder: string): Promise<number> {
  let count = 0;
  for (const entry of await listFolder(folder)) {
    count += entry.isDirectory() ? await countFiles(`${folder}/${entry.name}`) : 1;
  }
  return count;
}
