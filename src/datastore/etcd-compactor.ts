// Keeps the history of an external etcd short. Several API servers may share it, mote's or upstream's: they agree by a
// key whose version counts the rounds, so that one of them compacts in each interval, to what was current one interval
// before. Key and protocol are those of upstream's storage/etcd3/compact.go.
import { Buffer } from "node:buffer";
import { type Clock, pause } from "#base/clock.ts";
import { hasCode, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { revision as asRevision, type Backend } from "./backend.ts";

export interface EtcdCompactorOptions {
  /** Default 5 minutes: a client that was away for less finds its place again. */
  readonly intervalMs?: number;
}

export interface EtcdCompactorDeps {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly log: Logger;
}

const roundKey = "compact_rev_key";

export function createEtcdCompactor(options: EtcdCompactorOptions, deps: EtcdCompactorDeps): Service {
  const { intervalMs = 300_000 } = options;
  const { clock, log } = deps;
  return {
    name: "datastore-compactor",
    async run(signal, ready) {
      ready();
      let round = 0;
      let target = 0;
      while (!signal.aborted) {
        await pause(clock, intervalMs, signal);
        if (signal.aborted) return;
        try {
          ({ round, current: target } = await compactOnce(round, target, deps));
        } catch (error) {
          if (hasCode(error, "DATASTORE_CLOSED")) return;
          log.warn("compaction failed", { revision: target, error: messageOf(error) });
        }
      }
    },
  };
}

/** Compacts to `target` when nobody has had this round; answers the round that is next and the current revision. */
export async function compactOnce(
  round: number,
  target: number,
  { backend, log }: EtcdCompactorDeps,
): Promise<{ readonly round: number; readonly current: number }> {
  const result = await backend.commit({
    compares: [{ key: roundKey, target: "version", op: "=", value: round }],
    success: [{ type: "put", key: roundKey, value: Buffer.from(String(target)) }],
    failure: [{ type: "range", range: { key: roundKey } }],
  });
  const current = result.revision;
  if (!result.succeeded) {
    const [found] = result.results;
    return { round: found?.type === "range" ? (found.result.kvs[0]?.version ?? 0) : round, current };
  }
  if (target > 0) {
    try {
      await backend.compact(asRevision(target));
      log.debug("etcd compacted", { revision: target });
    } catch (error) {
      // Somebody, etcdctl say, was there before.
      if (!hasCode(error, "DATASTORE_COMPACTED")) throw error;
    }
  }
  return { round: round + 1, current };
}
