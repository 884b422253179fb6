// Which Debian packages an image is made of: rootfs/packages.json names what is wanted, rootfs/*.lock.json what that
// comes to, with versions and hashes. Images are built from the lock alone; `npm run image:lock` moves it to what the
// archive holds today. Host tools (squashfs, GRUB's image maker, compressors) are locked too: bytes depend on them.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Architecture } from "#build.config.ts";
import { type DebianPackage, resolveDebianClosure } from "#scripts/debian.ts";
import { main, runStages, UserError } from "#scripts/stages.ts";

export type Arch = Architecture["debian"];

/** What a package is used for: unpacked into the root, read for the kernel, or read for boot loaders and firmware. */
export type Group = "root" | "kernel" | "boot";

export interface LockedGroups {
  readonly root: readonly DebianPackage[];
  readonly kernel: readonly DebianPackage[];
  readonly boot: readonly DebianPackage[];
}

export interface ImageLock extends LockedGroups {
  readonly boards?: Readonly<Record<string, LockedGroups>>;
}

interface Wanted {
  readonly root: readonly string[];
  readonly kernel: readonly string[];
  readonly boot: readonly string[];
}

interface PackageList {
  readonly root: readonly string[];
  readonly architectures: Readonly<Record<Arch, Wanted & { readonly boards?: Readonly<Record<string, Wanted>> }>>;
  readonly tools: readonly string[];
}

export const debianOptions = { folder: join(process.cwd(), "build", "debian"), areas: "all" } as const;

/** The machine images are built on; foreign architectures need no emulation because nothing of theirs is run. */
export const toolsArch: Arch = "amd64";

export const lockPath = (arch: Arch): string => join("rootfs", `packages.${arch}.lock.json`);
const toolsLockPath = join("rootfs", "tools.lock.json");

export async function readImageLock(arch: Arch, board: string): Promise<LockedGroups> {
  const lock = parseLock(await readFile(lockPath(arch), "utf8"), lockPath(arch));
  if (board === "generic") return lock;
  const groups = lock.boards?.[board];
  if (!groups) throw new UserError(`${lockPath(arch)} knows no board ${board}`);
  return groups;
}

export async function readToolsLock(): Promise<readonly DebianPackage[]> {
  const { tools } = JSON.parse(await readFile(toolsLockPath, "utf8")) as { tools: unknown };
  return parsePackages(tools, `${toolsLockPath}: tools`);
}

/** Throws a UserError that names the file and the place when the text is not a lock. */
export function parseLock(text: string, path: string): ImageLock {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${path}: not JSON: ${(error as Error).message}`);
  }
  const { boards } = value as { boards?: Record<string, unknown> };
  return {
    ...parseGroups(value, path),
    ...(boards
      ? { boards: Object.fromEntries(Object.entries(boards).map(([k, v]) => [k, parseGroups(v, `${path}: ${k}`)])) }
      : {}),
  };
}

function parseGroups(value: unknown, where: string): LockedGroups {
  const groups = value as Record<Group, unknown>;
  return {
    root: parsePackages(groups.root, `${where}: root`),
    kernel: parsePackages(groups.kernel, `${where}: kernel`),
    boot: parsePackages(groups.boot, `${where}: boot`),
  };
}

function parsePackages(value: unknown, where: string): readonly DebianPackage[] {
  if (!Array.isArray(value) || value.length === 0) throw new UserError(`${where}: a list of packages is expected`);
  for (const p of value as Partial<DebianPackage>[]) {
    const isGood =
      /^[a-z0-9][a-z0-9+.-]+$/.test(p.name ?? "") &&
      /^[0-9][A-Za-z0-9.+:~-]*$/.test(p.version ?? "") &&
      /^(all|amd64|arm64|armhf)$/.test(p.arch ?? "") &&
      /^[0-9a-f]{64}$/.test(p.sha256 ?? "");
    if (!isGood) throw new UserError(`${where}: ${JSON.stringify(p)} lacks a name, version, arch or sha256`);
  }
  return value as DebianPackage[];
}

/** Kernel meta packages depend on tools that build an initramfs on the device; only what holds the kernel counts. */
export const isKernelPackage = (p: DebianPackage): boolean => /^linux-(image|binary|modules|base)-\d/.test(p.name);

async function resolve(wanted: Wanted, common: readonly string[], arch: Arch): Promise<LockedGroups> {
  const bare = (name: string): string => name.split("/")[0]!;
  const boot = await resolveDebianClosure(wanted.boot, arch, debianOptions);
  const kernel = await resolveDebianClosure(wanted.kernel, arch, debianOptions);
  return {
    root: await resolveDebianClosure([...common, ...wanted.root], arch, debianOptions),
    kernel: kernel.filter(isKernelPackage),
    // Loaders and firmware are read as data: what they depend on is not needed.
    boot: boot.filter((p) => wanted.boot.some((name) => bare(name) === p.name)),
  };
}

async function writeLocks(archs: readonly Arch[]): Promise<void> {
  const list = JSON.parse(await readFile(join("rootfs", "packages.json"), "utf8")) as PackageList;
  await mkdir("rootfs", { recursive: true });
  await runStages([
    ...archs.map((arch) => ({
      name: `packages for ${arch}`,
      run: async () => {
        const { boards, ...wanted } = list.architectures[arch];
        const lock: ImageLock = {
          ...(await resolve(wanted, list.root, arch)),
          ...(boards
            ? {
                boards: Object.fromEntries(
                  await Promise.all(
                    Object.entries(boards).map(
                      async ([board, w]) => [board, await resolve(w, list.root, arch)] as const,
                    ),
                  ),
                ),
              }
            : {}),
        };
        await writeFile(lockPath(arch), lockText(lock));
        return `${lock.root.length + lock.kernel.length + lock.boot.length} packages`;
      },
    })),
    {
      name: "host tools",
      run: async () => {
        const tools = await resolveDebianClosure(list.tools, toolsArch, debianOptions);
        await writeFile(toolsLockPath, lockText({ tools }));
        return `${tools.length} packages`;
      },
    },
  ]);
}

/** JSON with one package a line, so that a moved lock reads well in a diff. */
export function lockText(value: unknown): string {
  const lines = JSON.stringify(value, null, 2).replace(/\{\s+("name"[^}]+?)\s+\}/g, (_, body: string) => {
    return `{ ${body.replace(/\s*\n\s*/g, " ")} }`;
  });
  return `${lines}\n`;
}

if (process.argv[1]?.endsWith("scripts__image__lock.mjs")) {
  const known: readonly Arch[] = ["amd64", "arm64", "armhf"];
  const asked = process.argv.slice(2).filter((a) => a !== "--arch") as Arch[];
  await main(async () => {
    const unknown = asked.find((a) => !known.includes(a));
    if (unknown) throw new UserError(`unknown architecture ${unknown}; one of ${known.join(", ")}`);
    await writeLocks(asked.length > 0 ? asked : known);
  });
}
