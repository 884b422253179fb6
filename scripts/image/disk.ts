// The whole disk: partition table, boot partitions, root with its hash tree, each at its place of
// firmware/layout/partitions.json. Written as a sparse file; the list of extents that had to be written is kept, because
// a flashing tool that skips the rest must still write the zeros a reader relies on.
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { encodeMarker, markerOffset } from "#appliance/data-marker.ts";
import { encodeGpt, type GptDisk, type GptPartition } from "#wire/gpt.ts";
import { encodeGrubenv } from "#wire/grubenv.ts";
import { buildFat, type FatFile } from "./fat.ts";
import { buildBiosLoader, buildEfiLoader } from "./grub.ts";
import { buildMicrocode } from "./initramfs.ts";
import { type Kernel, listTree } from "./root.ts";
import { derivedGuid, derivedHash, type Target } from "./target.ts";
import type { Tools } from "./tools.ts";
import { buildVerityTree } from "./verity.ts";

export interface DiskInput {
  readonly squashfs: string;
  readonly initramfs: Uint8Array;
  readonly kernel: Kernel;
}

export interface BuiltDisk {
  readonly sizeBytes: number;
  readonly extents: readonly { readonly offset: number; readonly length: number }[];
  /** For the report. */
  readonly parts: Readonly<Record<string, number>>;
  readonly rootHash: string;
  /** What the FAT partitions hold, as `<partition>/<path>`. */
  readonly files: readonly FatFile[];
}

interface LayoutFile {
  readonly sectorBytes: number;
  readonly alignMiB: number;
  readonly partitions: readonly {
    readonly number: number;
    readonly name: string;
    readonly type: string;
    readonly sizeMiB: number;
  }[];
}

const mib = 1024 * 1024;
const fat32Lba = 0x0c;
const copyBytes = 4 * mib;
/** The marker's sector, on media with sectors of any size. */
const markerPlaceBytes = 4096;
/** Zeroed at the start of partitions that ship empty, so that no old file system is found there. */
const wipedBytes = mib;

export async function readLayout(target: Target): Promise<GptDisk> {
  const layout = JSON.parse(await fs.readFile(join("firmware", "layout", "partitions.json"), "utf8")) as LayoutFile;
  return layOut(layout, target);
}

/** Partitions in the order of the file, each at the next aligned place. */
export function layOut(layout: LayoutFile, target: Target): GptDisk {
  const perMiB = mib / layout.sectorBytes;
  const align = layout.alignMiB * perMiB;
  let at = align;
  const partitions = layout.partitions.map(({ number, name, type, sizeMiB }): GptPartition => {
    const firstLba = Math.ceil(at / align) * align;
    at = firstLba + sizeMiB * perMiB;
    return { number, name, typeGuid: type, guid: derivedGuid(target, `partition ${name}`), firstLba, lastLba: at - 1 };
  });
  return {
    guid: derivedGuid(target, "disk"),
    sectorBytes: layout.sectorBytes,
    sectors: at + align,
    partitions,
    hybrid: target.hybridMbr ? [{ number: 1, type: fat32Lba, isActive: true }] : [],
  };
}

export async function buildDisk(target: Target, input: DiskInput, tools: Tools, output: string): Promise<BuiltDisk> {
  const layout = await readLayout(target);
  const bytesAt = (lba: number): number => lba * layout.sectorBytes;
  const partition = (name: string): GptPartition => layout.partitions.find((p) => p.name === name)!;
  const sizeOf = (p: GptPartition): number => bytesAt(p.lastLba - p.firstLba + 1);
  const extents: { offset: number; length: number }[] = [];
  const parts: Record<string, number> = {};
  const disk = await fs.open(output, "w");
  const root = await fs.open(input.squashfs, "r");
  try {
    await disk.truncate(bytesAt(layout.sectors));
    const write = async (offset: number, data: Uint8Array): Promise<void> => {
      await disk.write(data, 0, data.length, offset);
      extents.push({ offset, length: data.length });
    };
    const gpt = encodeGpt(layout);
    const mbr = Buffer.from(gpt.primary);

    const rootBytes = (await root.stat()).size;
    const verity = await buildVerityTree(root, rootBytes, derivedHash(target, "verity"));
    const system = partition("root-a");
    if (rootBytes + verity.tree.length > sizeOf(system)) throw new Error("the root does not fit its partition");
    await copy(root, rootBytes, disk, bytesAt(system.firstLba));
    extents.push({ offset: bytesAt(system.firstLba), length: rootBytes });
    await write(bytesAt(system.firstLba) + rootBytes, verity.tree);
    parts["root squashfs"] = rootBytes;
    parts["verity tree"] = verity.tree.length;

    const inFat: FatFile[] = [];
    const fatOf = async (p: GptPartition, label: string, files: readonly FatFile[]): Promise<void> => {
      const volume = buildFat(files, {
        sizeBytes: sizeOf(p),
        label,
        volumeId: Number.parseInt(derivedHash(target, `volume ${p.name}`).slice(0, 8), 16),
        mtimeSeconds: target.epochSeconds,
        hiddenSectors: p.firstLba,
      });
      inFat.push(...files.map(({ path, data }) => ({ path: `${p.name}/${path}`, data })));
      for (const { offset, data } of volume) await write(bytesAt(p.firstLba) + offset, data);
    };
    const image = await fs.readFile(input.kernel.image);
    parts["kernel"] = image.length;
    parts["initramfs"] = input.initramfs.length;
    const microcode = await buildMicrocode(target);
    if (microcode) parts["microcode"] = microcode.length;
    await fatOf(partition("boot-a"), "BOOT-A", [
      ...(microcode ? [{ path: "microcode", data: microcode }] : []),
      { path: "vmlinuz", data: image },
      { path: "initrd", data: input.initramfs },
      { path: "slot.cfg", data: Buffer.from(slotConfig(target, verity)) },
    ]);

    const boot = await bootFiles(target, input.kernel, tools);
    parts["loaders and firmware"] = boot.reduce((sum, f) => sum + f.data.length, 0);
    await fatOf(partition("BOOT"), "BOOT", boot);
    if (target.loaders.some((l) => l.path === undefined)) {
      const bios = await buildBiosLoader(target, tools, partition("bios").firstLba);
      mbr.set(bios.bootCode);
      await write(bytesAt(partition("bios").firstLba), bios.core);
    }
    // Whatever an earlier life of the medium left behind the first MiB of data: the device makes it anew.
    await write(markerOffset, Buffer.concat([encodeMarker({ kind: "fresh" })], markerPlaceBytes));
    for (const name of ["boot-b", "root-b", "data"]) {
      await write(bytesAt(partition(name).firstLba), new Uint8Array(wipedBytes));
    }
    await write(0, mbr);
    await write(bytesAt(gpt.backupLba), gpt.backup);
    return {
      sizeBytes: bytesAt(layout.sectors),
      extents: extents.sort((a, b) => a.offset - b.offset),
      parts,
      rootHash: verity.rootHash,
      files: inFat,
    };
  } finally {
    await root.close();
    await disk.close();
  }
}

/** Belongs to one kernel and one root: they change together. */
function slotConfig(target: Target, verity: { rootHash: string; dataBlocks: number; salt: string }): string {
  const args = [
    ...target.consoles.map((name) => `console=${name}`),
    "quiet",
    "panic=5",
    // Reads the table at the end of the medium where the first was torn while the data partition grew.
    "gpt",
    // Debian's kernels give pages of 2 MiB to whoever asks for memory, of which node and containerd use a part: an agent held
    // 24 MiB so.
    "transparent_hugepage=madvise",
    ...target.kernelArguments,
    `mote.version=${target.version}`,
    `mote.verity=${verity.rootHash}:${verity.dataBlocks}:${verity.salt}`,
  ];
  return `set mote_args="${args.join(" ")}"\n`;
}

async function bootFiles(target: Target, kernel: Kernel, tools: Tools): Promise<FatFile[]> {
  const files: FatFile[] = [
    { path: "grub/grubenv", data: encodeGrubenv(new Map([["good", "A"]])) },
    { path: "README.txt", data: await fs.readFile(join("firmware", "boot", "README.txt")) },
  ];
  for (const { target: platform, path } of target.loaders) {
    if (path !== undefined) files.push({ path, data: await buildEfiLoader(target, tools, platform) });
  }
  for (const { from, to } of target.bootFiles) {
    const source = from.startsWith("firmware/") ? from : join(target.workFolder, "loaders", from);
    files.push({ path: to, data: await fs.readFile(source) });
  }
  if (target.deviceTrees.length > 0) {
    if (!kernel.deviceTrees) throw new Error("the board needs device trees, the kernel has none");
    const matchers = target.deviceTrees.map(
      (text) => new RegExp(`^${text.replaceAll(".", "\\.").replaceAll("*", ".*")}$`),
    );
    for (const path of await listTree(kernel.deviceTrees)) {
      if (!matchers.some((m) => m.test(path))) continue;
      files.push({ path: path.replace(/^.*\//, ""), data: await fs.readFile(join(kernel.deviceTrees, path)) });
    }
  }
  return files;
}

async function copy(from: fs.FileHandle, length: number, to: fs.FileHandle, offset: number): Promise<void> {
  const buffer = Buffer.alloc(copyBytes);
  for (let at = 0; at < length; at += copyBytes) {
    const { bytesRead } = await from.read(buffer, 0, Math.min(copyBytes, length - at), at);
    await to.write(buffer, 0, bytesRead, offset + at);
  }
}
