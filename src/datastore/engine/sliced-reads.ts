// Reads that take more of the log than a turn has time for: ranges, what a transaction needs before it can be applied, and
// ranges read as their readers have room. Each goes on bit by bit, at one revision of one engine, and a compaction beyond that
// revision waits for it. Upstream counterpart: none; etcd reads from mapped pages.
import { nextTurn } from "#platform/turns.ts";
import { revision as asRevision, type Key, type RangeOptions, type RangeResult } from "../backend.ts";
import { faultError } from "../errors.ts";
import type { ColdRow, Engine } from "./engine.ts";
import { RangeScan, type ScanOptions } from "./range-scan.ts";

export interface SlicedReadsDeps {
  /** As it is now; what was begun on another one fails. */
  readonly engine: () => Engine;
  /** Throws when nothing can be read. */
  readonly check: () => void;
  /** Told of what reading throws; answers what to throw. */
  readonly noticed: (error: unknown) => unknown;
}

/** What a range reads from the log before it lets others have their turn: one to three milliseconds. */
export const sliceColdBytes = 512 * 1024;
/** What a transaction's values may take that are read before it; what is beyond is read within it. */
const maxAheadBytes = 64 * 1024 * 1024;

export class SlicedReads {
  readonly #deps: SlicedReadsDeps;
  /** When no transaction has values read ahead any more. */
  #aheadOver = Promise.resolve();
  /** Ranges between two of their slices. */
  readonly #running = new Set<Promise<void>>();
  /** Ranges that are read as their readers have room, each with how to have its reader hurry. */
  readonly #scans = new Map<RangeScan, () => Promise<void>>();

  constructor(deps: SlicedReadsDeps) {
    this.#deps = deps;
  }

  /** At one revision, with turns in between while values come from the log. A compaction waits for it. */
  range(options: RangeOptions, end: Key, durable: number): Promise<RangeResult> {
    const engine = this.#deps.engine();
    const current = asRevision(durable);
    const at = options.revision ? options.revision : current;
    const limit = options.limit ?? 0;
    const slice = (from: Key, found: number) => {
      const rest = limit === 0 ? 0 : limit - found;
      return engine.slice(from, end, { at, limit: rest, keysOnly: false, maxColdBytes: sliceColdBytes });
    };
    const result = (kvs: RangeResult["kvs"], rest: number): RangeResult => {
      return { kvs, count: kvs.length + rest, more: rest > 0, revision: current };
    };
    const first = slice(options.key, 0);
    if (first.next === undefined) {
      const rest = limit > 0 && first.kvs.length === limit ? engine.rangeRest() : 0;
      return Promise.resolve(result(first.kvs, rest));
    }
    const others = async () => {
      const parts = [first.kvs];
      let found = first.kvs.length;
      for (let next = first.next; next !== undefined; ) {
        await nextTurn();
        this.#deps.check();
        if (engine !== this.#deps.engine()) throw faultError();
        const more = slice(next, found);
        parts.push(more.kvs);
        found += more.kvs.length;
        next = limit > 0 && found >= limit ? undefined : more.next;
      }
      const rest = limit > 0 && found === limit ? engine.count(options.key, end, at) - found : 0;
      return result(parts.flat(), rest);
    };
    return this.#run(others());
  }

  scan(options: ScanOptions, hurry: () => Promise<void>): RangeScan {
    const engine = this.#deps.engine();
    const scan = new RangeScan(options, {
      engine,
      check: () => {
        this.#deps.check();
        if (engine !== this.#deps.engine()) throw faultError();
      },
      noticed: (error) => this.#deps.noticed(error),
      closed: (over) => this.#scans.delete(over),
    });
    this.#scans.set(scan, hurry);
    return scan;
  }

  /**
   * Reads what the transaction needs from the log first, bit by bit, so that it is applied in one go all the same. One
   * transaction after the other: what is read is held until then.
   */
  async ahead<T>(rows: readonly ColdRow[], check: () => void, apply: () => Promise<T>): Promise<T> {
    const engine = this.#deps.engine();
    const values = new Map<string, Uint8Array>();
    const before = this.#aheadOver;
    let over = () => {};
    this.#aheadOver = new Promise((resolve) => {
      over = resolve;
    });
    const reading = (async () => {
      await before;
      let bytes = 0;
      for (let i = 0; i < rows.length && bytes < maxAheadBytes; ) {
        const from = i;
        for (let slice = 0; i < rows.length && slice < sliceColdBytes; i++) slice += rows[i]!.bytes;
        engine.readAhead(rows.slice(from, i), values);
        bytes += sliceColdBytes;
        await nextTurn();
        check();
        if (engine !== this.#deps.engine()) throw faultError();
      }
    })();
    let applied: Promise<T>;
    try {
      await this.#run(reading);
      applied = engine.having(values, apply);
    } catch (error) {
      throw this.#deps.noticed(error);
    } finally {
      over();
    }
    return applied;
  }

  /** Before a compaction to `revision`: waits for all that is under way, and has those hurry that read below it. */
  async finish(revision: number): Promise<void> {
    await Promise.all(this.#running);
    for (const [scan, hurry] of [...this.#scans]) {
      if (scan.at >= revision) continue;
      await hurry().catch(() => {
        // Its client is told when it comes to that.
      });
      scan.close();
    }
  }

  /** Has a compaction wait for it; rejects as the caller is to be told. */
  #run<T>(work: Promise<T>): Promise<T> {
    const reading = work.catch((error: unknown) => {
      throw this.#deps.noticed(error);
    });
    const done = reading.then(
      () => {},
      () => {
        // Its caller is told.
      },
    );
    this.#running.add(done);
    void done.then(() => this.#running.delete(done));
    return reading;
  }
}
