// What resized pods have been allocated, across restarts: the runtime remembers what a container was made with, and this
// file what it was given since. Written only when a resize is accepted or such a pod ends, so most nodes never have it.
// Counterpart: the kubelet's allocated_pods_state checkpoint, which is written for every pod.
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import type { Allocation } from "./resize.ts";

/** The file: by pod uid. As many entries as resized pods on this node. */
type Kept = Readonly<Record<string, Allocation>>;

export class Allocations {
  readonly #path: string;
  readonly #log: Logger;
  #kept: Kept = {};
  #saving: Promise<void> = Promise.resolve();

  constructor(deps: { readonly dataFolder: string; readonly log: Logger }) {
    this.#path = `${deps.dataFolder}/allocations.json`;
    this.#log = deps.log;
  }

  async open(): Promise<void> {
    try {
      const text = (await readFileIfExists(this.#path))?.toString("utf8");
      this.#kept = text ? ((JSON.parse(text) as { pods?: Kept }).pods ?? {}) : {};
    } catch (error) {
      // Resized pods count as what their containers were made with, and are resized anew.
      this.#log.warn("cannot read what pods were resized to", { path: this.#path, error: messageOf(error) });
    }
  }

  get(uid: string): Allocation | undefined {
    return this.#kept[uid];
  }

  /** Resolves when it is on disk; where it cannot be, everything is as before. */
  async set(uid: string, allocation: Allocation): Promise<void> {
    const before = this.#kept[uid];
    this.#kept = { ...this.#kept, [uid]: allocation };
    try {
      await this.#save();
    } catch (error) {
      const { [uid]: _failed, ...rest } = this.#kept;
      this.#kept = before ? { ...rest, [uid]: before } : rest;
      throw error;
    }
  }

  /** Frees what pods had that are not among `uids`. */
  keep(uids: ReadonlySet<string>): void {
    for (const uid of Object.keys(this.#kept)) if (!uids.has(uid)) this.forget(uid);
  }

  forget(uid: string): void {
    if (!this.#kept[uid]) return;
    const { [uid]: _gone, ...rest } = this.#kept;
    this.#kept = rest;
    this.#save().catch((error: unknown) => {
      // An entry of a pod that is gone does no harm; the next change writes everything again.
      this.#log.warn("cannot write what pods were resized to", { path: this.#path, error: messageOf(error) });
    });
  }

  /** Resolves when nothing is being written any more. */
  close(): Promise<void> {
    return this.#saving;
  }

  #save(): Promise<void> {
    const text = `${JSON.stringify({ pods: this.#kept })}\n`;
    const write = () => writeFileDurable(this.#path, text, 0o600);
    // One after the other, whatever became of the one before.
    const mine = this.#saving.then(write, write);
    this.#saving = mine.catch(() => {});
    return mine;
  }
}
