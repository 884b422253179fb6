import { describe, expect, it } from "vitest";
import type { Random } from "#base/clock.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { decodeGpt, decodeGuid, encodeGpt, encodeGuid, type GptDisk, growLastPartition, usableRange } from "./gpt.ts";

const linux = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const guid = (n: number): string => `00000000-0000-4000-8000-${n.toString(16).padStart(12, "0")}`;

function disk(extra: Partial<GptDisk> = {}): GptDisk {
  return {
    guid: guid(99),
    sectorBytes: 512,
    sectors: 65536,
    hybrid: [],
    partitions: [
      { number: 1, typeGuid: linux, guid: guid(1), name: "BOOT", firstLba: 2048, lastLba: 4095 },
      { number: 7, typeGuid: linux, guid: guid(7), name: "data", firstLba: 8192, lastLba: 10239, attributes: 4n },
    ],
    ...extra,
  };
}

function randomDisk(random: Random): GptDisk {
  const below = (n: number): number => Math.floor(random.float() * n);
  const sectorBytes = below(2) === 0 ? 512 : 4096;
  const sectors = 20_000 + below(1_000_000);
  let at = usableRange(sectorBytes, sectors).first;
  const partitions = [];
  for (let number = 1 + below(3); number < 30; number += 1 + below(5)) {
    const firstLba = at + below(50);
    const lastLba = firstLba + below(500);
    at = lastLba + 1;
    partitions.push({ number, typeGuid: linux, guid: guid(number), name: `p-${number}`, firstLba, lastLba });
  }
  const hybrid = below(2) === 0 ? [] : [{ number: partitions[0]!.number, type: 0x0c, isActive: true }];
  return { guid: guid(below(1000)), sectorBytes, sectors, partitions, hybrid };
}

describe("gpt", () => {
  it("turns GUIDs into the mixed order of the specification", () => {
    const bytes = encodeGuid("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7");
    expect(bytes.toString("hex")).toBe("a2a0d0ebe5b9334487c068b6b72699c7");
    expect(decodeGuid(bytes)).toBe("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");
  });

  it("comes back as it was, whatever the layout", () => {
    const random = seededRandom(7);
    for (let i = 0; i < 200; i++) {
      const wanted = randomDisk(random);
      expect(decodeGpt(encodeGpt(wanted).primary, wanted.sectorBytes)).toEqual(wanted);
    }
  });

  it("finds every flipped bit of header and entries", () => {
    const { primary } = encodeGpt(disk());
    const random = seededRandom(11);
    for (let i = 0; i < 200; i++) {
      const broken = Uint8Array.from(primary);
      const isHeader = i % 2 === 0;
      const at = isHeader ? 512 + Math.floor(random.float() * 92) : 1024 + Math.floor(random.float() * 16384);
      broken[at]! ^= 1 << Math.floor(random.float() * 8);
      expect(() => decodeGpt(broken)).toThrow(/partition table/);
    }
  });

  it("has a protective MBR entry over the whole disk, or hybrid entries before it", () => {
    const plain = Buffer.from(encodeGpt(disk()).primary);
    expect([plain[446 + 4], plain.readUInt32LE(446 + 8), plain.readUInt32LE(446 + 12)]).toEqual([0xee, 1, 65535]);
    const hybrid = Buffer.from(encodeGpt(disk({ hybrid: [{ number: 1, type: 0x0c, isActive: true }] })).primary);
    expect([hybrid[446], hybrid[450], hybrid.readUInt32LE(454), hybrid.readUInt32LE(458)]).toEqual([
      0x80, 12, 2048, 2048,
    ]);
    expect([hybrid[462 + 4], hybrid.readUInt32LE(462 + 8), hybrid.readUInt32LE(462 + 12)]).toEqual([0xee, 1, 2047]);
    expect(hybrid.readUInt16LE(510)).toBe(0xaa55);
  });

  it("keeps the hybrid entry when the last partition grows", () => {
    const small = disk({ hybrid: [{ number: 1, type: 0x0c, isActive: true }] });
    const grown = growLastPartition(decodeGpt(encodeGpt(small).primary), 1_000_000);
    expect(grown.hybrid).toEqual(small.hybrid);
    expect(grown.partitions[0]).toEqual(small.partitions[0]);
    const data = grown.partitions[1]!;
    expect(data.firstLba).toBe(8192);
    expect((data.lastLba + 1) % 2048).toBe(0);
    expect(data.lastLba).toBeGreaterThan(995_000);
    const { primary, backup, backupLba } = encodeGpt(grown);
    expect(decodeGpt(primary)).toEqual(grown);
    expect(backupLba + backup.length / 512).toBe(1_000_000);
    expect(() => growLastPartition(disk(), 9000)).toThrow(/fewer/);
  });

  it.each<[string, Partial<GptDisk>]>([
    ["overlaps", { partitions: [disk().partitions[0]!, { ...disk().partitions[1]!, firstLba: 4000 }] }],
    ["do not fit", { sectors: 10_000 }],
    ["twice", { partitions: [disk().partitions[0]!, { ...disk().partitions[1]!, number: 1 }] }],
    ["cannot be in the MBR", { hybrid: [{ number: 3, type: 12, isActive: false }] }],
  ])("refuses a disk whose table %s", (message, extra) => {
    expect(() => encodeGpt(disk(extra))).toThrow(message);
  });
});
