// The watch index: which watched ranges does a key fall into? Kubernetes watches single keys and prefixes that end in
// '/', so those are found by one hash lookup per '/' of the key; anything else stands in a list that is walked.
//
//   Watched { hash, id, kind, length, endLength } + start bytes + end bytes (LISTED only)
import { compareBytes, equalBytes, hashBytes } from "../base/bytes";
import { newTable, slotOf, Table, tableAdd, tableBytes, tableRemove } from "../base/table";
import { OUT, OUT_BYTES } from "./areas";

export const EXACT: u32 = 0;
export const PREFIX: u32 = 1;
export const LISTED: u32 = 2;

/** Keeps the list walk, and with it the cost of each write, small. */
const MAX_LISTED: u32 = 1024;
const SLASH: u8 = 47;

@unmanaged
class Watched {
  hash: u32;
  id: u32;
  kind: u32;
  length: u32;
  endLength: u32;
}

let hashed: Table = changetype<Table>(0);
let listed: usize = 0;
let listedCount: u32 = 0;
let seed: u32 = 0;

export function watchesInit(hashSeed: u32): void {
  seed = hashSeed;
  hashed = newTable();
  listed = heap.alloc(MAX_LISTED << 2);
  listedCount = 0;
}

export function watchesBytes(): u32 {
  return tableBytes(hashed) + (MAX_LISTED << 2);
}

/** False when the list of other ranges is full. The range must not be present. */
export function watchesAdd(id: u32, kind: u32, start: usize, length: u32, end: usize, endLength: u32): bool {
  if (kind == LISTED && listedCount == MAX_LISTED) return false;
  const w = changetype<Watched>(heap.alloc(offsetof<Watched>() + length + endLength));
  w.hash = hashBytes(start, length, seed + kind);
  w.id = id;
  w.kind = kind;
  w.length = length;
  w.endLength = endLength;
  memory.copy(startOf(w), start, length);
  memory.copy(startOf(w) + length, end, endLength);
  if (kind == LISTED) store<u32>(listed + (listedCount++ << 2), u32(changetype<usize>(w)));
  else tableAdd(hashed, changetype<usize>(w));
  return true;
}

export function watchesRemove(id: u32, kind: u32, start: usize, length: u32): void {
  if (kind != LISTED) {
    const w = find(kind, start, length);
    assert(w != 0 && changetype<Watched>(w).id == id, "removing a watch that is not there");
    tableRemove(hashed, w);
    heap.free(w);
    return;
  }
  for (let i: u32 = 0; i < listedCount; i++) {
    const w = load<u32>(listed + (i << 2));
    if (changetype<Watched>(w).id != id) continue;
    listedCount--;
    store<u32>(listed + (i << 2), load<u32>(listed + (listedCount << 2)));
    heap.free(w);
    return;
  }
  assert(false, "removing a listed watch that is not there");
}

/** Writes the ids of all ranges that hold the key to OUT (u32 each) and returns how many. */
export function watchesMatch(key: usize, length: u32): u32 {
  let n: u32 = 0;
  for (let i: u32 = 0; i < length; i++) {
    if (load<u8>(key + i) == SLASH) n = emit(n, find(PREFIX, key, i + 1));
  }
  n = emit(n, find(EXACT, key, length));
  for (let i: u32 = 0; i < listedCount; i++) {
    const w = changetype<Watched>(load<u32>(listed + (i << 2)));
    if (compareBytes(key, length, startOf(w), w.length) < 0) continue;
    if (w.endLength != 0 && compareBytes(key, length, startOf(w) + w.length, w.endLength) >= 0) continue;
    n = emit(n, changetype<usize>(w));
  }
  return n;
}

function emit(n: u32, w: usize): u32 {
  if (w == 0) return n;
  // At most one per byte of the key, one exact and MAX_LISTED: that is less than OUT holds.
  assert(n < OUT_BYTES / 4, "too many matches");
  store<u32>(OUT + (n << 2), changetype<Watched>(w).id);
  return n + 1;
}

function startOf(w: Watched): usize {
  return changetype<usize>(w) + offsetof<Watched>();
}

function find(kind: u32, start: usize, length: u32): usize {
  if (hashed.count == 0) return 0;
  const hash = hashBytes(start, length, seed + kind);
  let i = hash;
  let entry = slotOf(hashed, i);
  while (entry != 0) {
    const w = changetype<Watched>(entry);
    if (w.hash == hash && w.kind == kind && w.length == length && equalBytes(startOf(w), start, length)) return entry;
    entry = slotOf(hashed, ++i);
  }
  return 0;
}
