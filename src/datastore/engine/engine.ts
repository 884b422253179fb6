// Host side of assembly/engine: loads the module, copies keys and values in and out, refreshes views after memory grew.
// One call into the module per operation; what comes out is copied, so nothing here hands out a view of its memory.
import { assert } from "#base/assert.ts";
import { type Key, type KeyValue, maxKeyBytes, type Revision, revision } from "../backend.ts";

/** Shared with assembly/engine/records.ts. */
export const tombstoneFlag = 1;
export const loggedFlag = 2;

// Shared with assembly/engine/areas.ts: the item and its fields, in bytes.
const itemBytes = 64;
const field = {
  mod: 0,
  create: 8,
  lease: 16,
  version: 24,
  sub: 28,
  flags: 32,
  key: 36,
  keyLength: 40,
  value: 44,
  valueLength: 48,
  record: 52,
  older: 56,
} as const;

/** Values of a range are gathered into buffers of this size, so that 500 of them cost few allocations. */
const gatherBytes = 64 * 1024;
const pageBytes = 65536;
const noEnd = 0;
/** Blocks split and round up: what the module asks of its allocator must stay well below what memory can hold. */
const fillFactor = 0.8;

interface EngineExports {
  init(seed: number): void;
  inputAddress(): number;
  outputAddress(): number;
  reserve(length: number): number;
  valueAddress(record: number): number;
  discard(record: number): void;
  put(keyLength: number, record: number, revision: number, sub: number, lease: number, flags: number): void;
  loadRecord(
    keyLength: number,
    record: number,
    revision: number,
    sub: number,
    create: number,
    version: number,
    lease: number,
    flags: number,
  ): void;
  remove(keyLength: number, revision: number, sub: number): number;
  rollback(revision: number): void;
  get(keyLength: number, revision: number): number;
  describe(record: number, keyAddress: number): void;
  rangeOpen(startLength: number, endLength: number, revision: number, limit: number): void;
  rangeNext(): number;
  rangeRest(): number;
  historyOpen(startLength: number, endLength: number, from: number, to: number): void;
  historyNext(): number;
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
  verify(): number;
}

/** Everything the module exports besides its memory; pinned by a test. */
export const engineExportNames: readonly (keyof EngineExports)[] = [
  "init",
  "inputAddress",
  "outputAddress",
  "reserve",
  "valueAddress",
  "discard",
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
  "verify",
];

export interface EngineOptions {
  readonly wasm: Uint8Array<ArrayBuffer>;
  /** Ceiling of the module's memory. */
  readonly maximumBytes: number;
  readonly hashSeed: number;
}

export interface StoredRecord {
  readonly key: Key;
  readonly value: Uint8Array;
  readonly revision: number;
  readonly sub: number;
  readonly create: number;
  readonly version: number;
  readonly lease: number;
  readonly flags: number;
}

/** One record found by `history`; `previous` is the live record before it, where it still exists. */
export interface HistoryRecord {
  readonly kv: KeyValue;
  readonly sub: number;
  readonly deleted: boolean;
  readonly previous: KeyValue | undefined;
}

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
const kindNumber: Readonly<Record<WatchKind, number>> = { exact: 0, prefix: 1, listed: 2 };

export class Engine {
  readonly #wasm: EngineExports;
  readonly #memory: WebAssembly.Memory;
  readonly #input: number;
  readonly #output: number;
  readonly #maximumBytes: number;
  #buffer: ArrayBuffer;
  #bytes: Buffer;
  #view: DataView;

  constructor(options: EngineOptions) {
    const maximum = Math.floor(options.maximumBytes / pageBytes);
    this.#maximumBytes = maximum * pageBytes;
    this.#memory = new WebAssembly.Memory({ initial: 32, maximum });
    const abort = (_message: number, _file: number, line: number, column: number) => {
      throw new EngineFault(`engine assertion at ${line}:${column}`);
    };
    const module = new WebAssembly.Module(options.wasm);
    const instance = new WebAssembly.Instance(module, { env: { memory: this.#memory, abort } });
    this.#wasm = instance.exports as unknown as EngineExports;
    this.#buffer = this.#memory.buffer;
    this.#bytes = Buffer.from(this.#buffer);
    this.#view = new DataView(this.#buffer);
    this.#wasm.init(options.hashSeed >>> 0 || 1);
    this.#input = this.#wasm.inputAddress() >>> 0;
    this.#output = this.#wasm.outputAddress() >>> 0;
  }

  /** Whether a record of `bytes` more still fits below the ceiling. */
  hasRoom(bytes: number): boolean {
    return this.#wasm.bytesHeld() + bytes + maxKeyBytes < this.#maximumBytes * fillFactor;
  }

  put(key: Key, value: Uint8Array, at: number, sub: number, lease: number, logged: boolean): void {
    const record = this.#reserve(value);
    this.#wasm.put(this.#writeKey(key), record, at, sub, lease, logged ? loggedFlag : 0);
  }

  load(record: StoredRecord): void {
    const address = this.#reserve(record.value);
    this.#wasm.loadRecord(
      this.#writeKey(record.key),
      address,
      record.revision,
      record.sub,
      record.create,
      record.version,
      record.lease,
      record.flags,
    );
  }

  /** Deletes a key that is there; true when the log knows it and must be told. */
  remove(key: Key, at: number, sub: number): boolean {
    return (this.#wasm.remove(this.#writeKey(key), at, sub) & loggedFlag) !== 0;
  }

  rollback(to: number): void {
    this.#wasm.rollback(to);
  }

  get(key: Key, at: number): KeyValue | undefined {
    if (!this.#wasm.get(this.#writeKey(key), at)) return undefined;
    return this.#keyValue(0, true, undefined);
  }

  /** At most `limit` (0: all) of [key, end) at a revision; `end` "\0" for no end. */
  range(key: Key, end: Key, at: number, limit: number, keysOnly: boolean): KeyValue[] {
    this.#openRange(key, end, at, limit);
    const found: KeyValue[] = [];
    const gather: Gather = { buffer: undefined, used: 0 };
    for (let n = this.#wasm.rangeNext(); n > 0; n = this.#wasm.rangeNext()) {
      for (let i = 0; i < n; i++)
        found.push(this.#keyValue(i, !keysOnly, n > 1 || found.length > 0 ? gather : undefined));
    }
    return found;
  }

  /** The live records of all keys that `wanted` picks by their flags and lease, without copying out the others. */
  select(at: number, wanted: (logged: boolean, lease: number) => boolean): { kv: KeyValue; sub: number }[] {
    this.#openRange("\0", "\0", at, 0);
    const found: { kv: KeyValue; sub: number }[] = [];
    for (let n = this.#wasm.rangeNext(); n > 0; n = this.#wasm.rangeNext()) {
      this.#refresh();
      for (let i = 0; i < n; i++) {
        const p = this.#output + i * itemBytes;
        const logged = (this.#view.getUint32(p + field.flags, true) & loggedFlag) !== 0;
        if (!wanted(logged, this.#view.getFloat64(p + field.lease, true))) continue;
        found.push({ kv: this.#keyValue(i, true, undefined), sub: this.#view.getUint32(p + field.sub, true) });
      }
    }
    return found;
  }

  /** At most `limit` live records from `key` on. */
  page(key: Key, at: number, limit: number): { kv: KeyValue; sub: number }[] {
    this.#openRange(key, "\0", at, limit);
    const found: { kv: KeyValue; sub: number }[] = [];
    for (let n = this.#wasm.rangeNext(); n > 0; n = this.#wasm.rangeNext()) {
      for (let i = 0; i < n; i++) {
        const kv = this.#keyValue(i, true, undefined);
        found.push({ kv, sub: this.#view.getUint32(this.#output + i * itemBytes + field.sub, true) });
      }
    }
    return found;
  }

  /** Keys of the range that the `range` call just before has left out. */
  rangeRest(): number {
    return this.#wasm.rangeRest() >>> 0;
  }

  count(key: Key, end: Key, at: number): number {
    this.#openRange(key, end, at, 0);
    return this.#wasm.rangeRest() >>> 0;
  }

  /** All records of the range with from <= revision <= to, in the order they were written. */
  history(key: Key, end: Key, from: number, to: number, limit: number): { records: HistoryRecord[]; through: number } {
    this.#wasm.historyOpen(this.#writeKey(key), this.#writeEnd(end), from, to);
    const found: { mod: number; sub: number; record: number; older: number; key: number }[] = [];
    for (let n = this.#wasm.historyNext(); n > 0; n = this.#wasm.historyNext()) {
      this.#refresh();
      for (let i = 0; i < n; i++) {
        const p = this.#output + i * itemBytes;
        found.push({
          mod: this.#view.getFloat64(p + field.mod, true),
          sub: this.#view.getUint32(p + field.sub, true),
          record: this.#view.getUint32(p + field.record, true),
          older: this.#view.getUint32(p + field.older, true),
          key: this.#view.getUint32(p + field.key, true),
        });
      }
    }
    found.sort((a, b) => a.mod - b.mod || a.sub - b.sub);
    // Cut after a whole revision: the caller takes the rest in its next turn.
    let count = found.length;
    let through = to;
    if (count > limit) {
      count = limit;
      while (count < found.length && found[count]!.mod === found[count - 1]!.mod) count++;
      if (count < found.length) through = found[count - 1]!.mod;
    }
    const records: HistoryRecord[] = [];
    for (const item of found.slice(0, count)) {
      let previous: KeyValue | undefined;
      if (item.older !== 0) {
        this.#wasm.describe(item.older, item.key);
        if (!this.#isTombstone()) previous = this.#keyValue(0, true, undefined);
      }
      this.#wasm.describe(item.record, item.key);
      const deleted = this.#isTombstone();
      records.push({ kv: this.#keyValue(0, true, undefined), sub: item.sub, deleted, previous });
    }
    return { records, through };
  }

  compactOpen(at: number): void {
    this.#wasm.compactOpen(at);
  }

  /** Works through `maxKeys` keys; appends the rows that the log may drop and says whether more is to do. */
  compactNext(maxKeys: number, dropped: { revision: number; sub: number }[]): boolean {
    const n = this.#wasm.compactNext(maxKeys) >>> 0;
    this.#refresh();
    const p = this.#wasm.freedAddress() >>> 0;
    for (let i = 0; i < n; i++) {
      dropped.push({
        revision: this.#view.getFloat64(p + i * 16, true),
        sub: this.#view.getFloat64(p + i * 16 + 8, true),
      });
    }
    return this.#wasm.compactPending() !== 0;
  }

  /** False when there are too many ranges of kind "listed". */
  watchAdd(id: number, kind: WatchKind, key: Key, end: Key): boolean {
    const endLength = kind === "listed" ? this.#writeEnd(end) : 0;
    return this.#wasm.watchAdd(id, kindNumber[kind], this.#writeKey(key), endLength) !== 0;
  }

  watchRemove(id: number, kind: WatchKind, key: Key): void {
    this.#wasm.watchRemove(id, kindNumber[kind], this.#writeKey(key));
  }

  /** Calls `visit` with the id of every watched range that holds the key. */
  match(key: Key, visit: (id: number) => void): void {
    const n = this.#wasm.match(this.#writeKey(key));
    this.#refresh();
    for (let i = 0; i < n; i++) visit(this.#view.getUint32(this.#output + i * 4, true));
  }

  get keyCount(): number {
    return this.#wasm.keyCount() >>> 0;
  }
  get recordCount(): number {
    return this.#wasm.recordsHeld() >>> 0;
  }
  get heldBytes(): number {
    return this.#wasm.bytesHeld();
  }
  get historyBytes(): number {
    return this.#wasm.bytesOfHistory();
  }
  /** What the module's memory takes of the process; never shrinks. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /** Throws when an invariant of the index is broken. */
  verify(): void {
    const broken = this.#wasm.verify();
    assert(broken === 0, `engine invariant ${broken} is broken`);
  }

  #openRange(key: Key, end: Key, at: number, limit: number): void {
    this.#wasm.rangeOpen(this.#writeKey(key), this.#writeEnd(end), at, limit);
  }

  #reserve(value: Uint8Array): number {
    const record = this.#wasm.reserve(value.length) >>> 0;
    const address = this.#wasm.valueAddress(record) >>> 0;
    this.#refresh();
    this.#bytes.set(value, address);
    return record;
  }

  /** Memory that grew has left the old buffer empty; must run after any call that may allocate. */
  #refresh(): void {
    const buffer = this.#memory.buffer;
    if (buffer === this.#buffer) return;
    this.#buffer = buffer;
    this.#bytes = Buffer.from(buffer);
    this.#view = new DataView(buffer);
  }

  #writeKey(key: Key): number {
    assert(key.length <= maxKeyBytes, "key is too long for the input area");
    this.#refresh();
    this.#bytes.write(key, this.#input, "latin1");
    return key.length;
  }

  #writeEnd(end: Key): number {
    if (end === "\0") return noEnd;
    assert(end.length > 0 && end.length <= maxKeyBytes + 1, "end of range does not fit the input area");
    this.#refresh();
    this.#bytes.write(end, this.#input + maxKeyBytes, "latin1");
    return end.length;
  }

  #isTombstone(): boolean {
    this.#refresh();
    return (this.#view.getUint32(this.#output + field.flags, true) & tombstoneFlag) !== 0;
  }

  #keyValue(index: number, withValue: boolean, gather: Gather | undefined): KeyValue {
    this.#refresh();
    const p = this.#output + index * itemBytes;
    const view = this.#view;
    const keyAddress = view.getUint32(p + field.key, true);
    const valueAddress = view.getUint32(p + field.value, true);
    const length = withValue ? view.getUint32(p + field.valueLength, true) : 0;
    let value: Uint8Array;
    if (length === 0) {
      value = new Uint8Array(0);
    } else if (gather && length <= gatherBytes / 4) {
      if (!gather.buffer || gather.used + length > gatherBytes) {
        gather.buffer = new Uint8Array(gatherBytes);
        gather.used = 0;
      }
      value = gather.buffer.subarray(gather.used, gather.used + length);
      value.set(this.#bytes.subarray(valueAddress, valueAddress + length));
      gather.used += length;
    } else {
      value = new Uint8Array(this.#buffer.slice(valueAddress, valueAddress + length));
    }
    return {
      key: this.#bytes.toString("latin1", keyAddress, keyAddress + view.getUint32(p + field.keyLength, true)),
      value,
      createRevision: revision(view.getFloat64(p + field.create, true)),
      modRevision: revision(view.getFloat64(p + field.mod, true)) as Revision,
      version: view.getUint32(p + field.version, true),
      lease: view.getFloat64(p + field.lease, true),
    };
  }
}

interface Gather {
  buffer: Uint8Array | undefined;
  used: number;
}
