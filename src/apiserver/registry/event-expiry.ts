// Events go an hour after they were last written, and the oldest go earlier where there are too many, so that a broken
// pod cannot fill the memory. Age is counted from when this process first saw a revision of the event, on the monotonic
// clock: boards without a battery have no other, and after a restart events live up to an hour longer.
// Upstream counterpart: --event-ttl, there by leases of etcd.
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { type Backend, type KeyValue, maxTxnOps, prefixRange } from "#datastore/backend.ts";
import { resourcePrefix } from "./keys.ts";

export interface EventExpiryDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly log: Logger;
}

const ttlMs = 3_600_000;
const sweepMs = 300_000;
/** About 1 KiB each. */
const maxEvents = 5000;

interface Seen {
  readonly modRevision: number;
  readonly sinceMs: number;
}

/** Sweeps until `signal` aborts. */
export async function expireEvents(deps: EventExpiryDeps, signal: AbortSignal): Promise<void> {
  let seen = new Map<string, Seen>();
  while (!signal.aborted) {
    try {
      seen = await sweep(deps, seen);
    } catch (error) {
      // Nothing depends on it; the next round tries again.
      if (!signal.aborted) deps.log.warn("events could not be expired", { error: messageOf(error) });
    }
    await pause(deps.clock, sweepMs, signal);
  }
}

async function sweep(deps: EventExpiryDeps, seen: ReadonlyMap<string, Seen>): Promise<Map<string, Seen>> {
  const nowMs = deps.clock.monotonicMs();
  const range = prefixRange(resourcePrefix({ storageGroup: "", plural: "events" }));
  const { kvs } = await deps.backend.range({ ...range, keysOnly: true });
  const left = new Map<string, Seen>();
  const old: KeyValue[] = [];
  for (const kv of kvs) {
    const known = seen.get(kv.key);
    const entry = known?.modRevision === kv.modRevision ? known : { modRevision: kv.modRevision, sinceMs: nowMs };
    if (nowMs - entry.sinceMs >= ttlMs) old.push(kv);
    else left.set(kv.key, entry);
  }
  if (left.size > maxEvents) {
    const oldest = kvs.filter((kv) => left.has(kv.key)).sort((a, b) => a.modRevision - b.modRevision);
    for (const kv of oldest.slice(0, left.size - maxEvents)) {
      old.push(kv);
      left.delete(kv.key);
    }
  }
  const slice = maxTxnOps / 2;
  for (let at = 0; at < old.length; at += slice) {
    const part = old.slice(at, at + slice);
    // One that was written meanwhile keeps its slice for the next round.
    await deps.backend.commit({
      compares: part.map(({ key, modRevision }) => ({ key, target: "mod", op: "=", value: modRevision })),
      success: part.map(({ key }) => ({ type: "delete", key })),
    });
  }
  return left;
}
