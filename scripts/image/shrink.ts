// Bytes inside files of the root that a device never reads: languages in ICU's data, names that Go programs offer to
// nobody. Prune rules remove whole files; this rewrites some. Invariant: a program behaves as before, but for Intl in
// other languages than English.
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { withoutExports } from "./elf.ts";
import { trimIcuLibrary } from "./icu.ts";

/** Number of bytes that were cut out or zeroed. */
export async function shrinkRoot(libraryFolder: string, programFolders: readonly string[]): Promise<number> {
  let saved = await trimIcu(libraryFolder);
  for (const folder of programFolders) {
    for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(folder, entry.name);
      const before = await fs.readFile(path);
      const after = withoutExports(before);
      if (!after) continue;
      // In place, so that the mode stays.
      await fs.writeFile(path, after.bytes);
      saved += after.zeroedBytes;
    }
  }
  return saved;
}

/** Cuts the `libicudata.so.N` of a folder down to the items that rootfs/icu.json names. */
export async function trimIcu(libraryFolder: string): Promise<number> {
  const { keep } = JSON.parse(await fs.readFile(join("rootfs", "icu.json"), "utf8")) as { keep: readonly string[] };
  const soname = (await fs.readdir(libraryFolder)).find((name) => /^libicudata\.so\.\d+$/.test(name));
  if (!soname) throw new Error("the root has no libicudata");
  const path = await fs.realpath(join(libraryFolder, soname));
  const before = await fs.readFile(path);
  const after = trimIcuLibrary(before, soname, keep);
  await fs.writeFile(path, after);
  return before.length - after.length;
}
