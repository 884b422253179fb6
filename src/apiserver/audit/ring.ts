// The last events, in memory: what a device keeps of its audit log without wearing out its flash. Who is not known can fill
// a small part of it only, so that knocking at the door a thousand times does not make it forget what others did.
// Gone with the process.

/** As much as some thousand events need at 1 KB each: a device of 256 MiB can spare it. */
const maxBytes = 1024 * 1024;
/** Keeps what is told at once within what a reader can look through. */
const maxEvents = 2000;
/** For requests without valid credentials. */
const strangersShare = 1 / 8;
/** Beyond its characters, of a byte each as a rule: the string's and the entry's own size. */
const overheadBytes = 80;
/** Larger ones would push out all others: they are kept without bodies. */
export const maxRingEventBytes = 32 * 1024;

interface Entry {
  readonly order: number;
  /** A string, as small buffers are cut from blocks of 8 KiB, which stay whole for the sake of one line. */
  readonly line: string;
}

export class AuditRing {
  readonly #known = new Lane(maxBytes * (1 - strangersShare), maxEvents * (1 - strangersShare));
  readonly #strangers = new Lane(maxBytes * strangersShare, maxEvents * strangersShare);
  #order = 0;

  /** `line` without its end. */
  add(line: string, isStranger: boolean): void {
    const lane = isStranger ? this.#strangers : this.#known;
    lane.add({ order: this.#order++, line });
  }

  get count(): number {
    return this.#known.count + this.#strangers.count;
  }
  get sizeBytes(): number {
    return this.#known.sizeBytes + this.#strangers.sizeBytes;
  }

  /** One event a line, oldest first; of these the newest `limit`. */
  read(limit: number): Buffer {
    const all = [...this.#known.entries(), ...this.#strangers.entries()].sort((a, b) => a.order - b.order);
    return Buffer.from(
      all
        .slice(Math.max(0, all.length - limit))
        .map(({ line }) => `${line}\n`)
        .join(""),
    );
  }
}

/** First in, first out. */
class Lane {
  readonly #maxBytes: number;
  readonly #maxEvents: number;
  #entries: Entry[] = [];
  /** Entries before it are gone. */
  #first = 0;
  #bytes = 0;
  constructor(bytes: number, events: number) {
    this.#maxBytes = bytes;
    this.#maxEvents = events;
  }

  get count(): number {
    return this.#entries.length - this.#first;
  }
  get sizeBytes(): number {
    return this.#bytes;
  }
  entries(): Entry[] {
    return this.#entries.slice(this.#first);
  }

  add(entry: Entry): void {
    const size = sizeOf(entry);
    if (size > this.#maxBytes) return;
    this.#entries.push(entry);
    this.#bytes += size;
    while (this.count > this.#maxEvents || this.#bytes > this.#maxBytes) {
      this.#bytes -= sizeOf(this.#entries[this.#first]!);
      this.#entries[this.#first++] = none;
    }
    if (this.#first > 256 && this.#first * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
  }
}

const none: Entry = { order: -1, line: "" };
const sizeOf = ({ line }: Entry): number => line.length + overheadBytes;
