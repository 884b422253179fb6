// Large lists that many ask for alike, made once: after a cut a thousand agents want all nodes, megabytes each, within the
// same seconds. Who says `resourceVersion=0` takes any state, so one that is a moment old will do; a page behind another is
// named by its token, and is always the same. Compressed answers are kept beside their list (write.ts), for that is what
// all who ask share. Nobody is told of what he may not list: authorisation comes before.
// Upstream counterpart: the watch cache, which answers these lists from memory.
import type { Clock } from "#base/clock.ts";
import type { ListResult } from "./result.ts";

interface Entry {
  readonly madeAtMs: number;
  readonly list: Promise<ListResult>;
  /** Of its objects; 0 until it is made. */
  sizeBytes: number;
}

/** How far behind a list "of any state" may be. */
const maxAgeMs = 1000;
/** Kept for who comes a little later, or is slow with its pages. */
const keepMs = 3000;
/** Smaller lists cost less than keeping them. */
const minBytes = 128 * 1024;
/** Objects of all that is kept: beside what the largest cluster that mote is made for has, a few pages of each kind. */
const maxBytes = 8 * 1024 * 1024;

export class SharedLists {
  readonly #clock: Clock;
  /** The newest last. */
  readonly #entries = new Map<string, Entry>();
  #isSweeping = false;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /** The list of this `key`, made where there is none that is young enough. `isFixed`: it is the same at any time. */
  get(key: string, isFixed: boolean, make: () => Promise<ListResult>): Promise<ListResult> {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#entries.get(key);
    if (known && (isFixed || nowMs - known.madeAtMs <= maxAgeMs)) return known.list;
    const entry: Entry = { madeAtMs: nowMs, list: this.#make(key, make), sizeBytes: 0 };
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.list;
  }

  async #make(key: string, make: () => Promise<ListResult>): Promise<ListResult> {
    let isKept = false;
    // The entry stands before this goes on: `make` reads from the store.
    try {
      const made = await make();
      const sizeBytes = sizeOf(made);
      isKept = sizeBytes >= minBytes;
      if (!isKept) return made;
      const entry = this.#entries.get(key);
      if (entry) entry.sizeBytes = sizeBytes;
      this.#bound();
      return { ...made, shared: new Map() };
    } finally {
      // A failure is told to who asked; the next one tries again.
      if (!isKept) this.#entries.delete(key);
    }
  }

  #bound(): void {
    let total = 0;
    for (const { sizeBytes } of this.#entries.values()) total += sizeBytes;
    for (const [key, entry] of this.#entries) {
      if (total <= maxBytes) break;
      total -= entry.sizeBytes;
      this.#entries.delete(key);
    }
    if (this.#isSweeping || this.#entries.size === 0) return;
    this.#isSweeping = true;
    this.#clock.after(keepMs, () => this.#sweep());
  }

  #sweep(): void {
    this.#isSweeping = false;
    const oldestMs = this.#clock.monotonicMs() - keepMs;
    for (const [key, { madeAtMs }] of this.#entries) if (madeAtMs <= oldestMs) this.#entries.delete(key);
    this.#bound();
  }
}

function sizeOf({ items, more }: ListResult): number {
  let size = 0;
  for (const { value } of items) size += value.length;
  // What has not been read yet is taken to be like what has been.
  return more && items.length > 0 ? Math.ceil((size * (items.length + more.count)) / items.length) : size;
}
