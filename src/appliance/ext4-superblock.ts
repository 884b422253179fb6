// What an ext4 superblock says, and where its copies lie. Only one that is whole counts: the kernel refuses any other, and
// two sectors under one checksum are torn easily. Pure. Upstream counterpart: Linux, Documentation/filesystems/ext4.
import { Buffer } from "node:buffer";

export interface Superblock {
  /** 32 hexadecimal digits. */
  readonly uuid: string;
  readonly blockBytes: number;
  /** Of the whole file system. */
  readonly bytes: number;
  /** False: errors were found while it was last in use. A journal to be replayed is none. */
  readonly isClean: boolean;
}

/** A copy of the superblock, in the terms of `e2fsck -b BLOCK -B BYTES`. */
export interface Backup {
  readonly block: number;
  readonly blockBytes: number;
  readonly superblock: Superblock;
}

export const superblockBytes = 1024;
/** Of the first one, from the start of the partition. */
export const primaryOffset = 1024;
const magic = 0xef53;
const checksumAt = 1020;
const metadataChecksums = 0x400;
const crc32cPolynomial = 0x82f63b78;

/** Whether anything of one is left; less than `parseSuperblock` asks. */
export const hasMagic = (bytes: Uint8Array): boolean =>
  bytes.length >= 58 && (bytes[56]! | (bytes[57]! << 8)) === magic;

/** Undefined where these 1024 bytes are no superblock that the kernel would take. */
export function parseSuperblock(bytes: Uint8Array): Superblock | undefined {
  if (bytes.length < superblockBytes || !hasMagic(bytes)) return undefined;
  const block = Buffer.from(bytes.subarray(0, superblockBytes));
  const blockShift = block.readUInt32LE(24);
  // 1 KiB to 64 KiB.
  if (blockShift > 6) return undefined;
  const blockBytes = 1024 << blockShift;
  const blocks = block.readUInt32LE(4) + block.readUInt32LE(0x150) * 2 ** 32;
  const blocksPerGroup = block.readUInt32LE(32);
  const isSane = blocks > 0 && blocksPerGroup > 0 && blocksPerGroup <= blockBytes * 8;
  if (!isSane || block.readUInt32LE(0) === 0) return undefined;
  const hasChecksum = (block.readUInt32LE(100) & metadataChecksums) !== 0;
  if (hasChecksum && block.readUInt32LE(checksumAt) !== crc32c(block.subarray(0, checksumAt))) return undefined;
  return {
    uuid: block.toString("hex", 104, 120),
    blockBytes,
    bytes: blocks * blockBytes,
    isClean: block.readUInt16LE(58) === 1,
  };
}

/** Groups that hold a copy: 1 and the powers of 3, 5 and 7. More than these few do not survive where they do not. */
const backupGroups = [1, 3, 5, 7, 9, 25, 27];
/** mkfs chooses 1 KiB below 512 MiB and 4 KiB above. */
const backupBlockBytes = [4096, 1024, 2048];

/** Where copies may lie on a partition of that size. */
export function backupPlaces(partitionBytes: number): { block: number; blockBytes: number; offset: number }[] {
  return backupBlockBytes.flatMap((blockBytes) => {
    // With blocks of 1 KiB the first is the loader's, and groups begin at the second.
    const first = blockBytes === 1024 ? 1 : 0;
    return backupGroups
      .map((group) => ({ block: group * blockBytes * 8 + first, blockBytes }))
      .map((place) => ({ ...place, offset: place.block * blockBytes }))
      .filter(({ offset }) => offset + superblockBytes <= partitionBytes);
  });
}

/** As ext4 computes it: CRC-32C that starts with all bits set and is not inverted at the end. */
function crc32c(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ crc32cPolynomial : sum >>> 1;
  }
  return sum >>> 0;
}
