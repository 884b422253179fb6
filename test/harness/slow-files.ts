// The system's files behind a card whose flush takes `flushMs`: one that blocks holds the whole thread so long.
import type { BlockFiles } from "#platform/block-file.ts";
import { systemBlockFiles } from "#platform/block-file.ts";
import { systemClock } from "#platform/clock.ts";

export class SlowFiles implements BlockFiles {
  readonly #flushMs: number;
  /** Flushes that held the thread. */
  blocking = 0;
  /** Flushes that did not. */
  flushes = 0;

  constructor(flushMs: number) {
    this.#flushMs = flushMs;
  }

  open(path: string, options: { readonly create: boolean }) {
    const file = systemBlockFiles.open(path, options);
    return {
      ...file,
      sync: () => {
        this.#block();
        file.sync();
      },
      flush: async () => {
        this.flushes++;
        await Promise.all([systemClock.sleep(this.#flushMs), file.flush()]);
      },
    };
  }

  exists = (path: string) => systemBlockFiles.exists(path);
  remove = (path: string) => systemBlockFiles.remove(path);
  rename = (from: string, to: string) => systemBlockFiles.rename(from, to);
  syncFolderOf(path: string) {
    this.#block();
    systemBlockFiles.syncFolderOf(path);
  }

  #block(): void {
    this.blocking++;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.#flushMs);
  }
}
