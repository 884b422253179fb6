// The root file system as a folder: locked packages unpacked, what a device does not need removed, the overlay of
// rootfs/overlay and mote laid over it, and everything done that maintainer scripts would have done. No program of the
// packages runs, so any architecture is built on any host. Invariant: every program that is left finds its libraries.
import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { applianceLauncher } from "#scripts/build/bundle.ts";
import { busyboxApplets } from "#scripts/build/images.ts";
import { fetchDebianPackages } from "#scripts/debian.ts";
import { run } from "#scripts/run-command.ts";
import { elfNeeds } from "./elf.ts";
import { debianOptions, type LockedGroups } from "./lock.ts";
import { type ModuleIndex, type ModuleRules, moduleFilter, moduleName, parseModules } from "./modules.ts";
import { shrinkRoot } from "./shrink.ts";
import type { Target } from "./target.ts";
import type { Tools } from "./tools.ts";

export interface Kernel {
  readonly version: string;
  readonly image: string;
  /** Folder with `<vendor>/*.dtb`, if this kernel has device trees. */
  readonly deviceTrees: string | undefined;
  /** `usr/lib/modules/<version>` with every module of the package. */
  readonly modulesFolder: string;
  readonly modules: ModuleIndex;
}

interface Prune {
  /** Expressions over device paths. */
  readonly remove: readonly string[];
  /** What stays in the folders of programs; busybox takes the place of much that goes. */
  readonly programs: readonly string[];
  /** Beginnings of names of libraries that are loaded by name at run time, so that no program asks for them. */
  readonly libraries: readonly string[];
  readonly kernelModules: ModuleRules;
}

/** Folders of programs that look for their libraries where the loader does. */
const programFolders = ["usr/bin", "usr/sbin", "usr/lib/cni"];
const mountPoints = ["boot", "data", "dev", "proc", "run", "sys", "tmp", "var"];
/** Device paths whose mode is not 0644 or 0755. */
const modes: Readonly<Record<string, number>> = { "etc/shadow": 0o640, root: 0o700, tmp: 0o1777 };
const links: readonly (readonly [string, string])[] = [
  ["bin", "usr/bin"],
  ["sbin", "usr/sbin"],
  ["lib", "usr/lib"],
  ["usr/bin/mote", "../lib/mote/mote"],
  ["usr/sbin/init", "../bin/busybox"],
  ["etc/mtab", "/proc/self/mounts"],
  ["usr/sbin/iptables", "xtables-nft-multi"],
  ["usr/sbin/iptables-save", "xtables-nft-multi"],
  ["usr/sbin/iptables-restore", "xtables-nft-multi"],
  ["usr/sbin/ip6tables", "xtables-nft-multi"],
  ["usr/sbin/ip6tables-save", "xtables-nft-multi"],
  ["usr/sbin/ip6tables-restore", "xtables-nft-multi"],
];

export async function unpackPackages(target: Target, locked: LockedGroups): Promise<string> {
  await fs.rm(target.workFolder, { recursive: true, force: true });
  const groups = { root: locked.root, kernel: locked.kernel, loaders: locked.boot };
  let count = 0;
  for (const [folder, packages] of Object.entries(groups)) {
    const into = join(target.workFolder, folder);
    await fs.mkdir(into, { recursive: true });
    const files = await fetchDebianPackages(packages, target.arch, debianOptions);
    for (const file of files) await run("dpkg-deb", ["-x", file, into]);
    count += files.length;
  }
  return `${count} packages`;
}

export async function prepareKernel(target: Target, tools: Tools): Promise<Kernel> {
  const folder = join(target.workFolder, "kernel");
  const [version] = await fs.readdir(join(folder, "usr/lib/modules"));
  if (version === undefined) throw new Error("the kernel package has no modules");
  if (!existsSync(join(folder, "lib"))) await fs.symlink("usr/lib", join(folder, "lib"));
  await tools.run("depmod", ["-b", folder, version]);
  const modulesFolder = join(folder, "usr/lib/modules", version);
  // Kernels before 7 are in /boot, later ones with their modules.
  const places = [join(folder, "boot", `vmlinuz-${version}`), join(modulesFolder, "vmlinuz")];
  const trees = [join(folder, "usr/lib", `linux-image-${version}`), join(modulesFolder, "dtb")];
  const image = places.find(existsSync);
  if (!image) throw new Error(`no kernel image at ${places.join(" or ")}`);
  return {
    version,
    image,
    deviceTrees: trees.find(existsSync),
    modulesFolder,
    modules: parseModules(
      await fs.readFile(join(modulesFolder, "modules.dep"), "utf8"),
      await fs.readFile(join(modulesFolder, "modules.builtin"), "utf8"),
    ),
  };
}

export async function finishRoot(target: Target, kernel: Kernel, tools: Tools, distFolder: string): Promise<string> {
  const root = join(target.workFolder, "root");
  const prune = JSON.parse(await fs.readFile(join("rootfs", "prune.json"), "utf8")) as Prune;
  const busybox = await fs.readFile(join(root, "usr/bin/busybox"));
  await writeCertificates(root);
  const removed =
    (await pruneRoot(root, prune.remove)) +
    (await prunePrograms(root, prune.programs)) +
    (await pruneLibraries(root, prune));
  for (const folder of [...mountPoints, "root"]) await fs.mkdir(join(root, folder), { recursive: true });
  for (const [path, to] of links) await link(join(root, path), to);
  for (const name of ["regulatory.db", "regulatory.db.p7s"]) {
    // An alternative like the ones above, on boards with Wi-Fi only.
    const path = join(root, "usr/lib/firmware", name);
    if (existsSync(`${path}-debian`)) await link(path, `${name}-debian`);
  }
  for (const applet of busyboxApplets(busybox)) {
    // Debian's own programs win; busybox fills the gaps.
    if (programFolders.some((folder) => existsSync(join(root, folder, applet)))) continue;
    await link(join(root, "usr/bin", applet), "busybox");
  }
  await copyTree(join("rootfs", "overlay"), root);
  const mote = join(root, "usr/lib/mote");
  await fs.rm(mote, { recursive: true, force: true });
  await copyTree(distFolder, mote, (path) => {
    if (path.startsWith("images/")) return path.endsWith(`-${target.architecture.oci}.tar`);
    return !/\.(map|txt)$/.test(path);
  });
  // Not on the PATH: Node is a part of mote here, and no tool for whoever gets to run programs.
  await fs.rename(join(root, "usr/bin/node"), join(mote, "node"));
  await fs.writeFile(join(mote, "mote"), applianceLauncher, { mode: 0o755 });
  const saved = await shrinkRoot(
    await libraryFolderOf(root),
    programFolders.map((folder) => join(root, folder)),
  );
  const modules = await copyModules(root, kernel, moduleFilter(prune.kernelModules, target.board));
  await tools.run("depmod", ["-b", root, kernel.version]);
  for (const [path, mode] of Object.entries(modes)) {
    if (existsSync(join(root, path))) await fs.chmod(join(root, path), mode);
  }
  const lacking = await lackingLibraries(root);
  if (lacking.length > 0) throw new Error(`pruned too much: ${lacking.join("; ")}`);
  return `${removed} paths removed, ${modules} kernel modules kept, ${Math.round(saved / 1024 / 1024)} MiB cut out of files`;
}

/** Every path below `folder`, folders before what is in them, sorted. */
export async function listTree(folder: string, below = ""): Promise<string[]> {
  const paths: string[] = [];
  const entries = await fs.readdir(join(folder, below), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(below, entry.name);
    paths.push(path);
    if (entry.isDirectory()) paths.push(...(await listTree(folder, path)));
  }
  return paths;
}

/** What `ca-certificates`' trigger would have made; a program that knows no such bundle trusts nobody. */
async function writeCertificates(root: string): Promise<void> {
  const from = join(root, "usr/share/ca-certificates");
  const names = (await listTree(from)).filter((path) => path.endsWith(".crt"));
  const parts = await Promise.all(names.map((name) => fs.readFile(join(from, name), "utf8")));
  await fs.mkdir(join(root, "etc/ssl/certs"), { recursive: true });
  await fs.writeFile(join(root, "etc/ssl/certs/ca-certificates.crt"), parts.map((p) => `${p.trimEnd()}\n`).join(""));
  await fs.rm(from, { recursive: true });
}

async function pruneRoot(root: string, patterns: readonly string[]): Promise<number> {
  const expressions = patterns.map((pattern) => new RegExp(pattern));
  let removed = 0;
  for (const path of await listTree(root)) {
    if (!expressions.some((expression) => expression.test(path))) continue;
    await fs.rm(join(root, path), { recursive: true, force: true });
    removed++;
  }
  return removed;
}

async function prunePrograms(root: string, kept: readonly string[]): Promise<number> {
  let removed = 0;
  for (const folder of ["usr/bin", "usr/sbin"]) {
    for (const name of await fs.readdir(join(root, folder))) {
      if (kept.includes(name)) continue;
      await fs.rm(join(root, folder, name), { recursive: true });
      removed++;
    }
  }
  return removed;
}

/** Removes the libraries that no program asks for, directly or through others. */
async function pruneLibraries(root: string, prune: Prune): Promise<number> {
  const folder = await libraryFolderOf(root);
  const wanted = new Set<string>();
  const follow = async (path: string): Promise<void> => {
    for (const library of elfNeeds(await fs.readFile(path))?.libraries ?? []) {
      if (wanted.has(library) || !existsSync(join(folder, library))) continue;
      wanted.add(library);
      await follow(join(folder, library));
    }
  };
  const names = await fs.readdir(folder);
  const byName = names.filter((name) => prune.libraries.some((start) => name.startsWith(start)));
  for (const name of [...byName, ...names.filter((n) => n.startsWith("ld-linux"))]) {
    wanted.add(name);
    await follow(join(folder, name));
  }
  // Extensions of nftables' iptables face are loaded by name, too.
  for (const programs of [...programFolders, relative(root, join(folder, "xtables"))]) {
    for (const entry of await fs.readdir(join(root, programs), { withFileTypes: true })) {
      if (entry.isFile()) await follow(join(root, programs, entry.name));
    }
  }
  // A name that is wanted is often a link; what it names stays with it.
  const files = new Set<string>();
  for (const name of wanted) files.add(relative(folder, await fs.realpath(join(folder, name))));
  let removed = 0;
  for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory() || wanted.has(entry.name) || files.has(entry.name)) continue;
    await fs.rm(join(folder, entry.name));
    removed++;
  }
  return removed;
}

async function link(path: string, to: string): Promise<void> {
  const isLink = await fs.readlink(path).then(
    (at) => at === to,
    () => false,
  );
  if (isLink) return;
  await fs.mkdir(dirname(path), { recursive: true });
  await fs.rm(path, { force: true });
  await fs.symlink(to, path);
}

/** Files get 0755 or 0644, whatever the umask of the checkout was. */
async function copyTree(from: string, to: string, wanted: (path: string) => boolean = () => true): Promise<void> {
  await fs.mkdir(to, { recursive: true });
  for (const path of await listTree(from)) {
    const stat = await fs.lstat(join(from, path));
    if (stat.isDirectory()) {
      await fs.mkdir(join(to, path), { recursive: true });
    } else if (wanted(path)) {
      await fs.copyFile(join(from, path), join(to, path));
      await fs.chmod(join(to, path), stat.mode & 0o100 ? 0o755 : 0o644);
    }
  }
}

async function copyModules(root: string, kernel: Kernel, isKept: (path: string) => boolean): Promise<number> {
  const kept = new Set<string>();
  for (const [path, needs] of kernel.modules.needs) {
    if (!isKept(path)) continue;
    kept.add(path);
    // What a kept module needs stays too, wherever it lies.
    for (const need of needs) kept.add(need);
  }
  const into = join(root, "usr/lib/modules", kernel.version);
  for (const path of [...kept, "modules.builtin", "modules.builtin.modinfo", "modules.order"]) {
    await fs.mkdir(dirname(join(into, path)), { recursive: true });
    await fs.copyFile(join(kernel.modulesFolder, path), join(into, path));
  }
  const known = new Set([...kept].map(moduleName));
  const order = await fs.readFile(join(into, "modules.order"), "utf8");
  const left = order.split("\n").filter((line) => known.has(moduleName(line)));
  await fs.writeFile(join(into, "modules.order"), `${left.join("\n")}\n`);
  return kept.size;
}

async function lackingLibraries(root: string): Promise<string[]> {
  const libraryFolder = await libraryFolderOf(root);
  const lacking: string[] = [];
  for (const folder of [...programFolders, "usr/lib/mote", relative(root, libraryFolder)]) {
    for (const entry of await fs.readdir(join(root, folder), { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const needs = elfNeeds(await fs.readFile(join(root, folder, entry.name)));
      for (const library of needs?.libraries ?? []) {
        const places = [libraryFolder, join(root, "usr/lib"), join(libraryFolder, "systemd")];
        if (!places.some((place) => existsSync(join(place, library)))) {
          lacking.push(`${folder}/${entry.name} needs ${library}`);
        }
      }
    }
  }
  return lacking;
}

/** `usr/lib/<triplet>`. */
export async function libraryFolderOf(root: string): Promise<string> {
  const names = await fs.readdir(join(root, "usr/lib"));
  const triplet = names.find((name) => /-linux-gnu(eabihf)?$/.test(name));
  if (!triplet) throw new Error("the root has no library folder");
  return join(root, "usr/lib", triplet);
}
