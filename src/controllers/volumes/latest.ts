// A store with this process's own writes laid over it: what was just written counts before the watch brings it back, so
// that one volume is not promised to two claims. An overlay ends when the store has passed its revision. Bounded by the
// writes in flight between two events of the watch. Upstream counterpart: the binder's persistentVolumeOrderedIndex.
import type { Informer } from "#client/informer.ts";
import { type ApiObject, keyOf } from "#model/object.ts";

const revisionOf = (text: string | undefined): number => Number(text ?? 0);

export class Latest<T extends ApiObject> {
  readonly #store: Informer<T>;
  readonly #written = new Map<string, T>();

  constructor(store: Informer<T>) {
    this.#store = store;
  }

  get(key: string): T | undefined {
    const stored = this.#store.get(key);
    const written = this.#written.get(key);
    if (!written) return stored;
    const isPassed = revisionOf(this.#store.resourceVersion) >= revisionOf(written.metadata.resourceVersion);
    const isShown =
      stored !== undefined &&
      revisionOf(stored.metadata.resourceVersion) >= revisionOf(written.metadata.resourceVersion);
    if (!isPassed && !isShown) return written;
    this.#written.delete(key);
    return stored;
  }

  list(): T[] {
    const all = this.#store.list();
    if (this.#written.size === 0) return all;
    const keys = new Set([...all.map(keyOf), ...this.#written.keys()]);
    return [...keys].map((key) => this.get(key)).filter((object) => object !== undefined);
  }

  /** As the API answered. */
  wrote(object: T): T {
    this.#written.set(keyOf(object), object);
    return object;
  }
}
