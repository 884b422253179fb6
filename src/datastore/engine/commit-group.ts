// Which transactions share an append of the log, and what that append says. Pure: the store keeps those that wait, calls
// the log and tells everybody. Upstream counterpart: etcd's batch transaction of the backend.
import type { WatchEvent } from "../backend.ts";
import type { LogBatch, LogLease, LogRecord } from "../log/log.ts";
import type { Superseded } from "./engine.ts";

/**
 * Revisions set aside at a time for writes that live in memory only: one flush per so many of them at most. A thousand nodes
 * use up 100 a second, so a block lasts them three hours; a crash skips as many at most, as a restored snapshot does.
 */
const reserveBlock = 2 ** 20;
/** A group is bounded so that one append stays short; the rest goes with the next. */
const maxGroupTxns = 1024;
const maxGroupBytes = 8 * 1024 * 1024;

/** A transaction that is in the engine and not yet in the log. */
export interface Pending {
  /** Head after this transaction. */
  readonly revision: number;
  readonly events: readonly WatchEvent[];
  readonly records: readonly LogRecord[];
  readonly superseded: readonly Superseded[];
  readonly leases: readonly LogLease[];
  readonly revokedLeases: readonly number[];
  readonly bytes: number;
  /** What its caller gets when it is durable. */
  readonly result: unknown;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** What the log has been told, and what it still has to be. */
export interface LogKnows {
  /** Rows that it is to drop. */
  readonly dropped: readonly { readonly revision: number; readonly sub: number }[];
  /** Up to here revisions may be given out without telling it. */
  readonly reserved: number;
  readonly compacted: number;
  readonly loggedCompacted: number;
}

/** Those of `pending`, from its front, that go with one append; taken out of it. */
export function takeGroup(pending: Pending[]): Pending[] {
  let count = 0;
  let bytes = 0;
  while (count < pending.length && count < maxGroupTxns && (count === 0 || bytes < maxGroupBytes)) {
    bytes += pending[count++]!.bytes;
  }
  return pending.splice(0, count);
}

/** What the log has to take for them. */
export function batchOf(
  group: readonly Pending[],
  { dropped, reserved, compacted, loggedCompacted }: LogKnows,
): LogBatch {
  const last = group[group.length - 1]!.revision;
  const records: LogRecord[] = [];
  const leases: LogLease[] = [];
  const revokedLeases: number[] = [];
  let memoryOnly = false;
  for (const p of group) {
    for (const record of p.records) records.push(record);
    for (const lease of p.leases) leases.push(lease);
    for (const id of p.revokedLeases) revokedLeases.push(id);
    memoryOnly ||= p.events.length > p.records.length;
  }
  // Reserve when a write in memory would pass the mark; or, at no cost, along with what is flushed anyway.
  const short = memoryOnly ? last > reserved : false;
  const soon = records.length > 0 && reserved > 0 && last + reserveBlock / 2 > reserved;
  return {
    ...{ records, leases, revokedLeases },
    reserve: short || soon ? last + reserveBlock : undefined,
    compacted: dropped.length > 0 && compacted > loggedCompacted ? compacted : undefined,
    dropped,
  };
}
