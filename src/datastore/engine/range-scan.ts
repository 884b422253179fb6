// A range at one revision that is read bit by bit, as its reader has room, while writing goes on: nothing of it is held but
// where it stands. What it has yet to read must stay, so a compaction beyond its revision waits for it, and its reader
// is asked to hurry then. Upstream counterpart: none; etcd builds the answer as a whole.
import type { Key } from "../backend.ts";
import type { Engine } from "./engine.ts";
import type { RawItem } from "./items.ts";

export interface ScanOptions {
  readonly key: Key;
  readonly end: Key;
  readonly at: number;
  /** 0: all. */
  readonly limit: number;
}

export interface ScanDeps {
  readonly engine: Engine;
  /** Throws when the engine is not to be read any more. */
  check(): void;
  /** Told of what reading throws; answers what to throw. */
  noticed(error: unknown): unknown;
  /** Nothing more will be read. */
  closed(scan: RangeScan): void;
}

export class RangeScan {
  readonly at: number;
  readonly #options: ScanOptions;
  readonly #deps: ScanDeps;
  #next: Key | undefined;
  #left: number;
  #closed = false;

  constructor(options: ScanOptions, deps: ScanDeps) {
    this.#options = options;
    this.#deps = deps;
    this.at = options.at;
    this.#next = options.key;
    this.#left = options.limit;
  }

  /** Hands out all there is without moving on; answers how many keys the limit leaves out. To be called first. */
  measure(visit: (item: RawItem) => void): { readonly found: number; readonly rest: number } {
    const { engine } = this.#deps;
    const { key, end, at, limit } = this.#options;
    let found = 0;
    try {
      engine.each(key, end, { at, limit, few: false }, (item) => {
        visit(item);
        found++;
        return true;
      });
      return { found, rest: limit > 0 && found === limit ? engine.rangeRest() : 0 };
    } catch (error) {
      this.close();
      throw this.#deps.noticed(error);
    }
  }

  /** Hands out what comes next until `take` has no room. True: that was all. */
  read(take: (item: RawItem) => boolean): boolean {
    if (this.#next === undefined) return true;
    try {
      this.#deps.check();
      const { end, at, limit } = this.#options;
      let taken = 0;
      this.#next = this.#deps.engine.each(this.#next, end, { at, limit: this.#left, few: true }, (item) => {
        if (!take(item)) return false;
        taken++;
        return true;
      });
      if (limit > 0) {
        this.#left -= taken;
        if (this.#left === 0) this.#next = undefined;
      }
    } catch (error) {
      this.close();
      throw this.#deps.noticed(error);
    }
    if (this.#next === undefined) this.close();
    return this.#next === undefined;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#next = undefined;
    this.#deps.closed(this);
  }
}
