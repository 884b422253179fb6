// Disks and partitions as sysfs lists them, and their bytes. Writes reach the medium before they resolve.
import { open, readdir, readFile, realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { hasCode } from "#base/errors.ts";

export interface BlockDevice {
  /** Kernel name, e.g. mmcblk0p7. */
  readonly name: string;
  readonly path: string;
  /** Name of the disk a partition lies on; its own for a disk. */
  readonly disk: string;
  /** Of a partition. */
  readonly number?: number;
  readonly label?: string;
  /** Where the kernel tells it (6.13 and later). */
  readonly partUuid?: string;
  readonly bytes: number;
  readonly sectorBytes: number;
  /** What a mapped device (dm-verity) lies on. */
  readonly slaves: readonly string[];
}

export async function listBlockDevices(sysfs = "/sys"): Promise<BlockDevice[]> {
  const devices: BlockDevice[] = [];
  for (const name of await names(`${sysfs}/class/block`)) {
    const folder = await realpath(`${sysfs}/class/block/${name}`);
    const uevent = await text(`${folder}/uevent`);
    const number = /^PARTN=(\d+)$/m.exec(uevent)?.[1];
    const label = /^PARTNAME=(.+)$/m.exec(uevent)?.[1];
    const partUuid = /^PARTUUID=(.+)$/m.exec(uevent)?.[1];
    const diskFolder = number === undefined ? folder : dirname(folder);
    devices.push({
      name,
      path: `/dev/${/^DEVNAME=(.+)$/m.exec(uevent)?.[1] ?? name}`,
      disk: basename(diskFolder),
      ...(number === undefined ? {} : { number: Number(number) }),
      ...(label === undefined ? {} : { label }),
      ...(partUuid === undefined ? {} : { partUuid: partUuid.toLowerCase() }),
      // sysfs counts in 512 bytes whatever the device does.
      bytes: Number((await text(`${folder}/size`)).trim() || "0") * 512,
      sectorBytes: Number((await text(`${diskFolder}/queue/logical_block_size`)).trim() || "512"),
      slaves: await names(`${folder}/slaves`),
    });
  }
  return devices;
}

/** Fewer bytes where the device or file ends. */
export async function readAt(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Writes in order, each on the medium before the next begins. */
export async function writeAt(
  path: string,
  writes: readonly { readonly offset: number; readonly bytes: Uint8Array }[],
): Promise<void> {
  const file = await open(path, "r+");
  try {
    for (const { offset, bytes } of writes) {
      await file.write(bytes, 0, bytes.length, offset);
      await file.sync();
    }
  } finally {
    await file.close();
  }
}

async function names(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (hasCode(error, "ENOENT")) return [];
    throw error;
  }
}

async function text(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return "";
    throw error;
  }
}
