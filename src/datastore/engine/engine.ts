// Host side of assembly/engine: loads the module, copies keys and values in and out, refreshes views after memory grew.
// One call into the module per operation; what comes out is copied, so nothing here hands out a view of its memory.
//
// The index is always in memory, in the module; values are beside it (values.ts) while there is room below a ceiling for
// both. What the log has may go cold: the oldest that were not used, and superseded values when they leave a small
// window. Cold values are read from the log where they are needed; what does not fit and is not yet in the log waits
// in `outside`.
import { assert } from "#base/assert.ts";
import { messageOf } from "#base/errors.ts";
import { type Key, type KeyValue, maxKeyBytes, type Revision, revision } from "../backend.ts";
import { datastoreError } from "../errors.ts";
import { HistoryWindow } from "./history-window.ts";
import { type ColdValues, ItemView, type RawItem, StoredKeyValue } from "./items.ts";
import {
  type EngineExports,
  EngineFault,
  field,
  itemBytes,
  kindNumber,
  loggedFlag,
  noEnd,
  superseded,
  tombstoneFlag,
  type WatchKind,
} from "./module.ts";
import { nowhere, Values } from "./values.ts";

/** What one slice of history may read from the log, about a millisecond. */
const historyColdBytes = 256 * 1024;
/** Values of a range are gathered into buffers of this size, so that 500 of them cost few allocations. */
const gatherBytes = 64 * 1024;
const pageBytes = 65536;
/** What the output area holds. */
const mostItems = 1024;
/** Of a range that is read bit by bit: a bit is some hundred values of a kilobyte. */
const fewItems = 64;
/** Blocks split and round up: what the module asks of its allocator must stay well below what memory can hold. */
const fillFactor = 0.8;
const deleteFactor = 0.9;
const tombstoneBytes = 64;
/** Of the ceiling, what one value may take: it would have to be in one piece. */
const largeShare = 128;
/** Of the ceiling, what superseded values may take at most; and in bytes. They are there for watchers that are a little behind. */
const windowShare = 16;
const maxWindowBytes = 4 * 1024 * 1024;

export interface EngineOptions {
  readonly wasm: Uint8Array<ArrayBuffer>;
  /** Ceiling of the index and of values in memory. */
  readonly maximumBytes: number;
  readonly hashSeed: number;
  /** Longer values that the log has are never in memory, where room for them would have to be in one piece; default 1/128 of the ceiling. */
  readonly warmValueBytes?: number | undefined;
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

/** A record that is not the newest of its key any more. */
export interface Superseded {
  readonly key: Key;
  /** Where it is in the module, until it is compacted. */
  readonly record: number;
  readonly modRevision: number;
  readonly valueBytes: number;
}

/** A value that is in the log only. */
export interface ColdRow {
  readonly revision: number;
  readonly sub: number;
  readonly bytes: number;
}

/** One record found by `history`; `previous` is the live record before it, where it still exists. */
export interface HistoryRecord {
  readonly kv: KeyValue;
  readonly sub: number;
  readonly deleted: boolean;
  readonly previous: KeyValue | undefined;
}

export class Engine {
  readonly #wasm: EngineExports;
  readonly #memory: WebAssembly.Memory;
  readonly #input: number;
  readonly #output: number;
  readonly #maximumBytes: number;
  readonly #warmValueBytes: number;
  #coldValues: ColdValues | undefined;
  /** The log has everything up to here. */
  #durable = 0;
  /** Values of records that are cold before the log has them; in the order of their revisions. */
  readonly #outside = new Map<string, { readonly revision: number; readonly value: Uint8Array }>();
  #outsideBytes = 0;
  #ahead: ReadonlyMap<string, Uint8Array> | undefined;
  #coldBytesRead = 0;
  readonly #values: Values;
  readonly #window: HistoryWindow;
  readonly #item: ItemView;
  #buffer: ArrayBuffer;
  #bytes: Buffer;
  #view: DataView;

  constructor(options: EngineOptions) {
    const maximum = Math.floor(options.maximumBytes / pageBytes);
    this.#maximumBytes = maximum * pageBytes;
    this.#warmValueBytes = options.warmValueBytes ?? this.#maximumBytes / largeShare;
    this.#window = new HistoryWindow(Math.min(this.#maximumBytes / windowShare, maxWindowBytes), (key, at) => {
      this.#wasm.cool(this.#writeKey(key), at, this.#durable);
    });
    this.#memory = new WebAssembly.Memory({ initial: 32, maximum });
    const abort = (_message: number, _file: number, line: number, column: number) => {
      throw new EngineFault(`engine assertion at ${line}:${column}`);
    };
    const module = new WebAssembly.Module(options.wasm);
    const release = (place: number, length: number) => {
      try {
        this.#values.release(place >>> 0, length >>> 0);
      } catch (error) {
        throw new EngineFault(messageOf(error));
      }
    };
    const instance = new WebAssembly.Instance(module, { env: { memory: this.#memory, abort, release } });
    this.#values = new Values({
      coldness: (record) => (this.#coldValues ? this.#wasm.coldness(record, this.#durable) : 0),
      place: (record, where) => this.#wasm.place(record, where),
      budgetBytes: () => {
        // The module's memory doubles when it grows; of what it has too much nothing is used, so nothing is taken.
        const grown = this.#memory.buffer.byteLength;
        return this.#maximumBytes - (grown <= this.#maximumBytes / 2 ? grown : this.#wasm.bytesHeld() / fillFactor);
      },
    });
    this.#wasm = instance.exports as unknown as EngineExports;
    this.#item = new ItemView(this.#values, (at, sub) => this.#cold(at, sub));
    this.#buffer = this.#memory.buffer;
    this.#bytes = Buffer.from(this.#buffer);
    this.#view = new DataView(this.#buffer);
    this.#wasm.init(options.hashSeed >>> 0 || 1);
    this.#input = this.#wasm.inputAddress() >>> 0;
    this.#output = this.#wasm.outputAddress() >>> 0;
  }

  /** From now on values of the log may be left there, and are read by `values`. */
  readColdFrom(values: ColdValues): void {
    this.#coldValues = values;
  }

  /** Whether an index of so many bytes more fits below the ceiling, and where values must stay in memory, they too. */
  hasRoom(indexBytes: number, valueBytes: number): boolean {
    if (this.#wasm.bytesHeld() + indexBytes + maxKeyBytes > this.#maximumBytes * fillFactor || !this.#hasSpare())
      return false;
    return this.#coldValues !== undefined || this.heldBytes + valueBytes < this.#maximumBytes * fillFactor;
  }

  /** Whether so many deletions can be taken: they go on when nothing else does, in the room that is left above the ceiling's share. */
  hasRoomToDelete(count: number): boolean {
    return this.#wasm.bytesHeld() + count * tombstoneBytes < this.#maximumBytes * deleteFactor;
  }

  put(key: Key, value: Uint8Array, at: number, sub: number, lease: number, logged: boolean): void {
    const where = logged && this.#isTooLarge(value.length) ? nowhere : this.#keep(value);
    if (where === nowhere && value.length > 0) {
      if (!logged || !this.#coldValues) throw datastoreError("DATASTORE_FULL", "the datastore's memory is full");
      this.#outside.set(rowName(at, sub), { revision: at, value });
      this.#outsideBytes += value.length;
    }
    const length = this.#writeKey(key);
    const record = this.#wasm.put(length, where, value.length, at, sub, lease, logged ? loggedFlag : 0);
    if (where !== nowhere) this.#values.own(where, record);
  }

  /** The log has everything up to `at`. */
  settled(at: number): void {
    this.#durable = at;
    for (const [name, { revision: of, value }] of this.#outside) {
      if (of > at) break;
      this.#outside.delete(name);
      this.#outsideBytes -= value.length;
    }
  }

  /** What has been superseded by writes that the log has now. */
  superseded(history: readonly Superseded[]): void {
    if (!this.#coldValues) return;
    for (const old of history) {
      this.#window.add(old.key, old.modRevision, old.valueBytes);
      this.#wasm.coolBehind(old.record);
    }
  }

  /** A record that the log has. Its value stays there when there is no room, and when the next one supersedes it. */
  load(record: StoredRecord): void {
    const { length } = record.value;
    const where = this.#isTooLarge(length) ? nowhere : this.#keep(record.value);
    if (where === nowhere && length > 0 && !this.#coldValues) {
      throw datastoreError("DATASTORE_FULL", "the datastore does not fit into memory");
    }
    this.#durable = Math.max(this.#durable, record.revision);
    const address = this.#wasm.loadRecord(
      this.#writeKey(record.key),
      where,
      length,
      record.revision,
      record.sub,
      record.create,
      record.version,
      record.lease,
      record.flags,
    );
    if (where !== nowhere) this.#values.own(where, address);
    if (record.version !== 1 && this.#coldValues) this.#wasm.cool(record.key.length, superseded, this.#durable);
  }

  /** Deletes a key that is there; true when the log knows it and must be told. */
  remove(key: Key, at: number, sub: number): boolean {
    return (this.#wasm.remove(this.#writeKey(key), at, sub) & loggedFlag) !== 0;
  }

  rollback(to: number): void {
    this.#wasm.rollback(to);
    for (const [name, { revision: of, value }] of this.#outside) {
      if (of <= to) continue;
      this.#outside.delete(name);
      this.#outsideBytes -= value.length;
    }
  }

  get(key: Key, at: number): KeyValue | undefined {
    if (!this.#wasm.get(this.#writeKey(key), at)) return undefined;
    return this.#keyValue(0, true, undefined);
  }

  /**
   * The newest of a key, without copying its value: that is read when it is asked for, which must be before a compaction can
   * have dropped it.
   */
  current(key: Key): StoredKeyValue | undefined {
    if (!this.#wasm.get(this.#writeKey(key), Infinity)) return undefined;
    this.#refresh();
    const view = this.#view;
    const p = this.#output;
    return new StoredKeyValue(this, {
      key,
      createRevision: revision(view.getFloat64(p + field.create, true)),
      modRevision: revision(view.getFloat64(p + field.mod, true)),
      version: view.getUint32(p + field.version, true),
      lease: view.getFloat64(p + field.lease, true),
      valueBytes: view.getUint32(p + field.valueLength, true),
      record: view.getUint32(p + field.record, true),
    });
  }

  /** The same; a value that was cold is in memory afterwards, because one who asks for a single key asks again. */
  getAndKeep(key: Key, at: number): KeyValue | undefined {
    if (!this.#wasm.get(this.#writeKey(key), at)) return undefined;
    this.#refresh();
    const cold = this.#view.getUint32(this.#output + field.place, true) === nowhere;
    const record = this.#view.getUint32(this.#output + field.record, true);
    const kv = this.#keyValue(0, true, undefined);
    if (!cold || kv.modRevision > this.#durable || this.#isTooLarge(kv.value.length)) return kv;
    const where = this.#keep(kv.value);
    if (where === nowhere) return kv;
    this.#values.own(where, record);
    this.#wasm.place(record, where);
    return kv;
  }

  /** At most `limit` (0: all) of [key, end) at a revision; `end` "\0" for no end. */
  range(key: Key, end: Key, at: number, limit: number, keysOnly: boolean): KeyValue[] {
    return this.slice(key, end, { at, limit, keysOnly, maxColdBytes: Infinity }).kvs;
  }

  /** The same, but it stops when so much had to be read from the log; then `next` is the key to go on with. */
  slice(
    key: Key,
    end: Key,
    { at, limit, keysOnly, maxColdBytes }: SliceOptions,
  ): { readonly kvs: KeyValue[]; readonly next: Key | undefined } {
    this.#openRange(key, end, at, limit);
    const kvs: KeyValue[] = [];
    const gather: Gather = { buffer: undefined, used: 0 };
    const before = this.#coldBytesRead;
    for (let n = this.#wasm.rangeNext(mostItems); n > 0; n = this.#wasm.rangeNext(mostItems)) {
      for (let i = 0; i < n; i++) {
        if (this.#coldBytesRead - before >= maxColdBytes) return { kvs, next: this.#keyAt(i) };
        kvs.push(this.#keyValue(i, !keysOnly, n > 1 || kvs.length > 0 ? gather : undefined));
      }
    }
    return { kvs, next: undefined };
  }

  /**
   * Hands out what a range has one by one, without an object for any, until `take` says that it has no room: then with the
   * key to go on with. `take` must not call the engine.
   */
  each(
    key: Key,
    end: Key,
    { at, limit, few }: { readonly at: number; readonly limit: number; readonly few: boolean },
    take: (item: RawItem) => boolean,
  ): Key | undefined {
    this.#openRange(key, end, at, limit);
    const most = few ? fewItems : mostItems;
    const item = this.#item;
    for (let n = this.#wasm.rangeNext(most); n > 0; n = this.#wasm.rangeNext(most)) {
      this.#refresh();
      for (let i = 0; i < n; i++) {
        item.read(this.#bytes, this.#view, this.#output + i * itemBytes);
        if (!take(item)) return this.#keyAt(i);
      }
    }
    return undefined;
  }

  /** The newest of each key of a range, without copying values: see `current`. */
  currents(key: Key, end: Key): StoredKeyValue[] {
    const found: StoredKeyValue[] = [];
    this.each(key, end, { at: Infinity, limit: 0, few: false }, (item) => {
      found.push(
        new StoredKeyValue(this, {
          key: item.keyText(),
          createRevision: revision(item.createRevision),
          modRevision: revision(item.modRevision),
          version: item.version,
          lease: item.lease,
          valueBytes: item.valueBytes,
          record: item.record,
        }),
      );
      return true;
    });
    return found;
  }

  /** Appends what of a range would have to be read from the log. */
  coldOf(key: Key, end: Key, { at, limit }: { readonly at: number; readonly limit: number }, found: ColdRow[]): void {
    if (!this.#coldValues) return;
    this.each(key, end, { at, limit, few: false }, (item) => {
      if (item.isCold() && !this.#outside.has(rowName(item.modRevision, item.sub))) {
        found.push({ revision: item.modRevision, sub: item.sub, bytes: item.valueBytes });
      }
      return true;
    });
  }

  /** Reads them; for `having`. */
  readAhead(rows: readonly ColdRow[], into: Map<string, Uint8Array>): void {
    for (const { revision: at, sub } of rows) {
      into.set(rowName(at, sub), this.#coldValues!(at, sub));
      this.#coldBytesRead += into.get(rowName(at, sub))!.length;
    }
  }

  /** Runs `body` with values at hand that were read ahead. */
  having<T>(values: ReadonlyMap<string, Uint8Array>, body: () => T): T {
    this.#ahead = values;
    try {
      return body();
    } finally {
      this.#ahead = undefined;
    }
  }

  /** Whether values were read ahead for what is done now. */
  get isAhead(): boolean {
    return this.#ahead !== undefined;
  }

  /** The live records of all keys that `wanted` picks by their flags and lease, without copying out the others. */
  select(
    at: number,
    withValues: boolean,
    wanted: (logged: boolean, lease: number) => boolean,
  ): { kv: KeyValue; sub: number }[] {
    this.#openRange("\0", "\0", at, 0);
    const found: { kv: KeyValue; sub: number }[] = [];
    for (let n = this.#wasm.rangeNext(mostItems); n > 0; n = this.#wasm.rangeNext(mostItems)) {
      this.#refresh();
      for (let i = 0; i < n; i++) {
        const p = this.#output + i * itemBytes;
        const logged = (this.#view.getUint32(p + field.flags, true) & loggedFlag) !== 0;
        if (!wanted(logged, this.#view.getFloat64(p + field.lease, true))) continue;
        found.push({ kv: this.#keyValue(i, withValues, undefined), sub: this.#view.getUint32(p + field.sub, true) });
      }
    }
    return found;
  }

  /** At most `limit` live records from `key` on, and not many more bytes than said; `next` is the key to go on with. */
  page(
    key: Key,
    at: number,
    limit: number,
    maxBytes: number,
  ): { readonly records: { kv: KeyValue; sub: number }[]; readonly next: Key | undefined } {
    this.#openRange(key, "\0", at, limit + 1);
    const records: { kv: KeyValue; sub: number }[] = [];
    let bytes = 0;
    for (let n = this.#wasm.rangeNext(mostItems); n > 0; n = this.#wasm.rangeNext(mostItems)) {
      for (let i = 0; i < n; i++) {
        if (records.length === limit || bytes >= maxBytes) return { records, next: this.#keyAt(i) };
        const kv = this.#keyValue(i, true, undefined);
        bytes += kv.value.length;
        records.push({ kv, sub: this.#view.getUint32(this.#output + i * itemBytes + field.sub, true) });
      }
    }
    return { records, next: undefined };
  }

  /** Keys of the range that the `range` call just before has left out. */
  rangeRest(): number {
    return this.#wasm.rangeRest() >>> 0;
  }

  count(key: Key, end: Key, at: number): number {
    this.#openRange(key, end, at, 0);
    return this.#wasm.rangeRest() >>> 0;
  }

  /** Records of the range with from <= revision <= to, in the order they were written: `limit` of them and those of their last revision. */
  history(key: Key, end: Key, from: number, to: number, limit: number): { records: HistoryRecord[]; through: number } {
    this.#wasm.historyOpen(this.#writeKey(key), this.#writeEnd(end), from, to);
    const found: { mod: number; sub: number; record: number; older: number; key: number; coldBytes: number }[] = [];
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
          coldBytes:
            this.#view.getUint32(p + field.place, true) === nowhere
              ? this.#view.getUint32(p + field.valueLength, true)
              : 0,
        });
      }
    }
    found.sort((a, b) => a.mod - b.mod || a.sub - b.sub);
    // Cut after a whole revision: the caller takes the rest in its next turn.
    let count = 0;
    for (let coldBytes = 0; count < Math.min(found.length, limit) && coldBytes < historyColdBytes; count++) {
      coldBytes += found[count]!.coldBytes;
    }
    let through = to;
    if (count < found.length) {
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

  /** Calls `visit`, which must not call the engine, with the id of every watched range that holds the key. */
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
  /** The index and the values in memory. */
  get heldBytes(): number {
    return this.#wasm.bytesHeld() + this.#values.liveBytes;
  }
  get historyBytes(): number {
    return this.#wasm.bytesOfHistory();
  }
  /** Superseded values, in memory or in the log. */
  get historyValueBytes(): number {
    return this.#wasm.valueBytesOfHistory();
  }
  /** Values in memory, as far as they are alive. */
  get warmBytes(): number {
    return this.#values.liveBytes;
  }
  /** What was read from the log since the start. */
  get coldBytesRead(): number {
    return this.#coldBytesRead;
  }
  /** What index and values take of the process: the module's memory, which never shrinks, and segments of values. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength + this.#values.allocatedBytes + this.#outsideBytes;
  }

  /** Throws when an invariant of the index is broken. */
  verify(): void {
    const broken = this.#wasm.verify();
    assert(broken === 0, `engine invariant ${broken} is broken`);
  }

  /** Throws when a record that the log has is not there as the index knows it. Reads all of them. */
  verifyAgainst(values: ColdValues): void {
    const length = this.#writeKey("\0");
    this.#wasm.historyOpen(length, noEnd, 0, this.#durable);
    for (let n = this.#wasm.historyNext(); n > 0; n = this.#wasm.historyNext()) {
      this.#refresh();
      for (let i = 0; i < n; i++) {
        const p = this.#output + i * itemBytes;
        if ((this.#view.getUint32(p + field.flags, true) & loggedFlag) === 0) continue;
        const at = this.#view.getFloat64(p + field.mod, true);
        const logged = values(at, this.#view.getUint32(p + field.sub, true));
        const bytes = this.#view.getUint32(p + field.valueLength, true);
        const where = this.#view.getUint32(p + field.place, true);
        const known = where === nowhere ? undefined : this.#values.view(where, bytes);
        const agrees = logged.length === bytes && (!known || Buffer.compare(known, logged) === 0);
        assert(agrees, `the value of revision ${at} is another in the log`);
      }
    }
  }

  #openRange(key: Key, end: Key, at: number, limit: number): void {
    this.#wasm.rangeOpen(this.#writeKey(key), this.#writeEnd(end), at, limit);
  }

  #isTooLarge(length: number): boolean {
    return this.#coldValues !== undefined && length > this.#warmValueBytes;
  }

  /** Nowhere: there is no room, whatever goes cold. */
  #keep(value: Uint8Array): number {
    return value.length === 0 ? nowhere : (this.#values.put(value) ?? nowhere);
  }

  #cold(at: number, sub: number): Uint8Array {
    const waiting = this.#outside.get(rowName(at, sub));
    if (waiting) return waiting.value;
    const ahead = this.#ahead?.get(rowName(at, sub));
    if (ahead) return ahead;
    assert(this.#coldValues, "a value is in the log, which nobody reads");
    const value = this.#coldValues(at, sub);
    this.#coldBytesRead += value.length;
    return value;
  }

  #keyAt(index: number): Key {
    const p = this.#output + index * itemBytes;
    const at = this.#view.getUint32(p + field.key, true);
    return this.#bytes.toString("latin1", at, at + this.#view.getUint32(p + field.keyLength, true));
  }

  #hasSpare(): boolean {
    if (this.#wasm.spareHeld()) return true;
    try {
      this.#wasm.holdSpare();
      return true;
    } catch (error) {
      // Memory is too scattered; the module goes on without, and nothing is added until deletions have made room.
      if (error instanceof WebAssembly.RuntimeError) return false;
      throw error;
    }
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
    const where = view.getUint32(p + field.place, true);
    const length = withValue ? view.getUint32(p + field.valueLength, true) : 0;
    let value: Uint8Array;
    if (length === 0) {
      value = new Uint8Array(0);
    } else if (where === nowhere) {
      value = this.#cold(view.getFloat64(p + field.mod, true), view.getUint32(p + field.sub, true));
      assert(value.length === length, "the log has another value than the index knows");
    } else if (gather && length <= gatherBytes / 4) {
      if (!gather.buffer || gather.used + length > gatherBytes) {
        gather.buffer = new Uint8Array(gatherBytes);
        gather.used = 0;
      }
      value = gather.buffer.subarray(gather.used, gather.used + length);
      value.set(this.#values.view(where, length));
      gather.used += length;
    } else {
      value = Uint8Array.from(this.#values.view(where, length));
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

const rowName = (at: number, sub: number): string => `${at}/${sub}`;

interface SliceOptions {
  readonly at: number;
  readonly limit: number;
  readonly keysOnly: boolean;
  readonly maxColdBytes: number;
}

interface Gather {
  buffer: Uint8Array | undefined;
  used: number;
}
