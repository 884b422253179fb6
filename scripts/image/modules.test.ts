import { describe, expect, it } from "vitest";
import { moduleName, parseModules, resolveModules } from "./modules.ts";

const index = parseModules(
  [
    "kernel/fs/ext4/ext4.ko.xz: kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz",
    "kernel/fs/mbcache.ko.xz:",
    "kernel/fs/jbd2/jbd2.ko.xz: kernel/lib/crc16.ko.xz",
    "kernel/lib/crc16.ko.xz:",
    "kernel/drivers/md/dm-mod.ko:",
  ].join("\n"),
  "kernel/drivers/nvme/host/nvme-core.ko\n",
);

describe("modules", () => {
  it("knows one name in both spellings", () => {
    expect(moduleName("kernel/drivers/md/dm-mod.ko.xz")).toBe("dm_mod");
    expect(resolveModules(index, ["dm_mod"])).toEqual(resolveModules(index, ["dm-mod"]));
  });

  it("loads needs first and each once", () => {
    expect(resolveModules(index, ["jbd2", "ext4", "ext4"]).map(moduleName)).toEqual([
      "crc16",
      "jbd2",
      "mbcache",
      "ext4",
    ]);
  });

  it("leaves out what is built in or may be missing, and refuses the rest", () => {
    expect(resolveModules(index, ["nvme-core", "hyperdrive?"])).toEqual([]);
    expect(() => resolveModules(index, ["hyperdrive"])).toThrow("no module hyperdrive");
  });
});
