import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type DebianPackage, fetchDebianPackages, MirrorError, PackageGoneError } from "./debian.ts";

const content = "a package\n";
const wanted: DebianPackage = {
  name: "runc",
  version: "1:1.1-2",
  arch: "armhf",
  sha256: createHash("sha256").update(content).digest("hex"),
};
const security = "http://m/debian-security/dists/trixie-security/main/binary-armhf/Packages.xz";
const main = "http://m/debian/dists/trixie/InRelease";

/** Stands in for apt: what its index says after an update, and what it can download then. */
function apt(folder: string, { update, knows }: { update: string; knows: boolean }): void {
  const scripts = {
    "apt-get": `case "$*" in
      *" update") touch ${folder}/updated; ${update} ;;
      *download*) [ -e ${folder}/updated ] && ${knows} || exit 100; printf '${content.trim()}\\n' >runc_1%3a1.1-2_armhf.deb ;;
    esac`,
    "apt-cache": `[ -e ${folder}/updated ] && ${knows} && echo SHA256: x`,
  };
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(folder, name), 0o755);
  }
}

describe("locked packages", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "mote-apt-"));
    vi.stubEnv("PATH", `${folder}:${process.env["PATH"]}`);
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
    rmSync(folder, { recursive: true });
  });
  const fetch = () => fetchDebianPackages([wanted], "armhf", { folder, areas: "all" });

  it("are fetched once and checked", async () => {
    apt(folder, { update: "true", knows: true });
    const [file] = await fetch();
    expect(existsSync(file!)).toBe(true);
    apt(folder, { update: "exit 1", knows: false });
    expect(await fetch()).toEqual([file]);
    writeFileSync(file!, "other bytes");
    await expect(fetch()).rejects.toThrow(MirrorError);
  });

  it("that are gone from the mirror are named, with what to do", async () => {
    apt(folder, { update: "true", knows: false });
    const error = await fetch().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(PackageGoneError);
    expect((error as Error).message).toBe(
      "the mirror no longer has runc 1:1.1-2 (armhf); `npm run image:lock` moves the lock to what it has now",
    );
  });

  it.each(["E", "W"])("are not called gone when the mirror cannot be read (%s)", async (letter) => {
    const code = letter === "E" ? 100 : 0;
    apt(folder, {
      update: `echo "${letter}: Failed to fetch ${main}  Connection refused" >&2; exit ${code}`,
      knows: false,
    });
    const error = await fetch().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(MirrorError);
    expect((error as Error).message).toContain("Connection refused; MOTE_DEBIAN_MIRROR names another");
  });

  it("are fetched although the index of security updates is damaged, and the user is told", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    apt(folder, { update: `echo "E: Failed to fetch ${security}  unexpected size" >&2; exit 100`, knows: true });
    expect(await fetch()).toHaveLength(1);
    expect(warn).toHaveBeenCalledWith(expect.stringContaining(security));
  });
});
