// Keys and their revisions, all unmanaged blocks of the heap, and the account of what they take.
//
//   Key  { hash, newest, length }  + key bytes
//   Rec  { id, older, content, place, version, age }   [+ create, lease when EXTENDED]
//
//   Key.newest -> Rec (newest) -> Rec.older -> ... -> 0          mod falls strictly along the chain
//
// A Key owns its chain. Values are not here: the host keeps them and gives each a place, which it is told of when the
// record goes; a record without a place is cold, its value is read from the log by (mod, sub). So all blocks here are small
// and of few sizes: 28 bytes and the allocator's 4 for most records, which is two to a cache line and half of what all fields
// in full would take. Revisions are passed as f64, cheap between host and module, and kept below 2^47, as in the log.

/** The record says that the key is absent from its revision on. */
export const TOMBSTONE: u32 = 1;
/** The record is a row of the log (or about to be); the others live in memory only. */
export const LOGGED: u32 = 2;
/** Read or written since the host looked last for values that it can do without. */
export const USED: u32 = 4;

/** The record has `create` and `lease` in full: it has a lease, or was created long before it was written. */
const EXTENDED: u32 = 8;
const FLAG_BITS: u32 = 4;
const FLAGS: u32 = (1 << FLAG_BITS) - 1;
const MAX_LENGTH: u32 = u32.MAX_VALUE >> FLAG_BITS;
const SUB_BITS: u64 = 16;
const MAX_REVISION: f64 = 140737488355328;

/** There is no value, or it is cold. */
export const NOWHERE: u32 = 0xffffffff;

/** Host: the value at `place` is not needed any more. Must not call back. */
@external("env", "release")
declare function release(place: u32, length: u32): void;

@unmanaged
export class Key {
  hash: u32;
  newest: usize;
  length: u32;
}

@unmanaged
export class Rec {
  /** Revision and position within it. */
  private id: u64;
  older: usize;
  /** Length of the value and flags. */
  private content: u32;
  place: u32;
  version: u32;
  /** Revisions since the key was created; not of an extended one. */
  private age: u32;

  // @ts-ignore: decorator
  @inline get mod(): f64 {
    return f64(this.id >> SUB_BITS);
  }
  // @ts-ignore: decorator
  @inline get sub(): u32 {
    return u32(this.id) & 0xffff;
  }
  // @ts-ignore: decorator
  @inline get length(): u32 {
    return this.content >> FLAG_BITS;
  }
  // @ts-ignore: decorator
  @inline get flags(): u32 {
    return this.content & (FLAGS ^ EXTENDED);
  }
  get create(): f64 {
    if (this.extended) return load<f64>(changetype<usize>(this) + offsetof<Rec>());
    return this.mod - f64(this.age);
  }
  get lease(): f64 {
    return this.extended ? load<f64>(changetype<usize>(this) + offsetof<Rec>() + 8) : 0;
  }
  get extended(): bool {
    return (this.content & EXTENDED) != 0;
  }
  get bytes(): f64 {
    return this.extended ? EXTENDED_BYTES : REC_BYTES;
  }
  markUsed(): void {
    this.content |= USED;
  }
  clearUsed(): void {
    this.content &= ~USED;
  }
  /** Once, after it was allocated with room for what does not fit. */
  fill(length: u32, revision: f64, sub: u32, create: f64, lease: f64, flags: u32): void {
    this.id = (u64(revision) << SUB_BITS) | sub;
    this.content = (length << FLAG_BITS) | flags;
    this.age = this.extended ? 0 : u32(revision - create);
    if (!this.extended) return;
    store<f64>(changetype<usize>(this) + offsetof<Rec>(), create);
    store<f64>(changetype<usize>(this) + offsetof<Rec>() + 8, lease);
  }
}

/** Bytes held by keys and records, as asked of the allocator. */
export let heldBytes: f64 = 0;
/** Records that are not the newest of their key, and the lengths of their values, wherever those are. */
export let historyCount: u32 = 0;
export let historyValueBytes: f64 = 0;
export let recordCount: u32 = 0;

// @ts-ignore: decorator
@inline
export function keyData(key: Key): usize {
  return changetype<usize>(key) + offsetof<Key>();
}

export const REC_BYTES: f64 = f64(offsetof<Rec>());
const EXTENDED_BYTES: f64 = f64(offsetof<Rec>() + 16);

export function newKey(bytes: usize, length: u32, hash: u32): Key {
  const key = changetype<Key>(heap.alloc(offsetof<Key>() + length));
  key.hash = hash;
  key.newest = 0;
  key.length = length;
  memory.copy(keyData(key), bytes, length);
  heldBytes += f64(offsetof<Key>() + length);
  return key;
}

export function freeKey(key: Key): void {
  assert(key.newest == 0, "freeing a key that still has records");
  heldBytes -= f64(offsetof<Key>() + key.length);
  heap.free(changetype<usize>(key));
}

export function newRec(
  place: u32, length: u32, revision: f64, sub: u32, create: f64, version: u32, lease: f64, flags: u32,
): Rec {
  assert(revision > 0 && revision < MAX_REVISION && sub <= 0xffff, "a revision is from 1 to 2^47");
  assert(length <= MAX_LENGTH, "a value is too long");
  const age = revision - create;
  const kept = lease != 0 || !(age >= 0 && age <= f64(u32.MAX_VALUE)) ? (flags & ~EXTENDED) | EXTENDED : flags & ~EXTENDED;
  const bytes: u32 = (kept & EXTENDED) != 0 ? u32(EXTENDED_BYTES) : u32(REC_BYTES);
  const rec = changetype<Rec>(heap.alloc(bytes));
  rec.older = 0;
  rec.version = version;
  rec.place = place;
  rec.fill(length, revision, sub, create, lease, kept & FLAGS);
  heldBytes += rec.bytes;
  recordCount++;
  return rec;
}

function freeRec(rec: Rec): void {
  setPlace(rec, NOWHERE);
  heldBytes -= rec.bytes;
  recordCount--;
  heap.free(changetype<usize>(rec));
}

/** The value moves to `place`; the host is told that the old one is free. */
export function setPlace(rec: Rec, place: u32): void {
  if (rec.place != NOWHERE) release(rec.place, rec.length);
  rec.place = place;
}

/** Makes `rec` the newest of `key`. */
export function push(key: Key, rec: Rec): void {
  const older = key.newest;
  if (older != 0) {
    const before = changetype<Rec>(older);
    assert(before.mod < rec.mod || (before.mod == rec.mod && before.sub < rec.sub), "records must come in revision order");
    historyCount++;
    historyValueBytes += f64(before.length);
  }
  rec.older = older;
  key.newest = changetype<usize>(rec);
}

/** Takes the newest record off `key` and frees it. */
export function pop(key: Key): void {
  const rec = changetype<Rec>(key.newest);
  key.newest = rec.older;
  if (rec.older != 0) {
    historyCount--;
    historyValueBytes -= f64(changetype<Rec>(rec.older).length);
  }
  freeRec(rec);
}

/** Frees `rec`, which `newer` pointed to as its older one. */
export function unlink(newer: Rec, rec: Rec): void {
  newer.older = rec.older;
  historyCount--;
  historyValueBytes -= f64(rec.length);
  freeRec(rec);
}

/** The record that was current at `revision`, tombstones included; 0 when there was none. */
export function recAt(key: Key, revision: f64): usize {
  let r = key.newest;
  while (r != 0 && changetype<Rec>(r).mod > revision) r = changetype<Rec>(r).older;
  return r;
}

/** The same, but 0 for a tombstone. */
export function liveAt(key: Key, revision: f64): usize {
  const r = recAt(key, revision);
  return r != 0 && (changetype<Rec>(r).flags & TOMBSTONE) == 0 ? r : 0;
}
