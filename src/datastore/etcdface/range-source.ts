// The answer to a range written while it is sent: each key and value goes from where it lies straight into a buffer for the
// socket. So an answer of any size takes a few buffers, which are warm when the system copies them, and not its own size.
// The size of the whole, which gRPC wants first, is counted over the index beforehand.
import { Buffer } from "node:buffer";
import { assert } from "#base/assert.ts";
import { nextTurn } from "#platform/turns.ts";
import { framePrefixBytes } from "#wire/grpc.ts";
import type { DataSource } from "#wire/http2/stream.ts";
import type { Backend, KeyRange, RangeOptions } from "../backend.ts";
import type { RangeScan } from "../engine/range-scan.ts";
import { compactedRevision } from "../errors.ts";
import { itemSize, type Part, rangeEnds, writeItem } from "./messages.ts";

/** A smaller answer is made at once, in one piece. */
const smallBytes = 16 * 1024;
/** What is read ahead in a piece, and in a turn, when a compaction waits. */
const pieceBytes = 128 * 1024;
const turnPieces = 4;
/**
 * What compactions have read ahead for readers that do not come for it, all together. A reader beyond it has its stream
 * reset, as if it had asked for a revision that is compacted.
 */
const maxAheadBytes = 64 * 1024 * 1024;

/** What is left of `maxAheadBytes`; one for all ranges of a server. */
export class AheadBudget {
  #left: number;

  constructor(bytes = maxAheadBytes) {
    this.#left = bytes;
  }

  /** False: there is not that much left. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}

type ScanRange = KeyRange & Pick<RangeOptions, "revision" | "limit" | "keysOnly">;

/** A frame, or what makes one. */
export function rangeFrame(
  scan: NonNullable<Backend["scan"]>,
  range: ScanRange,
  header: () => Part,
  budget: AheadBudget,
): Uint8Array | DataSource {
  const keysOnly = range.keysOnly === true;
  const source: RangeSource = new RangeSource(
    scan(range, () => source.hurry()),
    keysOnly,
    budget,
  );
  try {
    source.open(header());
    return source.size <= smallBytes ? source.whole() : source;
  } catch (error) {
    source.close();
    throw error;
  }
}

class RangeSource implements DataSource {
  readonly #scan: RangeScan;
  readonly #keysOnly: boolean;
  readonly #budget: AheadBudget;
  /** Taken from the budget. */
  #ahead = 0;
  #failure: Error | undefined;
  /** Made and not yet asked for. */
  readonly #ready: Buffer[] = [];
  #tail = Buffer.alloc(0);
  /** Everything is made. */
  #made = false;
  /** Of the frame, and what of it was given out. */
  size = 0;
  #given = 0;

  constructor(scan: RangeScan, keysOnly: boolean, budget: AheadBudget) {
    this.#scan = scan;
    this.#keysOnly = keysOnly;
    this.#budget = budget;
  }

  /** Counts, and makes what stands before and after the key-values. */
  open(header: Part): void {
    let bytes = 0;
    const { found, rest } = this.#scan.measure((item) => {
      bytes += itemSize(item, this.#keysOnly);
    });
    const { before, after } = rangeEnds(header, rest > 0, found + rest);
    const message = before.size + bytes + after.size;
    const head = Buffer.allocUnsafe(framePrefixBytes + before.size);
    head[0] = 0;
    head.writeUInt32BE(message, 1);
    before.write(head, framePrefixBytes);
    this.#ready.push(head);
    this.#tail = Buffer.allocUnsafe(after.size);
    after.write(this.#tail, 0);
    this.size = framePrefixBytes + message;
  }

  whole(): Uint8Array {
    const frame = Buffer.allocUnsafe(this.size);
    let at = 0;
    for (let n = this.fill(frame); n > 0; n = this.fill(frame.subarray(at))) at += n;
    return frame;
  }

  fill(into: Buffer): number {
    if (this.#failure) throw this.#failure;
    let at = this.#takeReady(into, 0);
    if (!this.#made && at < into.length) {
      at = this.#make(into, at, this.#ready);
      at = this.#takeReady(into, at);
    }
    this.#given += at;
    if (at === 0) assert(this.#given === this.size, "the answer to a range has not the size that was said");
    return at;
  }

  /** Makes the rest now, while others have their turns; where there is no room for it the range fails. */
  async hurry(): Promise<void> {
    const rest = this.size - this.#given;
    if (!this.#budget.take(rest)) {
      this.close();
      this.#failure = compactedRevision(this.#scan.at, this.#scan.at);
      return;
    }
    this.#ahead = rest;
    for (let pieces = 1; !this.#made; pieces++) {
      const piece = Buffer.allocUnsafe(Math.min(pieceBytes, rest));
      const behind: Buffer[] = [];
      const used = this.#make(piece, 0, behind);
      if (used > 0) this.#ready.push(piece.subarray(0, used));
      this.#ready.push(...behind);
      if (pieces % turnPieces === 0) await nextTurn();
    }
  }

  close(): void {
    this.#made = true;
    this.#ready.length = 0;
    this.#budget.give(this.#ahead);
    this.#ahead = 0;
    this.#scan.close();
  }

  #takeReady(into: Buffer, start: number): number {
    let at = start;
    while (at < into.length) {
      const first = this.#ready[0];
      if (!first) break;
      const size = Math.min(first.length, into.length - at);
      first.copy(into, at, 0, size);
      at += size;
      if (size === first.length) this.#ready.shift();
      else this.#ready[0] = first.subarray(size);
    }
    return at;
  }

  /** As much as there is room for; what is larger than all the room comes `behind` it, and so does the tail. */
  #make(into: Buffer, start: number, behind: Buffer[]): number {
    const keysOnly = this.#keysOnly;
    let at = start;
    let large: Buffer | undefined;
    this.#made = this.#scan.read((item) => {
      if (large) return false;
      const size = itemSize(item, keysOnly);
      if (at + size <= into.length) {
        at = writeItem(into, at, item, keysOnly);
        return true;
      }
      if (at > start || size <= into.length) return false;
      large = Buffer.allocUnsafe(size);
      writeItem(large, 0, item, keysOnly);
      return true;
    });
    if (large) behind.push(large);
    if (this.#made && this.#tail.length > 0) behind.push(this.#tail);
    return at;
  }
}
