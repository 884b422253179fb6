// Is a data partition whole after the power went? Looked at off-line, with the tools a person would use: e2fsck replays
// the journal, debugfs takes the files out, mote's own datastore opens the copy. Nothing is mounted, so no root is needed.
//
// Checked: the file system is consistent; every acknowledged change is there; the store's index holds; the next revision
// is above every one that a client has seen; keys, tokens and configuration are whole or absent, and present once work began.
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { messageOf } from "#base/errors.ts";
import { silentLogger } from "#base/log.ts";
import { prefixRange } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import { systemClock } from "#platform/clock.ts";
import { run } from "#scripts/run-command.ts";
import { type Expectation, judgeObjects, numberIn, workNamespace, workPrefix } from "./power-loss-workload.ts";

/** Path in the data partition -> SHA-256 of every content it ever rightly had. */
export type FileVersions = ReadonlyMap<string, ReadonlySet<string>>;

export interface CheckOptions {
  /** The partition alone; e2fsck changes it. */
  readonly image: string;
  /** Files are taken out to here; emptied before and after. */
  readonly folder: string;
  readonly expected: Expectation;
  /** False: the cut is before the first mount, so there may be no file system. */
  readonly isFormatted: boolean;
  /** False: files may be absent still. */
  readonly isSetUp: boolean;
  readonly files: FileVersions;
  /** What a person put on the boot partition, and the device moves to its own. */
  readonly secret?: string;
}

export interface CheckResult {
  readonly problems: readonly string[];
  readonly objects: number;
  /**
   * The superblock, two sectors under one sum, was torn: the kernel refuses to mount it and e2fsck takes a backup, whose
   * stale counts it then puts right. All data is there, but only for a device that runs e2fsck.
   */
  readonly usedBackup: boolean;
  /** The secret is on this partition, whole. */
  readonly holdsSecret: boolean;
}

/** The folders that are looked at, on the data partition. The store is beneath mote/. */
const folders = ["config", "identity", "mote/server"];
const storeFile = "mote/server/db/state.db";
const keyPrefix = `/registry/configmaps/${workNamespace}/${workPrefix}`;

export async function checkImage(options: CheckOptions): Promise<CheckResult> {
  const { image, folder, expected } = options;
  const problems: string[] = [];
  const fsck = await run("e2fsck", ["-fy", image], {
    ok: Array.from({ length: 256 }, (_, i) => i),
    timeoutMs: 120_000,
  });
  if (fsck.code > 1) {
    if (!options.isFormatted) return { problems: [], objects: 0, usedBackup: false, holdsSecret: false };
    return {
      problems: [`e2fsck ends with ${fsck.code}: ${fsck.output.trim().slice(-300)}`],
      objects: 0,
      usedBackup: false,
      holdsSecret: false,
    };
  }
  const usedBackup = /trying backup blocks/.test(fsck.output);
  const damage = usedBackup ? [] : damageIn(fsck.output);
  if (damage.length > 0) problems.push(`e2fsck had to repair: ${damage.slice(0, 3).join("; ")}`);
  await extract(image, folder);
  problems.push(...judgeFiles(folder, options));
  const { secret } = options;
  const holdsSecret = secret !== undefined && listFiles(folder).some((path) => holds(join(folder, path), secret));
  let objects = 0;
  try {
    const found = await readStore(join(folder, storeFile), expected.seenRevision);
    objects = found.objects.size;
    problems.push(...found.problems, ...judgeObjects(found.objects, expected));
  } catch (error) {
    problems.push(`the store does not open: ${messageOf(error)}`);
  }
  await rm(folder, { recursive: true, force: true });
  return { problems, objects, usedBackup, holdsSecret };
}

/** True when the FAT image has the secret in one of the files of its top folder. */
export async function bootHoldsSecret(image: string, name: string, secret: string): Promise<boolean> {
  const env = { MTOOLS_SKIP_CHECK: "1" };
  const { code, output } = await run("mtype", ["-i", image, `::${name}`], { ok: [0, 1], env });
  return code === 0 && output.includes(secret);
}

/** Hashes of the files in an image that is known to be whole. */
export async function fileVersions(image: string, folder: string): Promise<Map<string, string>> {
  await run("e2fsck", ["-fy", image], { ok: [0, 1] });
  await extract(image, folder);
  const found = new Map(listFiles(folder).map((path) => [path, hashOf(join(folder, path))]));
  await rm(folder, { recursive: true, force: true });
  return found;
}

async function extract(image: string, folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const name of folders) await mkdir(join(folder, name, ".."), { recursive: true });
  const commands = folders.map((name) => `rdump /${name} ${join(folder, name, "..")}`).join("\n");
  const script = join(folder, ".commands");
  await writeFile(script, commands);
  // debugfs says on stderr which folder is not there (yet); what must be there is checked by its content.
  await run("debugfs", ["-f", script, image], { ok: [0, 1], timeoutMs: 120_000 });
  await rm(script);
}

async function readStore(
  path: string,
  seenRevision: number,
): Promise<{ objects: Map<string, number>; problems: string[] }> {
  const objects = new Map<string, number>();
  const problems: string[] = [];
  // The pid in it is of a process of the recorded machine.
  await rm(`${path}.pid`, { force: true });
  const store = await openDatastore({ endpoint: `sqlite://${path}` }, { clock: systemClock, log: silentLogger });
  try {
    store.verify();
    const { kvs } = await store.range(prefixRange(keyPrefix));
    for (const kv of kvs) {
      const name = kv.key.slice(keyPrefix.length - workPrefix.length);
      const number = numberIn(Buffer.from(kv.value).toString("latin1"));
      if (number === undefined) problems.push(`${name} is stored without its text`);
      else objects.set(name, number);
    }
    const probe = { type: "put", key: "/power-loss/probe", value: Buffer.from("x") } as const;
    const { revision } = await store.commit({ compares: [], success: [probe] });
    if (revision <= seenRevision) problems.push(`revision ${revision} is given out although ${seenRevision} was seen`);
  } finally {
    await store.close();
  }
  return { objects, problems };
}

function judgeFiles(folder: string, options: CheckOptions): string[] {
  const problems: string[] = [];
  const present = new Set(listFiles(folder));
  for (const path of present) {
    const versions = options.files.get(path);
    if (!versions || versions.has(hashOf(join(folder, path)))) continue;
    problems.push(`${path} is not whole: ${statSync(join(folder, path)).size} bytes, unlike any it ever had`);
  }
  if (options.isSetUp) {
    for (const path of options.files.keys()) if (!present.has(path)) problems.push(`${path} is absent`);
  }
  return problems;
}

/** All but the store, temporary files and locks. */
function listFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => relative(folder, join(folder, name)))
    .filter((path) => !path.startsWith("mote/server/db/") && !/\.(tmp|pid)\b|\.tmp-/.test(path))
    .filter((path) => lstatSync(join(folder, path)).isFile())
    .sort();
}

const holds = (file: string, text: string): boolean => readFileSync(file).includes(text);
const hashOf = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

/**
 * What e2fsck may find beyond the journal's replay: free counts are kept lazily, open deleted files are put away, and so
 * is the empty list of them, whose question stands on a line of its own.
 */
const harmless = [
  /^e2fsck |^Pass \d|recovering journal|files \(.*blocks|FILE SYSTEM WAS MODIFIED|^\s*$/,
  /^Free (blocks|inodes) count wrong|^Fix\? yes|[Oo]rphan|^Clear\? yes/,
];

/** Lines of e2fsck that speak of damage. */
function damageIn(output: string): string[] {
  return output.split("\n").filter((line) => !harmless.some((pattern) => pattern.test(line)));
}
