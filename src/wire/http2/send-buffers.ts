// Buffers for what is written while it is sent: used again, because memory that is new has to be brought in page by page, which
// costs more than what is written into it.
import { Buffer } from "node:buffer";

/** Eight of the largest frames that everybody takes; stays in a processor's cache until it was sent. */
const bufferBytes = 128 * 1024;
/** Kept for the next answer: what two connections have under way. */
const maxKept = 16;

export class SendBuffers {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(bufferBytes);
  }

  /** Nobody must use it any more. */
  give(buffer: Buffer): void {
    if (this.#free.length < maxKept) this.#free.push(buffer);
  }
}
