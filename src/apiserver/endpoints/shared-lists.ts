// Large lists that many ask for alike, made once: after a cut a thousand agents want all nodes, megabytes each, within the
// same seconds. Who says `resourceVersion=0` takes any state, so one that is a moment old will do; a page behind another is
// named by its token, and is always the same. What is kept is the compressed answer (write.ts makes it), not the objects:
// a hundredth of their size. Nobody is told of what he may not list: authorisation comes before.
// Upstream counterpart: the watch cache, which answers these lists from memory.
import type { Clock } from "#base/clock.ts";
import type { CompressedAnswer, ListResult } from "./result.ts";

interface Entry {
  readonly madeAtMs: number;
  /** The list until it is encoded, then the answer. */
  result: Promise<ListResult | CompressedAnswer>;
  isEncoded: boolean;
  /** 0 until it is known. */
  sizeBytes: number;
}

/** How far behind a list "of any state" may be. */
const maxAgeMs = 1000;
/** Kept for who comes a little later, or is slow with its pages. */
const keepMs = 3000;
/** Smaller lists cost less than keeping them. */
const minBytes = 128 * 1024;
/** Of all that is kept: lists that are being encoded, and answers to several moments of a large cluster. */
const maxBytes = 8 * 1024 * 1024;
/** Keys have a header and a query of the client's, and no part in `maxBytes`: none that is asked for alike is longer. */
const maxKeyLength = 2048;

export class SharedLists {
  readonly #clock: Clock;
  /** The newest last. */
  readonly #entries = new Map<string, Entry>();
  #isSweeping = false;

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  /**
   * The list of this `key`, or the answer that was made of one; made where there is none that is young enough. Whoever has the
   * same key wants the same bytes. `isFixed`: it is the same at any time.
   */
  get(key: string, isFixed: boolean, make: () => Promise<ListResult>): Promise<ListResult | CompressedAnswer> {
    if (key.length > maxKeyLength) return make();
    const nowMs = this.#clock.monotonicMs();
    const known = this.#entries.get(key);
    if (known && (isFixed || nowMs - known.madeAtMs <= maxAgeMs)) return known.result;
    const making = make();
    const entry: Entry = { madeAtMs: nowMs, result: making, isEncoded: false, sizeBytes: 0 };
    entry.result = this.#listed(key, entry, making);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.result;
  }

  async #listed(key: string, entry: Entry, making: Promise<ListResult>): Promise<ListResult> {
    let isKept = false;
    try {
      const made = await making;
      const sizeBytes = sizeOf(made);
      // One that is larger goes out bit by bit, as its client takes it, and never is in memory as a whole.
      isKept = sizeBytes >= minBytes && sizeBytes <= maxBytes;
      if (!isKept) return made;
      entry.sizeBytes = sizeBytes;
      this.#bound();
      return { ...made, share: (encode) => this.#encoded(key, entry, encode) };
    } finally {
      // A failure is told to who asked; the next one tries again.
      if (!isKept) this.#drop(key, entry);
    }
  }

  /** Several may have been given the list before there was an answer; the first of them makes it. */
  #encoded(key: string, entry: Entry, encode: () => Promise<CompressedAnswer>): Promise<CompressedAnswer> {
    if (entry.isEncoded) return entry.result as Promise<CompressedAnswer>;
    const answer = encode();
    entry.isEncoded = true;
    entry.result = answer;
    answer.then(
      ({ parts }) => {
        entry.sizeBytes = parts.reduce((sum, { length }) => sum + length, 0);
      },
      () => this.#drop(key, entry),
    );
    return answer;
  }

  /** There may be a newer one by now, which stays. */
  #drop(key: string, entry: Entry): void {
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
  }

  #bound(): void {
    let total = 0;
    for (const { sizeBytes } of this.#entries.values()) total += sizeBytes;
    for (const [key, { sizeBytes }] of this.#entries) {
      if (total <= maxBytes) break;
      total -= sizeBytes;
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
