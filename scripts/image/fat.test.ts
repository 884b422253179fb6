import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { buildFat, type FatFile, type FatOptions } from "./fat.ts";

const folder = mkdtempSync(join(tmpdir(), "mote-fat-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const hasTools = ["/usr/bin/mcopy", "/usr/sbin/fsck.fat"].every((path) => existsSync(path));
const options: FatOptions = { sizeBytes: 128 << 20, label: "BOOT", volumeId: 0x1234abcd, mtimeSeconds: 1_700_000_000 };

async function write(files: readonly FatFile[], with_: FatOptions): Promise<string> {
  const path = join(folder, "volume.img");
  rmSync(path, { force: true });
  const handle = await open(path, "w");
  await handle.truncate(with_.sizeBytes);
  for (const { offset, data } of buildFat(files, with_)) await handle.write(data, 0, data.length, offset);
  await handle.close();
  return path;
}

describe("buildFat", () => {
  it.skipIf(!hasTools)("is clean for fsck.fat and reads back with mtools", async () => {
    const random = seededRandom(3);
    const bytes = (size: number): Uint8Array => random.bytes(size);
    const files: FatFile[] = [
      { path: "EFI/BOOT/BOOTX64.EFI", data: bytes(70_001) },
      { path: "grub/grub.cfg", data: bytes(3) },
      { path: "grub/grubenv", data: bytes(1024) },
      { path: "empty.txt", data: new Uint8Array() },
      { path: "vmlinuz", data: bytes(5_000_000) },
      { path: "bcm2711-rpi-4-b.dtb", data: bytes(4096) },
      { path: "bcm2711-rpi-400.dtb", data: bytes(4097) },
      { path: "overlays/a name of more than two long entries.dtbo", data: bytes(1) },
      // A folder of more than one cluster.
      ...Array.from({ length: 200 }, (_, i) => ({ path: `many/file-number-${i}.data`, data: bytes(i) })),
    ];
    for (const sizeBytes of [64 << 20, 128 << 20, 256 << 20]) {
      const path = await write(files, { ...options, sizeBytes });
      const said = execFileSync("/usr/sbin/fsck.fat", ["-n", "-v", path], { encoding: "utf8" });
      expect(said).toContain(`${files.length + 6} files`);
      for (const file of files.filter((f) => !f.path.startsWith("many/") || f.path.includes("99"))) {
        const read = execFileSync("/usr/bin/mcopy", ["-n", "-i", path, `::${file.path}`, "-"], { maxBuffer: 64 << 20 });
        expect(Buffer.compare(read, Buffer.from(file.data)), file.path).toBe(0);
      }
    }
  });

  it.skipIf(!hasTools)("takes more files later", async () => {
    const path = await write([{ path: "token.txt", data: Buffer.from("x") }], options);
    execFileSync("/usr/bin/mcopy", ["-i", path, "package.json", "::mote.yaml"]);
    execFileSync("/usr/sbin/fsck.fat", ["-n", path]);
  });

  it("gives the same bytes in whatever order the files come", () => {
    const files = ["b/y", "a/x", "c"].map((path) => ({ path, data: Buffer.from(path) }));
    const bytes = (list: readonly FatFile[]): Buffer => {
      const extents = buildFat(list, options);
      return Buffer.concat([Buffer.from(extents.map((e) => e.offset).join()), ...extents.map((e) => e.data)]);
    };
    expect(Buffer.compare(bytes([...files].reverse()), bytes(files))).toBe(0);
  });

  it.each<[string, FatFile[], Partial<FatOptions>]>([
    ["there twice", [file("grub"), file("GRUB/x")], {}],
    ["there twice", [file("a"), file("A")], {}],
    ["not allowed", [file("a/../b")], {}],
    ["do not fit", [{ path: "a", data: new Uint8Array(65 << 20) }], { sizeBytes: 64 << 20 }],
    ["too few", [], { sizeBytes: 16 << 20 }],
  ])("refuses what is %s", (message, files, extra) => {
    expect(() => buildFat(files, { ...options, ...extra })).toThrow(message);
  });
});

function file(path: string): FatFile {
  return { path, data: Buffer.from("x") };
}
