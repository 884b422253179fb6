import { describe, expect, it } from "vitest";
import { patchBiosLoader } from "./grub.ts";

describe("patchBiosLoader", () => {
  const boot = new Uint8Array(512).fill(0xcc);
  const image = new Uint8Array(1300).fill(0xdd);
  const { bootCode, core } = patchBiosLoader(boot, image, 8192);
  const read = Buffer.from(core);

  it("leaves the partition table's bytes to the partition table", () => {
    expect(bootCode.length).toBe(440);
  });

  it("names the sector of the core, and in the core the sectors after it", () => {
    expect(Buffer.from(bootCode).readBigUInt64LE(0x5c)).toBe(8192n);
    expect([bootCode[0x66], bootCode[0x67]]).toEqual([0x90, 0x90]);
    expect(core.length).toBe(3 * 512);
    expect(read.readBigUInt64LE(0x1f4)).toBe(8193n);
    expect(read.readUInt16LE(0x1fc)).toBe(2);
    expect(read.readUInt16LE(0x1fe)).toBe(0x0820);
  });

  it("changes nothing else", () => {
    expect(Buffer.compare(core.subarray(0, 0x1f4), image.subarray(0, 0x1f4))).toBe(0);
    expect(Buffer.compare(core.subarray(512, 1300), image.subarray(512))).toBe(0);
  });
});
