// The index of the datastore: keys, their revisions, where the values are, and the watched ranges, in linear memory. It
// is what etcd calls mvcc index. It knows nothing of durability: the host puts a write here first, shows it
// only when the log has it (reads name a revision), and takes it back with `rollback` when the log fails.
//
// Calls pass numbers only; bytes go through IN and OUT (areas.ts). Nothing managed is ever created, so no collector
// runs; asserts stay on in release, a failed one ends the module's use (the host rebuilds from the log).
// Exports below are the whole surface; src/datastore/engine/engine.ts is the only caller.
import { compareBytes, equalBytes, hashBytes } from "../base/bytes";
import { newTable, slotOf, Table, tableAdd, tableBytes, tableIsFull, tableRemove } from "../base/table";
import { IN, ITEMS, KEY_AREA, OUT, writeItem } from "./areas";
import { firstAt, Node, nodeBytes, orderCheck, orderInit, orderInsert, orderRemove, seek, seekIndex, seekLeaf } from "./order";
import {
  freeKey, heldBytes, historyCount, historyValueBytes, Key, keyData, liveAt, LOGGED, newKey, newRec, NOWHERE, pop, push, Rec,
  REC_BYTES, recAt, recordCount, setPlace, TOMBSTONE, unlink, USED,
} from "./records";
import { watchesAdd, watchesBytes, watchesInit, watchesMatch, watchesRemove } from "./watches";

let keys: Table = changetype<Table>(0);
let seed: u32 = 0;

// ---- set-up and areas ----

/** Once, before anything else. */
export function init(hashSeed: u32): void {
  assert(seed == 0 && changetype<usize>(keys) == 0, "init is called once");
  seed = hashSeed;
  keys = newTable();
  orderInit();
  watchesInit(hashSeed);
}

export function inputAddress(): usize {
  return IN;
}

export function outputAddress(): usize {
  return OUT;
}

// ---- writing ----

/** A new record makes the value at `place` that of the key in IN from `revision` on; returns it. `flags`: LOGGED or 0. */
export function put(keyLength: u32, place: u32, length: u32, revision: f64, sub: u32, lease: f64, flags: u32): usize {
  const key = keyFor(keyLength);
  const before = liveAt(key, Infinity);
  const create = before != 0 ? changetype<Rec>(before).create : revision;
  const version: u32 = before != 0 ? changetype<Rec>(before).version + 1 : 1;
  const rec = newRec(place, length, revision, sub, create, version, lease, flags | USED);
  push(key, rec);
  return changetype<usize>(rec);
}

/** The same with a record as the log has it. Records of one key come in revision order. */
export function loadRecord(
  keyLength: u32, place: u32, length: u32, revision: f64, sub: u32, create: f64, version: u32, lease: f64, flags: u32,
): usize {
  const key = keyFor(keyLength);
  const rec = newRec(place, length, revision, sub, create, version, lease, flags);
  push(key, rec);
  return changetype<usize>(rec);
}

/** Deletes the key in IN from `revision` on; it must exist. LOGGED is added when the log knows the key; returns the flags. */
export function remove(keyLength: u32, revision: f64, sub: u32): u32 {
  const found = findKey(IN, keyLength);
  assert(found != 0 && liveAt(changetype<Key>(found), Infinity) != 0, "deleting a key that is not there");
  const key = changetype<Key>(found);
  let flags = TOMBSTONE;
  for (let r = key.newest; r != 0 && (flags & LOGGED) == 0; r = changetype<Rec>(r).older) flags |= changetype<Rec>(r).flags & LOGGED;
  push(key, newRec(NOWHERE, 0, revision, sub, revision, 0, 0, flags));
  return flags;
}

/** Forgets every record above `revision`. */
export function rollback(revision: f64): void {
  const doomed = newVector();
  seek(IN, 0);
  for (let leaf = seekLeaf; leaf != 0; leaf = changetype<Node>(leaf).next) {
    for (let i: u32 = 0; i < changetype<Node>(leaf).count; i++) {
      const key = changetype<Key>(firstAt(leaf, i));
      while (key.newest != 0 && changetype<Rec>(key.newest).mod > revision) pop(key);
      if (key.newest == 0) vectorPush(doomed, changetype<usize>(key));
    }
  }
  for (let i: u32 = 0; i < doomed.count; i++) removeKey(changetype<Key>(load<u32>(doomed.data + (i << 2))));
  vectorFree(doomed);
}

// ---- reading ----

/** Item 0 := the record of the key in IN that is current at `revision`; false when the key is absent then. */
export function get(keyLength: u32, revision: f64): bool {
  const key = findKey(IN, keyLength);
  if (key == 0) return false;
  const r = liveAt(changetype<Key>(key), revision);
  if (r == 0) return false;
  changetype<Rec>(r).markUsed();
  writeItem(0, changetype<Key>(key), changetype<Rec>(r));
  return true;
}

/** Item 0 := the given record, with `key` of the item it came with. */
export function describe(record: usize, keyAddress: usize): void {
  writeItem(0, changetype<Key>(keyAddress - offsetof<Key>()), changetype<Rec>(record));
}

// One scan at a time, and none outlives the host's call that opened it: the tree does not change meanwhile.
let scanLeaf: usize = 0;
let scanIndex: u32 = 0;
// Where the scan stops; leaf 0: at the end of all keys.
let scanEndLeaf: usize = 0;
let scanEndIndex: u32 = 0;
let scanFrom: f64 = 0;
let scanTo: f64 = 0;
let scanLeft: u32 = 0;
let scanRec: usize = 0;

/**
 * Opens a scan of the range [key in IN, second key in IN), without end when `endLength` is 0, at `revision`, of at
 * most `limit` keys (0: all). Read it with rangeNext.
 */
export function rangeOpen(startLength: u32, endLength: u32, revision: f64, limit: u32): void {
  openScan(startLength, endLength);
  scanTo = revision;
  scanLeft = limit == 0 ? u32.MAX_VALUE : limit;
}

/** Fills OUT with the next items, at most `most`, and returns how many; 0: no more. */
export function rangeNext(most: u32): u32 {
  const room = min(most, ITEMS);
  let n: u32 = 0;
  while (n < room && scanLeft > 0) {
    const key = scanKey();
    if (key == 0) break;
    const r = liveAt(changetype<Key>(key), scanTo);
    if (r != 0) {
      writeItem(n++, changetype<Key>(key), changetype<Rec>(r));
      scanLeft--;
    }
    scanIndex++;
  }
  return n;
}

/** Keys that rangeNext has not returned, whatever the limit. */
export function rangeRest(): u32 {
  let n: u32 = 0;
  for (let key = scanKey(); key != 0; key = scanKey()) {
    if (liveAt(changetype<Key>(key), scanTo) != 0) n++;
    scanIndex++;
  }
  return n;
}

/** Opens a scan of every record, tombstones too, of the range with `from` <= revision <= `to`. Read with historyNext. */
export function historyOpen(startLength: u32, endLength: u32, from: f64, to: f64): void {
  openScan(startLength, endLength);
  scanFrom = from;
  scanTo = to;
  scanRec = 0;
}

/** Fills OUT with the next items, ordered by key and then newest first; returns how many; 0: no more. */
export function historyNext(): u32 {
  let n: u32 = 0;
  while (n < ITEMS) {
    const key = scanKey();
    if (key == 0) break;
    if (scanRec == 0) scanRec = recAt(changetype<Key>(key), scanTo);
    while (scanRec != 0 && n < ITEMS) {
      const rec = changetype<Rec>(scanRec);
      if (rec.mod < scanFrom) {
        scanRec = 0;
        break;
      }
      writeItem(n++, changetype<Key>(key), rec);
      scanRec = rec.older;
    }
    if (scanRec != 0) break;
    scanIndex++;
  }
  return n;
}

// ---- where values are ----

/** The value of a record has moved, or goes cold (NOWHERE). */
export function place(record: usize, where: u32): void {
  setPlace(changetype<Rec>(record), where);
}

/** Whether the value of a record may go cold: 0 not, 1 it was used since this was asked last, 2 it may. */
export function coldness(record: usize, durable: f64): u32 {
  const rec = changetype<Rec>(record);
  if ((rec.flags & LOGGED) == 0 || rec.mod > durable) return 0;
  const used = (rec.flags & USED) != 0;
  rec.clearUsed();
  return used ? 1 : 2;
}

/** Superseded values of one key that may be warm: a key that is written without end is not searched without end. */
const MAX_WARM_VERSIONS: u32 = 64;

/** `record`, which the log has, was superseded: the value so many versions before it goes cold. */
export function coolBehind(record: usize): void {
  let r = record;
  for (let n: u32 = 0; r != 0 && n < MAX_WARM_VERSIONS; n++) r = changetype<Rec>(r).older;
  if (r != 0 && (changetype<Rec>(r).flags & LOGGED) != 0) setPlace(changetype<Rec>(r), NOWHERE);
}

/**
 * Lets the value that the key in IN got at `revision` (0: the one before its newest) go cold, if it is superseded and in the
 * log, which has everything up to `durable`.
 */
export function cool(keyLength: u32, revision: f64, durable: f64): void {
  const found = findKey(IN, keyLength);
  if (found == 0) return;
  let r = changetype<Rec>(changetype<Key>(found).newest).older;
  let newer: u32 = 0;
  while (revision != 0 && r != 0 && changetype<Rec>(r).mod > revision) {
    // Behind so many that the log has, it is cold already.
    if (changetype<Rec>(r).mod <= durable && ++newer > MAX_WARM_VERSIONS) return;
    r = changetype<Rec>(r).older;
  }
  if (r == 0 || (revision != 0 && changetype<Rec>(r).mod != revision)) return;
  if ((changetype<Rec>(r).flags & LOGGED) != 0) setPlace(changetype<Rec>(r), NOWHERE);
}

// Room for what must be in one piece when it is needed and cannot be done without: the next size of the key table.
let spare: usize = 0;
let spareBytes: u32 = 0;
const MIN_SPARE: u32 = 32768;

/** Whether the spare room is set aside. */
export function spareHeld(): bool {
  return spareBytes >= wantedSpare();
}

/** Sets it aside, or traps when memory is too full or too scattered; then the module is as it was, without it. */
export function holdSpare(): void {
  releaseSpare();
  const bytes = wantedSpare();
  spare = heap.alloc(bytes);
  spareBytes = bytes;
}

function wantedSpare(): u32 {
  return max(tableBytes(keys) * 2, MIN_SPARE);
}

function releaseSpare(): void {
  if (spare != 0) heap.free(spare);
  spare = 0;
  spareBytes = 0;
}

// ---- compaction ----

@unmanaged
class Vector {
  data: usize;
  count: u32;
  capacity: u32;
}

let compactRevision: f64 = 0;
let compactKey: usize = 0;
let compactKeyLength: u32 = 0;
let compactActive: bool = false;
let freed: Vector = changetype<Vector>(0);

/** Starts to drop what is superseded at or below `revision`; compactNext does the work in slices. */
export function compactOpen(revision: f64): void {
  compactRevision = revision;
  compactKeyLength = 0;
  compactActive = true;
  if (compactKey == 0) compactKey = heap.alloc(KEY_AREA);
  if (changetype<usize>(freed) == 0) freed = newVector();
}

/**
 * Works through the next `maxKeys` keys. Returns how many records that the log has were freed: at freedAddress() as
 * pairs of f64 (revision, sub). A key's superseded records and its tombstone are always in the same slice.
 */
export function compactNext(maxKeys: u32): u32 {
  assert(compactActive, "no compaction is open");
  freed.count = 0;
  const doomed = newVector();
  seek(compactKey, compactKeyLength);
  let leaf = seekLeaf;
  let index = seekIndex;
  let left = maxKeys;
  while (leaf != 0 && left > 0) {
    const key = changetype<Key>(firstAt(leaf, index));
    compactChain(key);
    left--;
    if (key.newest == 0) vectorPush(doomed, changetype<usize>(key));
    index++;
    if (index == changetype<Node>(leaf).count) {
      leaf = changetype<Node>(leaf).next;
      index = 0;
    }
  }
  if (leaf == 0) {
    compactActive = false;
  } else {
    // A copy: until the next slice the key itself may go away.
    const next = changetype<Key>(firstAt(leaf, index));
    memory.copy(compactKey, keyData(next), next.length);
    compactKeyLength = next.length;
  }
  for (let i: u32 = 0; i < doomed.count; i++) removeKey(changetype<Key>(load<u32>(doomed.data + (i << 2))));
  vectorFree(doomed);
  return freed.count / 4;
}

export function compactPending(): bool {
  return compactActive;
}

export function freedAddress(): usize {
  return freed.data;
}

// ---- watches ----

/** Adds the range in IN under `id`. `kind`: 0 one key, 1 prefix ending in '/', 2 any other. False: too many of kind 2. */
export function watchAdd(id: u32, kind: u32, startLength: u32, endLength: u32): bool {
  return watchesAdd(id, kind, IN, startLength, IN + KEY_AREA, endLength);
}

export function watchRemove(id: u32, kind: u32, startLength: u32): void {
  watchesRemove(id, kind, IN, startLength);
}

/** OUT := ids (u32) of the watched ranges that hold the key in IN; returns how many. */
export function match(keyLength: u32): u32 {
  return watchesMatch(IN, keyLength);
}

// ---- accounts and checks ----

export function keyCount(): u32 {
  return keys.count;
}

export function recordsHeld(): u32 {
  return recordCount;
}

/** Everything the engine holds of the heap. */
export function bytesHeld(): f64 {
  return heldBytes + nodeBytes + f64(tableBytes(keys) + watchesBytes() + spareBytes);
}

/** The part that compaction could free at most. */
export function bytesOfHistory(): f64 {
  return f64(historyCount) * REC_BYTES;
}

/** Values that compaction could free at most, wherever they are. */
export function valueBytesOfHistory(): f64 {
  return historyValueBytes;
}

/** 0 when all invariants hold, else the number of the broken one. */
export function verify(): u32 {
  const ordered = orderCheck();
  if (ordered < 0) return 1;
  if (u32(ordered) != keys.count) return 2;
  let records: u32 = 0;
  let bytes: f64 = 0;
  let history: u32 = 0;
  let historyValues: f64 = 0;
  seek(IN, 0);
  for (let leaf = seekLeaf; leaf != 0; leaf = changetype<Node>(leaf).next) {
    for (let i: u32 = 0; i < changetype<Node>(leaf).count; i++) {
      const key = changetype<Key>(firstAt(leaf, i));
      if (findKey(keyData(key), key.length) != changetype<usize>(key)) return 3;
      if (key.newest == 0) return 4;
      bytes += f64(offsetof<Key>() + key.length);
      for (let r = key.newest; r != 0; r = changetype<Rec>(r).older) {
        const rec = changetype<Rec>(r);
        records++;
        bytes += rec.bytes;
        if (r != key.newest) {
          history++;
          historyValues += f64(rec.length);
        }
        if (rec.place == NOWHERE && rec.length > 0 && (rec.flags & LOGGED) == 0) return 10;
        if (rec.older != 0 && changetype<Rec>(rec.older).mod > rec.mod) return 5;
        if ((rec.flags & TOMBSTONE) == 0 && (rec.version == 0 || rec.create > rec.mod)) return 6;
      }
    }
  }
  if (records != recordCount) return 7;
  if (bytes != heldBytes) return 8;
  if (history != historyCount || historyValues != historyValueBytes) return 9;
  return 0;
}

// ---- helpers ----

function findKey(bytes: usize, length: u32): usize {
  const hash = hashBytes(bytes, length, seed);
  let i = hash;
  let entry = slotOf(keys, i);
  while (entry != 0) {
    const key = changetype<Key>(entry);
    if (key.hash == hash && key.length == length && equalBytes(keyData(key), bytes, length)) return entry;
    entry = slotOf(keys, ++i);
  }
  return 0;
}

function keyFor(length: u32): Key {
  assert(length > 0 && length <= KEY_AREA, "key length out of bounds");
  const found = findKey(IN, length);
  if (found != 0) return changetype<Key>(found);
  const key = newKey(IN, length, hashBytes(IN, length, seed));
  if (tableIsFull(keys)) releaseSpare();
  tableAdd(keys, changetype<usize>(key));
  orderInsert(key);
  return key;
}

function removeKey(key: Key): void {
  tableRemove(keys, changetype<usize>(key));
  orderRemove(key);
  freeKey(key);
}

function openScan(startLength: u32, endLength: u32): void {
  scanEndLeaf = 0;
  scanEndIndex = 0;
  if (endLength != 0) {
    seek(IN + KEY_AREA, endLength);
    scanEndLeaf = seekLeaf;
    scanEndIndex = seekIndex;
  }
  seek(IN, startLength);
  scanLeaf = seekLeaf;
  scanIndex = seekIndex;
  // A range that ends before it begins would never meet its end.
  if (endLength != 0 && compareBytes(IN, startLength, IN + KEY_AREA, endLength) >= 0) scanLeaf = 0;
}

/** The key the scan stands on, or 0 at its end. */
function scanKey(): usize {
  if (scanLeaf == 0) return 0;
  if (scanIndex == changetype<Node>(scanLeaf).count) {
    scanLeaf = changetype<Node>(scanLeaf).next;
    scanIndex = 0;
  }
  if (scanLeaf == scanEndLeaf && scanIndex == scanEndIndex) scanLeaf = 0;
  return scanLeaf == 0 ? 0 : firstAt(scanLeaf, scanIndex);
}

/**
 * Keeps the newest record at or below the compact revision, unless it is a tombstone, and all above it. Where that
 * record is in memory only, the newest one that the log has stays too: it is what a crash falls back to.
 */
function compactChain(key: Key): void {
  let newer: usize = 0;
  let r = key.newest;
  while (r != 0 && changetype<Rec>(r).mod > compactRevision) {
    newer = r;
    r = changetype<Rec>(r).older;
  }
  let keptNewest = false;
  let keptLogged = false;
  while (r != 0) {
    const rec = changetype<Rec>(r);
    const next = rec.older;
    const logged = (rec.flags & LOGGED) != 0;
    let keep = !keptNewest || (logged && !keptLogged);
    // Also a tombstone ends the life of all below it.
    if ((rec.flags & TOMBSTONE) != 0) keep = false;
    keptNewest = true;
    keptLogged = keptLogged || logged;
    if (keep) {
      newer = r;
    } else {
      if (logged) freedPush(rec);
      if (newer == 0) pop(key);
      else unlink(changetype<Rec>(newer), rec);
    }
    r = next;
  }
}

function freedPush(rec: Rec): void {
  vectorRoom(freed, 4);
  const p = freed.data + (freed.count << 2);
  store<f64>(p, rec.mod);
  store<f64>(p, f64(rec.sub), 8);
  freed.count += 4;
}

function newVector(): Vector {
  const v = changetype<Vector>(heap.alloc(offsetof<Vector>()));
  v.capacity = 64;
  v.data = heap.alloc(v.capacity << 2);
  v.count = 0;
  return v;
}

function vectorRoom(v: Vector, more: u32): void {
  if (v.count + more <= v.capacity) return;
  const data = heap.alloc(v.capacity << 3);
  memory.copy(data, v.data, v.count << 2);
  heap.free(v.data);
  v.data = data;
  v.capacity <<= 1;
}

function vectorPush(v: Vector, value: usize): void {
  vectorRoom(v, 1);
  store<u32>(v.data + (v.count++ << 2), u32(value));
}

function vectorFree(v: Vector): void {
  heap.free(v.data);
  heap.free(changetype<usize>(v));
}
