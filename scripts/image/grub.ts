// GRUB as bytes: one EFI program per platform, or boot sector and core for the BIOS, patched to find each other without
// running an installer. The script they all run, firmware/boot/grub.cfg, is inside them, in an archive that GRUB sees as
// a disk in memory: a damaged FAT file system or a curious editor cannot take the choice of the slot away.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tarArchive } from "#scripts/build/oci/tar.ts";
import { bootCodeBytes } from "#wire/gpt.ts";
import type { Target } from "./target.ts";
import type { Tools } from "./tools.ts";

const modules =
  "part_gpt part_msdos fat normal configfile loadenv test regexp search search_label linux echo reboot sleep ls cat halt true probe memdisk tar".split(
    " ",
  );
const sectorBytes = 512;
/** Run before anything else, without `if`: the root stays the partition GRUB came from, or the first of its disk. */
const earlyScript = "set prefix=(memdisk)/grub\n";

export interface BiosLoader {
  /** For the start of LBA 0. */
  readonly bootCode: Uint8Array;
  /** For the BIOS boot partition. */
  readonly core: Uint8Array;
}

export async function buildEfiLoader(target: Target, tools: Tools, platform: string): Promise<Uint8Array> {
  return makeImage(target, tools, platform, "/grub", modules);
}

export async function buildBiosLoader(target: Target, tools: Tools, coreLba: number): Promise<BiosLoader> {
  const core = await makeImage(target, tools, "i386-pc", "(,gpt1)/grub", [...modules, "biosdisk"]);
  const boot = await readFile(join(target.workFolder, "loaders/usr/lib/grub/i386-pc/boot.img"));
  return patchBiosLoader(boot, core, coreLba);
}

/** Tells the boot sector where the core is, and the core's first sector where its rest is. */
export function patchBiosLoader(boot: Uint8Array, image: Uint8Array, coreLba: number): BiosLoader {
  const bootCode = Buffer.from(boot.subarray(0, bootCodeBytes));
  bootCode.writeBigUInt64LE(BigInt(coreLba), 0x5c);
  // Two no-ops for a jump that is only right on floppy disks: keep the drive number the BIOS gave.
  bootCode.set([0x90, 0x90], 0x66);
  const core = Buffer.alloc(Math.ceil(image.length / sectorBytes) * sectorBytes);
  core.set(image);
  core.writeBigUInt64LE(BigInt(coreLba + 1), 0x1f4);
  core.writeUInt16LE(core.length / sectorBytes - 1, 0x1fc);
  core.writeUInt16LE(0x0820, 0x1fe);
  return { bootCode, core };
}

async function makeImage(
  target: Target,
  tools: Tools,
  platform: string,
  prefix: string,
  names: readonly string[],
): Promise<Buffer> {
  const folder = join(target.workFolder, "loaders/usr/lib/grub", platform);
  // Only x86 has processor updates, and asks whose machine it is before it reads them.
  if (/^(x86_64|i386)-/.test(platform)) names = [...names, "smbios"];
  const output = join(target.workFolder, `grub-${platform}.img`);
  await mkdir(target.workFolder, { recursive: true });
  const memdisk = `${output}.tar`;
  const early = `${output}.cfg`;
  const script = await readFile(join("firmware", "boot", "grub.cfg"));
  await writeFile(
    memdisk,
    tarArchive([{ path: "grub/grub.cfg", type: "file", mode: 0o644, data: script }], { sorted: true }),
  );
  await writeFile(early, earlyScript);
  // A memdisk implies a prefix; the one after it counts.
  const options = ["-O", platform, "-m", memdisk, "-p", prefix, "-c", early, "-d", folder, "-o", output];
  await tools.run("grub-mkimage", [...options, ...names]);
  return readFile(output);
}
