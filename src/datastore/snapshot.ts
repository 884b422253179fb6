// Snapshots: the whole store at one revision in a file of its own, taken while writing goes on. A snapshot has the format
// of the store itself, without history, so that `sqlite3` reads it and restoring is putting it in place.
// Upstream counterpart: k3s etcd-snapshot.
import { dirname } from "node:path";
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { readAsset } from "#platform/assets.ts";
import { type BlockFiles, systemBlockFiles } from "#platform/block-file.ts";
import { listFolder, makeFolder, syncFolder } from "#platform/files.ts";
import { removeFile, renamePath } from "#platform/folders.ts";
import { copyFile, gunzipFile, gzipFile } from "#platform/gzip-file.ts";
import { openForReading } from "#platform/open-file.ts";
import { acquireProcessLock } from "#platform/process-lock.ts";
import { datastoreError } from "./errors.ts";
import { emptyBatch } from "./log/log.ts";
import { openSqliteLog } from "./log/sqlite/sqlite-log.ts";
import { createEngine } from "./open.ts";
import { draftFiles } from "./snapshot/draft-files.ts";
import { type Datastore, openStore } from "./store.ts";

export interface Snapshot {
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly createdMs: number;
}

export interface SnapshotDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Where saving writes; default: the system's. */
  readonly files?: BlockFiles;
}

export interface SaveOptions {
  readonly folder: string;
  /** `name`-`node`-seconds is the file's name. */
  readonly name: string;
  readonly node: string;
  readonly compress: boolean;
}

const compressed = ".gz";
const temporary = ".tmp";
/** Revisions that clients of the time before a restore may have seen beyond what the file shows. */
const restoredRevisions = 1_000_000;

/** Writes a snapshot and returns when it is on the medium. */
export async function saveSnapshot(store: Datastore, options: SaveOptions, deps: SnapshotDeps): Promise<Snapshot> {
  if (!/^[\w.-]+$/.test(options.name)) {
    throw datastoreError(
      "DATASTORE_BAD_REQUEST",
      `snapshot name "${options.name}" is not allowed; use letters, digits, . _ -`,
    );
  }
  await makeFolder(options.folder, 0o700);
  const createdMs = deps.clock.now();
  const name = `${options.name}-${options.node}-${Math.floor(createdMs / 1000)}${options.compress ? compressed : ""}`;
  const path = `${options.folder}/${name}`;
  const plain = `${path}${temporary}`;
  const packed = `${path}${compressed}${temporary}`;
  const { files = systemBlockFiles } = deps;
  try {
    await removeLog(plain);
    const log = openLog(plain, { ...deps, files: draftFiles(files) });
    await log.load(() => () => {});
    try {
      await store.export((batch) => log.append(batch));
    } finally {
      await log.close();
    }
    if (options.compress) await gzipFile(plain, packed);
    await putInPlace(options.compress ? packed : plain, path, files);
  } finally {
    await removeLog(plain);
    await removeFile(packed);
  }
  const saved = await factsOf(path, name);
  deps.log.info("snapshot saved", { name, bytes: saved.sizeBytes });
  return saved;
}

/** Oldest first. */
export async function listSnapshots(folder: string): Promise<Snapshot[]> {
  const found: Snapshot[] = [];
  for (const entry of await listFolder(folder)) {
    if (!entry.isFile() || !isSnapshotName(entry.name)) continue;
    const facts = await factsIfThere(`${folder}/${entry.name}`, entry.name);
    // The schedule may have removed it meanwhile.
    if (facts) found.push(facts);
  }
  return found.sort((a, b) => a.createdMs - b.createdMs || (a.name < b.name ? -1 : 1));
}

/** Removes the oldest beyond `retention` of those saved under `name` on `node`; returns what it removed. */
export async function pruneSnapshots(options: {
  readonly folder: string;
  readonly name: string;
  readonly node: string;
  readonly retention: number;
}): Promise<Snapshot[]> {
  const doomed = beyondRetention(await listSnapshots(options.folder), options);
  for (const { path } of doomed) await removeFile(path);
  return doomed;
}

/** The oldest beyond `retention` of those saved under `name` on `node`. `all`: oldest first. */
export function beyondRetention(
  all: readonly Snapshot[],
  options: { readonly name: string; readonly node: string; readonly retention: number },
): Snapshot[] {
  const prefix = `${options.name}-${options.node}-`;
  const mine = all.filter(({ name }) => name.startsWith(prefix) && /^\d+(\.gz)?$/.test(name.slice(prefix.length)));
  return mine.slice(0, Math.max(0, mine.length - options.retention));
}

/** What `saveSnapshot` names its files. */
export const isSnapshotName = (name: string): boolean => /^[\w.-]+-\d+(\.gz)?$/.test(name);
export const createdMsOf = (name: string): number => Number(/-(\d+)(\.gz)?$/.exec(name)?.[1] ?? 0) * 1000;

/** Reads every record and proves the index over it. Rejects with DATASTORE_CORRUPT. The file is not changed. */
export async function verifySnapshot(path: string, deps: SnapshotDeps): Promise<{ keys: number; revision: number }> {
  const copy = await unpack(path, `${path}.verify${temporary}`);
  try {
    return await verifyCopy(copy, deps);
  } finally {
    await removeLog(copy);
  }
}

/** Replaces the store at `target`, which no process may have open; the old one is kept beside it and named. */
export async function restoreSnapshot(
  options: { readonly path: string; readonly target: string },
  deps: SnapshotDeps,
): Promise<{ keys: number; revision: number; kept: string | undefined }> {
  const { path, target } = options;
  await makeFolder(dirname(target), 0o700);
  const lock = await acquireProcessLock(target);
  const copy = await unpack(path, `${target}-restore`);
  try {
    const { keys, revision } = await verifyCopy(copy, deps);
    const before = await newestOf(target, deps);
    // No number comes again, and every watcher of the time before lists anew.
    const bumped = Math.max(revision, before ?? 0) + restoredRevisions;
    const log = openLog(copy, deps);
    await log.load(() => () => {});
    await log.append({ ...emptyBatch, reserve: bumped, compacted: bumped });
    await log.close();
    let kept: string | undefined;
    if (systemBlockFiles.exists(target)) {
      kept = `${target}-before-restore`;
      await removeLog(kept);
      if (systemBlockFiles.exists(`${target}-wal`)) await renamePath(`${target}-wal`, `${kept}-wal`);
      await renamePath(target, kept);
    }
    await putInPlace(copy, target);
    return { keys, revision: bumped, kept };
  } finally {
    await removeLog(copy);
    await lock.release();
  }
}

async function verifyCopy(path: string, deps: SnapshotDeps): Promise<{ keys: number; revision: number }> {
  let damaged = false;
  const log = openLog(path, deps, () => {
    damaged = true;
  });
  const store = await openStore(() => createEngine({ endpoint: "" }), log, deps).catch((error: unknown) => {
    throw datastoreError("DATASTORE_CORRUPT", `this is no sound snapshot: ${messageOf(error)}`, {}, error);
  });
  try {
    store.verify();
    const { keys } = store.accounts();
    const expected = log.note("snapshot_keys");
    if (damaged || expected !== keys) {
      throw datastoreError("DATASTORE_CORRUPT", "the snapshot is damaged", { keys, expected: expected ?? null });
    }
    return { keys, revision: store.revision() };
  } finally {
    await store.close();
  }
}

/** The newest revision of a store that may be damaged or absent. */
async function newestOf(path: string, deps: SnapshotDeps): Promise<number | undefined> {
  if (!systemBlockFiles.exists(path)) return undefined;
  const log = openLog(path, deps);
  try {
    const { newest, reserved, compacted } = await log.load(() => () => {});
    return Math.max(newest, reserved, compacted);
  } catch (error) {
    deps.log.warn("the store that is replaced cannot be read", { error: messageOf(error) });
    return undefined;
  } finally {
    await log.close();
  }
}

function openLog(path: string, deps: SnapshotDeps, damaged?: () => void) {
  const module = new WebAssembly.Module(readAsset("sqlite3.wasm"));
  const { clock, log, files = systemBlockFiles } = deps;
  return openSqliteLog({ path, files, module }, { clock, log, damaged });
}

async function unpack(path: string, to: string): Promise<string> {
  await removeLog(to);
  try {
    await (path.endsWith(compressed) ? gunzipFile(path, to) : copyFile(path, to));
  } catch (error) {
    await removeLog(to);
    throw datastoreError("DATASTORE_CORRUPT", `snapshot ${path} cannot be read: ${messageOf(error)}`, {}, error);
  }
  return to;
}

async function putInPlace(from: string, to: string, files = systemBlockFiles): Promise<void> {
  const file = files.open(from, { create: false });
  try {
    await file.flush();
  } finally {
    file.close();
  }
  await renamePath(from, to);
  await syncFolder(dirname(to));
}

async function removeLog(path: string): Promise<void> {
  for (const suffix of ["", "-wal", "-damaged", "-damaged-wal", "-rebuilt", "-rebuilt-wal", "-new", "-new-wal"])
    await removeFile(`${path}${suffix}`);
}

async function factsOf(path: string, name: string): Promise<Snapshot> {
  const facts = await factsIfThere(path, name);
  if (!facts) throw datastoreError("DATASTORE_BAD_REQUEST", `there is no snapshot ${path}`);
  return facts;
}

async function factsIfThere(path: string, name: string): Promise<Snapshot | undefined> {
  const file = await openForReading(path);
  if (!file) return undefined;
  const { sizeBytes } = await file.facts();
  await file.close();
  return { name, path, sizeBytes, createdMs: createdMsOf(name) };
}
