// Carries out data-plan.ts on the data partition, before it is mounted: formats it, has e2fsck look at it, or leaves it
// alone with a sentence. Works on plain files too. Every step may be cut by power loss: the marker turns to "formatted"
// only when the file system is whole on the medium, so what was cut before is made again, and nothing later is.
import { AppError } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { readAt, writeAt } from "#platform/block-devices.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { type DataMarker, decodeMarker, encodeMarker, markerBytes, markerOffset } from "./data-marker.ts";
import { type DataPlan, planData } from "./data-plan.ts";
import {
  type Backup,
  backupPlaces,
  hasMagic,
  parseSuperblock,
  primaryOffset,
  type Superblock,
  superblockBytes,
} from "./ext4-superblock.ts";

export interface DataTarget {
  /** The partition. */
  readonly path: string;
  readonly bytes: number;
  /** The disk it lies on, which has the marker. */
  readonly diskPath: string;
}

export interface DataDeps {
  readonly commands: Commands;
  readonly log: Logger;
}

const dataLabel = "data";
/** Checking a large card takes minutes, never hours. */
export const slowMs = 30 * 60_000;
/** What images leave zero at the start of the partition. */
const blankBytes = 1024 * 1024;
/** Later copies are of the same age: where these do not help, they do not. */
const maxRepairs = 4;

export const readMarker = async (diskPath: string): Promise<DataMarker> =>
  decodeMarker(await readAt(diskPath, markerOffset, markerBytes));

/** On the medium before it resolves. */
export const writeMarker = (diskPath: string, marker: Parameters<typeof encodeMarker>[0]): Promise<void> =>
  writeAt(diskPath, [{ offset: markerOffset, bytes: encodeMarker(marker) }]);

/** Makes the partition ready to be mounted. Throws APPLIANCE_DATA with a sentence for people where it must not be touched. */
export async function prepareFileSystem(target: DataTarget, deps: DataDeps, notes: string[]): Promise<void> {
  const { path, diskPath } = target;
  const marker = await readMarker(diskPath);
  const plan = await planFor(target, marker);
  if (plan.kind === "refuse") throw new AppError("APPLIANCE_DATA", plan.why);
  if (plan.kind === "format") {
    deps.log.info("formatting the data partition", { device: path, marker: marker.kind });
    await format(target, deps.commands);
    notes.push("the data partition was formatted");
    return;
  }
  if (plan.kind === "repair") await repair(target, plan.backups, deps, notes);
  else if (!plan.superblock.isClean) await checkFileSystem(path, deps, notes);
  const now = await readPrimary(path);
  if (now && (marker.kind !== "formatted" || marker.uuid !== now.uuid)) {
    deps.log.warn("marking the data partition as formatted", { marker: marker.kind });
    await writeMarker(diskPath, { kind: "formatted", uuid: now.uuid });
  }
}

/** What has to be done with it. Only reads. */
export async function planFor(target: Pick<DataTarget, "path" | "bytes">, marker: DataMarker): Promise<DataPlan> {
  const { path, bytes } = target;
  const primary = await readPrimary(path);
  return planData({
    ...{ marker, primary, partitionBytes: bytes },
    backups: primary ? [] : await readBackups(target),
    isBlank: primary === undefined && (await isBlank(path)),
  });
}

/** Bytes by which the file system is smaller than its partition; also those of an extension that was cut. */
export async function roomToGrow({ path, bytes }: DataTarget): Promise<number> {
  const primary = await readPrimary(path);
  return primary ? bytes - primary.bytes : 0;
}

async function format({ path, diskPath }: DataTarget, commands: Commands): Promise<void> {
  // Inode tables are written later and by need: formatting takes seconds on any card.
  // Without erasing the medium first, which takes some cards minutes.
  const lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
  await runChecked(commands, "mkfs.ext4", ["-q", "-F", "-m", "1", "-L", dataLabel, "-E", lazy, path], {
    timeoutMs: slowMs,
  });
  // mkfs has flushed it; what is read now is on the medium.
  const made = await readPrimary(path);
  if (!made) throw new AppError("APPLIANCE_DATA", "The medium does not keep what is written to it; replace it.");
  await writeMarker(diskPath, { kind: "formatted", uuid: made.uuid });
}

async function repair(target: DataTarget, backups: readonly Backup[], deps: DataDeps, notes: string[]): Promise<void> {
  const { commands, log } = deps;
  log.error("the superblock of the data partition is damaged, using a copy", { device: target.path });
  for (const { block, blockBytes } of backups.slice(0, maxRepairs)) {
    const args = ["-f", "-y", "-b", String(block), "-B", String(blockBytes), target.path];
    const result = await commands.run("e2fsck", args, { timeoutMs: slowMs });
    log.warn("checked by a copy of the superblock", { block, code: result.code, said: result.stdout.slice(-300) });
    if (result.code < 4 && (await readPrimary(target.path))) {
      notes.push("the data partition's first block was damaged and has been repaired; files may be missing");
      return;
    }
  }
  throw new AppError(
    "APPLIANCE_DATA",
    "The data partition is damaged beyond what could be repaired; keep the card for whoever can rescue the data, or put a file named factory-reset on the boot partition to begin anew.",
  );
}

export async function checkFileSystem(path: string, deps: DataDeps, notes: string[]): Promise<void> {
  const { commands, log } = deps;
  // 0 nothing to do, 1 and 2 corrected; 4 and more: not without answers, which are all yes then.
  const gentle = await commands.run("e2fsck", ["-f", "-p", path], { timeoutMs: slowMs });
  if (gentle.code < 4) return;
  log.warn("the data partition needs a thorough check", { said: gentle.stdout.slice(-500) });
  const thorough = await commands.run("e2fsck", ["-f", "-y", path], { timeoutMs: slowMs });
  notes.push("the data partition was damaged and has been repaired; files may be missing");
  if (thorough.code >= 4) log.error("the data partition is still damaged", { said: thorough.stdout.slice(-500) });
}

const readPrimary = async (path: string): Promise<Superblock | undefined> =>
  parseSuperblock(await readAt(path, primaryOffset, superblockBytes));

async function readBackups({ path, bytes }: Pick<DataTarget, "path" | "bytes">): Promise<Backup[]> {
  const backups: Backup[] = [];
  for (const { offset, ...place } of backupPlaces(bytes)) {
    const found = await readAt(path, offset, superblockBytes);
    const superblock = hasMagic(found) ? parseSuperblock(found) : undefined;
    if (superblock?.blockBytes === place.blockBytes) backups.push({ ...place, superblock });
  }
  return backups;
}

const isBlank = async (path: string): Promise<boolean> =>
  (await readAt(path, 0, blankBytes)).every((byte) => byte === 0);
