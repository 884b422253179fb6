import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { hostHasAppArmor } from "./apparmor.ts";

const enabled = "sys/module/apparmor/parameters/enabled";
const mounted = "sys/kernel/security/apparmor/profiles";
const parser = "sbin/apparmor_parser";

test.each<[string, Record<string, string>, boolean]>([
  ["a distribution that uses it", { [enabled]: "Y\n", [mounted]: "", [parser]: "" }, true],
  ["the appliance: a kernel that could, and nothing else", { [enabled]: "Y\n" }, false],
  ["without its compiler", { [enabled]: "Y\n", [mounted]: "" }, false],
  ["without its file system", { [enabled]: "Y\n", [parser]: "" }, false],
  ["switched off", { [enabled]: "N\n", [mounted]: "", [parser]: "" }, false],
  ["a kernel without", {}, false],
])("%s", async (_, files, expected) => {
  const root = mkdtempSync("/tmp/mote-apparmor-");
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(`${root}/${path}`), { recursive: true });
      writeFileSync(`${root}/${path}`, text);
    }
    expect(await hostHasAppArmor(root)).toBe(expected);
  } finally {
    rmSync(root, { recursive: true });
  }
});
