// The codec of the tunnel between servers and nodes: whole socket chunks in, events out; frames in, bytes out. One call
// per chunk and per batch of frames. Built twice, with and without SIMD.
// Exports below are the whole surface; src/supervisor/tunnel/codec.ts is the only caller.
import { EVENTS, FRAMES, IN, OUT, STATE } from "./areas";

export { decode } from "./decode";
export { encode } from "./encode";

/** 0: IN, 1: OUT, 2: STATE, 3: EVENTS, 4: FRAMES. */
export function area(which: u32): usize {
  return which == 0 ? IN : which == 1 ? OUT : which == 2 ? STATE : which == 3 ? EVENTS : FRAMES;
}
