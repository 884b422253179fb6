// Where each resource's storage finds how its values are written and read now. A slot without a transformer costs a look at
// a field; configurations change under running requests. A write is counted from before it is sealed until the datastore
// has answered, so that whoever changes keys can wait for those under way: no key goes while something may still be
// written with it.
import type { Random } from "#base/clock.ts";
import { type Counter, Metrics } from "#base/metrics.ts";
import { internalError } from "#model/status.ts";
import { type EncryptionConfiguration, providersFor } from "./configuration.ts";
import { PlainCache } from "./plain-cache.ts";
import { isEncrypted, Transformer } from "./transformer.ts";

/** As far as this folder knows an Item. */
export interface StoredItem {
  readonly key: string;
  readonly value: Uint8Array;
  readonly modRevision: number;
}

interface Resource {
  readonly plural: string;
  readonly storageGroup: string;
}

/** Writes that began between two changes of the configuration. */
class Generation {
  #writing = 0;
  #idle: (() => void) | undefined;

  begin(): void {
    this.#writing++;
  }

  end(): void {
    this.#writing--;
    if (this.#writing === 0) this.#idle?.();
  }

  /** Resolves when all have ended; none begins any more. */
  drained(): Promise<void> {
    if (this.#writing === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle = resolve;
    });
  }
}

interface Shared {
  generation: Generation;
  readonly cache: PlainCache;
}

export class Slot {
  readonly #shared: Shared;
  readonly #stale = new WeakSet<StoredItem>();
  /** Undefined: values are as they are. */
  transformer: Transformer | undefined;

  constructor(shared: Shared) {
    this.#shared = shared;
  }

  /** The item with its plain value; the item itself where it is not encrypted. Throws as an API error. */
  reveal<T extends StoredItem>(item: T): T | StoredItem {
    if (!this.transformer) {
      if (isEncrypted(item.value)) throw internalError("identity transformer tried to read encrypted data");
      return item;
    }
    const { cache } = this.#shared;
    let opened = cache.get(item.key, item.modRevision);
    if (!opened) {
      try {
        opened = this.transformer.open(item.value, item.key);
      } catch (error) {
        throw internalError((error as Error).message);
      }
      if (opened.value !== item.value) cache.put(item.key, item.modRevision, opened);
    }
    const { key, modRevision } = item;
    const shown = opened.value === item.value ? item : { key, value: opened.value, modRevision };
    if (opened.stale) this.#stale.add(shown);
    return shown;
  }

  /** It was read in a form that would be written differently now. */
  isStale(item: StoredItem): boolean {
    return this.#stale.has(item);
  }

  /** `to` is another form of `from`. */
  inherit(from: StoredItem, to: StoredItem): void {
    if (this.#stale.has(from)) this.#stale.add(to);
  }

  /** Hands `commit` the value to store. */
  async write<T>(key: string, value: Uint8Array, commit: (stored: Uint8Array) => Promise<T>): Promise<T> {
    const { generation } = this.#shared;
    generation.begin();
    try {
      return await commit(this.transformer ? this.transformer.seal(value, key) : value);
    } finally {
      generation.end();
    }
  }
}

export class EncryptionSlots {
  readonly #random: Random;
  readonly #slots = new Map<string, { readonly resource: Resource; readonly slot: Slot }>();
  readonly #shared: Shared = { generation: new Generation(), cache: new PlainCache() };
  readonly #operations: Counter;
  #configuration: EncryptionConfiguration | undefined;

  constructor(deps: { readonly random: Random; readonly metrics?: Metrics }) {
    this.#random = deps.random;
    const metrics = deps.metrics ?? new Metrics();
    this.#operations = metrics.counter(
      "apiserver_storage_transformation_operations_total",
      "Values encrypted or decrypted, by resource, direction, provider and status",
    );
    metrics.gaugeOf("mote_apiserver_decrypted_cache_bytes", "Decrypted values kept", () => this.#shared.cache.bytes);
  }

  /** The same for the same resource. */
  slot({ plural, storageGroup }: Resource): Slot {
    const name = `${plural}.${storageGroup}`;
    let entry = this.#slots.get(name);
    if (!entry) {
      entry = { resource: { plural, storageGroup }, slot: new Slot(this.#shared) };
      this.#slots.set(name, entry);
      this.#fill(entry);
    }
    return entry.slot;
  }

  /** From now on values are written so. Resolves when no write of before is under way any more. */
  apply(configuration: EncryptionConfiguration | undefined): Promise<void> {
    this.#configuration = configuration;
    this.#shared.cache.clear();
    for (const entry of this.#slots.values()) this.#fill(entry);
    const before = this.#shared.generation;
    this.#shared.generation = new Generation();
    return before.drained();
  }

  #fill({ resource, slot }: { readonly resource: Resource; readonly slot: Slot }): void {
    const providers = this.#configuration && providersFor(this.#configuration, resource);
    const { plural, storageGroup } = resource;
    const name = storageGroup === "" ? plural : `${plural}.${storageGroup}`;
    slot.transformer =
      providers &&
      new Transformer(providers, this.#random, (type, provider, status) =>
        this.#operations.add(1, {
          resource: name,
          status,
          transformation_type: type,
          transformer_prefix: provider,
        }),
      );
  }
}
