// Leases in memory: who lives how long, and which keys go with whom. Time is monotonic, so a clock that jumps by
// decades neither ends nor extends one; after a restart a lease has its full time again, as in etcd.
import type { Clock } from "#base/clock.ts";
import type { Key, Lease } from "../backend.ts";
import { datastoreError } from "../errors.ts";

interface Entry {
  readonly ttlSeconds: number;
  deadlineMs: number;
  cancel: () => void;
  /** The log knows this lease. It is told with the first durable key, so that leases of Events cost no flush. */
  logged: boolean;
}

/** A timer holds at most 24 days; a longer lease is looked at again then. */
const maxTimerMs = 2_000_000_000;
const retryMs = 1000;

export class LeaseTable {
  readonly #clock: Clock;
  readonly #expire: (id: number) => void;
  readonly #leases = new Map<number, Entry>();
  readonly #keys = new Map<number, Set<Key>>();
  #lastId = 0;

  constructor(clock: Clock, expire: (id: number) => void) {
    this.#clock = clock;
    this.#expire = expire;
  }

  has(id: number): boolean {
    return this.#leases.has(id);
  }

  add(id: number, ttlSeconds: number, logged: boolean): void {
    this.#start(id, ttlSeconds, ttlSeconds * 1000, logged);
  }

  /** Back again after its end could not be written: due in a second. */
  retry(id: number, ttlSeconds: number, logged: boolean): void {
    this.remove(id);
    this.#start(id, ttlSeconds, retryMs, logged);
  }

  /** Keys stay attached until they are detached. */
  remove(id: number): void {
    this.#leases.get(id)?.cancel();
    this.#leases.delete(id);
  }

  renew(id: number): Lease {
    const entry = this.#find(id);
    entry.cancel();
    this.#start(id, entry.ttlSeconds, entry.ttlSeconds * 1000, entry.logged);
    return this.describe(id);
  }

  describe(id: number): Lease {
    const entry = this.#find(id);
    const leftMs = entry.deadlineMs - this.#clock.monotonicMs();
    return { id, ttlSeconds: entry.ttlSeconds, remainingSeconds: Math.max(0, Math.ceil(leftMs / 1000)) };
  }

  /** True when the log is to be told now. */
  markLogged(id: number): boolean {
    const entry = this.#find(id);
    if (entry.logged) return false;
    entry.logged = true;
    return true;
  }

  unmarkLogged(id: number): void {
    const entry = this.#leases.get(id);
    if (entry) entry.logged = false;
  }

  isLogged(id: number): boolean {
    return this.#leases.get(id)?.logged ?? false;
  }

  attach(id: number, key: Key): void {
    const keys = this.#keys.get(id);
    if (keys) keys.add(key);
    else this.#keys.set(id, new Set([key]));
  }

  detach(id: number, key: Key): void {
    const keys = this.#keys.get(id);
    keys?.delete(key);
    if (keys?.size === 0) this.#keys.delete(id);
  }

  /** In order, so that they also go in order. */
  keysOf(id: number): Key[] {
    return [...(this.#keys.get(id) ?? [])].sort();
  }

  clearKeys(): void {
    this.#keys.clear();
  }

  list(): Lease[] {
    return [...this.#leases.keys()].map((id) => this.describe(id));
  }

  /** An id that no lease has; `hint` keeps ids of different lives of the store apart. */
  freeId(hint: number): number {
    this.#lastId = Math.max(this.#lastId, hint) + 1;
    while (this.#leases.has(this.#lastId)) this.#lastId++;
    return this.#lastId;
  }

  /** Cancels all timers. */
  clear(): void {
    for (const entry of this.#leases.values()) entry.cancel();
  }

  #start(id: number, ttlSeconds: number, leftMs: number, logged: boolean): void {
    const entry: Entry = { ttlSeconds, deadlineMs: this.#clock.monotonicMs() + leftMs, cancel: () => {}, logged };
    this.#leases.set(id, entry);
    this.#arm(id, entry);
  }

  #arm(id: number, entry: Entry): void {
    const leftMs = entry.deadlineMs - this.#clock.monotonicMs();
    entry.cancel = this.#clock.after(Math.min(leftMs, maxTimerMs), () => {
      if (entry.deadlineMs > this.#clock.monotonicMs()) this.#arm(id, entry);
      else this.#expire(id);
    });
  }

  #find(id: number): Entry {
    const entry = this.#leases.get(id);
    if (!entry) throw datastoreError("DATASTORE_LEASE_NOT_FOUND", `lease ${id} not found`, { id });
    return entry;
  }
}
