// Snapshots by schedule and on request, within the server. A scheduled one is left out when nothing durable was written
// since the last, so that an idle device writes nothing. One that did not reach the bucket is sent again until it does or
// a newer one takes its place.
import { join } from "node:path";
import { pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Service } from "#base/service.ts";
import { parseCron } from "#model/cron.ts";
import { controlSocket } from "#platform/control-socket.ts";
import { fileFacts } from "#platform/open-file.ts";
import { systemRandom } from "#platform/random.ts";
import { datastoreError } from "./errors.ts";
import type { S3Settings } from "./s3-settings.ts";
import { pruneSnapshots, type Snapshot, type SnapshotDeps, saveSnapshot } from "./snapshot.ts";
import { openSnapshotBucket } from "./snapshot-s3.ts";
import type { Datastore } from "./store.ts";

export interface SnapshotServiceOptions {
  readonly folder: string;
  readonly name: string;
  readonly node: string;
  readonly retention: number;
  readonly compress: boolean;
  /** Five fields of cron; undefined: only on request. */
  readonly schedule: string | undefined;
  /** Of the bucket that they go to as well; read each time, because it may be in a Secret. */
  readonly s3?: () => Promise<S3Settings>;
}

/** Answered with the server's S3Settings: the Secret that holds them may be readable by it alone. */
export interface S3Request {
  readonly command: "s3";
  /** In kube-system. */
  readonly secret: string;
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
/** Until an upload that failed is tried again. */
const uploadPauseMs = 15 * 60_000;

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
      let unsent: { readonly snapshot: Snapshot; readonly afterMs: number } | undefined;
      let next = cron.next(clock.now());
      while (!signal.aborted) {
        if (unsent && unsent.afterMs <= clock.monotonicMs()) {
          const isSent = await send(unsent.snapshot, options, deps, signal);
          unsent = isSent ? undefined : { ...unsent, afterMs: clock.monotonicMs() + uploadPauseMs };
          continue;
        }
        const leftMs = next === undefined ? maxSleepMs : next - clock.now();
        if (leftMs > 0) {
          const untilSendMs = unsent ? unsent.afterMs - clock.monotonicMs() : maxSleepMs;
          await pause(clock, Math.min(leftMs, maxSleepMs, untilSendMs), signal);
          // A clock that was set back must not wait for the old future.
          if (next !== undefined && next - clock.now() > leftMs) next = cron.next(clock.now());
          continue;
        }
        next = cron.next(clock.now());
        const written = store.accounts().durableWrites;
        if (written === savedAt) continue;
        try {
          const snapshot = await saveSnapshot(store, options, deps);
          await pruneSnapshots(options);
          savedAt = written;
          if (options.s3) unsent = { snapshot, afterMs: clock.monotonicMs() };
        } catch (error) {
          log.error("snapshot failed", { error: messageOf(error) });
        }
      }
    },
  };
}

/** False: to be tried again. */
async function send(
  snapshot: Snapshot,
  options: SnapshotServiceOptions,
  { clock, log }: SnapshotDeps,
  signal: AbortSignal,
): Promise<boolean> {
  // Somebody has deleted it.
  if (!options.s3 || !(await fileFacts(snapshot.path))) return true;
  try {
    const bucket = openSnapshotBucket(await options.s3(), { clock, log, random: systemRandom });
    try {
      await bucket.upload(snapshot, options, signal);
    } finally {
      bucket.close();
    }
    return true;
  } catch (error) {
    if (!signal.aborted) log.error("snapshot is not uploaded", { name: snapshot.name, error: messageOf(error) });
    return false;
  }
}

/** Answers `mote snapshot` of the same machine. */
export function createSnapshotSocket(
  options: SnapshotServiceOptions & {
    readonly socket: string;
    readonly readSecret?: (name: string) => Promise<S3Settings>;
  },
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
    const { command, secret } = (request ?? {}) as Partial<S3Request>;
    if (command === "s3" && options.readSecret && typeof secret === "string") return options.readSecret(secret);
    if ((request as SnapshotRequest | null)?.command !== "save") {
      throw datastoreError("DATASTORE_BAD_REQUEST", "unknown request");
    }
    // One at a time: each writes all there is.
    const saved = last.then(() => save(request as SnapshotRequest));
    last = saved.catch(() => {});
    return saved;
  });
}
