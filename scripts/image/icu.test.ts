import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { buildDataLibrary, findSymbol } from "./elf.ts";
import { readIcuPackage, trimIcuLibrary, writeIcuPackage } from "./icu.ts";

/** Magic, sizes and "CmnD" as ICU's tools write them; the rest says nothing to a reader. */
function header(): Uint8Array {
  const bytes = Buffer.alloc(48);
  bytes.writeUInt16LE(48, 0);
  bytes.set([0xda, 0x27, 20, 0, 0, 0, 0, 0, 2, 0], 2);
  bytes.write("CmnD", 12, "latin1");
  return bytes;
}
const item = (name: string, text: string) => ({ name: `icudt76l/${name}`, data: Buffer.from(text) });
const items = [
  item("root.res", "root"),
  item("de.res", "deutsch"),
  item("en.res", "english, and longer than sixteen"),
  item("zone/en.res", "z"),
];

/** The smallest ELF header of another machine: what a library is made like. */
function model(is64: boolean, machine: number, flags: number): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1]);
  bytes.writeUInt16LE(3, 16);
  bytes.writeUInt16LE(machine, 18);
  bytes.writeUInt32LE(flags, is64 ? 48 : 36);
  return bytes;
}

const machines = [
  { name: "amd64", is64: true, machine: 62, flags: 0, said: /X86-64/ },
  { name: "arm64", is64: true, machine: 183, flags: 0, said: /AArch64/ },
  { name: "armhf", is64: false, machine: 40, flags: 0x5000400, said: /hard-float ABI/ },
] as const;

describe("ICU package", () => {
  it("comes back sorted and aligned", () => {
    const bytes = writeIcuPackage({ header: header(), items });
    const back = readIcuPackage(bytes);
    expect(back.items.map((i) => i.name)).toEqual([...items.map((i) => i.name)].sort());
    for (const { name, data } of back.items) {
      expect((data.byteOffset - bytes.byteOffset) % 16).toBe(0);
      const before = items.find((i) => i.name === name)!.data;
      expect(Buffer.from(data.subarray(0, before.length))).toEqual(before);
    }
    expect(Buffer.from(writeIcuPackage(back))).toEqual(bytes);
  });

  it.each([
    ["magic", (b: Buffer) => b.fill(0, 2, 4)],
    ["kind", (b: Buffer) => b.write("ResB", 12)],
    ["endian", (b: Buffer) => b.fill(1, 8, 9)],
    ["counts", (b: Buffer) => b.writeUInt32LE(0x7fffffff, 48)],
    ["outside", (b: Buffer) => b.writeUInt32LE(0x7fffffff, 48 + 8)],
  ])("is refused when damaged: %s", (why, damage) => {
    const bytes = writeIcuPackage({ header: header(), items });
    damage(bytes);
    expect(() => readIcuPackage(bytes)).toThrow(why);
  });
});

describe.each(machines)("ICU library for $name", ({ is64, machine, flags, said }) => {
  const whole = buildDataLibrary(model(is64, machine, flags), {
    soname: "libicudata.so.76",
    symbol: "icudt76_dat",
    data: writeIcuPackage({ header: header(), items }),
  });
  const sectionless = () => trimIcuLibrary(whole, "libicudata.so.76", ["root\\.res"]);

  it("holds what is kept, where its symbol points", () => {
    const library = trimIcuLibrary(withSections(whole, is64), "libicudata.so.76", ["root\\.res", "(zone/)?en\\.res"]);
    const symbol = findSymbol(withSections(library, is64), /^icudt76_dat$/)!;
    expect(symbol.offset % 16).toBe(0);
    const kept = readIcuPackage(library.subarray(symbol.offset, symbol.offset + symbol.sizeBytes));
    expect(kept.items.map((i) => i.name)).toEqual(["icudt76l/en.res", "icudt76l/root.res", "icudt76l/zone/en.res"]);
  });

  it("stops at an expression that matches nothing", () => {
    expect(() => trimIcuLibrary(withSections(whole, is64), "x.so", ["root\\.res", "fr\\.res"])).toThrow("fr\\.res");
    expect(sectionless).toThrow("offers no icudt");
  });

  it.skipIf(!existsSync("/usr/bin/readelf"))("is a library in readelf's eyes", () => {
    const folder = mkdtempSync(join(tmpdir(), "mote-icu-"));
    try {
      const path = join(folder, "libicudata.so.76");
      writeFileSync(path, whole);
      const all = execFileSync("/usr/bin/readelf", ["-hldW", path], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      });
      expect(all).toMatch(said);
      expect(all).toContain("[libicudata.so.76]");
      expect(all).toMatch(/GNU_STACK.* RW /);
      const symbols = execFileSync("/usr/bin/readelf", ["-DsW", path], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      });
      expect(symbols).toMatch(/OBJECT\s+GLOBAL\s+DEFAULT\s+1 icudt76_dat/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** The library as a linker leaves it: with a table of sections that names its symbols and strings. */
function withSections(library: Buffer, is64: boolean): Buffer {
  const each = is64 ? 64 : 40;
  const dynamicAt = Number(is64 ? library.readBigUInt64LE(64 + 2 * 56 + 8) : library.readUInt32LE(52 + 2 * 32 + 4));
  const width = is64 ? 8 : 4;
  const word = (at: number) => Number(is64 ? library.readBigUInt64LE(at) : library.readUInt32LE(at));
  const value = (kind: number): number => {
    for (let at = dynamicAt; ; at += 2 * width) if (word(at) === kind) return word(at + width);
  };
  const [symbolsAt, stringsAt, stringBytes] = [value(6), value(5), value(10)];
  const names = Buffer.from("\0.dynsym\0.dynstr\0.shstrtab\0");
  const at = Math.ceil((library.length + names.length) / 8) * 8;
  const out = Buffer.alloc(at + 4 * each);
  library.copy(out);
  names.copy(out, library.length);
  const rows = [
    [1, 11, symbolsAt, 2 * (is64 ? 24 : 16)],
    [9, 3, stringsAt, stringBytes],
    [17, 3, library.length, names.length],
  ] as const;
  for (const [i, [nameAt, type, offset, size]] of rows.entries()) {
    const h = at + (i + 1) * each;
    out.writeUInt32LE(nameAt, h);
    out.writeUInt32LE(type, h + 4);
    const put = (place: number, v: number) =>
      is64 ? out.writeBigUInt64LE(BigInt(v), h + place) : out.writeUInt32LE(v, h + place);
    put(is64 ? 24 : 16, offset);
    put(is64 ? 32 : 20, size);
  }
  if (is64) out.writeBigUInt64LE(BigInt(at), 40);
  else out.writeUInt32LE(at, 32);
  out.writeUInt16LE(each, is64 ? 58 : 46);
  out.writeUInt16LE(4, is64 ? 60 : 48);
  out.writeUInt16LE(3, is64 ? 62 : 50);
  return out;
}
