// Keeps mote-status.txt on the boot partition true with as few writes as can be: only a text that differs is written, and
// not more often than once a minute after the first few.
import type { Clock } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { readFileIfExists } from "#platform/files.ts";
import { overwriteInPlace } from "#platform/flash-files.ts";
import { renderStatus, type StatusFacts, statusFileName } from "./status-text.ts";
import type { Storage } from "./storage.ts";

export interface StatusFile {
  readonly facts: StatusFacts;
  set(change: Partial<StatusFacts>): void;
  /** Writes what is pending now. */
  flush(): Promise<void>;
}

/** Changes that are written at once: those of a start. */
const freeChanges = 4;
const pauseMs = 60_000;

export function createStatusFile(
  storage: Pick<Storage, "bootDir" | "writeBoot">,
  initial: StatusFacts,
  deps: { readonly clock: Clock; readonly log: Logger },
): StatusFile {
  const path = `${storage.bootDir}/${statusFileName}`;
  let facts = initial;
  /** Counted when a write is planned, not when the card is done with it: a slow card must not earn more writes. */
  let planned = 0;
  let cancel: (() => void) | undefined;
  let running: Promise<void> = Promise.resolve();

  async function write(): Promise<void> {
    const text = renderStatus(facts);
    try {
      const old = await readFileIfExists(path);
      // A device that was ready and is starting again needs no two writes for that.
      const isRoutine = facts.phase === "starting" && facts.problems.length === 0 && !facts.detail;
      if (old !== undefined && (isRoutine || old.toString("utf8") === text)) return;
      await storage.writeBoot(() => overwriteInPlace(path, Buffer.from(text)));
    } catch (error) {
      deps.log.error("cannot write the status file", { error: messageOf(error) });
    }
  }
  const flush = () => {
    cancel?.();
    cancel = undefined;
    running = running.then(write);
    return running;
  };
  return {
    get facts() {
      return facts;
    },
    set(change) {
      facts = { ...facts, ...change };
      if (cancel) return;
      cancel = deps.clock.after(planned < freeChanges ? 0 : pauseMs, () => void flush());
      planned++;
    },
    flush,
  };
}
