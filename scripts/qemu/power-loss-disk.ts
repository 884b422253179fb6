// Brings crash plans to the medium: one disk file that advances through the log as far as it is durable, and per plan
// a sparse copy with the kept pieces on top. Plans must come in the order of `durableUntil`, so the log is applied once.
// A window limits it to a part of the device (a partition), which then begins at byte 0 of the file.
import { closeSync, copyFileSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { run } from "#scripts/run-command.ts";
import type { CrashPlan } from "./power-loss-images.ts";
import { type LogEntry, type ReadAt, sectorBytes } from "./power-loss-log.ts";

export interface Window {
  readonly firstSector: number;
  readonly sectorCount: number;
}

export interface ReplayOptions {
  /** The device before the first entry. */
  readonly baseFile: string;
  /** Made here. */
  readonly workFile: string;
  readonly entries: readonly LogEntry[];
  readonly readLog: ReadAt;
  readonly window: Window;
}

/** Large zeroed ranges are looked at in pieces. */
const pieceBytes = 1024 * 1024;

export class Replayer {
  readonly #options: ReplayOptions;
  readonly #fd: number;
  #applied = 0;

  private constructor(options: ReplayOptions, fd: number) {
    this.#options = options;
    this.#fd = fd;
  }

  static async open(options: ReplayOptions): Promise<Replayer> {
    const { window } = options;
    const wholeDisk = window.firstSector === 0;
    if (wholeDisk) await copySparse(options.baseFile, options.workFile);
    else copyFileSync("/dev/null", options.workFile);
    const fd = openSync(options.workFile, "r+");
    const replayer = new Replayer(options, fd);
    if (!wholeDisk) replayer.#copyWindow();
    ftruncateSync(fd, window.sectorCount * sectorBytes);
    return replayer;
  }

  /** Writes the image of `plan` to `file`. */
  async make(plan: CrashPlan, file: string): Promise<void> {
    const { entries, workFile } = this.#options;
    if (plan.durableUntil < this.#applied) throw new Error("plans are not in order");
    for (; this.#applied < plan.durableUntil; this.#applied++) {
      const entry = entries[this.#applied]!;
      this.#apply(this.#fd, entry, 0, entry.sectorCount);
    }
    await copySparse(workFile, file);
    const fd = openSync(file, "r+");
    try {
      for (const piece of plan.kept) this.#apply(fd, entries[piece.entry]!, piece.from, piece.sectorCount);
    } finally {
      closeSync(fd);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** What a discarded sector holds afterwards is undefined, so the old bytes stay: the harder case. */
  #apply(fd: number, entry: LogEntry, from: number, sectorCount: number): void {
    if (entry.discard || entry.mark !== undefined) return;
    const { window, readLog } = this.#options;
    const first = Math.max(entry.sector + from, window.firstSector);
    const end = Math.min(entry.sector + from + sectorCount, window.firstSector + window.sectorCount);
    for (let sector = first; sector < end; sector += pieceBytes / sectorBytes) {
      const length = Math.min(pieceBytes, (end - sector) * sectorBytes);
      const data = readLog(entry.dataOffset + (sector - entry.sector) * sectorBytes, length);
      if (data.length !== length) throw new Error("log ends within an entry");
      putSparse(fd, data, (sector - window.firstSector) * sectorBytes);
    }
  }

  #copyWindow(): void {
    const { baseFile, window } = this.#options;
    const base = openSync(baseFile, "r");
    try {
      const start = window.firstSector * sectorBytes;
      const end = Math.min(fstatSync(base).size, start + window.sectorCount * sectorBytes);
      const buffer = Buffer.alloc(pieceBytes);
      for (let at = start; at < end; at += pieceBytes) {
        const length = readSync(base, buffer, 0, Math.min(pieceBytes, end - at), at);
        putSparse(this.#fd, buffer.subarray(0, length), at - start);
      }
    } finally {
      closeSync(base);
    }
  }
}

/** A reader of a file for the parser and the replayer. */
export function openReader(file: string): { readonly read: ReadAt; readonly close: () => void } {
  const fd = openSync(file, "r");
  return {
    read: (offset, length) => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    },
    close: () => closeSync(fd),
  };
}

export async function copySparse(from: string, to: string): Promise<void> {
  await run("cp", ["--sparse=always", "--reflink=auto", "--", from, to]);
}

/** Zeros go only where something else is: a hole stays a hole. */
function putSparse(fd: number, data: Uint8Array, offset: number): void {
  if (isZero(data)) {
    const present = Buffer.alloc(data.length);
    const length = readSync(fd, present, 0, data.length, offset);
    if (isZero(present.subarray(0, length))) return;
  }
  writeSync(fd, data, 0, data.length, offset);
}

const zeros = Buffer.alloc(pieceBytes);
const isZero = (data: Uint8Array): boolean => zeros.compare(data, 0, data.length, 0, data.length) === 0;
