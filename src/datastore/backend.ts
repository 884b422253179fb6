// THE contract of every datastore: the engine over SQLite, an in-memory one, and later etcd, PostgreSQL, MySQL, NATS.
// It is etcd's data model: a flat, ordered key space under one global revision; every successful transaction with at
// least one write raises the revision by one and all its writes share it.
//
// Guarantees: commit resolves only after the write is durable; a watcher sees an event only after that; events of one
// watch come in revision order, each once, and all events of one revision come in one batch.

import type { RangeScan } from "./engine/range-scan.ts";

/** A point in the history of the store; safe integer (ADR 2026-11-21-revisions). 0 means "now" where it is a parameter. */
export type Revision = number & { readonly __revision: unique symbol };
export const revision = (value: number): Revision => value as Revision;

/**
 * A key is a byte string: a JS string whose chars are 0-255, one per byte, so that string order is byte order and a
 * Map can hold it. Kubernetes keys are ASCII. At most `maxKeyBytes` long, at least 1.
 */
export type Key = string;
export const maxKeyBytes = 4096;
/** Kubernetes limits a request to 3 MiB (etcd: 1.5 MiB); a value may be as large as such a request. */
export const maxValueBytes = 3 * 1024 * 1024;
/** etcd's default for --max-txn-ops. */
export const maxTxnOps = 128;

export interface KeyValue {
  readonly key: Key;
  /** Owned by the reader: never changes afterwards, must not be written to. */
  readonly value: Uint8Array;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  /** 1 at creation, +1 with each put. */
  readonly version: number;
  /** 0: none. */
  readonly lease: number;
}

/** [key, end) in byte order. Without `end` exactly `key`; `end: "\0"` means "all keys >= key" (as in etcd). */
export interface KeyRange {
  readonly key: Key;
  readonly end?: Key | undefined;
}

/** The range of all keys that start with `prefix`. */
export function prefixRange(prefix: Key): KeyRange {
  for (let i = prefix.length - 1; i >= 0; i--) {
    const c = prefix.charCodeAt(i);
    if (c < 0xff) return { key: prefix, end: prefix.slice(0, i) + String.fromCharCode(c + 1) };
  }
  return { key: prefix === "" ? "\0" : prefix, end: "\0" };
}

/**
 * True when the stored key's `target` stands in `op` relation to `value`; an absent key has 0 for all numbers, and no
 * value that any compare of values holds for. With `end` it must hold for every key of the range, or, where there is
 * none, for an absent one.
 */
export type Compare = KeyRange & { readonly op: "=" | "!=" | "<" | ">" } & (
    | { readonly target: "mod" | "create" | "version" | "lease"; readonly value: number }
    | { readonly target: "value"; readonly value: Uint8Array }
  );

/**
 * Where the durability of a write stands (docs/datastore.md lists which resource is in which class):
 * durable: flushed before the commit resolves. heartbeat, event: kept in memory, never flushed on their own; their
 * revisions never repeat after a crash.
 */
export type StorageClass = "durable" | "heartbeat" | "event";

export type Op =
  | {
      readonly type: "put";
      readonly key: Key;
      readonly value: Uint8Array;
      readonly lease?: number;
      readonly class?: StorageClass;
      /** Keep the value, or the lease, that the key has: DATASTORE_KEY_NOT_FOUND where there is no such key. */
      readonly keepValue?: boolean;
      readonly keepLease?: boolean;
      /** Whoever reads the value of the result's `prevKv` asks for it. */
      readonly prevKv?: boolean;
    }
  | { readonly type: "delete"; readonly key: Key; readonly end?: Key | undefined; readonly prevKv?: boolean }
  | { readonly type: "range"; readonly range: RangeOptions }
  /** All compares, of nested transactions too, are judged before anything is applied. */
  | { readonly type: "txn"; readonly txn: Txn };

export type OpResult =
  | { readonly type: "put"; readonly prevKv: KeyValue | undefined }
  | { readonly type: "delete"; readonly deleted: number; readonly prevKvs: readonly KeyValue[] }
  | { readonly type: "range"; readonly result: RangeResult }
  | { readonly type: "txn"; readonly succeeded: boolean; readonly results: readonly OpResult[] };

export interface Txn {
  /** All must hold for `success` to be applied; else `failure` is. Evaluated at one point in time. */
  readonly compares: readonly Compare[];
  readonly success: readonly Op[];
  readonly failure?: readonly Op[];
}

export interface TxnResult {
  readonly succeeded: boolean;
  /** The store's revision after this transaction: that of its writes, if it had any. */
  readonly revision: Revision;
  readonly results: readonly OpResult[];
}

export interface RangeOptions extends KeyRange {
  /** Read as of this revision; 0 or absent: now. DATASTORE_COMPACTED when it is gone, DATASTORE_FUTURE_REVISION when not yet reached. */
  readonly revision?: Revision | undefined;
  /** At most so many keys; 0 or absent: all. */
  readonly limit?: number | undefined;
  readonly countOnly?: boolean | undefined;
  readonly keysOnly?: boolean | undefined;
}

export interface RangeResult {
  readonly kvs: readonly KeyValue[];
  /** Keys in the range, whatever the limit. */
  readonly count: number;
  /** More keys than `limit`. */
  readonly more: boolean;
  /** The revision that was current when the answer was made. */
  readonly revision: Revision;
}

/** One change. The same object is handed to every watcher, so what is derived from it can be cached by identity. */
export interface WatchEvent {
  readonly type: "put" | "delete";
  /** For a delete: the key, an empty value, modRevision = the revision of the delete. */
  readonly kv: KeyValue;
  /** What was there before; absent for a creation or where history is compacted. */
  readonly prevKv: KeyValue | undefined;
}

export interface WatchOptions extends KeyRange {
  /** First revision to deliver; 0 or absent: from now on. */
  readonly startRevision?: Revision | undefined;
}

/** Receives a watch. Called in order, never re-entrantly from within `watch()`. Must not throw and must not block. */
export interface WatchSink {
  /** All matching events of one or more whole revisions; `through`: every event up to here has been delivered. */
  onEvents(events: readonly WatchEvent[], through: Revision): void;
  /**
   * The watch is over and will not call again. DATASTORE_COMPACTED: the start revision is gone; DATASTORE_CLOSED;
   * DATASTORE_WATCH_SLOW: it owed more than the bound.
   */
  onEnd(error: Error | undefined): void;
}

export interface Watch {
  /** Everything up to this revision has been delivered to the sink (what a bookmark may say). */
  readonly progress: Revision;
  /** Ends the watch; onEnd is not called. */
  cancel(): void;
}

export interface Lease {
  readonly id: number;
  readonly ttlSeconds: number;
  readonly remainingSeconds: number;
}

export interface Backend {
  /** Applies a transaction. Rejects with DATASTORE_CLOSED, DATASTORE_FULL, DATASTORE_TOO_LARGE or DATASTORE_FLUSH_FAILED; after the last the outcome is unknown. */
  commit(txn: Txn): Promise<TxnResult>;
  range(options: RangeOptions): Promise<RangeResult>;
  /**
   * The same for a reader that takes key-values as it has room for them: opens at the revision of now, or throws. `hurry`
   * asks it to read what is left. Absent where ranges come as a whole.
   */
  scan?(options: KeyRange & Pick<RangeOptions, "revision" | "limit">, hurry: () => Promise<void>): RangeScan;
  watch(options: WatchOptions, sink: WatchSink): Watch;
  /** Drops history up to and including `revision`, keeping the newest value of each key as of it. */
  compact(revision: Revision): Promise<void>;
  /** The newest durable revision: what a reader may see. */
  revision(): Revision;
  /** The newest compacted revision: reads below or at it fail unless they ask for exactly it. */
  compactedRevision(): Revision;
  /**
   * Leases: keys attached to one vanish with it. `id` 0 lets the store choose. A lease is durable with its first durable
   * key, so that leases of memory-only keys cost no flush; `durable` has it flushed before the grant resolves.
   */
  grantLease(ttlSeconds: number, id?: number, durable?: boolean): Promise<Lease>;
  keepAlive(id: number): Promise<Lease>;
  revokeLease(id: number): Promise<void>;
  /** All that live, oldest first. */
  leases(): Promise<readonly Lease[]>;
  /** The lease and, where asked for, the keys attached to it. Rejects with DATASTORE_LEASE_NOT_FOUND. */
  lease(id: number, withKeys?: boolean): Promise<Lease & { readonly keys: readonly Key[] }>;
  /** Waits for what was begun, flushes, and lets go of the files. Idempotent. */
  close(): Promise<void>;
}
