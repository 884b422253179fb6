// Small messages that come in parts, put together. Invariant: no more is held than the type of message may have, in few parts
// however many there were; what is beyond is cut, except of lists, of which a part would mean something else.
import type { Piece } from "./codec.ts";
import { maxMessageBytes, messageTypes } from "./messages.ts";

/** Parts of a message that are put together when there are as many: a part may be one byte. */
const maxParts = 64;

export class MessageParts {
  #bytes: Uint8Array[] = [];
  #size = 0;

  /** The message that ends with `piece`; undefined: it goes on. */
  take(piece: Piece): Uint8Array | "too long" | undefined {
    if (piece.isFirst) this.clear();
    const room = (maxMessageBytes[piece.kind] ?? 0) - this.#size;
    if (room < piece.bytes.length && piece.kind === messageTypes.sync) return "too long";
    if (room > 0 && piece.bytes.length > 0) {
      const bytes = new Uint8Array(piece.bytes.subarray(0, room));
      this.#bytes.push(bytes);
      this.#size += bytes.length;
      if (this.#bytes.length >= maxParts) this.#bytes = [Buffer.concat(this.#bytes)];
    }
    if (!piece.isLast) return undefined;
    const whole = this.#bytes.length === 1 ? this.#bytes[0]! : Buffer.concat(this.#bytes);
    this.clear();
    return whole;
  }

  clear(): void {
    this.#bytes = [];
    this.#size = 0;
  }
}
