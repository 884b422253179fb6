// How the data partition grows into the rest of the medium. Pure. Invariants: the MBR is never touched, so that boot ROMs
// that read only it keep starting; the backup table is written first, so that power lost in between leaves one whole
// table. The kernel reads the backup because it is started with `gpt`. A damaged table at either end is written again.
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { AppError, messageOf } from "#base/errors.ts";
import { decodeGpt, encodeGpt, type GptDisk, growLastPartition, usableRange } from "#wire/gpt.ts";

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

/** Of the partition, on every image. */
export const dataName = "data";
/** A smaller gain is not worth a write. */
const minGrowthBytes = 1024 * 1024;

/** The writes that stretch the last partition to the end; undefined where the table is whole and nothing is gained. */
export function planGrowth(facts: DiskFacts, newDiskGuid: string): Growth | undefined {
  const { disk, isRepair } = readTable(facts);
  const last = lastOf(disk);
  if (facts.sectors < disk.sectors) {
    throw new AppError("APPLIANCE_DISK", "the medium is smaller than its partition table says");
  }
  // One that somebody put behind ours is theirs.
  const grown = last.name === dataName ? growLastPartition(disk, facts.sectors) : disk;
  const gained = (lastOf(grown).lastLba - last.lastLba) * facts.sectorBytes;
  if (gained < minGrowthBytes && !isRepair && hasBackup(facts, disk)) return undefined;
  // Two media written from one image would otherwise carry the same name.
  const guid = gained < minGrowthBytes || isRepair ? disk.guid : newDiskGuid;
  const { primary, backup, backupLba } = encodeGpt({ ...grown, guid });
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

/** False where the table at the end has to be written again: it is the only one once the first is damaged too. */
function hasBackup(facts: DiskFacts, disk: GptDisk): boolean {
  if (facts.sectors !== disk.sectors) return true;
  const { backup } = encodeGpt(disk);
  return Buffer.compare(backup, facts.end.subarray(facts.end.length - backup.length)) === 0;
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
