// Contract of the durable log below the engine: an append-only list of records ordered by (revision, sub), from which
// the engine is rebuilt at start. `append` is the only thing a write waits for.
import type { StoredRecord } from "../engine/engine.ts";

/** flags: tombstoneFlag of the engine; all records of a log have loggedFlag when they are read back. */
export type LogRecord = StoredRecord;

export interface LogLease {
  readonly id: number;
  readonly ttlSeconds: number;
}

/** Applied as a whole or not at all. */
export interface LogBatch {
  readonly records: readonly LogRecord[];
  readonly leases: readonly LogLease[];
  readonly revokedLeases: readonly number[];
  /** Revisions up to here may be handed out to writes that live in memory only. */
  readonly reserve: number | undefined;
  /** History up to here is being dropped. */
  readonly compacted: number | undefined;
  readonly dropped: readonly { readonly revision: number; readonly sub: number }[];
  /** Numbers kept beside the records, by name. */
  readonly notes?: Readonly<Record<string, number>>;
}

export interface LogState {
  readonly compacted: number;
  readonly reserved: number;
  readonly leases: readonly LogLease[];
  /** Newest revision among the records. */
  readonly newest: number;
}

/** What damage to the files has cost. */
export interface DamageReport {
  /** Keys whose newest record is gone and of which there is no other. At most a thousand. */
  readonly lostKeys: readonly string[];
  /** Keys that went back to an older version, or came back, for the same reason. */
  readonly revertedKeys: readonly string[];
  readonly damagedRecords: number;
  /** Parts of the file that cannot be read at all: what they held is not known. */
  readonly unreadablePages: number;
  /** Where the damaged file is kept. */
  readonly setAside: string;
}

export interface DatastoreLog {
  /**
   * First: opens, and hands every record in order to what `start` returns; a record's value holds only within that call.
   * When damage is found and mended on the way, `start` is called again and everything comes once more.
   */
  load(start: () => (record: LogRecord) => void): Promise<LogState>;
  /**
   * Resolves when the batch is on the medium. Rejects with DATASTORE_FULL (nothing was written, the log goes on) or
   * DATASTORE_FLUSH_FAILED (unknown; only `recover` may be called next). One call at a time.
   */
  append(batch: LogBatch): Promise<void>;
  /**
   * The value of a record that an append has written and none has dropped; where there is no such function, values stay in
   * memory. Throws DATASTORE_CORRUPT when it is not what was written, DATASTORE_FLUSH_FAILED when it cannot be read now.
   */
  readonly read?: ((revision: number, sub: number) => Uint8Array) | undefined;
  /** Reopens after a failed flush and drops all records above `revision`; rejects while that is not possible. */
  recover(revision: number): Promise<void>;
  close(): Promise<void>;
  /** The disk is full: what adds is refused by the store, deletions are still taken. Ends by itself. */
  readonly full: boolean;
}

export const emptyBatch: LogBatch = {
  records: [],
  leases: [],
  revokedLeases: [],
  reserve: undefined,
  compacted: undefined,
  dropped: [],
};

export function isEmpty(batch: LogBatch): boolean {
  return (
    batch.records.length === 0 &&
    batch.leases.length === 0 &&
    batch.revokedLeases.length === 0 &&
    batch.reserve === undefined &&
    batch.compacted === undefined &&
    batch.notes === undefined &&
    batch.dropped.length === 0
  );
}
