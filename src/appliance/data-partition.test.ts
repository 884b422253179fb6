import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasCode } from "#base/errors.ts";
import { writeAt } from "#platform/block-devices.ts";
import { runChecked, systemCommands } from "#platform/processes.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { decodeGpt, encodeGpt, type GptDisk } from "#wire/gpt.ts";
import { type DiskFacts, planGrowth, tableSectors } from "./data-partition.ts";

const mib = 1024 * 1024;
const newGuid = "11111111-2222-4333-8444-555555555555";

function imageDisk(sectors: number): GptDisk {
  const part = (number: number, name: string, firstMib: number, sizeMib: number) => ({
    ...{ number, name, typeGuid: "0fc63daf-8483-4772-8e79-3d69d8477de4" },
    guid: `00000000-0000-4000-8000-00000000000${number}`,
    firstLba: (firstMib * mib) / 512,
    lastLba: ((firstMib + sizeMib) * mib) / 512 - 1,
  });
  return {
    guid: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
    sectorBytes: 512,
    sectors,
    partitions: [part(1, "BOOT", 1, 1), part(7, "data", 2, 1)],
    hybrid: [{ number: 1, type: 0x0c, isActive: true }],
  };
}

/** A medium as bytes: the image written to its start. */
function medium(sectors: number, imageSectors = (4 * mib) / 512): Buffer {
  const bytes = Buffer.alloc(sectors * 512);
  const { primary, backup, backupLba } = encodeGpt(imageDisk(imageSectors));
  bytes.set(primary);
  bytes.set(backup, backupLba * 512);
  bytes.fill(0x90, 0, 440);
  return bytes;
}

function factsOf(bytes: Buffer): DiskFacts {
  const length = tableSectors(512) * 512;
  return {
    ...{ sectorBytes: 512, sectors: bytes.length / 512 },
    ...{ start: Buffer.from(bytes.subarray(0, length)), end: Buffer.from(bytes.subarray(bytes.length - length)) },
  };
}

function apply(bytes: Buffer, writes: readonly { readonly offset: number; readonly bytes: Uint8Array }[]): void {
  for (const write of writes) bytes.set(write.bytes, write.offset);
}

describe("growing", () => {
  test("stretches the last partition, leaves the MBR and renames the disk", () => {
    const disk = medium((8 * mib) / 512);
    const mbr = Buffer.from(disk.subarray(0, 512));
    const growth = planGrowth(factsOf(disk), newGuid)!;
    expect(growth).toMatchObject({ number: 7, bytesBefore: mib, bytesAfter: 5 * mib });
    apply(disk, growth.writes);
    expect(disk.subarray(0, 512)).toEqual(mbr);
    const grown = decodeGpt(disk);
    expect(grown.guid).toBe(newGuid);
    expect(grown.sectors).toBe((8 * mib) / 512);
    expect(grown.partitions[1]!.guid).toBe("00000000-0000-4000-8000-000000000007");
    expect(grown.hybrid).toEqual(imageDisk(0).hybrid);
    expect(planGrowth(factsOf(disk), newGuid)).toBeUndefined();
  });

  test("leaves somebody else's last partition alone", () => {
    const disk = imageDisk((4 * mib) / 512);
    const theirs = { ...disk, partitions: disk.partitions.map((p) => (p.number === 7 ? { ...p, name: "mine" } : p)) };
    const bytes = medium((8 * mib) / 512);
    bytes.set(encodeGpt(theirs).primary);
    expect(planGrowth(factsOf(bytes), newGuid)).toBeUndefined();
  });

  test("leaves a medium without room alone", () => {
    expect(planGrowth(factsOf(medium((4 * mib) / 512)), newGuid)).toBeUndefined();
    expect(planGrowth(factsOf(medium((4 * mib) / 512 + 30)), newGuid)).toBeUndefined();
  });

  test("writes a damaged table again at either end, and nothing else", () => {
    const whole = medium((4 * mib) / 512);
    for (const at of [512, 1024, whole.length - 512, whole.length - 33 * 512]) {
      const disk = Buffer.from(whole);
      disk[at + 20]! ^= 0xff;
      apply(disk, planGrowth(factsOf(disk), newGuid)!.writes);
      expect(Buffer.compare(disk, whole)).toBe(0);
    }
  });

  test("says what is wrong with a medium that is none", () => {
    expect(() => planGrowth(factsOf(Buffer.alloc(8 * mib)), newGuid)).toThrow(/no GPT signature/);
    const small = medium((4 * mib) / 512);
    expect(() => planGrowth({ ...factsOf(small), sectors: 4000 }, newGuid)).toThrow(
      /smaller than its partition table says/,
    );
  });

  test("whatever power loss leaves of it, the next start completes it", () => {
    const random = seededRandom(5);
    const sectors = (8 * mib) / 512;
    for (let round = 0; round < 120; round++) {
      const disk = medium(sectors);
      const before = Buffer.from(disk);
      const [backup, primary] = planGrowth(factsOf(disk), newGuid)!.writes;
      // Each write reached the medium up to some sector; the second only if the first was whole. Sectors of one write may arrive in any order.
      const cut = random.float() < 0.5 ? [backup!] : [backup!, primary!];
      for (const [i, write] of cut.entries()) {
        const isLast = i === cut.length - 1;
        for (let at = 0; at < write.bytes.length; at += 512) {
          if (!isLast || random.float() < 0.5) disk.set(write.bytes.subarray(at, at + 512), write.offset + at);
        }
      }
      const repeated = planGrowth(factsOf(disk), newGuid);
      if (repeated) apply(disk, repeated.writes);
      expect(decodeGpt(disk).partitions[1]!.lastLba).toBe((7 * mib) / 512 - 1);
      expect(disk.subarray(0, 512)).toEqual(before.subarray(0, 512));
      expect(planGrowth(factsOf(disk), newGuid)).toBeUndefined();
    }
  });
});

describe("tools", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync("/tmp/mote-data-");
    // Ordinary users do not have it.
    process.env["PATH"] += ":/usr/sbin:/sbin";
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test("a table grown on a file is one that sfdisk accepts", async () => {
    const path = `${folder}/disk.img`;
    const disk = medium((8 * mib) / 512);
    const fd = openSync(path, "w");
    writeSync(fd, disk);
    closeSync(fd);
    await writeAt(path, planGrowth(factsOf(disk), newGuid)!.writes);
    let said: string;
    try {
      said = await runChecked(systemCommands, "sfdisk", ["--verify", path]);
    } catch (error) {
      // Not installed here: the codec's own tests hold.
      if (hasCode(error, "COMMAND_START")) return;
      throw error;
    }
    expect(said).toMatch(/No errors detected/);
    const table = JSON.parse(await runChecked(systemCommands, "sfdisk", ["--json", path]));
    expect(table.partitiontable.partitions[1].size).toBe((5 * mib) / 512);
    expect(readFileSync(path).subarray(446 + 4, 446 + 5)).toEqual(Buffer.from([0x0c]));
  });
});
