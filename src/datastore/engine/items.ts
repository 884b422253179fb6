// Records as they are handed out: one that lies in memory and holds within the call (`RawItem`), and one whose value is
// copied when it is asked for (`StoredKeyValue`). Upstream has neither: bbolt hands out bytes of its pages.
import { Buffer } from "node:buffer";
import { assert } from "#base/assert.ts";
import type { Key, KeyValue, Revision } from "../backend.ts";
import { field } from "./module.ts";
import { nowhere, type Values } from "./values.ts";

/** Reads from the log the value of the record that was written at (revision, sub). Must not call the engine. */
export type ColdValues = (revision: number, sub: number) => Uint8Array;

interface Stored extends Omit<KeyValue, "value"> {
  readonly valueBytes: number;
  readonly record: number;
}

interface Getter {
  get(key: Key, at: number): KeyValue | undefined;
}

/** Its value is copied out when it is asked for. A class, because a put makes one: a getter of its own would cost a kilobyte. */
export class StoredKeyValue implements KeyValue, Stored {
  readonly key: Key;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  readonly version: number;
  readonly lease: number;
  readonly valueBytes: number;
  readonly record: number;
  readonly #engine: Getter;
  #value: Uint8Array | undefined;

  constructor(engine: Getter, stored: Stored) {
    this.#engine = engine;
    this.key = stored.key;
    this.createRevision = stored.createRevision;
    this.modRevision = stored.modRevision;
    this.version = stored.version;
    this.lease = stored.lease;
    this.valueBytes = stored.valueBytes;
    this.record = stored.record;
  }

  get value(): Uint8Array {
    if (this.#value === undefined) {
      const found = this.#engine.get(this.key, this.modRevision);
      assert(found?.modRevision === this.modRevision, "a value is asked for after its record has gone");
      this.#value = found.value;
    }
    return this.#value;
  }
}

/** One key and its value as they lie in memory; holds within the call that hands it out. */
export interface RawItem {
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly lease: number;
  readonly sub: number;
  readonly record: number;
  keyText(): Key;
  isCold(): boolean;
  copyKey(out: Buffer, at: number): void;
  copyValue(out: Buffer, at: number): void;
}

/** Copying so few bytes one by one is quicker than asking for it. */
const shortBytes = 48;

export class ItemView implements RawItem {
  keyBytes = 0;
  valueBytes = 0;
  createRevision = 0;
  modRevision = 0;
  version = 0;
  lease = 0;
  readonly #values: Values;
  readonly #cold: ColdValues;
  #bytes: Buffer = Buffer.alloc(0);
  #keyAt = 0;
  #place = 0;
  sub = 0;
  record = 0;

  constructor(values: Values, cold: ColdValues) {
    this.#values = values;
    this.#cold = cold;
  }

  read(bytes: Buffer, view: DataView, p: number): void {
    this.#bytes = bytes;
    this.#keyAt = view.getUint32(p + field.key, true);
    this.keyBytes = view.getUint32(p + field.keyLength, true);
    this.#place = view.getUint32(p + field.place, true);
    this.valueBytes = view.getUint32(p + field.valueLength, true);
    this.createRevision = view.getFloat64(p + field.create, true);
    this.modRevision = view.getFloat64(p + field.mod, true);
    this.version = view.getUint32(p + field.version, true);
    this.lease = view.getFloat64(p + field.lease, true);
    this.sub = view.getUint32(p + field.sub, true);
    this.record = view.getUint32(p + field.record, true);
  }

  keyText(): Key {
    return this.#bytes.toString("latin1", this.#keyAt, this.#keyAt + this.keyBytes);
  }

  isCold(): boolean {
    return this.#place === nowhere && this.valueBytes > 0;
  }

  copyKey(out: Buffer, at: number): void {
    const bytes = this.#bytes;
    const from = this.#keyAt;
    const length = this.keyBytes;
    if (length > shortBytes) bytes.copy(out, at, from, from + length);
    else for (let i = 0; i < length; i++) out[at + i] = bytes[from + i]!;
  }

  copyValue(out: Buffer, at: number): void {
    const { valueBytes } = this;
    if (valueBytes === 0) return;
    if (this.#place !== nowhere) {
      this.#values.copy(this.#place, valueBytes, out, at);
      return;
    }
    const value = this.#cold(this.modRevision, this.sub);
    assert(value.length === valueBytes, "the log has another value than the index knows");
    out.set(value, at);
  }
}
