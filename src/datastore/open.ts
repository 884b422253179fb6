// Endpoint -> Backend. The table of schemes is all there is to extend for another home of the store.
import { dirname } from "node:path";
import { type AppError, hasCode } from "#base/errors.ts";
import { readAsset } from "#platform/assets.ts";
import { type BlockFiles, systemBlockFiles } from "#platform/block-file.ts";
import { makeFolder } from "#platform/files.ts";
import { totalMemoryBytes } from "#platform/machine.ts";
import { acquireProcessLock, type ProcessLock } from "#platform/process-lock.ts";
import { systemRandom } from "#platform/random.ts";
import { Engine } from "./engine/engine.ts";
import { datastoreError } from "./errors.ts";
import type { DamageReport } from "./log/log.ts";
import { createMemoryLog } from "./log/memory/memory-log.ts";
import { openSqliteLog } from "./log/sqlite/sqlite-log.ts";
import { type Datastore, openStore, type StoreDeps } from "./store.ts";

export interface DatastoreOptions {
  /** `sqlite:///absolute/path/state.db` or `memory://`. */
  readonly endpoint: string;
  /**
   * Ceiling of the index and of values in memory; default a quarter of what the machine has, at most 1 GiB, 256 MiB where
   * addresses have 32 bits. What is above it is read from the log; the index alone, some 150 bytes and the key for each,
   * must fit.
   */
  readonly maximumMemoryBytes?: number | undefined;
  /** Longer values are never kept in memory; default 1/128 of the ceiling. */
  readonly warmValueBytes?: number | undefined;
  /** Room kept for deletions when the disk is full; default 4 MiB. */
  readonly reserveBytes?: number;
  /** Default: those of the system. */
  readonly files?: BlockFiles;
}

const mib = 1024 * 1024;
const defaultReserveBytes = 4 * mib;
/** Of the machine's memory: pods and their page cache need the rest. A cluster's objects are a few dozen MiB. */
const memoryShare = 0.25;
const leastMemoryBytes = 64 * mib;

export type { DamageReport };

export interface DatastoreDeps extends StoreDeps {
  /** Told once, before the store is open, of what damage to its files has cost. */
  readonly damaged?: ((report: DamageReport) => void) | undefined;
}

type Opener = (rest: string, options: DatastoreOptions, deps: DatastoreDeps) => Promise<Datastore>;

const schemes: Readonly<Record<string, Opener>> = { sqlite: openSqlite, memory: openMemory };

/** Opens the store, loading what it holds; creates it where there is none. Rejects with DATASTORE_LOCKED, _FORMAT, _BAD_REQUEST. */
export async function openDatastore(options: DatastoreOptions, deps: DatastoreDeps): Promise<Datastore> {
  const [, scheme = "", rest = ""] = /^([a-z]+):\/\/(.*)$/.exec(options.endpoint) ?? [];
  const open = Object.hasOwn(schemes, scheme) ? schemes[scheme] : undefined;
  if (!open) {
    const allowed = Object.keys(schemes)
      .map((name) => `${name}://`)
      .join(", ");
    throw datastoreError(
      "DATASTORE_BAD_REQUEST",
      `datastore endpoint "${options.endpoint}" must begin with one of ${allowed}`,
    );
  }
  return open(rest, options, deps);
}

async function openMemory(_rest: string, options: DatastoreOptions, deps: DatastoreDeps): Promise<Datastore> {
  return openStore(() => createEngine(options), createMemoryLog(), deps);
}

async function openSqlite(path: string, options: DatastoreOptions, deps: DatastoreDeps): Promise<Datastore> {
  if (!path.startsWith("/")) {
    throw datastoreError("DATASTORE_BAD_REQUEST", `datastore endpoint "${options.endpoint}" needs an absolute path`);
  }
  await makeFolder(dirname(path), 0o700);
  const files = options.files ?? systemBlockFiles;
  const lock = await lockFor(path);
  try {
    const log = openSqliteLog(
      {
        path,
        files,
        module: new WebAssembly.Module(readAsset("sqlite3.wasm")),
        reserveBytes: options.reserveBytes ?? defaultReserveBytes,
      },
      deps,
    );
    try {
      const store = await openStore(() => createEngine(options), log, deps);
      return releasing(store, lock);
    } catch (error) {
      await log.close();
      throw error;
    }
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function lockFor(path: string): Promise<ProcessLock> {
  try {
    return await acquireProcessLock(path);
  } catch (error) {
    if (!hasCode(error, "PROCESS_LOCKED")) throw error;
    throw datastoreError("DATASTORE_LOCKED", (error as AppError).message, (error as AppError).details, error);
  }
}

/** Gives the lock back after the store has let go of its files. */
function releasing(store: Datastore, lock: ProcessLock): Datastore {
  let closed: Promise<void> | undefined;
  const close = async () => {
    try {
      await store.close();
    } finally {
      await lock.release();
    }
  };
  return {
    commit: (txn) => store.commit(txn),
    range: (range) => store.range(range),
    scan: (range, hurry) => store.scan(range, hurry),
    watch: (watch, sink) => store.watch(watch, sink),
    compact: (revision) => store.compact(revision),
    revision: () => store.revision(),
    compactedRevision: () => store.compactedRevision(),
    grantLease: (ttlSeconds, id, durable) => store.grantLease(ttlSeconds, id, durable),
    keepAlive: (id) => store.keepAlive(id),
    revokeLease: (id) => store.revokeLease(id),
    leases: () => store.leases(),
    lease: (id, withKeys) => store.lease(id, withKeys),
    accounts: () => store.accounts(),
    verify: () => store.verify(),
    export: (write) => store.export(write),
    close: () => (closed ??= close()),
  };
}

/** An engine of the usual size. */
export function createEngine(options: DatastoreOptions): Engine {
  const most = (process.arch === "arm" || process.arch === "ia32" ? 256 : 1024) * mib;
  const usual = Math.min(most, Math.max(leastMemoryBytes, totalMemoryBytes() * memoryShare));
  return new Engine({
    wasm: readAsset("engine.wasm"),
    maximumBytes: options.maximumMemoryBytes ?? usual,
    warmValueBytes: options.warmValueBytes,
    hashSeed: Buffer.from(systemRandom.bytes(4)).readUInt32LE(),
  });
}
