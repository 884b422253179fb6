import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Arch, isKernelPackage, lockText, parseLock } from "./lock.ts";

const archs: readonly Arch[] = ["amd64", "arm64", "armhf"];
const good = { name: "libc6", version: "2:2.41-12+deb13u1~x", arch: "amd64", sha256: "0".repeat(64) };
const groups = { root: [good], kernel: [good], boot: [good] };

describe("lock", () => {
  it.each(archs)("of %s is whole: a C library, a kernel, a loader, all for it", (arch) => {
    const path = `rootfs/packages.${arch}.lock.json`;
    const lock = parseLock(readFileSync(path, "utf8"), path);
    for (const g of [lock, ...Object.values(lock.boards ?? {})]) {
      const names = g.root.map((p) => p.name);
      for (const name of ["libc6", "nodejs", "containerd", "runc", "busybox-static", "e2fsprogs"])
        expect(names).toContain(name);
      expect(g.kernel.some((p) => /^linux-(image|modules)-\d/.test(p.name))).toBe(true);
      expect(g.boot.some((p) => p.name.startsWith("grub-efi-"))).toBe(true);
      for (const p of [...g.root, ...g.kernel, ...g.boot]) expect(["all", arch]).toContain(p.arch);
      expect(new Set(names).size).toBe(names.length);
    }
  });

  it("comes back from its text, one package a line", () => {
    const text = lockText({ ...groups, boards: { rpi: groups } });
    expect(parseLock(text, "x")).toEqual({ ...groups, boards: { rpi: groups } });
    expect(text.split("\n").filter((line) => line.includes('"sha256"'))).toHaveLength(6);
  });

  it.each([
    ["not JSON", "{"],
    ["root: a list", JSON.stringify({ ...groups, root: [] })],
    ["boot: {", JSON.stringify({ ...groups, boot: [{ ...good, sha256: "12" }] })],
    ["kernel: {", JSON.stringify({ ...groups, kernel: [{ ...good, version: "1.0; rm -rf" }] })],
    ["rpi: root: {", JSON.stringify({ ...groups, boards: { rpi: { ...groups, root: [{ ...good, name: "../x" }] } } })],
  ])("names the place that is wrong: %s", (message, text) => {
    expect(() => parseLock(text, "locks.json")).toThrow(`locks.json: ${message}`);
  });

  it("takes the kernel out of what its meta package drags in", () => {
    const of = (name: string) => isKernelPackage({ ...good, name } as Parameters<typeof isKernelPackage>[0]);
    expect(["linux-image-6.12.117+deb13-amd64", "linux-modules-7.2.12+deb13-arm64"].every(of)).toBe(true);
    expect(["linux-image-amd64", "linux-base", "initramfs-tools", "linux-libc-dev"].some(of)).toBe(false);
  });

  it("has a board file for every board, with loaders of packages it locks", () => {
    for (const name of readdirSync("firmware/boards").filter((n) => n.endsWith(".json"))) {
      const board = JSON.parse(readFileSync(`firmware/boards/${name}`, "utf8"));
      expect(name).toBe(`${board.arch}-${board.board}.json`);
      const path = `rootfs/packages.${board.arch}.lock.json`;
      const lock = parseLock(readFileSync(path, "utf8"), path);
      expect(board.board === "generic" || lock.boards?.[board.board]).toBeTruthy();
    }
  });
});
