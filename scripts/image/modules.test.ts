import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type ModuleRules, moduleFilter, moduleName, parseModules, resolveModules } from "./modules.ts";

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

describe("what rootfs/prune.json leaves", () => {
  const rules = JSON.parse(readFileSync("rootfs/prune.json", "utf8")).kernelModules as ModuleRules;
  const has = (board: string, path: string) => moduleFilter(rules, board)(`kernel/${path}.ko.xz`);
  // A device without these has no network, and nobody can repair it from afar.
  it.each([
    ["Pi 3: its USB host", "drivers/usb/dwc2/dwc2"],
    ["Pi 3: its Ethernet", "drivers/net/usb/smsc95xx"],
    ["Pi 3: its PHY", "drivers/net/phy/smsc"],
    ["Pi 3B+: its Ethernet", "drivers/net/usb/lan78xx"],
    ["Pi 3B+: its PHY", "drivers/net/phy/microchip"],
    ["Pi 4: its Ethernet", "drivers/net/ethernet/broadcom/genet/genet"],
    ["Pi 4: its PHY's bus", "drivers/net/mdio/mdio-bcm-unimac"],
    ["Pi 4: its PHY", "drivers/net/phy/bcm7xxx"],
    ["Pi 5: its Ethernet", "drivers/net/ethernet/cadence/macb"],
    ["Pi 5: its PHY", "drivers/net/phy/broadcom"],
    ["Wi-Fi", "drivers/net/wireless/broadcom/brcm80211/brcmfmac/brcmfmac"],
    ["watchdog", "drivers/watchdog/bcm2835_wdt"],
    ["USB adapters", "drivers/net/usb/r8152"],
    ["USB adapters", "drivers/net/usb/cdc_ether"],
  ])("a Raspberry Pi has %s: %s", (_, path) => expect(has("rpi", path)).toBe(true));
  it("and nothing of servers, while others have no Wi-Fi", () => {
    expect(has("rpi", "drivers/net/ethernet/mellanox/mlx5/core/mlx5_core")).toBe(false);
    expect(has("generic", "drivers/net/wireless/broadcom/brcm80211/brcmfmac/brcmfmac")).toBe(false);
  });
});
