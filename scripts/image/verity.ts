// The hash tree of dm-verity (version 1, SHA-256, blocks of 4096 bytes, no superblock), appended behind the data it
// covers. Levels are stored from the top down; each hash is over salt and block. Upstream counterpart: the kernel's
// Documentation/admin-guide/device-mapper/verity.rst and `veritysetup format --no-superblock`.
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";

export const verityBlockBytes = 4096;
const hashBytes = 32;
const hashesPerBlock = verityBlockBytes / hashBytes;
/** Blocks read at once. */
const batchBlocks = 1024;

export interface VerityTree {
  readonly rootHash: string;
  readonly dataBlocks: number;
  readonly salt: string;
  readonly tree: Uint8Array;
}

/** `file` must be a whole number of blocks, at least two. */
export async function buildVerityTree(file: FileHandle, sizeBytes: number, salt: string): Promise<VerityTree> {
  if (sizeBytes % verityBlockBytes !== 0 || sizeBytes < 2 * verityBlockBytes)
    throw new RangeError(`verity needs whole blocks, at least two; got ${sizeBytes} bytes`);
  const dataBlocks = sizeBytes / verityBlockBytes;
  const saltBytes = Buffer.from(salt, "hex");
  const leaves: Buffer[] = [];
  const batch = Buffer.alloc(batchBlocks * verityBlockBytes);
  for (let at = 0; at < sizeBytes; at += batch.length) {
    const wanted = Math.min(batch.length, sizeBytes - at);
    const { bytesRead } = await file.read(batch, 0, wanted, at);
    if (bytesRead !== wanted) throw new Error(`read ${bytesRead} of ${wanted} bytes at ${at}`);
    leaves.push(...hashBlocks(batch.subarray(0, wanted), saltBytes));
  }
  const levels: Buffer[] = [];
  for (let hashes = leaves; ; ) {
    const level = packLevel(hashes);
    levels.unshift(level);
    hashes = hashBlocks(level, saltBytes);
    if (hashes.length === 1) {
      return { rootHash: hashes[0]!.toString("hex"), dataBlocks, salt, tree: Buffer.concat(levels) };
    }
  }
}

function hashBlocks(bytes: Buffer, salt: Buffer): Buffer[] {
  const hashes: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += verityBlockBytes) {
    const block = bytes.subarray(at, at + verityBlockBytes);
    hashes.push(createHash("sha256").update(salt).update(block).digest());
  }
  return hashes;
}

function packLevel(hashes: readonly Buffer[]): Buffer {
  const level = Buffer.alloc(Math.ceil(hashes.length / hashesPerBlock) * verityBlockBytes);
  for (const [i, hash] of hashes.entries()) hash.copy(level, i * hashBytes);
  return level;
}
