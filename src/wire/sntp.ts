// The Simple Network Time Protocol, client side: one packet out, one packet back, the difference of the clocks. Pure.
// Upstream counterpart: RFC 4330.
import { Buffer } from "node:buffer";

export const sntpPort = 123;
const packetSize = 48;
/** Seconds from 1900, where the protocol counts from, to 1970. */
const epochOffsetS = 2_208_988_800;
/** Seconds of one era; the next begins in February 2036. */
const eraS = 2 ** 32;

/** A request that carries `nonce` (8 bytes) where the server's answer repeats it. */
export function encodeRequest(nonce: Uint8Array): Buffer {
  const packet = Buffer.alloc(packetSize);
  packet[0] = (4 << 3) | 3; // version 4, client
  packet.set(nonce.subarray(0, 8), 40);
  return packet;
}

export interface Exchange {
  readonly nonce: Uint8Array;
  readonly sentMs: number;
  readonly receivedMs: number;
}

/** How far the server's clock is ahead, ms; undefined where the packet is no usable answer to this request. */
export function decodeOffset(packet: Uint8Array, exchange: Exchange): number | undefined {
  if (packet.length < packetSize) return undefined;
  const bytes = Buffer.from(packet);
  const mode = bytes[0]! & 7;
  const leap = bytes[0]! >> 6;
  const stratum = bytes[1]!;
  // Leap 3 and strata 0 and 16 say: do not believe me.
  if (mode !== 4 || leap === 3 || stratum === 0 || stratum > 15) return undefined;
  if (!bytes.subarray(24, 32).equals(Buffer.from(exchange.nonce.subarray(0, 8)))) return undefined;
  const received = timestamp(bytes, 32);
  const sent = timestamp(bytes, 40);
  if (received === undefined || sent === undefined) return undefined;
  return (received - exchange.sentMs + (sent - exchange.receivedMs)) / 2;
}

function timestamp(bytes: Buffer, at: number): number | undefined {
  const seconds = bytes.readUInt32BE(at);
  const fraction = bytes.readUInt32BE(at + 4);
  if (seconds === 0 && fraction === 0) return undefined;
  // Times before 1968 belong to the era that begins in 2036.
  const era = seconds < 0x80000000 ? eraS : 0;
  return (seconds + era - epochOffsetS) * 1000 + (fraction / 2 ** 32) * 1000;
}
