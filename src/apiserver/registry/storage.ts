// One resource in the datastore: reads and guarded writes of single keys, as items. No policy: that is registry.ts.
// Upstream counterpart: storage.Interface over etcd3.

import { hasCode } from "#base/errors.ts";
import {
  revision as asRevision,
  type Backend,
  type Key,
  type Op,
  prefixRange,
  type StorageClass,
  type TxnResult,
} from "#datastore/backend.ts";
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { expired, internalError } from "#model/status.ts";
import { nextTurn } from "#platform/turns.ts";
import type { EncryptionSlots, Slot } from "../encryption/slots.ts";
import { type DecodeCache, encodeStored, type Item, type Layout, layoutOf } from "./codec.ts";
import { toApiError, tooLargeRevision } from "./errors.ts";
import { checkGuards, type Guard, guardOps } from "./guard.ts";
import { collectionPrefix, objectKey, resourcePrefix } from "./keys.ts";

export interface StorageDeps {
  readonly backend: Backend;
  readonly cache: DecodeCache;
  readonly classOf: (resource: string, namespace: string, name: string) => StorageClass;
  /** Absent: nothing is encrypted. */
  readonly encryption?: EncryptionSlots | undefined;
}

/** Values decrypted before others have their turn: a millisecond or two. */
const decryptSlice = 200;

export interface Encoded {
  readonly shown: Uint8Array;
  readonly stored: Uint8Array;
}

export interface ItemPage {
  readonly items: readonly Item[];
  /** Objects behind the page, selectors aside. */
  readonly remaining: number;
  /** The revision the page shows. */
  readonly revision: number;
}

export class ResourceStorage {
  readonly info: ResourceInfo;
  readonly layout: Layout;
  readonly #deps: StorageDeps;
  readonly #qualified: string;
  readonly #prefix: Key;
  readonly #slot: Slot | undefined;

  constructor(info: ResourceInfo, deps: StorageDeps) {
    this.info = info;
    this.layout = layoutOf(info);
    this.#prefix = resourcePrefix(info);
    this.#deps = deps;
    this.#qualified = info.storageGroup === "" ? info.plural : `${info.plural}.${info.storageGroup}`;
    this.#slot = deps.encryption?.slot(info);
  }

  decode(item: Item): UnknownObject {
    return this.#deps.cache.get(item);
  }

  async get(namespace: string, name: string): Promise<Item | undefined> {
    const { kvs } = await this.#deps.backend.range({ key: objectKey(this.info, namespace, name, this.#prefix) });
    return kvs[0] && this.reveal(kvs[0]);
  }

  /** What the datastore has as everything behind this sees it: decrypted. Throws where that is not possible. */
  reveal<T extends Item>(item: T): T | Item {
    return this.#slot ? this.#slot.reveal(item) : item;
  }

  /** Objects in key order. `after`: the last key of the page before. `revision` 0: now. */
  async list(
    namespace: string,
    options: { readonly limit?: number; readonly after?: string; readonly revision?: number } = {},
  ): Promise<ItemPage> {
    const range = prefixRange(collectionPrefix(this.info, namespace, this.#prefix));
    const wanted = options.revision ?? 0;
    try {
      const result = await this.#deps.backend.range({
        // "\0" appended: the first key that is greater.
        key: options.after === undefined ? range.key : `${options.after}\0`,
        end: range.end,
        revision: asRevision(wanted),
        limit: options.limit ?? 0,
      });
      return {
        items: await this.#revealAll(result.kvs, wanted !== 0),
        remaining: result.count - result.kvs.length,
        revision: wanted === 0 ? result.revision : wanted,
      };
    } catch (error) {
      if (hasCode(error, "DATASTORE_FUTURE_REVISION")) throw tooLargeRevision(wanted, this.#deps.backend.revision());
      throw error;
    }
  }

  async #revealAll(items: readonly Item[], isPast: boolean): Promise<readonly Item[]> {
    const slot = this.#slot;
    if (!slot) return items;
    const out: Item[] = [];
    for (const item of items) {
      if (slot.transformer && out.length % decryptSlice === decryptSlice - 1) await nextTurn();
      try {
        out.push(slot.reveal(item));
      } catch (error) {
        // Keys that are gone do not come back: whoever reads the past begins anew.
        if (isPast) throw expired("The resourceVersion for the provided list is too old.");
        const why = toApiError(error).message.replace(/^Internal error occurred: /, "");
        throw internalError(`unable to transform key ${JSON.stringify(item.key)}: ${why}`);
      }
    }
    return slot.transformer ? out : items;
  }

  /** Whether its objects are served as they are stored, so that reading one cannot fail by itself. */
  get isPlain(): boolean {
    return !this.#slot?.transformer;
  }

  /** Undefined when the key is taken. `object` becomes shared. Like all writes it throws where a guard does not hold. */
  create(
    namespace: string,
    name: string,
    object: UnknownObject,
    guards: readonly Guard[] = [],
  ): Promise<Item | undefined> {
    const key = objectKey(this.info, namespace, name, this.#prefix);
    return this.#put({ key, namespace, name, modRevision: 0 }, object, guards);
  }

  /** Undefined when the object changed since `old`. `object` becomes shared. */
  update(old: Item, object: UnknownObject, guards: readonly Guard[] = []): Promise<Item | undefined> {
    const { namespace = "", name = "" } = object.metadata;
    return this.#put({ key: old.key, namespace, name, modRevision: old.modRevision }, object, guards);
  }

  /** False when the object changed since `old`. */
  async remove(old: Item, guards: readonly Guard[] = []): Promise<boolean> {
    const write: Op = { type: "delete", key: old.key };
    return (await this.#commit(old, write, guards)).succeeded;
  }

  /** Writes if the key is as it was at `modRevision`, and all guards hold. */
  async #commit(
    { key, modRevision }: { readonly key: Key; readonly modRevision: number },
    write: Op,
    guards: readonly Guard[],
  ): Promise<TxnResult> {
    const result = await this.#deps.backend.commit({
      compares: [{ key, target: "mod", op: "=", value: modRevision }, ...guards.map(({ compare }) => compare)],
      success: [write],
      ...(guards.length > 0 ? { failure: guardOps(guards) } : {}),
    });
    if (!result.succeeded) checkGuards(guards, result.results);
    return result;
  }

  async #put(
    at: { readonly key: Key; readonly namespace: string; readonly name: string; readonly modRevision: number },
    object: UnknownObject,
    guards: readonly Guard[],
  ): Promise<Item | undefined> {
    const { key, modRevision } = at;
    const { shown, stored } = await this.encode(object);
    const storageClass = this.#deps.classOf(this.#qualified, at.namespace, at.name);
    const commit = (value: Uint8Array) => this.#commit(at, { type: "put", key, value, class: storageClass }, guards);
    const { cache } = this.#deps;
    // Its event comes before the commit is answered.
    if (shown === stored) cache.expect(key, modRevision, stored, object);
    const result = await (this.#slot ? this.#slot.write(key, stored, commit) : commit(stored)).finally(() => {
      if (shown === stored) cache.forget(key, object);
    });
    if (!result.succeeded) return undefined;
    const item: Item = { key, value: shown, modRevision: result.revision };
    const revision = String(result.revision);
    if (object.metadata.resourceVersion !== revision) object.metadata.resourceVersion = revision;
    this.remember(item, object);
    return item;
  }

  /** False where what is stored should be written again although the object stays as it is. */
  isCurrent(item: Item): boolean {
    return !this.#slot?.isStale(item);
  }

  /** `to` was made of what was read as `from`. */
  protected inherit(from: Item, to: Item): void {
    this.#slot?.inherit(from, to);
  }

  /** What is answered and what is stored: differ where versions of a custom resource do. */
  protected encode(object: UnknownObject): Encoded | Promise<Encoded> {
    const value = encodeStored(this.info, object);
    return { shown: value, stored: value };
  }

  /** What was just written need not be parsed again. */
  protected remember(item: Item, object: UnknownObject): void {
    this.#deps.cache.put(item, object);
  }
}
