// The two fixed areas through which the host and the engine exchange bytes. The host writes up to two keys into IN
// (the second at IN + KEY_AREA, where an end may have one byte more) and calls with their lengths; the engine fills OUT with items or ids. Both hold only
// until the next call.
import { Key, keyData, Rec } from "./records";

export const KEY_AREA: u32 = 4096;
export const OUT_BYTES: u32 = 65536;

export const IN: usize = memory.data(8208, 16);
export const OUT: usize = memory.data(65536, 16);

// An item, 64 bytes:
//   f64 mod, f64 create, f64 lease,
//   u32 version, u32 sub, u32 flags, u32 key address, u32 key length, u32 value's place, u32 value length,
//   u32 record address, u32 older record address (0: none), u32 unused
export const ITEM_BYTES: u32 = 64;
export const ITEMS: u32 = OUT_BYTES / ITEM_BYTES;

export function writeItem(index: u32, key: Key, rec: Rec): void {
  const p = OUT + index * ITEM_BYTES;
  store<f64>(p, rec.mod);
  store<f64>(p, rec.create, 8);
  store<f64>(p, rec.lease, 16);
  store<u32>(p, rec.version, 24);
  store<u32>(p, rec.sub, 28);
  store<u32>(p, rec.flags, 32);
  store<u32>(p, u32(keyData(key)), 36);
  store<u32>(p, key.length, 40);
  store<u32>(p, rec.place, 44);
  store<u32>(p, rec.length, 48);
  store<u32>(p, u32(changetype<usize>(rec)), 52);
  store<u32>(p, u32(rec.older), 56);
}
