// The initramfs: busybox, dmsetup with its libraries, the drivers that lead to the root partition, and the script
// firmware/initramfs/init. Modules are stored unpacked because busybox's insmod cannot unpack them.
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { busyboxApplets } from "#scripts/build/images.ts";
import { type CpioEntry, encodeCpio } from "./cpio.ts";
import { elfNeeds } from "./elf.ts";
import { moduleName, resolveModules } from "./modules.ts";
import { type Kernel, libraryFolderOf } from "./root.ts";
import type { Target } from "./target.ts";
import type { Tools } from "./tools.ts";

export async function buildInitramfs(target: Target, kernel: Kernel, tools: Tools, level: number): Promise<Buffer> {
  const root = join(target.workFolder, "root");
  const busybox = await readFile(join(root, "usr/bin/busybox"));
  const entries: CpioEntry[] = [
    ...["dev", "etc", "lib/modules", "proc", "root", "sys"].map((path) => folder(path)),
    { path: "dev/console", kind: "character-device", mode: 0o600, device: { major: 5, minor: 1 } },
    file("init", await readFile(join("firmware", "initramfs", "init")), 0o755),
    file("watchdog.sh", await readFile(join("firmware", "initramfs", "watchdog.sh")), 0o644),
    file("bin/busybox", busybox, 0o755),
    ...busyboxApplets(busybox)
      .filter((name) => name !== "busybox")
      .map((name) => link(`bin/${name}`, "busybox")),
    ...(await programWithLibraries(root, "usr/sbin/dmsetup", "bin/dmsetup")),
  ];
  const nameOf = (path: string) => `${moduleName(path)}.ko`;
  const watchdogs = resolveModules(kernel.modules, await watchdogModules());
  const drivers = resolveModules(kernel.modules, target.initramfsModules).filter((path) => !watchdogs.includes(path));
  for (const path of [...watchdogs, ...drivers]) {
    const bytes = await readFile(join(kernel.modulesFolder, path));
    entries.push(
      file(
        `lib/modules/${nameOf(path)}`,
        path.endsWith(".xz") ? await tools.filter("xz", ["-dc"], bytes) : bytes,
        0o644,
      ),
    );
  }
  const listOf = (paths: readonly string[]) => Buffer.from(paths.map((path) => `${nameOf(path)}\n`).join(""));
  entries.push(file("etc/modules", listOf(drivers), 0o644));
  entries.push(file("etc/watchdogs", listOf(watchdogs), 0o644));
  const archive = encodeCpio(entries, target.epochSeconds);
  return tools.filter("zstd", ["-q", "-c", "--single-thread", `-${level}`], archive);
}

/** Any board's; those of other processors are missing in the kernel. */
const watchdogModules = async (): Promise<string[]> =>
  (await readFile(join("firmware", "initramfs", "watchdogs"), "utf8")).split("\n").filter(Boolean);

/**
 * Processor updates, which the kernel only takes before anything else: an archive that stays uncompressed and is handed
 * over in front of the initramfs. Undefined where the packages bring none.
 */
export async function buildMicrocode(target: Target): Promise<Uint8Array | undefined> {
  const firmware = join(target.workFolder, "loaders/usr/lib/firmware");
  const vendors = [
    { from: "intel-ucode", pattern: /^[0-9a-f-]+$/, to: "GenuineIntel.bin" },
    { from: "amd-ucode", pattern: /^microcode_amd.*\.bin$/, to: "AuthenticAMD.bin" },
  ];
  const entries: CpioEntry[] = [];
  for (const { from, pattern, to } of vendors) {
    if (!existsSync(join(firmware, from))) continue;
    const names = (await readdir(join(firmware, from))).filter((name) => pattern.test(name)).sort();
    const parts = await Promise.all(names.map((name) => readFile(join(firmware, from, name))));
    entries.push(file(`kernel/x86/microcode/${to}`, Buffer.concat(parts), 0o644));
  }
  return entries.length > 0 ? encodeCpio(entries, target.epochSeconds) : undefined;
}

async function programWithLibraries(root: string, from: string, to: string): Promise<CpioEntry[]> {
  const folderOfLibraries = await libraryFolderOf(root);
  const program = await readFile(join(root, from));
  const entries = new Map<string, CpioEntry>([[to, file(to, program, 0o755)]]);
  const add = async (bytes: Uint8Array): Promise<void> => {
    const needs = elfNeeds(bytes);
    for (const library of needs?.libraries ?? []) {
      const path = `lib/${library}`;
      if (entries.has(path)) continue;
      const found = join(folderOfLibraries, library);
      if (!existsSync(found)) throw new Error(`${from} needs ${library}, which the root lacks`);
      const content = await readFile(found);
      // The loader looks into /lib before anything else that it has not been told.
      entries.set(path, file(path, content, 0o755));
      await add(content);
    }
    const loader = needs?.interpreter?.slice(1);
    if (loader && !entries.has(loader)) {
      entries.set(loader, file(loader, await readFile(join(folderOfLibraries, loader.replace(/^.*\//, ""))), 0o755));
    }
  };
  await add(program);
  return [...entries.values()];
}

const file = (path: string, data: Uint8Array, mode: number): CpioEntry => ({ path, kind: "file", mode, data });
const folder = (path: string): CpioEntry => ({ path, kind: "folder", mode: 0o755 });
const link = (path: string, to: string): CpioEntry => ({ path, kind: "link", mode: 0o777, data: Buffer.from(to) });
