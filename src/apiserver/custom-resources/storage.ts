// Custom resources in the datastore, as one served version shows them. What is stored may be of another version or
// older than the schema: reads prune, default and convert, and the item they hand out holds the bytes of the result, so
// that everything behind works as for built-in kinds. Writes convert to the storage version.
// Upstream counterpart: the storage codecs of apiextensions' customresource handler.
import type { UnknownObject } from "#model/object.ts";
import { groupVersion, type ResourceInfo } from "#model/resource-info.ts";
import { nextTurn } from "#platform/turns.ts";
import { decodeStored, encodeStored, type Item } from "../registry/codec.ts";
import { type Encoded, type ItemPage, ResourceStorage, type StorageDeps } from "../registry/storage.ts";
import type { WatchedChange } from "../watch/feed.ts";
import type { Converter } from "./conversion.ts";

export interface CustomStorageDeps extends StorageDeps {
  readonly converter: Converter;
  /** `group/version` objects are written in. */
  readonly storageVersion: string;
  /** Prunes and defaults what is of a known version; whether that changed anything. */
  readonly repair: (object: UnknownObject) => boolean;
}

/** Objects looked into before others have their turn: a few milliseconds of large ones. */
const slice = 50;
/** Revisions known to be stored as they are shown. Some 100 bytes each; what is not remembered is looked into again. */
const maxKnown = 20_000;

interface Presented {
  readonly item: Item;
  /** Undefined: not looked into. */
  readonly object: UnknownObject | undefined;
}

export class CustomStorage extends ResourceStorage {
  readonly #custom: CustomStorageDeps;
  readonly #version: string;
  readonly #decoded = new WeakMap<Item, UnknownObject>();
  readonly #stored = new WeakMap<Item, string>();
  /** What was written differs from these. */
  readonly #altered = new WeakSet<UnknownObject>();
  /** By key: the revision that needs no repair. Gone with the schema. */
  readonly #sound = new Map<string, number>();
  readonly #changes = new WeakMap<WatchedChange, Promise<WatchedChange>>();

  constructor(info: ResourceInfo, deps: CustomStorageDeps) {
    super(info, deps);
    this.#custom = deps;
    this.#version = groupVersion(info);
  }

  override decode(item: Item): UnknownObject {
    let object = this.#decoded.get(item);
    if (!object) {
      object = decodeStored(item);
      this.#decoded.set(item, object);
    }
    return object;
  }

  override async get(namespace: string, name: string): Promise<Item | undefined> {
    const item = await super.get(namespace, name);
    return item && (await this.#present([item]))[0];
  }

  override async list(namespace: string, options: Parameters<ResourceStorage["list"]>[1] = {}): Promise<ItemPage> {
    const page = await super.list(namespace, options);
    return { ...page, items: await this.#present(page.items) };
  }

  override get isPlain(): boolean {
    return false;
  }

  override isCurrent(item: Item): boolean {
    if (!super.isCurrent(item)) return false;
    const version = this.#stored.get(item) ?? (this.#isSound(item) ? this.#version : this.#custom.storageVersion);
    return version === this.#custom.storageVersion;
  }

  /** The change as this version shows it; made once however many watch. */
  present(change: WatchedChange): Promise<WatchedChange> {
    let made = this.#changes.get(change);
    if (!made) {
      made = this.#presentChange(change);
      this.#changes.set(change, made);
      made.catch(() => this.#changes.delete(change));
    }
    return made;
  }

  async #presentChange(change: WatchedChange): Promise<WatchedChange> {
    const states = [change.now, change.before].filter((item) => item !== undefined);
    const shown = await this.#present(states);
    return {
      now: change.now && shown[0],
      before: change.before && shown.at(-1),
      created: change.created,
      encodings: new Map<string, Uint8Array>(),
    };
  }

  #isSound(item: Item): boolean {
    return this.#sound.get(item.key) === item.modRevision && !item.gone;
  }

  async #present(items: readonly Item[]): Promise<readonly Item[]> {
    // Mostly all are: nothing is made for each then.
    if (items.every((item) => this.#isSound(item))) return items;
    const { converter, repair } = this.#custom;
    const out: (Presented | undefined)[] = new Array(items.length);
    const foreign: { readonly index: number; readonly object: UnknownObject }[] = [];
    let looked = 0;
    for (const [index, item] of items.entries()) {
      if (this.#isSound(item)) {
        out[index] = { item, object: undefined };
        continue;
      }
      if (++looked % slice === 0) await nextTurn();
      const object = decodeStored(item);
      const version = object.apiVersion ?? "";
      const changed = repair(object);
      if (version !== this.#version) {
        foreign.push({ index, object });
        continue;
      }
      if (!changed) this.#know(item);
      out[index] = { item: changed ? this.#itemOf(item, object) : item, object };
      this.#stored.set(out[index].item, version);
    }
    if (foreign.length > 0) {
      const versions = new Map<string, typeof foreign>();
      for (const entry of foreign) {
        const version = entry.object.apiVersion ?? "";
        versions.set(version, [...(versions.get(version) ?? []), entry]);
      }
      for (const [version, entries] of versions) {
        const converted = await converter.convert(
          entries.map(({ object }) => object),
          this.#version,
        );
        converted.forEach((object, at) => {
          const { index } = entries[at]!;
          repair(object);
          const item = this.#itemOf(items[index]!, object);
          this.#stored.set(item, version);
          out[index] = { item, object };
        });
      }
    }
    return out.map((presented) => {
      if (presented!.object) this.#decoded.set(presented!.item, presented!.object);
      return presented!.item;
    });
  }

  #know(item: Item): void {
    if (item.gone) return;
    if (this.#sound.size >= maxKnown) this.#sound.clear();
    this.#sound.set(item.key, item.modRevision);
  }

  #itemOf(item: Item, object: UnknownObject): Item {
    const { key, modRevision, gone } = item;
    const made = { key, modRevision, value: encodeStored(this.info, object), ...(gone === undefined ? {} : { gone }) };
    this.inherit(item, made);
    return made;
  }

  protected override async encode(object: UnknownObject): Promise<Encoded> {
    const { converter, storageVersion, repair } = this.#custom;
    let shown = encodeStored(this.info, object);
    // Strategies take away and plugins add: what is stored has its defaults again, those of a new status above all.
    const again = decodeStored({ key: "", value: shown, modRevision: 0 });
    if (repair(again)) {
      shown = encodeStored(this.info, again);
      this.#altered.add(object);
    }
    if (storageVersion === this.#version) return { shown, stored: shown };
    const [converted] = await converter.convert([again], storageVersion);
    repair(converted!);
    return { shown, stored: encodeStored({ storageVersion, kind: this.info.kind }, converted!) };
  }

  protected override remember(item: Item, object: UnknownObject): void {
    if (!this.#altered.has(object)) this.#decoded.set(item, object);
    this.#stored.set(item, this.#custom.storageVersion);
    // What came through the gate has been pruned and defaulted by this schema.
    if (this.#custom.storageVersion === this.#version) this.#know(item);
  }
}
