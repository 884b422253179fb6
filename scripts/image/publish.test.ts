import { createHash, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildBlockMap, buildSbom, signingKey } from "./publish.ts";
import { readTarget, type Target } from "./target.ts";

const sha256 = (data: string | Uint8Array): string => createHash("sha256").update(data).digest("hex");
const one = { name: "libc6", version: "2.41-12+deb13u4", arch: "amd64", sha256: "0".repeat(64) } as const;

let folder: string;
let target: Target;
beforeAll(async () => {
  folder = await fs.mkdtemp(join(tmpdir(), "mote-publish-"));
  target = { ...(await readTarget("amd64", "generic")), workFolder: folder };
  await fs.mkdir(join(folder, "root/etc"), { recursive: true });
  await fs.writeFile(join(folder, "root/etc/hosts"), "127.0.0.1 localhost\n");
  await fs.symlink("hosts", join(folder, "root/etc/link"));
});
afterAll(() => fs.rm(folder, { recursive: true }));

describe("SBOM", () => {
  it("names every package once, and every file of root and FAT partitions by hash", async () => {
    const disk = { files: [{ path: "boot-a/vmlinuz", data: Buffer.from("kernel") }] };
    const text = await buildSbom(target, { root: [one], kernel: [one], boot: [one] }, disk);
    const sbom = JSON.parse(text);
    const purls = sbom.packages.map(
      (p: { externalRefs: { referenceLocator: string }[] }) => p.externalRefs[0]!.referenceLocator,
    );
    expect(purls).toContain("pkg:deb/debian/libc6@2.41-12%2Bdeb13u4?arch=amd64");
    expect(purls.some((p: string) => p.startsWith("pkg:deb/debian/busybox-static@"))).toBe(true);
    expect(purls.some((p: string) => p.startsWith("pkg:npm/%40sqlite.org/sqlite-wasm@"))).toBe(true);
    expect(purls.some((p: string) => p.includes("vitest"))).toBe(false);
    const ids = [...sbom.packages, ...sbom.files].map((x: { SPDXID: string }) => x.SPDXID);
    expect(new Set(ids).size).toBe(ids.length);
    expect(sbom.documentDescribes).toHaveLength(sbom.packages.length);
    const hashes = Object.fromEntries(
      sbom.files.map((f: { fileName: string; checksums: { checksumValue: string }[] }) => [
        f.fileName,
        f.checksums[1]!.checksumValue,
      ]),
    );
    expect(hashes).toEqual({
      "./etc/hosts": sha256("127.0.0.1 localhost\n"),
      "./boot-a/vmlinuz": sha256("kernel"),
    });
    expect(await buildSbom(target, { root: [one], kernel: [one], boot: [one] }, disk)).toBe(text);
  });
});

describe("block map", () => {
  it("joins what touches, hashes whole blocks, and carries its own checksum", async () => {
    const image = join(folder, "disk.img");
    const bytes = Buffer.alloc(10 * 4096);
    bytes
      .fill(1, 0, 512)
      .fill(2, 4096, 5000)
      .fill(3, 7 * 4096, 7 * 4096 + 10);
    await fs.writeFile(image, bytes);
    const extents = [
      { offset: 0, length: 512 },
      { offset: 4096, length: 904 },
      { offset: 7 * 4096, length: 10 },
    ];
    const text = await buildBlockMap(image, { sizeBytes: bytes.length, extents, parts: {}, rootHash: "", files: [] });
    const ranges = [...text.matchAll(/chksum="(\w+)">([\d-]+)</g)].map((m) => [m[2], m[1]]);
    expect(ranges).toEqual([
      ["0-1", sha256(bytes.subarray(0, 2 * 4096))],
      ["7", sha256(bytes.subarray(7 * 4096, 8 * 4096))],
    ]);
    expect(text).toContain("<MappedBlocksCount>3</MappedBlocksCount>");
    const own = /<BmapFileChecksum>(\w+)</.exec(text)![1]!;
    expect(sha256(text.replace(own, "0".repeat(64)))).toBe(own);
  });
});

describe("signing key", () => {
  const write = async (name: string, text: string): Promise<string> => {
    await fs.writeFile(join(folder, name), text);
    return join(folder, name);
  };

  it("is an Ed25519 key in PEM form, or says what is wrong", async () => {
    const good = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    const { key } = await signingKey(await write("good.pem", good));
    expect(createPublicKey(key).asymmetricKeyType).toBe("ed25519");
    expect(verify(null, Buffer.from("x"), createPublicKey(key), Buffer.alloc(64))).toBe(false);
    const other = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({
      type: "pkcs8",
      format: "pem",
    });
    await expect(signingKey(await write("ec.pem", other.toString()))).rejects.toThrow("an Ed25519 key is expected");
    await expect(signingKey(await write("no.pem", "hello"))).rejects.toThrow("no private key in PEM form");
    await expect(signingKey(join(folder, "missing.pem"))).rejects.toThrow("missing.pem");
  });
});
