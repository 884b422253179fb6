// The partition table of an appliance disk: GUID partition table with a protective or hybrid MBR, as bytes. The image
// builder writes it, the device grows its last partition with it. A hybrid MBR repeats chosen partitions for boot ROMs
// that know nothing else (Raspberry Pi 3, Zero 2 W); any tool that rewrites the GPT drops it, which is why the device
// uses this codec for growing too. Invariant: decode(encode(disk)) is the disk; encode never moves a partition.
// Upstream counterpart: UEFI specification 2.10, chapter 5.
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { AppError } from "#base/errors.ts";

export interface GptPartition {
  /** 1-based, the place in the table. */
  readonly number: number;
  readonly typeGuid: string;
  readonly guid: string;
  readonly name: string;
  readonly firstLba: number;
  /** Inclusive. */
  readonly lastLba: number;
  readonly attributes?: bigint;
}

/** A partition repeated in the MBR. */
export interface HybridEntry {
  readonly number: number;
  /** MBR type, e.g. 0x0c for FAT32. */
  readonly type: number;
  readonly isActive: boolean;
}

export interface GptDisk {
  readonly guid: string;
  readonly sectorBytes: number;
  /** Size of the disk. */
  readonly sectors: number;
  readonly partitions: readonly GptPartition[];
  /** Empty: a protective MBR. At most three. */
  readonly hybrid: readonly HybridEntry[];
}

export interface EncodedGpt {
  /** For LBA 0: MBR (its first 440 bytes, the boot code, are zero), header, entries. */
  readonly primary: Uint8Array;
  /** For the last sectors of the disk: entries, header. */
  readonly backup: Uint8Array;
  readonly backupLba: number;
}

const entryCount = 128;
const entryBytes = 128;
const mbrTable = 446;
/** Bytes of the MBR that belong to boot loaders, not to the table. */
export const bootCodeBytes = 440;

const tableSectors = (sectorBytes: number): number => Math.ceil((entryCount * entryBytes) / sectorBytes);

/** First and last sector partitions may use. */
export function usableRange(sectorBytes: number, sectors: number): { readonly first: number; readonly last: number } {
  const table = tableSectors(sectorBytes);
  return { first: 2 + table, last: sectors - 2 - table };
}

/** Throws WIRE_GPT when partitions overlap, leave the usable range, or the MBR cannot hold a hybrid entry. */
export function encodeGpt(disk: GptDisk): EncodedGpt {
  checkDisk(disk);
  const { sectorBytes, sectors } = disk;
  const table = tableSectors(sectorBytes);
  const entries = Buffer.alloc(table * sectorBytes);
  for (const p of disk.partitions) {
    const at = (p.number - 1) * entryBytes;
    encodeGuid(p.typeGuid).copy(entries, at);
    encodeGuid(p.guid).copy(entries, at + 16);
    entries.writeBigUInt64LE(BigInt(p.firstLba), at + 32);
    entries.writeBigUInt64LE(BigInt(p.lastLba), at + 40);
    entries.writeBigUInt64LE(p.attributes ?? 0n, at + 48);
    entries.write(p.name, at + 56, 72, "utf16le");
  }
  const primary = Buffer.alloc((2 + table) * sectorBytes);
  encodeMbr(disk).copy(primary);
  encodeHeader(disk, entries, 1, sectors - 1, 2).copy(primary, sectorBytes);
  entries.copy(primary, 2 * sectorBytes);
  const backup = Buffer.alloc((table + 1) * sectorBytes);
  entries.copy(backup);
  encodeHeader(disk, entries, sectors - 1, 1, sectors - 1 - table).copy(backup, table * sectorBytes);
  return { primary, backup, backupLba: sectors - 1 - table };
}

/** Reads the start of a disk (at least 2 sectors and the entries). Throws WIRE_GPT when a checksum or field is wrong. */
export function decodeGpt(start: Uint8Array, sectorBytes = 512): GptDisk {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.byteLength);
  if (bytes.length < (2 + tableSectors(sectorBytes)) * sectorBytes) throw problem("too few bytes for a table");
  const header = bytes.subarray(sectorBytes, sectorBytes + 92);
  if (header.toString("latin1", 0, 8) !== "EFI PART") throw problem("no GPT signature");
  const copy = Buffer.from(header);
  copy.writeUInt32LE(0, 16);
  if (crc32(copy) !== header.readUInt32LE(16)) throw problem("the header's checksum is wrong");
  if (
    header.readUInt32LE(12) !== 92 ||
    header.readUInt32LE(80) !== entryCount ||
    header.readUInt32LE(84) !== entryBytes
  )
    throw problem("a table with sizes of its own");
  if (header.readBigUInt64LE(72) !== 2n) throw problem("a table that does not start at sector 2");
  const entries = bytes.subarray(2 * sectorBytes, 2 * sectorBytes + entryCount * entryBytes);
  if (crc32(entries) !== header.readUInt32LE(88)) throw problem("the entries' checksum is wrong");
  const partitions: GptPartition[] = [];
  for (let i = 0; i < entryCount; i++) {
    const entry = entries.subarray(i * entryBytes, (i + 1) * entryBytes);
    if (entry.subarray(0, 16).every((b) => b === 0)) continue;
    const attributes = entry.readBigUInt64LE(48);
    partitions.push({
      number: i + 1,
      typeGuid: decodeGuid(entry.subarray(0, 16)),
      guid: decodeGuid(entry.subarray(16, 32)),
      name: entry.toString("utf16le", 56, 128).replace(/\0.*$/s, ""),
      firstLba: Number(entry.readBigUInt64LE(32)),
      lastLba: Number(entry.readBigUInt64LE(40)),
      ...(attributes === 0n ? {} : { attributes }),
    });
  }
  const disk: GptDisk = {
    guid: decodeGuid(header.subarray(56, 72)),
    sectorBytes,
    sectors: Number(header.readBigUInt64LE(32)) + 1,
    partitions,
    hybrid: decodeHybrid(bytes, partitions),
  };
  checkDisk(disk);
  return disk;
}

/** The same disk on a medium of `sectors`, its last partition stretched to the end (whole MiB). */
export function growLastPartition(disk: GptDisk, sectors: number): GptDisk {
  const last = disk.partitions.reduce((a, b) => (b.firstLba > a.firstLba ? b : a));
  const align = (1024 * 1024) / disk.sectorBytes;
  const end = Math.floor((usableRange(disk.sectorBytes, sectors).last + 1) / align) * align - 1;
  if (end < last.lastLba) throw problem(`${sectors} sectors are fewer than the partitions need`);
  return {
    ...disk,
    sectors,
    partitions: disk.partitions.map((p) => (p === last ? { ...p, lastLba: end } : p)),
  };
}

/** Lower case, as Linux prints PARTUUIDs. */
export function decodeGuid(bytes: Uint8Array): string {
  const hex = (from: number, to: number, isReversed: boolean): string => {
    const part = Buffer.from(bytes.subarray(from, to));
    return (isReversed ? part.reverse() : part).toString("hex");
  };
  return [hex(0, 4, true), hex(4, 6, true), hex(6, 8, true), hex(8, 10, false), hex(10, 16, false)].join("-");
}

export function encodeGuid(guid: string): Buffer {
  const match = /^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})$/i.exec(guid);
  if (!match) throw problem(`"${guid}" is no GUID`);
  const part = (i: number): Buffer => Buffer.from(match[i]!, "hex");
  return Buffer.concat([part(1).reverse(), part(2).reverse(), part(3).reverse(), part(4), part(5)]);
}

function encodeHeader(disk: GptDisk, entries: Buffer, at: number, other: number, entriesAt: number): Buffer {
  const range = usableRange(disk.sectorBytes, disk.sectors);
  const header = Buffer.alloc(92);
  header.write("EFI PART", 0, "latin1");
  header.writeUInt32LE(0x00010000, 8);
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(BigInt(at), 24);
  header.writeBigUInt64LE(BigInt(other), 32);
  header.writeBigUInt64LE(BigInt(range.first), 40);
  header.writeBigUInt64LE(BigInt(range.last), 48);
  encodeGuid(disk.guid).copy(header, 56);
  header.writeBigUInt64LE(BigInt(entriesAt), 72);
  header.writeUInt32LE(entryCount, 80);
  header.writeUInt32LE(entryBytes, 84);
  header.writeUInt32LE(crc32(entries.subarray(0, entryCount * entryBytes)), 88);
  header.writeUInt32LE(crc32(header), 16);
  return header;
}

function encodeMbr(disk: GptDisk): Buffer {
  const mbr = Buffer.alloc(disk.sectorBytes);
  const write = (i: number, type: number, isActive: boolean, first: number, count: number): void => {
    const at = mbrTable + i * 16;
    mbr[at] = isActive ? 0x80 : 0;
    // Cylinders end where nobody counts them any more; the linear numbers behind them are what is read.
    mbr.set(first === 1 ? [0x00, 0x02, 0x00] : [0xfe, 0xff, 0xff], at + 1);
    mbr[at + 4] = type;
    mbr.set([0xfe, 0xff, 0xff], at + 5);
    mbr.writeUInt32LE(first, at + 8);
    mbr.writeUInt32LE(Math.min(count, 0xffffffff), at + 12);
  };
  let protectedEnd = disk.sectors;
  for (const [i, entry] of disk.hybrid.entries()) {
    const p = disk.partitions.find(({ number }) => number === entry.number)!;
    write(i, entry.type, entry.isActive, p.firstLba, p.lastLba - p.firstLba + 1);
    protectedEnd = Math.min(protectedEnd, p.firstLba);
  }
  write(disk.hybrid.length, 0xee, false, 1, protectedEnd - 1);
  mbr[510] = 0x55;
  mbr[511] = 0xaa;
  return mbr;
}

function decodeHybrid(bytes: Buffer, partitions: readonly GptPartition[]): HybridEntry[] {
  const found: HybridEntry[] = [];
  for (let i = 0; i < 4; i++) {
    const at = mbrTable + i * 16;
    const type = bytes[at + 4]!;
    if (type === 0 || type === 0xee) continue;
    const first = bytes.readUInt32LE(at + 8);
    const p = partitions.find(({ firstLba }) => firstLba === first);
    if (!p) throw problem(`MBR entry ${i + 1} repeats no partition`);
    found.push({ number: p.number, type, isActive: bytes[at] === 0x80 });
  }
  return found;
}

function checkDisk(disk: GptDisk): void {
  const range = usableRange(disk.sectorBytes, disk.sectors);
  const sorted = [...disk.partitions].sort((a, b) => a.firstLba - b.firstLba);
  let end = range.first - 1;
  for (const p of sorted) {
    if (p.number < 1 || p.number > entryCount) throw problem(`partition number ${p.number} is not allowed`);
    if (p.firstLba <= end || p.lastLba < p.firstLba) throw problem(`partition ${p.number} overlaps or has no size`);
    if (p.name.length > 36) throw problem(`the name "${p.name}" is longer than 36 characters`);
    end = p.lastLba;
  }
  if (end > range.last) throw problem("the partitions do not fit the disk");
  if (new Set(disk.partitions.map((p) => p.number)).size !== disk.partitions.length)
    throw problem("a partition number is there twice");
  if (disk.hybrid.length > 3) throw problem("an MBR holds three hybrid entries beside the protective one");
  for (const { number } of disk.hybrid) {
    const p = disk.partitions.find((other) => other.number === number);
    if (!p || p.lastLba > 0xffffffff) throw problem(`partition ${number} cannot be in the MBR`);
  }
}

const problem = (what: string): AppError => new AppError("WIRE_GPT", `partition table: ${what}`);
