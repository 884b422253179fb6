// The licence texts of everything in an image, as one text beside it: prune rules remove them from the device, and who
// passes an image on must pass them on. Debian's copyright files with the texts they refer to, npm's packages, mote's own.
import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { unpackDebianPackage } from "#scripts/debian.ts";
import { bundledNames, imagePackages } from "./publish.ts";
import type { Target } from "./target.ts";

const line = "=".repeat(80);

/** To be called before anything is pruned. */
export async function collectLicenses(target: Target): Promise<string> {
  const texts = new Map<string, string>();
  const add = async (name: string, path: string): Promise<void> => {
    if (!texts.has(name)) texts.set(name, await fs.readFile(path, "utf8"));
  };
  for (const name of ["LICENSE", "NOTICE"]) await add(`mote: ${name}`, name);
  const unpacked = await Promise.all((await imagePackages(target)).map((p) => unpackDebianPackage(p)));
  for (const folder of [...["root", "kernel", "loaders"].map((name) => join(target.workFolder, name)), ...unpacked]) {
    for (const name of await namesIn(join(folder, "usr/share/doc"))) {
      const path = join(folder, "usr/share/doc", name, "copyright");
      // Packages of one source point at each other's folder; the one that is pointed at is in the list itself.
      if (existsSync(path)) await add(`Debian package ${name}`, path);
    }
    for (const name of await namesIn(join(folder, "usr/share/common-licenses"))) {
      await add(`common licence ${name}`, join(folder, "usr/share/common-licenses", name));
    }
  }
  for (const name of await bundledNames()) {
    const folder = join("node_modules", name);
    const [file] = (await namesIn(folder)).filter((n) => /^licen[cs]e/i.test(n));
    if (file) await add(`npm package ${name}`, join(folder, file));
    else await add(`npm package ${name} (it brings no text of its licence)`, join(folder, "package.json"));
  }
  return [...texts].map(([name, text]) => `${line}\n${name}\n${line}\n\n${text.trimEnd()}\n\n`).join("");
}

async function namesIn(folder: string): Promise<string[]> {
  return existsSync(folder) ? (await fs.readdir(folder)).sort() : [];
}
