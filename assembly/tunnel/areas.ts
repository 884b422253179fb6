// The fixed areas through which the host and the codec exchange bytes. Nothing is allocated and memory never grows, so
// the host may keep views of it. What is in an area holds until the next call.

/** A chunk as it came from the socket, or the payloads of frames that are to be sent. */
export const IN: usize = memory.data(65536, 16);
/** Frames, as they go to the socket. */
export const OUT: usize = memory.data(73728, 16);
/** Of one connection; the host puts it here before `decode` and takes it back after. */
export const STATE: usize = memory.data(256, 16);
export const EVENTS: usize = memory.data(12288, 16);
export const FRAMES: usize = memory.data(4096, 16);
/** A message's header while it is made. */
export const SCRATCH: usize = memory.data(64, 16);

// An event, 24 bytes: f64 connection, u32 kind, u32 flags, u32 offset of the bytes, u32 their number.
export const EVENT_BYTES: u32 = 24;
export const MAX_EVENTS: u32 = 512;

// A frame to be sent, 32 bytes: f64 connection, u32 kind, u32 offset in IN, u32 length, u32 mask, u32 bytes written to OUT.
export const FRAME_BYTES: u32 = 32;
export const MAX_FRAMES: u32 = 128;

// Kinds: a message's type as it is, or one of these plus opcode or reason.
export const CONTROL: u32 = 0x1000;
export const FAILURE: u32 = 0x2000;

// Flags of an event.
export const FIRST: u32 = 1;
export const LAST: u32 = 2;
/** The bytes are in STATE, at the offset given, and not in IN. */
export const IN_STATE: u32 = 4;

export function writeEvent(index: u32, connection: f64, kind: u32, flags: u32, offset: u32, length: u32): void {
  const p = EVENTS + index * EVENT_BYTES;
  store<f64>(p, connection);
  store<u32>(p, kind, 8);
  store<u32>(p, flags, 12);
  store<u32>(p, offset, 16);
  store<u32>(p, length, 20);
}
