import { execFileSync } from "node:child_process";
import { existsSync, lstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type CpioEntry, encodeCpio } from "./cpio.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-cpio-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const busybox = "/usr/bin/busybox";
const mtime = 1_700_000_000;
const entries: readonly CpioEntry[] = [
  { path: "usr/lib/odd", kind: "file", mode: 0o644, data: Buffer.from("five5") },
  { path: "init", kind: "file", mode: 0o755, data: Buffer.from("#!/bin/sh\n") },
  { path: "bin", kind: "link", mode: 0o777, data: Buffer.from("usr/bin") },
];

/** A reader of its own, so that the test does not need cpio on the host. */
function decode(archive: Uint8Array): Map<string, { mode: number; mtime: number; data: string }> {
  const bytes = Buffer.from(archive);
  const found = new Map<string, { mode: number; mtime: number; data: string }>();
  const align = (n: number): number => (n + 3) & ~3;
  for (let at = 0; ; ) {
    expect(bytes.toString("latin1", at, at + 6)).toBe("070701");
    const field = (i: number): number => Number.parseInt(bytes.toString("latin1", at + 6 + i * 8, at + 14 + i * 8), 16);
    const [mode, time, size, nameSize] = [field(1), field(5), field(6), field(11)];
    const name = bytes.toString("latin1", at + 110, at + 110 + nameSize - 1);
    const dataAt = align(at + 110 + nameSize);
    if (name === "TRAILER!!!") return found;
    found.set(name, { mode, mtime: time, data: bytes.toString("latin1", dataAt, dataAt + size) });
    at = align(dataAt + size);
  }
}

describe("encodeCpio", () => {
  it("holds every entry and the folders they lie in, folders first", () => {
    const found = decode(encodeCpio(entries, mtime));
    expect([...found.keys()]).toEqual(["bin", "init", "usr", "usr/lib", "usr/lib/odd"]);
    expect(found.get("usr/lib")).toEqual({ mode: 0o040755, mtime, data: "" });
    expect(found.get("usr/lib/odd")).toEqual({ mode: 0o100644, mtime, data: "five5" });
    expect(found.get("bin")).toEqual({ mode: 0o120777, mtime, data: "usr/bin" });
  });

  it("gives the same bytes in whatever order the entries come", () => {
    expect(encodeCpio([...entries].reverse(), mtime)).toEqual(encodeCpio(entries, mtime));
  });

  it.skipIf(!existsSync(busybox))("is unpacked by cpio as it was meant", () => {
    execFileSync(busybox, ["cpio", "-idm"], { cwd: folder, input: encodeCpio(entries, mtime), stdio: "pipe" });
    expect(readFileSync(join(folder, "usr/lib/odd"), "utf8")).toBe("five5");
    expect(lstatSync(join(folder, "init")).mode & 0o777).toBe(0o755);
    expect(readlinkSync(join(folder, "bin"))).toBe("usr/bin");
  });
});
