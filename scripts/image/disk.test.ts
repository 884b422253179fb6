import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { markerOffset } from "#appliance/data-marker.ts";
import { decodeGpt, encodeGpt } from "#wire/gpt.ts";
import { layOut } from "./disk.ts";
import { derivedGuid, type Target } from "./target.ts";

const layout = JSON.parse(readFileSync("firmware/layout/partitions.json", "utf8"));
const target = { name: "amd64", version: "v1", hybridMbr: true } as Target;

describe("layout", () => {
  const disk = layOut(layout, target);

  // Devices in the field are updated within these numbers, names and sizes: they never change.
  it("is what devices in the field have", () => {
    const mib = 2048;
    expect(
      disk.partitions.map((p) => [p.number, p.name, p.firstLba / mib, (p.lastLba + 1 - p.firstLba) / mib]),
    ).toEqual([
      [1, "BOOT", 4, 256],
      [2, "bios", 260, 1],
      [3, "boot-a", 264, 128],
      [4, "boot-b", 392, 128],
      [5, "root-a", 520, 768],
      [6, "root-b", 1288, 768],
      [7, "data", 2056, 64],
    ]);
  });

  it("is a table the device can read, with the last partition free to grow", () => {
    expect(decodeGpt(encodeGpt(disk).primary)).toEqual(disk);
    expect(disk.hybrid).toEqual([{ number: 1, type: 0x0c, isActive: true }]);
  });

  it("leaves room for the marker of the data partition", () => {
    expect(markerOffset).toBeGreaterThanOrEqual(encodeGpt(disk).primary.length);
    expect(markerOffset + 4096).toBeLessThanOrEqual(disk.partitions[0]!.firstLba * 512);
  });

  it("has the same identifiers in every build, others on another board", () => {
    expect(layOut(layout, target)).toEqual(disk);
    expect(derivedGuid(target, "disk")).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect(derivedGuid({ ...target, name: "arm64" }, "disk")).not.toBe(disk.guid);
  });
});
