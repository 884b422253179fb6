// Byte strings in linear memory: order and hash. Nothing here allocates or keeps a pointer.

/**
 * <0, 0, >0 as memcmp over the common part, then by length: the order of etcd's key space. Eight bytes at a time
 * whatever the alignment: keys share long beginnings, and memory.compare goes byte by byte when alignments differ.
 */
export function compareBytes(a: usize, aLength: u32, b: usize, bLength: u32): i32 {
  const common = min<u32>(aLength, bLength);
  let i: u32 = 0;
  for (; i + 8 <= common; i += 8) {
    const x = load<u64>(a + i);
    const y = load<u64>(b + i);
    if (x == y) continue;
    // Little endian: the lowest differing byte is the first.
    const shift = ctz<u64>(x ^ y) & ~7;
    return i32((x >> shift) & 0xff) - i32((y >> shift) & 0xff);
  }
  for (; i < common; i++) {
    const order = i32(load<u8>(a + i)) - i32(load<u8>(b + i));
    if (order != 0) return order;
  }
  return aLength < bLength ? -1 : i32(aLength > bLength);
}

export function equalBytes(a: usize, b: usize, length: u32): bool {
  let i: u32 = 0;
  for (; i + 8 <= length; i += 8) if (load<u64>(a + i) != load<u64>(b + i)) return false;
  for (; i < length; i++) if (load<u8>(a + i) != load<u8>(b + i)) return false;
  return true;
}

/** MurmurHash3, 32 bit. The seed keeps clients from choosing names that all collide. */
export function hashBytes(start: usize, length: u32, seed: u32): u32 {
  let h = seed;
  let p = start;
  const end4 = start + (length & ~3);
  while (p < end4) {
    let k = load<u32>(p) * 0xcc9e2d51;
    k = rotl<u32>(k, 15) * 0x1b873593;
    h = rotl<u32>(h ^ k, 13) * 5 + 0xe6546b64;
    p += 4;
  }
  const rest = length & 3;
  if (rest != 0) {
    let k: u32 = load<u8>(p);
    if (rest > 1) k |= u32(load<u8>(p + 1)) << 8;
    if (rest > 2) k |= u32(load<u8>(p + 2)) << 16;
    h ^= rotl<u32>(k * 0xcc9e2d51, 15) * 0x1b873593;
  }
  h ^= length;
  h = (h ^ (h >>> 16)) * 0x85ebca6b;
  h = (h ^ (h >>> 13)) * 0xc2b2ae35;
  return h ^ (h >>> 16);
}
