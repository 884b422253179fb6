// The last revisions of an etcd as one watch has told them, whole and in order. Watchers that come with a recent
// revision are served from here, and all watchers get the same event objects. Bounded by bytes: what is older is asked
// of etcd again.
import type { WatchEvent } from "../../backend.ts";

export interface Change {
  readonly revision: number;
  readonly events: readonly WatchEvent[];
  readonly bytes: number;
}

/** Some thousand changes of usual objects; a reconnecting client is rarely further behind. */
const maxBytes = 16 * 1024 * 1024;
/** What an event costs beside its values. */
const eventBytes = 300;

export class History {
  #changes: Change[] = [];
  #first = 0;
  #bytes = 0;
  /** Every change from this revision on is here. */
  from: number;
  readonly #maxBytes: number;

  constructor(from: number, bound = maxBytes) {
    this.from = from;
    this.#maxBytes = bound;
  }

  push(revision: number, events: readonly WatchEvent[]): void {
    let bytes = 0;
    for (const { kv, prevKv } of events) bytes += eventBytes + kv.value.length + (prevKv?.value.length ?? 0);
    this.#changes.push({ revision, events, bytes });
    this.#bytes += bytes;
    while (this.#bytes > this.#maxBytes && this.#first < this.#changes.length) {
      const dropped = this.#changes[this.#first++]!;
      this.#bytes -= dropped.bytes;
      this.from = dropped.revision + 1;
    }
    if (this.#first > 1000 && this.#first > this.#changes.length / 2) {
      this.#changes.splice(0, this.#first);
      this.#first = 0;
    }
  }

  /** Forgets everything: the next change has at least this revision. */
  restart(from: number): void {
    this.#changes = [];
    this.#first = 0;
    this.#bytes = 0;
    this.from = from;
  }

  /** Events of changes from `from` on that `wants` takes, at most about `limit`, and the revision they are complete to. */
  read(
    from: number,
    limit: number,
    newest: number,
    wants: (key: string) => boolean,
  ): { readonly events: WatchEvent[]; readonly through: number } {
    const events: WatchEvent[] = [];
    let low = this.#first;
    let high = this.#changes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#changes[middle]!.revision < from) low = middle + 1;
      else high = middle;
    }
    for (; low < this.#changes.length; low++) {
      const change = this.#changes[low]!;
      for (const event of change.events) if (wants(event.kv.key)) events.push(event);
      if (events.length >= limit) return { events, through: change.revision };
    }
    return { events, through: newest };
  }
}
