// What has to happen to the data partition: grow into the rest of the medium, be formatted, be checked. Pure. Invariants:
// the MBR is never touched, so that boot ROMs that read only it keep starting; the backup table is written first, so that
// power lost in between leaves one whole table; an ext4 without label was cut while being made, and is made again.
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { AppError, messageOf } from "#base/errors.ts";
import { decodeGpt, encodeGpt, type GptDisk, growLastPartition, usableRange } from "#wire/gpt.ts";

export const dataLabel = "data";

export interface DiskFacts {
  readonly sectorBytes: number;
  /** Of the medium, whatever its table says. */
  readonly sectors: number;
  /** The sectors of MBR, header and entries. */
  readonly start: Uint8Array;
  /** As many sectors from the end as a backup table needs. */
  readonly end: Uint8Array;
}

export interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface Growth {
  /** In this order, each reaching the medium before the next. */
  readonly writes: readonly Write[];
  readonly number: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Sectors to read at either end. */
export const tableSectors = (sectorBytes: number): number => usableRange(sectorBytes, 0).first;

/** A smaller gain is not worth a write. */
const minGrowthBytes = 1024 * 1024;

/** The writes that stretch the last partition to the end; undefined where the table is whole and nothing is gained. */
export function planGrowth(facts: DiskFacts, newDiskGuid: string): Growth | undefined {
  const { disk, isRepair } = readTable(facts);
  const last = lastOf(disk);
  if (facts.sectors < disk.sectors) {
    throw new AppError("APPLIANCE_DISK", "the medium is smaller than its partition table says");
  }
  const grown = growLastPartition(disk, facts.sectors);
  const gained = (lastOf(grown).lastLba - last.lastLba) * facts.sectorBytes;
  if (gained < minGrowthBytes && !isRepair) return undefined;
  // Two media written from one image would otherwise carry the same name.
  const { primary, backup, backupLba } = encodeGpt({ ...grown, guid: isRepair ? disk.guid : newDiskGuid });
  return {
    writes: [
      { offset: backupLba * facts.sectorBytes, bytes: backup },
      { offset: facts.sectorBytes, bytes: primary.subarray(facts.sectorBytes) },
    ],
    number: last.number,
    bytesBefore: (last.lastLba - last.firstLba + 1) * facts.sectorBytes,
    bytesAfter: (lastOf(grown).lastLba - last.firstLba + 1) * facts.sectorBytes,
  };
}

const lastOf = (disk: GptDisk) => disk.partitions.reduce((a, b) => (b.firstLba > a.firstLba ? b : a));

/** The table at the start, or the one at the end where the first was cut by power loss. */
function readTable(facts: DiskFacts): { readonly disk: GptDisk; readonly isRepair: boolean } {
  try {
    return { disk: decodeGpt(facts.start, facts.sectorBytes), isRepair: false };
  } catch (error) {
    const start = startFromBackup(facts);
    if (!start) throw new AppError("APPLIANCE_DISK", messageOf(error), {}, { cause: error });
    return { disk: decodeGpt(start, facts.sectorBytes), isRepair: true };
  }
}

/** The bytes a whole table would have at the start, made from the backup; undefined where that is none either. */
function startFromBackup({ start, end, sectorBytes, sectors }: DiskFacts): Buffer | undefined {
  const headerAt = end.length - sectorBytes;
  const header = Buffer.from(end.subarray(headerAt, headerAt + 92));
  if (header.toString("latin1", 0, 8) !== "EFI PART") return undefined;
  const checksum = header.readUInt32LE(16);
  header.writeUInt32LE(0, 16);
  if (crc32(header) !== checksum || Number(header.readBigUInt64LE(24)) !== sectors - 1) return undefined;
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(BigInt(sectors - 1), 32);
  header.writeBigUInt64LE(2n, 72);
  header.writeUInt32LE(crc32(header), 16);
  const entries = end.subarray(headerAt - 128 * 128, headerAt);
  const whole = Buffer.alloc(start.length);
  whole.set(start.subarray(0, sectorBytes));
  whole.set(header, sectorBytes);
  whole.set(entries, 2 * sectorBytes);
  return whole;
}

export interface FileSystemFacts {
  readonly kind: "none" | "unfinished" | "ext4";
  /** Errors were found while it was last in use. */
  readonly needsCheck: boolean;
  readonly bytes: number;
}

/** Bytes from the start of the partition that `readFileSystem` looks at. */
export const superblockEnd = 2048;

/** Reads an ext4 superblock. */
export function readFileSystem(start: Uint8Array): FileSystemFacts {
  const superblock = Buffer.from(start.subarray(1024, superblockEnd));
  if (superblock.length < 1024 || superblock.readUInt16LE(56) !== 0xef53)
    return { kind: "none", needsCheck: false, bytes: 0 };
  const label = superblock.toString("latin1", 120, 136).replace(/\0.*$/s, "");
  const isClean = superblock.readUInt16LE(58) === 1;
  const blocks = superblock.readUInt32LE(4) + superblock.readUInt32LE(0x150) * 2 ** 32;
  return {
    kind: label === dataLabel ? "ext4" : "unfinished",
    needsCheck: !isClean,
    bytes: blocks * 2 ** (10 + superblock.readUInt32LE(24)),
  };
}
