// A log that keeps nothing: for `memory://` and for tests. A failure can be planted to see what the store makes of it.
import { nextTurn } from "#platform/turns.ts";
import type { DatastoreLog, LogBatch } from "../log.ts";

export interface MemoryLogOptions {
  /** Asked before each append; what it returns is thrown. */
  readonly fail?: (batch: LogBatch) => Error | undefined;
}

export function createMemoryLog(options: MemoryLogOptions = {}): DatastoreLog {
  return {
    full: false,
    load: () => Promise.resolve({ compacted: 0, reserved: 0, leases: [], newest: 0 }),
    async append(batch) {
      // A turn, as a flush would take: what needs durability must not be visible before.
      await nextTurn();
      const error = options.fail?.(batch);
      if (error) throw error;
    },
    recover: () => nextTurn(),
    close: () => Promise.resolve(),
  };
}
