// Superseded values that stay in memory for a while, because a watcher that is a little behind asks for them: first in,
// first out, bounded by their bytes and their number. Knows where they are, not what they are.
import type { Key } from "../backend.ts";

/** Entries cost memory too, however small the values are. */
const maxEntries = 8192;

interface Entry {
  readonly key: Key;
  readonly revision: number;
  readonly bytes: number;
}

export class HistoryWindow {
  readonly #maxBytes: number;
  readonly #leave: (key: Key, revision: number) => void;
  /** A ring; `#first` is the oldest of `#count`. */
  readonly #entries: (Entry | undefined)[] = new Array<Entry | undefined>(maxEntries).fill(undefined);
  #first = 0;
  #count = 0;
  #bytes = 0;

  /** `leave` is told of each value that does not stay any longer. */
  constructor(maxBytes: number, leave: (key: Key, revision: number) => void) {
    this.#maxBytes = maxBytes;
    this.#leave = leave;
  }

  add(key: Key, revision: number, bytes: number): void {
    if (this.#count === maxEntries) this.#dropFirst();
    this.#entries[(this.#first + this.#count) % maxEntries] = { key, revision, bytes };
    this.#count++;
    this.#bytes += bytes;
    while (this.#bytes > this.#maxBytes && this.#count > 0) this.#dropFirst();
  }

  #dropFirst(): void {
    const { key, revision, bytes } = this.#entries[this.#first]!;
    this.#entries[this.#first] = undefined;
    this.#first = (this.#first + 1) % maxEntries;
    this.#count--;
    this.#bytes -= bytes;
    this.#leave(key, revision);
  }
}
