// What assembly/engine and its host have agreed on, as tables: functions of the module, where a field lies in an item, flags
// and kinds as numbers; and how one knows that the module has failed. No mechanism: that is engine.ts.

/** Shared with assembly/engine/records.ts. */
export const tombstoneFlag = 1;
export const loggedFlag = 2;

// Shared with assembly/engine/areas.ts: the item and its fields, in bytes.
export const itemBytes = 64;
export const field = {
  mod: 0,
  create: 8,
  lease: 16,
  version: 24,
  sub: 28,
  flags: 32,
  key: 36,
  keyLength: 40,
  place: 44,
  valueLength: 48,
  record: 52,
  older: 56,
} as const;

export const noEnd = 0;
/** For `cool`: the value that the newest one of the key has superseded. */
export const superseded = 0;

export interface EngineExports {
  init(seed: number): void;
  inputAddress(): number;
  outputAddress(): number;
  put(
    keyLength: number,
    place: number,
    length: number,
    revision: number,
    sub: number,
    lease: number,
    flags: number,
  ): number;
  loadRecord(
    keyLength: number,
    place: number,
    length: number,
    revision: number,
    sub: number,
    create: number,
    version: number,
    lease: number,
    flags: number,
  ): number;
  remove(keyLength: number, revision: number, sub: number): number;
  rollback(revision: number): void;
  get(keyLength: number, revision: number): number;
  describe(record: number, keyAddress: number): void;
  rangeOpen(startLength: number, endLength: number, revision: number, limit: number): void;
  rangeNext(most: number): number;
  rangeRest(): number;
  historyOpen(startLength: number, endLength: number, from: number, to: number): void;
  historyNext(): number;
  spareHeld(): number;
  holdSpare(): void;
  place(record: number, where: number): void;
  coldness(record: number, durable: number): number;
  cool(keyLength: number, revision: number, durable: number): void;
  coolBehind(record: number): void;
  compactOpen(revision: number): void;
  compactNext(maxKeys: number): number;
  compactPending(): number;
  freedAddress(): number;
  watchAdd(id: number, kind: number, startLength: number, endLength: number): number;
  watchRemove(id: number, kind: number, startLength: number): void;
  match(keyLength: number): number;
  keyCount(): number;
  recordsHeld(): number;
  bytesHeld(): number;
  bytesOfHistory(): number;
  valueBytesOfHistory(): number;
  verify(): number;
}

/** Everything the module exports besides its memory; pinned by a test. */
export const engineExportNames: readonly (keyof EngineExports)[] = [
  "init",
  "inputAddress",
  "outputAddress",
  "put",
  "loadRecord",
  "remove",
  "rollback",
  "get",
  "describe",
  "rangeOpen",
  "rangeNext",
  "rangeRest",
  "historyOpen",
  "historyNext",
  "spareHeld",
  "holdSpare",
  "place",
  "coldness",
  "cool",
  "coolBehind",
  "compactOpen",
  "compactNext",
  "compactPending",
  "freedAddress",
  "watchAdd",
  "watchRemove",
  "match",
  "keyCount",
  "recordsHeld",
  "bytesHeld",
  "bytesOfHistory",
  "valueBytesOfHistory",
  "verify",
];

/** An assertion within the module. Its state cannot be trusted any more. */
export class EngineFault extends Error {
  override readonly name = "EngineFault";
}

/** True when the engine that threw `error` must not be used again: an assertion, or a trap such as no more memory. */
export function isEngineFault(error: unknown): boolean {
  return error instanceof EngineFault || error instanceof WebAssembly.RuntimeError;
}

/** "exact": one key. "prefix": a prefix that ends in '/'. "listed": any other range, of which there may be only some. */
export type WatchKind = "exact" | "prefix" | "listed";
export const kindNumber: Readonly<Record<WatchKind, number>> = { exact: 0, prefix: 1, listed: 2 };
