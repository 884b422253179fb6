// `npm run image -- --arch amd64|arm64|armhf [--board generic|rpi] [--fast] [--key FILE]`: the flashable disk image of one
// board, into build/image. Needs no root, no loop device and no emulation. Same commit, same bytes; --fast compresses
// less and leaves out the .xz.
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { distFolder } from "#scripts/build/bundle.ts";
import { buildImages } from "#scripts/build/images.ts";
import { MirrorError, PackageGoneError } from "#scripts/debian.ts";
import { main, runStages, type Stage, seconds, UserError } from "#scripts/stages.ts";
import { type BuiltDisk, buildDisk } from "./disk.ts";
import { buildInitramfs } from "./initramfs.ts";
import { collectLicenses } from "./licenses.ts";
import { type LockedGroups, readImageLock } from "./lock.ts";
import { buildBlockMap, buildSbom, compress, signingKey, writeSums } from "./publish.ts";
import { finishRoot, type Kernel, prepareKernel, unpackPackages } from "./root.ts";
import { imageFolder, readTarget, type Target } from "./target.ts";
import { prepareTools, type Tools } from "./tools.ts";

export interface ImageOptions {
  readonly isFast: boolean;
  readonly key?: string | undefined;
}

const release = { squashLevel: 19, initramfsLevel: 19 };
const fast = { squashLevel: 3, initramfsLevel: 3 };

/** Stages that end with `<target.output>.img` and its companions. */
export function imageStages(target: Target, options: ImageOptions): Stage[] {
  const levels = options.isFast ? fast : release;
  const squashfs = join(target.workFolder, "root.squashfs");
  const image = `${target.output}.img`;
  const licenses = `${target.output}.licenses.txt`;
  let tools: Tools;
  let locked: LockedGroups;
  let kernel: Kernel;
  let initramfs: Buffer;
  let disk: BuiltDisk;
  return [
    ...buildStages,
    {
      name: "host tools",
      run: async () => {
        tools = await explainGone(prepareTools());
      },
    },
    {
      name: "unpack packages",
      run: async () => {
        locked = await readImageLock(target.arch, target.board);
        return explainGone(unpackPackages(target, locked));
      },
    },
    {
      name: "root file system",
      run: async () => {
        await buildImages({ architectures: [target.arch] });
        await fs.writeFile(licenses, await collectLicenses(target));
        kernel = await prepareKernel(target, tools);
        return finishRoot(target, kernel, tools, distFolder);
      },
    },
    {
      name: "initramfs",
      run: async () => {
        initramfs = await buildInitramfs(target, kernel, tools, levels.initramfsLevel);
        return mebibytes(initramfs.length);
      },
    },
    {
      name: `squashfs (zstd ${levels.squashLevel})`,
      run: async () => {
        await squash(target, tools, squashfs, levels.squashLevel);
        return mebibytes((await fs.stat(squashfs)).size);
      },
    },
    {
      name: "disk image",
      run: async () => {
        disk = await buildDisk(target, { squashfs, initramfs, kernel }, tools, image);
        return Object.entries(disk.parts)
          .map(([name, bytes]) => `${name} ${mebibytes(bytes)}`)
          .join(", ");
      },
    },
    {
      name: "checksums, contents, signature",
      run: async () => {
        const { key, said } = await signingKey(options.key);
        await fs.writeFile(`${image}.bmap`, await buildBlockMap(image, disk));
        await fs.writeFile(`${target.output}.spdx.json`, await buildSbom(target, locked, disk));
        const compressed = await compress(image, tools, options.isFast);
        await writeSums([image, `${image}.bmap`, `${target.output}.spdx.json`, licenses, ...compressed], key);
        return said;
      },
    },
  ];
}

async function squash(target: Target, tools: Tools, output: string, level: number): Promise<void> {
  const sort = join(target.workFolder, "sort");
  // What changes with every release lies at the end, so that the blocks before it stay the same.
  await fs.writeFile(sort, "usr/lib/mote -100\n");
  await fs.rm(output, { force: true });
  const time = String(target.epochSeconds);
  const flags = "-noappend -all-root -no-xattrs -quiet -no-progress -b 256K -comp zstd".split(" ");
  const settings = ["-Xcompression-level", String(level), "-mkfs-time", time, "-all-time", time, "-sort", sort];
  await tools.run("mksquashfs", [join(target.workFolder, "root"), output, ...flags, ...settings]);
}

async function explainGone<T>(work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    if (error instanceof PackageGoneError || error instanceof MirrorError) throw new UserError(error.message);
    throw error;
  });
}

const mebibytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

if (process.argv[1]?.endsWith("scripts__image__image.mjs")) {
  await main(async () => {
    process.umask(0o022);
    const { values } = parseArgs({
      options: {
        arch: { type: "string" },
        board: { type: "string", default: "generic" },
        fast: { type: "boolean", default: false },
        key: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
    const usage = `usage: npm run image -- --arch amd64|arm64|armhf [--board generic|rpi] [--fast] [--key FILE]`;
    if (values.help) return console.log(usage);
    if (values.arch === undefined) throw new UserError(usage);
    const target = await readTarget(values.arch, values.board);
    const elapsedMs = await runStages(imageStages(target, { isFast: values.fast, key: values.key }));
    console.log(`built ${target.output}.img and what belongs to it in ${imageFolder} in ${seconds(elapsedMs)}`);
  });
}
