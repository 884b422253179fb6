// Token and mote.yaml, gathered from where they may be given and kept on the data partition. What lies on the boot partition
// is used once: it moves to the data partition and is overwritten where it lay, because FAT can be read by anybody. What a
// hypervisor gives (fw_cfg, a disk named CIDATA) cannot be removed, so it counts once per content. The last one given wins;
// a file that is not understood is left where it is, with a sentence in the status file, and the one before stays in force.
import { createHash } from "node:crypto";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type BlockDevice, listBlockDevices, readAt } from "#platform/block-devices.ts";
import { listFolder, makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { overwriteAndRemove } from "#platform/flash-files.ts";
import { removeFile } from "#platform/folders.ts";
import type { Commands } from "#platform/processes.ts";
import { decodeText, namesOf, strangersOf, textOf } from "./boot-files.ts";
import { defaultMachineConfig, type MoteConfig, parseMoteYaml, type ServerKeys } from "./machine-config.ts";
import type { Storage } from "./storage.ts";
import { parseTokenFile, type TokenFile } from "./token-file.ts";

export interface Configuration extends MoteConfig {
  readonly token: TokenFile;
  readonly notes: string[];
}

export interface ConfigurationOptions {
  /** Where QEMU shows its files, e.g. /sys/firmware/qemu_fw_cfg/by_name/opt/mote; may be missing. */
  readonly fwCfgDir: string;
  /** Where a CIDATA disk is mounted for a moment; undefined: none is looked for. */
  readonly cidataDir?: string;
  /** A cluster with a token of its own exists already. */
  readonly hasCluster: boolean;
}

export interface ConfigurationDeps {
  readonly storage: Storage;
  readonly commands: Commands;
  readonly log: Logger;
  readonly keys: ServerKeys;
}

type Kind = "token" | "mote.yaml";
/** Contents of the hypervisor's files that have been used. */
const maxSeen = 16;
const kinds: readonly Kind[] = ["token", "mote.yaml"];

interface Found {
  readonly kind: Kind;
  /** In words, for sentences. */
  readonly from: string;
  readonly bytes: Uint8Array;
  /** On the boot partition; the others cannot be removed. */
  readonly bootName?: string;
}

export async function readConfiguration(
  options: ConfigurationOptions,
  deps: ConfigurationDeps,
): Promise<Configuration> {
  const { storage, log } = deps;
  const folder = `${storage.dataDir}/config`;
  await makeFolder(folder, 0o700);
  const problems: string[] = [];
  const notes: string[] = [];
  const seenPath = `${folder}/seen`;
  const seenText = (await readFileIfExists(seenPath))?.toString("utf8");
  const seen = new Set<string>(seenText?.split("\n").filter((line) => line !== "") ?? []);
  notes.push(...(await finishRemoval(folder, deps)));
  const found = [
    ...(await fromFolder(options.fwCfgDir, "the hypervisor", (kind) => `${kind}/raw`)),
    ...(options.cidataDir === undefined ? [] : await fromCidata(options.cidataDir, deps)),
    ...(await fromBoot(storage.bootDir)),
  ];
  const used: string[] = [];
  for (const one of found) {
    const digest = `${one.kind} ${createHash("sha256").update(one.bytes).digest("hex")}`;
    if (one.bootName === undefined && seen.has(digest)) continue;
    try {
      const text = decodeText(one.bytes);
      if (one.kind === "token") parseTokenFile(text);
      else parseMoteYaml(text, deps.keys);
      notes.push(await keep(`${folder}/${one.kind}`, text, one, options));
    } catch (error) {
      problems.push(`${one.kind} from ${one.from}: ${messageOf(error)}`);
      continue;
    }
    if (one.bootName === undefined) seen.add(digest);
    else used.push(one.bootName);
  }
  const nowSeen = [...seen].slice(-maxSeen).join("\n");
  if (nowSeen !== (seenText ?? "")) await writeFileDurable(seenPath, nowSeen, 0o600);
  await remove(folder, used, deps).catch((error: unknown) => {
    log.error("cannot remove files from the boot partition", { error: messageOf(error) });
    problems.push(`${used.join(", ")}: could not be removed from the boot partition (${messageOf(error)})`);
  });
  for (const name of strangersOf(await fileNames(storage.bootDir))) {
    notes.push(`${name} was not read; the files that are read are token and mote.yaml, as plain text`);
  }
  return { ...(await stored(folder, deps.keys, problems)), problems, notes: notes.filter((note) => note !== "") };
}

/** The names that are being removed stand on the data partition meanwhile: half a secret is no file to be read. */
const removingFile = "removing";

async function remove(folder: string, names: readonly string[], { storage }: ConfigurationDeps): Promise<void> {
  if (names.length === 0) return;
  await writeFileDurable(`${folder}/${removingFile}`, names.join("\n"), 0o600);
  await storage.writeBoot(async () => {
    for (const name of names) await overwriteAndRemove(`${storage.bootDir}/${name}`);
  });
  await removeFile(`${folder}/${removingFile}`);
}

/** Removes what a power cut left of files that had been read. A whole file of that name is a new one, and is read. */
async function finishRemoval(folder: string, deps: ConfigurationDeps): Promise<string[]> {
  const { storage, log } = deps;
  const text = (await readFileIfExists(`${folder}/${removingFile}`))?.toString("utf8");
  if (text === undefined) return [];
  const rests: string[] = [];
  for (const name of text.split("\n").filter((one) => /^[^/]+$/.test(one))) {
    const bytes = await readFileIfExists(`${storage.bootDir}/${name}`);
    if (bytes && hasZeroSector(bytes)) rests.push(name);
  }
  try {
    await remove(folder, rests, deps);
    if (rests.length === 0) await removeFile(`${folder}/${removingFile}`);
  } catch (error) {
    log.error("cannot remove files from the boot partition", { error: messageOf(error) });
  }
  return rests.map((name) => `the rest of ${name}, which had been read before, was removed`);
}

/** A removal overwrites with zeros, sector by sector. */
function hasZeroSector(bytes: Uint8Array): boolean {
  if (bytes.length === 0) return true;
  for (let at = 0; at < bytes.length; at += 512) {
    if (bytes.subarray(at, at + 512).every((byte) => byte === 0)) return true;
  }
  return false;
}

const fileNames = async (folder: string): Promise<string[]> =>
  (await listFolder(folder)).filter((entry) => entry.isFile()).map((entry) => entry.name);

/** What is in force: always read back from the data partition, so that every start sees the same. */
async function stored(
  folder: string,
  keys: ServerKeys,
  problems: string[],
): Promise<Pick<Configuration, "token" | "server" | "machine" | "joins">> {
  const read = async <T>(kind: Kind, parse: (text: string) => T, otherwise: T): Promise<T> => {
    const bytes = await readFileIfExists(`${folder}/${kind}`);
    if (bytes === undefined) return otherwise;
    try {
      return parse(textOf(bytes));
    } catch (error) {
      problems.push(`${kind} as stored on the device: ${messageOf(error)}`);
      return otherwise;
    }
  };
  const token = await read<TokenFile>("token", parseTokenFile, {});
  const nothing: MoteConfig = { server: {}, machine: defaultMachineConfig, problems: [] };
  const config = await read("mote.yaml", (text) => parseMoteYaml(text, keys), nothing);
  problems.push(...config.problems.map((one) => `mote.yaml: ${one}`));
  const joins = token.server ?? config.joins;
  return { token, server: config.server, machine: config.machine, ...(joins === undefined ? {} : { joins }) };
}

/** The note for the status file; empty where nothing changed. */
async function keep(path: string, text: string, one: Found, options: ConfigurationOptions): Promise<string> {
  const before = await readFileIfExists(path);
  if (before !== undefined && textOf(before) === text)
    return one.bootName === undefined ? "" : `${one.kind} was read and removed (as before)`;
  if (one.kind === "token" && options.hasCluster && parseTokenFile(text).server === undefined) {
    return `${one.kind} from ${one.from} was not used: this device's cluster has its token already; a factory reset makes room for a new one`;
  }
  await writeFileDurable(path, text, 0o600);
  return `${one.kind} from ${one.from} was read${one.bootName === undefined ? "" : " and removed"}`;
}

async function fromBoot(bootDir: string): Promise<Found[]> {
  const names = await fileNames(bootDir);
  const found: Found[] = [];
  for (const kind of kinds) {
    // The name as documented wins over others, so it is read last.
    for (const name of namesOf(kind, names).reverse()) {
      const bytes = await readFileIfExists(`${bootDir}/${name}`);
      if (bytes) found.push({ kind, from: `the boot partition (file ${name})`, bytes, bootName: name });
    }
  }
  return found;
}

async function fromFolder(folder: string, from: string, pathOf: (kind: Kind) => string): Promise<Found[]> {
  const found: Found[] = [];
  for (const kind of kinds) {
    const bytes = await readFileIfExists(`${folder}/${pathOf(kind)}`);
    if (bytes) found.push({ kind, from, bytes });
  }
  return found;
}

/** A disk or partition with that label, FAT or ISO 9660, as cloud platforms attach it. */
async function fromCidata(mountDir: string, deps: ConfigurationDeps): Promise<Found[]> {
  for (const device of await listBlockDevices()) {
    if (device.bytes === 0 || /^(loop|ram|zram|dm-)/.test(device.name)) continue;
    const type = await cidataType(device);
    if (type === undefined) continue;
    await makeFolder(mountDir, 0o700);
    const mounted = await deps.commands.run("mount", [
      "-t",
      type,
      "-o",
      "ro,nodev,nosuid,noexec",
      device.path,
      mountDir,
    ]);
    if (mounted.code !== 0) {
      deps.log.warn("cannot mount the CIDATA disk", { device: device.path, error: mounted.stderr.trim() });
      continue;
    }
    try {
      const names = await fileNames(mountDir);
      const found = await Promise.all(
        kinds.map(async (kind) => {
          const name = namesOf(kind, names)[0];
          const bytes = name === undefined ? undefined : await readFileIfExists(`${mountDir}/${name}`);
          return bytes === undefined ? [] : [{ kind, from: "the CIDATA disk", bytes }];
        }),
      );
      return found.flat();
    } finally {
      await deps.commands.run("umount", [mountDir]);
    }
  }
  return [];
}

async function cidataType(device: BlockDevice): Promise<"vfat" | "iso9660" | undefined> {
  const isLabel = (bytes: Buffer, at: number) =>
    bytes
      .toString("latin1", at, at + 11)
      .trimEnd()
      .toLowerCase() === "cidata";
  try {
    const boot = await readAt(device.path, 0, 512);
    // FAT12 and FAT16 keep the label at 43, FAT32 at 71.
    if (boot[510] === 0x55 && boot[511] === 0xaa && (isLabel(boot, 43) || isLabel(boot, 71))) return "vfat";
    const volume = await readAt(device.path, 32_768, 64);
    return volume.toString("latin1", 1, 6) === "CD001" && isLabel(volume, 40) ? "iso9660" : undefined;
  } catch {
    // An empty drive or one that is going away: no CIDATA disk.
    return undefined;
  }
}
