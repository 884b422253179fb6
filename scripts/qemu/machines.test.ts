import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { findFlow, flows, type MachineOptions, pairs, qemuArguments } from "./machines.ts";

const options: MachineOptions = {
  files: {
    disk: "d.img",
    variables: "v.fd",
    boardFolder: "b",
    consoleLog: "c.log",
    loaderLog: "l.log",
    qmpSocket: "q",
  },
  forwards: [{ hostPort: 16443, guestPort: 6443 }],
  fwCfg: [{ name: "opt/mote/token", value: "a,b" }],
};

describe("flows", () => {
  test("names are unique and say what they are", () => {
    expect(new Set(flows.map((flow) => flow.name)).size).toBe(flows.length);
    expect(flows.map((flow) => flow.name)).toEqual([
      "amd64-bios",
      "amd64-uefi",
      "arm64-uefi",
      "arm64-uboot",
      "armhf-uefi",
      "armhf-uboot",
      "rpi3",
    ]);
  });

  test.each([
    [{ arch: "amd64" }, "amd64-uefi"],
    [{ arch: "amd64", firmware: "bios" }, "amd64-bios"],
    [{ arch: "arm64", firmware: "uboot" }, "arm64-uboot"],
    [{ arch: "armhf" }, "armhf-uefi"],
    [{ arch: "arm64", board: "rpi3" }, "rpi3"],
  ])("%j is %s", (wanted, name) => expect(findFlow(wanted).name).toBe(name));

  test.each([
    [{ arch: "riscv64" }, "--arch riscv64 is not allowed; use amd64, arm64, armhf"],
    [{ arch: "amd64", firmware: "uboot" }, "--firmware uboot is not allowed for amd64; use bios, uefi"],
    [{ arch: "arm64", firmware: "bios" }, "--firmware bios is not allowed for arm64; use uefi, uboot"],
    [{ arch: "amd64", board: "rpi3" }, "--board rpi3 is not allowed for amd64; use generic"],
  ])("%j is refused", (wanted, message) => expect(() => findFlow(wanted)).toThrow(message));
});

describe("arguments", () => {
  const line = (name: string, more: Partial<MachineOptions> = {}) =>
    qemuArguments(flows.find((flow) => flow.name === name)!, { ...options, ...more }).join(" ");

  test("no x86 machine has cmpxchg16b", () => {
    for (const flow of flows.filter((one) => one.arch === "amd64")) expect(line(flow.name)).toContain("-cpu max,-cx16");
  });

  test.each(flows.map((flow) => [flow.name]))("%s emulates, forwards the API and has console and control", (name) => {
    expect(line(name)).toContain("-accel tcg");
    expect(line(name)).toContain("user,id=net0,hostfwd=tcp:127.0.0.1:16443-:6443");
    expect(line(name)).toContain("-serial chardev:console");
    expect(line(name)).toContain("logfile=c.log");
    expect(line(name)).toContain("-qmp unix:q,server=on,wait=off");
  });

  test("firmware: BIOS has none, UEFI two flashes of which one is written, U-Boot one file", () => {
    expect(line("amd64-bios")).not.toMatch(/pflash|-bios/);
    expect(line("arm64-uefi")).toContain("unit=0,readonly=on,file=/usr/share/AAVMF/AAVMF_CODE.fd");
    expect(line("arm64-uefi")).toContain("unit=1,file=v.fd");
    expect(line("armhf-uboot")).toContain("-bios /usr/lib/u-boot/qemu_arm/u-boot.bin");
  });

  test("U-Boot's device tree has the power button, which QEMU leaves out where it expects ACPI", () => {
    expect(line("arm64-uboot")).toContain("-M virt,acpi=off");
    expect(line("arm64-uefi")).not.toContain("acpi=off");
  });

  test("the Pi has an SD card, its own loader, fixed memory, and no network adapter for U-Boot to wear out", () => {
    const pi = line("rpi3", { memoryMib: 512 });
    expect(pi).toContain("-drive file=d.img,format=raw,if=sd");
    expect(pi).toContain("-netdev user,id=net0");
    expect(pi).not.toMatch(/-device .*netdev=/);
    expect(pi).toContain("-kernel b/u-boot.bin -dtb b/bcm2837-rpi-3-b.dtb");
    expect(pi).not.toContain("-m 512");
  });

  test("a wire beside the way outside, or alone; a clock", () => {
    const wire = { mac: "52:54:00:88:00:01", localPort: 7001, remotePort: 7002 };
    const both = line("amd64-bios", { wire });
    expect(both).toContain("-netdev socket,id=wire0,udp=127.0.0.1:7002,localaddr=127.0.0.1:7001");
    expect(both).toContain("virtio-net-pci,netdev=wire0,mac=52:54:00:88:00:01");
    expect(both).toContain("virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56");
    const alone = line("amd64-bios", { wire, isAlone: true, clock: "1970-01-01T00:00:00" });
    expect(alone).not.toContain("net0");
    expect(alone).toContain("-rtc base=1970-01-01T00:00:00");
    expect(line("amd64-bios")).not.toMatch(/wire0|-rtc/);
  });

  test("every architecture has a pair for each overlay", () => {
    expect(new Set(pairs.map(({ flow, backend }) => `${flow.arch} ${backend}`)).size).toBe(6);
    expect(new Set([...flows, ...pairs].map(({ name }) => name)).size).toBe(flows.length + pairs.length);
  });

  test("memory, fw_cfg with its commas, more disk options", () => {
    expect(line("amd64-uefi")).toContain("-m 1024");
    expect(line("amd64-uefi", { memoryMib: 384 })).toContain("-m 384");
    expect(line("amd64-uefi")).toContain("-fw_cfg name=opt/mote/token,string=a,,b");
    expect(line("armhf-uefi")).not.toContain("fw_cfg");
    expect(line("amd64-uefi", { diskOptions: "cache=unsafe" })).toContain("file=d.img,format=raw,cache=unsafe,if=none");
  });

  test.runIf(existsSync("/usr/share/AAVMF/AAVMF_CODE.fd"))("firmware files are where Debian puts them", () => {
    for (const flow of flows.filter((one) => one.flash && existsSync(one.flash.code))) {
      expect(existsSync(flow.flash!.variables)).toBe(true);
    }
  });
});
