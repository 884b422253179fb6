import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import { type BlockDevice, listBlockDevices } from "#platform/block-devices.ts";
import { systemCommands } from "#platform/processes.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { findPartitions, isWritable, openStorage } from "./storage.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync("/tmp/mote-storage-");
});
afterEach(() => rmSync(folder, { recursive: true }));

const device = (name: string, more: Partial<BlockDevice> = {}): BlockDevice => ({
  ...{ name, path: `/dev/${name}`, disk: name.replace(/p?\d+$/, ""), bytes: 1024, sectorBytes: 512, slaves: [] },
  ...more,
});
const flashed = (disk: string, p = "", guid = "1"): BlockDevice[] => [
  device(disk, { disk }),
  device(`${disk}${p}1`, { disk, number: 1, label: "BOOT", partUuid: guid }),
  device(`${disk}${p}5`, { disk, number: 5, label: "root-a" }),
  device(`${disk}${p}6`, { disk, number: 6, label: "root-b" }),
  device(`${disk}${p}7`, { disk, number: 7, label: "data" }),
];
const verity = (slave: string) => device("dm-0", { disk: "dm-0", slaves: [slave] });

describe("findPartitions", () => {
  const names = (devices: BlockDevice[], id?: string) => {
    const { boot, data, disk } = findPartitions(devices, id);
    return [boot.name, data.name, disk.name];
  };
  test("the disk below the verified root, although another carries the same labels", () => {
    const two = [...flashed("sda"), ...flashed("mmcblk0", "p", "2"), device("dm-3", { slaves: ["sda9"] })];
    expect(names([...two, verity("mmcblk0p6")])).toEqual(["mmcblk0p1", "mmcblk0p7", "mmcblk0"]);
    expect(names([...two, verity("sda5")])).toEqual(["sda1", "sda7", "sda"]);
  });
  test("the partition that the loader named", () => {
    const two = [...flashed("sda"), ...flashed("vda", "", "2"), verity("sda5")];
    expect(names(two, "2")).toEqual(["vda1", "vda7", "vda"]);
    expect(names(two, "unknown")).toEqual(["sda1", "sda7", "sda"]);
  });
  test("by label where there is neither", () => expect(names(flashed("vda"))).toEqual(["vda1", "vda7", "vda"]));
  test("a seventh partition of another name is somebody else's", () => {
    const other = flashed("vda").map((d) => (d.number === 7 ? device("vda7", { ...d, label: "photos" }) : d));
    expect(() => names(other)).toThrow(/no disk with the partitions BOOT and data/);
  });
  test("says what there is otherwise", () => {
    expect(() => names([device("vda"), device("vda1", { disk: "vda", number: 1 })])).toThrow(
      /no disk with .* found vda1/,
    );
    expect(() => names([])).toThrow(/found none/);
  });
});

test("listBlockDevices reads sysfs", async () => {
  const disk = `${folder}/devices/mmc/mmcblk0`;
  mkdirSync(`${disk}/queue`, { recursive: true });
  mkdirSync(`${disk}/mmcblk0p7`);
  mkdirSync(`${folder}/devices/virtual/dm-0/slaves/mmcblk0p5`, { recursive: true });
  mkdirSync(`${folder}/class/block`, { recursive: true });
  writeFileSync(`${disk}/uevent`, "DEVNAME=mmcblk0\nDEVTYPE=disk\n");
  writeFileSync(`${disk}/size`, "200\n");
  writeFileSync(`${disk}/queue/logical_block_size`, "4096\n");
  writeFileSync(`${disk}/mmcblk0p7/uevent`, "DEVNAME=mmcblk0p7\nPARTN=7\nPARTNAME=data\nPARTUUID=ABC\n");
  writeFileSync(`${disk}/mmcblk0p7/size`, "100\n");
  for (const path of ["mmc/mmcblk0", "mmc/mmcblk0/mmcblk0p7", "virtual/dm-0"]) {
    symlinkSync(`../../devices/${path}`, `${folder}/class/block/${path.split("/").at(-1)}`);
  }
  const [dm, whole, part] = await listBlockDevices(folder);
  expect(dm).toMatchObject({ name: "dm-0", slaves: ["mmcblk0p5"] });
  expect(whole).toMatchObject({ name: "mmcblk0", disk: "mmcblk0", bytes: 102_400, sectorBytes: 4096 });
  expect(part).toMatchObject({ disk: "mmcblk0", number: 7, label: "data", partUuid: "abc", path: "/dev/mmcblk0p7" });
  expect(await listBlockDevices(`${folder}/none`)).toEqual([]);
});

test("whether the data partition can be written is in the table of mounts", () => {
  const table = (options: string) =>
    `proc /proc proc rw 0 0\n/dev/vda7 /data ext4 ${options} 0 0\nx /data/a ext4 ro 0 0\n`;
  expect(isWritable(table("rw,noatime,errors=remount-ro"), "/data")).toBe(true);
  expect(isWritable(table("ro,noatime,errors=remount-ro"), "/data")).toBe(false);
  expect(isWritable("", "/data")).toBe(true);
});

test("folders of somebody else are used as they are; writers take turns and a failure does not stop the next", async () => {
  const [bootDir, dataDir] = [`${folder}/boot`, `${folder}/data`];
  const deps = { commands: systemCommands, random: seededRandom(1), log: silentLogger };
  mkdirSync(bootDir);
  writeFileSync(`${bootDir}/factory-reset`, "");
  const storage = await openStorage({ bootDir, dataDir, hasOwnDisk: false }, deps);
  expect(existsSync(dataDir)).toBe(true);
  expect(readFileSync(`${bootDir}/factory-reset`, "utf8")).toBe("");
  const steps: string[] = [];
  const slow = storage.writeBoot(async () => {
    steps.push("a");
    await Promise.resolve();
    steps.push("b");
    throw new Error("broken");
  });
  const next = storage.writeBoot(async () => void steps.push("c"));
  await expect(slow).rejects.toThrow("broken");
  await next;
  expect(steps).toEqual(["a", "b", "c"]);
});
