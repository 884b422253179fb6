// Snapshots by schedule and on request, within the server. A scheduled one is left out when nothing durable was written
// since the last, so that an idle device writes nothing.
import { join } from "node:path";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import { parseCron } from "#model/cron.ts";
import { controlSocket } from "#platform/control-socket.ts";
import { datastoreError } from "./errors.ts";
import { pruneSnapshots, type Snapshot, type SnapshotDeps, saveSnapshot } from "./snapshot.ts";
import type { Datastore } from "./store.ts";

export interface SnapshotServiceOptions {
  readonly folder: string;
  readonly name: string;
  readonly node: string;
  readonly retention: number;
  readonly compress: boolean;
  /** Five fields of cron; undefined: only on request. */
  readonly schedule: string | undefined;
}

export interface SnapshotRequest {
  readonly command: "save";
  readonly folder?: string;
  readonly name: string;
  readonly compress: boolean;
  readonly retention: number;
}

/** Where the server of a store listens for `mote snapshot`. */
export const snapshotSocket = (databaseFolder: string): string => join(databaseFolder, "snapshot.sock");

/** A wall clock that jumps is noticed within so long. */
const maxSleepMs = 60_000;

export function createSnapshotSchedule(
  options: SnapshotServiceOptions & { readonly schedule: string },
  deps: SnapshotDeps & { readonly store: Datastore },
): Service {
  const { store, clock, log } = deps;
  const cron = parseCron(options.schedule);
  return {
    name: "snapshots",
    async run(signal, ready) {
      ready();
      let savedAt = -1;
      let next = cron.next(clock.now());
      while (!signal.aborted) {
        const leftMs = next === undefined ? maxSleepMs : next - clock.now();
        if (leftMs > 0) {
          await clock.sleep(Math.min(leftMs, maxSleepMs), signal).catch(() => {});
          // A clock that was set back must not wait for the old future.
          if (next !== undefined && next - clock.now() > leftMs) next = cron.next(clock.now());
          continue;
        }
        next = cron.next(clock.now());
        const written = store.accounts().durableWrites;
        if (written === savedAt) continue;
        try {
          await saveSnapshot(store, options, deps);
          await pruneSnapshots(options);
          savedAt = written;
        } catch (error) {
          log.error("snapshot failed", { error: messageOf(error) });
        }
      }
    },
  };
}

/** Answers `mote snapshot save` of the same machine. */
export function createSnapshotSocket(
  options: SnapshotServiceOptions & { readonly socket: string },
  deps: SnapshotDeps & { readonly store: Datastore },
): Service {
  let last: Promise<unknown> = Promise.resolve();
  const save = async (request: SnapshotRequest): Promise<Snapshot> => {
    const wanted = { ...options, ...request, folder: request.folder ?? options.folder };
    const saved = await saveSnapshot(deps.store, wanted, deps);
    await pruneSnapshots(wanted);
    return saved;
  };
  return controlSocket("snapshot-requests", options.socket, (request) => {
    if ((request as SnapshotRequest | null)?.command !== "save") {
      throw datastoreError("DATASTORE_BAD_REQUEST", "unknown request");
    }
    // One at a time: each writes all there is.
    const saved = last.then(() => save(request as SnapshotRequest));
    last = saved.catch(() => {});
    return saved;
  });
}
