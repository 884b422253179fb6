import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseModules, resolveModules } from "./modules.ts";

const folder = "firmware/initramfs";

test.each(["init", "watchdog.sh"])("%s is a script that the shell understands", (name) => {
  execFileSync("sh", ["-n", join(folder, name)]);
});

test("a kernel without any of the watchdogs is no failure", () => {
  const names = readFileSync(join(folder, "watchdogs"), "utf8").split("\n").filter(Boolean);
  expect(names.length).toBeGreaterThan(5);
  expect(resolveModules(parseModules("", ""), names)).toEqual([]);
});

/** The script with its paths below a folder, its programs replaced by ones that tell what they were asked. */
describe("arming the watchdog", () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync("/tmp/mote-watchdog-");
    for (const path of ["dev", "etc", "bin", "class", "device-tree"]) mkdirSync(join(root, path));
    writeFileSync(join(root, "etc/watchdogs"), "i6300esb.ko\n");
    writeFileSync(join(root, "class/timeout"), "60\n");
    writeFileSync(join(root, "class/state"), "inactive\n");
    const then = {
      insmod: "",
      usleep: "exec sleep 0.05",
      // As on a busy machine: the program is slow to begin.
      watchdog: `sleep 0.2; echo ran >>${root}/ran; echo active >${root}/class/state; exec sleep 60`,
    };
    for (const [name, rest] of Object.entries(then)) {
      writeFileSync(join(root, "bin", name), `#!/bin/sh\necho ${name} "$@" >>${root}/asked\n${rest}\n`);
      chmodSync(join(root, "bin", name), 0o755);
    }
  });
  afterEach(() => rmSync(root, { recursive: true }));

  function run(): string[] {
    const script = readFileSync(join(folder, "watchdog.sh"), "utf8")
      .replaceAll("[ -c /dev/", "[ -e /dev/")
      .replaceAll("/proc/device-tree", `${root}/device-tree`)
      .replaceAll("/sys/class/watchdog/watchdog0", `${root}/class`)
      .replaceAll("/etc/watchdogs", `${root}/etc/watchdogs`)
      .replaceAll("/dev/watchdog0", `${root}/dev/watchdog0`);
    const startedMs = performance.now();
    execFileSync("sh", ["-c", `${script}\nexit 0`], { env: { PATH: `${root}/bin:${process.env["PATH"]}` } });
    // The program that armed it is killed, not waited for.
    expect(performance.now() - startedMs).toBeLessThan(30_000);
    return readFileSync(join(root, "asked"), "utf8")
      .split("\n")
      .filter((line) => line !== "" && !/^usleep/.test(line));
  }
  const armed = () => `watchdog -F -T 60 -t 3600 ${root}/dev/watchdog0`;

  test("loads the drivers, then sets a minute", () => {
    writeFileSync(join(root, "dev/watchdog0"), "");
    expect(run()).toEqual(["insmod /lib/modules/i6300esb.ko", armed()]);
    // Not killed before it has armed anything, though the driver began with 60.
    expect(readFileSync(join(root, "ran"), "utf8")).toBe("ran\n");
  });
  test("a board without one goes on", () => expect(run()).toEqual(["insmod /lib/modules/i6300esb.ko"]));
  test.each([
    ["0000000000000000\0", false],
    ["", false],
    ["1000000012ab34cd\0", true],
  ])("a Raspberry Pi with serial number %j: %s", (serial, isArmed) => {
    writeFileSync(join(root, "dev/watchdog0"), "");
    writeFileSync(join(root, "device-tree/compatible"), "raspberrypi,3-model-b\0brcm,bcm2837\0");
    writeFileSync(join(root, "device-tree/serial-number"), serial);
    expect(run().slice(1)).toEqual(isArmed ? [armed()] : []);
  });
});
