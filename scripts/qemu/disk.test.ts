import { mkdtemp, open, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { encodeGpt } from "#wire/gpt.ts";
import { createDisk, findImage, partitionOf } from "./disk.ts";

const mib = 1024 ** 2;
let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "mote-disk-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function image(): Promise<string> {
  const path = join(folder, "small.img");
  const guid = "00000000-0000-4000-8000-000000000001";
  const { primary, backup, backupLba } = encodeGpt({
    guid,
    sectorBytes: 512,
    sectors: (8 * mib) / 512,
    hybrid: [],
    partitions: [
      {
        number: 1,
        name: "BOOT",
        typeGuid: "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
        guid: guid.replace(/1$/, "2"),
        firstLba: 2048,
        lastLba: 4095,
      },
    ],
  });
  const file = await open(path, "w");
  await file.write(primary, 0, primary.length, 0);
  await file.write(backup, 0, backup.length, backupLba * 512);
  await file.close();
  return path;
}

test("a disk is the image on a larger medium, and sparse", async () => {
  const disk = join(folder, "disk.img");
  await createDisk(await image(), disk, 1024 * mib);
  const { size, blocks } = await stat(disk);
  expect(size).toBe(1024 * mib);
  expect(blocks * 512).toBeLessThan(mib);
  expect(await partitionOf(disk, "BOOT")).toEqual({ number: 1, name: "BOOT", offsetBytes: mib, sizeBytes: mib });
  await expect(partitionOf(disk, "data")).rejects.toThrow("no partition data, only BOOT");
});

test("an image larger than the disk is refused", async () => {
  await expect(createDisk(await image(), join(folder, "disk.img"), 4 * mib)).rejects.toThrow("larger than the disk");
});

test("of several files of a target the plain one is taken, of no other target", async () => {
  for (const name of ["mote-1-arm64.img.xz", "mote-1-arm64.img.zst", "mote-1-arm64-rpi.img", "mote-1-amd64.img"]) {
    await writeFile(join(folder, name), "");
  }
  expect(await findImage(folder, "arm64")).toBe(join(folder, "mote-1-arm64.img.zst"));
  expect(await findImage(folder, "arm64-rpi")).toBe(join(folder, "mote-1-arm64-rpi.img"));
  expect(await findImage(folder, "armhf")).toBeUndefined();
  expect(await findImage(join(folder, "none"), "arm64")).toBeUndefined();
});
