// SQLite's virtual file system over the BlockFiles door. It counts what is written and flushed, hands out the files
// by name so that the log can flush the WAL itself, and keeps the error behind SQLite's terse code.
//
// What SQLite's own unix VFS does and must be done here too: a short read is zero-filled and said; a file of no length
// does not exist; the folder is flushed after a file was created.
// SQLite writes a frame of the WAL in two small pieces, and pages one by one; what follows on each other goes to the file
// system as one write. It is there before SQLite reads, before it learns that a sync is done, and with the last frame of
// a transaction, so that a write that fails does so within the call of SQLite that it belongs to.
// Locks do nothing: one connection (locking_mode=EXCLUSIVE) of one process (platform/process-lock) uses the file.
import { randomFillSync } from "node:crypto";
import { hasCode } from "#base/errors.ts";
import type { BlockFile, BlockFiles } from "#platform/block-file.ts";
import type { Signature, SqliteModule } from "./sqlite-module.ts";

// Result codes and flags of sqlite3.h.
const ok = 0;
const notFound = 12;
const full = 13;
const ioError = 10;
const ioShortRead = ioError | (2 << 8);
const ioDeleteNoEnt = ioError | (23 << 8);
const openCreate = 4;
const openDeleteOnClose = 8;
const openWal = 0x80000;
const accessExists = 0;
/** SQLITE_IOCAP_POWERSAFE_OVERWRITE, as unix answers; without it every commit is padded to a sector. */
const characteristics = 0x1000;
const sectorBytes = 4096;
const maxPathBytes = 1024;
/** Small enough that what a system call takes is in the cache of the processor. */
const gatherBytes = 128 * 1024;
/**
 * Read at once where one page follows another, in the WAL with a frame's header between them: opening and folding read
 * all pages, mostly in their order.
 */
const aheadBytes = 64 * 1024;
const frameHeaderBytes = 24;
const commitMarkAt = 4;

export interface VfsCounters {
  /** Bytes handed to the file system. */
  written: number;
  /** Flushes of files and folders. */
  flushes: number;
}

export interface Vfs {
  readonly name: string;
  readonly counters: VfsCounters;
  /** Bytes written to the file of that path since it was opened. */
  writtenTo(path: string): number;
  /** The open file of that path, which has all that SQLite has written. */
  fileOf(path: string): BlockFile | undefined;
  /** Writes beside SQLite, and counts it. */
  writeTo(path: string, bytes: Uint8Array, position: number): void;
  /**
   * "blocking": SQLite's syncs are flushes. "deferred": they are left to the log, which flushes without blocking, in the
   * order that SQLite's protocol needs. "frozen": nothing is changed any more, whatever SQLite does when it is closed.
   */
  mode: "blocking" | "deferred" | "frozen";
  /** Why the last call failed, if one did since it was asked last. */
  takeError(): unknown;
  /** Closes what SQLite has left open: after a failure it is not asked again. */
  closeAll(): void;
}

interface OpenFile {
  readonly path: string;
  readonly file: BlockFile;
  readonly deleteOnClose: boolean;
  /** The folder has yet to be flushed for this new file. */
  created: boolean;
  written: number;
  /** A WAL: its frame headers say when a transaction is complete. */
  readonly isWal: boolean;
  /** Written by SQLite and not yet handed on: `length` bytes that belong at `position`. */
  readonly gathered: { bytes: Buffer | undefined; position: number; length: number };
  /** The next write is the last of its transaction. */
  completes: boolean;
  /** What was read ahead: `length` bytes from `position`, until something is written. `next`: where the last read ended. */
  readonly ahead: { bytes: Buffer | undefined; position: number; length: number; next: number };
}

type Method = readonly [signature: Signature, callback: (...args: never[]) => number];

/** Registers the VFS as the default one; once per module. */
export function installVfs(sqlite: SqliteModule, files: BlockFiles, name: string): Vfs {
  const open = new Map<number, OpenFile>();
  const counters: VfsCounters = { written: 0, flushes: 0 };
  let lastError: unknown;

  // No method may throw into C: every one is wrapped so.
  const guard =
    (fallback: number, body: (...args: never[]) => number) =>
    (...args: never[]): number => {
      try {
        return body(...args);
      } catch (error) {
        lastError = error;
        return hasCode(error, "ENOSPC") || hasCode(error, "EDQUOT") ? full : fallback;
      }
    };
  const mustNotBeFrozen = () => {
    if (vfs.mode === "frozen") throw new Error("the files are left as they are after a failure");
  };
  const handOn = ({ file, gathered, ahead }: OpenFile) => {
    const { bytes, length, position } = gathered;
    if (!bytes || length === 0) return;
    gathered.length = 0;
    mustNotBeFrozen();
    ahead.length = 0;
    file.write(bytes.subarray(0, length), position);
  };
  const write = (target: OpenFile, bytes: Buffer, position: number) => {
    const { gathered } = target;
    if (gathered.length > 0) {
      const follows = position === gathered.position + gathered.length;
      if (!follows || gathered.length + bytes.length > gatherBytes) handOn(target);
    }
    target.ahead.length = 0;
    if (bytes.length > gatherBytes) {
      target.file.write(bytes, position);
      return;
    }
    gathered.bytes ??= Buffer.allocUnsafeSlow(gatherBytes);
    if (gathered.length === 0) gathered.position = position;
    gathered.bytes.set(bytes, gathered.length);
    gathered.length += bytes.length;
    const complete = target.completes;
    target.completes = target.isWal && bytes.length === frameHeaderBytes && bytes.readUInt32BE(commitMarkAt) !== 0;
    if (complete) handOn(target);
  };
  const read = ({ file, ahead }: OpenFile, into: Buffer, position: number): number => {
    const gap = position - ahead.next;
    const follows = gap >= 0 && gap <= frameHeaderBytes;
    ahead.next = position + into.length;
    const within = position >= ahead.position && position + into.length <= ahead.position + ahead.length;
    if (!within) {
      if (!follows || into.length > aheadBytes / 4) return file.read(into, position);
      ahead.bytes ??= Buffer.allocUnsafeSlow(aheadBytes);
      ahead.length = 0;
      ahead.length = file.read(ahead.bytes, position);
      ahead.position = position;
      if (ahead.length < into.length) return file.read(into, position);
    }
    ahead.bytes!.copy(into, 0, position - ahead.position, position - ahead.position + into.length);
    return into.length;
  };
  const entry = (id: number): OpenFile => {
    const found = open.get(id);
    if (!found) throw new Error("SQLite used a file that is not open");
    return found;
  };

  const fileMethods: readonly (Method | undefined)[] = [
    // xClose
    [
      "ii",
      guard(ioError, (id: number) => {
        const { file, path, deleteOnClose } = entry(id);
        if (vfs.mode !== "frozen") handOn(entry(id));
        open.delete(id);
        file.close();
        if (deleteOnClose) files.remove(path);
        return ok;
      }),
    ],
    // xRead
    [
      "iiiij",
      guard(ioError, (id: number, into: number, length: number, position: bigint) => {
        const target = sqlite.bytes().subarray(into, into + length);
        handOn(entry(id));
        const n = read(entry(id), target, Number(position));
        if (n === length) return ok;
        target.fill(0, n);
        return ioShortRead;
      }),
    ],
    // xWrite
    [
      "iiiij",
      guard(ioError, (id: number, from: number, length: number, position: bigint) => {
        mustNotBeFrozen();
        const target = entry(id);
        write(target, sqlite.bytes().subarray(from, from + length), Number(position));
        target.written += length;
        counters.written += length;
        return ok;
      }),
    ],
    // xTruncate
    [
      "iij",
      guard(ioError, (id: number, size: bigint) => {
        mustNotBeFrozen();
        handOn(entry(id));
        entry(id).ahead.length = 0;
        entry(id).file.truncate(Number(size));
        return ok;
      }),
    ],
    // xSync
    [
      "iii",
      guard(ioError, (id: number) => {
        const target = entry(id);
        if (vfs.mode !== "frozen") handOn(target);
        if (vfs.mode !== "blocking") return ok;
        target.file.sync();
        counters.flushes++;
        if (target.created) {
          files.syncFolderOf(target.path);
          counters.flushes++;
          target.created = false;
        }
        return ok;
      }),
    ],
    // xFileSize
    [
      "iii",
      guard(ioError, (id: number, out: number) => {
        handOn(entry(id));
        sqlite.view().setBigInt64(out, BigInt(entry(id).file.size()), true);
        return ok;
      }),
    ],
    // xLock, xUnlock
    ["iii", () => ok],
    ["iii", () => ok],
    // xCheckReservedLock
    [
      "iii",
      (_id: number, out: number) => {
        sqlite.view().setInt32(out, 0, true);
        return ok;
      },
    ],
    // xFileControl
    ["iiii", () => notFound],
    // xSectorSize, xDeviceCharacteristics
    ["ii", () => sectorBytes],
    ["ii", () => characteristics],
  ];
  const fileTable = struct(sqlite, [1], fileMethods);

  const vfsMethods: readonly (Method | undefined)[] = [
    // xOpen
    [
      "iiiiii",
      guard(ioError, (_vfs: number, nameAt: number, id: number, flags: number, outFlags: number) => {
        // On failure SQLite must not call xClose, which it does when the methods pointer is set.
        sqlite.view().setUint32(id, 0, true);
        if (nameAt === 0) throw new Error("SQLite asked for a temporary file; temp_store must be memory");
        const path = sqlite.stringAt(nameAt);
        const create = (flags & openCreate) !== 0;
        const created = create && !files.exists(path);
        const file = files.open(path, { create });
        open.set(id, {
          ...{ path, file, deleteOnClose: (flags & openDeleteOnClose) !== 0, created, written: 0 },
          ...{ isWal: (flags & openWal) !== 0, completes: false },
          gathered: { bytes: undefined, position: 0, length: 0 },
          ahead: { bytes: undefined, position: 0, length: 0, next: 0 },
        });
        sqlite.view().setUint32(id, fileTable, true);
        if (outFlags !== 0) sqlite.view().setInt32(outFlags, flags, true);
        return ok;
      }),
    ],
    // xDelete
    [
      "iiii",
      guard(ioError, (_vfs: number, nameAt: number, syncFolder: number) => {
        mustNotBeFrozen();
        const path = sqlite.stringAt(nameAt);
        try {
          files.remove(path);
        } catch (error) {
          if (hasCode(error, "ENOENT")) return ioDeleteNoEnt;
          throw error;
        }
        if (syncFolder !== 0) {
          files.syncFolderOf(path);
          counters.flushes++;
        }
        return ok;
      }),
    ],
    // xAccess
    [
      "iiiii",
      guard(ioError, (_vfs: number, nameAt: number, flags: number, out: number) => {
        const yes = flags === accessExists ? files.exists(sqlite.stringAt(nameAt)) : true;
        sqlite.view().setInt32(out, yes ? 1 : 0, true);
        return ok;
      }),
    ],
    // xFullPathname
    [
      "iiiii",
      guard(ioError, (_vfs: number, nameAt: number, size: number, out: number) => {
        const path = Buffer.from(`${sqlite.stringAt(nameAt)}\0`, "utf8");
        if (path.length > size) return ioError;
        sqlite.bytes().set(path, out);
        return ok;
      }),
    ],
    // xDlOpen, xDlError, xDlSym, xDlClose: extensions cannot be loaded
    undefined,
    undefined,
    undefined,
    undefined,
    // xRandomness
    [
      "iiii",
      (_vfs: number, length: number, out: number) => {
        randomFillSync(sqlite.bytes(), out, length);
        return length;
      },
    ],
    // xSleep: only the busy handler sleeps, and with one connection nothing is ever busy.
    ["iii", (_vfs: number, microseconds: number) => microseconds],
    // xCurrentTime: the log has no dates.
    [
      "iii",
      (_vfs: number, out: number) => {
        sqlite.view().setFloat64(out, 2440587.5, true);
        return ok;
      },
    ],
    // xGetLastError
    ["iiii", () => ok],
  ];
  const nameAt = sqlite.allocString(name);
  // szOsFile 4: the methods pointer is all that SQLite keeps for us; the rest is in `open`.
  const registration = struct(sqlite, [1, 4, maxPathBytes, 0, nameAt, 0], vfsMethods);
  const registered = sqlite.exports["sqlite3_vfs_register"](registration, 1) as number;
  if (registered !== ok) throw new Error(`sqlite3_vfs_register answered ${registered}`);

  const byPath = (path: string): OpenFile | undefined => {
    for (const candidate of open.values()) if (candidate.path === path) return candidate;
    return undefined;
  };
  const vfs: Vfs = {
    name,
    counters,
    mode: "blocking",
    writeTo(path, bytes, position) {
      const target = byPath(path);
      if (!target) throw new Error(`${path} is not open`);
      handOn(target);
      target.ahead.length = 0;
      target.file.write(bytes, position);
      target.written += bytes.length;
      counters.written += bytes.length;
    },
    fileOf(path) {
      const found = byPath(path);
      if (found) handOn(found);
      return found?.file;
    },
    writtenTo: (path) => byPath(path)?.written ?? 0,
    takeError() {
      const error = lastError;
      lastError = undefined;
      return error;
    },
    closeAll() {
      for (const { file } of open.values()) file.close();
      open.clear();
    },
  };
  return vfs;
}

/** A C struct of 32-bit words: numbers, then function pointers. */
function struct(sqlite: SqliteModule, words: readonly number[], methods: readonly (Method | undefined)[]): number {
  const pointers = methods.map((method) => (method ? sqlite.pointerTo(method[1], method[0]) : 0));
  const all = [...words, ...pointers];
  const address = sqlite.exports["sqlite3_malloc"](all.length * 4) >>> 0;
  if (address === 0) throw new Error("SQLite is out of memory");
  const view = sqlite.view();
  all.forEach((word, i) => {
    view.setUint32(address + i * 4, word, true);
  });
  return address;
}
