import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { elfNeeds } from "./elf.ts";

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
