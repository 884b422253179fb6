// Objects at rest: JSON of the storage version that starts with a fixed prefix
// `{"apiVersion":"v1","kind":"Pod","metadata":{` and has no resourceVersion, because that is the revision of the key.
// So an answer is made by splicing `"resourceVersion":"N",` in, without parsing. Values that do not start with the
// prefix (written by somebody else through the etcd face) are parsed instead.
import type { UnknownObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";

/** One stored object. A KeyValue is one; a deletion makes one out of what was there before. */
export interface Item {
  readonly key: string;
  readonly value: Uint8Array;
  /** What resourceVersion says. */
  readonly modRevision: number;
  /** The state before a change that ends its presence (deletion, or it left the selection). */
  readonly gone?: boolean;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export interface Layout {
  /** `{"apiVersion":"v1","kind":"Pod",` */
  readonly head: Uint8Array;
  /** head + `"metadata":{` */
  readonly prefix: Uint8Array;
}

/** The fixed prefix of values of this resource in the version they are stored as. */
export function layoutOf(info: Pick<ResourceInfo, "storageVersion" | "kind">): Layout {
  const head = `{"apiVersion":${JSON.stringify(info.storageVersion)},"kind":${JSON.stringify(info.kind)},`;
  return { head: encoder.encode(head), prefix: encoder.encode(`${head}"metadata":{`) };
}

/** Bytes to store. `object` is of the storage version. */
export function encodeStored(info: Pick<ResourceInfo, "storageVersion" | "kind">, object: UnknownObject): Uint8Array {
  const { apiVersion: _apiVersion, kind: _kind, metadata, ...rest } = object;
  const { resourceVersion: _resourceVersion, ...meta } = metadata;
  return encoder.encode(JSON.stringify({ apiVersion: info.storageVersion, kind: info.kind, metadata: meta, ...rest }));
}

/** The object of the storage version, with its resourceVersion. */
export function decodeStored(item: Item): UnknownObject {
  const object = JSON.parse(decoder.decode(item.value)) as UnknownObject;
  object.metadata ??= {};
  if (item.modRevision > 0) object.metadata.resourceVersion = String(item.modRevision);
  return object;
}

const startsWith = (value: Uint8Array, prefix: Uint8Array): boolean => {
  if (value.length < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (value[i] !== prefix[i]) return false;
  return true;
};

/** `"resourceVersion":"N",`, or without the comma where nothing follows. */
const revisionText = (item: Item, layout: Layout): string =>
  item.modRevision === 0
    ? "" // a dry run of a creation has none
    : `"resourceVersion":"${item.modRevision}"${item.value[layout.prefix.length] === 0x7d ? "" : ","}`;

/** The JSON of one object in its storage version. */
export function spliceObject(item: Item, layout: Layout): Uint8Array {
  if (!startsWith(item.value, layout.prefix)) return encoder.encode(JSON.stringify(decodeStored(item)));
  const insert = revisionText(item, layout);
  const cut = layout.prefix.length;
  const out = Buffer.allocUnsafe(item.value.length + insert.length);
  out.set(layout.prefix, 0);
  out.write(insert, cut, "latin1");
  out.set(item.value.subarray(cut), cut + insert.length);
  return out;
}

/**
 * The JSON of a list in the storage version in one buffer of the right size. As upstream, items do not repeat
 * apiVersion and kind.
 */
export function spliceList(head: string, items: readonly Item[], layout: Layout): Uint8Array {
  return splice(`${head}[`, items, "]}", layout);
}

/** A part of it: `before` and then items, so that an answer of many megabytes never stands in memory as a whole. */
export function spliceItems(before: string, items: readonly Item[], layout: Layout): Uint8Array {
  return splice(before, items, "", layout);
}

function splice(before: string, items: readonly Item[], after: string, layout: Layout): Uint8Array {
  const headBytes = encoder.encode(before);
  const inserts: string[] = new Array(items.length);
  const values: Uint8Array[] = new Array(items.length);
  let size = headBytes.length + after.length;
  const open = '{"metadata":{';
  for (let i = 0; i < items.length; i++) {
    const item = items[i]!;
    if (startsWith(item.value, layout.prefix)) {
      inserts[i] = open + revisionText(item, layout);
      values[i] = item.value.subarray(layout.prefix.length);
    } else {
      inserts[i] = "";
      values[i] = encoder.encode(JSON.stringify(decodeStored(item)));
    }
    size += inserts[i]!.length + values[i]!.length + 1;
  }
  const out = Buffer.allocUnsafe(size);
  out.set(headBytes, 0);
  let at = headBytes.length;
  for (let i = 0; i < items.length; i++) {
    if (i > 0) out[at++] = 0x2c;
    at += out.write(inserts[i]!, at, "latin1");
    out.set(values[i]!, at);
    at += values[i]!.length;
  }
  at += out.write(after, at, "latin1");
  return out.subarray(0, at);
}

/** Head of a list up to where its items begin. */
export function listHead(
  info: ResourceInfo,
  metadata: { resourceVersion: string; continue?: string | undefined; remainingItemCount?: number | undefined },
): string {
  return `{"kind":${JSON.stringify(`${info.kind}List`)},"apiVersion":${JSON.stringify(groupVersion(info))},"metadata":${JSON.stringify(metadata)},"items":`;
}

interface Expected {
  readonly after: number;
  readonly value: Uint8Array;
  readonly object: UnknownObject;
}

/** Some megabytes at most. */
const maxKept = 128;
const maxKeptBytes = 8 * 1024;

/**
 * Decoded objects, one per (key, revision), for as long as somebody holds them: every informer of the process and the
 * request chain look at the same frozen-by-agreement object. Bounded by what is held elsewhere, and a few beside.
 */
export class DecodeCache {
  readonly #entries = new Map<string, { readonly revision: number; readonly ref: WeakRef<UnknownObject> }>();
  readonly #collected = new FinalizationRegistry<{ id: string; revision: number }>(({ id, revision }) => {
    if (this.#entries.get(id)?.revision === revision) this.#entries.delete(id);
  });
  readonly #freeze: boolean;
  /** The last that had to be parsed: what each write looks at (namespaces, accounts, classes) is not parsed each time. */
  readonly #kept: UnknownObject[] = [];
  #keptAt = 0;
  /** Of writes under way. */
  readonly #expected = new Map<string, Expected>();

  /** `freeze`: makes every shared object immutable, so that a part that changes one fails in tests. */
  constructor(freeze: boolean) {
    this.#freeze = freeze;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Shared: must not be changed. */
  get(item: Item): UnknownObject {
    const id = item.gone ? `${item.key}\0` : item.key;
    const entry = this.#entries.get(id);
    if (entry?.revision === item.modRevision) {
      const object = entry.ref.deref();
      if (object) return object;
    }
    const expected = item.gone ? undefined : this.#expected.get(item.key);
    if (expected && item.modRevision > expected.after && Buffer.compare(expected.value, item.value) === 0) {
      const { object } = expected;
      object.metadata.resourceVersion = String(item.modRevision);
      this.#expected.delete(item.key);
      this.#put(id, item.modRevision, object);
      return object;
    }
    const object = decodeStored(item);
    this.#put(id, item.modRevision, object);
    if (item.value.length <= maxKeptBytes) this.#kept[this.#keptAt++ % maxKept] = object;
    return object;
  }

  /** What is being written over the revision `after`, and is shared from when it is seen: its event need not be parsed. */
  expect(key: string, after: number, value: Uint8Array, object: UnknownObject): void {
    this.#expected.set(key, { after, value, object });
  }
  forget(key: string, object: UnknownObject): void {
    if (this.#expected.get(key)?.object === object) this.#expected.delete(key);
  }

  /** What was just written need not be parsed again when its event comes back. */
  put(item: Item, object: UnknownObject): void {
    this.#put(item.key, item.modRevision, object);
  }

  #put(id: string, revision: number, object: UnknownObject): void {
    const old = this.#entries.get(id);
    // A reader of an old revision must not push the newest one out.
    if (old && old.revision > revision && old.ref.deref()) return;
    if (this.#freeze) deepFreeze(object);
    this.#entries.set(id, { revision, ref: new WeakRef(object) });
    this.#collected.register(object, { id, revision });
  }
}

function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const child of Object.values(value)) deepFreeze(child);
}
