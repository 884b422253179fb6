// Keys and their revisions, all unmanaged blocks of the heap, and the account of what they take.
//
//   Key  { hash, newest, length }  + key bytes
//   Rec  { mod, create, lease, older, version, sub, length, flags, place }
//
//   Key.newest -> Rec (newest) -> Rec.older -> ... -> 0          mod falls strictly along the chain
//
// A Key owns its chain. Values are not here: the host keeps them and gives each a place, which it is told of when the
// record goes; a record without a place is cold, its value is read from the log by (mod, sub). So all blocks here are small
// and of few sizes. Revisions are f64: exact up to 2^53 and cheap to pass between host and module.

/** The record says that the key is absent from its revision on. */
export const TOMBSTONE: u32 = 1;
/** The record is a row of the log (or about to be); the others live in memory only. */
export const LOGGED: u32 = 2;
/** Read or written since the host looked last for values that it can do without. */
export const USED: u32 = 4;

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
  mod: f64;
  create: f64;
  lease: f64;
  older: usize;
  version: u32;
  sub: u32;
  length: u32;
  flags: u32;
  place: u32;
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

export function newRec(place: u32, length: u32): Rec {
  const rec = changetype<Rec>(heap.alloc(offsetof<Rec>()));
  rec.mod = 0;
  rec.create = 0;
  rec.lease = 0;
  rec.older = 0;
  rec.version = 0;
  rec.sub = 0;
  rec.length = length;
  rec.flags = 0;
  rec.place = place;
  heldBytes += REC_BYTES;
  recordCount++;
  return rec;
}

function freeRec(rec: Rec): void {
  setPlace(rec, NOWHERE);
  heldBytes -= REC_BYTES;
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
