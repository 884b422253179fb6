// Keeps history short: every `intervalMs` it drops what is older than the interval before, and what goes beyond a size
// sooner: that bounds the memory of its index, the file, and the time that opening takes. A store at rest is left alone for
// hours, since a compaction writes more to the card than the few records it would drop. Upstream counterpart: the API
// server's compactor (storage/etcd3/compact.go, every 5 minutes).
import { type Clock, pause } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { revision as asRevision } from "./backend.ts";
import type { Datastore } from "./store.ts";

export interface CompactorOptions {
  /** Default 5 minutes: a client that was away for less finds its place again. */
  readonly intervalMs?: number;
  /** Superseded revisions in memory; default 10 MiB, which is some 350,000. Looked at every `checkMs`. */
  readonly maxHistoryBytes?: number;
  /** Superseded values in memory or in the log; default 64 MiB. */
  readonly maxHistoryValueBytes?: number;
  /** Default 5 s. */
  readonly checkMs?: number;
}

export interface CompactorDeps {
  readonly store: Datastore;
  readonly clock: Clock;
  readonly log: Logger;
}

const mib = 1024 * 1024;
/** So few records since the last compaction are a store at rest: a node tells its unchanged status twice an hour. */
const restWrites = 8;
/** Heartbeats' history that a store at rest may hold: some four hours of one node. */
const restHistoryBytes = mib;
const longestRestMs = 6 * 3_600_000;

export function createCompactor(options: CompactorOptions, deps: CompactorDeps): Service {
  const { intervalMs = 300_000, checkMs = 5000 } = options;
  const { maxHistoryBytes = 10 * mib, maxHistoryValueBytes = 64 * mib } = options;
  const { store, clock, log } = deps;
  return {
    name: "datastore-compactor",
    async run(signal, ready) {
      ready();
      let markAtMs = clock.monotonicMs();
      let mark: number = store.revision();
      let writesAtMark = store.accounts().durableWrites;
      let compactedAtMs = markAtMs;
      let writesAtCompaction = writesAtMark;
      let checked = mark;
      while (!signal.aborted) {
        await pause(clock, Math.min(checkMs, intervalMs), signal);
        if (signal.aborted) return;
        const old = clock.monotonicMs() - markAtMs >= intervalMs;
        const { historyBytes, historyValueBytes, durableWrites } = store.accounts();
        const size = Math.max(historyBytes / maxHistoryBytes, historyValueBytes / maxHistoryValueBytes);
        const before = checked;
        checked = store.revision();
        if (!old && size <= 1) continue;
        // Too much: what came since the last look stays, for watchers that are a little behind. Far too much: all of it goes.
        const target = size > 2 ? checked : size > 1 ? Math.max(mark, before) : mark;
        const droppedWrites = size > 1 ? durableWrites : writesAtMark;
        mark = checked;
        markAtMs = clock.monotonicMs();
        writesAtMark = durableWrites;
        if (target <= store.compactedRevision()) continue;
        const isAtRest = droppedWrites - writesAtCompaction <= restWrites && historyValueBytes <= restHistoryBytes;
        if (isAtRest && size <= 1 && markAtMs - compactedAtMs < longestRestMs) continue;
        try {
          await store.compact(asRevision(target));
          compactedAtMs = markAtMs;
          writesAtCompaction = droppedWrites;
          log.debug("datastore compacted", { revision: target, historyBytes: store.accounts().historyBytes });
        } catch (error) {
          if (hasCode(error, "DATASTORE_CLOSED")) return;
          log.warn("compaction failed", { revision: target, error: messageOf(error) });
        }
      }
    },
  };
}
