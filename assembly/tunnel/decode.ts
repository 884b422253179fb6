// Reads a chunk of a socket: WebSocket frames (RFC 6455) and in them remotedialer's messages. Payload is not gathered:
// each piece becomes an event as it comes, unmasked in place, so that a message of any size needs no memory. Only what is
// needed to go on with the next chunk is kept, in State, and that is of fixed size.
import {
  CONTROL, FAILURE, FIRST, IN, IN_STATE, LAST, MAX_EVENTS, STATE, writeEvent,
} from "./areas";
import { mask, rotated } from "./mask";

/** What a peer did wrong; named once more in src/supervisor/tunnel/codec.ts. */
const RESERVED_BITS: u32 = 1;
const UNKNOWN_OPCODE: u32 = 2;
const BAD_CONTROL: u32 = 3;
const WRONG_MASK: u32 = 4;
const WRONG_ORDER: u32 = 5;
const NOT_BINARY: u32 = 6;
const TOO_LONG: u32 = 7;
const BAD_NUMBER: u32 = 8;
const CUT_SHORT: u32 = 9;

const TEXT: u32 = 1;
const BINARY: u32 = 2;
const CLOSE: u32 = 8;
const PONG: u32 = 10;

const HEAD_AT: usize = 112;
const CONTROL_AT: u32 = 128;
const MAX_CONTROL: u32 = 125;
const MAX_EXACT: i64 = 9007199254740991;
/** The steps of a message's header: id, connection, type, deadline; then its payload. */
const CONNECTION: u32 = 1;
const TYPE: u32 = 2;
const DEADLINE: u32 = 3;
const PAYLOAD: u32 = 4;
const DATA: u32 = 1;
const CONNECT: u32 = 2;
/** For types that no number of ours can hold: nobody knows them, so they are ignored like all unknown ones. */
const NO_TYPE: u32 = 0;

@unmanaged
class State {
  /** Bytes of the connection that were read, and where the frame begins that is not over. */
  total: f64;
  frameStart: f64;
  connection: f64;
  value: u64;
  frameLeft: u64;
  key: u32;
  keyAt: u32;
  headHave: u32;
  headNeed: u32;
  inPayload: u32;
  isFinal: u32;
  opcode: u32;
  isMasked: u32;
  inMessage: u32;
  step: u32;
  shift: u32;
  type: u32;
  isTold: u32;
  controlHave: u32;
  consumed: u32;
  hasFailed: u32;
}

const s = changetype<State>(STATE);
let events: u32 = 0;
let mustStop: bool = false;

/** Reads IN from `from` to `length`; returns how many events there are. State.consumed says how far it came. */
export function decode(from: u32, length: u32, wantsMask: bool): u32 {
  events = 0;
  mustStop = false;
  let p = from;
  while (p < length && events + 2 < MAX_EVENTS && s.hasFailed == 0 && !mustStop) {
    if (s.inPayload == 0) {
      if (s.headHave == 0) s.headNeed = 2;
      while (s.headHave < s.headNeed && p < length) {
        store<u8>(STATE + HEAD_AT + s.headHave++, load<u8>(IN + p++));
        if (s.headHave == 2) s.headNeed = headLength();
      }
      if (s.headHave < s.headNeed) break;
      s.headHave = 0;
      const reason = beginFrame(wantsMask);
      if (reason != 0) {
        fail(reason);
        break;
      }
      s.inPayload = 1;
    }
    const n = u32(min<u64>(s.frameLeft, length - p));
    if (s.isMasked != 0) {
      mask(IN + p, IN + p, n, rotated(s.key, s.keyAt));
      s.keyAt = (s.keyAt + n) & 3;
    }
    if (s.opcode >= CLOSE) controlPart(p, n);
    else messagePart(p, n);
    p += n;
    s.frameLeft -= n;
    if (s.frameLeft == 0 && s.hasFailed == 0) {
      s.inPayload = 0;
      s.frameStart = s.total + f64(p - from);
    }
  }
  s.total += f64(p - from);
  s.consumed = p;
  return events;
}

function fail(reason: u32): void {
  s.hasFailed = reason;
  writeEvent(events++, 0, FAILURE | reason, 0, 0, 0);
}

function headLength(): u32 {
  const second = load<u8>(STATE + HEAD_AT + 1);
  const length = second & 0x7f;
  return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + (second & 0x80 ? 4 : 0);
}

/** 0, or the reason why it cannot begin. */
function beginFrame(wantsMask: bool): u32 {
  const head = STATE + HEAD_AT;
  const first: u32 = load<u8>(head);
  const second: u32 = load<u8>(head + 1);
  const opcode = first & 15;
  if ((first & 0x70) != 0) return RESERVED_BITS;
  s.isFinal = first >>> 7;
  s.opcode = opcode;
  s.isMasked = second >>> 7;
  if ((s.isMasked != 0) != wantsMask) return WRONG_MASK;
  let length: u64 = second & 0x7f;
  let p: usize = head + 2;
  if (length == 126) {
    length = bswap<u16>(load<u16>(p));
    p += 2;
  } else if (length == 127) {
    length = bswap<u64>(load<u64>(p));
    p += 8;
    if (length > u64(MAX_EXACT)) return TOO_LONG;
  }
  if (opcode >= CLOSE) {
    if (opcode > PONG) return UNKNOWN_OPCODE;
    if (s.isFinal == 0 || length > MAX_CONTROL) return BAD_CONTROL;
    s.controlHave = 0;
  } else if (opcode == BINARY) {
    if (s.inMessage != 0) return WRONG_ORDER;
    s.inMessage = 1;
    s.step = 0;
    s.shift = 0;
    s.value = 0;
    s.isTold = 0;
  } else if (opcode == 0) {
    if (s.inMessage == 0) return WRONG_ORDER;
  } else {
    return opcode == TEXT ? NOT_BINARY : UNKNOWN_OPCODE;
  }
  s.frameLeft = length;
  s.keyAt = 0;
  if (s.isMasked != 0) s.key = load<u32>(p);
  return 0;
}

function controlPart(p: u32, n: u32): void {
  const isEnd = u64(n) == s.frameLeft;
  if (isEnd && s.controlHave == 0) {
    writeEvent(events++, 0, CONTROL | s.opcode, FIRST | LAST, p, n);
    return;
  }
  memory.copy(STATE + CONTROL_AT + s.controlHave, IN + p, n);
  s.controlHave += n;
  if (!isEnd) return;
  writeEvent(events++, 0, CONTROL | s.opcode, FIRST | LAST | IN_STATE, CONTROL_AT, s.controlHave);
  // The next one may need the place before the host has read this one.
  mustStop = true;
}

function messagePart(p: u32, n: u32): void {
  const end = p + n;
  const isLast = s.isFinal != 0 && u64(n) == s.frameLeft;
  let q = p;
  while (s.step < PAYLOAD && q < end) {
    const byte: u64 = load<u8>(IN + q++);
    if (s.shift == 63 && byte > 1) return fail(BAD_NUMBER);
    s.value |= (byte & 0x7f) << s.shift;
    if ((byte & 0x80) != 0) {
      s.shift += 7;
      continue;
    }
    const number = i64(s.value >>> 1) ^ -i64(s.value & 1);
    s.value = 0;
    s.shift = 0;
    if (s.step == CONNECTION) {
      if (number > MAX_EXACT || number < -MAX_EXACT) return fail(BAD_NUMBER);
      s.connection = f64(number);
    } else if (s.step == TYPE) {
      s.type = number > 0 && number < i64(CONTROL) ? u32(number) : NO_TYPE;
    }
    s.step++;
    if (s.step == DEADLINE && s.type != DATA && s.type != CONNECT) s.step = PAYLOAD;
  }
  if (s.step < PAYLOAD) {
    if (isLast) fail(CUT_SHORT);
    return;
  }
  if (q < end || s.isTold == 0 || isLast) {
    const flags = (s.isTold == 0 ? FIRST : 0) | (isLast ? LAST : 0);
    writeEvent(events++, s.connection, s.type, flags, q, end - q);
    s.isTold = 1;
  }
  if (isLast) s.inMessage = 0;
}
