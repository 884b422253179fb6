// The disk of an emulated device: a private, sparse copy of the built image, larger than it as a card is, and the BOOT
// partition on it, reached with mtools just as a person reaches it with a file manager.
import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import { run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";
import { decodeGpt } from "#wire/gpt.ts";

export const defaultDiskBytes = 8 * 1024 ** 3;
const sectorBytes = 512;
/** MBR, header and 128 entries. */
const tableBytes = 34 * sectorBytes;

/** Copies `image` (.img, .img.zst or .img.xz) to `disk` with holes for zeros and grows it. */
export async function createDisk(image: string, disk: string, sizeBytes = defaultDiskBytes): Promise<void> {
  await mkdir(dirname(disk), { recursive: true });
  const partial = `${disk}.partial`;
  await rm(partial, { force: true });
  if (image.endsWith(".zst")) await run("zstd", ["-d", "-q", "-f", "--sparse", "-o", partial, image]);
  else if (image.endsWith(".xz")) await run("sh", ["-c", 'xz -dc "$1" > "$2"', "sh", image, partial]);
  else await run("cp", ["--sparse=always", image, partial]);
  const { size } = await stat(partial);
  if (size > sizeBytes) throw new UserError(`${image} is larger than the disk of ${sizeBytes} bytes`);
  // Emulated SD cards must have a power of two as size; 8 GiB is one.
  await truncate(partial, sizeBytes);
  await rename(partial, disk);
}

export interface Partition {
  readonly number: number;
  readonly name: string;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/** Reads the partition table of a disk file, which may be larger than the table says. */
export async function partitionsOf(disk: string): Promise<Partition[]> {
  const file = await open(disk, "r");
  try {
    const start = Buffer.alloc(tableBytes);
    await file.read(start, 0, start.length, 0);
    return decodeGpt(start, sectorBytes).partitions.map(({ number, name, firstLba, lastLba }) => ({
      number,
      name,
      offsetBytes: firstLba * sectorBytes,
      sizeBytes: (lastLba - firstLba + 1) * sectorBytes,
    }));
  } finally {
    await file.close();
  }
}

export async function partitionOf(disk: string, name: string): Promise<Partition> {
  const partitions = await partitionsOf(disk);
  const found = partitions.find((one) => one.name === name);
  if (!found) throw new UserError(`${disk} has no partition ${name}, only ${partitions.map((p) => p.name).join(", ")}`);
  return found;
}

/** A FAT partition of a disk file as a folder. What a running guest has not written back yet is not seen. */
export class FatPartition {
  readonly #image: string;

  private constructor(image: string) {
    this.#image = image;
  }

  static async of(disk: string, partition = "BOOT"): Promise<FatPartition> {
    return new FatPartition(`${disk}@@${(await partitionOf(disk, partition)).offsetBytes}`);
  }

  async list(): Promise<string[]> {
    const { output } = await this.#mtools("mdir", ["-b", "-i", this.#image, "::"]);
    return output
      .split("\n")
      .filter((line) => line.startsWith("::/"))
      .map((line) => line.slice(3).replace(/\/$/, ""));
  }

  /** Size of each file of the top folder. */
  async sizes(): Promise<Record<string, number>> {
    const { output } = await this.#mtools("mdir", ["-a", "-i", this.#image, "::"]);
    // NAME EXT SIZE DATE TIME LONG-NAME; the last only where the first would lose something.
    const files = [...output.matchAll(/^(\S+) *([^\s\d]\S*)? +(\d+) +\d{4}-\d\d-\d\d +\d+:\d\d(?: +(\S.*?))? *$/gm)];
    return Object.fromEntries(
      files.map((m) => [m[4] ?? (m[2] ? `${m[1]}.${m[2]}` : m[1]!).toLowerCase(), Number(m[3])]),
    );
  }

  async read(name: string): Promise<string> {
    return (await this.#mtools("mtype", ["-i", this.#image, `::${name}`])).output;
  }

  async put(name: string, localFile: string): Promise<void> {
    await this.#mtools("mcopy", ["-o", "-i", this.#image, localFile, `::${name}`]);
  }

  async take(name: string, localFile: string): Promise<void> {
    await this.#mtools("mcopy", ["-n", "-i", this.#image, `::${name}`, localFile]);
  }

  #mtools(program: string, args: readonly string[]) {
    return run(program, args, { env: { MTOOLS_SKIP_CHECK: "1" } });
  }
}

/**
 * A file of the data partition, read beside the guest: for boards that cannot print it. The disk is copied first and the
 * journal replayed there, so that the disk itself is not touched. Paths start at the partition's root.
 */
export async function readDataFile(disk: string, path: string): Promise<string | undefined> {
  const { offsetBytes } = await partitionOf(disk, "data");
  const copy = `${disk}.data-copy`;
  const file = `${disk}.data-file`;
  try {
    // The whole disk, because cp passes over holes unread, which copying a part of a file does not.
    await run("cp", ["--reflink=auto", "--sparse=auto", disk, copy]);
    const data = `${copy}?offset=${offsetBytes}`;
    await run("e2fsck", ["-p", "-E", "journal_only", data], { ok: [0, 1, 2, 4, 12] });
    // Into a file, because debugfs talks on both its outputs, and is silent about the exit status of commands.
    await run("debugfs", ["-R", `dump ${path} ${file}`, data]);
    const text = await readFile(file, "utf8").catch(() => "");
    return text === "" ? undefined : text;
  } finally {
    await rm(copy, { force: true });
    await rm(file, { force: true });
  }
}

/** The image file of a target (`arm64`, `arm64-rpi`), the name's last part; the newest where there are versions. */
export async function findImage(folder: string, target: string): Promise<string | undefined> {
  if (!existsSync(folder)) return undefined;
  const end = new RegExp(`(^|[-_.])${target}\\.img(\\.zst|\\.xz)?$`);
  const fitting = (await readdir(folder)).filter((name) => end.test(name));
  const ranked = await Promise.all(
    fitting.map(async (name) => ({ path: join(folder, name), atMs: (await stat(join(folder, name))).mtimeMs })),
  );
  // A plain image needs no unpacking; among packed ones zstd is quicker.
  const rank = (path: string) => [".img", ".zst", ".xz"].findIndex((suffix) => path.endsWith(suffix));
  ranked.sort((a, b) => rank(a.path) - rank(b.path) || b.atMs - a.atMs);
  return ranked[0]?.path;
}
