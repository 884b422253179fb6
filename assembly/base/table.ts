// Open-addressing hash table of pointers: linear probing, a power of two of slots, at most 3/4 full, no deletion marks
// (removal shifts the cluster back). Every entry starts with its own 32-bit hash, so that the table can move entries
// without knowing what they are; who looks up compares the entries itself (see `slotOf`).
//
//   Table { slots, mask, count } -> [ptr | 0] x (mask + 1);   *ptr = { hash: u32, ... }
//
// The table owns its slots and never the entries.

@unmanaged
export class Table {
  slots: usize;
  mask: u32;
  count: u32;
}

const MINIMUM_SLOTS: u32 = 64;

export function newTable(): Table {
  const table = changetype<Table>(heap.alloc(offsetof<Table>()));
  table.slots = newSlots(MINIMUM_SLOTS);
  table.mask = MINIMUM_SLOTS - 1;
  table.count = 0;
  return table;
}

/** Bytes the table itself takes. */
export function tableBytes(table: Table): u32 {
  return ((table.mask + 1) << 2) + offsetof<Table>();
}

/** The entry in slot `index` (any u32: it is wrapped), or 0. Probe from the hash upwards until 0. */
// @ts-ignore: decorator
@inline
export function slotOf(table: Table, index: u32): usize {
  return load<u32>(table.slots + ((index & table.mask) << 2));
}

/** The next entry makes the table grow, for which it needs twice its slots in one piece. */
export function tableIsFull(table: Table): bool {
  return (table.count + 1) * 4 > (table.mask + 1) * 3;
}

/** Adds an entry that must not be present. */
export function tableAdd(table: Table, entry: usize): void {
  if (tableIsFull(table)) grow(table);
  place(table.slots, table.mask, entry);
  table.count++;
}

/** Removes an entry that must be present. */
export function tableRemove(table: Table, entry: usize): void {
  const mask = table.mask;
  const slots = table.slots;
  let hole = load<u32>(entry) & mask;
  let probes: u32 = 0;
  while (load<u32>(slots + (hole << 2)) != u32(entry)) {
    assert(probes++ <= mask, "entry to remove is not in its table");
    hole = (hole + 1) & mask;
  }
  // Shift back: an entry may move into the hole when its home slot does not lie between the hole and itself.
  let next = (hole + 1) & mask;
  for (let e = load<u32>(slots + (next << 2)); e != 0; e = load<u32>(slots + (next << 2))) {
    const home = load<u32>(e) & mask;
    if (((next - home) & mask) >= ((next - hole) & mask)) {
      store<u32>(slots + (hole << 2), e);
      hole = next;
    }
    next = (next + 1) & mask;
  }
  store<u32>(slots + (hole << 2), 0);
  table.count--;
}

function newSlots(count: u32): usize {
  const slots = heap.alloc(count << 2);
  memory.fill(slots, 0, count << 2);
  return slots;
}

function place(slots: usize, mask: u32, entry: usize): void {
  let i = load<u32>(entry) & mask;
  while (load<u32>(slots + (i << 2)) != 0) i = (i + 1) & mask;
  store<u32>(slots + (i << 2), entry);
}

function grow(table: Table): void {
  const oldSlots = table.slots;
  const oldCount = table.mask + 1;
  const mask = oldCount * 2 - 1;
  const slots = newSlots(mask + 1);
  for (let i: u32 = 0; i < oldCount; i++) {
    const entry = load<u32>(oldSlots + (i << 2));
    if (entry != 0) place(slots, mask, entry);
  }
  heap.free(oldSlots);
  table.slots = slots;
  table.mask = mask;
}
