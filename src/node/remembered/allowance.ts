// What may be remembered and written: bounded thrice, in all, per key, and in bytes a day (budget.ts), so that something that
// changes all the time wears no card out. Told in the log once for each key that is too much, and once a day where the day's
// vital bytes are spent.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { Budget } from "./budget.ts";
import type { Note } from "./notes.ts";

export interface StoreBounds {
  /** Of all that is remembered. */
  readonly totalBytes: number;
  /** Of one key. */
  readonly fileBytes: number;
  /** Changes that are not vital, per kind: what may be written at once, and what a day adds. */
  readonly burstBytes: number;
  readonly dailyBytes: number;
  /** Those that are, all kinds together. */
  readonly vitalBurstBytes: number;
  readonly vitalDailyBytes: number;
}

/**
 * 32 MiB hold the specs of 110 pods, their maps and secrets and the services of a large cluster, and are read in a second at a
 * boot; a key is an object (3 MiB at most) or a list. A day's share is what ten years of a small card can take beside all
 * else. The vital burst lets 110 pods come at once, and a day of nothing but new pods stays below 8 MB.
 */
export const defaultBounds: StoreBounds = {
  totalBytes: 32 * 2 ** 20,
  fileBytes: 4 * 2 ** 20,
  burstBytes: 4 * 2 ** 20,
  dailyBytes: 2 * 2 ** 20,
  vitalBurstBytes: 2 * 2 ** 20,
  vitalDailyBytes: 5 * 2 ** 20,
};

/** What ext4 was seen to write besides: the file's inode in its own journal; of a new file its folder too. */
const overheadBytes = { batch: 12 * 1024, file: 20 * 1024 } as const;
const dayMs = 24 * 3600_000;
/** Keys that were told to be too much: each once. */
const maxRefused = 1_000;

export class Allowance {
  readonly #bounds: StoreBounds;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #budgets = new Map<string, Budget>();
  readonly #vital: Budget;
  readonly #refused = new Set<string>();
  #saidSpentMs: number | undefined;

  constructor(bounds: StoreBounds, deps: { readonly clock: Clock; readonly log: Logger }) {
    this.#bounds = bounds;
    this.#clock = deps.clock;
    this.#log = deps.log;
    const { vitalBurstBytes, vitalDailyBytes } = bounds;
    this.#vital = new Budget({ burstBytes: vitalBurstBytes, dailyBytes: vitalDailyBytes }, deps.clock);
  }

  /** Whether a key may be so large. `remembered`: what there is in bytes, and what there will be of other keys. */
  hasRoom(
    key: string,
    about: string,
    bytes: number,
    remembered: { readonly all: number; readonly others: number },
  ): boolean {
    const { totalBytes, fileBytes } = this.#bounds;
    if (bytes <= fileBytes && remembered.others + bytes <= totalBytes) return true;
    if (this.#refused.has(key) || this.#refused.size >= maxRefused) return false;
    this.#refused.add(key);
    this.#log.warn("too much to remember: a boot without a server would lack it", {
      ...{ what: about, bytes, remembered: remembered.all, mostInAll: totalBytes, mostEach: fileBytes },
    });
    return false;
  }

  /** It is on the disk, or gone: the next time that it is too much is told. */
  settled(key: string): void {
    this.#refused.delete(key);
  }

  /** Until a note may go into a batch. What has been written above what a day gives has to be made up for first. */
  batchWaitMs({ urgency, kind }: Note): number {
    if (urgency === "must") return 0;
    const waitMs = (urgency === "vital" ? this.#vital : this.#budgetOf(kind)).debtMs();
    if (waitMs > 0 && urgency === "vital") this.#saySpent(waitMs);
    return waitMs;
  }

  /** `spareKind`: nothing in the batch is vital, and the first of its notes is of this kind. */
  takeBatch(bytes: number, spareKind: string | undefined): void {
    (spareKind === undefined ? this.#vital : this.#budgetOf(spareKind)).take(bytes + overheadBytes.batch);
  }

  /** Until a file of so many bytes may be written. */
  fileWaitMs({ urgency, kind }: Note, bytes: number): number {
    return urgency === "spare" ? this.#budgetOf(kind).lackMs(bytes + overheadBytes.file) : 0;
  }

  takeFile({ urgency, kind }: Note, bytes: number): void {
    (urgency === "spare" ? this.#budgetOf(kind) : this.#vital).take(bytes + overheadBytes.file);
  }

  #saySpent(waitMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#saidSpentMs !== undefined && nowMs - this.#saidSpentMs < dayMs) return;
    this.#saidSpentMs = nowMs;
    this.#log.warn(
      "pods come and go so often that they are written down less often: a boot without a server lacks the newest",
      {
        ...{ bytesADay: this.#bounds.vitalDailyBytes, nextInSeconds: Math.ceil(waitMs / 1000) },
      },
    );
  }

  /** Spare bytes of one kind. */
  #budgetOf(kind: string): Budget {
    const known = this.#budgets.get(kind);
    if (known) return known;
    const budget = new Budget(this.#bounds, this.#clock);
    this.#budgets.set(kind, budget);
    return budget;
  }
}
