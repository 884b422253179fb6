// One image: architecture and board, read from firmware/boards/<arch>-<board>.json. Names, paths and fixed identifiers of
// everything that is made for it follow from here.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Architecture, architectures, versions } from "#build.config.ts";
import { run } from "#scripts/run-command.ts";
import { UserError } from "#scripts/stages.ts";
import type { Arch } from "./lock.ts";

export interface BoardFile {
  readonly arch: Arch;
  readonly board: string;
  /** `console=` arguments; the last one is where PID 1 writes. */
  readonly consoles: readonly string[];
  readonly kernelArguments: readonly string[];
  /** Repeats BOOT in the MBR, for boot ROMs that know no GPT. */
  readonly hybridMbr: boolean;
  /** GRUB platforms; those without a path are installed for the BIOS. */
  readonly loaders: readonly { readonly target: string; readonly path?: string }[];
  /** Names; a trailing `?` may be missing in this kernel. */
  readonly initramfsModules: readonly string[];
  /** Patterns below the kernel's folder of device trees, put into BOOT. */
  readonly deviceTrees: readonly string[];
  /** Into BOOT, from a package of the group "boot" or from firmware/. */
  readonly bootFiles: readonly { readonly from: string; readonly to: string }[];
}

export interface Target extends BoardFile {
  readonly architecture: Architecture;
  /** `amd64`, `arm64-rpi`. */
  readonly name: string;
  readonly version: string;
  readonly commit: string;
  /** Time in every file: that of the commit, or SOURCE_DATE_EPOCH. */
  readonly epochSeconds: number;
  readonly workFolder: string;
  /** `build/image/mote-<version>-<name>`. */
  readonly output: string;
}

export const imageFolder = join(process.cwd(), "build", "image");
const boardsFolder = join("firmware", "boards");

export async function readTarget(arch: string, board: string): Promise<Target> {
  const known = (await readdir(boardsFolder)).filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5));
  const key = `${arch}-${board}`;
  if (!known.includes(key)) {
    throw new UserError(`no board "${board}" for architecture "${arch}"; there are ${known.sort().join(", ")}`);
  }
  const file = JSON.parse(await readFile(join(boardsFolder, `${key}.json`), "utf8")) as BoardFile;
  const name = board === "generic" ? arch : key;
  const version = versions.mote;
  const [commit, seconds] = (await run("git", ["log", "-1", "--format=%H %ct"])).output.trim().split(" ");
  return {
    ...file,
    architecture: architectures.find((a) => a.debian === file.arch)!,
    name,
    version,
    commit: commit!,
    epochSeconds: Number(process.env["SOURCE_DATE_EPOCH"] ?? seconds),
    workFolder: join(imageFolder, "work", name),
    output: join(imageFolder, `mote-${version}-${name}`),
  };
}

/** The same identifier for the same purpose in every build of this version: nothing in an image is random. */
export function derivedHash(target: Target, purpose: string): string {
  return createHash("sha256").update(`mote ${target.version} ${target.name} ${purpose}`).digest("hex");
}

export function derivedGuid(target: Target, purpose: string): string {
  const hex = derivedHash(target, purpose);
  const variant = ((Number.parseInt(hex[16]!, 16) & 3) | 8).toString(16);
  const groups = [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `${variant}${hex.slice(17, 20)}`];
  return [...groups, hex.slice(20, 32)].join("-");
}
