// Byte strings in linear memory: order and hash. Nothing here allocates or keeps a pointer.

/** <0, 0, >0 as memcmp over the common part, then by length: the order of etcd's key space. */
export function compareBytes(a: usize, aLength: u32, b: usize, bLength: u32): i32 {
  const order = memory.compare(a, b, min<u32>(aLength, bLength));
  if (order != 0) return order;
  return aLength < bLength ? -1 : i32(aLength > bLength);
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
