// Values in memory, beside the index: written one after the other into segments, so that no room is lost between values
// of different sizes, and given back segment by segment. Bounded: when a new segment would be too much, the oldest one
// is emptied. Values that were used since move to the newest segment, others go cold (their owner reads them from the log),
// and those that must not go cold move in any case.
//
//   Segment: { record u32, length u32, value, padding to 8 } ...     place = segment id << 15 | offset / 8
//
// A segment that is mostly of dead values is emptied too, so that what is allocated stays near what is alive.
import { assert } from "#base/assert.ts";

/** Large enough that its buffer comes from the system and goes back there; emptying one takes 0.1 ms. */
const segmentBytes = 256 * 1024;
/** A larger value has a segment of its own. */
const ownSegmentBytes = segmentBytes / 4;
const headerBytes = 8;
const offsetBits = 15;
const maxSegments = 2 ** (32 - offsetBits) - 1;
/** Emptying moves at most so many segments' worth for one new one, before values go cold although they were used. */
const secondChances = 4;
const maxEmptied = 24;
/** Emptied buffers that wait for the next use, which mostly is at once. */
const maxPooled = 1;

export const nowhere = 0xffffffff;

export interface ValueOwner {
  /** May the record's value go cold? 0: no, 1: it was used since it was asked last, 2: yes. */
  coldness(record: number): number;
  /** The record's value is now there, or nowhere; leads to `release` of the old place. */
  place(record: number, where: number): void;
  /** How much all segments may take. */
  budgetBytes(): number;
}

interface Segment {
  readonly id: number;
  readonly bytes: Buffer;
  used: number;
  live: number;
}

export class Values {
  readonly #owner: ValueOwner;
  /** Oldest first. */
  readonly #segments = new Map<number, Segment>();
  readonly #freeIds: number[] = [];
  #nextId = 0;
  readonly #pool: Buffer[] = [];
  #current: Segment | undefined;
  #allocated = 0;
  #live = 0;

  constructor(owner: ValueOwner) {
    this.#owner = owner;
  }

  /** What the segments take of the process. */
  get allocatedBytes(): number {
    return this.#allocated + this.#pool.length * segmentBytes;
  }

  /** The values in them, with their headers. */
  get liveBytes(): number {
    return this.#live;
  }

  /** Where a copy of `value` is from now on, or undefined when there is no room for it. `own` must follow. */
  put(value: Uint8Array): number | undefined {
    const needed = sizeOf(value.length);
    const segment = this.#roomFor(value.length, true);
    if (!segment) return undefined;
    const at = segment.used;
    segment.bytes.writeUInt32LE(0, at);
    segment.bytes.writeUInt32LE(value.length, at + 4);
    segment.bytes.set(value, at + headerBytes);
    segment.used += needed;
    segment.live += needed;
    this.#live += needed;
    return ((segment.id << offsetBits) | (at >>> 3)) >>> 0;
  }

  /** Whose value it is; needed to move it. */
  own(place: number, record: number): void {
    this.#segmentOf(place).bytes.writeUInt32LE(record, offsetOf(place));
  }

  /** A view that holds until the next call that writes. */
  view(place: number, length: number): Uint8Array {
    const at = offsetOf(place) + headerBytes;
    return this.#segmentOf(place).bytes.subarray(at, at + length);
  }

  copy(place: number, length: number, out: Buffer, at: number): void {
    const from = offsetOf(place) + headerBytes;
    this.#segmentOf(place).bytes.copy(out, at, from, from + length);
  }

  release(place: number, length: number): void {
    const segment = this.#segmentOf(place);
    const at = offsetOf(place);
    assert(segment.bytes.readUInt32LE(at + 4) === length, "a value that is given back is not what was kept");
    segment.bytes.writeUInt32LE(0, at);
    segment.live -= sizeOf(length);
    this.#live -= sizeOf(length);
    if (segment.live > 0) return;
    if (segment === this.#current) segment.used = 0;
    else this.#remove(segment);
  }

  #roomFor(length: number, bounded: boolean): Segment | undefined {
    const needed = sizeOf(length);
    if (needed > ownSegmentBytes) {
      return bounded && !this.#makeRoom(needed) ? undefined : this.#add(Buffer.allocUnsafeSlow(needed));
    }
    if (this.#current && this.#current.used + needed <= segmentBytes) return this.#current;
    if (bounded) {
      if (!this.#makeRoom(segmentBytes)) return undefined;
      // Making room may have begun a segment.
      if (this.#current && this.#current.used + needed <= segmentBytes) return this.#current;
    }
    this.#current = this.#add(this.#pool.pop() ?? Buffer.allocUnsafeSlow(segmentBytes));
    return this.#current;
  }

  #makeRoom(bytes: number): boolean {
    if (this.#segments.size >= maxSegments) return false;
    // One more than there is now is needed while one is emptied.
    const budget = this.#owner.budgetBytes() - segmentBytes;
    // An eighth and a few segments may be dead.
    if (this.#allocated - this.#live > this.#allocated / 8 + 4 * segmentBytes) this.#empty(this.#emptiest(), "move");
    for (let emptied = 0; this.allocatedBytes + bytes > budget; emptied++) {
      const oldest = this.#oldest();
      if (!oldest || emptied === maxEmptied) return false;
      this.#empty(oldest, emptied < secondChances ? "unused" : "any");
    }
    return true;
  }

  /** `goes`: which of those that may go cold do. */
  #empty(segment: Segment | undefined, goes: "move" | "unused" | "any"): void {
    if (!segment) return;
    const { bytes, used } = segment;
    for (let at = 0; at < used; ) {
      const record = bytes.readUInt32LE(at);
      const length = bytes.readUInt32LE(at + 4);
      if (record !== 0) {
        const coldness = goes === "move" ? 0 : this.#owner.coldness(record);
        if (coldness === 2 || (coldness === 1 && goes === "any")) this.#owner.place(record, nowhere);
        else if (sizeOf(length) <= ownSegmentBytes)
          this.#move(record, bytes.subarray(at + headerBytes, at + headerBytes + length));
        else this.#requeue(segment);
      }
      at += sizeOf(length);
    }
  }

  #move(record: number, value: Uint8Array): void {
    // One segment too many for a moment: the emptied one is given back right after.
    this.#roomFor(value.length, false);
    const place = this.put(value);
    assert(place !== undefined, "there is a segment with room for what moves");
    this.own(place, record);
    this.#owner.place(record, place);
  }

  /** A segment of one large value does not move, it just becomes the newest. */
  #requeue(segment: Segment): void {
    this.#segments.delete(segment.id);
    this.#segments.set(segment.id, segment);
  }

  #oldest(): Segment | undefined {
    for (const segment of this.#segments.values()) if (segment !== this.#current) return segment;
    return undefined;
  }

  #emptiest(): Segment | undefined {
    let found: Segment | undefined;
    for (const segment of this.#segments.values()) {
      if (segment === this.#current || segment.bytes.length !== segmentBytes) continue;
      if (!found || segment.live < found.live) found = segment;
    }
    return found;
  }

  #add(bytes: Buffer): Segment {
    const id = this.#freeIds.pop() ?? this.#nextId++;
    const segment: Segment = { id, bytes, used: 0, live: 0 };
    this.#segments.set(id, segment);
    this.#allocated += bytes.length;
    return segment;
  }

  #remove(segment: Segment): void {
    this.#segments.delete(segment.id);
    this.#freeIds.push(segment.id);
    this.#allocated -= segment.bytes.length;
    if (segment.bytes.length === segmentBytes && this.#pool.length < maxPooled) this.#pool.push(segment.bytes);
  }

  #segmentOf(place: number): Segment {
    const segment = this.#segments.get(place >>> offsetBits);
    assert(segment, "a value is in a segment that is gone");
    return segment;
  }
}

const offsetOf = (place: number): number => (place & (2 ** offsetBits - 1)) << 3;
const sizeOf = (length: number): number => (headerBytes + length + 7) & ~7;
