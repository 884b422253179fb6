// Keeps history short: every `intervalMs` it drops what is older than the interval before, and at once what goes
// beyond a size. Upstream counterpart: the API server's compactor (storage/etcd3/compact.go, every 5 minutes).
import type { Clock } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { revision as asRevision } from "./backend.ts";
import type { Datastore } from "./store.ts";

export interface CompactorOptions {
  /** Default 5 minutes: a client that was away for less finds its place again. */
  readonly intervalMs?: number;
  /** Superseded revisions in memory; default 32 MiB. Looked at every `checkMs`. */
  readonly maxHistoryBytes?: number;
  /** Default 30 s. */
  readonly checkMs?: number;
}

export interface CompactorDeps {
  readonly store: Datastore;
  readonly clock: Clock;
  readonly log: Logger;
}

export function createCompactor(options: CompactorOptions, deps: CompactorDeps): Service {
  const { intervalMs = 300_000, maxHistoryBytes = 32 * 1024 * 1024, checkMs = 30_000 } = options;
  const { store, clock, log } = deps;
  return {
    name: "datastore-compactor",
    async run(signal, ready) {
      ready();
      let markAtMs = clock.monotonicMs();
      let mark: number = store.revision();
      while (!signal.aborted) {
        await clock.sleep(Math.min(checkMs, intervalMs), signal).catch(() => {});
        if (signal.aborted) return;
        const old = clock.monotonicMs() - markAtMs >= intervalMs;
        const large = store.accounts().historyBytes > maxHistoryBytes;
        if (!old && !large) continue;
        // Too much history: all of it goes, for memory that is gone takes the whole process along.
        const target = large ? store.revision() : mark;
        mark = store.revision();
        markAtMs = clock.monotonicMs();
        if (target <= store.compactedRevision()) continue;
        try {
          await store.compact(asRevision(target));
          log.debug("datastore compacted", { revision: target, historyBytes: store.accounts().historyBytes });
        } catch (error) {
          if (hasCode(error, "DATASTORE_CLOSED")) return;
          log.warn("compaction failed", { revision: target, error: messageOf(error) });
        }
      }
    },
  };
}
