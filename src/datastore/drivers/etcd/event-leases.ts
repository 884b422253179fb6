// Leases for what is kept for an hour only (storage class "event"): keys written within a minute share one, so that a
// burst of events costs one lease. Upstream counterpart: the API server's lease manager (storage/etcd3/lease_manager.go).
import type { Clock } from "#base/clock.ts";

export interface EventLeasesDeps {
  readonly clock: Clock;
  grant(ttlSeconds: number): Promise<number>;
}

const ttlSeconds = 3600;
const reuseMs = 60_000;
/** etcd deletes all keys of a lease in one transaction. */
const maxKeys = 1000;

export class EventLeases {
  readonly #deps: EventLeasesDeps;
  #current: { readonly id: Promise<number>; readonly untilMs: number; left: number } | undefined;

  constructor(deps: EventLeasesDeps) {
    this.#deps = deps;
  }

  /** A lease for one more key, good for an hour at least. */
  take(): Promise<number> {
    const nowMs = this.#deps.clock.monotonicMs();
    let current = this.#current;
    if (!current || nowMs >= current.untilMs || current.left === 0) {
      const id = this.#deps.grant(ttlSeconds + reuseMs / 1000);
      const fresh = { id, untilMs: nowMs + reuseMs, left: maxKeys };
      id.catch(() => {
        if (this.#current === fresh) this.#current = undefined;
      });
      this.#current = fresh;
      current = fresh;
    }
    current.left--;
    return current.id;
  }

  /** etcd does not know it any more. */
  drop(): void {
    this.#current = undefined;
  }
}
