// Two ends of a connection in memory, in pieces of random size, that can be cut with bytes still under way: what a network
// does. Delivery takes turns of the event loop and no time.
import { Duplex } from "node:stream";
import type { Random } from "#base/clock.ts";

export class End extends Duplex {
  other!: End;
  bytesWritten = 0;
  #inbox: Buffer[] = [];
  #wants = false;
  #isStalled = false;
  #full: () => void = () => {};
  readonly #split: (bytes: Buffer) => Buffer[];

  constructor(split: (bytes: Buffer) => Buffer[]) {
    super({ allowHalfOpen: false });
    this.#split = split;
  }

  /** What is sent to this end stays under way. */
  stall(isStalled: boolean): void {
    this.#isStalled = isStalled;
    this.#full();
    this.#full = () => {};
    this.#deliver();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.bytesWritten += chunk.length;
    // The receiver may change what it gets.
    const pieces = this.#split(Buffer.from(chunk));
    setImmediate(() => {
      this.other.#inbox.push(...pieces);
      this.other.#deliver();
      if (this.other.#isStalled) this.other.#full = done;
      else done();
    });
  }

  override _final(done: () => void): void {
    setImmediate(() => {
      if (!this.other.destroyed) this.other.push(null);
      done();
    });
  }

  override _read(): void {
    this.#wants = true;
    this.#deliver();
  }

  override _destroy(_error: Error | null, done: () => void): void {
    this.#inbox = [];
    setImmediate(() => {
      if (!this.other.destroyed && !this.#isStalled) this.other.destroy();
    });
    done();
  }

  #deliver(): void {
    if (this.#isStalled) return;
    while (this.#wants && this.#inbox.length > 0 && !this.destroyed) {
      this.#wants = this.push(this.#inbox.shift());
    }
  }
}

export function socketPair(random?: Random): [End, End] {
  const split = (bytes: Buffer): Buffer[] => {
    if (!random) return [bytes];
    const out: Buffer[] = [];
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + Math.floor(random.float() ** 3 * 20_000);
      out.push(Buffer.from(bytes.subarray(at, at + size)));
      at += size;
    }
    return out;
  };
  const [a, b] = [new End(split), new End(split)];
  a.other = b;
  b.other = a;
  return [a, b];
}
