import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { elfNeeds, findSymbol, withoutExports } from "./elf.ts";

describe("elfNeeds", () => {
  it("reads what the running Node asks for", () => {
    const needs = elfNeeds(readFileSync(process.execPath));
    expect(needs?.libraries).toContain("libc.so.6");
    expect(existsSync(needs!.interpreter!)).toBe(true);
  });

  it.skipIf(!existsSync("/usr/bin/readelf"))("agrees with readelf", () => {
    for (const path of ["/bin/sh", "/usr/bin/env", "/usr/bin/apt"]) {
      const said = execFileSync("/usr/bin/readelf", ["-d", path], { encoding: "utf8" });
      const wanted = [...said.matchAll(/NEEDED.*\[(.+)\]/g)].map((m) => m[1]);
      expect(elfNeeds(readFileSync(path))?.libraries).toEqual(wanted);
    }
  });

  it("is undefined for anything else", () => {
    expect(elfNeeds(Buffer.from("#!/bin/sh\n"))).toBeUndefined();
    expect(elfNeeds(Buffer.alloc(100))).toBeUndefined();
  });
});

describe("findSymbol", () => {
  it("finds what a library offers", () => {
    const path = readdirSync("/usr/lib/x86_64-linux-gnu").find((name) => /^libz\.so\.1\.\d/.test(name));
    const bytes = readFileSync(`/usr/lib/x86_64-linux-gnu/${path}`);
    const symbol = findSymbol(bytes, /^zlibVersion$/)!;
    expect(symbol.sizeBytes).toBeGreaterThan(0);
    expect(symbol.offset + symbol.sizeBytes).toBeLessThan(bytes.length);
    expect(findSymbol(bytes, /^no_such_symbol$/)).toBeUndefined();
  });
});

describe("withoutExports", () => {
  const go = ["/usr/bin/containerd", "/usr/bin/ctr"].find(existsSync);

  it.skipIf(!go || process.arch !== "x64")("leaves a Go program that runs and names no function of its own", () => {
    const before = readFileSync(go!);
    const after = withoutExports(before);
    expect(after).toBeDefined();
    expect(after!.bytes.length).toBe(before.length);
    expect(after!.zeroedBytes).toBeGreaterThan(1024 * 1024);
    expect(elfNeeds(after!.bytes)).toEqual(elfNeeds(before));
    expect(withoutExports(after!.bytes)?.bytes.equals(after!.bytes) ?? true).toBe(true);
    const folder = mkdtempSync(join(tmpdir(), "mote-elf-"));
    try {
      const path = join(folder, "program");
      writeFileSync(path, after!.bytes, { mode: 0o755 });
      const said = (program: string) => execFileSync(program, ["--version"], { encoding: "utf8" });
      expect(said(path).split(" ").slice(1)).toEqual(said(go!).split(" ").slice(1));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("leaves libraries and what offers nothing alone", () => {
    expect(withoutExports(readFileSync("/bin/sh"))).toBeUndefined();
    expect(withoutExports(Buffer.from("#!/bin/sh\n"))).toBeUndefined();
  });
});
