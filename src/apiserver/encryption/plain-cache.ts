// Decrypted values by key and revision: lists, watches and the state before a change ask for the same ones again, and
// XSalsa20 in JavaScript is slow. What was used last stays; bounded by bytes. It is emptied with every change of keys, so
// that nothing is shown that can no longer be read.
import type { Opened } from "./transformer.ts";

/** A thousand Secrets of 2 KiB. */
const maxBytes = 2 * 1024 * 1024;
/** One that is larger would push too many out. */
const maxValueBytes = 128 * 1024;
/** What an entry takes beside its value, about. */
const overheadBytes = 256;

interface Entry {
  readonly revision: number;
  readonly opened: Opened;
}

export class PlainCache {
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string, revision: number): Opened | undefined {
    const entry = this.#entries.get(key);
    if (entry?.revision !== revision) return undefined;
    // The map is in order of use.
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.opened;
  }

  /** Readers of the past do not push out what is newer. */
  put(key: string, revision: number, opened: Opened): void {
    const old = this.#entries.get(key);
    if ((old && old.revision > revision) || opened.value.length > maxValueBytes) return;
    if (old) this.#remove(key, old);
    this.#entries.set(key, { revision, opened });
    this.#bytes += opened.value.length + overheadBytes;
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= maxBytes) break;
      this.#remove(oldest, entry);
    }
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #remove(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#bytes -= entry.opened.value.length + overheadBytes;
  }
}
