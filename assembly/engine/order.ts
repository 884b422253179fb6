// B+tree over Key pointers: the order of the key space. Fan-out 32.
//
//   Node { prev, next, count, leaf }  32 x first key  32 x child (inner nodes only)
//
// An inner node keeps, for each child, a pointer to the first Key below that child; so a removed key never lingers as
// a separator. Leaves are linked both ways. A node that falls under a quarter is merged with a neighbour when both
// fit in one; the root shrinks when it has one child. The tree owns its nodes, never the keys.
import { compareBytes } from "../base/bytes";
import { Key, keyData } from "./records";

const FANOUT: u32 = 32;
const LOW: u32 = FANOUT / 4;

@unmanaged
export class Node {
  prev: usize;
  next: usize;
  count: u32;
  leaf: u32;
}

const FIRSTS: usize = offsetof<Node>();
const CHILDREN: usize = FIRSTS + FANOUT * 4;
const LEAF_BYTES: usize = FIRSTS + FANOUT * 4;
const INNER_BYTES: usize = CHILDREN + FANOUT * 4;

let root: usize = 0;
export let nodeBytes: f64 = 0;

export function orderInit(): void {
  root = changetype<usize>(newNode(true));
}

// @ts-ignore: decorator
@inline
export function firstAt(node: usize, i: u32): usize {
  return load<u32>(node + (i << 2), FIRSTS);
}

// @ts-ignore: decorator
@inline
function setFirst(node: usize, i: u32, key: usize): void {
  store<u32>(node + (i << 2), u32(key), FIRSTS);
}

// @ts-ignore: decorator
@inline
function childAt(node: usize, i: u32): usize {
  return load<u32>(node + (i << 2), CHILDREN);
}

// @ts-ignore: decorator
@inline
function setChild(node: usize, i: u32, child: usize): void {
  store<u32>(node + (i << 2), u32(child), CHILDREN);
}

// @ts-ignore: decorator
@inline
function N(node: usize): Node {
  return changetype<Node>(node);
}

function newNode(leaf: bool): Node {
  const bytes = leaf ? LEAF_BYTES : INNER_BYTES;
  const node = changetype<Node>(heap.alloc(bytes));
  memory.fill(changetype<usize>(node), 0, bytes);
  node.leaf = u32(leaf);
  nodeBytes += f64(bytes);
  return node;
}

function freeNode(node: usize): void {
  nodeBytes -= f64(N(node).leaf ? LEAF_BYTES : INNER_BYTES);
  heap.free(node);
}

/** How many of the node's first keys are below `bytes`. */
function countBelow(node: usize, bytes: usize, length: u32): u32 {
  let low: u32 = 0;
  let high = N(node).count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const key = changetype<Key>(firstAt(node, middle));
    if (compareBytes(keyData(key), key.length, bytes, length) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Which child `bytes` belongs to: the last one whose first key is not above it. */
function childFor(node: usize, bytes: usize, length: u32): u32 {
  const below = countBelow(node, bytes, length);
  if (below < N(node).count) {
    const key = changetype<Key>(firstAt(node, below));
    if (compareBytes(keyData(key), key.length, bytes, length) == 0) return below;
  }
  return below == 0 ? 0 : below - 1;
}

// Position of the first key >= what was sought; valid until the tree changes.
export let seekLeaf: usize = 0;
export let seekIndex: u32 = 0;

/** Sets seekLeaf/seekIndex to the first key >= `bytes`; seekLeaf 0 when there is none. */
export function seek(bytes: usize, length: u32): void {
  let node = root;
  while (!N(node).leaf) node = childAt(node, childFor(node, bytes, length));
  seekIndex = countBelow(node, bytes, length);
  seekLeaf = node;
  if (seekIndex == N(node).count) {
    seekLeaf = N(node).next;
    seekIndex = 0;
  }
}

/** Inserts a key that must be absent. */
export function orderInsert(key: Key): void {
  const right = insertInto(root, key);
  if (right == 0) return;
  const top = changetype<usize>(newNode(false));
  N(top).count = 2;
  setFirst(top, 0, firstAt(root, 0));
  setChild(top, 0, root);
  setFirst(top, 1, firstAt(right, 0));
  setChild(top, 1, right);
  root = top;
}

/** Removes a key that must be present. */
export function orderRemove(key: Key): void {
  removeFrom(root, key);
  while (!N(root).leaf && N(root).count == 1) {
    const old = root;
    root = childAt(old, 0);
    freeNode(old);
  }
}

function openGap(node: usize, at: u32): void {
  const from = node + (at << 2);
  const bytes = (N(node).count - at) << 2;
  memory.copy(from + 4 + FIRSTS, from + FIRSTS, bytes);
  if (!N(node).leaf) memory.copy(from + 4 + CHILDREN, from + CHILDREN, bytes);
  N(node).count++;
}

function closeGap(node: usize, at: u32): void {
  const from = node + (at << 2);
  const bytes = (N(node).count - at - 1) << 2;
  memory.copy(from + FIRSTS, from + 4 + FIRSTS, bytes);
  if (!N(node).leaf) memory.copy(from + CHILDREN, from + 4 + CHILDREN, bytes);
  N(node).count--;
}

/** Moves the entries of `from` starting at `at` to the end of `to`. */
function moveTail(from: usize, at: u32, to: usize): void {
  const n = N(from).count - at;
  const target = to + (N(to).count << 2);
  memory.copy(target + FIRSTS, from + (at << 2) + FIRSTS, n << 2);
  if (!N(from).leaf) memory.copy(target + CHILDREN, from + (at << 2) + CHILDREN, n << 2);
  N(to).count += n;
  N(from).count = at;
}

/** Splits a full node and returns the new right half. A node that grows at its end is left nearly full: keys often come in order. */
function split(node: usize, insertAt: u32): usize {
  const right = changetype<usize>(newNode(N(node).leaf != 0));
  moveTail(node, insertAt == FANOUT ? FANOUT - 2 : FANOUT / 2, right);
  if (N(node).leaf) {
    N(right).next = N(node).next;
    N(right).prev = node;
    if (N(right).next != 0) N(N(right).next).prev = right;
    N(node).next = right;
  }
  return right;
}

/** Returns the new right sibling of `node` if it had to be split, else 0. */
function insertInto(node: usize, key: Key): usize {
  const bytes = keyData(key);
  if (N(node).leaf) {
    let at = countBelow(node, bytes, key.length);
    let right: usize = 0;
    let target = node;
    if (N(node).count == FANOUT) {
      right = split(node, at);
      if (at > N(node).count) {
        at -= N(node).count;
        target = right;
      }
    }
    openGap(target, at);
    setFirst(target, at, changetype<usize>(key));
    return right;
  }
  const i = childFor(node, bytes, key.length);
  const child = childAt(node, i);
  const sibling = insertInto(child, key);
  setFirst(node, i, firstAt(child, 0));
  if (sibling == 0) return 0;
  let at = i + 1;
  let right: usize = 0;
  let target = node;
  if (N(node).count == FANOUT) {
    right = split(node, at);
    if (at > N(node).count) {
      at -= N(node).count;
      target = right;
    }
  }
  openGap(target, at);
  setFirst(target, at, firstAt(sibling, 0));
  setChild(target, at, sibling);
  return right;
}

function removeFrom(node: usize, key: Key): void {
  const bytes = keyData(key);
  if (N(node).leaf) {
    const at = countBelow(node, bytes, key.length);
    assert(at < N(node).count && firstAt(node, at) == changetype<usize>(key), "key to remove is not in the order");
    closeGap(node, at);
    return;
  }
  const i = childFor(node, bytes, key.length);
  const child = childAt(node, i);
  removeFrom(child, key);
  if (N(child).count == 0) {
    unlinkLeaf(child);
    freeNode(child);
    closeGap(node, i);
    return;
  }
  setFirst(node, i, firstAt(child, 0));
  if (N(child).count >= LOW) return;
  if (i + 1 < N(node).count) mergeIfFits(node, i);
  else if (i > 0) mergeIfFits(node, i - 1);
}

/** Merges child i + 1 of `node` into child i when both fit into one. */
function mergeIfFits(node: usize, i: u32): void {
  const left = childAt(node, i);
  const right = childAt(node, i + 1);
  // Not filled to the brim, or the next insertion would split it again.
  if (N(left).count + N(right).count > FANOUT - LOW) return;
  moveTail(right, 0, left);
  unlinkLeaf(right);
  freeNode(right);
  closeGap(node, i + 1);
}

function unlinkLeaf(node: usize): void {
  if (!N(node).leaf) return;
  if (N(node).prev != 0) N(N(node).prev).next = N(node).next;
  if (N(node).next != 0) N(N(node).next).prev = N(node).prev;
}

// What a check of the tree found: keys seen, and the leaf seen last.
let checkedKeys: u32 = 0;
let checkedLeaf: usize = 0;

/** Number of keys, or -1 when an invariant of the tree is broken. */
export function orderCheck(): i32 {
  checkedKeys = 0;
  checkedLeaf = 0;
  if (depthOf(root, true) < 0) return -1;
  if (checkedLeaf != 0 && N(checkedLeaf).next != 0) return -1;
  return i32(checkedKeys);
}

function depthOf(node: usize, isRoot: bool): i32 {
  const n = N(node);
  if (n.count > FANOUT || (n.count == 0 && !isRoot)) return -1;
  for (let i: u32 = 1; i < n.count; i++) {
    const a = changetype<Key>(firstAt(node, i - 1));
    const b = changetype<Key>(firstAt(node, i));
    if (compareBytes(keyData(a), a.length, keyData(b), b.length) >= 0) return -1;
  }
  if (n.leaf) {
    if (n.prev != checkedLeaf || (checkedLeaf != 0 && N(checkedLeaf).next != node)) return -1;
    checkedLeaf = node;
    checkedKeys += n.count;
    return 1;
  }
  let depth: i32 = 0;
  for (let i: u32 = 0; i < n.count; i++) {
    const child = childAt(node, i);
    if (N(child).count == 0 || firstAt(child, 0) != firstAt(node, i)) return -1;
    const d = depthOf(child, false);
    if (d < 0 || (i > 0 && d != depth)) return -1;
    depth = d;
  }
  return depth + 1;
}
