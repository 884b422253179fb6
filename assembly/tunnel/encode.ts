// Writes frames for a socket: remotedialer's messages, each a binary WebSocket message of one frame, and control frames.
// Masked frames are written whole; of frames that are not, the header only, because the host can put a payload behind it
// without a detour through this memory.
import { CONTROL, FRAME_BYTES, FRAMES, IN, OUT, SCRATCH } from "./areas";
import { mask, rotated } from "./mask";

const BINARY: u32 = 2;
const DATA: u32 = 1;
const CONNECT: u32 = 2;
/** Milliseconds; what every sender writes and no receiver heeds. */
const DEADLINE: i64 = 15000;

/** Writes the first `count` of FRAMES to OUT, one behind the other; returns how many bytes there are. Messages are numbered from `id`. */
export function encode(count: u32, isMasked: bool, id: f64): u32 {
  let out = OUT;
  let next = i64(id);
  for (let i: u32 = 0; i < count; i++) {
    const frame = FRAMES + i * FRAME_BYTES;
    const kind = load<u32>(frame, 8);
    const length = load<u32>(frame, 16);
    const start = out;
    let opcode = BINARY;
    let header: u32 = 0;
    if (kind >= CONTROL) {
      opcode = kind & 15;
    } else {
      let p = varint(SCRATCH, next++);
      p = varint(p, i64(load<f64>(frame)));
      p = varint(p, i64(kind));
      if (kind == DATA || kind == CONNECT) p = varint(p, DEADLINE);
      header = u32(p - SCRATCH);
    }
    out = frameHead(out, opcode, u64(header + length), isMasked);
    if (isMasked) {
      const key = load<u32>(frame, 20);
      store<u32>(out, key);
      out += 4;
      mask(out, SCRATCH, header, key);
      out += header;
      mask(out, IN + load<u32>(frame, 12), length, rotated(key, header));
      out += length;
    } else {
      memory.copy(out, SCRATCH, header);
      out += header;
    }
    store<u32>(frame, u32(out - start), 24);
  }
  return u32(out - OUT);
}

function frameHead(p: usize, opcode: u32, length: u64, isMasked: bool): usize {
  const bit: u32 = isMasked ? 0x80 : 0;
  store<u8>(p, 0x80 | opcode);
  if (length < 126) {
    store<u8>(p, bit | u32(length), 1);
    return p + 2;
  }
  if (length < 65536) {
    store<u8>(p, bit | 126, 1);
    store<u16>(p, bswap<u16>(u16(length)), 2);
    return p + 4;
  }
  store<u8>(p, bit | 127, 1);
  store<u64>(p, bswap<u64>(length), 2);
  return p + 10;
}

/** Zigzag, then seven bits at a time, lowest first: encoding/binary.PutVarint. */
function varint(p: usize, number: i64): usize {
  let value = u64((number << 1) ^ (number >> 63));
  while (value >= 0x80) {
    store<u8>(p++, u8(value) | 0x80);
    value >>= 7;
  }
  store<u8>(p++, u8(value));
  return p;
}
