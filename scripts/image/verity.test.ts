import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { buildVerityTree, type VerityTree } from "./verity.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-verity-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const salt = "5a".repeat(32);

async function tree(data: Uint8Array): Promise<VerityTree> {
  const path = join(folder, "data");
  writeFileSync(path, data);
  const handle = await open(path, "r");
  try {
    return await buildVerityTree(handle, data.length, salt);
  } finally {
    await handle.close();
  }
}

const hash = (block: Uint8Array): Buffer =>
  createHash("sha256").update(Buffer.from(salt, "hex")).update(block).digest();

/** Checks one data block the way the kernel does: from the leaf up to the root hash. */
function verify({ tree: bytes, rootHash, dataBlocks }: VerityTree, block: Uint8Array, index: number): boolean {
  const levels: { at: number; blocks: number }[] = [];
  for (let blocks = Math.ceil(dataBlocks / 128); ; blocks = Math.ceil(blocks / 128)) {
    levels.push({ at: 0, blocks });
    if (blocks === 1) break;
  }
  let at = 0;
  for (const level of [...levels].reverse()) {
    level.at = at;
    at += level.blocks;
  }
  let digest = hash(block);
  let position = index;
  for (const level of levels) {
    const parent = bytes.subarray((level.at + Math.floor(position / 128)) * 4096).subarray(0, 4096);
    if (!digest.equals(parent.subarray((position % 128) * 32, (position % 128) * 32 + 32))) return false;
    digest = hash(parent);
    position = Math.floor(position / 128);
  }
  return digest.toString("hex") === rootHash;
}

describe("buildVerityTree", () => {
  // One leaf block, exactly full, just over, and three levels.
  it.each([2, 128, 129, 128 * 128 + 3])("covers every block of %i", async (blocks) => {
    const data = Buffer.alloc(blocks * 4096);
    const random = seededRandom(blocks);
    for (let i = 0; i < blocks; i++) data.writeUInt32LE(Math.floor(random.float() * 2 ** 32), i * 4096 + 8);
    const built = await tree(data);
    expect(built.dataBlocks).toBe(blocks);
    for (let i = 0; i < 20; i++) {
      const index = Math.floor(random.float() * blocks);
      const block = Uint8Array.from(data.subarray(index * 4096, (index + 1) * 4096));
      expect(verify(built, block, index)).toBe(true);
      block[i] = block[i]! ^ 1;
      expect(verify(built, block, index)).toBe(false);
    }
  });

  it("gives what veritysetup 2.7.5 gives", async () => {
    const data = Buffer.alloc(300 * 4096, "mote");
    expect((await tree(data)).rootHash).toBe("b6e154bae1f8186714351f728de02ee48d5c035075bef671f2d7b4f461d12899");
  });

  it("refuses what is no whole number of blocks", async () => {
    await expect(tree(Buffer.alloc(5000))).rejects.toThrow(/whole blocks/);
  });
});
