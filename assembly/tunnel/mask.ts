// WebSocket masking: bytes combined with four key bytes over and over. Sixteen bytes at a time where the CPU has SIMD,
// eight where it has not. `key` holds the first key byte lowest; `rotated` turns it for bytes that are not the first.

export function rotated(key: u32, by: u32): u32 {
  return rotr<u32>(key, (by & 3) << 3);
}

/** to := from masked; the same place or places that do not overlap. */
export function mask(to: usize, from: usize, length: u32, key: u32): void {
  const wide = (u64(key) << 32) | u64(key);
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const k = i64x2.splat(i64(wide));
    for (; i + 64 <= length; i += 64) {
      v128.store(to + i, v128.xor(v128.load(from + i), k));
      v128.store(to + i, v128.xor(v128.load(from + i, 16), k), 16);
      v128.store(to + i, v128.xor(v128.load(from + i, 32), k), 32);
      v128.store(to + i, v128.xor(v128.load(from + i, 48), k), 48);
    }
    for (; i + 16 <= length; i += 16) v128.store(to + i, v128.xor(v128.load(from + i), k));
  } else {
    for (; i + 32 <= length; i += 32) {
      store<u64>(to + i, load<u64>(from + i) ^ wide);
      store<u64>(to + i, load<u64>(from + i, 8) ^ wide, 8);
      store<u64>(to + i, load<u64>(from + i, 16) ^ wide, 16);
      store<u64>(to + i, load<u64>(from + i, 24) ^ wide, 24);
    }
  }
  for (; i + 8 <= length; i += 8) store<u64>(to + i, load<u64>(from + i) ^ wide);
  for (; i < length; i++) store<u8>(to + i, load<u8>(from + i) ^ u8(key >>> ((i & 3) << 3)));
}
