// What is published beside a disk image: compressed forms, block map, list of everything inside, checksums, signature.
// Compressors are locked tools with a fixed number of threads' worth of block size, so that their output is repeatable.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { DebianPackage } from "#scripts/debian.ts";
import { UserError } from "#scripts/stages.ts";
import type { BuiltDisk } from "./disk.ts";
import type { LockedGroups } from "./lock.ts";
import { listTree } from "./root.ts";
import { imageFolder, type Target } from "./target.ts";
import type { Tools } from "./tools.ts";

const developmentKey = join("build", "keys", "development.pem");
const bmapBlockBytes = 4096;

/** The key to sign with: `path`, or one generated once for this checkout. Second value: what to tell the user. */
export async function signingKey(path: string | undefined): Promise<{ key: KeyObject; said: string }> {
  if (path !== undefined) {
    const pem = await fs.readFile(path, "utf8").catch((error: Error) => {
      throw new UserError(`--key ${path}: ${error.message}`);
    });
    let key: KeyObject;
    try {
      key = createPrivateKey(pem);
    } catch (error) {
      throw new UserError(`--key ${path}: no private key in PEM form (${(error as Error).message})`);
    }
    if (key.asymmetricKeyType !== "ed25519") throw new UserError(`--key ${path}: an Ed25519 key is expected`);
    return { key, said: `signed with ${path}` };
  }
  if (!existsSync(developmentKey)) {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    await fs.mkdir(dirname(developmentKey), { recursive: true });
    await fs.writeFile(developmentKey, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
    await fs.writeFile(developmentKey.replace(/\.pem$/, ".pub"), publicKey.export({ type: "spki", format: "pem" }));
  }
  const key = createPrivateKey(await fs.readFile(developmentKey, "utf8"));
  return { key, said: `signed with a DEVELOPMENT key (${developmentKey}); releases need --key` };
}

/** Block map 2.0, as bmaptool reads it: which blocks to write and their checksums. */
export async function buildBlockMap(image: string, disk: BuiltDisk): Promise<string> {
  const ranges: { first: number; last: number }[] = [];
  for (const { offset, length } of disk.extents) {
    const first = Math.floor(offset / bmapBlockBytes);
    const last = Math.floor((offset + length - 1) / bmapBlockBytes);
    const before = ranges.at(-1);
    if (before && first <= before.last + 1) before.last = Math.max(before.last, last);
    else ranges.push({ first, last });
  }
  const mapped = ranges.reduce((sum, r) => sum + r.last - r.first + 1, 0);
  const lines: string[] = [];
  for (const { first, last } of ranges) {
    const hash = await hashFile(image, "sha256", first * bmapBlockBytes, (last + 1) * bmapBlockBytes - 1);
    lines.push(`    <Range chksum="${hash}">${first === last ? first : `${first}-${last}`}</Range>`);
  }
  const text = (checksum: string): string =>
    [
      '<?xml version="1.0" ?>',
      '<bmap version="2.0">',
      `  <ImageSize>${disk.sizeBytes}</ImageSize>`,
      `  <BlockSize>${bmapBlockBytes}</BlockSize>`,
      `  <BlocksCount>${Math.ceil(disk.sizeBytes / bmapBlockBytes)}</BlocksCount>`,
      `  <MappedBlocksCount>${mapped}</MappedBlocksCount>`,
      "  <ChecksumType>sha256</ChecksumType>",
      `  <BmapFileChecksum>${checksum}</BmapFileChecksum>`,
      "  <BlockMap>",
      ...lines,
      "  </BlockMap>",
      "</bmap>",
      "",
    ].join("\n");
  // The file's own checksum is taken with zeros in its place.
  return text(
    createHash("sha256")
      .update(text("0".repeat(64)))
      .digest("hex"),
  );
}

/**
 * SPDX 2.3: every package by version and hash (Debian's, those in the container images that ship along, npm's in the
 * bundle), every file of the root and of the FAT partitions by hash.
 */
export async function buildSbom(target: Target, locked: LockedGroups, disk: Pick<BuiltDisk, "files">): Promise<string> {
  const root = join(target.workFolder, "root");
  const debian = [...locked.root, ...locked.kernel, ...locked.boot, ...(await imagePackages(target))].map((p) =>
    spdxPackage("deb", `deb/debian/${p.name}@${encodeURIComponent(p.version)}?arch=${p.arch}`, p.name, p.version, {
      algorithm: "SHA256",
      checksumValue: p.sha256,
    }),
  );
  const packages = [...new Map([...debian, ...(await bundledPackages())].map((p) => [p.SPDXID, p])).values()];
  const files: unknown[] = [];
  const add = (path: string, bytes: Uint8Array): void => {
    files.push({
      SPDXID: `SPDXRef-File-${files.length}`,
      fileName: `./${path}`,
      checksums: ["SHA1", "SHA256"].map((algorithm) => ({
        algorithm,
        checksumValue: createHash(algorithm.toLowerCase()).update(bytes).digest("hex"),
      })),
    });
  };
  for (const path of await listTree(root)) {
    if ((await fs.lstat(join(root, path))).isFile()) add(path, await fs.readFile(join(root, path)));
  }
  for (const { path, data } of disk.files) add(path, data);
  const document = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: basename(target.output),
    documentNamespace: `https://mote.invalid/spdx/${basename(target.output)}/${target.commit}`,
    creationInfo: {
      created: new Date(target.epochSeconds * 1000).toISOString().replace(/\.\d+Z$/, "Z"),
      creators: [`Tool: mote-image-${target.version}`],
    },
    documentDescribes: packages.map((p) => p.SPDXID),
    packages,
    files,
  };
  return `${JSON.stringify(document, null, 1)}\n`;
}

function spdxPackage(
  kind: "deb" | "npm",
  purl: string,
  name: string,
  version: string,
  checksum: { readonly algorithm: string; readonly checksumValue: string },
) {
  return {
    SPDXID: `SPDXRef-Package-${kind}-${`${name}-${version}`.replace(/[^A-Za-z0-9.-]/g, "-")}`,
    name,
    versionInfo: version,
    downloadLocation: "NOASSERTION",
    filesAnalyzed: false,
    checksums: [checksum],
    externalRefs: [{ referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: `pkg:${purl}` }],
  };
}

/** What the container images in the root are made from. */
export async function imagePackages(target: Target): Promise<readonly DebianPackage[]> {
  const path = join("scripts", "build", "images.lock.json");
  const { packages } = JSON.parse(await fs.readFile(path, "utf8")) as { packages: readonly DebianPackage[] };
  return packages.filter((p) => p.arch === "all" || p.arch === target.arch);
}

type NpmPackage = { readonly version?: string; readonly integrity?: string; readonly dev?: boolean };

/** npm's packages that become part of the bundle: everything that is not there for development only. */
async function lockedNpm(): Promise<(readonly [name: string, p: NpmPackage])[]> {
  const lock = JSON.parse(await fs.readFile("package-lock.json", "utf8")) as {
    readonly packages: Readonly<Record<string, NpmPackage>>;
  };
  return Object.entries(lock.packages)
    .filter(([path, p]) => path !== "" && !p.dev && p.version !== undefined)
    .map(([path, p]) => [path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length), p]);
}

export async function bundledNames(): Promise<readonly string[]> {
  return (await lockedNpm()).map(([name]) => name).sort();
}

async function bundledPackages(): Promise<ReturnType<typeof spdxPackage>[]> {
  return (await lockedNpm()).map(([name, { version, integrity }]) => {
    if (!integrity?.startsWith("sha512-")) throw new Error(`package-lock.json: ${name} has no SHA-512`);
    const checksumValue = Buffer.from(integrity.slice("sha512-".length), "base64").toString("hex");
    const purl = `npm/${encodeURIComponent(name).replaceAll("%2F", "/")}@${version}`;
    return spdxPackage("npm", purl, name, version!, { algorithm: "SHA512", checksumValue });
  });
}

export async function compress(image: string, tools: Tools, isFast: boolean): Promise<string[]> {
  await tools.run("zstd", ["-q", "-f", "-T2", isFast ? "-1" : "-12", "--long=27", image, "-o", `${image}.zst`]);
  if (isFast) {
    await fs.rm(`${image}.xz`, { force: true });
    return [`${image}.zst`];
  }
  // Blocks of a fixed size make the output independent of the number of threads.
  await tools.run("xz", ["-q", "-k", "-f", "-T2", "--block-size=64MiB", "-6", image]);
  return [`${image}.zst`, `${image}.xz`];
}

/** One SHA256SUMS for all images of the version; lines of other images stay. */
export async function writeSums(files: readonly string[], key: KeyObject): Promise<void> {
  const path = join(imageFolder, "SHA256SUMS");
  const lines = new Map<string, string>();
  const known = await fs.readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  for (const line of known.split("\n")) {
    const [hash, name] = line.split("  ");
    if (hash && name && existsSync(join(imageFolder, name))) lines.set(name, hash);
  }
  for (const file of files) lines.set(basename(file), await hashFile(file, "sha256"));
  const text = [...lines]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, hash]) => `${hash}  ${name}\n`)
    .join("");
  await fs.writeFile(path, text);
  await fs.writeFile(`${path}.sig`, sign(null, Buffer.from(text), key));
  await fs.writeFile(`${path}.pub`, createPublicKey(key).export({ type: "spki", format: "pem" }));
}

function hashFile(path: string, algorithm: string, start = 0, end = Number.POSITIVE_INFINITY): Promise<string> {
  return new Promise((resolve, reject) => {
    const hash = createHash(algorithm);
    createReadStream(path, { start, end, highWaterMark: 4 * 1024 * 1024 })
      .on("data", (chunk) => hash.update(chunk))
      .on("error", reject)
      .on("end", () => resolve(hash.digest("hex")));
  });
}
