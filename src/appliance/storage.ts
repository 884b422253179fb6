// The boot partition (FAT, read-only but for moments) and the data partition (ext4): found on the disk that the running
// root comes from, so that a second flashed medium is never mixed up with it. At first start the data partition grows into
// the medium and is formatted; a factory reset formats it again. Every step may be cut by power loss and is then repeated.
// A data partition that cannot be used is left as it is, and said: the boot partition serves for that alone.

import type { Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type BlockDevice, listBlockDevices, readAt, writeAt } from "#platform/block-devices.ts";
import { listFolder, makeFolder, readFileIfExists } from "#platform/files.ts";
import { overwriteAndRemove } from "#platform/flash-files.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { namesOf } from "./boot-files.ts";
import {
  checkFileSystem,
  type DataTarget,
  prepareFileSystem,
  roomToGrow,
  slowMs,
  writeMarker,
} from "./data-file-system.ts";
import { markerBytes, markerOffset } from "./data-marker.ts";
import { dataName, planGrowth, tableSectors } from "./data-partition.ts";

export interface Storage {
  readonly bootDir: string;
  readonly dataDir: string;
  /** Sentences for the status file. */
  readonly notes: readonly string[];
  /** Why there is no data partition, in a sentence; `dataDir` is not to be used then. */
  readonly dataProblem?: string;
  /** Runs `work` while the boot partition may be written; one at a time. */
  writeBoot<T>(work: () => Promise<T>): Promise<T>;
  /** False once the file system has met errors and turned read-only. */
  isDataWritable(): Promise<boolean>;
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
/** A smaller rest is what mkfs leaves where a last group does not pay. */
const minRoomBytes = 16 * 1024 * 1024;

export async function openStorage(options: StorageOptions, deps: StorageDeps): Promise<Storage> {
  const { bootDir, dataDir } = options;
  const { commands, log } = deps;
  const notes: string[] = [];
  if (!options.hasOwnDisk) {
    await makeFolder(bootDir);
    await makeFolder(dataDir);
    if ((await resetAsked(bootDir)).length > 0) log.warn("factory reset is left to whoever owns the disk");
    return {
      bootDir,
      dataDir,
      notes,
      writeBoot: inTurn((work) => work()),
      isDataWritable: async () => true,
      close: async () => {},
    };
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
  let dataProblem: string | undefined;
  if (!mounted.has(dataDir)) {
    try {
      await openData({ data, disk, bootDir: hasBoot ? bootDir : undefined, dataDir, writeBoot }, deps, notes);
    } catch (error) {
      dataProblem = messageOf(error);
    }
  }
  return {
    ...{ bootDir, dataDir, notes, writeBoot },
    ...(dataProblem === undefined ? {} : { dataProblem }),
    isDataWritable: async () => isWritable(await mountTable(), dataDir),
    async close() {
      for (const point of dataProblem === undefined ? [dataDir, bootDir] : [bootDir]) {
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

interface DataOptions {
  readonly data: BlockDevice;
  readonly disk: BlockDevice;
  /** Undefined: it could not be mounted. */
  readonly bootDir: string | undefined;
  readonly dataDir: string;
  readonly writeBoot: Storage["writeBoot"];
}

async function openData(options: DataOptions, deps: StorageDeps, notes: string[]): Promise<void> {
  const { data, disk, bootDir, dataDir, writeBoot } = options;
  const { commands, log } = deps;
  const bytes = await grow(disk, deps).catch((error: unknown) => {
    log.error("cannot extend the data partition", { error: messageOf(error) });
    notes.push(`the data partition was not extended to the end of the medium: ${messageOf(error)}`);
    return undefined;
  });
  if (bytes !== undefined) notes.push("the data partition was extended to the end of the medium");
  const target: DataTarget = { path: data.path, bytes: bytes ?? data.bytes, diskPath: disk.path };
  const asked = bootDir === undefined ? [] : await resetAsked(bootDir);
  const isReset =
    asked.length > 0 &&
    (await startReset(disk.path, deps, notes, () =>
      writeBoot(async () => {
        for (const name of asked) await overwriteAndRemove(`${bootDir}/${name}`);
      }),
    ));
  await prepareFileSystem(target, deps, notes);
  const mountData = ["-t", "ext4", "-o", dataMountOptions, data.path, dataDir];
  const first = await commands.run("mount", mountData);
  if (first.code !== 0) {
    log.error("cannot mount the data partition", { error: first.stderr.trim() });
    await checkFileSystem(data.path, deps, notes);
    const second = await commands.run("mount", mountData);
    if (second.code !== 0) {
      throw new AppError("APPLIANCE_DATA", `The data partition cannot be mounted: ${second.stderr.trim()}.`);
    }
  }
  if (isReset) notes.push(`factory reset: all data was removed, as the file ${asked[0]} asked`);
  // While it is mounted: the journal then keeps it whole, wherever the power goes.
  if ((await roomToGrow(target)) < minRoomBytes) return;
  const grown = await commands.run("resize2fs", [data.path], { timeoutMs: slowMs });
  if (grown.code !== 0) log.error("cannot extend the file system", { error: grown.stderr.trim() });
}

/**
 * From here on the partition counts as never formatted, and the request is taken back. One that cannot be taken back
 * would empty the device at every start, so then nothing is done.
 */
export async function startReset(
  diskPath: string,
  { log }: Pick<StorageDeps, "log">,
  notes: string[],
  removeRequest: () => Promise<void>,
): Promise<boolean> {
  const before = await readAt(diskPath, markerOffset, markerBytes);
  await writeMarker(diskPath, { kind: "fresh" });
  try {
    await removeRequest();
    return true;
  } catch (error) {
    log.error("factory reset is not possible", { error: messageOf(error) });
    notes.push(`no factory reset: its file could not be removed (${messageOf(error)})`);
    await writeAt(diskPath, [{ offset: markerOffset, bytes: before }]);
    return false;
  }
}

/** Names of the files that ask for a factory reset. */
async function resetAsked(bootDir: string): Promise<string[]> {
  const names = (await listFolder(bootDir)).filter((entry) => entry.isFile()).map((entry) => entry.name);
  return namesOf("factory-reset", names);
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
  // By number and name: whoever divided the disk anew must not lose what is there now.
  if (!boot || data?.label !== dataName || !disk) {
    const seen = devices.filter((d) => d.number !== undefined).map((d) => d.name);
    throw new AppError(
      "APPLIANCE_DISK",
      `no disk with the partitions BOOT and data; found ${seen.join(", ") || "none"}`,
    );
  }
  return { boot, data, disk };
}

/** The partition's bytes where it reaches further than before. */
async function grow(disk: BlockDevice, deps: StorageDeps): Promise<number | undefined> {
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
  if (!growth) return undefined;
  log.info("extending the data partition", { disk: disk.path, from: growth.bytesBefore, to: growth.bytesAfter });
  await writeAt(disk.path, growth.writes);
  // The kernel keeps its own table while partitions are mounted; it is told of this one alone.
  await runChecked(commands, "partx", ["--update", "--nr", String(growth.number), disk.path]);
  return growth.bytesAfter > growth.bytesBefore ? growth.bytesAfter : undefined;
}

const mountTable = async (): Promise<string> => (await readFileIfExists("/proc/self/mounts"))?.toString("utf8") ?? "";

const mountPoints = async (): Promise<Set<string>> =>
  new Set((await mountTable()).split("\n").map((line) => line.split(" ")[1] ?? ""));

/** By the lines of /proc/self/mounts: device, place, type, options. What is not mounted was never read-only. */
export function isWritable(table: string, point: string): boolean {
  const options = table
    .split("\n")
    .map((line) => line.split(" "))
    .findLast((fields) => fields[1] === point)?.[3];
  return options === undefined || options.split(",")[0] !== "ro";
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
