// The boot partition (FAT, read-only but for moments) and the data partition (ext4): found on the disk that the running
// root comes from, so that a second flashed medium is never mixed up with it. At first start the data partition grows into
// the medium and is formatted; a factory reset formats it again. Every step may be cut by power loss and is then repeated.

import type { Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type BlockDevice, listBlockDevices, readAt, writeAt } from "#platform/block-devices.ts";
import { listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { overwriteAndRemove } from "#platform/flash-files.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { namesOf } from "./boot-files.ts";
import { dataLabel, planGrowth, readFileSystem, superblockEnd, tableSectors } from "./data-partition.ts";

export interface Storage {
  readonly bootDir: string;
  readonly dataDir: string;
  /** Sentences for the status file. */
  readonly notes: readonly string[];
  /** Runs `work` while the boot partition may be written; one at a time. */
  writeBoot<T>(work: () => Promise<T>): Promise<T>;
  /** Flushes and unmounts. */
  close(): Promise<void>;
}

export interface StorageOptions {
  readonly bootDir: string;
  readonly dataDir: string;
  /** False: both folders are used as they are. For machines whose file systems are somebody else's. */
  readonly hasOwnDisk: boolean;
  readonly sysfs?: string;
  /** From the kernel's command line: the boot partition's PARTUUID, where the loader told it. */
  readonly bootPartUuid?: string;
}

export interface StorageDeps {
  readonly commands: Commands;
  readonly random: Random;
  readonly log: Logger;
}

/** As on the partition table every image has. */
const bootNumber = 1;
const dataNumber = 7;
const bootMountOptions = "nodev,nosuid,noexec,noatime,umask=077";
/** Journal every 30 s at most where nobody asks for more; the datastore asks itself. A broken medium stops writes. */
const dataMountOptions = "noatime,commit=30,errors=remount-ro";
/** Checking a large card takes minutes, never hours. */
const slowMs = 30 * 60_000;

export async function openStorage(options: StorageOptions, deps: StorageDeps): Promise<Storage> {
  const { bootDir, dataDir } = options;
  const { commands, log } = deps;
  const notes: string[] = [];
  if (!options.hasOwnDisk) {
    await makeFolder(bootDir);
    await makeFolder(dataDir);
    if (await resetAsked(bootDir)) log.warn("factory reset is left to whoever owns the disk");
    return { bootDir, dataDir, notes, writeBoot: inTurn((work) => work()), close: async () => {} };
  }
  const { boot, data, disk } = findPartitions(await listBlockDevices(options.sysfs), options.bootPartUuid);
  const mounted = await mountPoints();
  const hasBoot = mounted.has(bootDir) || (await mountBoot(boot, bootDir, deps));
  if (!hasBoot) notes.push("the boot partition could not be read");
  const writeBoot = inTurn(async (work) => {
    if (!hasBoot) throw new AppError("APPLIANCE_DISK", "the boot partition cannot be read");
    await runChecked(commands, "mount", ["-o", `remount,rw,${bootMountOptions}`, bootDir]);
    try {
      return await work();
    } finally {
      await runChecked(commands, "mount", ["-o", `remount,ro,${bootMountOptions}`, bootDir]);
    }
  });
  if (!mounted.has(dataDir)) {
    const asked = hasBoot ? await resetAsked(bootDir) : undefined;
    // A marker that cannot be taken away afterwards would empty the device at every start.
    const isReset = asked !== undefined && (await canWrite(writeBoot, deps, notes));
    await prepareData({ data, disk, isReset }, deps, notes);
    const mountData = ["-t", "ext4", "-o", dataMountOptions, data.path, dataDir];
    const first = await commands.run("mount", mountData);
    if (first.code !== 0) {
      log.error("cannot mount the data partition", { error: first.stderr.trim() });
      await checkData(data.path, deps, notes);
      await runChecked(commands, "mount", mountData);
    }
    if (isReset) {
      await writeBoot(() => overwriteAndRemove(`${bootDir}/${asked}`));
      notes.push(`factory reset: all data was removed, as the file ${asked} asked`);
    }
  }
  return {
    ...{ bootDir, dataDir, notes, writeBoot },
    async close() {
      for (const point of [dataDir, bootDir]) {
        const result = await commands.run("umount", [point]);
        if (result.code === 0) continue;
        // What still runs there is ended by init; read-only keeps the file system whole.
        log.warn("cannot unmount, making it read-only", { point, error: result.stderr.trim() });
        await commands.run("mount", ["-o", "remount,ro", point]);
      }
    },
  };
}

/** A device goes on without its boot partition: the kernel has been read from elsewhere. */
async function mountBoot(boot: BlockDevice, bootDir: string, { commands, log }: StorageDeps): Promise<boolean> {
  const result = await commands.run("mount", ["-t", "vfat", "-o", `ro,${bootMountOptions}`, boot.path, bootDir]);
  if (result.code !== 0) log.error("cannot mount the boot partition", { error: result.stderr.trim() });
  return result.code === 0;
}

async function canWrite(writeBoot: Storage["writeBoot"], { log }: StorageDeps, notes: string[]): Promise<boolean> {
  try {
    await writeBoot(async () => {});
    return true;
  } catch (error) {
    log.error("factory reset is not possible", { error: messageOf(error) });
    notes.push("no factory reset: the boot partition cannot be written");
    return false;
  }
}

/** Name of the marker file, where there is one. */
async function resetAsked(bootDir: string): Promise<string | undefined> {
  const names = (await listFolder(bootDir)).filter((entry) => entry.isFile()).map((entry) => entry.name);
  return namesOf("factory-reset", names)[0];
}

/** Boot and data partition of the disk that the root file system (or the named partition) lies on. */
export function findPartitions(
  devices: readonly BlockDevice[],
  bootPartUuid?: string,
): { readonly boot: BlockDevice; readonly data: BlockDevice; readonly disk: BlockDevice } {
  const byName = new Map(devices.map((device) => [device.name, device]));
  const named = bootPartUuid && devices.find((d) => d.partUuid === bootPartUuid.toLowerCase());
  const below = devices
    .filter((d) => d.name.startsWith("dm-"))
    .map((d) => byName.get(d.slaves[0] ?? ""))
    .find((d) => d !== undefined && /^root-[ab]$/.test(d.label ?? ""));
  const labelled = devices.find((d) => d.number === bootNumber && d.label === "BOOT");
  const diskName = (named || below || labelled)?.disk;
  const part = (number: number) => devices.find((d) => d.disk === diskName && d.number === number);
  const [boot, data, disk] = [part(bootNumber), part(dataNumber), byName.get(diskName ?? "")];
  if (!boot || !data || !disk) {
    const seen = devices.filter((d) => d.number !== undefined).map((d) => d.name);
    throw new AppError(
      "APPLIANCE_DISK",
      `no disk with the partitions BOOT and data; found ${seen.join(", ") || "none"}`,
    );
  }
  return { boot, data, disk };
}

async function prepareData(
  target: { readonly data: BlockDevice; readonly disk: BlockDevice; readonly isReset: boolean },
  deps: StorageDeps,
  notes: string[],
): Promise<void> {
  const { data, disk } = target;
  const { commands, log } = deps;
  const hasGrown = await grow(disk, deps);
  if (hasGrown) notes.push("the data partition was extended to the end of the medium");
  const found = readFileSystem(await readAt(data.path, 0, superblockEnd));
  if (found.kind !== "ext4" || target.isReset) {
    log.info("formatting the data partition", { device: data.path });
    await formatData(data.path, commands);
    notes.push("the data partition was formatted");
    return;
  }
  if (found.needsCheck || hasGrown) await checkData(data.path, deps, notes);
  if (hasGrown) await runChecked(commands, "resize2fs", [data.path], { timeoutMs: slowMs });
}

/** Two steps: without the label, which comes last, a file system counts as unfinished. Works on plain files too. */
export async function formatData(path: string, commands: Commands): Promise<void> {
  // Inode tables are written later and by need: formatting takes seconds on any card.
  const args = ["-q", "-F", "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1", path];
  await runChecked(commands, "mkfs.ext4", args, { timeoutMs: slowMs });
  await runChecked(commands, "tune2fs", ["-L", dataLabel, path]);
}

async function checkData(path: string, deps: StorageDeps, notes: string[]): Promise<void> {
  const { commands, log } = deps;
  // 0 nothing to do, 1 and 2 corrected; 4 and more: not without answers, which are all yes then.
  const gentle = await commands.run("e2fsck", ["-f", "-p", path], { timeoutMs: slowMs });
  if (gentle.code < 4) return;
  log.warn("the data partition needs a thorough check", { said: gentle.stdout.slice(-500) });
  const thorough = await commands.run("e2fsck", ["-f", "-y", path], { timeoutMs: slowMs });
  notes.push("the data partition was damaged and has been repaired; files may be missing");
  if (thorough.code >= 4) log.error("the data partition is still damaged", { said: thorough.stdout.slice(-500) });
}

/** True when the last partition reaches further than before. */
async function grow(disk: BlockDevice, deps: StorageDeps): Promise<boolean> {
  const { commands, random, log } = deps;
  const length = tableSectors(disk.sectorBytes) * disk.sectorBytes;
  const growth = planGrowth(
    {
      sectorBytes: disk.sectorBytes,
      sectors: disk.bytes / disk.sectorBytes,
      start: await readAt(disk.path, 0, length),
      end: await readAt(disk.path, disk.bytes - length, length),
    },
    random.uuid(),
  );
  if (!growth) return false;
  log.info("extending the data partition", { disk: disk.path, from: growth.bytesBefore, to: growth.bytesAfter });
  await writeAt(disk.path, growth.writes);
  // The kernel keeps its own table while partitions are mounted; it is told of this one alone.
  await runChecked(commands, "partx", ["--update", "--nr", String(growth.number), disk.path]);
  return growth.bytesAfter > growth.bytesBefore;
}

async function mountPoints(): Promise<Set<string>> {
  const table = (await readFileIfExists("/proc/self/mounts"))?.toString("utf8") ?? "";
  return new Set(table.split("\n").map((line) => line.split(" ")[1] ?? ""));
}

function inTurn(around: (work: () => Promise<unknown>) => Promise<unknown>): Storage["writeBoot"] {
  let last: Promise<unknown> = Promise.resolve();
  return <T>(work: () => Promise<T>): Promise<T> => {
    const next = last.then(
      () => around(work),
      () => around(work),
    );
    // Whoever asked hears of the failure; the next in line only waits for the end.
    last = next.catch((error: unknown) => messageOf(error));
    return next as Promise<T>;
  };
}
